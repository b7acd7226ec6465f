"""The start of the command: standard streams and signals, before the imports of the rest, which take half a second."""

import os
import sys

from hello.signals import handle_stop


def main() -> int:
    """Run one process until a signal stops it, or the terminal client (`hello watch`); return the exit code."""
    _replace_closed_streams()
    arguments = sys.argv[1:]
    is_watch = arguments[:1] == ["watch"]
    # Until there is something to drain, and once it has been drained, a signal ends the process at once. What a client
    # has missed is not known then.
    handle_stop(lambda _: os._exit(1 if is_watch else 0))
    if is_watch:
        from hello.watch.command import main as watch

        return watch(arguments[1:])
    from hello.command import main as run

    return run(arguments)


def _replace_closed_streams() -> None:
    """Open /dev/null for each standard stream that is closed, as after `2>&-`, so that no socket gets its number.

    `sys.stdout` stays None: `hello watch` has nowhere to write then.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # it is always the lowest number that is free
        pass
    os.close(descriptor)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w")


if __name__ == "__main__":
    sys.exit(main())
