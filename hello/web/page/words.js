// All that the page says, as text: the connection's state, the tally, the gaps. It knows nothing of elements.

import { KEPT } from "./stream.js";

const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const DATE_AND_CLOCK = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const COUNT = new Intl.NumberFormat("en-GB");

/** A moment (UNIX milliseconds) on the reader's own clock; with the date only where it is not today. */
export function clock(moment, now = Date.now()) {
  const today = new Date(moment).toDateString() === new Date(now).toDateString();
  return (today ? CLOCK : DATE_AND_CLOCK).format(moment);
}

/** The connection's state as [a word for machines, a word or two for the title, a sentence]. */
export function stateWords({ state, since }, { relay, channel, channelSince }) {
  if (state === "connecting") return [state, state, "Connecting…"];
  if (state !== "open") return [state, "reconnecting", endingWords(state, clock(since))];
  if (channel !== "down") return ["connected", "connected", `Connected to ${relay}.`];
  const down = channelSince === null ? "is down" : `has been down since ${clock(channelSince)}`;
  return ["channel-down", "channel down", `Connected to ${relay}, but its channel ${down}.`];
}

function endingWords(state, at) {
  return {
    moved: `At ${at} the relay stopped and sent this page to another.`,
    slow: `At ${at} the relay cut this page off: it read too slowly.`,
    lost: `The connection was lost at ${at}.`,
    dead: `The line is dead, noticed at ${at}: the relay has fallen silent.`,
    unreachable: `No relay can be reached, since ${at}.`,
    garbled: `At ${at} the relay said what this page does not understand. Reloading it may help.`,
  }[state];
}

/** When the next attempt comes; empty while connected, and before the first attempt has failed. */
export function nextWords({ state, attempt, retryAt }, now = Date.now()) {
  if (state === "open" || state === "connecting") return "";
  const when = retryAt === null ? "now" : `in ${Math.max(1, Math.ceil((retryAt - now) / 1000))} s`;
  return `Trying again ${when}${attempt > 1 ? `, attempt ${COUNT.format(attempt)}` : ""}.`;
}

export function tallyWords({ shown, gaps }) {
  if (shown === 0) return "No message yet.";
  const rest = shown > KEPT ? `, the newest ${KEPT} are kept below` : "";
  return `${count(shown, "message")} shown${rest}${gaps > 0 ? `, ${count(gaps, "gap")}` : ""}.`;
}

/** What is missing, and between which times. */
export function gapWords({ after, before, certain }) {
  const [from, to] = [clock(after.milliseconds), clock(before.milliseconds)];
  if (!certain) return `Messages after ${from} may be missing: the relay could not go on from there.`;
  const when = from === to ? `at ${from}` : `between ${from} and ${to}`;
  return `Messages ${when} are lost: they are no longer kept.`;
}

function count(number, noun) {
  return `${COUNT.format(number)} ${noun}${number === 1 ? "" : "s"}`;
}
