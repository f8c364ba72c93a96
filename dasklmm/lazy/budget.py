"""How much a task may hold: block sizes from shapes and dtypes, and refusals before anything runs."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import psutil

from dasklmm import settings
from dasklmm.errors import MemoryBudgetError
from dasklmm.lazy import run
from dasklmm.numerics.alternatives import TILE_BYTES
from dasklmm.numerics.genotypes import GRAM_TILE, MOST_IN_GRAM_TILE
from dasklmm.numerics.refit import TILE_EIGEN, tile_rows
from dasklmm.numerics.scan import TILE_VARIANTS, product_rows
from dasklmm.numerics.spectrum import in_numpy
from dasklmm.numerics.subspace import BASIS_BLOCKS

# A worker before any data: 200 MB with the libraries loaded, and up to 120 MB of holes that blocks which came
# and went leave in its heap (measured over 1,000 blocks; 60 MB on a slower machine).
BASE_BYTES = 320 * 10**6

# P that does not fit is read in pieces of this size.
STREAM_BYTES = 32 * 1024**2

# Variants of a block at most, whatever the memory.
MOST_ROWS = 1 << 20

# Fewer blocks than this leave cores idle at the end of a stage.
BLOCKS_AT_LEAST = 16


def rows_per_task(row_bytes: int, multiple: int, rows: int) -> int:
    """Rows of a block: at most about the setting's bytes, a whole number of stored chunks, some 16 blocks or more.

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
    by_memory = max(1, settings.block_size() // max(1, row_bytes)) // multiple * multiple
    share = -(-rows // BLOCKS_AT_LEAST)
    unit = multiple * -(-TILE_VARIANTS // multiple)
    by_balance = -(-share // unit) * unit
    return max(1, min(max(by_memory, multiple), by_balance, rows))


def available_memory() -> int:
    """Bytes this process can still take: what is free, within its control group's and its worker's limit."""
    free = int(psutil.virtual_memory().available)
    for folder, limit, usage, cache in _CONTROL_GROUPS:
        most = _number_in(f"{folder}/{limit}")
        if most is not None:
            used = _number_in(f"{folder}/{usage}") or 0
            # files that were read count as used, and are given up when memory is asked for
            free = min(free, most - max(0, used - (_number_in(f"{folder}/memory.stat", cache) or 0)))
    limit = _worker_limit()
    if limit is not None:
        free = min(free, limit - int(psutil.Process().memory_info().rss))
    return max(free, 0)


def _worker_limit() -> int | None:
    """Memory limit of the worker whose task this is; None on no worker, or one without a limit."""
    if "distributed" not in sys.modules:
        return None
    try:
        return sys.modules["distributed"].get_worker().memory_manager.memory_limit
    except ValueError:
        return None


# Folder of a control group, of version 2 and 1, and the names of its limit, its usage and its cached files.
_CONTROL_GROUPS = [
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
]


def _number_in(path: str, label: str = "") -> int | None:
    """The number that a file of the kernel holds, or that stands behind a label in it."""
    with suppress(OSError), open(path, encoding="ascii") as file:
        for line in file:
            name, _, number = line.strip().rpartition(" ")
            if name == label and number.isdigit():
                return int(number)
    return None


@dataclass(frozen=True)
class Room:
    """Memory of the processes that run blocks.

    Attributes
    ----------
    limit : int
        Bytes of the smallest process, with all that it holds.
    threads : int
        Tasks that it runs side by side.
    """

    limit: int
    threads: int

    @property
    def free(self) -> int:
        """Bytes for the tasks: what is left of the usable share beside the libraries."""
        return int(self.limit * settings.usable_memory()) - BASE_BYTES

    def beside(self, held: int) -> Room:
        """What is left where a process holds so many bytes all along."""
        return replace(self, limit=self.limit - int(held / settings.usable_memory()))

    @classmethod
    def of(cls, client: Any) -> Room:
        """Room of the workers of a client's cluster (waiting for one), or of this process where there is none."""
        if client is None:
            # what this process holds beside the libraries is the caller's, and stays
            return cls(available_memory() + BASE_BYTES, os.cpu_count() or 1)
        # between the death of all workers and their restart there is none, and this machine's memory is not theirs
        while not (workers := client.scheduler_info(n_workers=-1)["workers"].values()):
            run.need_workers(client)
        limits = [int(w["memory_limit"]) for w in workers if w["memory_limit"]]
        threads = max((int(w["nthreads"]) for w in workers), default=1)
        return cls(min(limits, default=available_memory()), threads)


def return_free_memory() -> None:
    """Give back to the system what this process has freed, between stages of different shapes.

    The C library keeps it otherwise, and large matrices do not fit the holes that small blocks left
    (measured: 90 MB of a worker of 500 MB). Does nothing where the library has no such call.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


@dataclass(frozen=True)
class Shape:
    """What decides the memory of a scan.

    Attributes
    ----------
    file_samples, samples : int
        In the genotypes, and analysed.
    eigen, covariates : int
    genotype_bytes, working_bytes : int
        Of one genotype as it is read, and of one number of a product (4 or 8).
    phenotypes, groups : int
        Tested in one pass, and their groups of the same samples.
    nodes : int
        Values of the variance ratio at which a refit sums inner products; 0 without one.
    columns : int
        Vectors that leading pairs are found with; 0 where they are not.
    decomposed : bool
        Whether kinships of the samples are decomposed where the tasks run.
    """

    file_samples: int
    samples: int
    eigen: int
    covariates: int
    genotype_bytes: int
    working_bytes: int
    phenotypes: int = 1
    groups: int = 1
    nodes: int = 0
    columns: int = 0
    decomposed: bool = False

    @property
    def p_bytes(self) -> int:
        """Bytes of P of all groups, and of the null models' weights."""
        columns = self.covariates + 3 + self.nodes * (self.covariates + 2)
        weights = self.phenotypes * columns * self.eigen * 8
        return self.groups * self.eigen * self.samples * self.working_bytes + weights

    def scan_bytes(self, rows: int) -> int:
        """Bytes of one task that rotates and tests `rows` variants, beside P.

        The block, its analysed columns, a tile converted and rotated (with the product's own copy), one of a
        refit with its sums, and the float64 numbers of each variant.
        """
        block = rows * (self.file_samples + self.samples) * self.genotype_bytes
        together = min(rows, product_rows(self.samples, self.working_bytes))
        tile = together * (3 * self.samples + 2 * self.eigen) * self.working_bytes
        numbers = self.phenotypes * (self.covariates + 14 + self.nodes * (self.covariates + 2))
        numbers += self.covariates + 12
        if self.nodes:
            wide = self.samples if self.eigen < self.samples else min(self.eigen, TILE_EIGEN)
            tile += 8 * tile_rows(self.samples) * (wide + 2 * (self.covariates + 2) * self.nodes)
        return block + tile + TILE_BYTES + rows * 8 * numbers

    def kinship_bytes(self, rows: int) -> int:
        """Bytes of one task that adds `rows` variants to a Gram matrix.

        The block, a standardised tile with its selection, its product, the sums before and after, and one
        that waits for the end.
        """
        tile = min(rows, MOST_IN_GRAM_TILE) * self.samples * (3 * self.working_bytes + self.genotype_bytes)
        return rows * self.file_samples * self.genotype_bytes + tile + self._matrices_bytes

    @property
    def _matrices_bytes(self) -> int:
        return (3 * 8 + self.working_bytes) * self.samples**2

    def groups_per_read(self, room: Room, rows: int) -> int:
        """Groups whose Gram matrices a task can add to, so that a block is read once for all of them."""
        free = room.free // room.threads - self.kinship_bytes(rows)
        return max(1, min(self.groups, 1 + free // self._matrices_bytes))

    def product_bytes(self, rows: int) -> int:
        """Bytes of one task that adds `rows` variants to the product of a kinship with some vectors.

        The block, a standardised tile with its selection; the vectors, their product, the sums before and
        after, and one that waits for the end.
        """
        tile = min(rows, GRAM_TILE) * self.samples * (3 * self.working_bytes + self.genotype_bytes)
        return rows * self.file_samples * self.genotype_bytes + tile + 5 * 8 * self.samples * self.columns

    def kinship_rows(self, room: Room) -> int:
        """Variants of a task that adds to a Gram matrix, and that the processes have room for.

        Raises
        ------
        MemoryBudgetError
            Not even a single tile fits; with what is needed and what there is.
        """
        rows = TILE_VARIANTS
        needed = room.threads * self.kinship_bytes(rows)
        if needed > room.free:
            least = (needed + BASE_BYTES) / settings.usable_memory() / 1e6 + 1
            raise MemoryBudgetError(
                f"a kinship of {self.samples:,} samples needs {needed / 1e6:,.0f} MB, and a process of "
                f"{room.limit / 1e6:,.0f} MB has {max(room.free, 0) / 1e6:,.0f} MB for its {room.threads} tasks. "
                f"Give each {least:,.0f} MB or more (--workers with --worker-memory; memory_limit= of "
                "local_cluster), or fewer threads, or find the leading pairs alone: dasklmm kinship --rank R, "
                "eigendecompose(genotypes, rank=R)."
            )
        while room.threads * self.kinship_bytes(2 * rows) <= room.free and 2 * rows <= MOST_ROWS:
            rows *= 2
        return rows

    def fitting_rows(self, room: Room, kinship: bool) -> tuple[int, bool]:
        """Variants of a task that the processes have room for, and whether P is streamed.

        Raises
        ------
        MemoryBudgetError
            Not even a single tile fits; with what is needed and what there is.
        """
        free = room.free
        pieces = 2 * STREAM_BYTES * room.threads
        streamed = self.p_bytes > max(free // 2, pieces)  # less than its pieces is kept whole

        decomposition = rotation_bytes(self.samples) if self.decomposed else 0

        def needed(rows: int, streamed: bool = streamed) -> int:
            held = pieces if streamed else self.p_bytes
            scan = held + room.threads * self.scan_bytes(rows)
            before = self.kinship_bytes(rows) if kinship else 0
            if self.columns:
                before = self.product_bytes(rows)
            return max(scan, room.threads * before, decomposition)

        rows = TILE_VARIANTS
        if needed(rows) > free:
            enough = needed(rows, True)
            if self.p_bytes <= pieces:
                enough = needed(rows, False)
            elif self.p_bytes <= enough // 2:
                enough = max(needed(rows, False), 2 * self.p_bytes)
            usable = settings.usable_memory()
            least = (enough + BASE_BYTES) / usable / 1e6 + 1
            task = "an eigendecomposition" if needed(rows) == decomposition else f"a task of {rows} variants"
            raise MemoryBudgetError(
                f"{task} needs {needed(rows) / 1e6:,.0f} MB for {self.samples:,} samples and "
                f"{self.eigen:,} eigenvectors. A process of {room.limit / 1e6:,.0f} MB has "
                f"{max(free, 0) / 1e6:,.0f} MB for its {room.threads} tasks: {1 - usable:.0%} are kept free, and "
                f"{BASE_BYTES / 1e6:,.0f} MB its libraries'. Give each {least:,.0f} MB or more (--workers with "
                "--worker-memory; memory_limit= of local_cluster), or fewer threads"
                + (
                    ", or find the leading pairs alone: --rank R --truncated, rank= with truncated=True."
                    if kinship
                    else "."
                )
            )
        while needed(2 * rows) <= free and 2 * rows <= MOST_ROWS:
            rows *= 2
        return rows, streamed


def _check_free(needed: int, what: str, remedy: str) -> None:
    free = available_memory()
    if needed > free:
        raise MemoryBudgetError(
            f"{what}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free. {remedy}"
        )


def check_results(variants: int, phenotypes: int, columns: int) -> None:
    """Refuse results that this process has no room for.

    Raises
    ------
    MemoryBudgetError
    """
    # the columns, their copy as a Dataset, and the texts of the status
    _check_free(
        variants * phenotypes * (2 * 8 * columns + 100),
        f"the results of {variants:,} variants and {phenotypes:,} phenotypes here",
        "Scan fewer phenotypes at a time (phenotype=[…]).",
    )


def decomposition_bytes(n: int) -> int:
    """Bytes of an eigendecomposition of n samples: K, its copy, the vectors and the workspace."""
    return (5 if in_numpy(n) else 4) * 8 * n * n


def rotation_bytes(n: int) -> int:
    """Bytes of an eigendecomposition of n samples, and of P that is kept of it."""
    return decomposition_bytes(n) + 8 * n * n


def decompositions_at_once(n: int, room: Room, threads: int) -> int:
    """Eigendecompositions of n samples, each on one of `threads`, that the processes have room for."""
    fit = room.free // rotation_bytes(n)
    return threads if fit >= room.threads else max(1, fit)


def matrices_held(contigs: int, groups: int) -> int:
    """Gram matrices without a store: of each contig that is left out and of all of them, for each group."""
    return groups * (contigs + 1 if contigs > 1 else 1)


def check_matrices(n: int, matrices: int, groups: int) -> None:
    """Refuse to hold matrices of n samples, and P of each group, beside a decomposition where they do not fit.

    Raises
    ------
    MemoryBudgetError
    """
    _check_free(
        (matrices + groups) * 8 * n * n + decomposition_bytes(n),
        f"{matrices} matrices of {n:,} samples, P of {groups} group{'s' if groups > 1 else ''} of phenotypes and "
        "a decomposition",
        "Give store=, where matrices that are computed are then kept, or scan fewer phenotypes at a time "
        "(phenotype=[…]).",
    )


def krylov_bytes(n: int, columns: int) -> int:
    """Bytes that finding leading pairs with `columns` vectors a block holds where it is called from.

    The basis and its image, one of them twice while it grows, six blocks beside them, and the small problem.
    """
    basis = min(n, BASIS_BLOCKS * columns)
    return 8 * (n * (3 * basis + 6 * columns) + 4 * basis * basis)


def check_leading_pairs(n: int, columns: int) -> None:
    """Refuse leading pairs of n samples whose basis does not fit in this process.

    Raises
    ------
    MemoryBudgetError
    """
    _check_free(
        krylov_bytes(n, columns),
        f"the leading pairs of {n:,} samples with {columns:,} vectors a block, where they are asked for",
        "Give a lower rank, or ask from a machine with more memory.",
    )


def check_whitening(n: int) -> None:
    """Refuse a triangular factor of n samples that does not fit beside their eigenvectors.

    Raises
    ------
    MemoryBudgetError
        With what is needed and what there is.
    """
    _check_free(
        # measured beside the eigenvectors: 3.14 matrices
        26 * n * n,
        f"the triangular factor of {n:,} samples",
        "Scan with whiten=False (without --whiten), which has none, or on a machine with more memory.",
    )


def check_eigendecomposition(n: int) -> None:
    """Refuse a decomposition of n samples that does not fit.

    Raises
    ------
    MemoryBudgetError
        With what is needed and what there is.
    """
    _check_free(
        decomposition_bytes(n),
        f"an eigendecomposition of {n:,} samples",
        "Use a machine with more memory, or the leading pairs alone: --rank R --truncated, from Python "
        "gwas(…, rank=…, truncated=True) or eigendecompose(genotypes, rank=…).",
    )
