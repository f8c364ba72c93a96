"""Running lazy blocks to the end with a word on each that is done, on whatever scheduler is active."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import dask
from dask import threaded
from dask.callbacks import Callback
from dask.delayed import Delayed

from dasklmm import settings
from dasklmm.errors import ClusterError

logger = logging.getLogger(__name__)

OnDone = Callable[[int, int], None]
OnResult = Callable[[int, Any], None]

_PAUSE_SECONDS, _WATCH_SECONDS = 0.2, 2.0
_TOLD_EVERY_SECONDS = 30.0


def active_client() -> Any:
    """The distributed client that Dask would use now, or None; distributed is not imported for it.

    Raises
    ------
    ClusterError
        That client is closed, or has lost its scheduler.
    """
    chosen = dask.config.get("scheduler", None)
    if "distributed" not in sys.modules or chosen not in (None, "distributed", "dask.distributed"):
        return None
    try:
        client = sys.modules["distributed"].get_client()
    except ValueError:
        return None
    _need_connection(client)
    return client


def parallelism() -> int:
    """Threads that run tasks: of the active cluster, or of this machine."""
    client = active_client()
    if client is None:
        return os.cpu_count() or 1
    return sum(client.nthreads().values()) or 1


def workers_there(
    client: Any,
    wanted: int,
    timeout: float,
    tell: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
) -> int:
    """Wait for workers, `timeout` seconds at most, and tell of it; how many there are.

    `check` is called again and again while it waits, and may raise.
    """
    start = told = time.monotonic()
    count, work = -1, None
    try:
        while True:
            check()
            before, count = count, _count(client)
            now = time.monotonic()
            if count >= wanted or now - start > timeout:
                return count
            if count != before or now - told > _TOLD_EVERY_SECONDS:
                tell(f"waiting for workers: {count} of {wanted} after {now - start:.0f} s")
                told = now
            if work is None:
                work = client.submit(
                    int, pure=False
                )  # an adaptive cluster makes no worker before there is work
            time.sleep(_PAUSE_SECONDS)
    finally:
        if work is not None:
            _cancel(client, [work])


def _count(client: Any) -> int:
    try:
        return len(client.nthreads())
    except OSError as error:  # what distributed raises where nobody answers
        raise _lost("its scheduler does not answer") from error


def need_workers(
    client: Any, timeout: float | None = None, tell: Callable[[str], None] = logger.warning
) -> None:
    """Wait until a cluster has a worker, or its tasks would wait for ever and say nothing. Eager.

    `timeout` is in seconds; None is the setting dasklmm.worker-timeout.

    Raises
    ------
    ClusterError
        None comes in time, or the scheduler is gone.
    """
    timeout = settings.worker_timeout() if timeout is None else timeout
    with _cluster_errors(client):
        if workers_there(client, 1, timeout, tell):
            return
    raise _no_workers(client, timeout)


def _no_workers(client: Any, timeout: float) -> ClusterError:
    return ClusterError(
        f"the scheduler at {client.scheduler.address!r} has no workers, and none came in {timeout:g} s. Start "
        "some (dask worker ADDRESS, or cluster.scale), or look into the logs of those that were asked for, and "
        "run the same command again: with a store, what is finished is kept. Where nodes are slow to come, give "
        "them longer: --worker-timeout, or the setting dasklmm.worker-timeout."
    )


@contextmanager
def _workers_watched(
    client: Any, futures: Sequence[Any], end: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Give futures up, in one error, where the cluster has lost all workers and none comes in time.

    Where the scheduler is lost distributed gives them up, but not one whose result was being fetched, of which it
    tells nobody: `end` is called then, which ends the wait.
    """
    from concurrent.futures import CancelledError

    over, given_up = threading.Event(), threading.Event()
    timeout = settings.worker_timeout()

    def watch() -> None:
        absent_since: float | None = None
        told = 0.0
        while not over.wait(min(_WATCH_SECONDS, timeout / 4)):
            if client.status != "running":
                end()
                return
            try:
                there = bool(client.nthreads())
            except Exception:  # noqa: BLE001  (of one question)
                continue
            now = time.monotonic()
            if there or absent_since is None:
                absent_since = None if there else now
                told = now
            elif now - absent_since > timeout and not over.is_set():
                given_up.set()
                _cancel(client, futures)
                return
            elif now - told > _TOLD_EVERY_SECONDS:
                logger.warning("the cluster has no workers: waiting for %.0f s", now - absent_since)
                told = now

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except CancelledError as error:
        if given_up.is_set():
            raise _no_workers(client, timeout) from error
        raise
    finally:
        over.set()


