"""What ends a command from outside: Ctrl-C, and the signals of batch systems and of closed terminals, as one."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: whatever ends in order at Ctrl-C does so at these."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


_CLUSTERS = ("distributed", "distributed.client", "tornado.application")


def hush_clusters() -> None:
    """Let a cluster that ends in the middle of tasks do so in silence: the run's own error is what counts."""
    for name in _CLUSTERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def clusters_heard() -> Iterator[None]:
    """Have clusters be heard again after the block, in which they may be hushed."""
    levels = {name: logging.getLogger(name).level for name in _CLUSTERS}
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def signals_raised() -> Iterator[None]:
    """Raise SIGTERM and SIGHUP as :class:`Terminated`, once: what unwinds is not cut short by the next.

    At these and at Ctrl-C clusters are hushed at once: the signal may have gone to workers too, whose end would be
    told, and what waits within distributed tells of its own interruption.
    """
    before = {}

    def leave(number: int, frame: Any) -> None:
        hush_clusters()
        for one in ended_by:
            signal.signal(one, signal.SIG_IGN)
        raise Terminated(number)

    def interrupt(number: int, frame: Any) -> None:
        hush_clusters()
        signal.default_int_handler(number, frame)

    ended_by = []
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
                before[number] = signal.signal(number, leave)
                ended_by.append(number)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interruption_said(words: str = "interrupted") -> Iterator[None]:
    """End at an interruption with a line and the code that shells give to the signal: 130, 143 or 129."""
    try:
        yield
    except KeyboardInterrupt as error:
        click.echo(words, err=True)
        raise SystemExit(128 + getattr(error, "number", signal.SIGINT)) from None
