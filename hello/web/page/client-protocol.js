// @ts-check
// The rules of a client, without I/O: frames of a relay in; messages and gaps to show out. ClientProtocol in
// hello/client.py is the same in Python, and says why each rule is as it is.

import { pushBounded } from "./bounded.js";

/**
 * @typedef {"up" | "down"} ChannelState
 *
 * @typedef {"live" | "recovered" | "history"} Delivery When a message came: at once; after a time without a
 * connection; or as one that was published before the page was opened.
 *
 * @typedef {object} MessageFrame Times are UNIX milliseconds.
 * @property {"message"} type
 * @property {Position} position
 * @property {string} id
 * @property {string} text
 * @property {string} broadcaster
 * @property {string} relay
 * @property {number} sent_at
 * @property {number} relayed_at
 *
 * @typedef {MessageFrame & { delivery: Delivery }} Message
 *
 * @typedef {object} Gap
 * @property {"gap"} type
 * @property {Position} after
 * @property {Position} before
 * @property {boolean} certain False if the relay rejected our position, and so cannot know whether messages are lost.
 *
 * @typedef {object} Status
 * @property {ChannelState} channel
 * @property {number | null} since
 * @property {Position | null} start Where this stream starts; null if the relay has not read its channel yet, or if an
 * earlier frame had it.
 * @property {Position | null} head The newest position that the relay has; null if its channel is empty.
 *
 * @typedef {Status & { type: "welcome", relay: string }} WelcomeFrame
 * @typedef {Status & { type: "status" }} StatusFrame
 */

export const KEPT_IDS = 500; // message ids that are remembered
export const MAX_TIME = 8.64e15; // UNIX milliseconds; the latest that a Date can hold (ECMA-262, Time Values)

const POSITION = /^(0|[1-9]\d{0,15})-(0|[1-9]\d{0,15})$/;

/** A position in the channel. Positions compare as pairs of integers, never as text: 9-0 is before 10-0. */
export class Position {
	/**
	 * @param {number} milliseconds UNIX time
	 * @param {number} sequence
	 */
	constructor(milliseconds, sequence) {
		this.milliseconds = milliseconds;
		this.sequence = sequence;
	}

	/**
	 * Parses MILLISECONDS-SEQUENCE, decimal numbers without leading zeros. Throws an Error for anything else.
	 *
	 * @param {unknown} text
	 */
	static parse(text) {
		const match = typeof text === "string" ? POSITION.exec(text) : null;
		const milliseconds = Number(match?.[1]);
		const sequence = Number(match?.[2]);
		if (Number.isSafeInteger(milliseconds) && Number.isSafeInteger(sequence)) {
			return new Position(milliseconds, sequence);
		}
		throw new Error(`a position has the form MILLISECONDS-SEQUENCE, not ${JSON.stringify(text)}`);
	}

	/**
	 * Returns true if this position is greater than `other`. Every position is greater than null.
	 *
	 * @param {Position | null} other
	 */
	isAfter(other) {
		if (other === null) return true;
		if (this.milliseconds !== other.milliseconds) return this.milliseconds > other.milliseconds;
		return this.sequence > other.sequence;
	}

	toString() {
		return `${this.milliseconds}-${this.sequence}`;
	}
}

export class ClientProtocol {
	/** @type {string | null} The instance that sent the last welcome. */
	relay = null;
	/** @type {ChannelState | null} As the last relay reported it. */
	channel = null;
	/** @type {number | null} UNIX milliseconds, if the relay reported them. */
	channelSince = null;
	/** @type {Position | null} The newest position when this connection opened, or its channel came up. */
	head = null;
	welcomes = 0;
	shown = 0; // messages returned by receive()
	recovered = 0; // messages returned by receive() with this delivery
	gaps = 0;
	repeated = 0; // messages received again without being requested again, and dropped

	/** @type {Position | null} Of the last message received. */
	#newest = null;
	/** @type {Position | null} Where to resume until there is a first message. */
	#start = null;
	#isBehind = true; // until all messages up to the head have come
	/** @type {Position | null} The first head: messages up to it are history. */
	#historyEnd = null;
	/** @type {Position | null} Up to which known messages come again, after a reset. */
	#knownEnd = null;
	/** @type {string[]} The newest ids that were returned, oldest first. */
	#ids = [];
	/** @type {Gap | null} A gap is returned together with the message after it. */
	#pendingGap = null;
	/** @type {Position | null} Where a relay refused to resume, until the first new message. */
	#rejectedPosition = null;

	/**
	 * Takes a parsed JSON frame, and returns what there is to show, oldest first. Frames of unknown types are ignored:
	 * a newer relay may send them. Throws an Error, and changes nothing, if the frame is malformed.
	 *
	 * @param {unknown} data
	 * @returns {(Message | Gap)[]}
	 */
	receive(data) {
		const frame = parseFrame(data);
		switch (frame?.type) {
			case "message":
				return this.#receiveMessage(frame);
			case "gap":
				this.#pendingGap = frame;
				break;
			case "welcome":
				this.#receiveWelcome(frame);
				break;
			case "status":
				this.#setStatus(frame);
				break;
		}
		return [];
	}

	/** Where the next connection resumes: after the last message, or where the stream starts; null before any start. */
	get position() {
		return this.#newest ?? this.#start;
	}

