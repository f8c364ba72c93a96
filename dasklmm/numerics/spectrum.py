"""Eigenpairs of a kinship, from the matrix itself or from its factor, with every precondition checked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from dasklmm.errors import KinshipError, OptionError, RankError
from dasklmm.numerics.records import Float, Spectrum

# Relative to the largest element and eigenvalue. A Gram matrix summed from float32 blocks is good to
# about 1e-7; a matrix read back from ten printed digits to 1e-10; kinships that are not positive
# semidefinite by construction (pairwise estimates) miss by 1e-3 and more.
SYMMETRY_TOLERANCE = 1e-6
PSD_TOLERANCE = 1e-6

# SciPy's LAPACK counts its 2 n^2 of workspace in 32 bits.
MOST_IN_32_BITS = 32_766

# Samples from which a decomposition takes all cores. Below it a second thread gains little, and loses tenfold
# where another process holds its core, as OpenBLAS's threads wait by spinning: such go side by side instead.
MANY_SAMPLES = 2048

# Rows compared at a time with their columns.
TILE_ROWS = 256


def check_kinship(k: NDArray[Any]) -> None:
    """Refuse a kinship that is not square, finite and symmetric; the message gives the numbers.

    Raises
    ------
    KinshipError
    """
    if k.ndim != 2 or k.shape[0] != k.shape[1]:
        raise KinshipError(f"the kinship has shape {k.shape}; a square matrix (n, n) is needed.")
    if k.shape[0] == 0:
        raise KinshipError("the kinship is empty; at least one sample is needed.")
    scale = max(float(k.max()), -float(k.min()))
    if not np.isfinite(scale):
        n_bad = int(np.sum(~np.isfinite(k)))
        i, j = (int(v) for v in np.argwhere(~np.isfinite(k))[0])
        raise KinshipError(
            f"the kinship has {n_bad} elements that are not finite, the first at [{i}, {j}] "
            f"({k[i, j]}). Leave out the samples without genotypes and compute it again."
        )
    worst, i, j = 0.0, 0, 0
    for start in range(0, k.shape[0], TILE_ROWS):
        rows, before = slice(start, start + TILE_ROWS), slice(start + TILE_ROWS)
        gap = np.abs(k[before, rows] - k[rows, before].T)
        if gap.max() > worst:
            worst = float(gap.max())
            i, j = (int(v) for v in np.unravel_index(int(np.argmax(gap)), gap.shape))
            j += start
    if worst > SYMMETRY_TOLERANCE * scale:
        raise KinshipError(
            f"the kinship is not symmetric: [{i}, {j}] is {k[i, j]:.6g} and [{j}, {i}] is {k[j, i]:.6g}. "
            "Check that its rows and columns are the same samples in the same order."
        )


def eigendecompose(k: NDArray[Any], rank: int | None = None, *, overwrite: bool = False) -> Spectrum:
    """Eigenpairs of a kinship, eigenvalues descending.

    Parameters
    ----------
    k : ndarray (sample, sample)
        Symmetric positive semidefinite.
    rank : int, optional
        Keep only this many leading pairs. Default: all.
    overwrite : bool
        Let the vectors take the place of `k` (C-contiguous float64), which saves a copy.

    Returns
    -------
    Spectrum
        float64. Cost: about 0.11 ns n^3 with two threads; memory 3 n^2 float64 with `k` where it is
        overwritten, 5 n^2 below n = 2,048 and above 32,766 (LAPACK's divide and conquer).

    Raises
    ------
    KinshipError
        Not square, finite, symmetric, or not positive semidefinite.
    RankError
        `rank` outside 1 … n.
    """
    check_kinship(k)
    n = k.shape[0]
    check_rank(rank, n)
    s, rows = _descending_pairs(k, overwrite)
    if s[-1] < -PSD_TOLERANCE * max(abs(float(s[0])), abs(float(s[-1]))):
        raise KinshipError(
            f"the kinship is not positive semidefinite: its lowest eigenvalue is {s[-1]:.6g}, its largest "
            f"{s[0]:.6g} ({int(np.sum(s < 0))} of {n} are negative). Use a kinship that is a Gram matrix, "
            "such as dasklmm.kinship()."
        )
    r = n if rank is None else rank
    # eigenvalues below zero by rounding are zero
    values = np.maximum(s, 0.0)
    return Spectrum(
        p=rows if r == n else rows[:r].copy(),
        s=values[:r].copy(),
        n_dropped=n - r,
        largest_dropped=float(values[r]) if r < n else float("nan"),
    )


def in_numpy(n: int) -> bool:
    """Whether NumPy decomposes a kinship of n samples: in 5 n^2 float64, SciPy in 3 n^2.

    SciPy's LAPACK is 32-bit inside, and holds Python's lock meanwhile: small ones could not go side by side.
    """
    return n < MANY_SAMPLES or n > MOST_IN_32_BITS


def _descending_pairs(k: NDArray[Any], overwrite: bool) -> tuple[Float, Float]:
    """Eigenvalues descending and eigenvectors as rows (C-contiguous)."""
    n = k.shape[0]
    if in_numpy(n):
        s, u = np.linalg.eigh(np.asarray(k, dtype=np.float64).T)  # the triangle that SciPy takes
        return s[::-1], np.ascontiguousarray(u[:, ::-1].T)
    k = k if overwrite else np.array(k, dtype=np.float64)
    # K is symmetric, so its transpose is K as Fortran stores it, and no copy is made
    s, u = linalg.eigh(k.T, overwrite_a=True, check_finite=False, driver="evd")
    rows = np.ascontiguousarray(u.T)
    for i in range(n // 2):  # in place: a reversed copy would be one more matrix
        rows[[i, n - 1 - i]] = rows[[n - 1 - i, i]]
    return s[::-1], rows


def check_rank(rank: int | None, n: int) -> None:
    """Raise RankError unless `rank` is None or a whole number within 1 … n."""
    if rank is not None and not (isinstance(rank, (int, np.integer)) and 1 <= rank <= n):
        raise RankError(f"rank is {rank!r} for {n} samples; a whole number from 1 to {n} is needed.")


def check_condition(max_condition_number: float) -> None:
    """Raise OptionError unless the bound exceeds float64's precision (Hail's rule)."""
    if not max_condition_number >= 1e-16:
        raise OptionError(
            f"max_condition_number is {max_condition_number}; at least 1e-16 is needed, the precision of "
            "float64."
        )


def factor_spectrum(z: NDArray[Any], max_condition_number: float = 1e-10) -> Spectrum:
    """Eigenpairs of K = Z Z^T from the singular values of Z.

    Parameters
    ----------
    z : ndarray (sample, effect)
        Random effects; no standardisation is applied.
    max_condition_number : float
        With more samples than effects, pairs with s <= this times the largest s are dropped.

    Returns
    -------
    Spectrum
        n <= m: all n pairs (full rank). n > m: at most m pairs (low rank).
        Cost O(n m min(n, m)).
    """
    check_condition(max_condition_number)
    n, m = z.shape
    z = np.asarray(z, dtype=np.float64)
    if n <= m:
        # Z = R^T Q^T has the left vectors of R^T, and the right ones are never formed
        r: Float = np.asarray(np.linalg.qr(z.T, mode="r"), dtype=np.float64)
        u, s0, _ = np.linalg.svd(r.T)
        return Spectrum(p=np.ascontiguousarray(u.T), s=s0**2)
    u, s0, _ = np.linalg.svd(z, full_matrices=False)
    return well_conditioned(Spectrum(np.ascontiguousarray(u.T), s0**2), max_condition_number)


def well_conditioned(spectrum: Spectrum, max_condition_number: float) -> Spectrum:
    """Drop the pairs with s <= max_condition_number times the largest s; the record counts them."""
    s = spectrum.s
    r = int(np.sum(s > max_condition_number * s[0]))
    if r == 0:
        raise KinshipError("the random effects are zero throughout; there is no kinship to model.")
    if r == s.shape[0]:
        return spectrum
    return Spectrum(spectrum.p[:r], s[:r], s.shape[0] - r, float(s[r]))


def mean_diagonal(k: NDArray[Any]) -> float:
    """trace(C K C) / n with C = I - 11^T/n: the variance of one sample's random effect about the mean."""
    n = k.shape[0]
    return float((float(np.trace(k)) - float(k.sum()) / n) / n)


