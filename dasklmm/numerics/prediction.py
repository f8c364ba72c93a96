"""Best linear unbiased predictions of the random effects, for the model's samples and for others.

Sources: Henderson 1975 (Biometrics 31:423, doi:10.2307/2529430), of the predictions and the variance of
their error; Robinson 1991 (doi:10.1214/ss/1177011926).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from dasklmm.errors import KinshipError
from dasklmm.numerics import reml
from dasklmm.numerics.records import Float, NullFit, RotatedData

# Samples taken at a time, so that squares of the eigenvectors are never all in memory.
TILE_ROWS = 256

# A kinship is centred where its row sums are rounding of float32 beside its largest eigenvalue. Rows of new
# samples then miss a sum of 0 by rounding too, or by far more than this share of the most they could.
CENTRED = 1e-6
NOT_CENTRED = 1e-4


@dataclass(frozen=True, eq=False)
class PredictionWeights:
    """What turns eigenvectors into predictions at one fit, with e = Py - PX beta and d = 1 / (s + 1/gamma).

    Attributes
    ----------
    table : ndarray (eigen, 2 + covariate)
        [d e, s d e, sigma s d PX L^-T], L the Cholesky factor of <X, X>.
    squares : ndarray (eigen)
        tau_sq s d.
    """

    table: Float
    squares: Float


def prediction_weights(data: RotatedData, null: NullFit) -> PredictionWeights:
    """Weights of the eigenvectors at the null's fit. Cost O(eigen covariate^2)."""
    at = reml.evaluate(data, null.log_gamma)
    d = 1.0 / (data.s + 1.0 / null.gamma)
    shrinkage = data.s * d
    e = data.py - data.px @ null.beta
    fixed = linalg.solve_triangular(at.cholesky, data.px.T, lower=True).T
    fixed *= np.sqrt(null.sigma_sq) * shrinkage[:, None]
    return PredictionWeights(np.column_stack([d * e, shrinkage * e, fixed]), null.tau_sq * shrinkage)


def predict_block(u: NDArray[Any], *, weights: PredictionWeights) -> Float:
    r"""Predictions for a block of the model's samples.

    .. math:: \hat g = \sigma^2 K V^{-1} (y - X \hat\beta) = U \frac{s}{s + 1/\gamma} U^T (y - X \hat\beta)

    The variance of the error is that of g^ - g with the variance components taken as known: the diagonal of
    sigma^2 K - sigma^4 K Q K, Q = V^-1 - V^-1 X (X^T V^-1 X)^-1 X^T V^-1.

    Parameters
    ----------
    u : ndarray (sample, eigen)
        The samples' columns of P, transposed.
    weights : PredictionWeights

    Returns
    -------
    ndarray (sample, 3)
        Prediction, in units of y; variance of its error, in squared units of y; and the sample's weight in
        the predictions of others. Cost 2 sample eigen (covariate + 3) flop.
    """
    out = np.empty((u.shape[0], 3))
    for start in range(0, u.shape[0], TILE_ROWS):
        rows = slice(start, start + TILE_ROWS)
        tile = np.asarray(u[rows], dtype=np.float64)
        spread = tile @ weights.table
        out[rows, 0] = spread[:, 1]
        out[rows, 1] = (tile * tile) @ weights.squares + (spread[:, 2:] ** 2).sum(axis=1)
        out[rows, 2] = spread[:, 0]
    return out


def predict_others(k: NDArray[Any], *, sample_weights: Float, samples: NDArray[np.intp]) -> Float:
    """Predictions for a block of other samples: sigma^2 K_other,model V^-1 (y - X beta).

    Of a low-rank model, the part of the kinship that lies in the model's eigenvectors: its K knows no other.

    Parameters
    ----------
    k : ndarray (other, sample)
        Kinship with the model's samples, among others.
    sample_weights : ndarray (sample)
        The third column of :func:`predict_block`.
    samples : ndarray (sample)
        Columns of `k` that are the model's samples, in the model's order.

    Returns
    -------
    ndarray (other, 3)
        Prediction, in units of y; sum of the row; its length.
    """
    out = np.empty((k.shape[0], 3))
    for start in range(0, k.shape[0], TILE_ROWS):
        rows = slice(start, start + TILE_ROWS)
        tile = np.asarray(k[rows], dtype=np.float64)[:, samples]
        out[rows, 0] = tile @ sample_weights
        out[rows, 1] = tile.sum(axis=1)
        out[rows, 2] = np.linalg.norm(tile, axis=1)
    return out


def check_rows(sums: Float, lengths: Float, s: Float, p_ones: Float, n: int) -> None:
    """Refuse a kinship with other samples that is not finite, or not centred where the model's own is.

    Parameters
    ----------
    sums, lengths : ndarray (other)
        Sum and Euclidean length of each row.
    s, p_ones : ndarray (eigen)
        Eigenvalues, and P 1.
    n : int
        The model's samples.

    Raises
    ------
    KinshipError
    """
    bad = ~(np.isfinite(sums) & np.isfinite(lengths))
    if bad.any():
        raise KinshipError(
            f"the kinship of {int(bad.sum())} of {sums.size} new samples is not finite, the first in row "
            f"{int(np.argmax(bad))}. Leave out the samples without genotypes."
        )
    centred = np.linalg.norm(s * p_ones) <= CENTRED * s.max() * np.sqrt(n)
    off = np.abs(sums) > NOT_CENTRED * lengths * np.sqrt(n)
    if centred and off.any():
        i = int(np.argmax(off))
        raise KinshipError(
            f"the model's kinship is centred over its samples (its rows sum to 0), and that of {int(off.sum())} "
            f"of {sums.size} new samples is not: row {i} sums to {sums[i]:.3g}. Both must be blocks of one "
            "matrix: compute the kinship of all samples at once, make the model from its block, and predict "
            "from the rest; or centre the new rows with the means that centred the model's."
        )
