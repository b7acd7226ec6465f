// @ts-check
// Draws the last ten minutes: the delay of each message, the times between messages, and the connection; and tells each
// mark in words. It is drawn only while it is in view.

import { byId, observeSize, setAttribute, setText, svg } from "./elements.js";
import { WINDOW_MS } from "./state.js";
import { formatDuration, markText, plotText } from "./text.js";

/**
 * @import { Bucket, Event, State } from "./state.js"
 */

// In units of the drawing, which is as wide as there is room. At the usual size of letters a unit is a CSS pixel.
const HEIGHT = 232; // the plot's height in style.css
const LEFT = 64; // of the plots, for the labels
const RIGHT_MARGIN = 6;
const MIN_RIGHT = 274; // a drawing with less room is made smaller
const LABEL_MARGIN = 8;
const DELAY_TITLE_Y = 10;
const DELAY_TOP = 22;
const DELAY_BASE = 80;
const TICK_TOP = 90; // of the row of messages that were not live: they have no delay
const TICK_BASE = 99;
const PAUSE_TITLE_Y = 120;
const PAUSE_TOP = 131;
const PAUSE_BASE = 170;
const CONNECTION_TITLE_Y = 190;
const CONNECTION_Y = 203;
const TIME_Y = 228;

const DELAY_TICKS = [1, 100, 10_000]; // milliseconds, on a logarithmic scale
const MAX_DELAY = 10_000;
const PAUSE_TICKS = [1000, 10_000]; // milliseconds, the range that is usual
const MAX_PAUSE = 15_000;
const MIN_GAP_WIDTH = 4;
const REACH = 24; // from a pointer to the mark that it means

const plot = byId("plot");
const description = byId("plot-description");
const markLine = byId("mark");
const scale = svg("g");
const pausePath = svg("path", { class: "bars pause" });
const tickPaths = {
	history: svg("path", { class: "bars history" }),
	recovered: svg("path", { class: "bars recovered" }),
};
const livePath = svg("path", { class: "bars live" });
const connectionGroup = svg("g");
const cursor = svg("path", { class: "cursor" });
plot.append(scale, pausePath, ...Object.values(tickPaths), livePath, connectionGroup, cursor);
let right = 0; // of the plots; 0 until the page is laid out
let isInView = false;
/** @type {State | null} */
let latest = null;
let drawnAt = 0;
/** @type {(Bucket | Event)[]} What is drawn, oldest first. */
let marks = [];
/** @type {Bucket | Event | null} The mark that the reader has selected. */
let selected = null;

observeSize(plot, (width, height) => {
	right = Math.max(MIN_RIGHT, round((width / height) * HEIGHT - RIGHT_MARGIN));
	drawScale();
	draw();
});
new IntersectionObserver((entries) => {
	isInView = entries[entries.length - 1].isIntersecting;
	draw();
}).observe(plot);
addEventListener("beforeprint", () => {
	isInView = true;
	draw();
});

drawMark(); // a slider has a value, also before it is in view

/** @param {State} state */
export function drawPlot(state) {
	latest = state;
	draw();
}

function draw() {
	if (latest === null || !isInView || right === 0) return;
	const state = latest;
	drawnAt = Date.now();
	state.prune(drawnAt);
	const { buckets } = state;
	const live = buckets.filter(({ delivery }) => delivery === "live");
	const delays = live.map(({ at, delay: found }) => {
		const delay = found ?? 0;
		return bar(at, DELAY_BASE, Math.min(delayY(delay), DELAY_BASE - 1), delay > MAX_DELAY);
	});
	setAttribute(livePath, "d", delays.join(""));
	for (const [delivery, path] of Object.entries(tickPaths)) {
		const ticks = buckets.filter((bucket) => bucket.delivery === delivery);
		setAttribute(path, "d", ticks.map(({ at }) => bar(at, TICK_BASE, TICK_TOP, false)).join(""));
	}
	const pauses = buckets.map(({ at, interval }) =>
		interval === null ? "" : bar(at, PAUSE_BASE, pauseY(interval), interval > MAX_PAUSE),
	);
	setAttribute(pausePath, "d", pauses.join(""));
	const events = state.events.filter(({ at }) => at >= drawnAt - WINDOW_MS);
	connectionGroup.replaceChildren(...drawConnection(state), ...events.map(drawEvent));
	marks = [...buckets, ...events].sort((one, other) => one.at - other.at);
	setText(description, plotText(buckets, events.length));
	drawMark();
}

/** @param {number} time */
function timeX(time) {
	const share = 1 - (drawnAt - time) / WINDOW_MS;
	return round(LEFT + (right - LEFT) * Math.min(1, Math.max(0, share)));
}

/**
 * Draws one line for each state of the connection, from its beginning to the next.
 *
 * @param {State} state
 */
function drawConnection({ openedAt, events }) {
	const states = [{ kind: "connecting", at: openedAt }, ...events.filter(({ kind }) => kind !== "gap")];
	return states.map(({ kind, at }, i) => {
		const end = i + 1 < states.length ? states[i + 1].at : drawnAt;
		return svg("path", { class: `connection ${kind}`, d: `M${timeX(at)} ${CONNECTION_Y + 5}H${timeX(end)}` });
	});
}

