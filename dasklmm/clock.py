"""Seconds of each stage of a scan, what was taken from a former run, and a word to whoever watches."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dasklmm.live import Reporter

logger = logging.getLogger(__name__)


Progress = Callable[[str, int, int], None]


@dataclass
class Clock:
    """Seconds of each stage, what was kept from a former run, and a word to whoever watches."""

    watcher: Progress | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    resumed: dict[str, dict[str, int]] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    live: Reporter | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def tell(self, name: str, done: int, total: int) -> None:
        """Report progress."""
        logger.debug("%s: %d of %d", name, done, total)
        if self.live is not None:
            self.live.tell(name, done, total)
        if self.watcher is not None:
            self.watcher(name, done, total)

    def begin(self, name: str, kept: int, total: int) -> None:
        """Report what was kept from a former run, before the first block of this one."""
        if kept and name not in self.begun:
            self.tell(name, kept, total)
        self.begun.add(name)

    def count(self, name: str, kept: int, computed: int) -> None:
        """Count what was taken from a former run, and what was computed."""
        counts = self.resumed.setdefault(name, {"kept": 0, "computed": 0})
        counts["kept"] += kept
        counts["computed"] += computed
