// @ts-check
// Keeps a connection to a relay open: over WebSocket, or else by server-sent events. This module does not interpret
// frames, and draws nothing.

import { streamUrl } from "./address.js";
import { findObstacle, mayOpenEvents } from "./diagnosis.js";
import { openEvents } from "./events.js";
import { announceStream } from "./streams.js";
import { OPEN_TIMEOUT_MS, runConnection } from "./transport.js";
import { openWebSocket } from "./websocket.js";

/**
 * @import { ClientProtocol } from "./client-protocol.js"
 * @import { Obstacle } from "./diagnosis.js"
 * @import { Ending } from "./transport.js"
 *
 * @typedef {(
 *     | "moved" | "slow" | "lost" | "dead" | "unreachable" | "garbled" | "offline" | "switched" | "left" | "restored"
 * )} CloseReason Why there is no connection: the relay stops (1012), this page is too slow (1013), any other end, no
 * frame for 25 s, no first frame, a frame that this page cannot read, the browser is offline, a WebSocket opens again
 * (instead of events), the reader has left this page, or has come back to it (the back/forward cache).
 *
 * @typedef {object} Connection Times are UNIX milliseconds.
 * @property {"connecting" | "open" | CloseReason} state A browser that is offline may still reach a relay on its own
 * machine: then the next frame makes the state "open".
 * @property {number} since When this state began; repeated failures to connect are one state.
 * @property {number} attempt The number of attempts since the last stable connection.
 * @property {number | null} retryAt When the next attempt begins; null if none is scheduled.
 * @property {"websocket" | "events"} transport Of this connection or attempt, or of the last one.
 * @property {Obstacle | null} obstacle What kept the last WebSocket from opening; null if it opened, or if that is not
 * known.
 */

const FIRST_OPEN_TIMEOUT_MS = 4000; // of a WebSocket, until one has opened: some proxies do not answer it at all
const PROBE_INTERVAL_MS = 60_000; // on average, between two attempts to return to WebSocket
const STABLE_MS = 10_000; // a connection that was open for so long resets the back-off
// The longest delay before each attempt; the last one holds for all further attempts, too. No delay is longer than 5 s,
// so that a page reconnects within 5 s after the network is back.
const MAX_DELAYS_MS = [1000, 500, 1000, 2000, 4000, 5000];
const RECENT = 50; // messages requested by a page that has no position yet

