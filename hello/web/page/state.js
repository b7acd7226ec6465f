// @ts-check
// What this page has seen: statistics, instances, the buckets of the plot, and the events of the connection. This
// module draws nothing. Each collection is bounded. All times are UNIX milliseconds.

import { pushBounded } from "./bounded.js";
import { ClientProtocol } from "./client-protocol.js";

/**
 * @import { Delivery, Gap, Message, Position } from "./client-protocol.js"
 * @import { CloseReason, Connection } from "./connection.js"
 * @import { Obstacle } from "./diagnosis.js"
 *
 * @typedef {"broadcaster" | "relay"} Actor
 *
 * @typedef {Connection["transport"]} Transport
 *
 * @typedef {"connecting" | "connected" | "channel-down" | CloseReason} Condition
 *
 * @typedef {(
 *     | { kind: "connected" | "resumed", relay: string, transport: Transport, obstacle: Obstacle | null, recovered: number }
 *     | { kind: "channel-up" | "channel-down", relay: string }
 *     | { kind: "gap", after: Position, before: Position, certain: boolean }
 *     | { kind: CloseReason | "online" }
 * )} EventDetails "online": data came over the connection that was open when the browser went offline.
 *
 * @typedef {{ type: "event", at: number } & EventDetails} Event
 *
 * @typedef {Message & { delay: number | null }} ShownMessage Its delay is milliseconds, from broadcaster to page; null
 * unless the message is live.
 *
 * @typedef {ShownMessage | Gap | Event} Item An entry of the log.
 *
 * @typedef {object} Bucket The messages of one delivery within BUCKET_MS.
 * @property {Delivery} delivery
 * @property {number} at
 * @property {number} count
 * @property {number | null} delay The longest, from broadcaster to page; null unless the messages are live.
 * @property {number | null} interval The longest, from the message before; null if it is unknown.
 *
 * @typedef {object} Statistics Durations are milliseconds.
 * @property {number} shown
 * @property {number} recovered
 * @property {number} gaps
 * @property {number} repeated
 * @property {number} reconnects
 * @property {number} longestSilence
 * @property {number | null} medianDelay From broadcaster to page; null before any live message.
 * @property {number | null} worstDelay
 */

export const WINDOW_MS = 10 * 60_000; // shown by the plot; an instance that was not seen for so long is left out
const BUCKET_MS = 500; // at most one pixel of the plot
const MAX_DELAYS = 1000; // the newest live messages, for the median
const MAX_EVENTS = 200;
const MAX_INSTANCES = 20; // of each actor

// The hops of a message, as indexes of `hopDelays`; the first one is from the broadcaster to the channel.
export const CHANNEL_TO_RELAY = 1;
export const RELAY_TO_PAGE = 2;

export class State {
	protocol = new ClientProtocol();
	/** @type {Connection} */
	connection = { state: "connecting", since: 0, attempt: 0, retryAt: null, transport: "websocket", obstacle: null };
	/** @type {ShownMessage | null} The newest message. */
	newest = null;
	/** @type {string | null} What the channel is: "memory" or "redis"; null if the relay did not say so. */
	backend = null;
	/** @type {number[] | null} How long the newest live message took for each hop. */
	hopDelays = null;
	/** @type {Event[]} Oldest first. */
	events = [];

	/** @type {Map<string, Bucket>} */
	#buckets = new Map();
	/** @type {Record<Actor, Map<string, number>>} When each instance was seen last; the most recent one is the last. */
	#instances = { broadcaster: new Map(), relay: new Map() };
	/** @type {number[]} */
	#delays = [];
	/** @type {number | null} */
	#worstDelay = null;
	/** @type {number | null} When the newest message came, or else the first welcome. */
	#silentSince = null;
	#longestSilence = 0;
	/** @type {Extract<EventDetails, { recovered: number }> | null} Added when caught up. */
	#pendingEvent = null;
	#welcomesWhenOffline = 0;

	constructor(now = Date.now()) {
		this.openedAt = now;
	}

