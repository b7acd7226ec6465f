// @ts-check
// Draws the last ten minutes: the delay of each message, the pauses between messages, and the connection; and tells
// each mark in words.

import { byId, setAttribute, setText, svg } from "./elements.js";
import { WINDOW_MS } from "./state.js";
import { formatDuration, markText, plotText } from "./text.js";

/**
 * @import { Delivery } from "./client-protocol.js"
 * @import { Event, State } from "./state.js"
 */

// In units of the drawing, which is as wide as there is room.
const HEIGHT = 256;
const LEFT = 64; // of the plots, for the labels
const RIGHT_MARGIN = 6;
const MIN_RIGHT = 274; // a drawing with less room is made smaller
const LABEL_MARGIN = 8;
const DELAY_TITLE_Y = 12;
const DELAY_TOP = 24;
const DELAY_BASE = 102;
const PAUSE_TITLE_Y = 128;
const PAUSE_TOP = 138;
const PAUSE_BASE = 186;
const CONNECTION_TITLE_Y = 211;
const CONNECTION_Y = 224;
const TIME_Y = 250;

const DELAY_TICKS = [1, 100, 10_000]; // milliseconds, on a logarithmic scale
const MAX_DELAY = 10_000;
const PAUSE_TICKS = [1000, 10_000]; // milliseconds, the range that is usual
const MAX_PAUSE = 15_000;
const REACH = 24; // from a pointer to the mark that it means

/**
 * The least height of a bar, since messages that are not live have no delay. Later kinds are drawn over earlier ones.
 *
 * @type {[Delivery, number][]}
 */
const MIN_HEIGHTS = [
	["history", 4],
	["recovered", 12],
	["live", 1],
];

const plot = byId("plot");
const description = byId("plot-description");
const markLine = byId("mark");
const scale = svg("g");
const pausePath = svg("path", { class: "bars pause" });
const deliveryPaths = MIN_HEIGHTS.map(([delivery, minHeight]) => {
	const path = svg("path", { class: `bars ${delivery}` });
	return { delivery, minHeight, path };
});
const connectionGroup = svg("g");
const cursor = svg("path", { class: "cursor" });
plot.append(scale, pausePath, ...deliveryPaths.map(({ path }) => path), connectionGroup, cursor);
let right = 0; // of the plots
/** @type {{ at: number, x: number, text: string }[]} What is drawn, oldest first. */
let marks = [];
/** @type {string | null} The text of the mark that the reader has selected, which begins with its time. */
let selected = null;

/** @param {State} state */
export function drawPlot(state, now = Date.now()) {
	state.prune(now);
	drawScale();
	const { buckets } = state;

	/** @param {number} time */
	const timeX = (time) => {
		const share = 1 - (now - time) / WINDOW_MS;
		return round(LEFT + (right - LEFT) * Math.min(1, Math.max(0, share)));
	};

	for (const { delivery, minHeight, path } of deliveryPaths) {
		const bars = buckets
			.filter((bucket) => bucket.delivery === delivery)
			.map(({ at, delay }) => bar(timeX(at), DELAY_BASE, Math.min(delayY(delay ?? 0), DELAY_BASE - minHeight)));
		setAttribute(path, "d", bars.join(""));
	}
	const pauses = buckets.map(({ at, interval }) =>
		interval === null ? "" : bar(timeX(at), PAUSE_BASE, pauseY(interval)),
	);
	setAttribute(pausePath, "d", pauses.join(""));
	const events = state.events.filter(({ at }) => at >= now - WINDOW_MS);
	connectionGroup.replaceChildren(
		...drawConnection(state, now, timeX),
		...events.map((event) => drawEvent(event, timeX)),
	);
	marks = [...buckets, ...events]
		.map((mark) => ({ at: mark.at, x: timeX(mark.at), text: markText(mark) }))
		.sort((one, other) => one.at - other.at);
	setText(description, plotText(buckets, events.length));
	drawMark();
}

/**
 * Draws one line for each state of the connection, from its beginning to the next.
 *
 * @param {State} state
 * @param {number} now
 * @param {(time: number) => number} timeX
 */
function drawConnection({ openedAt, events }, now, timeX) {
	const states = [{ kind: "connecting", at: openedAt }, ...events.filter(({ kind }) => kind !== "gap")];
	return states.map(({ kind, at }, i) => {
		const end = i + 1 < states.length ? states[i + 1].at : now;
		return svg("path", { class: `connection ${kind}`, d: `M${timeX(at)} ${CONNECTION_Y + 5}H${timeX(end)}` });
	});
}

