"""Names the error that ends an actor: which actor, in which line of its file, and why. It must not know the actors."""

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from traceback import walk_tb
from typing import Any

from hello.channel import Unsupported

log = logging.getLogger(__name__)


class ActorFailed(Exception):
    """An actor raised an error, or returned. The text of the error has its name, the line in its file, and why."""


@contextmanager
def failures_raised(name: str, actor: Callable[..., Any]) -> Iterator[None]:
    """Raise ActorFailed in place of each error, and log it: it ends the process only after the drain.

    Unsupported is raised as it is: no actor is at fault where the server of the channel is too old.
    """
    try:
        yield
    except Unsupported:
        raise
    except (Exception, SystemExit) as error:
        failed = ActorFailed(f"{name} failed at {_failed_line(actor, error)}: {describe(error)}")
        log.error("%s", failed)
        raise failed from error


def describe(error: BaseException) -> str:
    """Return the type and the text of an error, or of each error in a group of groups."""
    return "; ".join(f"{type(each).__name__}: {each}" for each in _flatten(error))


def _failed_line(actor: Callable[..., Any], error: BaseException) -> str:
    """Return the innermost line of the actor's own file that raised the error, or else the first line of the actor."""
    code = inspect.unwrap(actor.func if isinstance(actor, partial) else actor).__code__
    number = code.co_firstlineno
    for each in (error, *_flatten(error)):
        for frame, line in walk_tb(each.__traceback__):
            if frame.f_code.co_filename == code.co_filename:
                number = line
    return f"{code.co_filename}:{number}"


def _flatten(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [each for inner in error.exceptions for each in _flatten(inner)]
    return [error]
