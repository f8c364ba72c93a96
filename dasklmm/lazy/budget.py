"""How much a task may hold: block sizes from shapes and dtypes, and refusals before anything runs."""

from __future__ import annotations

import os

import psutil

from dasklmm.errors import MemoryBudgetError
from dasklmm.numerics.scan import TILE_VARIANTS

# Bytes a task reads. Larger blocks amortise Dask's millisecond a task, smaller ones balance the load.
TASK_BYTES = 64 * 1024**2

# Fewer blocks than this leave cores idle at the end of a stage.
BLOCKS_AT_LEAST = 16


def rows_per_task(row_bytes: int, multiple: int, rows: int, target: int = TASK_BYTES) -> int:
    """Rows of a block: at most about `target` bytes, a whole number of stored chunks, some 16 blocks or more.

    Parameters
    ----------
    row_bytes : int
        Bytes of one row as it is worked on.
    multiple : int
        Rows of a stored chunk; a block that cuts chunks would read them twice.
    rows : int
        Rows in all.
    """
    multiple = max(1, multiple)
    by_memory = max(1, target // max(1, row_bytes)) // multiple * multiple
    share = -(-rows // BLOCKS_AT_LEAST)
    unit = multiple * -(-TILE_VARIANTS // multiple)
    by_balance = -(-share // unit) * unit
    return max(1, min(max(by_memory, multiple), by_balance, rows))


def available_memory() -> int:
    """Bytes this process can still take: what is free, within the control group's limit if it has one."""
    free = int(psutil.virtual_memory().available)
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if os.path.exists(path):
            with open(path, encoding="ascii") as file:
                text = file.read().strip()
            if text.isdigit():
                free = min(free, int(text))
    return free


def check_eigendecomposition(n: int) -> None:
    """Refuse a decomposition of n samples that does not fit: K, its copy, the vectors and the workspace.

    Raises
    ------
    MemoryBudgetError
        With what is needed and what there is.
    """
    needed, free = 4 * 8 * n * n, available_memory()
    if needed > free:
        raise MemoryBudgetError(
            f"an eigendecomposition of {n:,} samples needs about {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB "
            "are free. Use a machine with more memory, or fewer samples."
        )
