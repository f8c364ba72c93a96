"""Results of a running scan, thinned on their way to a page on the Dask scheduler's own server."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd

from dasklmm import settings
from dasklmm.numerics.genome import layout
from dasklmm.numerics.thinning import CELLS, Thinned
from dasklmm.progress import Stages

logger = logging.getLogger(__name__)

# Phenotypes whose points are shown, each at most 20,000.
MOST_PHENOTYPES = 4
_SECONDS_BETWEEN = 0.5
_PAGE = "dasklmm"


class Reporter:
    """Takes finished blocks from the scan and tells the scheduler, from a thread of its own.

    The scan only appends to a queue. Whatever goes wrong here ends the page, never the scan.

    Parameters
    ----------
    client : distributed.Client
    names : sequence of str
        Phenotypes.
    contig, position, variant_id : ndarray (variant) or None
    """

    def __init__(
        self,
        client: Any,
        names: Sequence[str],
        contig: np.ndarray,
        position: np.ndarray,
        variant_id: np.ndarray | None,
    ) -> None:
        self._client, self._names = client, list(names)
        self._contig, self._position, self._variant_id = contig, position, variant_id
        self._stages: dict[str, tuple[int, int]] = {}
        self._timed = Stages()
        self._blocks: deque[tuple[np.ndarray, dict[str, np.ndarray]]] = deque()
        self._over = threading.Event()
        self._run = uuid.uuid4().hex
        self._state = "running"
        self._thread = threading.Thread(target=self._work, name="dasklmm-live", daemon=True)
        self._thread.start()

    def tell(self, stage: str, done: int, total: int) -> None:
        """Progress of a stage."""
        self._timed.report(stage, done, total)
        self._stages[stage] = (done, total)

    def add(self, rows: np.ndarray, values: dict[str, np.ndarray]) -> None:
        """A finished block: rows of its variants, and -log10 p (variant) of each phenotype."""
        if self._thread.is_alive():
            shown = self._names[:MOST_PHENOTYPES]
            # copies, so that a queue that waits does not hold whole blocks
            self._blocks.append((rows, {k: np.array(v) for k, v in values.items() if k in shown}))

    def close(self, state: str) -> None:
        """Send what is left, and say how the run ended; waits for a few seconds at most."""
        self._state = state
        self._over.set()
        self._thread.join(timeout=5)

    def _work(self) -> None:
        try:
            self._send({"begin": {"phenotypes": self._names, "shown": self._names[:MOST_PHENOTYPES]}})
            self._lay_out()
            thinned = {name: Thinned() for name in self._names[:MOST_PHENOTYPES]}
            over = False
            while not over:
                over = self._over.wait(_SECONDS_BETWEEN)
                self._take(thinned)
                stages = dict(self._stages)
                left = {name: "" if over else self._timed.left(name) for name in stages}
                self._send({"stages": stages, "left": left, "points": self._points(thinned)})
            self._send({"end": self._state})
        except Exception as error:  # noqa: BLE001  (a page is never worth a scan)
            logger.info("the live page of this scan ended: %s: %s", type(error).__name__, error)
            self._blocks.clear()

    def _lay_out(self) -> None:
        code, names = pd.factorize(self._contig)
        x, ordered, centers, place, _ = layout(np.asarray(names, dtype=str)[code], self._position)
        width = max(float(x.max()) if x.size else 1.0, 1e-9)
        self._x, self._place = (x / width).astype(np.float32), place.astype(np.int32)
        contigs = [[name, center / width] for name, center in zip(ordered, centers, strict=True)]
        self._send({"contigs": contigs})

    def _take(self, thinned: dict[str, Thinned]) -> None:
        while self._blocks:
            rows, values = self._blocks.popleft()
            for name, y in values.items():
                thinned[name].add(rows, self._x[rows], y)

    def _points(self, thinned: dict[str, Thinned]) -> dict[str, dict[str, Any]]:
        out = {}
        for name, points in thinned.items():
            cell = points.take_changed()
            if not cell.size:
                continue
            rows, top = points.row[cell], int(np.nanargmax(points.y))
            row = points.row[top]
            out[name] = {
                "cell": cell,
                "x": self._x[rows],
                "y": points.y[cell],
                "contig": self._place[rows],
                "position": self._position[rows],
                "lambda_gc": points.lambda_gc,
                "tested": points.n,
                "top": {
                    "id": "" if self._variant_id is None else str(self._variant_id[row]),
                    "contig": str(self._contig[row]),
                    "position": int(self._position[row]),
                    "y": float(points.y[top]),
                },
            }
        return out

    def _send(self, message: dict[str, Any]) -> None:
        self._client.run_on_scheduler(receive, {"run": self._run, **message})


@contextmanager
def reporting(
    client: Any,
    names: Sequence[str],
    contig: np.ndarray,
    position: np.ndarray,
    variant_id: np.ndarray | None,
) -> Iterator[Reporter | None]:
    """A reporter of this run, where there is a cluster with a page; None elsewhere."""
    if client is None or page_url(client) is None:
        yield None
        return
    reporter = Reporter(client, names, contig, position, variant_id)
    try:
        yield reporter
    except BaseException:
        reporter.close("stopped")
        raise
    reporter.close("complete")


def page_url(client: Any) -> str | None:
    """URL of the page on a cluster's scheduler, which it adds if it is not there; None where it has none.

    There is none where the scheduler has no dashboard (bokeh is not installed there), does not know this
    package, or takes no functions, or where ``dask.config`` holds ``dasklmm.live-page: False``.

    Parameters
    ----------
    client : distributed.Client

    Returns
    -------
    str or None
    """
    if not settings.live_page():
        return None
    try:
        if not client.run_on_scheduler(install):
            return None
        link = client.dashboard_link
    except Exception as error:  # noqa: BLE001  (whatever a foreign scheduler answers, a scan goes on)
        logger.info("no live page: %s: %s", type(error).__name__, error)
        return None
    return None if not link else link.rsplit("/status", 1)[0].rstrip("/") + f"/{_PAGE}"


# on the scheduler --------------------------------------------------------------------------------


class Shown:
    """What the page shows: the newest run, with bounded points of each phenotype."""

    def __init__(self) -> None:
        self.run = ""
        self.version = 0
        self.begun = self.ended = 0.0
        self.state = "waiting"
        self.phenotypes: list[str] = []
        self.contigs: list[list[Any]] = []
        self.stages: dict[str, tuple[int, int]] = {}
        self.left: dict[str, str] = {}
        self.points: dict[str, dict[str, Any]] = {}

    def take(self, message: dict[str, Any]) -> None:
        """Fold in a message of a run; those of any run but the newest are dropped."""
        if "begin" in message:
            version = self.version
            self.__init__()  # type: ignore[misc]
            self.version, self.run, self.begun, self.state = version, message["run"], time.time(), "running"
            self.phenotypes = message["begin"]["phenotypes"]
            for name in message["begin"]["shown"]:
                self.points[name] = {
                    "x": np.zeros(CELLS, dtype=np.float32),
                    "y": np.full(CELLS, np.nan, dtype=np.float32),
                    "contig": np.zeros(CELLS, dtype=np.int32),
                    "position": np.zeros(CELLS, dtype=np.int64),
                }
        if message["run"] != self.run:
            return
        self.version += 1
        self.contigs = message.get("contigs", self.contigs)
        self.stages.update(message.get("stages", {}))
        self.left.update(message.get("left", {}))
        for name, new in message.get("points", {}).items():
            for part in ("x", "y", "contig", "position"):
                self.points[name][part][new["cell"]] = new[part]
            self.points[name].update({k: new[k] for k in ("lambda_gc", "tested", "top")})
        if "end" in message:
            self.state, self.ended = message["end"], time.time()


def install(dask_scheduler: Any) -> bool:
    """Add the page to a scheduler's dashboard, once; False where it has none."""
    if _PAGE in dask_scheduler.extensions:
        return True
    try:
        from dasklmm import livepage
    except ImportError:
        return False
    shown = Shown()
    if not livepage.connect(dask_scheduler, f"/{_PAGE}", shown):
        return False
    dask_scheduler.extensions[_PAGE] = shown
    return True


def receive(message: dict[str, Any], dask_scheduler: Any) -> None:
    """Take a message of a running scan."""
    if _PAGE in dask_scheduler.extensions:
        dask_scheduler.extensions[_PAGE].take(message)
