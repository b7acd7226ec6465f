"""The signals that stop a process, from the first line of the command to its last. It imports nothing that takes time.

An event loop handles signals only while it runs. Before and after, Python raises KeyboardInterrupt at any step for
SIGINT, and the kernel drops a signal for process 1 of a container that has no handler.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # SIGHUP: the terminal was closed


def handle_stop(action: Callable[[signal.Signals], object]) -> None:
    """Call `action` with each signal that stops a process, from now on, between any two steps of the main thread.

    A SIGHUP that is ignored, as nohup lets it be, is ignored further on.
    """
    for number in STOPPING:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: action(signal.Signals(number)))


@contextmanager
def handling_stop(action: Callable[[signal.Signals], object]) -> Iterator[None]:
    """Do what `handle_stop` does, and set the handlers of before at the end."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    handle_stop(action)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_by(number: signal.Signals) -> None:
    """End the process at once, by the default action of the signal."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    os._exit(128 + number)  # for process 1 of a container, which the kernel shields from its own signals
