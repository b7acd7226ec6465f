// @ts-check

/**
 * Appends an item, and removes the oldest one if the array then has more than `limit` items.
 *
 * @template T
 * @param {T[]} array
 * @param {T} item
 * @param {number} limit
 */
export function pushBounded(array, item, limit) {
	array.push(item);
	if (array.length > limit) array.shift();
}
