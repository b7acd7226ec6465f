"""Counts what a watch has shown, in bounded memory, from its events. It knows neither clocks nor output."""

import statistics
from collections import deque
from dataclasses import dataclass, field

from hello.client import Lost, Opened, Repeated, Shown
from hello.watch.connection import Disconnected

KEPT_DELAYS = 1000  # the newest, for the median
KEPT_GAPS = 100  # the newest that are listed; all are counted


@dataclass
class Tally:
    """The counts of one watch: its public fields are those of the last line, once `end` has been called."""

    shown: int = 0
    recovered: int = 0  # of those: missed while disconnected
    lost: int = 0  # gaps
    gaps: deque[Lost] = field(default_factory=lambda: deque(maxlen=KEPT_GAPS))  # the newest
    repeated: int = 0  # messages that came again; always 0 unless something is broken
    moves: int = 0  # connections that a relay closed with 1012, service restart: one in a rollout
    reconnects: int = 0  # for whatever reason
    over_events: int = 0  # connections by server-sent events, as no WebSocket opened or as `--via sse` demands
    complete: bool = False  # connected at the end, and had received what it had missed
    longest_silence: float = 0.0  # seconds between two messages shown, from the first connection, or until the end
    delay_median: int | None = None  # milliseconds from sent_at to our clock, of the newest live messages
    delay_worst: int | None = None  # of all live messages; delays compare two machines' clocks and may be negative
    _delays: deque[int] = field(default_factory=lambda: deque(maxlen=KEPT_DELAYS))
    _silent_since: float | None = None

    def add(self, item: object, *, now: float, at: int) -> None:
        """Count an item that comes at `now` on a monotonic clock (seconds), which is `at` in UNIX milliseconds."""
        match item:
            case Opened(transport=transport):
                self.over_events += transport == "events"
                self.reconnects += self._silent_since is not None
                self._silent_since = now if self._silent_since is None else self._silent_since
            case Shown(message, _, came):
                self.shown += 1
                self.recovered += came == "recovered"
                self._end_silence(now)
                if came == "live":
                    delay = at - message.sent_at
                    self._delays.append(delay)
                    self.delay_worst = delay if self.delay_worst is None else max(delay, self.delay_worst)
            case Lost():
                self.lost += 1
                self.gaps.append(item)
            case Repeated():
                self.repeated += 1
            case Disconnected("moved"):
                self.moves += 1

    def end(self, *, now: float, complete: bool) -> None:
        """Set what is known only at the end; `complete` is the protocol's."""
        self._end_silence(now)
        self.complete = complete
        self.delay_median = round(statistics.median(self._delays)) if self._delays else None

    def _end_silence(self, now: float) -> None:
        if self._silent_since is not None:
            self.longest_silence = max(self.longest_silence, round(now - self._silent_since, 3))
            self._silent_since = now
