// @ts-check
// Draws the log, newest first, and announces its new messages and gaps to screen readers.

import { pushBounded } from "./bounded.js";
import { KEPT_IDS, MAX_TIME } from "./client-protocol.js";
import { byId, html, setText } from "./elements.js";
import { announcementText, delayText, eventText, formatTime, gapText, jumpText } from "./text.js";

/**
 * @import { Gap } from "./client-protocol.js"
 * @import { Event, Item, ShownMessage } from "./state.js"
 */

const MAX_ENTRIES = KEPT_IDS; // a message in the list is never listed again
const ANNOUNCE_INTERVAL_MS = 5000; // between two announcements; all that came in between becomes one

/** @type {Set<Event["kind"]>} */
const TROUBLE = new Set(["channel-down", "slow", "lost", "dead", "unreachable", "garbled", "offline"]);

const list = byId("messages");
const announcement = byId("announcement");
const jump = byId("jump");

/** @type {Item[]} Entries that are not drawn yet. */
const pending = [];
let unseen = 0; // entries that came while the reader had scrolled back
let unannounced = 0; // messages
/** @type {ShownMessage | null} The newest of them. */
let newest = null;
/** @type {Gap[]} */
let unannouncedGaps = [];
let announcedAt = -Infinity;
let path = ""; // of the newest message that is drawn

list.addEventListener("scroll", () => {
	if (list.scrollTop <= 0) setUnseen(0);
});
jump.addEventListener("click", () => {
	list.scrollTop = 0;
	list.focus();
});

/** @param {Item[]} items Oldest first. */
export function addToList(items) {
	for (const item of items) pushBounded(pending, item, MAX_ENTRIES);
}

/** Draws the new entries at the top. They stay in view unless the reader has scrolled back: then nothing moves. */
export function drawList() {
	const items = pending.splice(0);
	announce(items);
	if (items.length === 0) return;
	const { scrollTop, scrollHeight } = list;
	list.querySelector(".newest")?.classList.remove("newest");
	list.prepend(...items.map(drawItem).reverse());
	list.querySelector(".message")?.classList.add("newest");
	if (scrollTop > 0) {
		list.scrollTop = scrollTop + list.scrollHeight - scrollHeight;
		setUnseen(unseen + items.length);
	}
	// A reader who has scrolled back keeps what is in view until twice as many have come.
	const limit = scrollTop > 0 ? 2 * MAX_ENTRIES : MAX_ENTRIES;
	while (list.childElementCount > limit) list.lastElementChild?.remove();
}

/** Returns the log as text, oldest first, with its times in UTC. */
export function listText() {
	return [...list.children].reverse().map((entry) => {
		const parts = [...entry.children].map((part) => part.getAttribute("datetime") ?? part.textContent ?? "");
		return parts.length > 0 ? parts.join("  ") : (entry.textContent ?? "");
	});
}

/** @param {number} count */
function setUnseen(count) {
	unseen = count;
	jump.classList.toggle("hidden", count === 0);
	setText(jump, jumpText(count));
}

/** @param {Item[]} items */
function announce(items) {
	for (const item of items) {
		if (item.type === "gap") pushBounded(unannouncedGaps, item, MAX_ENTRIES);
		if (item.type === "message" && item.delivery === "live") {
			unannounced += 1;
			newest = item;
		}
	}
	const isNews = unannounced > 0 || unannouncedGaps.length > 0;
	if (!isNews || performance.now() - announcedAt < ANNOUNCE_INTERVAL_MS) return;
	announcement.textContent = announcementText(unannouncedGaps, unannounced, newest);
	unannounced = 0;
	unannouncedGaps = [];
	announcedAt = performance.now();
}

/** @param {Item} item */
function drawItem(item) {
	switch (item.type) {
		case "gap": {
			const positions = { "data-after": String(item.after), "data-before": String(item.before) };
			return html(
				"li",
				{ class: "gap", ...positions },
				drawTime(item.before.milliseconds),
				html("p", {}, gapText(item)),
			);
		}
		case "event":
			return html(
				"li",
				{ class: TROUBLE.has(item.kind) ? "event trouble" : "event" },
				drawTime(item.at),
				html("p", {}, eventText(item)),
			);
		case "message":
			return drawMessage(item);
	}
}

/** @param {ShownMessage} message */
function drawMessage(message) {
	const { broadcaster, relay, delivery } = message;
	const entry = html(
		"li",
		{ class: "message", "data-position": String(message.position), "data-id": message.id },
		drawTime(message.sent_at),
		html("p", { dir: "auto" }, message.text),
		html("span", { class: `delay ${delivery}` }, delayText(message)),
	);
	const before = path;
	path = `${broadcaster} → ${relay}`;
	if (path !== before) entry.append(html("span", { class: "path" }, path)); // not at each message
	return entry;
}

/** @param {number} time */
function drawTime(time) {
	return html("time", { datetime: new Date(Math.min(time, MAX_TIME)).toISOString() }, formatTime(time));
}
