"""Regional plot: the variants around one, by their r² with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dasklmm.clumps import check_same_variants, correlations_with
from dasklmm.errors import OptionError
from dasklmm.export import GENOME_WIDE, contigs, floats, positions, strings
from dasklmm.plots.drawing import (
    FAINT,
    HIT,
    INK,
    highest,
    literal,
    new_axes,
    p_line,
    scale_y,
    style,
    title,
    variant_name,
    y_label,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# From weak to strong they darken, so that they are told apart without colour too.
R_SQUARED_COLORS = ("#c3d0de", "#8fb4d9", "#4f8ac0", "#20558a", "#0c2745")


def regional(
    results: xr.Dataset,
    genotypes: xr.Dataset | None = None,
    ax: Axes | None = None,
    *,
    lead: str | None = None,
    window: int = 500_000,
    samples: Sequence[str] | None = None,
    significance: float = GENOME_WIDE,
) -> Axes:
    """Draw -log10 p of the variants around a lead variant, coloured by their r² with it. Eager.

    Parameters
    ----------
    results : Dataset (variant)
        Of one phenotype, with variant_contig and variant_position.
    genotypes : Dataset of `open_genotypes`, optional
        Of the same variants; only those of the window are read. Without them r² is not shown.
    ax : matplotlib Axes, optional
        Default: one of a new figure (``ax.figure``), which a notebook shows under its cell.
    lead : str, optional
        Id of a tested variant; where it stands more than once, its strongest row. Default: the strongest of all.
    window : int
        Base pairs on either side of the lead.
    samples : sequence of str, optional
        Over which r² is taken. Default: all of the genotypes.
    significance : float
        p-value of the line, in (0, 1).

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    OptionError
        No such lead, or it has no test or no position; a window or significance out of range; results without
        contigs and positions, or of several phenotypes.
    GenotypeFormatError, ShapeError
        The genotypes are of other variants.

    Notes
    -----
    r² is the squared correlation of dosages over the samples that have both; 0 where it is not defined. Cost:
    reading the window, and about 20 ns a dosage.

    Examples
    --------
    >>> import dasklmm
    >>> from dasklmm import plots
    >>> cohort = dasklmm.simulate(
    ...     200, 400, n_contigs=2, n_causal=1, causal_variance=0.4, linkage_length=1e7, seed=1
    ... )
    >>> results = dasklmm.gwas(cohort, cohort["phenotype"].rename("trait"))
    >>> plots.regional(results, cohort, window=20_000_000).figure.savefig("region.png")
    """
    if not 0.0 < significance < 1.0:
        raise OptionError(f"significance is {significance!r}; a p-value between 0 and 1 is needed.")
    if not window > 0:
        raise OptionError(
            f"window is {window!r}; base pairs on either side of the lead, above 0, are needed."
        )
    row = check_region(results, genotypes, lead)
    contig, position, y = contigs(results), positions(results), floats(results, "neg_log10_p_value")
    near = np.flatnonzero(
        (contig == contig[row]) & (position > 0) & (np.abs(position - position[row]) <= window)
    )
    tested = near[~np.isnan(y[near])]
    ax = new_axes((8.2, 4.4), right=1.15) if ax is None else ax
    style(ax)
    top = highest(y[tested])
    y = np.minimum(y, top)
    x = position / 1e6
    scale_y(ax, max(top, 1.12 * -math.log10(significance)), headroom=1.16)
    ends = x[near].min(), x[near].max()
    margin = 0.02 * max(ends[1] - ends[0], 1e-6)
    ax.set_xlim(ends[0] - margin, ends[1] + margin)
    ax.set_xlabel(f"position on {literal(str(contig[row]))} (Mb)")
    ax.set_ylabel(y_label(ax))
    ax.set_title(title(results), loc="left", fontsize=11, color=INK)
    others = tested[tested != row]
    if genotypes is None:
        ax.scatter(x[others], y[others], s=20, c=R_SQUARED_COLORS[2], linewidths=0, zorder=2)
    else:
        r_sq = correlations_with(genotypes, samples)(row, others) if others.size else np.empty(0)
        _by_r_squared(ax, x[others], y[others], r_sq)
    ax.scatter(x[[row]], y[[row]], s=62, c=HIT, marker="D", edgecolors="white", linewidths=0.8, zorder=4)
    names = strings(results, "variant_id")
    ax.annotate(
        variant_name("" if names is None else names[row], contig[row], position[row]),
        (x[row], y[row]),
        xytext=(0, 8),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=8.5,
        color=INK,
        zorder=5,
    )
    p_line(ax, significance, lw=0.9, ls=(0, (5, 3)))
    untested = near.size - tested.size
    if untested:
        ax.text(
            0.99, 0.02, f"{untested:,} not tested", transform=ax.transAxes, ha="right", va="bottom", fontsize=8,
            color=FAINT,
        )  # fmt: skip
    return ax


def _by_r_squared(ax: Axes, x: np.ndarray, y: np.ndarray, r_sq: np.ndarray) -> None:
    """Points in five steps of r², the strong ones above the weak, and their legend."""
    step = np.minimum((r_sq * 5).astype(np.int64), 4)
    handles: list[Any] = []
    for k, color in enumerate(R_SQUARED_COLORS):
        part = step == k
        handles.append(
            ax.scatter(
                x[part],
                y[part],
                s=24,
                c=color,
                edgecolors="white",
                linewidths=0.3,
                zorder=2 + k / 10,
                label=f"{k / 5:.1f} to {(k + 1) / 5:.1f}",
            )
        )
    ax.legend(
        handles=handles[::-1],
        title="$r^2$ with the lead",
        title_fontsize=8,
        fontsize=8,
        frameon=False,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        handletextpad=0.2,
        borderaxespad=0.0,
    )


def check_region(results: xr.Dataset, genotypes: xr.Dataset | None, lead: str | None) -> int:
    """Row of the lead; the errors of :func:`regional` where there is nothing to draw around it."""
    if genotypes is not None:
        check_same_variants(results, genotypes)
    absent = [n for n in ("variant_contig", "variant_position") if n not in results.variables]
    if absent:
        raise OptionError(f"the results have no {', '.join(absent)}, which a regional plot needs.")
    y = floats(results, "neg_log10_p_value")
    if lead is None:
        rows = np.arange(y.size)
        what = "no variant of the results"
    else:
        names = strings(results, "variant_id")
        rows = np.flatnonzero(np.asarray([] if names is None else names) == lead)
        what = f"no variant of the id {lead!r}"
        if not rows.size:
            raise OptionError(f"lead (--region) is {lead!r}, which is the id of no variant in the results.")
    known = rows[~np.isnan(y[rows]) & (positions(results)[rows] > 0)]
    if not known.size:
        raise OptionError(f"{what} has both a test and a position, which a regional plot needs.")
    return int(known[np.argmax(y[known])])