def double_centered(k: NDArray[Any], *, overwrite: bool = False) -> Float:
    """C K C with C = I - 11^T/n: the kinship of deviations from the mean; in the place of `k` if wanted.

    With an intercept among the covariates it leaves the restricted likelihood and every REML test as they
    are; the plain likelihood and PVE are then GEMMA's.
    """
    out = k if overwrite else np.array(k, dtype=np.float64)
    rows = out.mean(axis=1, keepdims=True)
    total = float(rows.mean())
    out -= rows
    out -= rows.T
    out += total
    return out


def gram_pairs(gram: NDArray[Any], max_condition_number: float) -> tuple[Float, Float, Spectrum]:
    """Right singular vectors and squared singular values of Z from Z^T Z, ill-conditioned ones dropped.

    Parameters
    ----------
    gram : ndarray (effect, effect)
        Z^T Z.
    max_condition_number : float

    Returns
    -------
    v : ndarray (effect, eigen)
    s : ndarray (eigen)
    spectrum : Spectrum
        The same pairs of Z^T Z with the count of what was dropped.
    """
    check_condition(max_condition_number)
    pairs = well_conditioned(eigendecompose(gram), max_condition_number)
    return pairs.p.T, pairs.s, pairs


def left_vectors(z: NDArray[Any], v: Float, s: Float) -> Float:
    """Rows of P = S^-1/2 V^T Z^T that belong to a block of samples; (eigen, sample)."""
    return np.asarray(((z @ v) / np.sqrt(s)).T, dtype=np.float64)
