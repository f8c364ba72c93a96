"""The one inner product of the mixed model, for full and low rank alike.

Source: Lippert et al. 2011 (FaST-LMM, nmeth.1681), supplement 1.4 and 1.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dasklmm.numerics.records import Float


@dataclass(frozen=True, eq=False)
class Metric:
    """The inner product <z, w> = z^T (K + I/gamma)^-1 w at one variance ratio.

    With P the leading r eigenvectors of K and l = 1 for a low-rank model, 0 for a full-rank one,
    <z, w> = (Pz)^T diag(d - gamma l) (Pw) + gamma l z^T w, d = 1 / (s + 1/gamma).

    Attributes
    ----------
    rotated : ndarray (eigen)
        d - gamma l, the weights of the rotated parts.
    identity : float
        gamma l, the weight of the plain parts.
    log_det : float
        log det (K + I/gamma)^-1 = sum log d + (n - r) log gamma.
    """

    rotated: Float
    identity: float
    log_det: float


def metric(s: Float, log_gamma: float, n: int, low_rank: bool) -> Metric:
    """Weights of the inner product at a variance ratio.

    Parameters
    ----------
    s : ndarray (eigen)
        Eigenvalues of the kinship.
    log_gamma : float
        Logarithm of the variance ratio.
    n : int
        Number of samples.
    low_rank : bool
        Whether only the leading eigenpairs are kept.

    Returns
    -------
    Metric
        Cost O(eigen).
    """
    gamma = float(np.exp(log_gamma))
    d = 1.0 / (s + 1.0 / gamma)
    log_det = float(np.sum(np.log(d))) + (n - s.shape[0]) * log_gamma
    if low_rank:
        # d - gamma = -gamma s d, written so that nothing cancels where s is small
        return Metric(-gamma * s * d, gamma, log_det)
    return Metric(d, 0.0, log_det)


def inner(weights: Metric, pz: Float, pw: Float, zw: Float | float) -> Float:
    """Inner products <Z, W> of the columns of Z and W.

    Parameters
    ----------
    weights : Metric
    pz : ndarray (eigen, k) or (eigen)
        Rotated left columns.
    pw : ndarray (eigen, l) or (eigen)
        Rotated right columns.
    zw : ndarray (k, l), or of the shape that ``pz.T @ pw`` has
        Plain inner products Z^T W; not used by a full-rank model.

    Returns
    -------
    ndarray (k, l)
        Cost O(eigen k l).
    """
    return np.asarray((pz.T * weights.rotated) @ pw + weights.identity * zw, dtype=np.float64)


def metric_derivative(s: Float, log_gamma: float, n: int, low_rank: bool) -> Metric:
    """Derivative of :func:`metric` in log gamma, field by field."""
    gamma = float(np.exp(log_gamma))
    d = 1.0 / (s + 1.0 / gamma)
    log_det = float(np.sum(d / gamma)) + (n - s.shape[0])
    if low_rank:
        # d^2 / gamma - gamma, written without cancellation
        return Metric(-gamma * s * d * (1.0 + d / gamma), gamma, log_det)
    return Metric(d * d / gamma, 0.0, log_det)
