// @ts-check
// Runs one connection to a relay over any transport: its frames, its deadlines and its end. This module does not
// interpret frames, and does not reconnect.

/**
 * @import { CloseReason } from "./connection.js"
 *
 * @typedef {object} Handlers What a transport calls while it is open.
 * @property {(data: string) => void} onData Called with each frame as JSON.
 * @property {(reason: CloseReason, status?: number) => void} onEnd Called when the connection has ended; with the
 * status of an answer by HTTP that is no stream.
 *
 * @typedef {(url: URL, handlers: Handlers) => () => void} Transport Opens a connection, and returns what closes it.
 *
 * @typedef {object} Ending
 * @property {CloseReason} reason
 * @property {number | null} openMs How many milliseconds passed after the first frame; null if there was none.
 * @property {boolean} isTimeout True if no first frame came in time.
 * @property {number | null} status
 */

export const IDLE_TIMEOUT_MS = 25_000; // 2.5 periods of the relay's heartbeat
export const OPEN_TIMEOUT_MS = 10_000; // to the first frame, since a browser itself waits for minutes

/**
 * Opens a connection, and returns how it ended.
 *
 * @param {Transport} transport
 * @param {URL} url
 * @param {object} options
 * @param {(frame: unknown) => void} options.onFrame Called with each frame. An exception closes the connection.
 * @param {AbortSignal} options.signal Closes the connection; its reason is a CloseReason.
 * @param {number} [options.openTimeout]
 * @returns {Promise<Ending>}
 */
export function runConnection(transport, url, { onFrame, signal, openTimeout = OPEN_TIMEOUT_MS }) {
	return new Promise((resolve) => {
		/** @type {number | null} */
		let openedAt = null;
		let isEnded = false;
		let timeout = 0;
		let close = () => {};

		/**
		 * @param {CloseReason} reason
		 * @param {number | null} status
		 */
		const end = (reason, status = null, isTimeout = false) => {
			isEnded = true;
			clearTimeout(timeout);
			signal.removeEventListener("abort", onAbort);
			close(); // not awaited: this may take minutes if the network is gone
			const openMs = openedAt === null ? null : performance.now() - openedAt;
			const isUnreachable = openMs === null && reason === "lost";
			resolve({ reason: isUnreachable ? "unreachable" : reason, openMs, isTimeout, status });
		};
		const onAbort = () => end(signal.reason);

		/** @param {string} data */
		const onData = (data) => {
			if (isEnded) return; // a transport may have read several frames at once
			try {
				onFrame(JSON.parse(data));
			} catch (error) {
				console.error(error);
				end("garbled"); // a connection that went on would lose this frame without a report
				return;
			}
			if (isEnded) return;
			openedAt ??= performance.now();
			clearTimeout(timeout);
			timeout = setTimeout(() => end("dead"), IDLE_TIMEOUT_MS);
		};

		if (signal.aborted) return onAbort();
		signal.addEventListener("abort", onAbort);
		timeout = setTimeout(() => end("unreachable", null, true), openTimeout);
		close = transport(url, { onData, onEnd: end });
	});
}
