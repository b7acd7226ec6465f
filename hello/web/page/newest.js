// @ts-check
// Draws the newest message, large, and the way that messages take in one row, for screens without room for the picture.

import { byId, html, setAttribute, setText } from "./elements.js";
import { aboutText, routeNames } from "./text.js";

/** @import { State } from "./state.js" */

const EMPHASIS_MS = 900;
// In CSS pixels.
const ROUTE_REST = 160; // what is beside the two names of processes in a row
const ROUTE_LETTER_WIDTH = 8.5;
const MIN_ROUTE_NAME = 6; // characters

const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const card = byId("newest");
const text = byId("text");
const about = byId("about");
const route = byId("route");
let drawnRoute = "";
let drawnWidth = 0; // of the window

/** @param {State} state */
export function drawNewest(state) {
	const { newest, brokenHop, condition } = state;
	if (newest !== null) {
		drawText(newest.text);
		const { time, broadcaster, delay } = aboutText(newest, condition === "connected");
		if (about.childElementCount === 0) {
			about.append(html("time"), html("span", { class: "name" }), html("span", { class: "delay" }));
		}
		for (const [i, part] of [time, broadcaster, delay].entries()) setText(about.children[i], part);
		setAttribute(about.children[0], "datetime", new Date(newest.sent_at).toISOString());
	}
	const length = (route.getBoundingClientRect().width - ROUTE_REST) / 2 / ROUTE_LETTER_WIDTH;
	drawRoute(routeNames(state, Math.max(length, MIN_ROUTE_NAME)), condition === "connecting" ? null : brokenHop);
}

/**
 * Draws a text that has no room with smaller letters. The log has all of it.
 *
 * @param {string} newText
 */
function drawText(newText) {
	const width = innerWidth;
	if (text.textContent === newText && width === drawnWidth) return;
	drawnWidth = width;
	setText(text, newText);
	setAttribute(text, "class", "");
	if (text.scrollHeight > text.clientHeight) setAttribute(text, "class", "long");
}

/**
 * @param {string[]} names Of the four places, from the broadcaster to this page.
 * @param {number | null} brokenHop
 */
function drawRoute(names, brokenHop) {
	const wanted = JSON.stringify([names, brokenHop]);
	if (wanted === drawnRoute) return;
	drawnRoute = wanted;
	const parts = names.flatMap((name, i) => {
		const place = html("span", { class: i % 2 === 0 ? "name" : "" }, name);
		if (i === 0) return [place];
		return [i - 1 === brokenHop ? html("span", { class: "broken" }, "✕") : html("span", {}, "→"), place];
	});
	route.replaceChildren(...parts);
}

/** Emphasises the newest message for a moment. There is one emphasis at a time, at any rate of messages. */
export function emphasise() {
	if (reducedMotion.matches || card.getAnimations().length > 0) return;
	const highlight = getComputedStyle(card).getPropertyValue("--highlight");
	card.animate([{ background: highlight }, {}], { duration: EMPHASIS_MS, easing: "ease-out" });
	text.animate([{ transform: "translateY(-0.25rem)", opacity: 0.4 }, {}], { duration: 250, easing: "ease-out" });
}
