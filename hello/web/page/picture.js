// @ts-check
// Draws what runs: each process as a box with its actors in it, the channel, this page, and the path of a message.

import { processes, rows } from "./deployment.js";
import { byId, observeSize, setAttribute, setText, svg } from "./elements.js";
import { CHANNEL_TO_RELAY, RELAY_TO_PAGE } from "./state.js";
import { actorText, channelLines, clocksText, formatDuration, pageLines, pathText } from "./text.js";
import { processesText, shorten } from "./text.js";

/**
 * @import { Process, Row } from "./deployment.js"
 * @import { Actor, State } from "./state.js"
 *
 * @typedef {{ left: number, width: number }} Column
 * @typedef {object} Layout
 * @property {Column[]} columns
 * @property {boolean} isNarrow
 * @property {number} rowHeight
 * @property {number} actorHeight
 * @property {number} actorTop Within a row.
 */

// In units of the drawing, which is as wide as there is room. At the usual size of letters a unit is a CSS pixel.
const HEIGHT = 128; // the picture's height in style.css
const MIN_WIDTH = 272; // a drawing with less room is made smaller
const NARROW = 520; // a narrower picture has no delays beside its arrows
const MAX_ROWS = 3;
const ROW_GAP = 6;
const MAX_ACTOR_HEIGHT = 26;
const OVERHANG = 6; // of a channel that is no part of the processes around it
const MAX_ROW_HEIGHT = 76;
const PADDING = 6;
const LINE_HEIGHT = 15;
const NAME_WIDTH = 8.4; // of a letter of a name, which is bold; the widest letters are rare
const LETTER_WIDTH = 6.4;
const PULSE_MS = 900;
const UNKNOWN = { name: "unknown", broadcaster: null, relay: null };

const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const picture = byId("picture");
const caption = byId("path");
const pulseCircle = svg("circle", { class: "pulse", r: 6 });
let width = 0; // 0 until the page is laid out
/** @type {State | null} */
let latest = null;
/** @type {[number, number][]} The path of the newest message through the picture; empty where it is broken. */
let path = [];
let drawn = "";

observeSize(picture, (newWidth, height) => {
	width = Math.max(MIN_WIDTH, Math.round((newWidth / height) * HEIGHT));
	if (latest !== null) drawPicture(latest);
});

/**
 * Draws the picture, as far as anything in it has changed. What lies before a broken hop is drawn as it was known last,
 * with dashed lines.
 *
 * @param {State} state
 */
export function drawPicture(state, now = Date.now()) {
	latest = state;
	if (width === 0) return;
	const found = rows(processes(state, now));
	const { brokenHop, condition, backend, hopDelays } = state;
	const isNarrow = width < NARROW;
	const places = [channelLines(state), pageLines(state, isNarrow)];
	const wanted = JSON.stringify([width, found, brokenHop, condition, backend, places]);
	if (wanted !== drawn) {
		drawn = wanted;
		drawBoxes(state, found, places, isNarrow);
	}
	for (const [hop, label] of picture.querySelectorAll(".hop-label").entries()) {
		const isShown = isKnown(hop, brokenHop) && !isNarrow && hopDelays !== null;
		setText(label, isShown ? formatDuration(hopDelays[hop]) : "");
	}
	const delays = pathText(state);
	setText(caption, isNarrow ? `${delays} ${clocksText(state)}` : clocksText(state));
	setAttribute(picture, "aria-label", `${processesText(state)} ${delays}`);
}

/**
 * Draws everything but the delays, and sets the path of a message.
 *
 * @param {State} state
 * @param {Row[]} found
 * @param {string[][]} places The lines of the channel and of this page.
 * @param {boolean} isNarrow
 */
