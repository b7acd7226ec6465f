// Introduces the connection, the state and the drawings to each other.

import { stayConnected } from "./connection.js";
import { List } from "./list.js";
import { drawPanel, drawTally, offerCopy } from "./panel.js";
import { drawPicture, pulse } from "./picture.js";
import { drawPlot } from "./plot.js";
import { State } from "./state.js";

const TICK_MS = 250; // the countdown to the next attempt is told in seconds, and this far off at most
const SECOND = 4; // ticks; the plot moves on, and so do its words
const DRAW_MS = 100; // between two drawings, at least: a flood of messages costs no more

const state = new State();
const list = new List(document.getElementById("messages"), document.getElementById("news"));
let due = false;
let drawnAt = -Infinity;
let ticks = 0;

/** Draws when the browser next draws; nothing where nobody looks. */
function soon() {
  if (due || document.hidden) return;
  due = true;
  setTimeout(requestAnimationFrame, drawnAt + DRAW_MS - performance.now(), draw);
}

function draw() {
  due = false;
  drawnAt = performance.now();
  list.draw();
  drawPicture(state);
  drawPlot(state);
  drawTally(state);
}

function show(items) {
  list.add(items);
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

setInterval(() => {
  ticks += 1;
  if (state.link.retryAt !== null) drawPanel(state);
  if (ticks % SECOND === 0) soon();
}, TICK_MS);
document.addEventListener("visibilitychange", soon);
addEventListener("resize", soon);
