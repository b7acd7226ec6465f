// Takes frames and answers what they give to show. It knows neither how they come nor how anything looks.

import { Position } from "./position.js";

export const KEPT = 500; // entries listed (some 45 minutes), and ids remembered: what is listed is not shown again
export const LATEST_TIME = 8.64e15; // milliseconds; the last moment that a Date can hold

const isText = (value) => typeof value === "string";
const isTime = (value) => Number.isInteger(value) && Math.abs(value) <= LATEST_TIME;
const isChannel = (value) => ["up", "down"].includes(value);
const FIELDS = {
  welcome: { relay: isText, channel: isChannel },
  status: { channel: isChannel, since: (value) => value === undefined || isTime(value) },
  message: { id: isText, text: isText, broadcaster: isText, relay: isText, sent_at: isTime, relayed_at: isTime },
};

export class Stream {
  relay = null; // the one that welcomed us last
  channel = null; // "up" or "down", as that relay sees it
  channelSince = null; // UNIX milliseconds, where the relay said so
  position = null; // of the last message taken
  head = null; // the newest position there was at the last welcome
  welcomes = 0;
  shown = 0;
  recovered = 0; // of those: missed
  gaps = 0;
  repeated = 0; // came again, unasked, and were dropped
  #first = null; // the head of the first welcome; what came up to it was before this page
  #ids = [];
  #gap = null; // told, but not yet shown
  #forgotten = null; // the position that a relay would not resume from
  #again = false; // what is known comes again, since we have begun anew

  /**
   * What a frame gives to show: messages and gaps, oldest first. A message `came` "live", "missed" (while away) or
   * "before" the page. A malformed frame throws an Error and changes nothing; unknown types are for newer pages.
   */
  take(frame) {
    check(frame);
    switch (frame.type) {
      case "welcome":
        this.head = frame.head === null ? null : Position.parse(frame.head);
        if (this.welcomes === 0) this.#first = this.head;
        this.welcomes += 1;
        this.relay = frame.relay;
        this.#gap = null; // told by a connection that ended at once; this relay tells it again, or has what was lost
        this.#setChannel(frame);
        break;
      case "status":
        this.#setChannel(frame);
        break;
      case "gap":
        this.#gap = makeGap(Position.parse(frame.after), Position.parse(frame.before), true);
        break;
      case "message":
        return this.#takeMessage({ ...frame, position: Position.parse(frame.position) });
    }
    return [];
  }

  /** Whether all that there was at the welcome has been taken. */
  get isUpToDate() {
    return this.head === null || (this.position !== null && !this.head.isAfter(this.position));
  }

  /** For a relay that refuses our position: begins anew with its recent messages. Knowing the first, none is lost. */
  forgetPosition() {
    this.#forgotten = this.position;
    this.#again = true;
    this.position = this.#first = null;
  }

  #setChannel({ channel, since = null }) {
    this.channel = channel;
    this.channelSince = since;
  }

  #takeMessage(message) {
    const { id, position } = message;
    const isAfter = (other) => other === null || position.isAfter(other);
    if (isAfter(this.head)) this.#again = false;
    // Anything not after our position has been shown, or told as lost, before.
    if (!isAfter(this.position)) {
      this.repeated += 1;
      return [];
    }
    this.position = position;
    const known = this.#ids.includes(id);
    const items = this.#gapBefore(message, known);
    // Known at a second position: published again to a channel that had forgotten the first time.
    if (known) {
      if (!this.#again) this.repeated += 1;
      return items;
    }
    keep(this.#ids, id, KEPT);
    this.shown += 1;
    message.came = isAfter(this.head) ? "live" : isAfter(this.#first) ? "missed" : "before";
    if (message.came === "missed") this.recovered += 1;
    return [...items, message];
  }

  #gapBefore({ position }, known) {
    let gap = this.#gap;
    if (this.#forgotten && !known) gap ??= makeGap(this.#forgotten, position, false);
    this.#gap = this.#forgotten = null;
    if (gap) this.gaps += 1;
    return gap ? [gap] : [];
  }
}

/** Messages between two positions are lost, or (not certain) may be. */
const makeGap = (after, before, certain) => ({ type: "gap", after, before, certain });

function check(frame) {
  const wrong = Object.entries(FIELDS[frame.type] ?? {}).filter(([field, isGood]) => !isGood(frame[field]));
  if (wrong.length > 0) throw new Error(`a ${frame.type} with a bad ${wrong.map(([field]) => field).join(", ")}`);
}

/** Appends to what holds so many items at most, the newest. */
export function keep(array, item, most) {
  if (array.push(item) > most) array.shift();
}
