"""Eigenpairs of a kinship: exact from the matrix, or the leading ones from the genotypes alone."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

import dasklmm
from dasklmm import schema
from dasklmm.errors import KinshipError, RankError
from dasklmm.lazy import blocks, budget, inputs, run
from dasklmm.lazy import kinship as lazy_kinship
from dasklmm.numerics import spectrum
from dasklmm.numerics.subspace import OVERSAMPLING, Krylov, Product, gram_product
from dasklmm.store import arrays
from dasklmm.store.places import check_place
from dasklmm.store.results import fingerprint

logger = logging.getLogger(__name__)

TOLERANCE = 1e-7
PASSES = 40


def eigendecompose(
    k: Any,
    rank: int | None = None,
    *,
    method: lazy_kinship.Method = "rrm",
    precision: str = "double",
    tolerance: float = TOLERANCE,
    seed: int = 0,
    store: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> xr.Dataset:
    """Eigenvectors and eigenvalues of a kinship. Eager.

    Parameters
    ----------
    k : DataArray (sample_0, sample_1), ndarray or Dask array (sample, sample), or genotype Dataset
        A symmetric positive semidefinite matrix is decomposed exactly. Of genotypes (with `rank`) the leading
        pairs are found from passes over their blocks, and the matrix is never formed.
    rank : int, optional
        Keep only this many leading pairs (a low-rank model). Default: all; needed for genotypes.
    method : {"rrm", "grm", "centered"}
        The kinship of genotypes; not used for a matrix.
    precision : {"double", "single"}
        Of the products of genotypes.
    tolerance : float
        Of genotypes: passes go on until every residual ``|K v - s v|`` is below this times the largest s, 40 at
        most; what is left is said in the log and in `residual`.
    seed : int
        Of the random start from genotypes; equal seeds and blocks give equal pairs.
    store : path or URL, optional
        Keep the decomposition there. One that is there already of the same input is opened instead.
    overwrite : bool
        Replace what `store` holds.
    progress : callable (stage, done, total), optional
        Of genotypes, called after each pass.

    Returns
    -------
    Dataset
        p (eigen, sample) and s (eigen), float64, eigenvalues descending; of genotypes residual (eigen) too;
        coordinate sample_id where there are ids. Exact: about 0.11 ns n^3 with two threads, memory
        4 n^2 float64, checked before. Of genotypes: 4 variant sample (rank + 10) flop a pass.

    Raises
    ------
    KinshipError
        Not square, finite, symmetric or positive semidefinite; with the numbers.
    RankError
        `rank` outside 1 … n, or not given for genotypes.
    MemoryBudgetError
        The decomposition, or the basis of the leading pairs, would not fit in memory.
    StoreError
        `store` holds something else, cannot be written, or another run writes there. The genotypes changed while
        they were read.

    Examples
    --------
    >>> import dasklmm
    >>> cohort = dasklmm.simulate(50, 200, n_contigs=2, seed=1)
    >>> pairs = dasklmm.eigendecompose(dasklmm.kinship(cohort))
    >>> pairs["p"].shape, pairs["s"].shape
    ((50, 50), (50,))
    >>> dasklmm.eigendecompose(cohort, rank=5)["p"].shape  # the kinship is never formed
    (5, 50)
    """
    if isinstance(k, xr.Dataset):
        ids, n = schema.sample_ids(k), k.sizes[schema.SAMPLE]
    else:
        ids = schema.kinship_ids(k) if isinstance(k, xr.DataArray) else None
        k = k.data if isinstance(k, xr.DataArray) else k
        if isinstance(k, (str, Path)):
            raise KinshipError(
                f"the kinship is the path {str(k)!r}; a matrix, or genotypes with a rank, is needed. Give "
                "dasklmm.kinship(genotypes) or dasklmm.open_genotypes(path); a stored kinship goes to "
                "gwas(kinship=path)."
            )
        shape = tuple(np.shape(k))
        if len(shape) != 2 or shape[0] != shape[1]:
            raise KinshipError(f"the kinship has shape {shape}; a square matrix (n, n) is needed.")
        n = shape[0]
    if isinstance(k, xr.Dataset) and rank is None:
        raise RankError("of genotypes only leading pairs can be found: give rank, or their kinship().")
    spectrum.check_rank(rank, n)
    coords = {} if ids is None else {"sample_id": (schema.SAMPLE, ids)}

    def named(p: np.ndarray, s: np.ndarray, **variables: Any) -> xr.Dataset:
        pairs = {"p": ((schema.EIGEN, schema.SAMPLE), p), "s": (schema.EIGEN, s), **variables}
        return xr.Dataset(pairs, coords=coords)

    if isinstance(k, xr.Dataset):
        rows = schema.dosage_rows(k)
        dtype = lazy_kinship.working_dtype(precision)
        tell = None if progress is None else functools.partial(progress, "leading pairs")

        def made() -> xr.Dataset:
            found = leading_pairs(
                [rows], rank or n, method, dtype=dtype, seed=seed, tolerance=tolerance, tell=tell
            )
            return named(found.p, found.s, residual=(schema.EIGEN, found.residual))

        def of() -> dict[str, Any]:
            return {
                **inputs.of_kinship(k, method, precision), "rank": rank, "tolerance": tolerance, "seed": seed,
            }  # fmt: skip
    else:
        budget.check_eigendecomposition(n)
        if store is not None:
            check_place(store)
        matrix = np.asarray(k.compute() if dask.is_dask_collection(k) else k)

        def made() -> xr.Dataset:
            pairs = spectrum.eigendecompose(matrix, rank)
            return named(pairs.p, pairs.s)

        @functools.cache  # it lies in memory
        def of() -> dict[str, Any]:
            return {
                "of": "matrix",
                "version": dasklmm.__version__,
                "rank": rank,
                "samples": None if ids is None else fingerprint(ids),
                "values": fingerprint(matrix),
            }

    if store is None:
        return made()
    return arrays.made_once(
        store, "decomposition", of, arrays.held_spectrum, made, arrays.write_spectrum, overwrite=overwrite
    )


@dataclass(frozen=True, eq=False)
class LeadingPairs:
    """Leading eigenpairs found from genotypes.

    Attributes
    ----------
    s, p, residual : ndarray (eigen), (eigen, sample), (eigen)
    mean_diagonal : float
        Trace of the kinship over the number of samples.
    n_variants : int
        Variants that vary.
    """

    s: np.ndarray
    p: np.ndarray
    residual: np.ndarray
    mean_diagonal: float
    n_variants: int


def leading_pairs(
    parts: Sequence[da.Array],
    rank: int,
    method: lazy_kinship.Method,
    *,
    samples: np.ndarray | None = None,
    dtype: Any = np.float64,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    lanes: int | None = None,
    left_out: str | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> LeadingPairs:
    """Leading eigenpairs of the kinship of some genotypes, the matrix never formed. Eager.

    Parameters
    ----------
    parts : sequence of Dask arrays (variant, sample)
    rank, method, samples, dtype, seed, tolerance
        See :func:`eigendecompose`; `samples` are the columns to use.
    lanes : int, optional
        Sums of blocks side by side, on which the last digits depend. Default: as many as threads.
    left_out : str, optional
        Contig that `parts` leave out, for the message where none of their variants varies.
    tell : callable (done, most), optional
        Called after each pass; `most` is what is done when the pairs are found, as the passes needed are not
        known before.
    """
    n = parts[0].shape[1] if samples is None else samples.size
    budget.check_leading_pairs(n, min(n, rank + OVERSAMPLING))
    state = Krylov(n, rank, seed=seed)
    for done in range(1, PASSES + 1):
        start = time.perf_counter()
        product = _pass(parts, state.next, method, samples, dtype, lanes or run.parallelism())
        if product.n_variants == 0:
            raise lazy_kinship.no_variant(left_out)
        state.extend(product.matrix / product.n_variants)
        s, p, residual = state.pairs()
        found = bool(residual.max() <= tolerance * s[0])
        logger.info(
            "leading pairs: pass %d in %.1f s, largest residual %.1e of the largest eigenvalue",
            done, time.perf_counter() - start, residual.max() / s[0],
        )  # fmt: skip
        if tell is not None:
            tell(done, done if found else PASSES)
        if found:
            break
    else:
        logger.warning(
            "after %d passes the largest residual of the %d pairs is %.3g of the largest eigenvalue",
            PASSES, rank, residual.max() / s[0],
        )  # fmt: skip
    return LeadingPairs(s, p, residual, product.trace / product.n_variants / n, product.n_variants)


def _pass(
    parts: Sequence[da.Array], q: np.ndarray, method: str, samples: np.ndarray | None, dtype: Any, lanes: int
) -> Product:
    call = blocks.delayed_call(_add_product, "kinship-product")
    client = run.active_client()
    # within the graph every pass would send it through the scheduler
    where = q if client is None else client.scatter(q, broadcast=True, hash=False)
    columns, shared_q = blocks.shared(samples), blocks.shared(where)
    sums = blocks.lanes(
        [block for part in parts for block in blocks.delayed_blocks(part)],
        lanes,
        lambda block, before: call(block, shared_q, method, dtype, columns, before),
    )
    return run.run_blocks([blocks.tree_sum(sums, "kinship-product-sum")])[0]


def _add_product(
    block: np.ndarray,
    q: np.ndarray,
    method: lazy_kinship.Method,
    dtype: Any,
    samples: np.ndarray | None,
    before: Product | None,
) -> Product:
    added = gram_product(block, q, method, dtype, samples)
    return added if before is None else before + added
