"""What the machine does of the same work with nothing around it: bare loops in plain threads or processes.

Each of `workers` of them has BLAS to itself (one BLAS thread) and works on its own share.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from dasklmm.lazy.blocks import one_blas_thread
from dasklmm.numerics.alternatives import add_rotated
from dasklmm.numerics.genotypes import GRAM_TILE
from dasklmm.numerics.records import AlternativeTest

# Rows of a product: the fastest of 256 to 2,048 that were tried.
ROWS = 2048


def side_by_side(share: Callable[[int], None], workers: int) -> None:
    """Call share(0), … in a thread each, BLAS at one thread."""
    # threadpoolctl alone ignores a limit where another thread of the process set one before
    with one_blas_thread(), ThreadPoolExecutor(workers) as pool:
        list(pool.map(share, range(workers)))


class Readers:
    """Processes that read stored chunks and sum: threads would wait for the interpreter between small tiles.

    Two threads took longer than one where it was measured (0.35 and 0.27 s), which is no limit.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.pool = ProcessPoolExecutor(workers, get_context("spawn"), threadpool_limits, (1, "blas"))
        list(self.pool.map(_started, range(8 * workers)))

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown()

    def __call__(
        self, chunks: Sequence[Path], shape: tuple[int, int], dtype: Any, null: AlternativeTest
    ) -> None:
        """`readinto` of the stored chunks of PA, (variant, eigen) of `shape`, and the kernel's sums over them."""
        w = self.workers
        list(
            self.pool.map(
                read_and_sum, *zip(*((chunks[i::w], shape, dtype, null) for i in range(w)), strict=True)
            )
        )


def _started(_: int) -> None:
    time.sleep(0.02)


def read_and_sum(chunks: Sequence[Path], shape: tuple[int, int], dtype: Any, null: AlternativeTest) -> None:
    """What one of the :class:`Readers` does: each chunk into the same memory, and its sums."""
    held = np.empty(math.prod(shape) * np.dtype(dtype).itemsize, dtype=np.uint8)
    block = held.view(dtype).reshape(shape)
    for path in chunks:
        with open(path, "rb", buffering=0) as file:
            read = 0
            while read < held.size:
                got = file.readinto(memoryview(held)[read:])
                if not got:
                    raise EOFError(f"{path} is shorter than a chunk")
                read += got
        products, squares = np.zeros((shape[0], 1 + null.f)), np.zeros(shape[0])
        add_rotated(null, block, slice(None), products, squares)


def gemm(m: int, n: int, columns: int, dtype: Any, workers: int) -> None:
    """(m, n) @ (n, columns), the rows shared among the threads."""
    right = np.ones((columns, n), dtype=dtype).T

    def share(which: int) -> None:
        left, out = np.ones((ROWS, n), dtype=dtype), np.empty((ROWS, columns), dtype=dtype)
        for rows in _tiles(m, ROWS, which, workers):
            np.matmul(left[:rows], right, out=out[:rows])

    side_by_side(share, workers)


def syrk(m: int, n: int, dtype: Any, workers: int) -> None:
    """Z^T Z of Z (m, n), which NumPy knows for a rank-k update, the rows shared among the threads."""

    def share(which: int) -> None:
        z, out = np.ones((GRAM_TILE, n), dtype=dtype), np.empty((n, n), dtype=dtype)
        for rows in _tiles(m, GRAM_TILE, which, workers):
            part = z[:rows]
            np.matmul(part.T, part, out=out)

    side_by_side(share, workers)


def write(folder: Path, bytes_of: Sequence[int], workers: int) -> None:
    """Write files of these sizes with nothing else."""

    def share(which: int) -> None:
        held = np.ones(max(bytes_of), dtype=np.uint8)
        for i in range(which, len(bytes_of), workers):
            with open(folder / f"{i}", "wb", buffering=0) as file:
                view = memoryview(held)[: bytes_of[i]]
                while view:
                    view = view[file.write(view) :]

    side_by_side(share, workers)


def eigh(k: np.ndarray, workers: int) -> None:
    """`numpy.linalg.eigh`, with as many BLAS threads as there are workers."""
    with threadpool_limits(workers, user_api="blas"):
        np.linalg.eigh(k)


def _tiles(m: int, rows: int, which: int, workers: int) -> list[int]:
    """Rows of each of a thread's tiles."""
    starts = range(0, m, rows)[which::workers]
    return [min(rows, m - start) for start in starts]
