// @ts-check
// Which processes this page has heard of, and where each of them stands in the picture. This module draws nothing.

/**
 * @import { State } from "./state.js"
 *
 * @typedef {object} Role What an actor does now.
 * @property {boolean} isActive True for the broadcaster of the newest message, and for the relay that serves this page.
 * @property {number | null} until When it was seen last, in UNIX milliseconds; null while it is active.
 *
 * @typedef {object} Process
 * @property {string} name
 * @property {Role | null} broadcaster Null if this process has no such actor, or is not known to have one.
 * @property {Role | null} relay
 *
 * @typedef {{ broadcaster: Process | null, relay: Process | null }} Row The same process twice, or two processes of one
 * actor each.
 */

/**
 * Returns the processes with the actors that they are known to run, the active ones first.
 *
 * @param {State} state
 * @returns {Process[]}
 */
export function processes(state, now = Date.now()) {
	const broadcasters = state.instances("broadcaster", now);
	const relays = state.instances("relay", now);
	const names = new Set([
		state.newest?.broadcaster ?? "",
		state.protocol.relay ?? "",
		...relays.keys(),
		...broadcasters.keys(),
	]);
	/**
	 * @param {Map<string, number>} instances
	 * @param {string} name
	 * @param {string | null | undefined} active
	 */
	const role = (instances, name, active) => {
		const seenAt = instances.get(name);
		const isActive = name === active;
		return seenAt === undefined ? null : { isActive, until: isActive ? null : seenAt };
	};
	return [...names]
		.map((name) => ({
			name,
			broadcaster: role(broadcasters, name, state.newest?.broadcaster),
			relay: role(relays, name, state.protocol.relay),
		}))
		.filter(({ broadcaster, relay }) => broadcaster !== null || relay !== null);
}

/**
 * Returns the rows of the picture: a process with both actors has a row of its own.
 *
 * @param {Process[]} known
 * @returns {Row[]} At least one. Those with an active process are the first.
 */
export function rows(known) {
	const both = known.filter(({ broadcaster, relay }) => broadcaster !== null && relay !== null);
	const broadcasters = known.filter(({ relay }) => relay === null);
	const relays = known.filter(({ broadcaster }) => broadcaster === null);
	const count = Math.max(broadcasters.length, relays.length);
	const separate = Array.from({ length: count }, (_, i) => ({
		broadcaster: broadcasters[i] ?? null,
		relay: relays[i] ?? null,
	}));
	const found = [...both.map((process) => ({ broadcaster: process, relay: process })), ...separate];
	const isActive = (/** @type {Row} */ { broadcaster, relay }) =>
		Number(Boolean(broadcaster?.broadcaster?.isActive || relay?.relay?.isActive));
	found.sort((one, other) => isActive(other) - isActive(one));
	return found.length > 0 ? found : [{ broadcaster: null, relay: null }];
}