	/**
	 * Takes a parsed JSON frame, and returns the new entries of the log. Throws an Error, and changes nothing, if the
	 * frame is malformed.
	 *
	 * @param {any} frame
	 * @returns {Item[]}
	 */
	receive(frame, now = Date.now()) {
		const isWelcome = frame.type === "welcome";
		// A welcome has an event of its own: only a channel that is down is another one.
		const channelBefore = isWelcome ? "up" : this.protocol.channel;
		const received = this.protocol.receive(frame);
		const relay = this.protocol.relay ?? "";
		if (isWelcome) {
			this.backend = typeof frame.backend === "string" ? frame.backend : null;
			this.#addInstance("relay", relay, now);
			if (Array.isArray(frame.actors) && frame.actors.includes("broadcaster")) {
				this.#addInstance("broadcaster", relay, now);
			}
			this.#silentSince ??= now;
			const kind = this.protocol.welcomes > 1 ? "resumed" : "connected";
			const { transport, obstacle } = this.connection;
			this.#pendingEvent = { kind, relay, transport, obstacle, recovered: 0 };
		}
		/** @type {Item[]} */
		const items = [];
		let afterGap = false;
		for (const item of received) {
			if (item.type === "gap") {
				const { after, before, certain } = item;
				this.#addEvent({ kind: "gap", after, before, certain }, now);
				afterGap = true;
				items.push(item);
			} else {
				items.push(this.#addMessage(item, afterGap, now));
			}
		}
		if (this.protocol.isCaughtUp) items.push(...this.#addPendingEvent(now));
		const { channel } = this.protocol;
		if (channel !== null && channel !== channelBefore) {
			items.push(this.#addEvent({ kind: `channel-${channel}`, relay }, now));
		}
		return items;
	}

	/**
	 * Takes a change of the connection, and returns the new entries of the log.
	 *
	 * @param {Connection} connection
	 * @returns {Item[]}
	 */
	setConnection(connection, now = Date.now()) {
		const { state } = connection;
		const { state: before } = this.connection;
		const isChanged = state !== before;
		this.connection = connection;
		const { welcomes } = this.protocol;
		if (isChanged && state === "offline") this.#welcomesWhenOffline = welcomes;
		if (before === "offline" && state === "open" && welcomes === this.#welcomesWhenOffline) {
			return [this.#addEvent({ kind: "online" }, now)];
		}
		if (!isChanged || state === "open" || state === "connecting") return [];
		return [...this.#addPendingEvent(now), this.#addEvent({ kind: state }, now)];
	}

	/** @returns {Condition} */
	get condition() {
		const { state } = this.connection;
		if (state !== "open") return state;
		return this.protocol.channel === "down" ? "channel-down" : "connected";
	}

	/** The hop where the path of a message is broken; null if it is complete. */
	get brokenHop() {
		if (this.condition === "connected") return null;
		return this.condition === "channel-down" ? CHANNEL_TO_RELAY : RELAY_TO_PAGE;
	}

	/** "combined" if one instance runs both actors, else "split"; null before any message. */
	get shape() {
		if (this.newest === null) return null;
		return this.newest.broadcaster === this.newest.relay ? "combined" : "split";
	}

	get buckets() {
		return [...this.#buckets.values()];
	}

	/**
	 * Returns the instances of an actor that were seen within WINDOW_MS, the most recent one first, and when.
	 *
	 * @param {Actor} actor
	 */
	instances(actor, now = Date.now()) {
		const recent = [...this.#instances[actor]].filter(([, seenAt]) => seenAt >= now - WINDOW_MS);
		return new Map(recent.reverse());
	}

	/** @returns {Statistics} */
	statistics(now = Date.now()) {
		const { shown, recovered, gaps, repeated, welcomes } = this.protocol;
		return {
			shown,
			recovered,
			gaps,
			repeated,
			reconnects: Math.max(0, welcomes - 1),
			longestSilence: this.#longestSilenceUntil(now),
			medianDelay: median(this.#delays),
			worstDelay: this.#worstDelay,
		};
	}

	/** Removes the buckets that are older than the plot shows. */
	prune(now = Date.now()) {
		for (const [key, { at }] of this.#buckets) {
			if (at < now - WINDOW_MS) this.#buckets.delete(key);
		}
	}

	/**
	 * @param {Message} message
	 * @param {boolean} afterGap True if messages are missing, or may be missing, before this one.
	 * @param {number} now
	 * @returns {ShownMessage}
	 */
	#addMessage(message, afterGap, now) {
		const { delivery, sent_at: sentAt, relayed_at: relayedAt, position } = message;
		const interval = this.newest === null || afterGap ? null : Math.abs(sentAt - this.newest.sent_at);
		let delay = null;
		let at = Math.min(sentAt, now);
		if (delivery === "live") {
			this.hopDelays = [position.milliseconds - sentAt, relayedAt - position.milliseconds, now - relayedAt];
			delay = now - sentAt;
			if (delay > WINDOW_MS) at = now; // the broadcaster's clock is far behind
			this.#worstDelay = Math.max(this.#worstDelay ?? delay, delay);
			pushBounded(this.#delays, delay, MAX_DELAYS);
		}
		this.#addInstance("broadcaster", message.broadcaster, at);
		this.#addInstance("relay", message.relay, now);
		if (delivery === "recovered" && this.#pendingEvent !== null) this.#pendingEvent.recovered += 1;
		if (delivery !== "history") {
			this.#longestSilence = this.#longestSilenceUntil(now);
			this.#silentSince = now;
		}
		this.#addToBucket({ delivery, at, count: 1, delay, interval }, now);
		this.newest = { ...message, delay };
		return this.newest;
	}

	/** @param {number} now */
	#longestSilenceUntil(now) {
		return Math.max(this.#longestSilence, now - (this.#silentSince ?? now));
	}

	/**
	 * @param {Bucket} sample
	 * @param {number} now
	 */
	#addToBucket(sample, now) {
		const key = `${sample.delivery} ${Math.floor(sample.at / BUCKET_MS)}`;
		const bucket = this.#buckets.get(key);
		if (bucket === undefined) {
			this.prune(now);
			this.#buckets.set(key, sample);
			return;
		}
		bucket.count += 1;
		bucket.delay = maxOrNull(bucket.delay, sample.delay);
		bucket.interval = maxOrNull(bucket.interval, sample.interval);
	}

	/**
	 * @param {Actor} actor
	 * @param {string} instance
	 * @param {number} seenAt
	 */
	#addInstance(actor, instance, seenAt) {
		const instances = this.#instances[actor];
		instances.delete(instance); // so that it becomes the last one
		instances.set(instance, seenAt);
		const [oldest] = instances.keys();
		if (instances.size > MAX_INSTANCES) instances.delete(oldest);
	}

	/** @param {number} now */
	#addPendingEvent(now) {
		const event = this.#pendingEvent;
		this.#pendingEvent = null;
		return event === null ? [] : [this.#addEvent(event, now)];
	}

	/**
	 * @param {EventDetails} details
	 * @param {number} now
	 * @returns {Event}
	 */
	#addEvent(details, now) {
		/** @type {Event} */
		const event = { type: "event", at: now, ...details };
		pushBounded(this.events, event, MAX_EVENTS);
		return event;
	}
}

/**
 * Returns the median, rounded to an integer; null if there are no numbers.
 *
 * @param {number[]} numbers
 */
function median(numbers) {
	if (numbers.length === 0) return null;
	const sorted = [...numbers].sort((one, other) => one - other);
	const low = sorted[Math.floor((sorted.length - 1) / 2)];
	const high = sorted[Math.floor(sorted.length / 2)];
	return Math.round((low + high) / 2);
}

/**
 * @param {number | null} one
 * @param {number | null} other
 */
function maxOrNull(one, other) {
	if (one === null) return other;
	return other === null ? one : Math.max(one, other);
}
