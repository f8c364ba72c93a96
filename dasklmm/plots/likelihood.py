"""Restricted likelihood of the heritability."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dasklmm.errors import DimensionError
from dasklmm.plots.drawing import BAND, DARK, HIT, INK, new_axes, nothing, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def h_sq_profile(profile: Any, ax: Axes | None = None) -> Axes:
    """Draw the normalised restricted likelihood of the heritability. Eager.

    Parameters
    ----------
    profile : LinearMixedModel, or array_like (101), float64
        A model, or its :meth:`~dasklmm.LinearMixedModel.h_sq_normalized_lkhd`: the likelihood at h² = 0, 1,
        … 100 %, NaN where it is not known, as at both ends.
    ax : matplotlib Axes, optional
        Default: one of a new figure (``ax.figure``), which a notebook shows under its cell.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    DimensionError
        `profile` does not have 101 values.

    Examples
    --------
    >>> import numpy as np
    >>> import dasklmm
    >>> from dasklmm import plots
    >>> cohort = dasklmm.simulate(100, 400, n_contigs=2, h_sq=0.5, seed=1)
    >>> model, p = dasklmm.linear_mixed_model(cohort["phenotype"], np.ones((100, 1)), cohort)
    >>> plots.h_sq_profile(model).figure.savefig("profile.png")
    """
    if hasattr(profile, "h_sq_normalized_lkhd"):
        profile = profile.h_sq_normalized_lkhd()
    values = np.asarray(profile, dtype=np.float64)
    if values.shape != (101,):
        raise DimensionError(
            f"profile has shape {values.shape}; 101 values are needed, for h² = 0, 1, … 100 %, as from "
            "LinearMixedModel.h_sq_normalized_lkhd()."
        )
    ax = new_axes((5.6, 3.6)) if ax is None else ax
    h = np.arange(101) / 100.0
    style(ax)
    ax.set_xlim(0.0, 1.0)
    ax.set_xlabel("heritability $h^2$")
    ax.set_ylabel("normalised likelihood")
    ax.set_title("Restricted likelihood of the heritability", loc="left", fontsize=11, color=INK)
    known = np.isfinite(values)
    if not known.any():
        nothing(ax, None)
        return ax
    ax.fill_between(h, np.where(known, values, 0.0), where=known, color=BAND, lw=0, zorder=1)
    ax.plot(h[known], values[known], color=DARK, lw=1.8, zorder=2)
    best = int(np.nanargmax(values))
    ax.axvline(h[best], color=HIT, lw=1.0, ls=(0, (5, 3)), zorder=2)
    left = h[best] > 0.6
    ax.annotate(
        f"{h[best]:.2f}",
        (h[best], 0.97),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if left else 5, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="top",
        fontsize=10,
        color=HIT,
    )
    ax.set_ylim(0.0, 1.12 * float(values[known].max()) or 1.0)
    return ax
