// @ts-check
// Every text that the page shows, except for those of index.html. This module does not use the document.

import { MAX_TIME } from "./client-protocol.js";
import { CHANNEL_TO_RELAY, RELAY_TO_PAGE, WINDOW_MS } from "./state.js";
import { IDLE_TIMEOUT_MS } from "./transport.js";

/**
 * @import { Gap, Message } from "./client-protocol.js"
 * @import { Connection } from "./connection.js"
 * @import { Process, Role } from "./deployment.js"
 * @import { Obstacle } from "./diagnosis.js"
 * @import { Actor, Bucket, Condition, Event, EventDetails, ShownMessage, State, Statistics, Transport } from "./state.js"
 */

// As in hello/printable.py: what controls a terminal, ends a line or reorders it, and lone surrogates.
const UNSAFE = /[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/gu;
/** @type {Record<string, string>} */
const SHORT_ESCAPES = { "\t": "\\t", "\n": "\\n", "\r": "\\r" };

/**
 * Returns the time of day in the reader's time zone, with the date if it is not today's.
 *
 * @param {number} time UNIX milliseconds
 */
export function formatTime(time, now = Date.now()) {
	// Without Intl, whose formats take a phone 200 ms to make. Both texts have a fixed form (ECMA-262, 21.4.4).
	const date = new Date(Math.min(time, MAX_TIME)); // a position may be later than any Date
	const timeOfDay = date.toTimeString().slice(0, "hh:mm:ss".length);
	const day = date.toDateString();
	if (day === new Date(now).toDateString()) return timeOfDay;
	const [, month, dayOfMonth, year] = day.split(" ");
	return `${Number(dayOfMonth)} ${month} ${year}, ${timeOfDay}`;
}

/** @param {number} time */
function formatMinute(time) {
	return new Date(time).toTimeString().slice(0, "hh:mm".length);
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
	const rounded = (Math.sign(number) * Math.round(Math.abs(number) * 10)) / 10;
	return String(rounded).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

/**
 * @param {number} number
 * @param {string} noun
 */
function formatCount(number, noun) {
	return `${formatNumber(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/**
 * Returns the state of the connection: `short` for the pill and the title, `long` as a sentence.
 *
 * @param {State} state
 */
export function statusText({ condition, connection, protocol }) {
	const { relay, channelSince } = protocol;
	switch (condition) {
		case "connecting":
			return { short: "connecting", long: "Connecting…" };
		case "connected":
			return { short: "live", long: `${relay} over ${overText(connection)}` };
		case "channel-down": {
			const since = channelSince === null ? "" : ` since ${formatTime(channelSince)}`;
			return { short: "channel down", long: `The relay has had no contact with its channel${since}.` };
		}
		case "offline":
			return { short: "offline", long: `The browser has been offline since ${formatTime(connection.since)}.` };
		default:
			return { short: "reconnecting", long: sinceText(condition, formatTime(connection.since)) };
	}
}

/**
 * @param {Exclude<Condition, "connecting" | "connected" | "channel-down" | "offline">} reason
 * @param {string} time When it began.
 */
function sinceText(reason, time) {
	switch (reason) {
		case "moved":
			return `The relay stopped at ${time}, and asked this page to reconnect.`;
		case "slow":
			return `The relay closed the connection at ${time}, since this page received too slowly.`;
		case "lost":
			return `The connection broke at ${time}.`;
		case "dead":
			return `The connection timed out at ${time}, after ${formatDuration(IDLE_TIMEOUT_MS)} without data.`;
		case "unreachable":
			return `No relay has been reachable since ${time}.`;
		case "garbled":
			return `The relay sent data at ${time} that this page cannot read.`;
		case "switched":
			return `A WebSocket opened at ${time}, and this page changes over to it.`;
		case "left":
			return `The reader left this page at ${time}.`;
		case "restored":
			return `The reader came back to this page at ${time}.`;
	}
}

/**
 * Returns how the messages come and, where that is not known to be by WebSocket, why.
 *
 * @param {{ transport: Transport, obstacle: Obstacle | null }} connection
 */
function overText({ transport, obstacle }) {
	if (transport === "websocket") return "WebSocket";
	return obstacle === null ? "server-sent events" : `server-sent events: ${obstacleText(obstacle)}`;
}

/** @param {Connection} connection */
export function retryText({ state, attempt, retryAt }, now = Date.now()) {
	if (state === "open" || state === "connecting") return "";
	const when = retryAt === null ? "now" : `in ${Math.max(1, Math.ceil((retryAt - now) / 1000))} s`;
	const count = attempt > 1 ? `, attempt ${formatNumber(attempt)}` : "";
	return `Reconnecting ${when}${count}.`;
}

/** @param {Obstacle} obstacle */
function obstacleText(obstacle) {
	switch (obstacle.kind) {
		case "upgrade":
			return "a proxy on the way does not pass WebSocket on (Upgrade)";
		case "timeout":
			return "a WebSocket brought no data in time";
		case "origin": {
			const { host } = obstacle;
			return `the relay would refuse this page's origin: it received Host ${host}; see HELLO_ALLOWED_ORIGINS`;
		}
		case "refused":
			return obstacle.refusal;
		case "status":
			return `the answer has status ${obstacle.status}, and does not come from the relay`;
		case "limit":
			return "other tabs have all connections that this browser opens to a host by HTTP/1.1; close one of them";
	}
}

