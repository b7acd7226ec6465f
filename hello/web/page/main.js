// Brings the connection, the state and the drawings together.

import { stayConnected } from "./connection.js";
import { add, drawList } from "./list.js";
import { drawPanel, drawTally, offerCopy } from "./panel.js";
import { drawPicture, pulse } from "./picture.js";
import { drawPlot } from "./plot.js";
import { State } from "./state.js";

const COUNT_DOWN_MS = 250; // the next attempt is told so far off at most
const MOVE_ON_MS = 1000; // the plot and the tally
const DRAW_MS = 100; // between two drawings, at least: a flood costs no more

const state = new State();
let due = false;
let drawnAt = -Infinity;

/** Draws when the browser next draws; nothing where nobody looks. */
function soon() {
	if (due || document.hidden) return;
	due = true;
	setTimeout(requestAnimationFrame, drawnAt + DRAW_MS - performance.now(), draw);
}

function draw() {
	due = false;
	drawnAt = performance.now();
	drawList();
	drawPicture(state);
	drawPlot(state);
	drawTally(state);
}

function show(items) {
	add(items);
	drawPanel(state);
	soon();
	if (items.some(({ came }) => came === "live") && !document.hidden) pulse();
}

stayConnected({
	stream: state,
	hear: (frame) => show(state.take(frame)),
	tell: (link) => show(state.turn(link)),
});
drawTally(state);
offerCopy(state);
setInterval(drawPanel, COUNT_DOWN_MS, state);
setInterval(soon, MOVE_ON_MS);
document.addEventListener("visibilitychange", soon);
addEventListener("resize", soon);
