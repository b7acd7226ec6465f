// Draws the last ten minutes: each message with its delay, the pauses, and the connection.

import { byId, set, svg, write } from "./elements.js";
import { SHOWN_MS } from "./state.js";
import { duration, eventWords, plotWords } from "./words.js";

// In units of the drawing, as wide as there is room.
const HEIGHT = 212;
const [LEFT, RIGHT] = [56, 6]; // beside the plot, for the scales
const [TOP, DELAY_BASE, PAUSE_TOP, PAUSE_BASE, LINE, LABELS] = [8, 92, 112, 160, 174, 202];
const DELAYS = [1, 100, 10_000]; // milliseconds, logarithmic
const PAUSES = [1000, 10_000]; // milliseconds, as usual
const LONGEST = 15_000;
// A mark's least height: what was not live has no delay. Later ones are drawn over earlier.
const HIGH = { before: 4, missed: 12, live: 1 };

const plot = byId("plot");
const words = svg("title");
const scale = svg("g");
const pauses = svg("path", { class: "pauses" });
const marks = Object.entries(HIGH).map(([kind, high]) => [kind, high, svg("path", { class: kind })]);
const line = svg("g");
plot.append(words, scale, pauses, ...marks.map(([, , path]) => path), line);
let end = 0; // of the scale

export function drawPlot(state, now = Date.now()) {
	state.prune(now);
	fitScale();
	const { moments, since } = state;
	const x = (at) => round(LEFT + (end - LEFT) * Math.min(1, Math.max(0, 1 - (now - at) / SHOWN_MS)));
	const stem = (at, base, top) => `M${x(at)} ${base}V${top}`;
	for (const [kind, high, path] of marks) {
		const some = moments.filter(({ came }) => came === kind);
		const top = (delay) => Math.min(delayY(delay), DELAY_BASE - high);
		set(path, "d", some.map(({ at, delay }) => stem(at, DELAY_BASE, top(delay))).join(""));
	}
	set(pauses, "d", moments.map(({ at, pause }) => (pause ? stem(at, PAUSE_BASE, pauseY(pause)) : "")).join(""));
	const events = state.events.filter(({ at }) => at >= now - SHOWN_MS);
	const turns = [{ kind: "connecting", at: since }, ...state.events.filter(({ kind }) => kind !== "gap")];
	const spans = turns.map(({ kind, at }, i) => {
		const d = `M${x(at)} ${LINE + 6}H${x(turns[i + 1]?.at ?? now)}`;
		return svg("path", { class: `span ${kind}`, d });
	});
	line.replaceChildren(...spans, ...events.map((event) => drawEvent(event, x)));
	write(words, plotWords(moments, events.length));
}

function fitScale() {
	const { width, height } = plot.getBoundingClientRect();
	const before = end;
	end = Math.max(LEFT, round((width / height) * HEIGHT - RIGHT));
	if (end === before) return;
	const label = (x, y, anchor, text) => svg("text", { x, y, "text-anchor": anchor }, text);
	const mark = (y, time) => [
		svg("path", { class: "grid", d: `M${LEFT} ${y}H${end}` }),
		label(LEFT - 6, y + 4, "end", duration(time)),
	];
	const [low, high] = PAUSES.map(pauseY);
	set(plot, "viewBox", `0 0 ${end + RIGHT} ${HEIGHT}`);
	scale.replaceChildren(
		svg("rect", { class: "band", x: LEFT, y: high, width: end - LEFT, height: low - high }),
		...DELAYS.flatMap((delay) => mark(delayY(delay), delay)),
		...PAUSES.flatMap((pause) => mark(pauseY(pause), pause)),
		label(LEFT - 6, LINE + 10, "end", "online"),
		...[9, 6, 3].map((n) => label(end - (n / 10) * (end - LEFT), LABELS, "middle", `−${n} min`)),
		label(end, LABELS, "end", "now"),
	);
}

function drawEvent(event, x) {
	const { kind, at, after, before } = event;
	const [from, to] = after ? [after, before].map(({ milliseconds }) => x(milliseconds)) : [];
	const d = after ? `M${from} ${TOP}H${to + 2}V${PAUSE_BASE}H${from}z` : `M${x(at)} ${LINE}l-4 -7h8z`;
	return svg("path", { class: `event ${kind}`, d }, svg("title", {}, eventWords(event)));
}

const round = (number) => Math.round(number * 10) / 10;
const between = (base, top, share) => round(base - Math.min(share, 1) * (base - top));
const delayY = (delay) => between(DELAY_BASE, TOP, Math.log10(Math.max(delay, 1)) / Math.log10(DELAYS.at(-1)));
const pauseY = (pause) => between(PAUSE_BASE, PAUSE_TOP, pause / LONGEST);
