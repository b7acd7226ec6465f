// Draws the path of a message, in the shape that runs: four boxes and the hops between.

import { byId, set, svg, write } from "./elements.js";
import { boxWords, duration, pathWords } from "./words.js";

const STEP = 118; // from box to box, in units of the drawing
const HEIGHT = 82; // of a box
const LETTERS = 28; // of a line; the ends of pods' names differ
const PULSE_MS = 900;

const still = matchMedia("(prefers-reduced-motion: reduce)");
const [picture, words] = ["picture", "path"].map(byId);
const both = picture.querySelector(".both");
const boxes = ["Broadcaster", "Channel", "Relay", "This page"].map((role, i) =>
	svg("g", { transform: `translate(36 ${i * STEP + 1})` },
		svg("rect", { width: 232, height: HEIGHT, rx: 8 }),
		...[22, 40, 56, 72].map((y) => svg("text", { x: 12, y }, y === 22 ? role : "")),
	),
);
const hops = [0, 1, 2].map((i) =>
	svg("g", { transform: `translate(152 ${i * STEP + HEIGHT + 1})` },
		svg("path", { d: "M0 0v35m-5 -7l5 7l5 -7" }),
		svg("path", { class: "cross", d: "M-7 9l14 14m0 -14l-14 14" }),
		svg("text", { x: 14, y: 22 }),
	),
);
const light = svg("circle", { class: "pulse", r: 6, cx: 152 });
picture.append(...hops, light, ...boxes);

/** What lies behind a cut is drawn as when it was heard of last. */
export function drawPicture(state) {
	const { condition, cut } = state;
	boxWords(state).forEach((lines, i) => {
		const [, , ...texts] = boxes[i].children;
		texts.forEach((text, n) => write(text, fit(lines[n] ?? "")));
		set(boxes[i], "class", i > cut ? "box" : i * cut === 1 ? "box bad" : "box unknown");
	});
	hops.forEach((hop, i) => {
		const isCut = i === cut && condition !== "connecting";
		const time = i > cut && state.hops ? duration(state.hops[i]) : "";
		set(hop, "class", isCut ? "hop cut" : i > cut ? "hop" : "hop unknown");
		write(hop.lastChild, isCut ? (cut === 1 ? "down" : condition) : time);
	});
	both.classList.toggle("none", state.shape !== "combined");
	write(words, pathWords(state));
}

/** Shows that a message has come; one at a time: a flood is a steady light. */
export function pulse() {
	if (light.getAnimations().length > 0) return;
	const [start, end] = [50, 3 * STEP - 20].map((y) => ({ transform: `translateY(${y}px)`, opacity: 1 }));
	const frames = still.matches ? [end, { ...end, opacity: 0 }] : [start, end];
	light.animate(frames, { duration: PULSE_MS, easing: "ease-in-out" });
}

const fit = (line) => (line.length > LETTERS ? `…${line.slice(1 - LETTERS)}` : line);
