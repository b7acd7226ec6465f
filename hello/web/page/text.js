// @ts-check
// Every text that the page shows, except for those of index.html. This module does not use the document.

import { MAX_TIME } from "./client-protocol.js";
import { IDLE_TIMEOUT_MS } from "./connection.js";
import { CHANNEL_TO_RELAY, RELAY_TO_PAGE } from "./state.js";

/**
 * @import { Gap, Message } from "./client-protocol.js"
 * @import { Connection } from "./connection.js"
 * @import { Bucket, EventDetails, State, Statistics } from "./state.js"
 */

const TIME = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const DATE_AND_TIME = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
// As in hello/printable.py: what controls a terminal, ends a line or reorders it, and lone surrogates.
const UNSAFE = /[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/gu;
/** @type {Record<string, string>} */
const SHORT_ESCAPES = { "\t": "\\t", "\n": "\\n", "\r": "\\r" };
const NUMBER = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 1 });

/**
 * Returns the time of day in the reader's time zone, with the date if it is not today's.
 *
 * @param {number} time UNIX milliseconds
 */
export function formatTime(time, now = Date.now()) {
	const date = new Date(Math.min(time, MAX_TIME)); // a position may be later than any Date
	const isToday = date.toDateString() === new Date(now).toDateString();
	return (isToday ? TIME : DATE_AND_TIME).format(date);
}

/**
 * Returns a duration in the largest unit of which it has at least one; a dash for null.
 *
 * @param {number | null} milliseconds
 */
export function formatDuration(milliseconds) {
	if (milliseconds === null) return "–";
	const length = Math.abs(milliseconds);
	if (length >= 3_600_000) return `${formatNumber(milliseconds / 3_600_000)} h`;
	if (length >= 60_000) return `${formatNumber(milliseconds / 60_000)} min`;
	if (length >= 1000) return `${formatNumber(milliseconds / 1000)} s`;
	return `${formatNumber(milliseconds)} ms`;
}

/** @param {number} number */
function formatNumber(number) {
	return NUMBER.format(number);
}

/**
 * @param {number} number
 * @param {string} noun
 */
