// Draws what there is to show as a log, and has it read aloud.

import { byId, html } from "./elements.js";
import { keep, KEPT } from "./stream.js";
import { clock, eventWords, gapWords, newsWords } from "./words.js";

const SPOKEN_MS = 5000; // between two announcements: a flood is told as a number

const [list, news] = ["messages", "news"].map(byId);
const waiting = [];
let unspoken = 0;
let last = null;
let spokenAt = -Infinity;
let [end, place] = [0, 0]; // of the log and in it, as drawn last

new ResizeObserver(drawList).observe(list);

/** Takes messages, gaps and events, oldest first. */
export function add(items) {
	for (const item of items) keep(waiting, item, KEPT);
}

/** Puts what is waiting at the end, which stays in view unless someone has gone back. */
export function drawList() {
	const items = waiting.splice(0);
	const max = list.scrollHeight - list.clientHeight;
	const follows = list.scrollTop >= Math.min(end, max) - 1;
	list.append(...items.map(drawItem));
	if (follows) {
		list.scrollTop = list.scrollHeight;
		end = list.scrollTop;
	} else if (list.scrollTop === place) end = max; // not while someone scrolls
	// In a frame of its own: what is in view does not move then.
	requestAnimationFrame(() => {
		const { scrollTop, scrollHeight } = list;
		while (list.childElementCount > (follows ? KEPT : 2 * KEPT)) list.firstElementChild.remove();
		const dropped = scrollHeight - list.scrollHeight;
		if (dropped) list.scrollTop = scrollTop - dropped;
		end -= dropped;
		place = list.scrollTop;
	});
	speak(items.filter(({ type, came }) => came === "live" || type === "gap"));
}

function speak(items) {
	unspoken += items.length;
	last = items.at(-1) ?? last;
	if (unspoken === 0 || performance.now() - spokenAt < SPOKEN_MS) return;
	news.textContent = newsWords(unspoken, last);
	unspoken = 0;
	spokenAt = performance.now();
}

function drawItem(item) {
	if (item.type === "gap") {
		return html("li", { class: "gap", "data-after": item.after, "data-before": item.before }, gapWords(item));
	}
	if (item.type === "event") {
		return html("li", { class: "event" }, drawTime(item.at), html("p", {}, eventWords(item)));
	}
	const { position, id, text, broadcaster, relay, sent_at: sentAt } = item;
	return html("li", { "data-position": position, "data-id": id }, drawTime(sentAt),
		html("p", { dir: "auto" }, text),
		html("p", { class: "path quiet" }, `${broadcaster} → ${relay}`),
	);
}

const drawTime = (moment) => html("time", { datetime: new Date(moment).toISOString() }, clock(moment));
