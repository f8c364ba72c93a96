"""Whitening of samples at one variance ratio: a triangular matrix in the place of eigenvectors.

With P and s of a full-rank kinship K, and d = 1 / (s + 1/gamma), (K + I/gamma)^-1 = P^T diag(d) P = W^T W, W upper
triangular (Cholesky). Under the null Wy has independent samples: its kinship is zero and its variance ratio 1, so
that all tests are those of rotated data with s = 0. W a costs half of P a, but belongs to one phenotype.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasklmm.errors import KinshipError
from dasklmm.numerics import design
from dasklmm.numerics.alternatives import Test, alternative_test, collinearity_tolerance
from dasklmm.numerics.moments import metric
from dasklmm.numerics.records import AlternativeTest, Float

# W of a covariance in float64 is good to its condition number times 1e-16.
MOST_CONDITION = 1e10

# W is kept in float64 where float32 could not tell an alternative with this share outside the span of the
# covariates from one within it.
SINGLE_TOLERANCE = 1e-4


def condition(s: Float, log_gamma: float) -> float:
    """Condition number of K + I/gamma: its largest eigenvalue over its smallest."""
    d = metric(s, log_gamma, s.shape[0], False).rotated
    return float(d.max() / d.min())


def stored_dtype(wanted: Any, s: Float, log_gamma: float) -> Any:
    """The precision that is wanted of W, or float64 where its collinearity tolerance would be above 1e-4."""
    rounding = collinearity_tolerance(np.dtype(wanted), s.shape[0], condition(s, log_gamma))
    return wanted if rounding <= SINGLE_TOLERANCE else np.float64


def whitening(p: NDArray[Any], s: Float, log_gamma: float) -> Float:
    """W with W^T W = (K + I/gamma)^-1.

    Parameters
    ----------
    p : ndarray (eigen, sample)
        All eigenvectors of the kinship.
    s : ndarray (eigen)
        Their eigenvalues.
    log_gamma : float
        Logarithm of the variance ratio.

    Returns
    -------
    ndarray (sample, sample), float64
        Upper triangular. Cost 4/3 sample^3 flop; memory 3 sample^2 float64 beside `p`.

    Raises
    ------
    KinshipError
        The covariance is too ill-conditioned, or `p` not orthogonal.
    """
    if (ratio := condition(s, log_gamma)) > MOST_CONDITION:
        raise KinshipError(
            f"the covariance at log_gamma {log_gamma:.3g} has condition number {ratio:.1e} (the kinship's largest "
            f"eigenvalue is {s.max():.3g}); whitening needs {MOST_CONDITION:.0e} or less. Scan with whiten=False "
            "(without --whiten), or a kinship whose diagonal is about 1."
        )
    d = metric(s, log_gamma, p.shape[1], False).rotated
    scaled = np.sqrt(d)[:, None] * p
    inverse = scaled.T @ scaled
    del scaled
    try:
        return np.linalg.cholesky(inverse, upper=True)
    except np.linalg.LinAlgError as error:
        raise KinshipError(
            "the eigenvectors are not orthogonal, or not finite: what they make is no inverse covariance. Check "
            "the decomposition that was given (p p^T is the identity), or give the kinship."
        ) from error


def whitened_test(wy: Float, wx: Float, s: Float, log_gamma: float, test: Test = "lrt") -> AlternativeTest:
    """Prepare the test of whitened alternatives.

    Parameters
    ----------
    wy : ndarray (sample)
    wx : ndarray (sample, covariate)
        Response and covariates, whitened.
    s : ndarray (eigen)
        Eigenvalues of the kinship.
    log_gamma : float
        At which they were whitened.
    test : {"lrt", "wald", "score"}

    Returns
    -------
    AlternativeTest
        For :func:`~dasklmm.numerics.scan.scan_block` with W as its `p`.

    Raises
    ------
    OptionError, CovariateError
        As of :func:`~dasklmm.numerics.alternatives.alternative_test`.
    """
    data, _ = design.orthogonal(design.rotated_data(wy, wx, np.zeros(wy.shape[0])))
    return replace(alternative_test(data, 0.0, test), triangular=True, condition=condition(s, log_gamma))