const TRANSPORTS = { websocket: openWebSocket, events: openEvents };
const PATHS = /** @type {const} */ ({ websocket: "ws", events: "events" });

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
	let connection = {
		state: navigator.onLine ? "connecting" : "offline",
		since: Date.now(),
		attempt: 0,
		retryAt: null,
		transport: "websocket",
		obstacle: null,
	};
	let hasUsedWebSocket = false;
	let step = new AbortController(); // ends the connection, or the wait, that this page is in
	let restored = Promise.resolve();

	/** @param {Partial<Connection>} change */
	const update = (change) => {
		connection = { ...connection, ...change };
		onConnectionChange(connection);
	};

	/**
	 * Runs one connection over this transport, resuming after the last message.
	 *
	 * @param {Connection["transport"]} transport
	 */
	const connectOver = (transport, openTimeout = OPEN_TIMEOUT_MS) => {
		const { position } = protocol;
		/** @type {Record<string, string>} */
		const start = position === null ? { last: String(RECENT) } : { after: String(position) };
		update({ transport });
		return runConnection(TRANSPORTS[transport], streamUrl(PATHS[transport], start), {
			signal: step.signal,
			openTimeout,
			onFrame(frame) {
				onFrame(frame);
				if (transport === "websocket") hasUsedWebSocket = true;
				if (connection.state === "open") return;
				const obstacle = transport === "websocket" ? null : connection.obstacle;
				update({ state: "open", since: Date.now(), obstacle });
			},
		});
	};

	/**
	 * Runs a connection by server-sent events, until it ends or a WebSocket opens.
	 *
	 * @returns {Promise<Ending>}
	 */
	const connectOverEvents = async () => {
		const controller = step;
		const during = new AbortController();
		announceStream(during.signal);
		probeWebSocket(() => controller.abort("switched"), during.signal);
		const ending = await connectOver("events");
		during.abort("lost");
		if (ending.status === 400 && protocol.position !== null) {
			protocol.resetPosition(); // it is ahead of the relay's clock, and so no WebSocket opened
			update({ obstacle: null });
		}
		return ending;
	};

	/**
	 * Makes one attempt: a WebSocket, and events if a server answers. If none does, there is no further request.
	 *
	 * @returns {Promise<Ending>}
	 */
	const connect = async () => {
		const { signal } = step;
		let ending = await connectOver("websocket", hasUsedWebSocket ? OPEN_TIMEOUT_MS : FIRST_OPEN_TIMEOUT_MS);
		if (ending.reason !== "unreachable") return ending;
		const obstacle = await findObstacle(ending.isTimeout);
		if (obstacle?.kind === "upgrade" && !signal.aborted) {
			ending = await connectOver("websocket"); // the relay may have started between the two requests
			if (ending.reason !== "unreachable") return ending;
		}
		update({ obstacle });
		return mayOpenEvents(obstacle) && !signal.aborted ? connectOverEvents() : ending;
	};

	addEventListener("offline", () => update({ state: "offline", since: Date.now() }));
	addEventListener("online", () => {
		if (connection.state === "offline") step.abort("offline"); // the network may be another one
	});
	addEventListener("pagehide", ({ persisted }) => {
		if (!persisted) return;
		restored = new Promise((resolve) => addEventListener("pageshow", () => resolve(), { once: true }));
		step.abort("left"); // a browser does not keep a page that has a connection
	});

	for (;;) {
		update({ retryAt: null });
		step = new AbortController();
		const { reason, openMs } = await connect();
		if (!step.signal.aborted) {
			const failed = openMs === null;
			const state = navigator.onLine ? reason : "offline";
			const since = failed || state === connection.state ? connection.since : Date.now();
			const wasStable = openMs !== null && openMs >= STABLE_MS;
			const attempt = wasStable ? 1 : connection.attempt + 1;
			// The longest delay: a page that could not keep up gets more time.
			const delay = backoffDelay(reason === "slow" ? Infinity : attempt);
			update({ state, since, attempt, retryAt: Date.now() + delay });
			await waitBeforeRetry(delay, step.signal);
		}
		if (!step.signal.aborted) continue;
		const state = step.signal.reason;
		const since = state === connection.state ? connection.since : Date.now();
		update({ state, since, attempt: 0, retryAt: null });
		if (state !== "left") continue;
		await restored;
		update({ state: "restored", since: Date.now() });
	}
}

/**
 * Opens a WebSocket now and then, until the signal is aborted, and closes it again.
 *
 * @param {() => void} onFrame Called with the first frame.
 * @param {AbortSignal} signal
 */
async function probeWebSocket(onFrame, signal) {
	while (!signal.aborted) {
		await waitBeforeRetry(PROBE_INTERVAL_MS * (0.5 + Math.random()), signal);
		if (!signal.aborted) await runConnection(openWebSocket, streamUrl("ws", { last: "0" }), { onFrame, signal });
	}
}

/**
 * Resolves after this time, or as soon as the network is back, the page becomes visible, or the signal is aborted.
 *
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
function waitBeforeRetry(milliseconds, signal) {
	return new Promise((resolve) => {
		const listeners = new AbortController(); // removes the listeners
		const end = () => {
			listeners.abort();
			clearTimeout(timeout);
			resolve();
		};
		const endIfVisible = () => {
			if (!document.hidden) end();
		};
		const timeout = setTimeout(end, milliseconds);
		addEventListener("online", end, { signal: listeners.signal });
		document.addEventListener("visibilitychange", endIfVisible, { signal: listeners.signal });
		signal.addEventListener("abort", end, { signal: listeners.signal });
	});
}
