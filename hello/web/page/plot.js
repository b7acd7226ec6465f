// @ts-check
// Draws the last ten minutes: the delay of each message, the intervals between messages, and the connection.

import { byId, setAttribute, setText, svg } from "./elements.js";
import { WINDOW_MS } from "./state.js";
import { eventText, formatDuration, plotText } from "./text.js";

/**
 * @import { Delivery } from "./client-protocol.js"
 * @import { Event, State } from "./state.js"
 */

// In units of the drawing, which is as wide as there is room.
const HEIGHT = 212;
const LEFT = 56; // of the plot, for the labels
const RIGHT_MARGIN = 6;
const LABEL_MARGIN = 6;
const DELAY_TOP = 8;
const DELAY_BASE = 92;
const INTERVAL_TOP = 112;
const INTERVAL_BASE = 160;
const CONNECTION_Y = 174;
const TIME_Y = 202;

const DELAY_TICKS = [1, 100, 10_000]; // milliseconds, on a logarithmic scale
const MAX_DELAY = 10_000;
const INTERVAL_TICKS = [1000, 10_000]; // milliseconds, the range that is usual
const MAX_INTERVAL = 15_000;

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
const description = svg("title");
const scale = svg("g");
const intervalPath = svg("path", { class: "bars interval" });
const deliveryPaths = MIN_HEIGHTS.map(([delivery, minHeight]) => {
	const path = svg("path", { class: `bars ${delivery}` });
	return { delivery, minHeight, path };
});
const connectionGroup = svg("g");
plot.append(description, scale, intervalPath, ...deliveryPaths.map(({ path }) => path), connectionGroup);
let right = 0; // of the plot

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
	const intervals = buckets.map(({ at, interval }) =>
		interval === null ? "" : bar(timeX(at), INTERVAL_BASE, intervalY(interval)),
	);
	setAttribute(intervalPath, "d", intervals.join(""));
	const events = state.events.filter(({ at }) => at >= now - WINDOW_MS);
	connectionGroup.replaceChildren(
		...drawConnection(state, now, timeX),
		...events.map((event) => drawEvent(event, timeX)),
	);
	setText(description, plotText(buckets, events.length));
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
		return svg("path", { class: `connection ${kind}`, d: `M${timeX(at)} ${CONNECTION_Y + 6}H${timeX(end)}` });
	});
}

/** Draws the scales anew if the size of the plot has changed. */
function drawScale() {
	const { width, height } = plot.getBoundingClientRect();
	const newRight = Math.max(LEFT, round((width / height) * HEIGHT - RIGHT_MARGIN));
	if (newRight === right) return;
	right = newRight;
	const bandTop = intervalY(Math.max(...INTERVAL_TICKS));
	const bandHeight = intervalY(Math.min(...INTERVAL_TICKS)) - bandTop;
	const minutes = [9, 6, 3];
	setAttribute(plot, "viewBox", `0 0 ${right + RIGHT_MARGIN} ${HEIGHT}`);
	scale.replaceChildren(
		svg("rect", { class: "band", x: LEFT, y: bandTop, width: right - LEFT, height: bandHeight }),
		...DELAY_TICKS.flatMap((delay) => drawTick(delayY(delay), delay)),
		...INTERVAL_TICKS.flatMap((interval) => drawTick(intervalY(interval), interval)),
		drawLabel(LEFT - LABEL_MARGIN, CONNECTION_Y + 10, "end", "online"),
		...minutes.map((n) => drawLabel(right - (n / 10) * (right - LEFT), TIME_Y, "middle", `−${n} min`)),
		drawLabel(right, TIME_Y, "end", "now"),
	);
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
	const title = svg("title", {}, eventText(event));
	if (event.kind === "gap") {
		const from = timeX(event.after.milliseconds);
		const to = timeX(event.before.milliseconds) + 2; // so that the shortest gap is visible
		const d = `M${from} ${DELAY_TOP}H${to}V${INTERVAL_BASE}H${from}z`;
		return svg("path", { class: "plot-event gap-area", d }, title);
	}
	const d = `M${timeX(event.at)} ${CONNECTION_Y}l-4 -7h8z`;
	return svg("path", { class: "plot-event triangle", d }, title);
}

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

/** @param {number} interval Milliseconds. */
function intervalY(interval) {
	const share = interval / MAX_INTERVAL;
	return round(INTERVAL_BASE - Math.min(share, 1) * (INTERVAL_BASE - INTERVAL_TOP));
}

/** @param {number} number */
function round(number) {
	return Math.round(number * 10) / 10;
}
