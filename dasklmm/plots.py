"""Manhattan, quantile-quantile and heritability plots; matplotlib is imported when one is drawn."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dasklmm import wording
from dasklmm.errors import DimensionError, MissingExtraError, OptionError
from dasklmm.export import GENOME_WIDE, contigs, floats, positions, status_counts, strings
from dasklmm.numerics.genome import layout as _layout
from dasklmm.numerics.tails import lambda_gc, qq_quantiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["h_sq_profile", "manhattan", "qq", "save_plots"]

# Dark and light differ in lightness, not in hue alone; vermilion is Okabe & Ito's (2008).
_DARK, _LIGHT, _HIT = "#20558a", "#8fb4d9", "#d55e00"
_INK, _FAINT, _BAND = "#333333", "#8a8a8a", "#dfe6ee"
_DPI = 150
# Finer than any figure's pixels: points that fall together here cannot be told apart.
_CELLS = (4000, 2000)
_THIN_ABOVE = 20_000
# Above this the y axis is logarithmic past its lower part, so that one tower does not flatten the rest.
_LINEAR_LIMIT = 60.0
_LINEAR_TO = 20.0
_LINEAR_SHARE = 0.6
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
        Default: one of a new figure (``ax.figure``), outside pyplot.
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
    ax = _new_axes((11.0, 4.4)) if ax is None else ax
    y = floats(results, "neg_log10_p_value")
    position = positions(results)
    x, names, centers, code, tails = _layout(contigs(results), position)
    width = max(float(x.max()) if x.size else 1.0, 1e-9)
    line = -math.log10(significance)
    tested = ~np.isnan(y)
    top = _top(y)
    y = np.minimum(y, top)
    _style(ax)
    ax.set_xlim(-0.012 * width, 1.012 * width)
    _scale_y(ax, max(top, 1.12 * line), headroom=1.13)
    ax.set_ylabel(_y_label(ax))
    ax.set_title(_title(results), loc="left", fontsize=11, color=_INK)
    if len(names) == 1 and (position > 0).all():
        _position_axis(ax, names[0], x, position)
    else:
        _contig_labels(ax, names, centers, width, tails)
    if not tested.any():
        _nothing(ax, results)
        return ax
    keep = np.flatnonzero(tested)
    keep = keep[_visible(x[keep] / width, y[keep] / top)]
    small = 3.2 if keep.size > 3000 else 9.0
    for parity, color in ((0, _DARK), (1, _LIGHT)):
        part = keep[(code[keep] % 2 == parity) & (y[keep] <= line)]
        ax.scatter(x[part], y[part], s=small, c=color, linewidths=0, rasterized=True, zorder=2)
    part = keep[y[keep] > line]
    ax.scatter(x[part], y[part], s=2.4 * small, c=_HIT, linewidths=0, rasterized=True, zorder=3)
    _p_line(ax, significance, lw=0.9, ls=(0, (5, 3)))
    if suggestive is not None:
        _p_line(ax, suggestive, lw=0.7, ls=":")
    if most > 0 and part.size:
        _label_towers(ax, results, x, y, part, most)
    return ax


def qq(results: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw observed against expected -log10 p, with its 95 % band and the genomic inflation. Eager.

    Parameters
    ----------
    results : Dataset (variant)
    ax : matplotlib Axes, optional
        Default: one of a new figure (``ax.figure``), outside pyplot.

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
    ax = _new_axes((4.8, 4.6)) if ax is None else ax
    y = floats(results, "neg_log10_p_value")
    pairs = qq_quantiles(y, max_points=20_000)
    _style(ax)
    ax.set_title(_title(results), loc="left", fontsize=11, color=_INK)
    ax.set_xlabel(r"expected $-\log_{10}\,p$")
    if pairs.n == 0:
        ax.set_ylabel(r"observed $-\log_{10}\,p$")
        _nothing(ax, results)
        return ax
    top = _top(y)
    right = 1.04 * max(float(pairs.expected.max()), 0.5)
    _scale_y(ax, max(top, float(pairs.upper.max())), headroom=1.05)
    ax.set_xlim(0.0, right)
    ax.set_ylabel("observed " + _y_label(ax))
    ax.fill_between(pairs.expected, pairs.lower, pairs.upper, color=_BAND, lw=0, zorder=1, label="95 % band")
    ends = np.linspace(0.0, right, 200)
    ax.plot(ends, ends, color=_FAINT, lw=1.0, zorder=2)
    observed = np.minimum(pairs.observed, top)
    hit = observed > -math.log10(GENOME_WIDE)
    for part, color in ((~hit, _DARK), (hit, _HIT)):
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
        color=_INK,
        linespacing=1.5,
    )
    ax.legend(loc="lower right", frameon=False, fontsize=8)
    return ax


def h_sq_profile(profile: Any, ax: Axes | None = None) -> Axes:
    """Draw the normalised restricted likelihood of the heritability. Eager.

    Parameters
    ----------
    profile : LinearMixedModel, or array_like (101), float64
        A model, or its :meth:`~dasklmm.LinearMixedModel.h_sq_normalized_lkhd`: the likelihood at h² = 0, 1,
        … 100 %, NaN where it is not known, as at both ends.
    ax : matplotlib Axes, optional
        Default: one of a new figure (``ax.figure``), outside pyplot.

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
    ax = _new_axes((5.6, 3.6)) if ax is None else ax
    h = np.arange(101) / 100.0
    _style(ax)
    ax.set_xlim(0.0, 1.0)
    ax.set_xlabel("heritability $h^2$")
    ax.set_ylabel("normalised likelihood")
    ax.set_title("Restricted likelihood of the heritability", loc="left", fontsize=11, color=_INK)
    known = np.isfinite(values)
    if not known.any():
        _nothing(ax, None)
        return ax
    ax.fill_between(h, np.where(known, values, 0.0), where=known, color=_BAND, lw=0, zorder=1)
    ax.plot(h[known], values[known], color=_DARK, lw=1.8, zorder=2)
    best = int(np.nanargmax(values))
    ax.axvline(h[best], color=_HIT, lw=1.0, ls=(0, (5, 3)), zorder=2)
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
        color=_HIT,
    )
    ax.set_ylim(0.0, 1.12 * float(values[known].max()) or 1.0)
    return ax