	/** True if every message up to the head has been received. */
	get isCaughtUp() {
		return !this.#isBehind;
	}

	/**
	 * Makes the next connection start with recent messages, because the relay rejects our position. Nothing is lost if
	 * the first of them is known; else receive() returns a gap that is not certain.
	 */
	resetPosition() {
		this.#rejectedPosition ??= this.position;
		this.#newest = null;
		this.#start = null;
		this.#historyEnd = null;
	}

	/** @param {WelcomeFrame} welcome */
	#receiveWelcome(welcome) {
		this.welcomes += 1;
		this.relay = welcome.relay;
		this.head = null;
		this.#isBehind = true;
		this.#pendingGap = null; // this relay reports the gap again, or has the messages that the last relay had not
		this.#setStatus(welcome);
	}

	/** @param {Status} status */
	#setStatus({ channel, since, start, head }) {
		this.channel = channel;
		this.channelSince = since;
		if (start === null) return;
		this.head = head;
		if (this.position === null) {
			this.#start = start;
			if (this.#rejectedPosition === null) this.#historyEnd = head;
			else this.#knownEnd = this.#rejectedPosition.isAfter(head) ? this.#rejectedPosition : head;
		}
		this.#isBehind = head !== null && head.isAfter(this.position);
	}

	/**
	 * @param {MessageFrame} frame
	 * @returns {(Message | Gap)[]}
	 */
	#receiveMessage(frame) {
		const { id, position } = frame;
		// A message that is not after the newest has been shown, or has been reported as lost.
		if (!position.isAfter(this.#newest)) {
			this.repeated += 1;
			return [];
		}
		this.#newest = position;
		if (this.head !== null && !this.head.isAfter(position)) this.#isBehind = false;
		const isKnown = this.#ids.includes(id);
		const gaps = this.#takeGap(position, isKnown);
		// A channel that had lost its data accepts a known message again, at a new position.
		if (isKnown) {
			if (position.isAfter(this.#knownEnd)) this.repeated += 1;
			return gaps;
		}
		pushBounded(this.#ids, id, KEPT_IDS);
		this.shown += 1;
		/** @type {Delivery} */
		let delivery = "history";
		if (position.isAfter(this.head)) delivery = "live";
		else if (position.isAfter(this.#historyEnd)) delivery = "recovered";
		if (delivery === "recovered") this.recovered += 1;
		return [...gaps, { ...frame, delivery }];
	}

	/**
	 * Returns the gap before the message at `position`, if there is one, and counts it.
	 *
	 * @param {Position} position
	 * @param {boolean} isKnown True if the message was shown before.
	 */
	#takeGap(position, isKnown) {
		let gap = this.#pendingGap;
		if (this.#rejectedPosition !== null) {
			const after = this.#rejectedPosition; // a gap where the stream begins anew is not one after this position
			gap = isKnown ? null : { type: "gap", after, before: position, certain: false };
		}
		this.#pendingGap = null;
		this.#rejectedPosition = null;
		if (gap === null) return [];
		this.gaps += 1;
		return [gap];
	}
}

/**
 * Returns the frame with its positions parsed, or null if its type is unknown. Throws an Error if it is malformed.
 *
 * @param {any} frame
 * @returns {MessageFrame | Gap | WelcomeFrame | StatusFrame | null}
 */
function parseFrame(frame) {
	switch (frame.type) {
		case "message": {
			const { id, text, broadcaster, relay, sent_at, relayed_at } = frame;
			check(frame, {
				id: isString,
				text: isString,
				broadcaster: isString,
				relay: isString,
				sent_at: isTime,
				relayed_at: isTime,
			});
			const position = Position.parse(frame.position);
			return { type: "message", position, id, text, broadcaster, relay, sent_at, relayed_at };
		}
		case "gap": {
			const { after, before } = frame;
			return { type: "gap", after: Position.parse(after), before: Position.parse(before), certain: true };
		}
		case "welcome": {
			check(frame, { relay: isString });
			return { type: "welcome", relay: frame.relay, ...parseStatus(frame) };
		}
		case "status":
			return { type: "status", ...parseStatus(frame) };
		default:
			return null;
	}
}

/**
 * @param {any} frame
 * @returns {Status}
 */
function parseStatus(frame) {
	const { channel, since = null, start, head = null } = frame;
	check(frame, { channel: isChannelState, since: isOptionalTime });
	return {
		channel,
		since,
		start: start === undefined ? null : Position.parse(start),
		head: head === null ? null : Position.parse(head),
	};
}

/**
 * Throws an Error that names every field whose value is invalid.
 *
 * @param {any} frame
 * @param {Record<string, (value: unknown) => boolean>} validators
 */
function check(frame, validators) {
	const invalid = Object.keys(validators).filter((field) => !validators[field](frame[field]));
	if (invalid.length > 0) throw new Error(`malformed ${frame.type} frame: invalid ${invalid.join(", ")}`);
}

/** @param {unknown} value */
function isString(value) {
	return typeof value === "string";
}

/** @param {unknown} value */
function isTime(value) {
	return Number.isInteger(value) && Math.abs(Number(value)) <= MAX_TIME;
}

/** @param {unknown} value */
function isOptionalTime(value) {
	return value === undefined || isTime(value);
}

/** @param {unknown} value */
function isChannelState(value) {
	return value === "up" || value === "down";
}
