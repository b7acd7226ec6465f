// Draws what there is to show as a list, newest first. It knows nothing of connections.

import { KEPT } from "./stream.js";
import { clock, gapWords } from "./words.js";

export class List {
  #element;

  constructor(element) {
    this.#element = element;
  }

  /** Adds messages and gaps, given oldest first, at the top, and drops the oldest beyond KEPT. */
  add(items) {
    for (const item of items) this.#element.prepend(item.type === "gap" ? drawGap(item) : drawMessage(item));
    while (this.#element.childElementCount > KEPT) this.#element.lastElementChild.remove();
  }
}

function drawMessage({ position, id, text, broadcaster, relay, sent_at: sentAt }) {
  const entry = make("li", { data: { position, id } });
  const time = make("time", { text: clock(sentAt) });
  time.dateTime = new Date(sentAt).toISOString();
  const said = make("p", { className: "text", text });
  said.dir = "auto"; // a message may be in any language
  const path = make("p", { className: "path", text: `said by ${broadcaster}, passed on by ${relay}` });
  entry.append(time, said, path);
  return entry;
}

function drawGap(gap) {
  const { after, before } = gap;
  return make("li", { className: "gap", text: gapWords(gap), data: { after, before } });
}

function make(name, { className = "", text = "", data = {} }) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.textContent = text;
  Object.assign(element.dataset, data);
  return element;
}
