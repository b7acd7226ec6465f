// Takes frames and answers what they give to show. It knows neither how they come nor how anything looks.

export const KEPT = 500; // ids known, and entries listed (twice that for who reads back)
export const LATEST_TIME = 8.64e15; // milliseconds; the last that a Date can hold

const FORM = /^(0|[1-9]\d{0,15})-(0|[1-9]\d{0,15})$/;
const isText = (value) => typeof value === "string";
const isTime = (value) => Number.isInteger(value) && Math.abs(value) <= LATEST_TIME;
const isChannel = (value) => ["up", "down"].includes(value);
const FIELDS = {
	welcome: { relay: isText, channel: isChannel },
	status: { channel: isChannel, since: (value = 0) => isTime(value) },
	message: { id: isText, text: isText, broadcaster: isText, relay: isText, sent_at: isTime, relayed_at: isTime },
};

/** Integers, never compared as text: 9-0 comes before 10-0. */
export class Position {
	constructor(milliseconds, sequence) {
		this.milliseconds = milliseconds; // UNIX time
		this.sequence = sequence;
	}

	/** Reads MILLISECONDS-SEQUENCE, in decimal without leading zeros, or throws an Error. */
	static parse(text) {
		const numbers = isText(text) && FORM.exec(text)?.slice(1).map(Number);
		if (numbers && numbers.every(Number.isSafeInteger)) return new Position(...numbers);
		throw new Error(`a position is MILLISECONDS-SEQUENCE, not ${JSON.stringify(text)}`);
	}

	/** Everything is after null. */
	isAfter(other) {
		return other === null || (this.milliseconds - other.milliseconds || this.sequence - other.sequence) > 0;
	}

	toString() {
		return `${this.milliseconds}-${this.sequence}`;
	}
}

export class Stream {
	relay = null; // that welcomed us last
	channel = null; // "up" or "down", as that relay sees it
	channelSince = null; // UNIX milliseconds, where the relay said so
	position = null; // of the last message taken
	head = null; // the newest position at the last welcome
	welcomes = 0;
	shown = 0;
	recovered = 0; // of those: missed
	gaps = 0;
	repeated = 0; // came again unasked, and were dropped
	#first = null; // the first welcome's head; all up to it is from before this page
	#ids = [];
	#gap = null; // told, not yet shown
	#forgotten = null; // a position that a relay would not resume from
	#again = false; // what is known comes again: we have begun anew

	/**
	 * What a frame gives to show, oldest first: messages, which `came` "live", "missed" (while away) or "before" the page,
	 * and gaps (certain or not). A malformed frame throws an Error and changes nothing; unknown types are for newer pages.
	 */
	take(frame) {
		check(frame);
		const { type } = frame;
		if (type === "message") return this.#takeMessage({ ...frame, position: Position.parse(frame.position) });
		if (type === "gap") {
			this.#gap = { type, after: Position.parse(frame.after), before: Position.parse(frame.before), certain: true };
		}
		if (type === "welcome") {
			this.head = frame.head === null ? null : Position.parse(frame.head);
			if (this.welcomes === 0) this.#first = this.head;
			this.welcomes += 1;
			this.relay = frame.relay;
			this.#gap = null; // this relay tells it again, or has what the last one had not
		}
		if (type === "welcome" || type === "status") {
			this.channel = frame.channel;
			this.channelSince = frame.since ?? null;
		}
		return [];
	}

	/** Whether all up to the welcome has been taken. */
	get isUpToDate() {
		return !this.head?.isAfter(this.position);
	}

	/** Begins anew with recent messages, since the relay refuses our position. If we know the first, none is lost. */
	forgetPosition() {
		this.#forgotten = this.position;
		this.#again = true;
		this.position = this.#first = null;
	}

	#takeMessage(message) {
		const { id, position } = message;
		const isNew = position.isAfter(this.head);
		if (isNew) this.#again = false;
		// What is not after our position has been shown, or told as lost.
		if (!position.isAfter(this.position)) {
			this.repeated += 1;
			return [];
		}
		this.position = position;
		const known = this.#ids.includes(id);
		if (this.#forgotten && !known) {
			this.#gap ??= { type: "gap", after: this.#forgotten, before: position, certain: false };
		}
		const items = this.#gap ? [this.#gap] : [];
		this.gaps += items.length;
		this.#gap = this.#forgotten = null;
		// Published again to a channel that had forgotten the first time.
		if (known) {
			if (!this.#again) this.repeated += 1;
			return items;
		}
		keep(this.#ids, id, KEPT);
		this.shown += 1;
		message.came = isNew ? "live" : position.isAfter(this.#first) ? "missed" : "before";
		if (message.came === "missed") this.recovered += 1;
		return [...items, message];
	}
}

function check(frame) {
	const fields = FIELDS[frame.type] ?? {};
	const wrong = Object.keys(fields).filter((field) => !fields[field](frame[field]));
	if (wrong.length > 0) throw new Error(`a ${frame.type} with a bad ${wrong.join(", ")}`);
}

/** Appends, and drops the oldest beyond `most`. */
export function keep(array, item, most) {
	if (array.push(item) > most) array.shift();
}
