"""Transformations of a response before it is analysed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from dasklmm.errors import NotFiniteError, OptionError, PhenotypeError
from dasklmm.numerics.records import Float

Transform = Literal["inverse_normal", "standardise"]

BLOM_OFFSET = 3.0 / 8.0

# A spread below this share of the values' size is rounding of a constant.
CONSTANT_TOLERANCE = 1e-12


def inverse_normal(values: ArrayLike, offset: float = BLOM_OFFSET, *, what: str = "the response") -> Float:
    """Rank-based inverse normal transformation: normal quantiles of the ranks.

    The same thing is called RINT, quantile normalisation to the normal, and ``--apply-rint`` (REGENIE).

    Parameters
    ----------
    values : array (sample)
        NaN is missing.
    offset : float
        c in the quantile of (rank - c) / (n - 2c + 1), n the values that are not missing: 3/8 (Blom), 1/2
        (Rankit), 1/3 (Tukey) or 0 (van der Waerden).
    what : str
        Name of the values for messages.

    Returns
    -------
    ndarray (sample)
        float64, in standard deviations; equal values get the quantile of their mean rank, NaN stays NaN.

    Raises
    ------
    OptionError
        `offset` outside 0 <= c < 1.
    PhenotypeError, NotFiniteError
        No value or a constant; infinite values.

    Notes
    -----
    Blom, Statistical Estimates and Transformed Beta-Variables, 1958; Beasley et al., Behavior Genetics 39,
    2009, doi:10.1007/s10519-009-9281-0.
    """
    if not 0.0 <= offset < 1.0:
        raise OptionError(f"offset is {offset}; 0 <= offset < 1 is needed, 3/8 for Blom's.")
    from scipy.stats import rankdata  # two thirds of a second to import, for few runs

    out, known = _varying(values, what)
    ranks = rankdata(out[known])
    out[known] = special.ndtri((ranks - offset) / (ranks.size - 2.0 * offset + 1.0))
    return out


def standardise(values: ArrayLike, *, what: str = "the response") -> Float:
    """Values less their mean, divided by their standard deviation (with n - 1).

    Parameters
    ----------
    values : array (sample)
        NaN is missing.
    what : str
        Name of the values for messages.

    Returns
    -------
    ndarray (sample)
        float64, in standard deviations; NaN stays NaN.

    Raises
    ------
    PhenotypeError, NotFiniteError
        No value or a constant; infinite values.
    """
    out, known = _varying(values, what)
    out -= out[known].mean()
    out /= out[known].std(ddof=1)
    return out


TRANSFORMS: dict[str, Callable[..., Float]] = {"inverse_normal": inverse_normal, "standardise": standardise}


def check_transform(name: str | None) -> None:
    """Raise OptionError unless `name` is None or a transform's name."""
    if name is not None and name not in TRANSFORMS:
        raise OptionError(
            f"transform is {name!r}; None, {' or '.join(map(repr, TRANSFORMS))} is needed ('inverse_normal' is "
            "the rank-based inverse normal transformation)."
        )


def _varying(values: ArrayLike, what: str) -> tuple[Float, np.ndarray]:
    """Copy of the values as float64 and where they are known; refused where nothing varies."""
    out = np.array(values, dtype=np.float64)
    known = ~np.isnan(out)
    if not known.any():
        raise PhenotypeError(f"{what} has no value: all {out.size} samples are missing. Check the column.")
    if np.isinf(out).any():
        raise NotFiniteError(
            f"{what} has {int(np.isinf(out).sum())} infinite values. Set them to NA or mend them."
        )
    if np.ptp(out[known]) <= CONSTANT_TOLERANCE * np.abs(out[known]).max():
        raise PhenotypeError(
            f"{what} is constant ({out[known][0]:g} in all {int(known.sum())} samples), so there is nothing to "
            "transform. Check that it is the right column."
        )
    return out, known
