// @ts-check
// Counts the pages of this browser that have a stream of events. Over HTTP/1.1 a browser opens six connections to a host,
// for all its pages; a stream occupies one of them, and a WebSocket none.

const CHANNEL = "hello-streams";
const MAX_STREAMS = 6;
const ANSWER_MS = 500; // for the other pages to answer, also if they are hidden

/**
 * Answers other pages until the signal is aborted.
 *
 * @param {AbortSignal} signal
 */
export function announceStream(signal) {
	const channel = new BroadcastChannel(CHANNEL);
	channel.onmessage = ({ data }) => {
		if (data.question !== undefined) channel.postMessage({ answer: data.question });
	};
	signal.addEventListener("abort", () => channel.close());
}

/** Returns true if other pages occupy all connections to this host. */
export async function isConnectionLimitReached() {
	const [navigation] = performance.getEntriesByType("navigation");
	const protocol = navigation instanceof PerformanceNavigationTiming ? navigation.nextHopProtocol : "";
	// HTTP/2 and 3 have a hundred streams on one connection. The name is empty for a page from the browser's cache.
	if (protocol === "h2" || protocol === "h3") return false;
	const question = Math.random();
	let streams = 0;
	const channel = new BroadcastChannel(CHANNEL);
	channel.onmessage = ({ data }) => {
		if (data.answer === question) streams += 1;
	};
	channel.postMessage({ question });
	await new Promise((resolve) => setTimeout(resolve, ANSWER_MS));
	channel.close();
	return streams >= MAX_STREAMS;
}
