"""The kinship as a heat map, and its eigenvalues."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr

from dasklmm.errors import KinshipError, OptionError
from dasklmm.numerics.thinning import block_means, clustered_order
from dasklmm.plots.drawing import DARK, FAINT, HIT, INK, new_axes, style
from dasklmm.store.arrays import open_kinship

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# More cells than pixels cannot be seen.
_CELLS = 1000
# Clustering holds n²/2 distances and as much again.
_CLUSTERED = 3000
# Rows of a kinship that are read at a time.
_ROW_BYTES = 64 * 1024**2


def kinship_heatmap(kinship: Any, ax: Axes | None = None, *, order: str = "auto") -> Axes:
    """Draw a kinship, with relatives beside one another. Eager.

    Parameters
    ----------
    kinship : DataArray (sample_0, sample_1), array (sample, sample), or path of a kept kinship
        A lazy one is read by blocks of rows.
    ax : matplotlib Axes, optional
        Default: one of a new figure (``ax.figure``), which a notebook shows under its cell.
    order : {"auto", "clustered", "given"}
        Samples by hierarchical clustering (average linkage), or as they stand. "auto" clusters up to 3,000.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    KinshipError
        Not square, or not finite.
    OptionError
        No such order; or samples are too many to be clustered.

    Notes
    -----
    Of more than 1,000 samples a cell is the mean of a block of them. Colours reach to the 99.5 % quantile of what
    is off the diagonal, which would else outshine all. Memory: 64 MB of rows, and 8 MB; to cluster n² float64.

    Examples
    --------
    >>> import dasklmm
    >>> from dasklmm import plots
    >>> cohort = dasklmm.simulate(100, 400, n_contigs=2, seed=1)
    >>> plots.kinship_heatmap(dasklmm.kinship(cohort)).figure.savefig("kinship.png")
    """
    if order not in ("auto", "clustered", "given"):
        raise OptionError(f"order is {order!r}; it is 'auto', 'clustered' or 'given'.")
    if isinstance(kinship, (str, Path)):
        kinship = open_kinship(kinship)
    k = kinship.data if isinstance(kinship, xr.DataArray) else kinship
    k = k if isinstance(k, da.Array) else np.asarray(k)
    if k.ndim != 2 or k.shape[0] != k.shape[1] or not k.shape[0]:
        raise KinshipError(f"the kinship has shape {k.shape}; a square matrix (n, n) is needed.")
    n = k.shape[0]
    if order == "clustered" and n > _CLUSTERED:
        raise OptionError(
            f"order is 'clustered' and the kinship is of {n:,} samples; up to {_CLUSTERED:,} are clustered. "
            "Order them as they should stand, and give order='given'."
        )
    if order != "given" and n <= _CLUSTERED:
        values = np.asarray(k, dtype=np.float64)
        _check_finite(values)
        index = clustered_order(values)
        k, arranged = values[np.ix_(index, index)], "clustered"
    else:
        arranged = "in the order given"
    cells = _cells(k)
    ax = new_axes((5.6, 4.8)) if ax is None else ax
    from matplotlib.colors import LinearSegmentedColormap

    off = cells[~np.eye(len(cells), dtype=bool)]
    most = float(np.quantile(np.abs(off), 0.995)) if off.size else float(np.abs(cells).max())
    colors = LinearSegmentedColormap.from_list("kinship", [DARK, "white", HIT])
    drawn = ax.imshow(cells, cmap=colors, vmin=-(most or 1.0), vmax=most or 1.0, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_color(FAINT)
    each = "" if len(cells) == n else f", means of {-(-n // len(cells)):,} x {-(-n // len(cells)):,}"
    ax.set_xlabel(f"{n:,} samples, {arranged}{each}", fontsize=8.5, color=INK)
    ax.set_title("Kinship", loc="left", fontsize=11, color=INK)
    bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.8, extend="both")
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=INK, labelsize=8, length=3)
    return ax


def _check_finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise KinshipError(
            f"the kinship holds {int((~np.isfinite(values)).sum()):,} values that are not finite. Compute it anew."
        )


def _cells(k: Any) -> np.ndarray:
    """The matrix, or means of its blocks where it has more rows than cells are drawn."""
    n = k.shape[0]
    size = -(-n // _CELLS)
    rows = max(1, _ROW_BYTES // (8 * n) // size) * size
    out = []
    for start in range(0, n, rows):
        values = np.asarray(k[start : start + rows], dtype=np.float64)
        _check_finite(values)
        out.append(block_means(values, size))
    return np.concatenate(out)


def scree(spectrum: Any, ax: Axes | None = None, *, most: int | None = None) -> Axes:
    """Draw the eigenvalues of a kinship in falling order, and the share of the trace that they reach. Eager.

    Parameters
    ----------
    spectrum : Dataset of `eigendecompose`, LinearMixedModel, or array_like (eigen)
        Of the leading pairs alone the trace is not known, and no share is drawn; so of an array.
    ax : matplotlib Axes, optional
        Default: one of a new figure (``ax.figure``), which a notebook shows under its cell.
    most : int, optional
        Eigenvalues that are drawn. Default: all; of more than 100 on a logarithmic axis.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    OptionError
        No eigenvalue, one that is not finite, or `most` below 1.

    Examples
    --------
    >>> import dasklmm
    >>> from dasklmm import plots
    >>> cohort = dasklmm.simulate(100, 400, n_contigs=2, seed=1)
    >>> plots.scree(dasklmm.eigendecompose(dasklmm.kinship(cohort))).figure.savefig("scree.png")
    """
    if isinstance(spectrum, xr.Dataset):
        s, n = np.asarray(spectrum["s"].values, dtype=np.float64), spectrum.sizes["sample"]
    elif hasattr(spectrum, "h_sq_normalized_lkhd"):
        s, n = np.asarray(spectrum.s, dtype=np.float64), int(spectrum.n)
    else:
        s, n = np.asarray(spectrum, dtype=np.float64), 0
    if s.ndim != 1 or not s.size or not np.isfinite(s).all():
        raise OptionError(
            f"the spectrum has shape {s.shape}; one or more finite eigenvalues (eigen) are needed."
        )
    if most is not None and most < 1:
        raise OptionError(f"most is {most}; 1 or more is needed.")
    s = np.sort(s)[::-1]
    shown = s[:most]
    ax = new_axes((6.4, 3.8), right=0.8) if ax is None else ax
    style(ax)
    place = np.arange(1, shown.size + 1)
    ax.plot(place, shown, color=DARK, lw=1.2, marker="o", ms=3.2, markevery=slice(0, 30), zorder=3)
    if shown.size > 100:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:,.0f}")
    else:
        ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_ylim(0.0, 1.06 * float(shown.max()) or 1.0)
    ax.set_xlabel("eigenvector" if s.size >= n else f"eigenvector (leading {s.size:,} of {n:,})")
    ax.set_ylabel("eigenvalue")
    ax.set_title("Eigenvalues of the kinship", loc="left", fontsize=11, color=INK)
    if s.size == n and s.sum() > 0:
        share = ax.twinx()
        share.plot(place, np.cumsum(shown) / s.sum(), color=HIT, lw=1.4, zorder=2)
        share.set_ylim(0.0, 1.0 + 0.06)
        share.set_ylabel("share of the trace", color=HIT)
        share.tick_params(colors=HIT, labelsize=8.5, length=3, width=0.8)
        share.spines[["top", "left"]].set_visible(False)
        share.spines["right"].set_color(FAINT)
    return ax