function drawBoxes(state, found, places, isNarrow) {
	const shown = found.slice(0, found.length > MAX_ROWS ? MAX_ROWS - 1 : MAX_ROWS);
	const count = Math.min(found.length, MAX_ROWS);
	// However many rows there are, they are in the middle of the same height: nothing below the picture moves.
	const rowHeight = Math.min(MAX_ROW_HEIGHT, (HEIGHT - (count - 1) * ROW_GAP) / count);
	const height = count * (rowHeight + ROW_GAP) - ROW_GAP;
	const top = (HEIGHT - height) / 2;
	const actorHeight = Math.min(MAX_ACTOR_HEIGHT, (rowHeight - PADDING) / 2);
	const actorTop = rowHeight - actorHeight - PADDING / 2;
	const hopTop = actorTop + actorHeight / 2;
	const layout = { columns: placeColumns(isNarrow), isNarrow, rowHeight, actorHeight, actorTop };
	const [first, channel, relay, page] = layout.columns;
	const isLeader = (/** @type {Row} */ { broadcaster }) => broadcaster?.broadcaster?.isActive;
	const isServing = (/** @type {Row} */ row) => row.relay?.relay?.isActive;
	const [leaderRow, relayRow] = [isLeader, isServing].map((test) => Math.max(0, shown.findIndex(test)));
	const [from, to] = [leaderRow, relayRow].map((row) => row * (rowHeight + ROW_GAP));
	const isWithin = state.backend === "memory" && shown[leaderRow].broadcaster === shown[relayRow].relay;
	const isCrossing = shown.some(({ broadcaster, relay: other }) => broadcaster !== null && broadcaster === other);
	const overhang = isCrossing ? OVERHANG : 0;
	const [channelTop, channelHeight] = isWithin
		? [from + PADDING / 2, rowHeight - PADDING]
		: [-overhang, height + 2 * overhang];
	const more = svg(
		"text",
		{ x: first.left + PADDING, y: height - rowHeight / 2 },
		`and ${found.length - shown.length} more`,
	);
	setAttribute(picture, "viewBox", `0 ${-top} ${width} ${HEIGHT}`);
	picture.replaceChildren(
		...shown.flatMap((row, i) => drawRow(row, i, layout, state)),
		...(found.length > shown.length ? [more] : []),
		drawPlace(channel, channelTop, channelHeight, places[0], placeClass(CHANNEL_TO_RELAY, state)),
		drawPlace(page, to, rowHeight, places[1], placeClass(RELAY_TO_PAGE + 1, state)),
		...[from, to, to].map((y, hop) => drawHop(hop, y + hopTop, layout, state)),
		pulseCircle,
	);
	const [start, end] = [from + hopTop, to + hopTop];
	path = [
		[first.left + first.width, start],
		[channel.left + channel.width / 2, start],
		[channel.left + channel.width / 2, end],
		[relay.left + relay.width / 2, end],
		[page.left, end],
	];
	if (state.brokenHop === null) return;
	path = [];
	for (const animation of pulseCircle.getAnimations()) animation.cancel();
}

/**
 * Returns the columns of broadcasters, channel, relays and page.
 *
 * @param {boolean} isNarrow
 * @returns {Column[]}
 */
function placeColumns(isNarrow) {
	const gap = isNarrow ? 12 : Math.min(72, width * 0.08);
	const place = Math.min(128, Math.max(88, width * 0.15));
	const [channel, page] = isNarrow ? [56, 32] : [place, place];
	const process = (width - channel - page - 3 * gap) / 2;
	let left = 0;
	return [process, channel, process, page].map((columnWidth) => {
		const column = { left, width: columnWidth };
		left += columnWidth + gap;
		return column;
	});
}

/**
 * @param {Row} row
 * @param {number} index
 * @param {Layout} layout
 * @param {State} state
 */
function drawRow({ broadcaster, relay }, index, layout, state) {
	const [first, , third] = layout.columns;
	const top = index * (layout.rowHeight + ROW_GAP);
	if (broadcaster !== null && broadcaster === relay) {
		const whole = { left: first.left, width: third.left + third.width - first.left };
		return [drawProcess(broadcaster, ["broadcaster", "relay"], whole, top, layout, state)];
	}
	// The first row has both, since the path of a message goes through them.
	const isNeeded = index === 0;
	const separate = [];
	if (broadcaster !== null || isNeeded) {
		separate.push(drawProcess(broadcaster ?? UNKNOWN, ["broadcaster"], first, top, layout, state));
	}
	if (relay !== null || isNeeded) {
		separate.push(drawProcess(relay ?? UNKNOWN, ["relay"], third, top, layout, state));
	}
	return separate;
}

/**
 * @param {Process} process
 * @param {Actor[]} actors
 * @param {Column} box
 * @param {number} top
 * @param {Layout} layout
 * @param {State} state
 */
