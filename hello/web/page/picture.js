// @ts-check
// Draws what runs: each process as a box with its actors in it, the channel, this page, and the path of a message.

import { processes, rows } from "./deployment.js";
import { byId, setAttribute, setText, svg } from "./elements.js";
import { CHANNEL_TO_RELAY, RELAY_TO_PAGE } from "./state.js";
import { actorText, channelLines, formatDuration, pageLines, pathText, processesText, shorten } from "./text.js";

/**
 * @import { Process, Row } from "./deployment.js"
 * @import { Actor, State } from "./state.js"
 *
 * @typedef {{ left: number, width: number }} Column
 */

// In units of the drawing, which is as wide as there is room.
const MIN_WIDTH = 280; // a drawing with less room is made smaller
const NARROW = 520; // a narrower picture has shorter texts, and no delays beside its arrows
const ROW_HEIGHT = 46;
const ROW_DISTANCE = 53;
const MAX_ROWS = 3;
const HEIGHT = (MAX_ROWS - 1) * ROW_DISTANCE + ROW_HEIGHT;
const PADDING = 6;
const LETTER_WIDTH = 7.8; // of names, which are bold; the widest letters are rare
const PULSE_MS = 900;
const NOT_KNOWN = { name: "not known yet", broadcaster: null, relay: null };

const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const picture = byId("picture");
const pathDescription = byId("path");
const pulseCircle = svg("circle", { class: "pulse", r: 6 });
/** @type {[number, number][]} The path of the newest message through the picture. */
let path = [];
let drawn = "";

/**
 * Draws the picture, if anything in it has changed. What lies before a broken hop is drawn as it was known last, with
 * dashed lines.
 *
 * @param {State} state
 */
export function drawPicture(state, now = Date.now()) {
	const size = picture.getBoundingClientRect();
	if (size.height === 0) return; // the page is not laid out yet
	const width = Math.max(MIN_WIDTH, Math.round((size.width / size.height) * HEIGHT));
	const found = rows(processes(state, now));
	const { brokenHop, condition, hopDelays, backend } = state;
	const isNarrow = width < NARROW;
	const words = [channelLines(state), pageLines(state, isNarrow)];
	setText(pathDescription, pathText(state));
	setAttribute(picture, "aria-label", processesText(state));
	const wanted = JSON.stringify([width, found, brokenHop, condition, hopDelays, backend, words]);
	if (wanted === drawn) return;
	drawn = wanted;
	const columns = placeColumns(width);
	const shown = found.slice(0, found.length > MAX_ROWS ? MAX_ROWS - 1 : MAX_ROWS);
	const leaderRow = Math.max(
		0,
		shown.findIndex(({ broadcaster }) => broadcaster?.broadcaster?.isActive),
	);
	const relayRow = Math.max(
		0,
		shown.findIndex(({ relay }) => relay?.relay?.isActive),
	);
	const isWithin = backend === "memory" && shown[leaderRow]?.broadcaster === shown[leaderRow]?.relay;
	const channelTop = isWithin ? leaderRow * ROW_DISTANCE + PADDING : 0;
	const channelHeight = isWithin ? ROW_HEIGHT - 2 * PADDING : HEIGHT;
	setAttribute(picture, "viewBox", `0 0 ${width} ${HEIGHT}`);
	picture.replaceChildren(
		...shown.flatMap((row, i) => drawRow(row, i, columns, state, isNarrow)),
		...(found.length > shown.length ? [drawMore(found.length - shown.length, columns[0])] : []),
		drawPlace(columns[1], channelTop, channelHeight, words[0], placeClass(CHANNEL_TO_RELAY, state)),
		drawPlace(columns[3], relayRow * ROW_DISTANCE, ROW_HEIGHT, words[1], placeClass(RELAY_TO_PAGE + 1, state)),
		...[leaderRow, relayRow, relayRow].map((row, hop) => drawHop(hop, row, columns, state, isNarrow)),
		pulseCircle,
	);
	const [first, channel, relay, page] = columns;
	const [from, to] = [leaderRow, relayRow].map((row) => row * ROW_DISTANCE + ROW_HEIGHT / 2);
	path = [
		[first.left + first.width, from],
		[channel.left + channel.width / 2, from],
		[channel.left + channel.width / 2, to],
		[relay.left + relay.width / 2, to],
		[page.left, to],
	];
}

/**
 * Returns the columns of broadcasters, channel, relays and page.
 *
 * @param {number} width
 * @returns {Column[]}
 */
function placeColumns(width) {
	const isNarrow = width < NARROW;
	const gap = isNarrow ? 12 : Math.min(72, width * 0.08);
	const small = isNarrow ? 60 : Math.min(128, width * 0.15); // channel and page
	const large = (width - 2 * small - 3 * gap) / 2; // processes
	let left = 0;
	return [large, small, large, small].map((columnWidth) => {
		const column = { left, width: columnWidth };
		left += columnWidth + gap;
		return column;
	});
}

/**
 * @param {Row} row
 * @param {number} index
 * @param {Column[]} columns
 * @param {State} state
 * @param {boolean} isNarrow
 */
