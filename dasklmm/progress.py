"""Progress of the stages of a scan, in a terminal or a notebook, with an estimate from what was measured."""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from typing import Any, TextIO

# Reports whose mean time makes an estimate, and what must have been seen before one is given.
_WINDOW = 32
_LEAST_REPORTS = 3
_LEAST_SECONDS = 1.0
_COMPLETE = "complete already: nothing was computed"


@dataclass
class _Stage:
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))

    @property
    def left(self) -> float | None:
        """Seconds that the rest takes at the measured rate, or None while there is none."""
        if self.done >= self.total:
            return 0.0
        if len(self.recent) < _LEAST_REPORTS or sum(self.recent) < _LEAST_SECONDS:
            return None
        return (self.total - self.done) * sum(self.recent) / len(self.recent)


class Stages:
    """What is done of each stage, its own seconds, and an honest estimate of the rest.

    The time since the last report is counted for the stage that reports, as stages may alternate (the null
    model and the tests, where contigs are left out in turn). A report is one finished block: the rate is the mean
    time of the last 32 of this run. What was kept from a former run raises `done`, and cannot flatter the rate.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._last = clock()
        self._first: set[str] = set()
        self.all: dict[str, _Stage] = {}

    def report(self, name: str, done: int, total: int) -> _Stage:
        """Take a report."""
        now = self._clock()
        stage = self.all.setdefault(name, _Stage())
        took, self._last = now - self._last, now
        stage.seconds += took
        stage.done, stage.total = done, total
        # the first one's time holds what came before the stage
        if name in self._first:
            stage.recent.append(took)
        self._first.add(name)
        return stage

    def left(self, name: str) -> str:
        """How much longer a stage takes, in words: unknown until it is known; empty when it is done."""
        stage = self.all[name]
        if stage.done >= stage.total:
            return ""
        seconds = stage.left
        return "time left unknown" if seconds is None else f"about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """Seconds in words, no finer than an estimate is worth: "8 s", "3 min", "1 h 20 min"."""
    if seconds < 59.5:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


class Terminal:
    """Stages as one line that is redrawn on a terminal, or as a line at each start and end elsewhere."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._stages = Stages()
        self._shown: list[str] = []
        self._drawn = 0.0
        self._open = False

    def __call__(self, name: str, done: int, total: int) -> None:
        """Take a report of a stage."""
        new = name not in self._stages.all
        stage = self._stages.report(name, done, total)
        if self._terminal:
            if new and all(s.done >= s.total for s in map(self._stages.all.get, self._shown) if s):
                self.close()
                self._shown = []
            if name not in self._shown:
                self._shown.append(name)
            now = time.perf_counter()
            if new or done >= total or now - self._drawn > 0.1:
                self._draw(name)
                self._drawn = now
            return
        if new and done < total:
            kept = done if done > 1 else 0  # a first report of several blocks tells of a former run's
            said = f"{kept:,} of {total:,} kept" if kept else "started"
            self._write(f"{name}: {said}, {total - kept:,} to do\n")
        if done >= total:
            self._write(f"{name}: {total:,} done in {stage.seconds:.1f} s\n")

    def _draw(self, current: str) -> None:
        parts = []
        for name in self._shown:
            stage = self._stages.all[name]
            bar = left = ""
            if name == current:
                full = 20 * stage.done // max(stage.total, 1)
                bar = f" [{'#' * full}{'-' * (20 - full)}]"
                words = self._stages.left(name)
                left = f" {words}" if words else ""
            parts.append(f"{name}{bar} {stage.done:,}/{stage.total:,}{left}")
        # A line that wraps could not be redrawn.
        line = "   ".join(parts)[: shutil.get_terminal_size().columns - 1]
        self._write(f"\r{line}\x1b[K")
        self._open = True

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def complete(self) -> None:
        """Say so where nothing was left to do."""
        if not self._stages.all:
            self._write(f"{_COMPLETE}\n")

    def close(self) -> None:
        """End the line that is open."""
        if self._open:
            self._write("\n")
        self._open = False


class Notebook:
    """Stages as bars under a notebook's cell; as text where no HTML is shown.

    Parameters
    ----------
    url : str, optional
        The live page, which is linked.
    """

    def __init__(self, url: str | None = None) -> None:
        from IPython.display import display

        self._stages, self._url, self._drawn = Stages(), url, 0.0
        self._state = "not begun"
        self._handle: Any = display(self, display_id=True)

    def __call__(self, name: str, done: int, total: int) -> None:
        """Take a report of a stage."""
        self._stages.report(name, done, total)
        now = time.perf_counter()
        if self._handle is not None and (done >= total or now - self._drawn > 0.25):
            self._handle.update(self)
            self._drawn = now

    def complete(self) -> None:
        """Say so where nothing was left to do."""
        if not self._stages.all:
            self._state = _COMPLETE
            if self._handle is not None:
                self._handle.update(self)

    def __repr__(self) -> str:
        lines = [] if self._url is None else [f"live page: {self._url}"]
        for name, stage in self._stages.all.items():
            end = self._stages.left(name) or f"{stage.seconds:.1f} s"
            lines.append(f"{name}: {stage.done:,} of {stage.total:,}, {end}")
        if not self._stages.all:
            lines.append(self._state)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = []
        for name, stage in self._stages.all.items():
            end = self._stages.left(name) or f"{stage.seconds:.1f} s"
            rows.append(
                f"<tr><td style='text-align:left'>{escape(name)}</td>"
                f"<td><progress value='{stage.done}' max='{max(stage.total, 1)}'></progress></td>"
                f"<td>{stage.done:,} of {stage.total:,}</td><td style='text-align:left'>{end}</td></tr>"
            )
        link = ""
        if self._url is not None:
            link = f"<p><a href='{escape(self._url)}' target='_blank' rel='noopener'>live page of the scan</a></p>"
        return f"{link}<table>{''.join(rows)}</table>" if rows else f"{link}<p>{self._state}</p>"

    def close(self) -> None:
        """Nothing stays open."""


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = sys.modules.get("IPython")
    instance = None if shell is None else shell.get_ipython()
    return getattr(instance, "kernel", None) is not None


def bars(url: str | None = None) -> Terminal | Notebook:
    """Progress for where this runs: a notebook's cell, or the terminal."""
    return Notebook(url) if in_notebook() else Terminal()
