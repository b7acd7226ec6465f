// @ts-check
// Draws the log, and announces its new messages to screen readers.

import { pushBounded } from "./bounded.js";
import { KEPT_IDS } from "./client-protocol.js";
import { byId, html } from "./elements.js";
import { announcementText, eventText, formatTime, gapText } from "./text.js";

/**
 * @import { Gap, Message } from "./client-protocol.js"
 * @import { Item } from "./state.js"
 */

const MAX_ENTRIES = KEPT_IDS; // a message in the list is never listed again
const ANNOUNCE_INTERVAL_MS = 5000; // between two announcements; several messages become one

const list = byId("messages");
const announcement = byId("announcement");

/** @type {Item[]} Entries that are not drawn yet. */
const pending = [];
let unannounced = 0;
/** @type {Message | Gap | null} */
let newest = null;
let announcedAt = -Infinity;
let drawnEnd = 0; // scrollTop at the end of the log, after the last drawing
let drawnTop = 0; // scrollTop, after the last drawing

new ResizeObserver(drawList).observe(list);

/** @param {Item[]} items Oldest first. */
export function addToList(items) {
	for (const item of items) pushBounded(pending, item, MAX_ENTRIES);
}

/** Draws the new entries at the end of the log. The end stays in view unless the reader has scrolled back. */
export function drawList() {
	const items = pending.splice(0);
	const end = list.scrollHeight - list.clientHeight;
	const isAtEnd = list.scrollTop >= Math.min(drawnEnd, end) - 1;
	const isScrolling = list.scrollTop !== drawnTop;
	list.append(...items.map(drawItem));
	if (isAtEnd) {
		list.scrollTop = list.scrollHeight;
		drawnEnd = list.scrollTop;
	} else if (!isScrolling) {
		drawnEnd = end; // kept while the reader scrolls, so that the end of before can be reached
	}
	// The oldest entries go in a later frame than the new ones come: only then does what is in view not move.
	requestAnimationFrame(() => removeOldest(isAtEnd ? MAX_ENTRIES : 2 * MAX_ENTRIES));
	announce(items);
}

/**
 * Removes the entries beyond the newest `count`, and keeps in place what is in view.
 *
 * @param {number} count
 */
function removeOldest(count) {
	const { scrollTop, scrollHeight } = list;
	while (list.childElementCount > count) list.firstElementChild?.remove();
	const removedHeight = scrollHeight - list.scrollHeight;
	if (removedHeight > 0) list.scrollTop = scrollTop - removedHeight;
	drawnEnd -= removedHeight;
	drawnTop = list.scrollTop;
}

/** @param {Item[]} items */
function announce(items) {
	for (const item of items) {
		if (item.type === "gap" || (item.type === "message" && item.delivery === "live")) {
			unannounced += 1;
			newest = item;
		}
	}
	if (unannounced === 0 || newest === null || performance.now() - announcedAt < ANNOUNCE_INTERVAL_MS) return;
	announcement.textContent = announcementText(unannounced, newest);
	unannounced = 0;
	announcedAt = performance.now();
}

/** @param {Item} item */
function drawItem(item) {
	switch (item.type) {
		case "gap": {
			const positions = { "data-after": String(item.after), "data-before": String(item.before) };
			return html("li", { class: "gap", ...positions }, gapText(item));
		}
		case "event":
			return html("li", { class: "event" }, drawTime(item.at), html("p", {}, eventText(item)));
		case "message":
			return html(
				"li",
				{ "data-position": String(item.position), "data-id": item.id },
				drawTime(item.sent_at),
				html("p", { dir: "auto" }, item.text),
				html("p", { class: "path muted" }, `${item.broadcaster} → ${item.relay}`),
			);
	}
}

/** @param {number} time */
function drawTime(time) {
	return html("time", { datetime: new Date(time).toISOString() }, formatTime(time));
}