function formatCount(number, noun) {
	return `${formatNumber(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/**
 * Returns the state of the connection: `short` for the title, `long` as a sentence.
 *
 * @param {State} state
 */
export function statusText({ condition, connection, protocol }) {
	const { relay, channelSince } = protocol;
	switch (condition) {
		case "connecting":
			return { short: "connecting", long: "Connecting…" };
		case "connected":
			return { short: "connected", long: `Connected to ${relay}.` };
		case "channel-down": {
			const isDown = channelSince === null ? "is down" : `has been down since ${formatTime(channelSince)}`;
			return { short: "channel down", long: `Connected to ${relay}, but its channel ${isDown}.` };
		}
		default:
			return { short: "reconnecting", long: eventText({ kind: condition, at: connection.since }) };
	}
}

/** @param {Connection} connection */
export function retryText({ state, attempt, retryAt }, now = Date.now()) {
	if (state === "open" || state === "connecting") return "";
	const when = retryAt === null ? "now" : `in ${Math.max(1, Math.ceil((retryAt - now) / 1000))} s`;
	const count = attempt > 1 ? `, attempt ${formatNumber(attempt)}` : "";
	return `Reconnecting ${when}${count}.`;
}

/** @param {EventDetails & { at: number }} event */
export function eventText(event) {
	const at = formatTime(event.at);
	switch (event.kind) {
		case "gap":
			return gapText(event);
		case "connected":
			return `Connected to ${event.relay}.`;
		case "resumed": {
			const { relay, recovered } = event;
			if (recovered === 0) return `Resumed at ${relay}: nothing was missed.`;
			return `Resumed at ${relay}: ${formatCount(recovered, "missed message")} recovered.`;
		}
		case "channel-down":
			return `${event.relay} lost its connection to the channel.`;
		case "channel-up":
			return `${event.relay} is connected to the channel again.`;
		case "moved":
			return `The relay stopped at ${at} and closed the connection.`;
		case "slow":
			return `The relay closed the connection at ${at}: this page received too slowly.`;
		case "lost":
			return `The connection was lost at ${at}.`;
		case "dead":
			return `No data for ${formatDuration(IDLE_TIMEOUT_MS)}: the connection timed out at ${at}.`;
		case "unreachable":
			return `No relay has been reachable since ${at}.`;
		case "garbled":
			return `The relay sent data at ${at} that this page cannot read. Reload the page to update it.`;
	}
}

/** @param {Pick<Gap, "after" | "before" | "certain">} gap */
export function gapText({ after, before, certain }) {
	const from = formatTime(after.milliseconds);
	const to = formatTime(before.milliseconds);
	if (!certain) return `Messages after ${from} may be lost: the relay could not resume from there.`;
	const when = from === to ? `at ${from}` : `between ${from} and ${to}`;
	return `Messages ${when} are lost: the relay no longer has them.`;
}

/**
 * Returns the text for screen readers.
 *
 * @param {number} count The number of new entries.
 * @param {Message | Gap} newest
 */
export function announcementText(count, newest) {
	const text = newest.type === "gap" ? gapText(newest) : newest.text;
	return count === 1 ? text : `${formatNumber(count)} new messages, the last one: ${text}`;
}

/** @param {Statistics} statistics */
export function statisticsRows(statistics) {
	const { shown, recovered, gaps, repeated, reconnects, longestSilence, medianDelay, worstDelay } = statistics;
	return [
		{ label: "Shown", value: formatNumber(shown) },
		{ label: "Recovered", value: formatNumber(recovered) },
		{ label: "Lost (gaps)", value: formatNumber(gaps), isError: gaps > 0 },
		{ label: "Repeated", value: formatNumber(repeated) },
		{ label: "Reconnects", value: formatNumber(reconnects) },
		{ label: "Longest silence", value: formatDuration(longestSilence) },
		{ label: "Median delay", value: formatDuration(medianDelay) },
		{ label: "Worst delay", value: formatDuration(worstDelay) },
	];
}

/**
 * Returns the lines below the titles of the picture's boxes: up to three for each.
 *
 * @param {State} state
 */
export function boxLines(state, now = Date.now()) {
	const { newest, connection, protocol, brokenHop } = state;
	const sent = newest === null ? [] : [`sent at ${formatTime(newest.sent_at)}`];
	const channelSince = protocol.channelSince === null ? [] : [`since ${formatTime(protocol.channelSince)}`];
	const channel = protocol.channel === null ? [] : [protocol.channel, ...channelSince];
	const isConnected = brokenHop !== RELAY_TO_PAGE;
	return {
		broadcaster: [...instanceLines(state.instances("broadcaster", now)), ...sent],
		channel: isConnected ? channel : ["state unknown"],
		relay: instanceLines(state.instances("relay", now)),
		page: [isConnected ? "connected" : conditionLabel(state), `since ${formatTime(connection.since)}`],
	};
}

/**
 * Returns two lines at most: the newest instance, and the others.
 *
 * @param {string[]} instances
 */
function instanceLines([first, second, ...more]) {
	if (first === undefined) return [];
	if (second === undefined) return [first];
	return [first, more.length > 0 ? `${second} and ${more.length} more` : second];
}

/**
 * Returns the label of a broken hop: two words at most.
 *
 * @param {State} state
 */
export function conditionLabel({ condition, brokenHop }) {
	if (brokenHop === CHANNEL_TO_RELAY) return "down";
	switch (condition) {
		case "moved":
			return "relay stopped";
		case "slow":
			return "too slow";
		case "dead":
			return "no data";
		case "garbled":
			return "invalid data";
		default:
			return condition;
	}
}

/** @param {State} state */
export function pathText({ shape, newest, hopDelays }) {
	if (newest === null) return "No message has been received yet.";
	const { broadcaster, relay } = newest;
	const processes =
		shape === "combined"
			? `One process runs both actors: ${broadcaster}.`
			: `Separate processes: ${broadcaster} publishes, ${relay} relays.`;
	if (hopDelays === null) return processes;
	const [first, second, third] = hopDelays.map(formatDuration);
	const skew = -Math.min(...hopDelays);
	const clocks = skew > 0 ? `, which differ by ${formatDuration(skew)} at least` : "";
	const times = `${first} to the channel, ${second} to the relay and ${third} to this page`;
	return `${processes} The last message took ${times}, by the clocks of their machines${clocks}.`;
}

/**
 * @param {Bucket[]} buckets
 * @param {number} eventCount
 */
export function plotText(buckets, eventCount) {
	const messages = buckets.reduce((sum, { count }) => sum + count, 0);
	const longest = Math.max(0, ...buckets.map(({ interval }) => interval ?? 0));
	return [
		formatCount(messages, "message"),
		`intervals of up to ${formatDuration(longest)}`,
		`${formatCount(eventCount, "connection event")}.`,
	].join(", ");
}

/**
 * Returns the text in one line that is safe in a terminal, with each unsafe character escaped: ESC as `\x1b`.
 *
 * @param {string} text
 */
export function printable(text) {
	return text.replace(UNSAFE, (character) => {
		const code = character.charCodeAt(0).toString(16).padStart(2, "0");
		return SHORT_ESCAPES[character] ?? (code.length > 2 ? `\\u${code.padStart(4, "0")}` : `\\x${code}`);
	});
}

/**
 * Returns everything that the page has seen, for a bug report.
 *
 * @param {State} state
 */
export function reportText(state, now = Date.now()) {
	const lines = [
		`hello at ${location.href}, ${formatIso(state.openedAt)} to ${formatIso(now)}, in ${navigator.userAgent}`,
		statusText(state).long,
		pathText(state),
		`Broadcasters: ${state.instances("broadcaster", now).join(", ")}`,
		`Relays: ${state.instances("relay", now).join(", ")}`,
		...statisticsRows(state.statistics(now)).map(({ label, value }) => `${label}: ${value}`),
		...state.events.map((event) => `${formatIso(event.at)} ${eventText(event)}`),
		`(Times of day are in the time zone ${TIME.resolvedOptions().timeZone}.)`,
	];
	return lines.map(printable).join("\n");
}

/** @param {number} time */
function formatIso(time) {
	return new Date(time).toISOString();
}
