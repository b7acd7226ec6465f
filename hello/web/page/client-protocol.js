// @ts-check
// The rules of a client, without I/O: frames of a relay in; messages and gaps to show out. ClientProtocol in
// hello/client.py is the same in Python.

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
 * @typedef {object} WelcomeFrame
 * @property {"welcome"} type
 * @property {string} relay
 * @property {ChannelState} channel
 * @property {number | null} since
 * @property {Position | null} head The newest position that the relay has; null if its channel is empty.
 *
 * @typedef {{ type: "status", channel: ChannelState, since: number | null }} StatusFrame
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
	/** @type {Position | null} Of the last message received: where the next connection resumes. */
	position = null;
	/** @type {Position | null} The newest position at the last welcome. */
	head = null;
	welcomes = 0;
	shown = 0; // messages returned by receive()
	recovered = 0; // messages returned by receive() with this delivery
	gaps = 0;
	repeated = 0; // messages received again without being requested again, and dropped

	/** @type {Position | null} The head of the first welcome: messages up to it are history. */
	#firstHead = null;
	/** @type {string[]} The newest ids that were returned, oldest first. */
	#ids = [];
	/** @type {Gap | null} A gap is returned together with the message after it. */
	#pendingGap = null;
	/** @type {Position | null} Where a relay refused to resume, until the first new message. */
	#rejectedPosition = null;
	#expectsRepeated = false; // known messages arrive again after a reset

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
				this.#setChannel(frame);
				break;
		}
		return [];
	}

	/** True if every message up to the head of the last welcome has been received. */
	get isCaughtUp() {
		return this.head === null || !this.head.isAfter(this.position);
	}

	/**
	 * Makes the next connection start with recent messages, because the relay rejects our position. Nothing is lost if
	 * the first of them is known; else receive() returns a gap that is not certain.
	 */
	resetPosition() {
		this.#rejectedPosition = this.position;
		this.#expectsRepeated = true;
		this.position = null;
		this.#firstHead = null;
	}

	/** @param {WelcomeFrame} welcome */
	#receiveWelcome(welcome) {
		if (this.welcomes === 0) this.#firstHead = welcome.head;
		this.welcomes += 1;
		this.head = welcome.head;
		this.relay = welcome.relay;
		this.#pendingGap = null; // this relay reports the gap again, or has the messages that the last relay had not
		this.#setChannel(welcome);
	}

	/** @param {WelcomeFrame | StatusFrame} frame */
	#setChannel({ channel, since }) {
		this.channel = channel;
		this.channelSince = since;
	}

	/**
	 * @param {MessageFrame} frame
	 * @returns {(Message | Gap)[]}
	 */
	#receiveMessage(frame) {
		const { id, position } = frame;
		const isLive = position.isAfter(this.head);
		if (isLive) this.#expectsRepeated = false;
		// A message that is not after our position has been shown, or has been reported as lost.
		if (!position.isAfter(this.position)) {
			this.repeated += 1;
			return [];
		}
		this.position = position;
		const isKnown = this.#ids.includes(id);
		const gaps = this.#takeGap(position, isKnown);
		// A channel that had lost its data accepts a known message again, at a new position.
		if (isKnown) {
			if (!this.#expectsRepeated) this.repeated += 1;
			return gaps;
		}
		pushBounded(this.#ids, id, KEPT_IDS);
		this.shown += 1;
		/** @type {Delivery} */
		let delivery = "history";
		if (isLive) delivery = "live";
		else if (position.isAfter(this.#firstHead)) delivery = "recovered";
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
		if (gap === null && this.#rejectedPosition !== null && !isKnown) {
			gap = { type: "gap", after: this.#rejectedPosition, before: position, certain: false };
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
			const { relay, channel, since, head } = frame;
			check(frame, { relay: isString, channel: isChannelState, since: isOptionalTime });
			return {
				type: "welcome",
				relay,
				channel,
				since: since ?? null,
				head: head === null ? null : Position.parse(head),
			};
		}
		case "status": {
			const { channel, since } = frame;
			check(frame, { channel: isChannelState, since: isOptionalTime });
			return { type: "status", channel, since: since ?? null };
		}
		default:
			return null;
	}
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
