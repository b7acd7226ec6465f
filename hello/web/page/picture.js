// @ts-check
// Draws the path of a message: four boxes and the hops between them.

import { byId, setAttribute, setText, svg } from "./elements.js";
import { CHANNEL_TO_RELAY } from "./state.js";
import { boxLines, conditionLabel, formatDuration, pathText } from "./text.js";

/** @import { State } from "./state.js" */

// In units of the drawing.
const BOX_LEFT = 36;
const BOX_WIDTH = 232;
const BOX_HEIGHT = 82;
const BOX_DISTANCE = 118; // from the top of a box to the top of the next one
const LINE_LEFT = 12;
const TITLE_Y = 22;
const LINES_Y = [40, 56, 72];
const HOP_X = 152;

const MAX_LINE_LENGTH = 28; // letters
const PULSE_MS = 900;

const TITLES = ["Broadcaster", "Channel", "Relay", "This page"];
const CHANNEL_BOX = 1;

const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const picture = byId("picture");
const processFrame = byId("one-process");
const pathDescription = byId("path");
const boxes = TITLES.map(createBox);
const hops = [0, 1, 2].map(createHop);
const pulseCircle = svg("circle", { class: "pulse", r: 6, cx: HOP_X });
picture.append(...hops.map(({ group }) => group), pulseCircle, ...boxes.map(({ group }) => group));

/**
 * @param {string} title
 * @param {number} index
 */
function createBox(title, index) {
	const lines = LINES_Y.map((y, i) => svg("text", { class: i === 0 ? "box-name" : "box-detail", x: LINE_LEFT, y }));
	const group = svg(
		"g",
		{ transform: `translate(${BOX_LEFT} ${index * BOX_DISTANCE + 1})` },
		svg("rect", { class: "box-outline", width: BOX_WIDTH, height: BOX_HEIGHT, rx: 8 }),
		svg("text", { class: "box-title", x: LINE_LEFT, y: TITLE_Y }, title),
		...lines,
	);
	return { group, lines };
}

/**
 * @param {unknown} _
 * @param {number} index
 */
function createHop(_, index) {
	const label = svg("text", { class: "hop-label", x: 14, y: 22 });
	const group = svg(
		"g",
		{ transform: `translate(${HOP_X} ${index * BOX_DISTANCE + BOX_HEIGHT + 1})` },
		svg("path", { class: "hop-arrow", d: "M0 0v35m-5 -7l5 7l5 -7" }),
		svg("path", { class: "hop-cross", d: "M-7 9l14 14m0 -14l-14 14" }),
		label,
	);
	return { group, label };
}

/**
 * Draws the path. What lies before a broken hop is drawn as it was known last, with dashed lines.
 *
 * @param {State} state
 */
export function drawPicture(state) {
	const { brokenHop } = state;
	const lines = boxLines(state);
	for (const [i, texts] of [lines.broadcaster, lines.channel, lines.relay, lines.page].entries()) {
		const { group, lines } = boxes[i];
		setAttribute(group, "class", boxClass(i, brokenHop));
		for (const [n, line] of lines.entries()) setText(line, shorten(texts[n] ?? ""));
	}
	for (const [i, { group, label }] of hops.entries()) {
		setAttribute(group, "class", hopClass(i, state));
		setText(label, hopLabel(i, state));
	}
	processFrame.classList.toggle("hidden", state.shape !== "combined");
	setText(pathDescription, pathText(state));
}

/**
 * @param {number} box
 * @param {number | null} brokenHop
 */
function boxClass(box, brokenHop) {
	if (brokenHop === null || box > brokenHop) return "box";
	if (box === CHANNEL_BOX && brokenHop === CHANNEL_TO_RELAY) return "box box-down"; // the relay reports this
	return "box box-unknown";
}

/**
 * @param {number} hop
 * @param {State} state
 */
function hopClass(hop, { brokenHop, condition }) {
	if (brokenHop === null || hop > brokenHop) return "hop";
	if (hop === brokenHop && condition !== "connecting") return "hop hop-broken";
	return "hop hop-unknown";
}

/**
 * @param {number} hop
 * @param {State} state
 */
function hopLabel(hop, state) {
	const { brokenHop, condition, hopDelays } = state;
	if (hop === brokenHop && condition !== "connecting") return conditionLabel(state);
	const isKnown = brokenHop === null || hop > brokenHop;
	return isKnown && hopDelays !== null ? formatDuration(hopDelays[hop]) : "";
}

/** Shows that a message has been received. There is one pulse at a time, at any rate of messages. */
export function pulse() {
	if (pulseCircle.getAnimations().length > 0) return;
	const start = { transform: "translateY(50px)", opacity: 1 };
	const end = { transform: `translateY(${3 * BOX_DISTANCE - 20}px)`, opacity: 1 };
	const frames = reducedMotion.matches ? [end, { ...end, opacity: 0 }] : [start, end];
	pulseCircle.animate(frames, { duration: PULSE_MS, easing: "ease-in-out" });
}

/**
 * Shortens a line at its beginning, since the names of pods differ at their ends.
 *
 * @param {string} line
 */
function shorten(line) {
	return line.length > MAX_LINE_LENGTH ? `…${line.slice(1 - MAX_LINE_LENGTH)}` : line;
}