function drawScale() {
	const bandTop = pauseY(Math.max(...PAUSE_TICKS));
	const bandHeight = pauseY(Math.min(...PAUSE_TICKS)) - bandTop;
	const minutes = [9, 6, 3];
	setAttribute(plot, "viewBox", `0 0 ${right + RIGHT_MARGIN} ${HEIGHT}`);
	scale.replaceChildren(
		svg("rect", { class: "band", x: LEFT, y: bandTop, width: right - LEFT, height: bandHeight }),
		drawTitle(DELAY_TITLE_Y, "Delay", "from broadcaster to page"),
		...DELAY_TICKS.flatMap((delay) => drawTick(delayY(delay), delay)),
		drawLabel(LEFT - LABEL_MARGIN, TICK_BASE, "end", "not live"),
		drawTitle(PAUSE_TITLE_Y, "Time between messages", "default: 1 to 10 s"),
		...PAUSE_TICKS.flatMap((pause) => drawTick(pauseY(pause), pause)),
		drawTitle(CONNECTION_TITLE_Y, "Connection", "▼ an event"),
		...minutes.map((n) => drawLabel(right - (n / 10) * (right - LEFT), TIME_Y, "middle", `−${n} min`)),
		drawLabel(right, TIME_Y, "end", "now"),
	);
}

/**
 * @param {number} y
 * @param {string} title
 * @param {string} hint
 */
function drawTitle(y, title, hint) {
	return svg("text", { x: 0, y }, svg("tspan", { class: "plot-title" }, title), ` · ${hint}`);
}

/**
 * @param {number} y
 * @param {number} milliseconds
 */
function drawTick(y, milliseconds) {
	return [
		svg("path", { class: "grid", d: `M${LEFT} ${y}H${right}` }),
		drawLabel(LEFT - LABEL_MARGIN, y + 4, "end", formatDuration(milliseconds)),
	];
}

/**
 * @param {number} x
 * @param {number} y
 * @param {"middle" | "end"} anchor
 * @param {string} text
 */
function drawLabel(x, y, anchor, text) {
	return svg("text", { x, y, "text-anchor": anchor }, text);
}

/**
 * Draws an area over both plots for a gap, and a triangle for any other event.
 *
 * @param {Event} event
 */
function drawEvent(event) {
	if (event.kind === "gap") {
		const from = timeX(event.after.milliseconds);
		const width = Math.max(MIN_GAP_WIDTH, timeX(event.before.milliseconds) - from);
		const left = round(Math.min(from, right - width));
		return svg("rect", { class: "gap-area", x: left, y: DELAY_TOP, width, height: PAUSE_BASE - DELAY_TOP });
	}
	return svg("path", { class: "triangle", d: `M${timeX(event.at)} ${CONNECTION_Y - 1}l-4 -7h8z` });
}

/** Draws a line at the mark that the reader has selected, and tells it in words below the plots. */
function drawMark() {
	const index = selected === null ? -1 : marks.indexOf(selected);
	if (index < 0) selected = null;
	const hint = marks.length === 0 ? "" : "Point at a mark, or press ← and →, to read it.";
	const words = selected === null ? hint : markText(selected);
	const d = selected === null ? "" : `M${timeX(selected.at)} ${DELAY_TOP}V${CONNECTION_Y + 10}`;
	setAttribute(cursor, "d", d);
	setText(markLine, words);
	setAttribute(plot, "aria-valuemax", String(Math.max(0, marks.length - 1)));
	setAttribute(plot, "aria-valuenow", String(Math.max(0, index)));
	setAttribute(plot, "aria-valuetext", words || "no marks yet");
}

/** @param {Bucket | Event | null} mark */
function select(mark) {
	selected = mark;
	drawMark();
}

/** @param {PointerEvent} event */
function selectAtPointer(event) {
	const { left, width } = plot.getBoundingClientRect();
	const x = ((event.clientX - left) / width) * (right + RIGHT_MARGIN);
	const distance = (/** @type {{ at: number }} */ { at }) => Math.abs(timeX(at) - x);
	const [nearest] = [...marks].sort((one, other) => distance(one) - distance(other));
	select(nearest !== undefined && distance(nearest) <= REACH ? nearest : null);
}

plot.addEventListener("pointermove", selectAtPointer);
plot.addEventListener("pointerdown", selectAtPointer);
plot.addEventListener("pointerleave", (event) => {
	if (event.pointerType === "mouse") select(null); // a finger that leaves has been lifted
});
plot.addEventListener("keydown", (event) => {
	const index = selected === null ? -1 : marks.indexOf(selected);
	const last = marks.length - 1;
	/** @type {Record<string, number>} */
	const targets = {
		ArrowLeft: index < 0 ? last : index - 1,
		ArrowRight: index < 0 ? last : index + 1,
		Home: 0,
		End: last,
	};
	if (!(event.key in targets) || last < 0) return;
	event.preventDefault();
	select(marks[Math.min(last, Math.max(0, targets[event.key]))]);
});

/**
 * Returns the path of a bar at this time. A bar that is clipped ends in an arrow.
 *
 * @param {number} time
 * @param {number} base
 * @param {number} top
 * @param {boolean} isClipped
 */
function bar(time, base, top, isClipped) {
	return `M${timeX(time)} ${base}V${top}${isClipped ? "m-4 0l4 -5l4 5" : ""}`;
}

/** @param {number} delay Milliseconds; negative if the clocks differ. */
function delayY(delay) {
	const share = Math.log10(Math.max(delay, 1)) / Math.log10(MAX_DELAY);
	return round(DELAY_BASE - Math.min(share, 1) * (DELAY_BASE - DELAY_TOP));
}

/** @param {number} pause Milliseconds. */
function pauseY(pause) {
	const share = pause / MAX_PAUSE;
	return round(PAUSE_BASE - Math.min(share, 1) * (PAUSE_BASE - PAUSE_TOP));
}

/** @param {number} number */
function round(number) {
	return Math.round(number * 10) / 10;
}
