"""Manhattan plot: every variant along the genome."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from dasklmm.errors import OptionError
from dasklmm.export import GENOME_WIDE, contigs, floats, positions, strings
from dasklmm.numerics.genome import layout as _layout
from dasklmm.plots.drawing import (
    DARK,
    HIT,
    INK,
    LIGHT,
    highest,
    literal,
    new_axes,
    nothing,
    p_line,
    position_axis,
    scale_y,
    style,
    title,
    variant_name,
    y_label,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Finer than any figure's pixels: points that fall together here cannot be told apart.
_CELLS = (4000, 2000)
_THIN_ABOVE = 20_000
_TOWERS = 8
_LABEL_LENGTH = 12
_NO_CONTIG = "?"


def manhattan(
    results: xr.Dataset,
    ax: Axes | None = None,
    *,
    significance: float = GENOME_WIDE,
    suggestive: float | None = None,
    label_top: bool | int = True,
) -> Axes:
    """Draw -log10 p of every variant along the genome. Eager.

    Parameters
    ----------
    results : Dataset (variant)
        neg_log10_p_value; variant_contig, variant_position and variant_id where they are known.
    ax : matplotlib Axes, optional
        Default: one of a new figure (``ax.figure``), which a notebook shows under its cell.
    significance : float
        p-value of the line, in (0, 1).
    suggestive : float, optional
        p-value of a second, fainter line.
    label_top : bool or int
        At most so many of the towers above the line are labelled with their strongest variant; True: 8.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    OptionError
        `significance` or `suggestive` is not in (0, 1).

    Notes
    -----
    Contigs are in natural order (2 before 10, then X, Y, MT); a single one has its positions in Mb. Variants
    without a position stand at the end of their contig, after a gap, in the order of the rows; those
    without a contig stand at the right, at "?". Where values exceed 60 the axis is logarithmic above 20, and
    says so. Points that would cover one another are drawn once. Cost: about a second for a million variants.

    Examples
    --------
    >>> import dasklmm
    >>> cohort = dasklmm.simulate(100, 400, n_contigs=2, n_causal=1, causal_variance=0.4, seed=1)
    >>> results = dasklmm.gwas(cohort, cohort["phenotype"].rename("trait"))
    >>> from dasklmm import plots
    >>> axes = plots.manhattan(results, significance=1e-5)
    >>> axes.figure.savefig("manhattan.png")
    """
    for name, p in (("significance", significance), ("suggestive", suggestive)):
        if p is not None and not 0.0 < p < 1.0:
            raise OptionError(f"{name} is {p!r}; a p-value between 0 and 1 is needed.")
    most = _TOWERS if label_top is True else int(label_top)
    ax = new_axes((11.0, 4.4), right=0.8) if ax is None else ax
    y = floats(results, "neg_log10_p_value")
    position = positions(results)
    x, names, centers, code, tails = _layout(contigs(results), position)
    width = max(float(x.max()) if x.size else 1.0, 1e-9)
    line = -math.log10(significance)
    tested = ~np.isnan(y)
    top = highest(y)
    y = np.minimum(y, top)
    style(ax)
    ax.set_xlim(-0.012 * width, 1.012 * width)
    scale_y(ax, max(top, 1.12 * line), headroom=1.13)
    ax.set_ylabel(y_label(ax))
    ax.set_title(title(results), loc="left", fontsize=11, color=INK)
    if len(names) == 1 and (position > 0).all():
        position_axis(ax, names[0], x, position)
    else:
        _contig_labels(ax, names, centers, width, tails)
    if not tested.any():
        nothing(ax, results)
        return ax
    keep = np.flatnonzero(tested)
    keep = keep[_visible(x[keep] / width, y[keep] / top)]
    small = 3.2 if keep.size > 3000 else 9.0
    for parity, color in ((0, DARK), (1, LIGHT)):
        part = keep[(code[keep] % 2 == parity) & (y[keep] <= line)]
        ax.scatter(x[part], y[part], s=small, c=color, linewidths=0, rasterized=True, zorder=2)
    part = keep[y[keep] > line]
    ax.scatter(x[part], y[part], s=2.4 * small, c=HIT, linewidths=0, rasterized=True, zorder=3)
    p_line(ax, significance, lw=0.9, ls=(0, (5, 3)))
    if suggestive is not None:
        p_line(ax, suggestive, lw=0.7, ls=":")
    if most > 0 and part.size:
        _label_towers(ax, results, x, y, part, most)
    return ax


def _visible(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Indices of points, x and y in 0 to 1: of those within one cell of a fine grid the highest."""
    if x.size <= _THIN_ABOVE:
        return np.arange(x.size)
    columns, rows = _CELLS
    # Rows are finer towards 0, where an axis that is logarithmic above shows most of its height.
    cell = (x * columns).astype(np.int64) * (rows + 1) + (np.sqrt(y) * rows).astype(np.int64)
    order = np.argsort(-y, kind="stable")
    return np.sort(order[np.unique(cell[order], return_index=True)[1]])


