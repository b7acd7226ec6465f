// Keeps a WebSocket to a relay open. It knows neither what frames say nor how anything looks.

const SILENCE_MS = 25_000; // 2.5 times the relay's beat: the line is dead
const OPENING_MS = 10_000; // from attempt to first frame; the browser's own limit is minutes
const STEADY_MS = 10_000; // up for so long, and the pauses begin anew
const FIRST_PAUSE_MS = 1000; // at most
const BASE_PAUSE_MS = 500; // before the second attempt; it doubles from there
const LONGEST_PAUSE_MS = 5000; // at 15 s one page in seven waits over 10 s after a cut of 10 s
const ENQUIRE_EVERY = 5; // failed attempts
const RECENT = 50; // messages to begin with
const REASONS = { 1012: "moved", 1013: "slow" }; // by close code; anything else is "lost"

/** Milliseconds, drawn evenly up to a limit that grows: pages lost together do not return together. */
export function pauseBefore(attempt, random = Math.random) {
  const doubled = Math.min(BASE_PAUSE_MS * 2 ** (attempt - 2), LONGEST_PAUSE_MS);
  return random() * (attempt === 1 ? FIRST_PAUSE_MS : doubled);
}

/**
 * Connects for ever. `hear` is given each frame, `tell` each change: `state` is connecting, open, or why it is not
 * (moved, slow, lost, dead, unreachable, garbled), `retryAt` when the next attempt comes (UNIX milliseconds), or null.
 */
export async function stayConnected({ stream, hear, tell }) {
  let [state, since, attempt] = ["connecting", Date.now(), 0];
  let failures = 0; // in a row
  for (;;) {
    tell({ state, since, attempt, retryAt: null });
    const opened = () => tell({ state: "open", since: Date.now(), attempt, retryAt: null });
    const end = await listen(address("ws", stream.position), hear, opened);
    if (end.upMs === null) {
      if (++failures % ENQUIRE_EVERY === 0 && (await isRefused(stream.position))) stream.forgetPosition();
    } else {
      failures = 0;
      since = Date.now();
      if (end.upMs >= STEADY_MS) attempt = 0;
    }
    state = end.reason;
    attempt += 1;
    const pause = pauseBefore(state === "slow" ? Infinity : attempt); // the slow come back later, not soon
    tell({ state, since, attempt, retryAt: Date.now() + pause });
    await sleep(pause);
  }
}

/** Resolves with why a WebSocket ended, and after how long (null: it brought no frame). */
function listen(url, hear, opened) {
  return new Promise((resolve) => {
    const socket = new WebSocket(url);
    let openedAt = null;
    let watchdog;

    // The socket is left behind, not waited for: on a dead line its close may take minutes.
    const end = (reason) => {
      clearTimeout(watchdog);
      socket.onmessage = socket.onclose = null;
      socket.close();
      resolve({ reason, upMs: openedAt === null ? null : performance.now() - openedAt });
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
        end("garbled"); // to go on would be to lose this frame in silence
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

/**
 * Whether the relay refuses this position, as one ahead of its clock. A page is not told why a handshake failed, but
 * `events` answers openly. Not to ask would be to knock for ever; to guess could skip messages.
 */
async function isRefused(position) {
  if (position === null) return false;
  try {
    const answer = await fetch(address("events", position), { signal: AbortSignal.timeout(OPENING_MS) });
    answer.body?.cancel();
    return answer.status === 400;
  } catch {
    return false; // no answer is no refusal
  }
}

/** Relative to the page's own address: a path prefix before both is kept. */
function address(path, position) {
  const url = new URL(path, document.baseURI);
  if (path === "ws") url.protocol = url.protocol.replace("http", "ws");
  url.search = new URLSearchParams(position === null ? { last: RECENT } : { after: position });
  return url;
}

/** Resolves after so long, or at once when the network is back or someone looks. */
function sleep(milliseconds) {
  return new Promise((resolve) => {
    const over = new AbortController();
    const wake = () => {
      clearTimeout(timer);
      over.abort();
      resolve();
    };
    const timer = setTimeout(wake, milliseconds);
    addEventListener("online", wake, { signal: over.signal });
    document.addEventListener("visibilitychange", () => document.hidden || wake(), { signal: over.signal });
  });
}
