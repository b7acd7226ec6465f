// @ts-check
// Connects the modules: the connection, the state, and the parts of the page that draw the state.

import { stayConnected } from "./connection.js";
import { addToList, drawList } from "./list.js";
import { drawNewest, emphasise } from "./newest.js";
import { drawStatistics, drawStatus, enableCopy } from "./panel.js";
import { drawPicture, pulse } from "./picture.js";
import { drawPlot } from "./plot.js";
import { State } from "./state.js";

/** @import { Item } from "./state.js" */

const STATUS_INTERVAL_MS = 250; // how late the count-down to the next attempt may be
const DRAW_INTERVAL_MS = 1000; // of what changes with the time: the plot, the statistics and the oldest processes
const MIN_DRAW_INTERVAL_MS = 100; // limits the cost of drawing at any rate of messages

const state = new State();
let isDrawScheduled = false;
let drawnAt = -Infinity;
let isSummaryScheduled = false;
let summaryDrawnAt = -Infinity;

/** Schedules one drawing. A hidden page is not drawn until it becomes visible. */
function scheduleDraw() {
	if (isDrawScheduled || document.hidden) return;
	isDrawScheduled = true;
	const delay = drawnAt + MIN_DRAW_INTERVAL_MS - performance.now();
	setTimeout(() => requestAnimationFrame(draw), delay);
}

function draw() {
	isDrawScheduled = false;
	drawnAt = performance.now();
	drawNewest(state);
	drawList();
	drawPicture(state);
	scheduleSummary();
}

/** Schedules one drawing of the plot and the statistics, in idle time and not more often than once per interval. */
function scheduleSummary() {
	if (isSummaryScheduled) return;
	isSummaryScheduled = true;
	const delay = summaryDrawnAt + DRAW_INTERVAL_MS - performance.now();
	setTimeout(() => requestIdle(drawSummary), delay);
}

function drawSummary() {
	isSummaryScheduled = false;
	summaryDrawnAt = performance.now();
	drawPlot(state);
	drawStatistics(state);
}

/** @param {() => void} task Safari does not know when it is idle. */
function requestIdle(task) {
	if ("requestIdleCallback" in window) requestIdleCallback(task, { timeout: DRAW_INTERVAL_MS });
	else setTimeout(task);
}

/** @param {Item[]} items The new entries of the log. */
function show(items) {
	addToList(items);
	drawStatus(state);
	scheduleDraw();
	const hasLiveMessage = items.some((item) => item.type === "message" && item.delivery === "live");
	if (!hasLiveMessage || document.hidden) return;
	emphasise();
	pulse();
}

stayConnected({
	protocol: state.protocol,
	onFrame: (frame) => show(state.receive(frame)),
	onConnectionChange: (connection) => show(state.setConnection(connection)),
});
drawStatistics(state);
enableCopy(state);
setInterval(() => drawStatus(state), STATUS_INTERVAL_MS);
setInterval(scheduleDraw, DRAW_INTERVAL_MS);
document.addEventListener("visibilitychange", scheduleDraw);
addEventListener("resize", scheduleDraw);
document.documentElement.setAttribute("data-started", ""); // for guard.js