/**
 * Returns what a reader can do, or needs not do; nothing where all is well.
 *
 * @param {State} state
 */
export function adviceText({ condition, connection }) {
	switch (condition) {
		case "connecting":
		case "connected":
			return "";
		case "channel-down":
			return "The relay retries by itself, and what is published meanwhile follows. If this lasts, see whether Redis runs.";
		case "unreachable":
			if (connection.obstacle !== null) return `The stream does not open: ${obstacleText(connection.obstacle)}.`;
			return "Missed messages follow. If this lasts, see whether a relay runs, and a proxy leads to it.";
		case "garbled":
			return "If this happens again, reload the page to update it.";
		case "slow":
			return "Missed messages follow. A busy machine or a slow network may be the reason.";
		case "offline":
			return "This page connects as soon as the network is back. Missed messages follow.";
		default:
			return "Missed messages follow: there is nothing to do.";
	}
}

/** @param {EventDetails} event */
export function eventText(event) {
	switch (event.kind) {
		case "gap":
			return gapText(event);
		case "connected":
			return `Connected to ${event.relay}.${eventsText(event)}`;
		case "resumed": {
			const { relay, recovered } = event;
			const count = recovered === 0 ? "nothing was missed" : `${formatCount(recovered, "missed message")} recovered`;
			return `Resumed at ${relay}: ${count}.${eventsText(event)}`;
		}
		case "channel-down":
			return `${event.relay} lost its connection to the channel.`;
		case "channel-up":
			return `${event.relay} is connected to the channel again.`;
		case "moved":
			return "The relay stopped and asked this page to reconnect.";
		case "slow":
			return "The relay closed the connection: this page received too slowly.";
		case "lost":
			return "The connection broke.";
		case "dead":
			return `The connection timed out after ${formatDuration(IDLE_TIMEOUT_MS)} without data.`;
		case "unreachable":
			return "No relay can be reached.";
		case "garbled":
			return "The relay sent data that this page cannot read.";
		case "offline":
			return "The browser is offline.";
		case "online":
			return "The connection works although the browser is offline: data came.";
		case "switched":
			return "A WebSocket opens: this page changes over to it.";
		case "left":
			return "The reader left this page.";
		case "restored":
			return "The reader came back, and this page was restored from the browser's back/forward cache.";
	}
}

/** @param {{ transport: Transport, obstacle: Obstacle | null }} event It is usual that WebSocket works. */
function eventsText(event) {
	return event.transport === "events" ? ` The messages come over ${overText(event)}.` : "";
}

/** @param {Pick<Gap, "after" | "before" | "certain">} gap */
export function gapText({ after, before, certain }) {
	const from = formatTime(after.milliseconds);
	const to = formatTime(before.milliseconds);
	if (!certain) return `Messages after ${from} may be lost: the relay could not resume from there.`;
	const which = from === to ? `Some messages of ${from}` : `Messages between ${from} and ${to}`;
	return `${which} are lost: the relay no longer has them.`;
}

/**
 * Returns the text for screen readers: every gap, and one live message for all.
 *
 * @param {Gap[]} gaps
 * @param {number} count The number of live messages.
 * @param {Message | null} newest
 */
