"""Kinship matrices from genotypes: Gram matrices of blocks of variants, summed in a tree."""

from __future__ import annotations

import logging
import operator
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import Delayed

from dasklmm import schema
from dasklmm.errors import KinshipError, OptionError
from dasklmm.lazy import blocks, budget, inputs, run
from dasklmm.numerics.genotypes import Gram, gram
from dasklmm.readers.dataset import in_blocks_of_at_most
from dasklmm.store import arrays

logger = logging.getLogger(__name__)

Method = Literal["rrm", "grm", "centered"]
METHODS: tuple[Method, ...] = ("rrm", "grm", "centered")
PRECISIONS = {"single": np.float32, "double": np.float64}


def check_method(method: str) -> None:
    """Raise OptionError unless `method` names a kinship."""
    if method not in METHODS:
        raise OptionError(f"kinship method is {method!r}; it is one of {', '.join(map(repr, METHODS))}.")


def working_dtype(precision: str) -> Any:
    """float32 or float64 for "single" or "double"; OptionError otherwise."""
    if precision not in PRECISIONS:
        raise OptionError(f"precision is {precision!r}; it is 'single' or 'double'.")
    return PRECISIONS[precision]


def gram_matrices(
    dosage: da.Array,
    method: Method,
    *,
    samples: Sequence[np.ndarray | None],
    dtype: Any = np.float64,
    lanes: int | None = None,
    report: run.Report | None = None,
) -> Delayed:
    """Gram matrices of all variants of a Dask array (variant, sample), one of each set of samples. Lazy.

    Gives a list of `Gram`. The blocks are summed one after the other in lanes, as many as there are threads,
    and the lanes in a tree: a task holds its block and two matrices of n^2 float64 a set, and there are never
    more sums about than lanes, however many blocks. Each block is told to `report`.
    """
    call = blocks.delayed_call(_grams, "kinship")
    columns: Any = list(samples)
    parts = blocks.delayed_blocks(dosage)

    def add(block: Delayed, before: Delayed | None) -> Delayed:
        nonlocal columns
        if before is None and any(own is not None for own in samples):
            columns = blocks.shared(list(samples), apart=True)
        return call(block, method, dtype, columns, before, report)

    sums = blocks.lanes(parts, lanes or run.parallelism(), add)
    return blocks.tree_sum(sums, "kinship", add=_added)


def _grams(
    block: np.ndarray,
    method: Method,
    dtype: Any,
    samples: list[np.ndarray | None],
    before: list[Gram] | None,
    report: run.Report | None,
) -> list[Gram]:
    former = before or [None] * len(samples)
    out = [gram(block, method, dtype, columns, own) for columns, own in zip(samples, former, strict=True)]
    if report is not None:
        report()
    return out


def _added(a: list[Gram], b: list[Gram]) -> list[Gram]:
    return [one + other for one, other in zip(a, b, strict=True)]