function drawRow({ broadcaster, relay }, index, [first, , third], state, isNarrow) {
	const top = index * ROW_DISTANCE;
	const box = (
		/** @type {Process} */ process,
		/** @type {Column} */ { left, width },
		/** @type {Actor[]} */ actors,
	) => {
		const isActive = actors.some((actor) => process[actor]?.isActive);
		const isUnknown =
			process === NOT_KNOWN || (state.brokenHop !== null && state.brokenHop > (actors.includes("relay") ? 1 : 0));
		const group = svg(
			"g",
			{
				class: `process ${isActive ? "active" : "past"}${isUnknown ? " unknown" : ""}`,
				transform: `translate(${left} ${top})`,
			},
			svg("rect", { class: "box", width, height: ROW_HEIGHT, rx: 7 }),
			svg("text", { class: "name", x: PADDING, y: 17 }, shorten(process.name, (width - 2 * PADDING) / LETTER_WIDTH)),
		);
		for (const actor of actors) {
			const column = actor === "relay" ? third : first;
			group.append(drawActor(actor, process, column.left - left, column.width, isNarrow));
		}
		return group;
	};
	if (broadcaster !== null && broadcaster === relay) {
		return [
			box(broadcaster, { left: first.left, width: third.left + third.width - first.left }, ["broadcaster", "relay"]),
		];
	}
	const separate = [];
	// The first row has both, since the path of a message goes through them.
	if (broadcaster !== null || index === 0) separate.push(box(broadcaster ?? NOT_KNOWN, first, ["broadcaster"]));
	if (relay !== null || index === 0) separate.push(box(relay ?? NOT_KNOWN, third, ["relay"]));
	return separate;
}

/**
 * @param {Actor} actor
 * @param {Process} process
 * @param {number} left
 * @param {number} columnWidth
 * @param {boolean} isNarrow
 */
function drawActor(actor, process, left, columnWidth, isNarrow) {
	const role = process[actor];
	const isActive = role?.isActive ?? false;
	return svg(
		"g",
		{ class: isActive ? "active" : "", transform: `translate(${left + PADDING / 2} 23)` },
		svg("rect", { class: "actor", width: columnWidth - PADDING, height: 20, rx: 5 }),
		svg("text", { class: "actor-name", x: PADDING / 2 + 1, y: 14 }, actorText(actor, role, isNarrow)),
	);
}

/**
 * @param {number} count
 * @param {Column} column
 */
function drawMore(count, { left }) {
	return svg("text", { x: left + PADDING, y: (MAX_ROWS - 1) * ROW_DISTANCE + ROW_HEIGHT / 2 }, `and ${count} more`);
}

/**
 * Draws the channel or this page.
 *
 * @param {Column} column
 * @param {number} top
 * @param {number} height
 * @param {string[]} lines The first one is the title.
 * @param {string} className
 */
function drawPlace({ left, width }, top, height, lines, className) {
	const middle = top + height / 2 + 4 - (lines.length - 1) * 7.5;
	return svg(
		"g",
		{ class: className },
		svg("rect", { class: "box", x: left, y: top, width, height, rx: 7 }),
		...lines.map((line, i) =>
			svg(
				"text",
				{ class: i === 0 ? "name" : "detail", x: left + width / 2, y: middle + 15 * i, "text-anchor": "middle" },
				line,
			),
		),
	);
}

/**
 * @param {number} place The index of the hop before it.
 * @param {State} state
 */
function placeClass(place, { brokenHop, condition }) {
	if (brokenHop === null) return "place active";
	if (place === brokenHop && brokenHop === CHANNEL_TO_RELAY) return "place broken"; // the relay reports this
	if (place <= brokenHop) return "place unknown";
	return place > brokenHop + 1 || condition === "connecting" ? "place active" : "place broken";
}

/**
 * @param {number} hop
 * @param {number} row
 * @param {Column[]} columns
 * @param {State} state
 * @param {boolean} isNarrow
 */
function drawHop(hop, row, columns, { brokenHop, condition, hopDelays }, isNarrow) {
	const left = columns[hop].left + columns[hop].width + 1;
	const right = columns[hop + 1].left - 1;
	const middle = (right - left) / 2;
	const isKnown = brokenHop === null || hop > brokenHop;
	const isBroken = hop === brokenHop && condition !== "connecting";
	const delay = isKnown && !isNarrow && hopDelays !== null ? formatDuration(hopDelays[hop]) : "";
	return svg(
		"g",
		{
			class: `hop${isBroken ? " broken" : isKnown ? "" : " unknown"}`,
			transform: `translate(${left} ${row * ROW_DISTANCE + ROW_HEIGHT / 2})`,
		},
		svg("path", { class: "hop-arrow", d: `M0 0H${right - left}m-5 -5l5 5l-5 5` }),
		svg("path", { class: "hop-cross", d: `M${middle - 6} -6l12 12m0 -12l-12 12` }),
		svg("text", { class: "hop-label", x: middle, y: -7, "text-anchor": "middle" }, delay),
	);
}

/** Shows that a message has been received. There is one pulse at a time, at any rate of messages. */
export function pulse() {
	if (path.length === 0 || reducedMotion.matches || pulseCircle.getAnimations().length > 0) return;
	const frames = path.map(([x, y]) => ({ transform: `translate(${x}px, ${y}px)`, opacity: 1 }));
	pulseCircle.animate(frames, { duration: PULSE_MS, easing: "ease-in-out" });
}