export function announcementText(gaps, count, newest) {
	const [first, ...more] = gaps;
	const texts = first === undefined ? [] : [gapText(first)];
	if (more.length > 0)
		texts.push(`${formatCount(more.length, "more gap")}, the last one: ${gapText(more[more.length - 1])}`);
	if (count === 1) texts.push(newest?.text ?? "");
	if (count > 1) texts.push(`${formatNumber(count)} new messages, the last one: ${newest?.text}`);
	return texts.join(" ");
}

/**
 * Returns what stands below the newest message: when and by whom it was sent, and how it came or, without a connection, how
 * old it is, since a newer one may exist. The last part alone changes its width.
 *
 * @param {ShownMessage} message
 * @param {boolean} isLive
 */
export function aboutText(message, isLive, now = Date.now()) {
	const { sent_at: sentAt, broadcaster, delivery } = message;
	const age = formatDuration(Math.max(0, Math.floor((now - sentAt) / 1000) * 1000));
	const delay = delivery === "live" ? `took ${delayText(message)}` : delayText(message);
	return {
		time: `sent ${formatTime(sentAt, now)}`,
		broadcaster: `by ${broadcaster}`,
		delay: isLive ? delay : `${age} ago`,
	};
}

/**
 * Returns the losses of the last ten minutes: "2 gaps", or an empty text.
 *
 * @param {State} state
 */
export function lossText({ events }, now = Date.now()) {
	const count = events.filter(({ kind, at }) => kind === "gap" && at >= now - WINDOW_MS).length;
	return count === 0 ? "" : formatCount(count, "gap");
}

/** @param {ShownMessage} message */
export function delayText({ delivery, delay }) {
	if (delivery === "live") return formatDuration(delay);
	return delivery === "recovered" ? "recovered" : "";
}

/** @param {number} count Of entries that the reader has not seen. */
export function jumpText(count) {
	return `↑ ${formatNumber(count)} new`;
}

/**
 * Returns the figures of the tally; `meaning` is what a label has no room for.
 *
 * @param {Statistics} statistics
 * @returns {{ label: string, value: string, meaning: string, isError?: boolean }[]}
 */
export function statisticsRows(statistics) {
	const { shown, recovered, gaps, repeated, reconnects, longestSilence, medianDelay, worstDelay } = statistics;
	const delay = "from broadcaster to page, by the clocks of both machines";
	return [
		{ label: "Shown", value: formatNumber(shown), meaning: "messages" },
		{ label: "Recovered", value: formatNumber(recovered), meaning: "messages that came after a reconnect" },
		{ label: "Lost (gaps)", value: formatNumber(gaps), meaning: "times that messages are missing", isError: gaps > 0 },
		{ label: "Repeated, not shown", value: formatNumber(repeated), meaning: "messages that came a second time" },
		{ label: "Reconnects", value: formatNumber(reconnects), meaning: "connections after the first one" },
		{ label: "Longest silence", value: formatDuration(longestSilence), meaning: "the longest time without a message" },
		{ label: "Median delay", value: formatDuration(medianDelay), meaning: delay },
		{ label: "Worst delay", value: formatDuration(worstDelay), meaning: delay },
	];
}

/**
 * Returns the names along the path of a message, from the broadcaster to this page.
 *
 * @param {State} state
 * @param {number} length Of the names of processes: the most characters.
 */
export function routeNames({ newest, protocol, backend }, length) {
	const channel = backend === "redis" ? "Redis" : (backend ?? "channel");
	const [broadcaster, relay] = [newest?.broadcaster ?? "broadcaster", protocol.relay ?? "relay"];
	return [shorten(broadcaster, length), channel, shorten(relay, length), "you"];
}

/**
 * Returns the lines of the channel's box, the first of which is its title.
 *
 * @param {State} state
 */
export function channelLines({ backend, protocol, brokenHop }) {
	const state = brokenHop === RELAY_TO_PAGE ? "unknown" : protocol.channel;
	const kind = backend === null ? [] : [backend === "redis" ? "Redis" : backend];
	return ["channel", ...kind, ...(state === null || state === "up" ? [] : [state])];
}

/**
 * @param {State} state
 * @param {boolean} isNarrow
 */
export function pageLines(state, isNarrow) {
	const { condition, brokenHop } = state;
	return [
		isNarrow ? "you" : "this page",
		...(condition !== "connected" && brokenHop === RELAY_TO_PAGE && !isNarrow ? [conditionLabel(state)] : []),
	];
}