def save_plots(results: xr.Dataset, directory: str | Path) -> None:
    """Write manhattan.png and qq.png into a directory, at 150 dpi. Eager.

    Parameters
    ----------
    results : Dataset (variant)
    directory : path
        Made if absent. Each file is written whole and renamed into place.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.

    Examples
    --------
    >>> import dasklmm
    >>> cohort = dasklmm.simulate(100, 400, n_contigs=2, n_causal=1, causal_variance=0.4, seed=1)
    >>> results = dasklmm.gwas(cohort, cohort["phenotype"].rename("trait"))
    >>> from dasklmm import plots
    >>> plots.save_plots(results, ".")  # manhattan.png and qq.png
    """
    folder = Path(directory)
    for name, draw in (("manhattan", manhattan), ("qq", qq)):
        content = png(draw(results))
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{name}.png.partial"
        try:
            partial.write_bytes(content)
            os.replace(partial, folder / f"{name}.png")
        finally:
            partial.unlink(missing_ok=True)


def png(ax: Axes) -> bytes:
    """PNG of the figure of an Axes, 150 dpi; the same drawing gives the same bytes."""
    import io

    buffer = io.BytesIO()
    ax.get_figure(root=True).savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


# drawing ----------------------------------------------------------------------------------------


def _new_axes(size: tuple[float, float]) -> Axes:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            "plots need matplotlib, which is not installed. Run: pip install 'dasklmm[plot]'"
        ) from error
    figure: Figure = Figure(figsize=size, dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    w, h = size
    # Inches: room for ticks and labels at the left, for the name of the line at the right of a wide plot.
    left, right = 0.78, 0.8 if w > 8 else 0.2
    return figure.add_axes((left / w, 0.6 / h, 1.0 - (left + right) / w, 1.0 - 1.0 / h))


def _style(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(_FAINT)
    ax.tick_params(colors=_INK, labelsize=8.5, length=3, width=0.8)
    ax.xaxis.label.set_color(_INK)
    ax.yaxis.label.set_color(_INK)


def _title(results: xr.Dataset) -> str:
    return _literal(wording.title(results.attrs))


def _literal(text: str) -> str:
    # matplotlib reads text between dollar signs as mathematics.
    return text.replace("$", r"\$")


def _p_text(p: float) -> str:
    mantissa, exponent = f"{p:.1e}".split("e")
    if int(exponent) > -3:
        return f"p = {p:.3g}"
    return rf"$p = {float(mantissa):g} \times 10^{{{int(exponent)}}}$"


def _nothing(ax: Axes, results: xr.Dataset | None) -> None:
    message = "No variant has a p-value" if results is not None else "The likelihood is not known"
    if results is not None:
        counts = [f"{name.replace('_', ' ')} {n:,}" for name, n in status_counts(results).items()]
        message += "\n" + ", ".join(counts[:4])
    ax.text(
        0.5,
        0.5,
        message,
        transform=ax.transAxes,
        ha="center",
        va="center",
        fontsize=11,
        color=_INK,
        linespacing=1.6,
    )


def _top(y: np.ndarray) -> float:
    """Largest finite value; infinite ones are drawn there."""
    finite = y[np.isfinite(y)]
    return max(float(finite.max()), 1e-3) if finite.size else 1.0


def _scale_y(ax: Axes, top: float, headroom: float) -> None:
    """Limits from 0, and past _LINEAR_LIMIT a scale that is linear below and logarithmic above."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    if top <= _LINEAR_LIMIT:
        ax.yaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
        ax.set_ylim(0.0, headroom * top)
        return
    rate = _LINEAR_TO * (1.0 / _LINEAR_SHARE - 1.0) / math.log(top / _LINEAR_TO)

    def forward(v: Any) -> Any:
        v = np.asarray(v, dtype=np.float64)
        return np.where(
            v <= _LINEAR_TO, v, _LINEAR_TO + rate * np.log(np.maximum(v, _LINEAR_TO) / _LINEAR_TO)
        )

    def inverse(v: Any) -> Any:
        v = np.asarray(v, dtype=np.float64)
        over = np.clip(v - _LINEAR_TO, 0.0, 500.0 * rate)
        return np.where(v <= _LINEAR_TO, v, _LINEAR_TO * np.exp(over / rate))

    ax.set_yscale("function", functions=(forward, inverse))
    ax.set_ylim(0.0, float(inverse(headroom * forward(top))))
    steps = [m * 10.0**e for e in range(1, 9) for m in (1, 2, 5)]
    high = [v for v in steps if 1.6 * _LINEAR_TO < v <= 1.02 * top]
    stride = max(1, math.ceil(len(high) / 5))
    ax.yaxis.set_major_locator(FixedLocator([0, 5, 10, 15, 20, *high[::-1][::stride][::-1]]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    ax.axhline(_LINEAR_TO, color=_FAINT, lw=0.5, ls=":", zorder=0)


def _y_label(ax: Axes) -> str:
    note = f"  (logarithmic above {_LINEAR_TO:.0f})" if ax.get_yscale() == "function" else ""
    return r"$-\log_{10}\,p$" + note


def _visible(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Indices of points, x and y in 0 to 1: of those within one cell of a fine grid the highest."""
    if x.size <= _THIN_ABOVE:
        return np.arange(x.size)
    columns, rows = _CELLS
    # Rows are finer towards 0, where an axis that is logarithmic above shows most of its height.
    cell = (x * columns).astype(np.int64) * (rows + 1) + (np.sqrt(y) * rows).astype(np.int64)
    order = np.argsort(-y, kind="stable")
    return np.sort(order[np.unique(cell[order], return_index=True)[1]])


# the genome on the x axis -----------------------------------------------------------------------


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
            labels.append(_literal(label))
            edge = at + half
    ax.set_xticks(ticks, labels)
    ax.tick_params(axis="x", length=0)
    notes = [_literal(shape)] if shape else []
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


def _position_axis(ax: Axes, name: str, x: np.ndarray, position: np.ndarray) -> None:
    """Positions in Mb under a single contig."""
    from matplotlib.ticker import MaxNLocator

    first = float(position[0] - x[0])
    low, high = ax.get_xlim()
    ticks = MaxNLocator(10).tick_values((low + first) / 1e6, (high + first) / 1e6)
    ticks = ticks[(ticks * 1e6 >= low + first) & (ticks * 1e6 <= high + first)]
    ax.set_xticks(ticks * 1e6 - first, [f"{tick:.10g}" for tick in ticks])
    ax.set_xlabel(f"position on {_literal(name)} (Mb)" if name else "position (Mb)")


def _p_line(ax: Axes, p: float, **style: Any) -> None:
    """A line at a p-value, named at its right end."""
    y = -math.log10(p)
    ax.axhline(y, color=_FAINT, zorder=1, **style)
    ax.annotate(
        _p_text(p),
        (1.0, y),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        fontsize=8,
        color=_INK,
        ha="left",
        va="center",
        annotation_clip=False,
    )


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
        text = _variant_name("" if names is None else names[row], contig[row], position[row])
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
                    color=_INK,
                    zorder=4,
                    annotation_clip=False,
                )
                placed.append(label)
                break


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _variant_name(name: str, contig: str, position: int) -> str:
    """The id; without one contig:position; empty where neither is known."""
    if name in ("", "."):
        name = f"{contig}:{position}" if contig and position > 0 else ""
    name = name if len(name) <= 24 else name[:23] + "…"
    return _literal(name)
