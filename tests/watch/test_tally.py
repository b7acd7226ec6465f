"""What a watch counts (hello/watch/tally.py), at times that a test names."""

from hello.client import ClientProtocol, Lost
from hello.message import Position
from hello.watch.connection import Disconnected
from hello.watch.tally import Tally
from tests.client_histories import BEAT, DISCONNECTED, NOON, Frame, gap, message, play, welcome

LOST = Lost(Position(2, 0), Position(4, 0), certain=True)


def count(tally: Tally, protocol: ClientProtocol, *steps: Frame | str, now: float = 0.0) -> None:
    """Add what a client makes of the steps, all of them at the same time."""
    for item in play(protocol, steps):
        tally.add(item, now=now, at=NOON)


def test_counts_are_those_of_the_items() -> None:
    """Of the connections that end, those are moves that the relay closes for its restart."""
    tally, protocol = Tally(), ClientProtocol()
    for reason in ("moved", "lost", "slow", "moved"):
        tally.add(Disconnected(reason, "why", 1, 0.1), now=0.0, at=NOON)
    count(tally, protocol, welcome("1-0"), message("1-0", "a"), message("2-0", "b"), DISCONNECTED)
    count(tally, protocol, welcome("4-0"), gap("2-0", "4-0"), message("4-0", "c"), message("4-0", "c"))
    tally.end(now=0.0, complete=True)
    assert (tally.shown, tally.recovered, tally.lost, tally.repeated) == (3, 1, 1, 1)
    assert (tally.reconnects, tally.moves) == (1, 2)
    assert list(tally.gaps) == [LOST]
    assert tally.complete


def test_delays_are_those_of_live_messages() -> None:
    """They are negative where our clock is behind; the median is that of the newest thousand, the worst that of all."""
    tally, protocol = Tally(), ClientProtocol()
    count(tally, protocol, welcome("1-0"), message("1-0", "history", sent_at=NOON - 60_000))
    tally.end(now=0.0, complete=True)
    assert (tally.delay_median, tally.delay_worst) == (None, None)
    delays = [90_000, *range(-5000, 5000, 10)]
    live = (message(f"2-{n}", f"{n}", sent_at=NOON - delay) for n, delay in enumerate(delays))
    missed = message("3-0", "missed", sent_at=NOON - 60_000)
    count(tally, protocol, *live, DISCONNECTED, welcome("3-0"), missed)
    tally.end(now=0.0, complete=True)
    assert (tally.delay_median, tally.delay_worst) == (-5, 90_000)


def test_longest_silence_includes_the_first_and_the_last() -> None:
    """A beat and a connection that opens again do not end a silence."""

    def silence(*times: float, end: float) -> float:
        tally, protocol = Tally(), ClientProtocol()
        count(tally, protocol, welcome(), now=100.0)
        for number, time in enumerate(times):
            count(tally, protocol, message(f"{number}-1", f"{number}"), now=time)
            count(tally, protocol, BEAT, DISCONNECTED, welcome(), now=time + 0.5)
        tally.end(now=end, complete=True)
        return tally.longest_silence

    assert silence(103.0, 104.0, end=105.0) == 3.0
    assert silence(101.0, 105.5, end=106.0) == 4.5
    assert silence(101.0, 102.0, end=109.0) == 7.0
    never = Tally()
    never.end(now=1000.0, complete=False)
    assert never.longest_silence == 0.0


def test_memory_is_bounded() -> None:
    tally, protocol, sizes = Tally(), ClientProtocol(), []
    count(tally, protocol, welcome())
    for lap in (1, 2):
        for number in range(2000):
            count(tally, protocol, gap("0-0", "1-0"), message(f"{lap}-{number}", f"{lap} {number}"))
        sizes.append(sum(len(value) for value in vars(tally).values() if hasattr(value, "__len__")))
    assert sizes[0] == sizes[1]
    assert (tally.shown, tally.lost) == (4000, 4000)
