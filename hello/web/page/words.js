// All that the page says, as text. It knows nothing of elements.

import { LATEST_TIME } from "./stream.js";

const [CLOCK, DATE_AND_CLOCK] = [undefined, "medium"].map(
	(dateStyle) => new Intl.DateTimeFormat("en-GB", { dateStyle, timeStyle: "medium" }),
);
const { format: count } = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 1 });
const UNITS = Object.entries({ h: 3_600_000, min: 60_000, s: 1000, ms: 1 });

/** UNIX milliseconds on the reader's clock, with the date if it is not today's. */
export function clock(moment, now = Date.now()) {
	const date = new Date(Math.min(moment, LATEST_TIME)); // a position may be beyond all dates
	const isToday = date.toDateString() === new Date(now).toDateString();
	return (isToday ? CLOCK : DATE_AND_CLOCK).format(date);
}

/** Milliseconds, in a unit that suits them; null is a dash. */
export function duration(time) {
	if (time === null) return "–";
	const [unit, size] = UNITS.find(([, size]) => Math.abs(time) >= size) ?? UNITS.at(-1);
	return `${count(time / size)} ${unit}`;
}

const some = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** For the title, and as a sentence. */
export function stateWords({ condition, link, relay, channelSince }) {
	const down = channelSince === null ? "is down" : `has been down since ${clock(channelSince)}`;
	return {
		connecting: ["connecting", "Connecting…"],
		connected: ["connected", `Connected to ${relay}.`],
		"channel-down": ["channel down", `Connected to ${relay}, but its channel ${down}.`],
	}[condition] ?? ["reconnecting", eventWords({ kind: condition, at: link.since })];
}

export function nextWords({ state, attempt, retryAt }, now = Date.now()) {
	if (state === "open" || state === "connecting") return "";
	const when = retryAt === null ? "now" : `in ${Math.max(1, Math.ceil((retryAt - now) / 1000))} s`;
	return `Trying again ${when}${attempt > 1 ? `, attempt ${count(attempt)}` : ""}.`;
}

export function eventWords(event) {
	const { kind, relay, missed } = event;
	if (kind === "gap") return gapWords(event);
	const at = clock(event.at);
	return {
		connected: `Connected to ${relay}.`,
		resumed: `Resumed at ${relay}: ${missed ? `${some(missed, "missed message")} recovered` : "nothing was missed"}.`,
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
	return news === 1 ? words : `${count(news)} messages, the last one: ${words}`;
}

export function tallyWords(tally) {
	return Object.entries({
		Shown: count(tally.shown),
		"Missed, recovered": count(tally.recovered),
		"Lost (gaps)": count(tally.gaps),
		Repeated: count(tally.repeated),
		Reconnects: count(tally.reconnects),
		"Longest silence": duration(tally.silence),
		"Median delay": duration(tally.median),
		"Worst delay": duration(tally.worst),
	});
}

/** The lines in the picture's four boxes. */
export function boxWords(state, now) {
	const { last, link, channel, channelSince, cut } = state;
	const names = (actor) => {
		const [first, second, ...more] = state.names(actor, now);
		return [first, more.length > 0 ? `${second} and ${more.length} more` : second];
	};
	const since = (moment) => moment && `since ${clock(moment)}`;
	return [
		[...names("broadcaster"), last && `spoke at ${clock(last.sent_at)}`],
		cut === 2 ? ["not known from here"] : [channel, since(channelSince)],
		names("relay"),
		[cut === 2 ? link.state : "connected", since(link.since)],
	].map((lines) => lines.filter(Boolean));
}

export function pathWords({ shape, last, hops }) {
	if (last === null) return "No message has come yet.";
	const { broadcaster, relay } = last;
	const who = {
		combined: `One process runs both actors: ${broadcaster} speaks and relays.`,
		split: `The actors run apart: ${broadcaster} speaks, ${relay} relays.`,
	}[shape];
	if (!hops) return who;
	const [first, second, third] = hops.map(duration);
	const skew = -Math.min(...hops);
	const clocks = skew > 0 ? `, which differ by ${duration(skew)} at least` : "";
	const times = `${first} to the channel, ${second} to the relay and ${third} to this page`;
	return `${who} The last message took ${times}, by the clocks of their machines${clocks}.`;
}

export function plotWords(moments, events) {
	const messages = moments.reduce((sum, { count }) => sum + count, 0);
	const pause = duration(Math.max(0, ...moments.map(({ pause }) => pause)));
	return `${some(messages, "message")}, with pauses of up to ${pause}, and ${some(events, "event")} of the line.`;
}

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