def kinship(
    ds: xr.Dataset,
    method: Method = "rrm",
    *,
    precision: str = "double",
    store: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> xr.DataArray:
    """Kinship of all samples of a genotype Dataset. Lazy; with `store` eager.

    Parameters
    ----------
    ds : Dataset
        From `open_genotypes`: `dosage` (variant, sample).
    method : {"rrm", "grm", "centered"}
        "rrm": variants centred and scaled to unit sample variance (Hail's realized relationship matrix);
        "grm": scaled by 2f(1-f) (GCTA, Hail's genetic relatedness matrix); "centered": centred only
        (GEMMA -gk 1). K = Z Z^T / m over the variants that vary; missing dosages are the variant's mean.
    precision : {"double", "single"}
        Of the products inside a block; sums over blocks are float64.
    store : path or URL, optional
        Compute it now, and keep it there as a Zarr group, for ``gwas(kinship=PATH)``. One that is there already
        of the same genotypes, method and precision is opened instead. Genotypes that are not a reader's own are
        read once more before and after, to tell that they are the same.
    overwrite : bool
        Replace the kinship that `store` holds.
    progress : callable (stage, done, total), optional
        With `store`, called for each block.

    Returns
    -------
    DataArray (sample_0, sample_1), float64
        With coordinates sample_id_0 and sample_id_1. Cost sample^2 variant flop.

    Raises
    ------
    OptionError
        Unknown method or precision.
    KinshipError
        On computing: no variant varies. With `store`: the genotypes carry no sample ids.
    MemoryBudgetError
        With `store`: a task has no room in a process.
    StoreError
        `store` holds something else, cannot be written, or another run writes there; before any work. The
        genotypes changed while they were read.

    Examples
    --------
    >>> import dasklmm
    >>> k = dasklmm.kinship(dasklmm.simulate(50, 200, n_contigs=2, seed=1), "grm")  # lazy
    >>> k.dims, k.compute().shape
    (('sample_0', 'sample_1'), (50, 50))
    """
    check_method(method)
    dtype = working_dtype(precision)
    ids = schema.sample_ids(ds)
    rows = schema.dosage_rows(ds)
    n = rows.shape[1]
    if rows.shape[0] == 0:
        raise KinshipError("the genotypes hold no variant; a kinship needs at least one that varies.")
    coords = {}
    if ids is not None:
        coords = {"sample_id_0": ("sample_0", ids), "sample_id_1": ("sample_1", ids)}

    def lazily(rows: da.Array, report: run.Report | None = None) -> Delayed:
        grams = gram_matrices(rows, method, samples=[None], dtype=dtype, report=report)
        return dask.delayed(scaled)(dask.delayed(operator.itemgetter(0))(grams))

    def named(matrix: Any) -> xr.DataArray:
        return xr.DataArray(
            matrix, dims=("sample_0", "sample_1"), coords=coords, name="kinship", attrs={"method": method}
        )

    def made() -> xr.DataArray:
        start = time.perf_counter()
        shape = budget.Shape(n, n, 0, 1, rows.dtype.itemsize, np.dtype(dtype).itemsize)
        cut = in_blocks_of_at_most(rows, shape.kinship_rows(budget.Room.of(run.active_client())))
        logger.info("kinship: %d variants in %d blocks, %d samples", cut.shape[0], cut.numblocks[0], n)
        with run.counted(cut.numblocks[0], _told(progress)) as report:
            (matrix,) = run.run_blocks([lazily(cut, report)])
        logger.info("kinship: done in %.1f s", time.perf_counter() - start)
        return named(matrix)

    if store is None:
        return named(da.from_delayed(lazily(rows), (n, n), dtype=np.float64))
    if ids is None:
        raise KinshipError(
            "the genotypes carry no sample ids, so a kinship of them that is kept could not be joined to "
            "anything. Assign sample_id over sample."
        )
    arrays.made_once(
        store, "kinship", partial(inputs.of_kinship, ds, method, precision), arrays.held_kinship, made,
        arrays.write_kinship, overwrite=overwrite,
    )  # fmt: skip
    return arrays.open_kinship(store)


def _told(progress: Callable[[str, int, int], None] | None) -> run.OnDone | None:
    """What hears of each block: the log, and `progress`; None where neither does, as telling has a cost."""
    if not logger.isEnabledFor(logging.DEBUG):
        return None if progress is None else partial(progress, "kinship")

    def tell(done: int, total: int) -> None:
        logger.debug("kinship: %d of %d", done, total)
        if progress is not None:
            progress("kinship", done, total)

    return tell


def no_variant(left_out: str | None = None) -> KinshipError:
    """Error of a kinship of variants none of which varies, those of a contig left out."""
    if left_out is not None:
        return KinshipError(
            f"no variant varies among the samples outside contig {left_out!r}, so there is no kinship with that "
            "contig left out. Give loco=False (--no-loco), or a kinship from other variants."
        )
    return KinshipError(
        "no variant varies among the samples, so there is no kinship. Check that the genotypes and the "
        "samples belong together."
    )


def scaled(total: Gram, without: Gram | None = None, left_out: str | None = None) -> np.ndarray:
    """K = Z Z^T / m of a Gram matrix, less some variants; KinshipError where no variant was left.

    `left_out` is the name of the contig whose variants those are.
    """
    if without is not None:
        total = total - without
    if total.n_variants == 0:
        raise no_variant(left_out)
    # in place where the matrix is this function's own
    return np.divide(total.matrix, total.n_variants, out=None if without is None else total.matrix)
