"""Gram matrices and rotations of a scan, as its tasks make them and leave them in records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dasklmm.cohort import Cohort
from dasklmm.errors import (
    CovariateError,
    DaskLMMError,
    KinshipError,
    NotFiniteError,
    OptimisationError,
    PhenotypeError,
    RankError,
)
from dasklmm.lazy import blocks, budget, run
from dasklmm.lazy import kinship as lazy_kinship
from dasklmm.null_models import tested_variance_ratio
from dasklmm.numerics import alternatives, design, spectrum, whitening
from dasklmm.numerics.genotypes import Gram
from dasklmm.store import arrays
from dasklmm.store.records import Memory, Records, damaged
from dasklmm.store.results import fingerprint

# Of a kinship or a null model that cannot be: a cluster, a store or genotypes that are lost are of no phenotype.
NO_MODEL = (KinshipError, NotFiniteError, RankError, CovariateError, PhenotypeError, OptimisationError)


def keep_grams(
    grams: Sequence[Gram], kept: Records | Memory | None, names: Sequence[str]
) -> Sequence[Gram] | None:
    """Leave Gram matrices in records; where there are none, hand them on."""
    if kept is None:
        return grams
    for gram, name in zip(grams, names, strict=True):
        kept.write(name, gram.matrix, n_variants=gram.n_variants)
    return None


def lanes_of(kept: Records | Memory, contigs: int) -> int:
    """Sums of a contig's blocks side by side; kept, so that a run taken up elsewhere adds in the same order."""
    found = kept.read("gram/lanes")
    if found is None:
        found = np.array([-(-run.parallelism() // contigs)]), {}
        kept.write("gram/lanes", found[0])
    return int(found[0][0])


def kept_gram(kept: Records | Memory, name: str) -> Gram:
    """Gram matrix of a record; StoreError where it is gone."""
    found = kept.read(name)
    if found is None:
        raise damaged(kept.path, name)
    return Gram(found[0], int(found[1]["n_variants"]))


def _kept_kinship(kept: Records | Memory, unit: str, total: str, left_out: str | None) -> np.ndarray:
    """Kinship of all contigs, or of all but the one of a unit."""
    without = None if left_out is None else kept_gram(kept, f"gram/{unit}")
    return lazy_kinship.scaled(kept_gram(kept, total), without, left_out)


@dataclass(frozen=True, eq=False)
class Rotation:
    """Eigenvectors (eigen, sample), and a table (eigen, 1 + phenotype + covariate) of s, PY and PX.

    Once it is whitened, `p` is W (sample, sample), and the table has zeros, WY and WX behind.
    """

    p: np.ndarray
    table: np.ndarray
    mean_diagonal: float
    n_variants: int = 0  # that vary, where the leading pairs were found from genotypes


def decomposed(k: np.ndarray, y: np.ndarray, x: np.ndarray, rank: int) -> Rotation:
    """Of a kinship that is given up: its memory serves the eigenvectors."""
    if design.has_intercept(x):
        # leaves REML as it is; the plain likelihood of the score test and PVE are then GEMMA's
        k = spectrum.double_centered(k, overwrite=True)
    mean_diagonal = spectrum.mean_diagonal(k)
    with _blas_threads(x.shape[0]):
        pairs = spectrum.eigendecompose(k, rank, overwrite=True)
    return Rotation(pairs.p, rotated_table(pairs.p, pairs.s, y, x), mean_diagonal)


def _blas_threads(n: int) -> AbstractContextManager[Any]:
    return blocks.all_blas_threads() if n >= spectrum.MANY_SAMPLES else blocks.one_blas_thread()


def rotated_table(p: np.ndarray, s: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Table (eigen, 1 + phenotype + covariate) of s, PY and PX."""
    # Column by column, on one thread: the bits of a product depend on how many columns it has, and on its threads.
    with blocks.one_blas_thread():
        return np.column_stack([s, *(p @ np.ascontiguousarray(column) for column in y.T), p @ x])


def rounded(rotation: Rotation, dtype: Any) -> Rotation:
    """The same with P in a precision."""
    return replace(rotation, p=rotation.p.astype(dtype, copy=False))


def whitened(rotation: Rotation, cohort: Cohort, test: alternatives.Test, dtype: Any) -> Rotation:
    """W of the only phenotype, at its null's variance ratio, in the place of its eigenvectors."""
    budget.check_whitening(cohort.y.size)
    s = rotation.table[:, 0]
    with blocks.one_blas_thread():  # as where the null model is fitted again from the table
        log_gamma = tested_variance_ratio(rotation.table, cohort, test)
    with _blas_threads(s.size):
        w = whitening.whitening(rotation.p, s, log_gamma)
    # orthogonal covariates: whitening can make what is left of one beside the others sqrt(condition) shorter
    plain, _ = design.orthogonal(design.rotated_data(cohort.y, cohort.x, np.zeros(s.size)))
    table = rotated_table(w, plain.s, plain.py[:, None], plain.px)
    both = replace(rotation, p=w, table=np.hstack([rotation.table, table]))
    return rounded(both, whitening.stored_dtype(dtype, s, log_gamma))


def keep_rotation(kept: Records | Memory, unit: str, rotation: Rotation) -> None:
    """Leave P and its table in records."""
    p = rotation.p
    if isinstance(kept, Records):
        # P says which table it belongs to. Another decomposition, as of a task that outlived its client, may have
        # other signs: its table must not meet this P, nor this table its P.
        kept.write_rows(f"p/{unit}", p, budget.STREAM_BYTES, fingerprint(rotation.table))
    else:
        kept.write(f"p/{unit}", p)
    kept.write(
        f"null/{unit}",
        rotation.table,
        mean_diagonal=rotation.mean_diagonal,
        n_variants=rotation.n_variants,
    )


def or_why_not(decompose: Callable[..., None], *arguments: Any) -> DaskLMMError | None:
    """Decompose; the error of a kinship or a null model that cannot be, which ends its own phenotypes alone."""
    try:
        decompose(*arguments)
    except NO_MODEL as error:
        return error
    return None


def decompose_kept(
    kept: Records | Memory,
    unit: str,
    total: str,
    left_out: str | None,
    y: np.ndarray,
    x: np.ndarray,
    rank: int,
    finish: Callable[[Rotation], Rotation],
) -> None:
    """Leave the rotation of a unit, finished, in records: of all contigs, or of all but the one `left_out`."""
    arrays.StoredArray.release()  # P of the contig before
    budget.return_free_memory()
    budget.check_eigendecomposition(x.shape[0])
    keep_rotation(kept, unit, finish(decomposed(_kept_kinship(kept, unit, total, left_out), y, x, rank)))
    budget.return_free_memory()


def release_on_workers() -> None:
    """Have workers give up every P that they keep, when a run is over. Eager."""
    with suppress(Exception):  # a cluster that is lost keeps nothing
        client = run.active_client()
        if client is not None:
            client.run(arrays.StoredArray.release, on_error="ignore")


def has_rotation(kept: Records | Memory, unit: str, table: np.ndarray) -> bool:
    """Whether P that belongs to a unit's table is there, every block of it undamaged."""
    if isinstance(kept, Memory):
        return kept.read(f"p/{unit}") is not None
    rows = kept.stored_rows(f"p/{unit}", fingerprint(table))
    return rows is not None and rows.whole()


def operand_of(kept: Records | Memory, unit: str, table: np.ndarray, streamed: bool, together: int) -> Any:
    """P of a table as the blocks find it: in its records, in memory for threads, or scattered over a cluster."""
    name = f"p/{unit}"
    if isinstance(kept, Records):
        rows = kept.stored_rows(name, fingerprint(table))
        if rows is None:
            raise damaged(kept.path, name)
        return rows if streamed else arrays.StoredArray(rows, keep=together)
    found = kept.read(name)
    assert found is not None  # left by _nulls
    client = run.active_client()
    return found[0] if client is None else client.scatter(found[0], broadcast=True, hash=False)
