// Draws what there is to show as a list, newest first, and lets it be read aloud. It knows nothing of connections.

import { html } from "./elements.js";
import { KEPT } from "./stream.js";
import { clock, eventWords, gapWords, newsWords } from "./words.js";

const SPOKEN_MS = 5000; // between two announcements: a flood of messages is told as a number

export class List {
  #element;
  #news;
  #waiting = []; // oldest first, not drawn yet
  #unspoken = 0;
  #last = null;
  #spokenAt = -Infinity;

  constructor(element, news) {
    this.#element = element;
    this.#news = news;
  }

  /** Takes messages, gaps and events, oldest first. */
  add(items) {
    this.#waiting.push(...items);
    if (this.#waiting.length > 2 * KEPT) this.#waiting.splice(0, KEPT); // nobody looks, and they would be dropped
  }

  /** Puts what is waiting at the top, and drops the oldest beyond KEPT. */
  draw() {
    const items = this.#waiting.splice(0).slice(-KEPT);
    this.#element.prepend(...items.map(drawItem).reverse());
    while (this.#element.childElementCount > KEPT) this.#element.lastElementChild.remove();
    this.#speak(items.filter(({ type, came }) => came === "live" || type === "gap"));
  }

  #speak(items) {
    this.#unspoken += items.length;
    this.#last = items.at(-1) ?? this.#last;
    if (this.#unspoken === 0 || performance.now() - this.#spokenAt < SPOKEN_MS) return;
    this.#news.textContent = newsWords(this.#unspoken, this.#last);
    this.#unspoken = 0;
    this.#spokenAt = performance.now();
  }
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
    html("p", { class: "text", dir: "auto" }, text), // in any language
    html("p", { class: "path quiet" }, `said by ${broadcaster}, passed on by ${relay}`),
  );
}

const drawTime = (moment) => html("time", { class: "quiet", datetime: new Date(moment).toISOString() }, clock(moment));
