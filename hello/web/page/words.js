// All that the page says, as text. It knows nothing of elements.

import { LATEST_TIME } from "./stream.js";

const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const DATE_AND_CLOCK = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const NUMBER = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 1 });
const UNITS = Object.entries({ h: 3_600_000, min: 60_000, s: 1000, ms: 0.1 });

/** A moment (UNIX milliseconds) on the reader's own clock; with the date only where it is not today. */
export function clock(moment, now = Date.now()) {
  const shown = Math.min(moment, LATEST_TIME); // a position may be beyond all dates
  const today = new Date(shown).toDateString() === new Date(now).toDateString();
  return (today ? CLOCK : DATE_AND_CLOCK).format(shown);
}

/** Milliseconds, in a unit that suits them. */
export function duration(time) {
  const [unit, size] = UNITS.find(([, size]) => Math.abs(time) >= size) ?? UNITS.at(-1);
  return `${NUMBER.format(unit === "ms" ? time : time / size)} ${unit}`;
}

const count = (number, noun) => `${NUMBER.format(number)} ${noun}${number === 1 ? "" : "s"}`;

/** How the connection stands: a word or two for the title, and a sentence. */
export function stateWords({ condition, link, relay, channelSince }) {
  const down = channelSince === null ? "is down" : `has been down since ${clock(channelSince)}`;
  return {
    connecting: ["connecting", "Connecting…"],
    connected: ["connected", `Connected to ${relay}.`],
    "channel-down": ["channel down", `Connected to ${relay}, but its channel ${down}.`],
  }[condition] ?? ["reconnecting", eventWords({ kind: condition, at: link.since })];
}

/** When the next attempt comes; empty while connected, and before the first attempt has failed. */
export function nextWords({ state, attempt, retryAt }, now = Date.now()) {
  if (state === "open" || state === "connecting") return "";
  const when = retryAt === null ? "now" : `in ${Math.max(1, Math.ceil((retryAt - now) / 1000))} s`;
  return `Trying again ${when}${attempt > 1 ? `, attempt ${NUMBER.format(attempt)}` : ""}.`;
}

export function eventWords(event) {
  if (event.kind === "gap") return gapWords(event);
  const { kind, relay, missed } = event;
  const at = clock(event.at);
  return {
    connected: `Connected to ${relay}.`,
    resumed: `Resumed at ${relay}: ${missed ? `${count(missed, "missed message")} recovered` : "nothing was missed"}.`,
    "channel-down": `${relay} has lost the channel.`,
    "channel-up": `${relay} has the channel again.`,
    moved: `At ${at} the relay stopped and sent this page to another.`,
    slow: `At ${at} the relay cut this page off: it read too slowly.`,
    lost: `The connection was lost at ${at}.`,
    dead: `The line is dead, noticed at ${at}: the relay has fallen silent.`,
    unreachable: `No relay can be reached, since ${at}.`,
    garbled: `At ${at} the relay said what this page does not understand. Reloading it may help.`,
  }[kind];
}

export function gapWords({ after, before, certain }) {
  const [from, to] = [clock(after.milliseconds), clock(before.milliseconds)];
  if (!certain) return `Messages after ${from} may be missing: the relay could not go on from there.`;
  const when = from === to ? `at ${from}` : `between ${from} and ${to}`;
  return `Messages ${when} are lost: they are no longer kept.`;
}

export function newsWords(news, last) {
  const words = last.text ?? gapWords(last);
  return news === 1 ? words : `${NUMBER.format(news)} messages, the last one: ${words}`;
}

export function tallyWords({ shown, recovered, gaps, repeated, reconnects, silence, median, worst }) {
  return Object.entries({
    Shown: NUMBER.format(shown),
    "Missed, recovered": NUMBER.format(recovered),
    "Lost (gaps)": NUMBER.format(gaps),
    Repeated: NUMBER.format(repeated),
    Reconnects: NUMBER.format(reconnects),
    "Longest silence": duration(silence),
    "Median delay": median === null ? "–" : duration(median),
    "Worst delay": worst === null ? "–" : duration(worst),
  });
}

/** The lines in the picture's boxes: broadcaster, channel, relay, page. */
export function boxWords(state, now) {
  const { last, link, channel, channelSince, cut } = state;
  const some = ([first, second, ...more]) => [first, more.length > 0 ? `${second} and ${more.length} more` : second];
  const since = (moment) => moment && `since ${clock(moment)}`;
  return [
    [...some(state.names("broadcaster", now)), last && `spoke at ${clock(last.sent_at)}`],
    cut === 2 ? ["not known from here"] : [channel, since(channelSince)],
    some(state.names("relay", now)),
    [cut === 2 ? link.state : "connected", since(link.since)],
  ].map((lines) => lines.filter(Boolean));
}

export function pathWords({ shape, last, hops }) {
  if (last === null) return "No message has come yet.";
  const { broadcaster, relay } = last;
  const who =
    shape === "combined"
      ? `One process runs both actors: ${broadcaster} speaks and relays.`
      : `The actors run apart: ${broadcaster} speaks, ${relay} relays.`;
  if (!hops) return who;
  const [first, second, third] = hops.map(duration);
  const skew = -Math.min(...hops);
  const times = `${first} to the channel, ${second} to the relay and ${third} to this page`;
  const clocks = `by the clocks of their machines${skew > 0 ? `, which differ by ${duration(skew)} at least` : ""}`;
  return `${who} The last message took ${times}, ${clocks}.`;
}

export function plotWords(moments, events) {
  const messages = moments.reduce((sum, { count }) => sum + count, 0);
  const pause = duration(moments.reduce((longest, { pause }) => Math.max(longest, pause), 0));
  return `${count(messages, "message")}, with pauses of up to ${pause}, and ${count(events, "event")} of the line.`;
}

/** All of it as text, to be pasted into an issue. */
export function reportWords(state, now = Date.now()) {
  const iso = (moment) => new Date(moment).toISOString();
  return [
    `hello at ${location.href}, ${iso(state.since)} to ${iso(now)}, in ${navigator.userAgent}`,
    stateWords(state)[1],
    pathWords(state),
    `Broadcasters: ${state.names("broadcaster", now).join(", ")}`,
    `Relays: ${state.names("relay", now).join(", ")}`,
    ...tallyWords(state.tally(now)).map((pair) => pair.join(": ")),
    ...state.events.map((event) => `${iso(event.at)} ${eventWords(event)}`),
    `(Times of day are of ${CLOCK.resolvedOptions().timeZone}.)`,
  ].join("\n");
}
