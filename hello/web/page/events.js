// @ts-check
// The stream of a relay as server-sent events (WHATWG HTML, section 9.2), read by fetch: an EventSource hides the status
// of an answer, and why a stream ended.

/** @import { Handlers } from "./transport.js" */

/**
 * @param {URL} url
 * @param {Handlers} handlers
 */
export function openEvents(url, { onData, onEnd }) {
	const controller = new AbortController();
	readEvents(url, controller.signal, { onData, onEnd }).catch(() => onEnd("lost"));
	return () => controller.abort();
}

/**
 * Reads a stream to its end. Throws an Error if the network fails.
 *
 * @param {URL} url
 * @param {AbortSignal} signal
 * @param {Handlers} handlers
 */
async function readEvents(url, signal, { onData, onEnd }) {
	const { status, headers, body } = await fetch(url, { signal, cache: "no-store" });
	const isStream = headers.get("Content-Type")?.startsWith("text/event-stream");
	if (status !== 200 || !isStream || body === null) {
		onEnd("unreachable", status); // the transport is closed, and with it the body
		return;
	}
	const reader = body.getReader();
	const decoder = new TextDecoder();
	const parser = new EventParser();
	let hasFrame = false;
	for (;;) {
		const { done, value } = await reader.read();
		if (done) break;
		for (const data of parser.push(decoder.decode(value, { stream: true }))) {
			hasFrame = true;
			onData(data);
		}
	}
	// A relay that stops sends `retry` after its last frame; one that is full sends `retry` alone. Without it a proxy has
	// ended a stream that was lost behind it.
	onEnd(parser.hasRetry && hasFrame ? "moved" : "lost");
}

/** Parses those fields of an event stream that a relay sends: `data` and `retry`. Others are ignored. */
export class EventParser {
	hasRetry = false;

	#line = ""; // the beginning of a line whose end has not come yet
	/** @type {string[]} */
	#data = []; // of the event whose end has not come yet
	#isAfterReturn = false; // a line feed that comes next belongs to the end of the line before

	/**
	 * Takes the next text of the stream, cut anywhere, and returns the data of each event that ends in it.
	 *
	 * @param {string} text
	 */
	push(text) {
		if (text === "") return [];
		const lines = (this.#line + (this.#isAfterReturn ? text.replace(/^\n/, "") : text)).split(/\r\n|\n|\r/);
		this.#isAfterReturn = text.endsWith("\r");
		this.#line = lines.pop() ?? "";
		return lines.flatMap((line) => this.#takeLine(line));
	}

	/**
	 * @param {string} line
	 * @returns {string[]}
	 */
	#takeLine(line) {
		if (line === "") {
			const data = this.#data;
			this.#data = [];
			return data.length > 0 ? [data.join("\n")] : [];
		}
		const colon = line.includes(":") ? line.indexOf(":") : line.length;
		const field = line.slice(0, colon);
		if (field === "data") this.#data.push(line.slice(colon + 1).replace(/^ /, ""));
		if (field === "retry") this.hasRetry = true;
		return [];
	}
}
