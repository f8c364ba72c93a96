"""Checks of the response, the covariates and their rotation: bad input is named before any work."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dasklmm.errors import CovariateError, NotFiniteError, PhenotypeError, RankError, ShapeError
from dasklmm.numerics.records import Float, RotatedData

# A column whose distance from the span of the others is below this share of its length is collinear: the
# normal equations square it, and log10 p then moves by 1e-5.
COLLINEARITY_TOLERANCE = 1e-6


def as_vector(array: object, name: str) -> Float:
    """One-dimensional float64 copy of `array`; ShapeError or NotFiniteError name it otherwise."""
    out = np.array(array, dtype=np.float64)
    if out.ndim != 1:
        raise ShapeError(f"{name} has shape {out.shape}; one dimension is needed. Give a vector.")
    check_finite(out, name)
    return out


def as_matrix(array: object, name: str) -> Float:
    """Two-dimensional float64 copy of `array`; ShapeError or NotFiniteError name it otherwise."""
    out = np.array(array, dtype=np.float64)
    if out.ndim != 2:
        raise ShapeError(
            f"{name} has shape {out.shape}; two dimensions are needed. "
            f"A single column is written {name}.reshape(-1, 1)."
        )
    check_finite(out, name)
    return out


def check_finite(array: Float, name: str) -> None:
    """Raise NotFiniteError with the count and the first place of values that are not finite."""
    bad = ~np.isfinite(array)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise NotFiniteError(
            f"{name} has {int(bad.sum())} values that are not finite, the first at index {first} "
            f"({array[first]}). Leave those samples out, or impute them, before fitting."
        )


def check_design(x: Float, n: int, names: Sequence[str] | None = None, what: str = "x") -> None:
    """Refuse covariates that are too many, or in the span of those before them.

    Parameters
    ----------
    x : ndarray (sample, covariate) or (eigen, covariate)
        The design matrix, or its rotation by orthogonal P, which has the same rank.
    n : int
        Number of samples.
    names : sequence of str, optional
        Names of the covariates for the message; "column 0"… otherwise.
    what : str
        Name of the argument for the message.

    Raises
    ------
    CovariateError
        With the names of the columns at fault.
    """
    f = x.shape[1]
    labels = [f"column {j}" for j in range(f)] if names is None else [repr(str(v)) for v in names]
    if n <= f:
        raise CovariateError(
            f"{what} has {f} columns for {n} samples; more samples than fixed effects are needed. "
            "Leave out covariates, or add samples."
        )
    basis: list[Float] = []
    kept: list[int] = []
    faults: list[str] = []
    for j in range(f):
        column = x[:, j]
        length = float(np.linalg.norm(column))
        residual = column.copy()
        for _ in range(2):  # twice is enough for orthogonality to rounding
            for q in basis:
                residual -= q * (q @ residual)
        distance = float(np.linalg.norm(residual))
        if distance <= COLLINEARITY_TOLERANCE * length:
            faults.append(_explain(x, j, kept, length, labels))
        else:
            basis.append(residual / distance)
            kept.append(j)
    if faults:
        raise CovariateError(
            f"{what}: a column is a combination of the others: {'; '.join(faults)}. "
            "Leave out one covariate of each such group (and constants beside an intercept)."
        )


def _explain(x: Float, j: int, kept: list[int], length: float, labels: list[str]) -> str:
    if length == 0.0:
        return f"{labels[j]} is zero throughout"
    weights = np.linalg.lstsq(x[:, kept], x[:, j], rcond=None)[0]
    share = np.abs(weights) * np.linalg.norm(x[:, kept], axis=0) / length
    others = [k for k, part in zip(kept, share, strict=True) if part > 1e-6]
    if len(others) == 1 and np.ptp(x[:, j]) == 0.0 and np.ptp(x[:, others[0]]) == 0.0:
        return f"{labels[j]} is constant, and so is {labels[others[0]]}"
    return f"{labels[j]} is a linear combination of {', '.join(labels[k] for k in others)}"


def has_intercept(x: Float) -> bool:
    """Whether a constant column lies in the span of x (sample, covariate)."""
    ones = np.ones(x.shape[0])
    # of equal lengths: least squares would take a small column for zero beside a large one
    lengths = np.linalg.norm(x, axis=0)
    unit = x / np.where(lengths > 0.0, lengths, 1.0)
    fitted = unit @ np.linalg.lstsq(unit, ones, rcond=None)[0]
    return bool(np.linalg.norm(ones - fitted) <= COLLINEARITY_TOLERANCE * np.sqrt(x.shape[0]))


def rotated_data(
    py: object,
    px: object,
    s: object,
    y: object = None,
    x: object = None,
    names: Sequence[str] | None = None,
) -> RotatedData:
    """Check and gather the data of a null model.

    Parameters
    ----------
    py : array (eigen)
    px : array (eigen, covariate)
    s : array (eigen)
        Eigenvalues of the kinship.
    y, x : array (sample), (sample, covariate), optional
        Unrotated data; give both for a low-rank model, neither for a full-rank one.
    names : sequence of str, optional
        Names of the covariates, for messages.

    Raises
    ------
    ShapeError, NotFiniteError, CovariateError, PhenotypeError, RankError
        Before any fit; the message names the argument.
    """
    py_, px_, s_ = as_vector(py, "py"), as_matrix(px, "px"), as_vector(s, "s")
    r, f = px_.shape
    if py_.shape[0] != r or s_.shape[0] != r:
        raise ShapeError(
            f"py has {py_.shape[0]} rows, px {r}, s {s_.shape[0]}; all three need one row an "
            "eigenvector. Rotate y and x by the same p, and take the s that belongs to it."
        )
    if f == 0:
        raise CovariateError(
            "px has no column; at least one fixed effect is needed. Give an intercept, a column of ones."
        )
    if np.any(s_ < 0.0):
        raise RankError(
            f"s has {int(np.sum(s_ < 0))} negative eigenvalues, the lowest {s_.min():.6g}; a kinship is "
            "positive semidefinite. Negative values of the size of rounding error can be set to 0."
        )
    if (y is None) != (x is None):
        raise RankError(
            f"{'x' if y is None else 'y'} was given without {'y' if y is None else 'x'}; a low-rank model "
            "needs both unrotated, a full-rank model neither."
        )
    if y is None:
        check_design(px_, r, names, "px")
        check_response(py_, px_)
        data = RotatedData(py_, px_, s_, None, None, px_.T @ px_, px_.T @ py_, float(py_ @ py_), r)
    else:
        y_, x_ = as_vector(y, "y"), as_matrix(x, "x")
        n = y_.shape[0]
        if x_.shape != (n, f):
            raise ShapeError(
                f"y has {n} samples, x has shape {x_.shape} and px {px_.shape}; x needs shape ({n}, {f})."
            )
        if r > n:
            raise RankError(
                f"s has {r} eigenvalues for {n} samples; a model has at most {n}. "
                "Check that p is (eigen, sample) and y is not rotated."
            )
        check_design(x_, n, names, "x")
        check_response(y_, x_)
        data = RotatedData(py_, px_, s_, y_, x_, x_.T @ x_, x_.T @ y_, float(y_ @ y_), n)
    for array in (data.py, data.px, data.s, data.y, data.x):
        if array is not None:
            array.setflags(write=False)
    return data


def orthogonal(data: RotatedData) -> tuple[RotatedData, Callable[[Float], Float]]:
    """The same model with covariates orthogonal to each other, and the response to all of them.

    Sums of squares about the fit are differences, and lose the digits that the mean of y, or of a covariate,
    has beyond its spread; here nothing is left to cancel. X T, with T of unit diagonal, spans what X spans and
    has its determinant: variance ratio, likelihoods and tests of alternatives are those of the given data.

    Parameters
    ----------
    data : RotatedData

    Returns
    -------
    RotatedData
    callable
        Takes its fixed effects (covariate) to those of the given data. Cost: O(n covariate^2).
    """
    x, y = (data.px, data.py) if data.x is None or data.y is None else (data.x, data.y)
    f = x.shape[1]
    t, apart = np.eye(f), x.copy()
    for j in range(f):
        for _ in range(2):  # twice is enough for orthogonality to rounding
            for k in range(j):
                step = (apart[:, k] @ apart[:, j]) / (apart[:, k] @ apart[:, k])
                apart[:, j] -= step * apart[:, k]
                t[:, j] -= step * t[:, k]
    effect, residual = np.zeros(f), y.copy()
    for _ in range(2):
        for k in range(f):
            step = (apart[:, k] @ residual) / (apart[:, k] @ apart[:, k])
            residual -= step * apart[:, k]
            effect[k] += step

    def given(beta: Float) -> Float:
        return t @ (beta + effect)

    if data.x is None or data.y is None:
        px, py = apart, residual
        plain: tuple[Float | None, Float | None] = (None, None)
    else:
        px, plain = data.px @ t, (residual, apart)
        py = data.py - px @ effect
    made = RotatedData(
        py,
        px,
        data.s,
        *plain,
        apart.T @ apart,
        apart.T @ residual,
        float(residual @ residual),
        data.n,
    )
    for array in (made.py, made.px, made.y, made.x):
        if array is not None:
            array.setflags(write=False)
    return made, given


def check_response(y: Float, x: Float, what: str = "the response") -> None:
    """Raise PhenotypeError where the covariates explain the response to the last digit."""
    scale = float(np.abs(y).max(initial=0.0)) or 1.0  # whatever its units: 1e200 squared is infinite
    y = y / scale
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    if np.linalg.norm(residual) <= 1e-12 * np.linalg.norm(y):
        raise PhenotypeError(
            f"{what} is constant, or a linear combination of the covariates; nothing is left to explain. "
            "Check that it is the right column, and not among the covariates."
        )
