"""A local cluster whose workers have the environment that this work needs."""

from __future__ import annotations

import copy
import logging
import multiprocessing
import multiprocessing.resource_tracker
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import dask

from dasklmm import errors, heap
from dasklmm.errors import ClusterError, OptionError

if TYPE_CHECKING:
    from distributed import LocalCluster

logger = logging.getLogger(__name__)

# Read by each worker process before it starts. BLAS keeps to one thread, as tasks fill the cores. Dask's own
# default trims the heap at 64 KB: twice the time of the test stage where it was measured.
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    **heap.ENVIRONMENT,
}

# Blocks are small beside a worker and never come back, so spilling them only hides a wrong budget. A worker
# that pauses waits for memory that nobody else will free: the run would stand still for ever. At 95 % of its
# limit it is restarted, and a task that does so again and again ends the run with an error.
WORKER_CONFIGURATION = {
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    # each cycle of the profiler leaves a tree of 50 KB (measured), of which Dask keeps 3,600: at its 1 s they
    # would be 170 MB after an hour
    "distributed.worker.profile.cycle": "60s",
    "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT,
    "distributed.worker.preload": ["dasklmm.cluster"],
}

_GUARD = (
    "Each worker process imports the script that starts it: put the call of local_cluster under `if __name__ == "
    '"__main__":`.'
)


def dask_setup(worker: Any) -> None:
    """Called by each worker process as it starts (Dask's preload).

    The scheduler lives in the process that started the workers: a heartbeat fails when both end, and no other
    way. distributed logs that with a traceback, which a user would take for an error of the run.

    So it does with an error of a task, which reaches the process that asked for it, and is said there; and with
    tasks that are cancelled when one has failed.
    """
    if multiprocessing.parent_process() is not None and hasattr(os, "fork"):
        # Blosc makes a lock. One of the way in which Dask starts workers has a name, which a worker that is killed
        # leaves behind, and Python would warn of leaked semaphores after a run that went well. Workers start none.
        multiprocessing.set_start_method("fork", force=True)
    logging.getLogger("distributed.worker").addFilter(_is_news)
    logging.getLogger("distributed.worker.state_machine").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    said = record.getMessage()
    if "Failed to communicate with scheduler during heartbeat" in said or "ended with CancelledError" in said:
        return False
    failed = re.search(r"^Exception: ['\"](\w+)\(", said, re.MULTILINE)
    return failed is None or not hasattr(errors, failed[1])


@contextmanager
def _interruptions_held() -> Iterator[None]:
    """Keep Ctrl-C, and signals that raise as it does, from a cluster that starts: it would be left half made.

    They are raised at the end. A terminal or notebook sends Ctrl-C to the worker processes too. They inherit that
    it is blocked, also those that are started anew later: it is for this process, which ends them or goes on with
    them, and a worker that died of it would leave its traceback and lose its blocks.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    multiprocessing.resource_tracker.ensure_running()  # whose start, by the first worker, would unblock it
    held: list[int] = []
    raising = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if callable(signal.getsignal(n))]
    before = {n: signal.signal(n, lambda number, frame: held.append(number)) for n in raising}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:  # also where the start failed, as it does when the signal reaches the workers
            signal.raise_signal(held[0])


def _check_memory(limit: str | float, n_workers: int) -> None:
    """Refuse a limit that is no size, or that a worker would pass before it has any data."""
    from distributed.worker_memory import parse_memory_limit

    from dasklmm.lazy.budget import BASE_BYTES

    try:
        size = parse_memory_limit(limit, 1, n_workers, logger=logging.Logger("", logging.CRITICAL))
    except (ValueError, TypeError, OverflowError):
        size = -1
    if size is not None and size < BASE_BYTES:
        given = f"{limit!r}" if size < 0 or limit != "auto" else f"a share of {size / 1e6:,.0f} MB"
        raise OptionError(
            f"the memory of each of {n_workers} workers is {given}. Give a size such as 4GB (--worker-memory, "
            f"memory_limit=) of {BASE_BYTES / 1e6:,.0f} MB or more, which the libraries take, or fewer workers."
        )


def local_cluster(
    n_workers: int | None = None, memory_limit: str | int | None = None, **options: Any
) -> LocalCluster:
    """Start a cluster of worker processes on this machine. Eager.

    Parameters
    ----------
    n_workers : int, optional
        Worker processes, one thread each. Default: the number of cores; of more than twice as many it is warned.
    memory_limit : str or int, optional
        Memory of each worker, such as "4GB". Default: an equal share of the machine's.
    **options
        Passed to `distributed.LocalCluster`.

    Returns
    -------
    distributed.LocalCluster
        Listening on the loopback address; close it, or use it in a `with` statement. Its dashboard, if
        bokeh is installed, is at `cluster.dashboard_link`.

    Raises
    ------
    OptionError
        `n_workers` is below 1; `memory_limit` is no size, or less than the libraries of a worker take.
    ClusterError
        The worker processes do not start; as when a script calls this outside ``if __name__ == "__main__":``,
        since each worker process imports the script first.

    Examples
    --------
    >>> import dasklmm
    >>> with dasklmm.local_cluster(n_workers=2) as cluster, cluster.get_client():
    ...     pass
    """
    if n_workers is not None and n_workers < 1:
        raise OptionError(f"n_workers is {n_workers}; it needs to be 1 or more, or None for one a core.")
    cores = os.cpu_count() or 1
    n_workers = cores if n_workers is None else n_workers
    # Set by multiprocessing while a new process imports the script that started it.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ClusterError(f"a worker process came to local_cluster while it imported the script. {_GUARD}")
    memory_limit = "auto" if memory_limit is None else memory_limit
    if n_workers > 2 * cores:
        logger.warning(
            "%d worker processes for %d cores: more than one a core are no faster, and share the memory.",
            n_workers,
            cores,
        )
    if options.get("processes", True):
        _check_memory(memory_limit, n_workers)
    from distributed import LocalCluster

    defaults: dict[str, Any] = {
        "n_workers": n_workers,
        "threads_per_worker": 1,
        "processes": True,
        "memory_limit": memory_limit,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
    }
    options = {**defaults, **options}
    with ExitStack() as undone, dask.config.set(WORKER_CONFIGURATION):
        if options["processes"]:
            # A nanny shares the nested configuration with this process, where it ends with this block: a
            # worker that it starts anew would have lost it.
            options.setdefault("config", copy.deepcopy(dask.config.config))
        try:
            with _interruptions_held():
                cluster = undone.enter_context(LocalCluster(**options))
        except RuntimeError as error:
            raise ClusterError(f"the cluster did not start ({error}). {_GUARD}") from error
        undone.pop_all()
        return cluster
