// @ts-check
// Finds and creates elements, and writes to them only where a value has changed.

/** @typedef {Record<string, string | number>} Attributes */

/**
 * Returns the element with this id. Throws an Error if the page has none.
 *
 * @param {string} id
 */
export function byId(id) {
	const element = document.getElementById(id);
	if (element === null) throw new Error(`the page has no element with the id ${id}`);
	return element;
}

/**
 * @param {string} name
 * @param {Attributes} [attributes]
 * @param {(Node | string)[]} children
 */
export function html(name, attributes, ...children) {
	return fill(document.createElement(name), attributes, children);
}

/**
 * @param {string} name
 * @param {Attributes} [attributes]
 * @param {(Node | string)[]} children
 */
export function svg(name, attributes, ...children) {
	return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

/**
 * @template {Element} T
 * @param {T} element
 * @param {Attributes} attributes
 * @param {(Node | string)[]} children
 */
function fill(element, attributes = {}, children) {
	for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
	element.append(...children);
	return element;
}

/**
 * @param {Element} element
 * @param {string} name
 * @param {string} value
 */
export function setAttribute(element, name, value) {
	if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/**
 * Sets the text of an element. A screen reader announces every write to a status, even of an equal text.
 *
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
	if (element.textContent !== text) element.textContent = text;
}

/**
 * Calls back with the size of a drawing, in CSS pixels, whenever that has changed. The browser reports it once it has
 * laid the page out: to read a size while drawing would make the browser do so at once.
 *
 * @param {Element} drawing
 * @param {(width: number, height: number) => void} onSize
 */
export function observeSize(drawing, onSize) {
	new ResizeObserver(([{ contentRect }]) => {
		if (contentRect.height > 0) onSize(contentRect.width, contentRect.height);
	}).observe(drawing);
}
