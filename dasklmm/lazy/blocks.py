"""The single wrapper through which every call on a block of variants goes."""

from __future__ import annotations

import functools
import operator
import os
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import threadpoolctl
from dask._task_spec import DataNode, convert_legacy_graph
from dask.delayed import Delayed

from dasklmm.store.arrays import StoredArray

_lock = threading.Lock()
_inside = 0
_limiter: Any = None


@functools.cache
def _controller() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()


def _limited(threads: int) -> Any:
    """Limit of BLAS's threads, set by whichever thread asks; undone by :func:`_restore`."""
    _take_control()
    return _controller().limit(limits=threads, user_api="blas")


def _restore(limiter: Any) -> None:
    _take_control()
    limiter.restore_original_limits()


def _take_control() -> None:
    # since 3.8 threadpoolctl ignores every thread but the first that set a limit, and tasks come on any
    clear = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS at one thread while any task of this process is inside.

    Tasks run side by side, one a core; BLAS threads on top would only compete. The limit is one for the
    whole process, so the first task in sets it and the last one out restores it.
    """
    global _inside, _limiter
    with _lock:
        if _inside == 0:
            _limiter = _limited(1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _restore(_limiter)
                _limiter = None


@contextmanager
def all_blas_threads() -> Iterator[None]:
    """Give BLAS every core, also where a worker's environment holds it at one: for the one large task."""
    limiter = _limited(os.cpu_count() or 1)
    try:
        yield
    finally:
        _restore(limiter)


class _BlockCall:
    """A block function with its BLAS limited and its stored operands read; pickles with the function."""

    def __init__(self, function: Callable[..., np.ndarray]) -> None:
        self.function = function
        self.__name__ = getattr(function, "__name__", "block")

    def __call__(self, *blocks: np.ndarray, **operands: Any) -> np.ndarray:
        loaded = {k: v.load() if isinstance(v, StoredArray) else v for k, v in operands.items()}
        with one_blas_thread():
            return self.function(*blocks, **loaded)


def shared(value: Any, apart: bool = False) -> Any:
    """Operand that every block of a graph reads: one key of the graph, or a handle of a stored array.

    With `apart` the key is another at each call. Lanes that begin with one key would all begin on the worker that
    holds it, and stay there: two workers then took as long as one for a Gram matrix.
    """
    if value is None or isinstance(value, (StoredArray, Delayed, bool, int, float, str)):
        return value
    if isinstance(value, da.Array):
        return value.rechunk(-1).to_delayed().item()
    return dask.delayed(
        value,
        traverse=False,
        name=f"operand-{dask.base.tokenize(value, uuid.uuid4().hex if apart else None)}",
    )


def map_variants(
    function: Callable[..., np.ndarray],
    *arrays: da.Array,
    label: str,
    width: int,
    dtype: Any = np.float64,
    **operands: Any,
) -> da.Array:
    """Map a function over aligned blocks of variants, lazily.

    Parameters
    ----------
    function : callable
        Takes one block (variant, …) of each array and the operands; returns (variant, width).
    arrays : dask.array.Array
        Each (variant, …) in whole rows; the chunks of the first decide.
    label : str
        The stage's name, as the dashboard shows it.
    width : int
        Columns of the result.
    operands : dict
        Passed to every call; see :func:`shared`.

    Returns
    -------
    dask.array.Array (variant, width)
    """
    rows = arrays[0].chunks[0]
    aligned = [a if a.chunks[0] == rows else a.rechunk({0: rows}) for a in arrays]
    return da.map_blocks(
        _BlockCall(function),
        *aligned,
        dtype=dtype,
        chunks=(rows, (width,)),
        meta=np.empty((0, 0), dtype=dtype),
        token=label,
        **{k: shared(v) for k, v in operands.items()},
    )


def joined(array: da.Array, count: int) -> da.Array:
    """The same rows in blocks of `count` of those that are there."""
    rows = array.chunks[0]
    together = tuple(sum(rows[i : i + count]) for i in range(0, len(rows), count))
    return array.rechunk({0: together}, method="tasks")


class _Reading:
    """Tasks that lead to a block, run inside another; what they need from outside comes as values."""

    def __init__(self, tasks: list[tuple[Any, Any]], inputs: list[Any]) -> None:
        self.tasks, self.inputs = tasks, inputs

    def __call__(self, values: Sequence[Any]) -> Any:
        known = dict(zip(self.inputs, values, strict=True))
        out = known.get(self.inputs[0]) if self.inputs else None
        for key, task in self.tasks:
            out = known[key] = task(known)
        return out