def _contig_labels(ax: Axes, names: list[str], centers: list[float], width: float, tails: bool) -> None:
    """Contig names under the middles of their contigs, those left out that would touch another."""
    shown, shape = _short_names(names)
    if len(names) > 1 and not names[-1]:
        shown[-1] = _NO_CONTIG
    points_wide = ax.get_window_extent().width * 72.0 / ax.get_figure(root=True).dpi
    ticks, labels = [], []
    edge = -math.inf
    for center, label in zip(centers, shown, strict=True):
        at = center / width * points_wide
        half = 0.5 * 5.4 * len(label) + 2.0
        if label and at - half >= edge:
            ticks.append(center)
            labels.append(literal(label))
            edge = at + half
    ax.set_xticks(ticks, labels)
    ax.tick_params(axis="x", length=0)
    notes = [literal(shape)] if shape else []
    if tails:
        notes.append("variants of unknown position at the end of theirs")
    if shown[-1:] == [_NO_CONTIG]:
        notes.append(f"{_NO_CONTIG} contig unknown")
    if any(shown):
        ax.set_xlabel("contig" + (f"  ({'; '.join(notes)})" if notes else ""))
    else:
        ax.set_xlabel("variants in the order of the results")


def _short_names(names: list[str]) -> tuple[list[str], str]:
    """Names as they fit under an axis, and what a long name looks like around the part that is shown.

    Of long names (``scaffold_12_unplaced``) only what tells them apart is shown (``12``).
    """
    shown = [re.sub(r"^(chromosome|chrom|chr)[_ ]?(?=.)", "", n, flags=re.IGNORECASE) for n in names]
    long = [n for n in shown if len(n) > _LABEL_LENGTH]
    shape = ""
    if len(long) > 1:
        # A number is never cut in two: 10 and 11 do not become 0 and 1.
        head = re.sub(r"\d+$", "", _common(long))
        rest = [n[len(head) :] for n in long]
        tail = re.sub(r"^\d+", "", _common([n[::-1] for n in rest])[::-1])
        if head + tail and all(len(n) > len(tail) for n in rest):
            shape = f"{head}…{tail}"
            short = {n: n[len(head) : len(n) - len(tail)] for n in long}
            shown = [short.get(n, n) for n in shown]
    return [n if len(n) <= _LABEL_LENGTH else n[: _LABEL_LENGTH - 1] + "…" for n in shown], shape


def _common(words: list[str]) -> str:
    """Longest beginning that all words share."""
    first, last = min(words), max(words)
    return next((first[:i] for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), first)


def _label_towers(
    ax: Axes, results: xr.Dataset, x: np.ndarray, y: np.ndarray, hits: np.ndarray, most: int
) -> None:
    """Name the strongest variants of the towers, where their names find room."""
    names = strings(results, "variant_id")
    contig, position = contigs(results), positions(results)
    pixel = ax.get_figure(root=True).dpi / 72.0
    box = ax.get_window_extent()
    size = 7.5
    hits = hits[np.argsort(-y[hits], kind="stable")]
    points = ax.transData.transform(np.column_stack([x[hits], y[hits]]))
    # To the eye a weaker top a few pixels beside a stronger one is the same tower.
    free = np.ones(hits.size, dtype=bool)
    placed: list[tuple[float, float, float, float]] = []
    while len(placed) < most and free.any():
        first = int(np.argmax(free))
        at, row = points[first], int(hits[first])
        text = variant_name("" if names is None else names[row], contig[row], position[row])
        free &= np.abs(points[:, 0] - at[0]) >= 14 * pixel
        wide, high = (0.58 * size * len(text) + 3) * pixel, (size + 3) * pixel
        for dx, dy, align in (
            (0, 5, "center"),
            (5, -size / 2, "left"),
            (-5, -size / 2, "right"),
            (0, 15, "center"),
        ):
            left = at[0] + dx * pixel - {"center": wide / 2, "left": 0.0, "right": wide}[align]
            low = at[1] + dy * pixel
            label = (left, low, left + wide, low + high)
            inside = box.x0 <= left and label[2] <= box.x1 + 20 * pixel and label[3] <= box.y1 + 12 * pixel
            covers = ((points > label[:2]) & (points < label[2:])).all(axis=1).any()
            if text and inside and not covers and not any(_overlap(label, other) for other in placed):
                ax.annotate(
                    text,
                    (x[row], y[row]),
                    xytext=(dx, dy),
                    textcoords="offset points",
                    ha=align,
                    va="bottom",
                    fontsize=size,
                    color=INK,
                    zorder=4,
                    annotation_clip=False,
                )
                placed.append(label)
                break


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