def run_blocks(
    parts: Sequence[Delayed], on_done: OnDone | None = None, on_result: OnResult | None = None
) -> list[Any]:
    """Compute delayed values and return them in order. Eager.

    Parameters
    ----------
    parts : sequence of Delayed
    on_done : callable (done, total), optional
        Called as each finishes, from the thread that runs this function or a worker thread of it.
    on_result : callable (place, value), optional
        Called with each value as it comes, before `on_done`.
    """
    total = len(parts)
    client = active_client()
    if client is not None:
        from distributed import as_completed

        need_workers(client)
        with _cluster_errors(client):
            futures = client.compute(list(parts))
            place = {future.key: i for i, future in enumerate(futures)}
            out: list[Any] = [None] * total
            done = 0
            finished_ones = as_completed(futures, with_results=True, raise_errors=False)
            try:
                _need_connection(client)
                with _workers_watched(client, futures, finished_ones.clear):
                    for done, (future, result) in enumerate(finished_ones, 1):
                        if future.status != "finished":
                            future.result()
                        out[place[future.key]] = result
                        future.release()  # or the results of all blocks would pile up on the workers
                        if on_result is not None:
                            on_result(place[future.key], result)
                        if on_done is not None:
                            on_done(done, total)
                if done < total:
                    raise _lost("its scheduler is gone")
            except (
                BaseException
            ):  # an interruption too: a notebook's traceback keeps the futures, which go on
                _cancel(client, futures)
                raise
            return out
    wanted = {part.key: i for i, part in enumerate(parts)}
    done = 0

    def finished(key: Any, value: Any, *_: Any) -> None:
        nonlocal done
        if key in wanted:
            done += 1
            if on_result is not None:
                on_result(wanted[key], value)
            if on_done is not None:
                on_done(done, total)

    # Dask would import distributed, 0.3 s, to find that there is no client
    scheduler = dask.config.get("scheduler", None) or threaded.get
    with Callback(posttask=finished):
        return list(dask.compute(*parts, traverse=False, scheduler=scheduler))


class Report:
    """Called by a task for each block that it is done with, wherever it runs; small, and pickles to workers.

    Sums are one value of many blocks, of which :func:`run_blocks` hears at their end alone.
    """

    _here: ClassVar[dict[str, Callable[[], None]]] = {}

    def __init__(self) -> None:
        self.topic = f"dasklmm-{uuid.uuid4().hex}"

    def __call__(self) -> None:
        """Say that a block is done."""
        heard = Report._here.get(self.topic)
        if heard is not None:
            heard()
            return
        with suppress(ValueError, ImportError):  # on no worker: the run that asked is over
            from distributed import get_worker

            get_worker().log_event(self.topic, 1)


@contextmanager
def counted(total: int, on_done: OnDone | None) -> Iterator[Report | None]:
    """A report for the tasks of `total` blocks, whose calls are counted and told; None where nobody listens."""
    if on_done is None:
        yield None
        return
    report, lock, done, over = Report(), threading.Lock(), 0, False

    def heard(event: Any = None) -> None:
        nonlocal done
        with lock:
            if (
                not over and done < total - 1
            ):  # the last is told when the values are there; some tasks run twice
                done += 1
                on_done(done, total)

    Report._here[report.topic] = heard
    client = active_client()
    if client is not None:
        client.subscribe_topic(report.topic, heard)
    try:
        yield report
        with lock:
            over = True
        on_done(total, total)
    finally:
        over = True
        del Report._here[report.topic]
        if client is not None:
            from distributed.client import ClosedClientError

            with suppress(ClosedClientError):
                client.unsubscribe_topic(report.topic)


def call(label: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function on a worker of the active cluster, or here where there is none. Eager.

    `label` is the task's name on the dashboard.
    """
    client = active_client()
    if client is None:
        return function(*arguments)
    need_workers(client)
    with _cluster_errors(client):
        key = f"{label}-{uuid.uuid4()}"
        future = client.submit(function, *arguments, pure=False, key=key)
        _need_connection(client)
        with _workers_watched(client, [future]):
            return future.result()


def _need_connection(client: Any) -> None:
    """Refuse a client that is closed or lost its scheduler; asked again once futures are made, before the wait.

    distributed cancels the futures that there are when it finds the scheduler gone, and says so in `status` before
    it does: those that are made later, while it tries to connect again, are never cancelled nor done.
    """
    if client.status != "running":
        raise _lost(f"its client is {client.status}")


def _cancel(client: Any, futures: Sequence[Any]) -> None:
    from distributed.client import ClosedClientError

    with suppress(ClosedClientError):  # it gave up on its scheduler: nothing is left to cancel
        client.cancel(futures)


@contextmanager
def _cluster_errors(client: Any) -> Iterator[None]:
    """Say in one error of this package that the scheduler is gone, or that workers die of a task."""
    from concurrent.futures import CancelledError

    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    try:
        yield
    except KilledWorker as error:
        raise ClusterError(
            f"workers died again and again ({error}). Look into their logs; where memory ran out, give workers "
            "more of it (--worker-memory, memory_limit=) or genotypes in smaller blocks (the setting "
            "dasklmm.block-size, or chunks=). Then run the same command again: with a store, what is finished is "
            "kept. Blocks of another size are another run's: they begin anew, with --overwrite or overwrite=True."
        ) from error
    except (CancelledError, OSError) as error:  # a closed connection is one, and so is a task's own full disk
        if client.status != "running" or "scheduler-connection-lost" in str(error):
            raise _lost("its scheduler is gone") from error
        if isinstance(error, (CancelledError, CommClosedError)):
            raise _lost(type(error).__name__) from error
        raise


def _lost(reason: str) -> ClusterError:
    return ClusterError(
        f"the cluster was lost ({reason}). Start another and run the same command again: with a store, what is "
        "finished is kept."
    )
