// What the page has been told: takes frames and answers what they give to show. It knows neither how frames
// come nor how anything looks.

import { Position } from "./position.js";

/**
 * Entries in the list (some 45 minutes), and message ids remembered: a page that is open for a week must not
 * grow. One number for both: what is still listed is never shown again.
 */
export const KEPT = 500;

const LATEST_TIME = 8.64e15; // milliseconds; the last moment that a Date can hold

export class Stream {
  relay = null; // the name of the relay that welcomed us last
  channel = null; // "up" or "down", as that relay sees it
  channelSince = null; // UNIX milliseconds; null where the relay did not say
  position = null; // of the last message taken; null before the first one
  shown = 0;
  gaps = 0;
  #ids = new Set(); // in the order of arrival
  #gap = null; // told, but not yet shown
  #forgotten = null; // the position that a relay would not resume from

  /**
   * Answers what one frame gives to show: messages and gaps, oldest first, often none. Throws an Error if the
   * frame is malformed. Frames of an unknown type are for newer pages.
   */
  take(frame) {
    switch (frame.type) {
      case "welcome":
        this.relay = frame.relay;
        this.#setChannel(frame);
        // Told by a connection that ended at once. This relay tells it again, or has what was lost.
        this.#gap = null;
        return [];
      case "status":
        this.#setChannel(frame);
        return [];
      case "gap":
        this.#gap = makeGap(Position.parse(frame.after), Position.parse(frame.before), true);
        return [];
      case "message":
        return this.#takeMessage(read(frame));
      default:
        return [];
    }
  }

  /**
   * For a relay that refuses our position: begins anew with its recent messages. If the first is known, they
   * leave nothing out.
   */
  forgetPosition() {
    this.#forgotten = this.position;
    this.position = null;
  }

  #setChannel({ channel, since }) {
    this.channel = channel;
    this.channelSince = since ?? null;
  }

  #takeMessage(message) {
    // A relay sends what comes after our position. Anything else has been shown, or told as lost, before.
    if (this.position !== null && !message.position.isAfter(this.position)) return [];
    this.position = message.position;
    const known = this.#ids.has(message.id);
    const items = this.#gapBefore(message, known);
    // Known at a second position: published again to a channel that had forgotten the first time.
    if (!known) {
      this.#remember(message.id);
      this.shown += 1;
      items.push(message);
    }
    return items;
  }

  #gapBefore(message, known) {
    let gap = this.#gap;
    if (this.#forgotten !== null && !known) {
      gap ??= makeGap(this.#forgotten, message.position, false);
    }
    this.#gap = this.#forgotten = null;
    if (gap === null) return [];
    this.gaps += 1;
    return [gap];
  }

  #remember(id) {
    this.#ids.add(id);
    if (this.#ids.size > KEPT) this.#ids.delete(this.#ids.values().next().value);
  }
}

/** Messages between two positions are lost, or (not certain) may be. */
function makeGap(after, before, certain) {
  return { type: "gap", after, before, certain };
}

/** A message frame with its position read; throws an Error that names what is wrong. */
function read(frame) {
  const wrong = ["id", "text", "broadcaster", "relay"].filter((field) => typeof frame[field] !== "string");
  if (!(Math.abs(frame.sent_at) <= LATEST_TIME)) wrong.push("sent_at");
  if (wrong.length > 0) throw new Error(`a message with a bad ${wrong.join(", ")}`);
  return { ...frame, position: Position.parse(frame.position) };
}