/**
 * Returns what an actor does, with its name where there is room: its column tells it, too.
 *
 * @param {Actor} actor
 * @param {Process} process
 * @param {boolean} isKnown False if this page cannot know what the process does now.
 * @param {number} length The most characters.
 */
export function actorText(actor, process, isKnown, length) {
	const role = process[actor];
	if (role === null) return actor;
	const text = roleText(actor, process, role, isKnown);
	const withActor = `${actor}, ${text}`;
	return withActor.length <= length ? withActor : text;
}

/**
 * @param {Actor} actor
 * @param {Process} process
 * @param {Role} role
 * @param {boolean} isKnown
 */
function roleText(actor, { relay }, { until }, isKnown) {
	const active = actor === "broadcaster" ? "leader" : "serving";
	if (until === null) return isKnown ? active : `was ${active}`;
	// A process that serves this page runs its broadcaster, too.
	const isStandby = isKnown && actor === "broadcaster" && relay?.isActive;
	return isStandby ? "standby" : `until ${formatMinute(until)}`;
}

/**
 * Shortens a name at its beginning, since the names of pods differ at their ends.
 *
 * @param {string} name
 * @param {number} length The most characters.
 */
export function shorten(name, length) {
	return name.length > length ? `…${name.slice(1 - Math.floor(length))}` : name;
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
		case "unreachable":
			return "no relay";
		case "lost":
			return "cut off";
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
export function processesText({ shape, newest, backend }) {
	if (newest === null) return "No message has been received yet.";
	const channel = backend === null ? "" : ` over a channel in ${backend === "redis" ? "Redis" : backend}`;
	const { broadcaster, relay } = newest;
	if (shape === "combined") return `One process, ${broadcaster}, publishes and relays${channel}.`;
	return `${broadcaster} publishes and ${relay} relays${channel}.`;
}

/** @param {State} state */
export function pathText({ hopDelays }) {
	if (hopDelays === null) return "";
	const [first, second, third] = hopDelays.map(formatDuration);
	return `The newest message took ${first} to the channel, ${second} to the relay and ${third} to this page.`;
}

/**
 * Returns how far the delays of the hops can be trusted.
 *
 * @param {State} state
 */
export function clocksText({ hopDelays }) {
	if (hopDelays === null) return "";
	const skew = -Math.min(...hopDelays);
	if (skew > 0) return `Delays compare clocks that differ by ${formatDuration(skew)} at least.`;
	return "Delays compare several machines' clocks, and may be off.";
}

/**
 * Returns a mark of the plot in words.
 *
 * @param {Bucket | Event} mark
 */
export function markText(mark) {
	const at = formatTime(mark.at);
	if ("kind" in mark) return `${at}: ${eventText(mark)}`;
	const { count, delivery, delay, interval } = mark;
	const how = { live: "", recovered: " recovered", history: ", sent before this page was opened" }[delivery];
	const took = delay === null ? "" : `, ${formatDuration(delay)} from broadcaster to page`;
	const pause = interval === null ? "" : `, ${formatDuration(interval)} after the one before`;
	return `${at}: ${formatCount(count, "message")}${how}${took}${pause}.`;
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
		`at most ${formatDuration(longest)} between two`,
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
 * @param {string[]} log Its lines, oldest first.
 */
export function reportText(state, log, now = Date.now()) {
	const lines = [
		`hello at ${location.href}, ${formatIso(state.openedAt)} to ${formatIso(now)}, in ${navigator.userAgent}`,
		statusText(state).long,
		processesText(state),
		`${pathText(state)} ${clocksText(state)}`,
		`Broadcasters: ${[...state.instances("broadcaster", now).keys()].join(", ")}`,
		`Relays: ${[...state.instances("relay", now).keys()].join(", ")}`,
		...statisticsRows(state.statistics(now)).map(({ label, value }) => `${label}: ${value}`),
		"Events:",
		...state.events.map((event) => `${formatIso(event.at)} ${eventText(event)}`),
		"Messages and events, oldest first:",
		...log,
		`(Times of day are in the time zone ${Intl.DateTimeFormat().resolvedOptions().timeZone}.)`,
	];
	return lines.map(printable).join("\n");
}

/** @param {number} time */
function formatIso(time) {
	return new Date(time).toISOString();
}