@dataclass(frozen=True, eq=False)
class Block:
    """A block of an array, not yet read, and the keys of the graph that its reading needs."""

    reading: _Reading
    inputs: list[Delayed]


class _Inside:
    """A call whose first argument is read within it."""

    def __init__(self, call: Callable[..., Any], label: str) -> None:
        self.call, self.__name__ = call, label

    def __call__(self, reading: _Reading, inputs: Sequence[Any], *rest: Any) -> Any:
        return self.call(reading(inputs), *rest)


def delayed_call(function: Callable[..., Any], label: str) -> Callable[..., Delayed]:
    """Delayed form of a function with its BLAS limited, named for the dashboard.

    A `Block` as the first argument is read in the same task. Were it a task of its own, workers would read
    blocks ahead of the sums that wait for them, and hold more than any budget knows.
    """
    call = _BlockCall(function)
    call.__name__ = label
    plain, inside = dask.delayed(call, pure=False), dask.delayed(_Inside(call, label), pure=False)

    def made(first: Any, *rest: Any) -> Delayed:
        if isinstance(first, Block):
            return inside(first.reading, first.inputs, *rest)
        return plain(first, *rest)

    return made


def delayed_blocks(array: da.Array) -> list[Block]:
    """Blocks of an array in order, to be read within the calls they are given to.

    A reading takes in every task that serves its block alone: slices and concatenations too, which Dask leaves
    as tasks or aliases of their own. Tasks that several blocks share, and data, stay in the graph.
    """
    (fused,) = dask.optimize(array)
    graph, layer = fused.__dask_graph__(), fused.__dask_layers__()[0]
    low = convert_legacy_graph(graph.to_dict())
    used = Counter(key for task in low.values() for key in task.dependencies)
    found = []
    for block_key in dask.core.flatten(fused.__dask_keys__()):
        tasks: list[tuple[Any, Any]] = []
        inputs: list[Any] = []

        def visit(key: Any, tasks: list[tuple[Any, Any]] = tasks, inputs: list[Any] = inputs) -> None:
            for other in sorted(low[key].dependencies, key=str):
                if used[other] == 1 and other in low and not isinstance(low[other], DataNode):
                    visit(other)
                elif other not in inputs:
                    inputs.append(other)
            tasks.append((key, low[key]))

        # blocks that are there already, as those of a persisted array, are inputs of an empty reading
        if block_key in low and low[block_key].dependencies != {block_key}:
            visit(block_key)
        else:
            inputs.append(block_key)
        delayed = [Delayed(key, graph, layer=layer) for key in inputs]
        found.append(Block(_Reading(tasks, inputs), delayed))
    return found


# A sum carries a layer of graph for each block before it, which each further block copies: 12 s for 8,000.
_FLATTEN_EVERY = 64


def lanes(
    parts: Sequence[Block], count: int, add: Callable[[Block, Delayed | None], Delayed]
) -> list[Delayed]:
    """Sums of blocks, one after the other in at most `count` lanes; `add` takes a block and the sum before it.

    There are never more sums about than lanes, however many blocks.
    """
    size = -(-len(parts) // min(count, len(parts)))
    sums = []
    for start in range(0, len(parts), size):
        total: Delayed | None = None
        for place, part in enumerate(parts[start : start + size]):
            total = add(part, total)
            if place % _FLATTEN_EVERY == _FLATTEN_EVERY - 1:
                total = Delayed(total.key, total.__dask_graph__().to_dict())
        assert total is not None  # size is 1 or more
        sums.append(total)
    return sums


def tree_sum(
    parts: Sequence[Delayed], label: str, fan_in: int = 4, add: Callable[[Any, Any], Any] = operator.add
) -> Delayed:
    """Sum delayed values pairwise in a tree of fixed shape, so that rounding does not depend on timing."""
    if not parts:
        raise ValueError("tree_sum needs at least one part")
    level = list(parts)
    while len(level) > 1:
        groups = [level[i : i + fan_in] for i in range(0, len(level), fan_in)]
        level = [delayed_call(_add, label)(group, add) for group in groups]
    return level[0]


def _add(parts: Sequence[Any], add: Callable[[Any, Any], Any]) -> Any:
    return functools.reduce(add, parts)
