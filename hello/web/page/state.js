// What this page has seen: a stream with its tally, names, moments, and what became of the connection. It knows
// nothing of elements. All that it keeps is bounded; in milliseconds.

import { keep, Stream } from "./stream.js";

export const SHOWN_MS = 10 * 60_000; // "lately", and what the plot shows
const MOMENT_MS = 500; // the plot's grain: a pixel or less
const DELAYS = 1000; // of the newest live messages
const EVENTS = 200;
const NAMES = 20; // of each actor

export class State extends Stream {
	link = { state: "connecting", since: 0, attempt: 0, retryAt: null }; // see connection.js
	last = null; // the newest message
	hops = null; // from each to the next, of the newest live message
	events = []; // oldest first: {type: "event", at, kind, …}
	#moments = new Map(); // {at, count, came, delay, pause}; a grain's worst delay and pause, or null
	#names = { broadcaster: new Map(), relay: new Map() }; // to when each was heard of last, in this order
	#delays = [];
	#worst = null;
	#quietFrom = null; // the newest message, or at first the welcome
	#silence = 0; // the longest
	#resuming = null; // the event to tell once all has come

	constructor(now = Date.now()) {
		super();
		this.since = now;
	}

	/** As Stream's, with events too. */
	take(frame, now = Date.now()) {
		const before = frame.type === "welcome" ? "up" : this.channel;
		const items = super.take(frame);
		const { relay, channel } = this;
		if (frame.type === "welcome") {
			this.#name("relay", relay, now);
			this.#quietFrom ??= now;
			this.#resuming = { kind: this.welcomes > 1 ? "resumed" : "connected", relay, missed: 0 };
		}
		const gap = items.find(({ type }) => type === "gap");
		for (const item of items) {
			if (item === gap) this.#note({ ...gap, kind: "gap" }, now);
			else this.#see(item, now, gap);
		}
		if (this.isUpToDate) items.push(...this.#settle(now));
		if (channel !== before) items.push(this.#note({ kind: `channel-${channel}`, relay }, now));
		return items;
	}

	/** What a change of the connection gives to show. */
	turn(link, now = Date.now()) {
		const ended = link.state !== this.link.state && link.state !== "open";
		this.link = link;
		return ended ? [...this.#settle(now), this.#note({ kind: link.state }, now)] : [];
	}

	get condition() {
		if (this.link.state !== "open") return this.link.state;
		return this.channel === "down" ? "channel-down" : "connected";
	}

	/** The hop where the path is cut: 1 to the relay, 2 to the page, -1 nowhere. */
	get cut() {
		return { connected: -1, "channel-down": 1 }[this.condition] ?? 2;
	}

	/** "combined" (one instance is both actors) or "split"; null before any message. */
	get shape() {
		return this.last && (this.last.broadcaster === this.last.relay ? "combined" : "split");
	}

	get moments() {
		return [...this.#moments.values()];
	}

	/** An actor's instances that were heard of lately, newest first. */
	names(actor, now = Date.now()) {
		const lately = [...this.#names[actor]].filter(([, at]) => at >= now - SHOWN_MS);
		return lately.map(([name]) => name).reverse();
	}

	/** `median` and `worst` are delays from broadcaster to page, or null. */
	tally(now = Date.now()) {
		const { shown, recovered, gaps, repeated } = this;
		const reconnects = Math.max(0, this.welcomes - 1);
		const sorted = this.#delays.toSorted((one, other) => one - other);
		const middle = sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1];
		const median = sorted.length > 0 ? Math.round(middle / 2) : null;
		return { shown, recovered, gaps, repeated, reconnects, silence: this.#quiet(now), median, worst: this.#worst };
	}

	prune(now = Date.now()) {
		const oldest = now - SHOWN_MS;
		for (const [key, { at }] of this.#moments) if (at < oldest) this.#moments.delete(key);
	}

	#see(message, now, gap) {
		const { came, sent_at: sent, relayed_at: relayed, position } = message;
		const pause = this.last && !gap ? Math.abs(sent - this.last.sent_at) : null;
		let delay = null;
		let at = Math.min(sent, now);
		this.last = message;
		if (came === "live") {
			this.hops = [position.milliseconds - sent, relayed - position.milliseconds, now - relayed];
			delay = now - sent;
			if (delay > SHOWN_MS) at = now; // its clock is far off
			this.#worst = Math.max(this.#worst ?? delay, delay);
			keep(this.#delays, delay, DELAYS);
		}
		this.#name("broadcaster", message.broadcaster, at);
		this.#name("relay", message.relay, now);
		if (came === "missed" && this.#resuming) this.#resuming.missed += 1;
		if (came !== "before") {
			this.#silence = this.#quiet(now);
			this.#quietFrom = now;
		}
		this.#mark({ at, count: 1, came, delay, pause }, now);
	}

	#quiet(now) {
		return Math.max(this.#silence, now - (this.#quietFrom ?? now));
	}

	#mark(moment, now) {
		const key = moment.came + Math.floor(moment.at / MOMENT_MS);
		const known = this.#moments.get(key);
		if (known) {
			known.count += 1;
			known.pause = Math.max(known.pause, moment.pause);
			if (moment.delay !== null) known.delay = Math.max(known.delay, moment.delay);
		} else {
			this.prune(now);
			this.#moments.set(key, moment);
		}
	}

	#name(actor, name, at) {
		const names = this.#names[actor];
		names.delete(name);
		names.set(name, at);
		if (names.size > NAMES) names.delete(names.keys().next().value);
	}

	#settle(now) {
		const told = this.#resuming;
		this.#resuming = null;
		return told ? [this.#note(told, now)] : [];
	}

	#note(event, now) {
		const noted = { ...event, type: "event", at: now };
		keep(this.events, noted, EVENTS);
		return noted;
	}
}