function drawProcess(process, actors, { left, width: boxWidth }, top, layout, { brokenHop }) {
	const { columns, isNarrow, rowHeight, actorHeight, actorTop } = layout;
	const nameLength = (columns[0].width - 2 * PADDING) / NAME_WIDTH;
	const isActive = actors.some((actor) => process[actor]?.isActive);
	const isUnknown = process === UNKNOWN || actors.every((actor) => !isKnown(actorHop(actor), brokenHop));
	return svg(
		"g",
		{
			class: `process ${isActive ? "active" : "past"}${isUnknown ? " unknown" : ""}`,
			transform: `translate(${left} ${top})`,
		},
		svg("rect", { class: "box", width: boxWidth, height: rowHeight, rx: 7 }),
		svg("text", { class: "name", x: PADDING, y: actorTop / 2 + 5 }, shorten(process.name, nameLength)),
		...actors.map((actor) => {
			const column = columns[actor === "relay" ? 2 : 0];
			const actorWidth = column.width - PADDING;
			const length = isNarrow ? 0 : actorWidth / LETTER_WIDTH;
			const isKnownNow = isKnown(actorHop(actor), brokenHop);
			return svg(
				"g",
				{
					class: `${process[actor]?.isActive ? "active" : ""}${isKnownNow ? "" : " unknown"}`,
					transform: `translate(${column.left - left + PADDING / 2} ${actorTop})`,
				},
				svg("rect", { class: "actor", width: actorWidth, height: actorHeight, rx: 5 }),
				svg(
					"text",
					{ class: "actor-name", x: PADDING / 2 + 1, y: actorHeight / 2 + 4 },
					actorText(actor, process, isKnownNow, length),
				),
			);
		}),
	);
}

/**
 * Returns the hop after an actor.
 *
 * @param {Actor} actor
 */
function actorHop(actor) {
	return actor === "relay" ? RELAY_TO_PAGE : 0;
}

/**
 * Returns true if what happens at this hop is known, since no later hop is broken.
 *
 * @param {number} hop
 * @param {number | null} brokenHop
 */
function isKnown(hop, brokenHop) {
	return brokenHop === null || hop > brokenHop;
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
function drawPlace({ left, width: boxWidth }, top, height, lines, className) {
	const firstLine = top + height / 2 + 4 - ((lines.length - 1) * LINE_HEIGHT) / 2;
	return svg(
		"g",
		{ class: className },
		svg("rect", { class: "box", x: left, y: top, width: boxWidth, height, rx: 7 }),
		...lines.map((line, i) => {
			const at = { x: left + boxWidth / 2, y: firstLine + LINE_HEIGHT * i, "text-anchor": "middle" };
			return svg("text", { class: i === 0 ? "name" : "detail", ...at }, line);
		}),
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
 * @param {number} y
 * @param {Layout} layout
 * @param {State} state
 */
function drawHop(hop, y, { columns }, { brokenHop, condition }) {
	const left = columns[hop].left + columns[hop].width + 1;
	const right = columns[hop + 1].left - 1;
	const middle = (right - left) / 2;
	const half = Math.min(6, middle - 1); // of the cross
	const isBroken = hop === brokenHop && condition !== "connecting";
	return svg(
		"g",
		{
			class: `hop${isBroken ? " broken" : isKnown(hop, brokenHop) ? "" : " unknown"}`,
			transform: `translate(${left} ${y})`,
		},
		svg("path", { class: "hop-arrow", d: `M0 0H${right - left}m-5 -5l5 5l-5 5` }),
		svg("path", {
			class: "hop-cross",
			d: `M${middle - half} ${-half}l${2 * half} ${2 * half}m0 ${-2 * half}l${-2 * half} ${2 * half}`,
		}),
		svg("text", { class: "hop-label", x: middle, y: -7, "text-anchor": "middle" }),
	);
}

/** Shows that a message has been received. There is one pulse at a time, at any rate of messages. */
export function pulse() {
	if (path.length === 0 || reducedMotion.matches || pulseCircle.getAnimations().length > 0) return;
	const frames = path.map(([x, y]) => ({ transform: `translate(${x}px, ${y}px)`, opacity: 1 }));
	pulseCircle.animate(frames, { duration: PULSE_MS, easing: "ease-in-out" });
}
