// @ts-check
// Finds out why a WebSocket did not open. A browser does not tell its page, and so this module asks the same address by a
// plain request: a relay answers that with 426, and with what it knows.

import { streamUrl } from "./address.js";
import { isConnectionLimitReached } from "./streams.js";

/**
 * @typedef {(
 *     | { kind: "upgrade" | "timeout" | "limit" }
 *     | { kind: "origin", host: string }
 *     | { kind: "refused", refusal: string }
 *     | { kind: "status", status: number }
 * )} Obstacle Why a WebSocket does not open: a proxy does not pass it on; it brought no frame in time; this browser has
 * no connection left; the relay would refuse the page's origin, or does refuse all clients; or an answer that is not the
 * relay's.
 */

const ANSWER_TIMEOUT_MS = 5000;

/**
 * Returns null if no server answers.
 *
 * @param {boolean} isTimeout True if the WebSocket was not closed, but brought no frame in time.
 * @returns {Promise<Obstacle | null>}
 */
export async function findObstacle(isTimeout) {
	try {
		const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
		const response = await fetch(streamUrl("ws", { origin: location.origin }), { signal, cache: "no-store" });
		const text = await response.text();
		if (response.status !== 426) return { kind: "status", status: response.status };
		return obstacleOf(text, isTimeout);
	} catch (error) {
		const isUnanswered = error instanceof DOMException && error.name === "TimeoutError";
		return isUnanswered && (await isConnectionLimitReached()) ? { kind: "limit" } : null;
	}
}

/**
 * Returns true if a stream of events may open all the same.
 *
 * @param {Obstacle | null} obstacle
 */
export function mayOpenEvents(obstacle) {
	switch (obstacle?.kind) {
		case "upgrade":
		case "timeout":
		case "origin":
			return true;
		case "status":
			return obstacle.status < 500; // the relay behind the proxy is away
		default:
			return false;
	}
}

/**
 * @param {string} text The relay's answer.
 * @param {boolean} isTimeout
 * @returns {Obstacle}
 */
function obstacleOf(text, isTimeout) {
	/** @type {{ host?: string, may_open?: boolean, refusal?: string | null }} */
	let answer = {};
	try {
		answer = JSON.parse(text);
	} catch {
		// An older relay answers in words.
	}
	if (answer.refusal) return { kind: "refused", refusal: answer.refusal };
	if (answer.may_open === false) return { kind: "origin", host: answer.host ?? "" };
	return { kind: isTimeout ? "timeout" : "upgrade" };
}