/** Draws the scales anew if the size of the plot has changed. */
function drawScale() {
	const { width, height } = plot.getBoundingClientRect();
	const newRight = Math.max(MIN_RIGHT, round((width / height) * HEIGHT - RIGHT_MARGIN));
	if (newRight === right) return;
	right = newRight;
	const bandTop = pauseY(Math.max(...PAUSE_TICKS));
	const bandHeight = pauseY(Math.min(...PAUSE_TICKS)) - bandTop;
	const minutes = [9, 6, 3];
	setAttribute(plot, "viewBox", `0 0 ${right + RIGHT_MARGIN} ${HEIGHT}`);
	scale.replaceChildren(
		svg("rect", { class: "band", x: LEFT, y: bandTop, width: right - LEFT, height: bandHeight }),
		drawTitle(DELAY_TITLE_Y, "Delay, broadcaster to page"),
		...DELAY_TICKS.flatMap((delay) => drawTick(delayY(delay), delay)),
		drawTitle(PAUSE_TITLE_Y, "Pause before each message"),
		...PAUSE_TICKS.flatMap((pause) => drawTick(pauseY(pause), pause)),
		drawTitle(CONNECTION_TITLE_Y, "Connection, ▼ at each event"),
		...minutes.map((n) => drawLabel(right - (n / 10) * (right - LEFT), TIME_Y, "middle", `−${n} min`)),
		drawLabel(right, TIME_Y, "end", "now"),
	);
}

/**
 * @param {number} y
 * @param {string} text
 */
function drawTitle(y, text) {
	return svg("text", { class: "plot-title", x: 0, y }, text);
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
 * Draws an area for a gap, and a triangle for any other event.
 *
 * @param {Event} event
 * @param {(time: number) => number} timeX
 */
function drawEvent(event, timeX) {
	if (event.kind === "gap") {
		const from = timeX(event.after.milliseconds);
		const to = timeX(event.before.milliseconds) + 2; // so that the shortest gap is visible
		return svg("path", { class: "plot-event gap-area", d: `M${from} ${DELAY_TOP}H${to}V${PAUSE_BASE}H${from}z` });
	}
	return svg("path", { class: "plot-event triangle", d: `M${timeX(event.at)} ${CONNECTION_Y - 1}l-4 -7h8z` });
}

/** Draws a line at the mark that the reader has selected, and tells it in words below the plots. */
function drawMark() {
	const mark = marks.find(({ text }) => text === selected) ?? null;
	const hint = marks.length === 0 ? "" : "Point at a mark, or press ← and →, to read it.";
	const words = mark?.text ?? hint;
	setAttribute(cursor, "d", mark === null ? "" : `M${mark.x} ${DELAY_TOP}V${CONNECTION_Y + 10}`);
	setText(markLine, words);
	setAttribute(plot, "aria-valuemax", String(Math.max(0, marks.length - 1)));
	setAttribute(plot, "aria-valuenow", String(mark === null ? 0 : marks.indexOf(mark)));
	setAttribute(plot, "aria-valuetext", words || "no marks yet");
}

/** @param {string | null} text */
function select(text) {
	selected = text;
	drawMark();
}

/** @param {PointerEvent} event */
function selectAtPointer(event) {
	const { left, width } = plot.getBoundingClientRect();
	const x = ((event.clientX - left) / width) * (right + RIGHT_MARGIN);
	const distance = (/** @type {{ x: number }} */ mark) => Math.abs(mark.x - x);
	const [nearest] = [...marks].sort((one, other) => distance(one) - distance(other));
	select(nearest !== undefined && distance(nearest) <= REACH ? nearest.text : null);
}

plot.addEventListener("pointermove", selectAtPointer);
plot.addEventListener("pointerdown", selectAtPointer);
plot.addEventListener("pointerleave", (event) => {
	if (event.pointerType === "mouse") select(null); // a finger that leaves has been lifted
});
plot.addEventListener("keydown", (event) => {
	const index = marks.findIndex(({ text }) => text === selected);
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
	select(marks[Math.min(last, Math.max(0, targets[event.key]))].text);
});

/**
 * @param {number} x
 * @param {number} base
 * @param {number} top
 */
function bar(x, base, top) {
	return `M${x} ${base}V${top}`;
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
