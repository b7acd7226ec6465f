// @ts-check
// Keeps a WebSocket to a relay open. This module does not interpret frames, and draws nothing.

/**
 * @import { ClientProtocol, Position } from "./client-protocol.js"
 *
 * @typedef {"moved" | "slow" | "lost" | "dead" | "unreachable" | "garbled"} CloseReason
 * Why a connection ended: the relay stops (1012), this page is too slow (1013), any other close, no frame for 25 s, no
 * first frame, or a frame that this page cannot read.
 *
 * @typedef {object} Connection Times are UNIX milliseconds.
 * @property {"connecting" | "open" | CloseReason} state
 * @property {number} since When this state began; repeated failures to connect are one state.
 * @property {number} attempt The number of attempts since the last stable connection.
 * @property {number | null} retryAt When the next attempt begins; null if none is scheduled.
 */

export const IDLE_TIMEOUT_MS = 25_000; // 2.5 periods of the relay's heartbeat
const OPEN_TIMEOUT_MS = 10_000; // to the first frame, since a browser itself waits for minutes
const STABLE_MS = 10_000; // a connection that was open for so long resets the back-off
// The longest delay before each attempt; the last one holds for all further attempts, too. No delay is longer than 5 s,
// so that a page reconnects within 5 s after the network is back.
const MAX_DELAYS_MS = [1000, 500, 1000, 2000, 4000, 5000];
const FAILURES_PER_CHECK = 5; // failed attempts in a row between two checks of the position
const RECENT = 50; // messages requested by a page that has no position yet

/**
 * Returns the milliseconds to wait before this attempt: full jitter, so that pages that were disconnected together do
 * not reconnect together.
 *
 * @param {number} attempt 1 is the first.
 */
export function backoffDelay(attempt, random = Math.random) {
	return random() * MAX_DELAYS_MS[Math.min(attempt, MAX_DELAYS_MS.length) - 1];
}

/**
 * Connects, and reconnects after each loss. Never returns.
 *
 * @param {object} options
 * @param {ClientProtocol} options.protocol Its position is where a new connection resumes.
 * @param {(frame: unknown) => void} options.onFrame Called with each frame. An exception closes the connection.
 * @param {(connection: Connection) => void} options.onConnectionChange
 */
export async function stayConnected({ protocol, onFrame, onConnectionChange }) {
	/** @type {Connection} */
	let connection = { state: "connecting", since: Date.now(), attempt: 0, retryAt: null };

	/** @param {Partial<Connection>} change */
	const update = (change) => {
		connection = { ...connection, ...change };
		onConnectionChange(connection);
	};

	let failures = 0; // attempts in a row that brought no frame
	for (;;) {
		update({ retryAt: null });
		const url = streamUrl("ws", protocol.position);
		const onOpen = () => update({ state: "open", since: Date.now() });
		const { reason, openMs } = await runConnection(url, onFrame, onOpen);
		const failed = openMs === null;
		failures = failed ? failures + 1 : 0;
		if (failed && failures % FAILURES_PER_CHECK === 0 && (await isRejected(protocol.position))) {
			protocol.resetPosition();
		}
		const since = failed ? connection.since : Date.now();
		const wasStable = openMs !== null && openMs >= STABLE_MS;
		const attempt = wasStable ? 1 : connection.attempt + 1;
		// The longest delay: a page that could not keep up gets more time.
		const delay = backoffDelay(reason === "slow" ? Infinity : attempt);
		update({ state: reason, since, attempt, retryAt: Date.now() + delay });
		await waitBeforeRetry(delay);
	}
}

/**
 * Opens a WebSocket, and returns why it ended and how many milliseconds passed after its first frame: null if there was
 * none.
 *
 * @param {URL} url
 * @param {(frame: unknown) => void} onFrame
 * @param {() => void} onOpen Called after the first frame.
 * @returns {Promise<{ reason: CloseReason, openMs: number | null }>}
 */
function runConnection(url, onFrame, onOpen) {
	return new Promise((resolve) => {
		const socket = new WebSocket(url);
		/** @type {number | null} */
		let openedAt = null;
		let timeout = 0;

		/** @param {CloseReason} reason */
		const end = (reason) => {
			clearTimeout(timeout);
			socket.onmessage = null;
			socket.onclose = null;
			socket.close(); // not awaited: this may take minutes if the network is gone
			resolve({ reason, openMs: openedAt === null ? null : performance.now() - openedAt });
		};

		/**
		 * @param {number} milliseconds
		 * @param {CloseReason} reason
		 */
		const expectFrameWithin = (milliseconds, reason) => {
			clearTimeout(timeout);
			timeout = setTimeout(() => end(reason), milliseconds);
		};

		expectFrameWithin(OPEN_TIMEOUT_MS, "unreachable");
		socket.onmessage = ({ data }) => {
			try {
				onFrame(JSON.parse(data));
			} catch (error) {
				console.error(error);
				end("garbled"); // a connection that went on would lose this frame without a report
				return;
			}
			if (openedAt === null) {
				openedAt = performance.now();
				onOpen();
			}
			expectFrameWithin(IDLE_TIMEOUT_MS, "dead");
		};
		socket.onclose = ({ code }) => end(closeReason(code, openedAt !== null));
	});
}

/**
 * @param {number} code A close code of RFC 6455, section 7.4, or of its registry at IANA.
 * @param {boolean} wasOpen
 * @returns {CloseReason}
 */
function closeReason(code, wasOpen) {
	if (code === 1012) return "moved"; // Service Restart
	if (code === 1013) return "slow"; // Try Again Later
	return wasOpen ? "lost" : "unreachable";
}

/**
 * Returns true if the relay rejects this position, since it is ahead of the relay's clock. A page cannot see the status
 * of a failed WebSocket handshake, so this function asks for the same stream by HTTP.
 *
 * @param {Position | null} position
 */
async function isRejected(position) {
	if (position === null) return false;
	const signal = AbortSignal.timeout(OPEN_TIMEOUT_MS);
	const response = await fetch(streamUrl("events", position), { signal }).catch(() => null);
	response?.body?.cancel();
	return response?.status === 400;
}

/**
 * Returns the address of the stream, which is relative to the page's: a path prefix of an ingress is kept.
 *
 * @param {"ws" | "events"} path
 * @param {Position | null} position
 */
function streamUrl(path, position) {
	const url = new URL(path, document.baseURI);
	if (path === "ws") url.protocol = url.protocol.replace("http", "ws");
	if (position === null) url.searchParams.set("last", String(RECENT));
	else url.searchParams.set("after", String(position));
	return url;
}

/**
 * Resolves after this time, or as soon as the network is back or the page becomes visible.
 *
 * @param {number} milliseconds
 * @returns {Promise<void>}
 */
function waitBeforeRetry(milliseconds) {
	return new Promise((resolve) => {
		const controller = new AbortController();
		const { signal } = controller; // removes the listeners
		const end = () => {
			controller.abort();
			resolve();
		};
		const endIfVisible = () => {
			if (!document.hidden) end();
		};
		setTimeout(end, milliseconds);
		addEventListener("online", end, { signal });
		document.addEventListener("visibilitychange", endIfVisible, { signal });
	});
}
