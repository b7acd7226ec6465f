// Keeps a WebSocket to a relay open. It knows neither what frames say nor how anything looks.

const SILENCE_MS = 25_000; // 2.5 of the relay's beats
const OPENING_MS = 10_000; // to the first frame; the browser's own limit is minutes
const STEADY_MS = 10_000; // up so long, and the pauses begin anew
// At most, by attempt, the last for all others: back within 5 s of the network.
const PAUSES_MS = [1000, 500, 1000, 2000, 4000, 5000];
const ENQUIRE_EVERY = 5; // failed attempts
const RECENT = 50; // messages to begin with
const REASONS = { 1012: "moved", 1013: "slow" }; // by close code; others are "lost"

/** Milliseconds, drawn at random: pages lost together do not return together. */
export function pauseBefore(attempt, random = Math.random) {
	return random() * (PAUSES_MS[attempt - 1] ?? PAUSES_MS.at(-1));
}

/**
 * Connects for ever. `hear` is given each frame, `tell` each change: `state` is connecting, open, or why it is not
 * (moved, slow, lost, dead, unreachable, garbled); `retryAt` is the next attempt's time, or null. UNIX milliseconds.
 */
export async function stayConnected({ stream, hear, tell }) {
	let link = { state: "connecting", since: Date.now(), attempt: 0 };
	const turn = (change) => tell((link = { ...link, retryAt: null, ...change }));
	let failures = 0; // in a row
	for (;;) {
		turn();
		const opened = () => turn({ state: "open", since: Date.now() });
		const { reason: state, upMs } = await listen(address("ws", stream.position), hear, opened);
		if (upMs !== null) failures = 0;
		else if (++failures % ENQUIRE_EVERY === 0 && (await isRefused(stream.position))) stream.forgetPosition();
		const since = upMs === null ? link.since : Date.now();
		const attempt = upMs >= STEADY_MS ? 1 : link.attempt + 1;
		const pause = pauseBefore(state === "slow" ? Infinity : attempt); // the slow come back later
		turn({ state, since, attempt, retryAt: Date.now() + pause });
		await sleep(pause);
	}
}

/** Resolves with why a WebSocket ended, and how long after its first frame (null without one). */
function listen(url, hear, opened) {
	return new Promise((resolve) => {
		const socket = new WebSocket(url);
		let openedAt = null;
		let watchdog;

		const end = (reason) => {
			clearTimeout(watchdog);
			socket.onmessage = socket.onclose = null;
			socket.close(); // not waited for: a dead line may take minutes
			resolve({ reason, upMs: openedAt && performance.now() - openedAt });
		};
		const expectWithin = (milliseconds) => {
			clearTimeout(watchdog);
			watchdog = setTimeout(end, milliseconds, openedAt === null ? "unreachable" : "dead");
		};

		expectWithin(OPENING_MS);
		socket.onmessage = ({ data }) => {
			try {
				hear(JSON.parse(data));
			} catch (error) {
				console.error(error);
				end("garbled"); // to go on would lose this frame in silence
				return;
			}
			if (openedAt === null) {
				openedAt = performance.now();
				opened();
			}
			expectWithin(SILENCE_MS);
		};
		socket.onclose = ({ code }) => end(REASONS[code] ?? (openedAt === null ? "unreachable" : "lost"));
	});
}

/** Whether the relay refuses this position, as ahead of its clock: a handshake does not tell, but `events` does. */
async function isRefused(position) {
	if (position === null) return false;
	const signal = AbortSignal.timeout(OPENING_MS);
	const answer = await fetch(address("events", position), { signal }).catch(() => null);
	answer?.body?.cancel();
	return answer?.status === 400;
}

/** Beside the page's own address: a path prefix is kept. */
function address(path, position) {
	const url = new URL(path, document.baseURI);
	if (path === "ws") url.protocol = url.protocol.replace("http", "ws");
	url.search = new URLSearchParams(position === null ? { last: RECENT } : { after: position });
	return url;
}

/** Resolves after so long, or at once when the network is back or someone looks. */
function sleep(milliseconds) {
	const over = new AbortController();
	const { signal } = over;
	const wake = () => over.abort();
	setTimeout(wake, milliseconds);
	addEventListener("online", wake, { signal });
	document.addEventListener("visibilitychange", () => document.hidden || wake(), { signal });
	return new Promise((resolve) => (signal.onabort = resolve));
}
