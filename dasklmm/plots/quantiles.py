"""Quantile-quantile plot of p-values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from dasklmm.export import GENOME_WIDE, floats
from dasklmm.numerics.tails import lambda_gc, qq_quantiles
from dasklmm.plots.drawing import (
    BAND,
    DARK,
    FAINT,
    HIT,
    INK,
    highest,
    new_axes,
    nothing,
    scale_y,
    style,
    title,
    y_label,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def qq(results: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw observed against expected -log10 p, with its 95 % band and the genomic inflation. Eager.

    Parameters
    ----------
    results : Dataset (variant)
    ax : matplotlib Axes, optional
        Default: one of a new figure (``ax.figure``), which a notebook shows under its cell.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.

    Notes
    -----
    The band is pointwise and for independent tests; linked variants leave it more often.

    Examples
    --------
    >>> import dasklmm
    >>> cohort = dasklmm.simulate(100, 400, n_contigs=2, n_causal=1, causal_variance=0.4, seed=1)
    >>> results = dasklmm.gwas(cohort, cohort["phenotype"].rename("trait"))
    >>> from dasklmm import plots
    >>> plots.qq(results).figure.savefig("qq.png")
    """
    ax = new_axes((4.8, 4.6)) if ax is None else ax
    y = floats(results, "neg_log10_p_value")
    pairs = qq_quantiles(y, max_points=20_000)
    style(ax)
    ax.set_title(title(results), loc="left", fontsize=11, color=INK)
    ax.set_xlabel(r"expected $-\log_{10}\,p$")
    if pairs.n == 0:
        ax.set_ylabel(r"observed $-\log_{10}\,p$")
        nothing(ax, results)
        return ax
    top = highest(y)
    right = 1.04 * max(float(pairs.expected.max()), 0.5)
    scale_y(ax, max(top, float(pairs.upper.max())), headroom=1.05)
    ax.set_xlim(0.0, right)
    ax.set_ylabel("observed " + y_label(ax))
    ax.fill_between(pairs.expected, pairs.lower, pairs.upper, color=BAND, lw=0, zorder=1, label="95 % band")
    ends = np.linspace(0.0, right, 200)
    ax.plot(ends, ends, color=FAINT, lw=1.0, zorder=2)
    observed = np.minimum(pairs.observed, top)
    hit = observed > -math.log10(GENOME_WIDE)
    for part, color in ((~hit, DARK), (hit, HIT)):
        ax.scatter(
            pairs.expected[part],
            observed[part],
            s=9,
            c=color,
            linewidths=0,
            rasterized=True,
            zorder=3,
            clip_on=False,
        )
    ax.text(
        0.04,
        0.96,
        f"$\\lambda_{{GC}}$ = {lambda_gc(y):.3f}\n{pairs.n:,} variants",
        transform=ax.transAxes,
        ha="left",
        va="top",
        fontsize=10,
        color=INK,
        linespacing=1.5,
    )
    ax.legend(loc="lower right", frameon=False, fontsize=8)
    return ax
