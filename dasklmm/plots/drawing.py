"""What all plots share: axes of a new figure, colours, titles, scales, the line of a p-value."""

from __future__ import annotations

import math
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dasklmm import wording
from dasklmm.errors import MissingExtraError
from dasklmm.export import status_counts
from dasklmm.progress import in_notebook

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Dark and light differ in lightness, not in hue alone; vermilion is Okabe & Ito's (2008).
DARK, LIGHT, HIT = "#20558a", "#8fb4d9", "#d55e00"
INK, FAINT, BAND = "#333333", "#8a8a8a", "#dfe6ee"
_DPI = 150
# Above this the y axis is logarithmic past its lower part, so that one tower does not flatten the rest.
_LINEAR_LIMIT = 60.0
_LINEAR_TO = 20.0
_LINEAR_SHARE = 0.6


def png(ax: Axes) -> bytes:
    """PNG of the figure of an Axes, 150 dpi; the same drawing gives the same bytes."""
    import io

    buffer = io.BytesIO()
    ax.get_figure(root=True).savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def new_axes(size: tuple[float, float], right: float = 0.2) -> Axes:
    """Axes of a new figure of some inches; MissingExtraError without matplotlib.

    The figure is pyplot's where pyplot shows figures by itself, as at the end of a notebook's cell. Elsewhere it
    is not: pyplot holds its figures until they are closed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            "plots need matplotlib, which is not installed. Run: pip install 'dasklmm[plot]'"
        ) from error
    figure: Figure
    if _shown():
        from matplotlib import pyplot

        figure = pyplot.figure(figsize=size, dpi=_DPI, facecolor="white")
    else:
        figure = Figure(figsize=size, dpi=_DPI, facecolor="white")
        FigureCanvasAgg(figure)
    w, h = size
    left = 0.78  # inches: room for ticks and labels, as `right` is for what stands there
    return figure.add_axes((left / w, 0.6 / h, 1.0 - (left + right) / w, 1.0 - 1.0 / h))


def _shown() -> bool:
    """Whether pyplot shows figures by itself: in a notebook, or where it was told to be interactive."""
    if in_notebook():
        from matplotlib import get_backend

        return get_backend().lower() != "agg"  # which shows none
    pyplot = sys.modules.get("matplotlib.pyplot")
    return pyplot is not None and pyplot.isinteractive()


def file_content(ax: Axes) -> bytes:
    """PNG of a figure that was drawn for a file alone, and is closed, so that no notebook shows it too."""
    content = png(ax)
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(ax.get_figure(root=True))
    return content


def import_ahead() -> None:
    """Import matplotlib, half a second, in a thread beside work that waits or computes outside Python."""

    def imported() -> None:
        with suppress(ImportError):  # said where a plot is asked for
            import matplotlib.backends.backend_agg  # noqa: F401

    threading.Thread(target=imported, name="import-matplotlib", daemon=True).start()


def style(ax: Axes) -> None:
    """Spines, ticks and colours of every plot."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FAINT)
    ax.tick_params(colors=INK, labelsize=8.5, length=3, width=0.8)
    ax.xaxis.label.set_color(INK)
    ax.yaxis.label.set_color(INK)


def title(results: xr.Dataset) -> str:
    """What was analysed, as a plot's title."""
    state = " (incomplete)" if "incomplete" in results.attrs else ""
    return literal(wording.title(results.attrs)) + state


def literal(text: str) -> str:
    """Text as it stands."""
    # matplotlib reads text between dollar signs as mathematics.
    return text.replace("$", r"\$")


def p_text(p: float) -> str:
    """A p-value as it is written beside its line."""
    mantissa, exponent = f"{p:.1e}".split("e")
    if int(exponent) > -3:
        return f"p = {p:.3g}"
    return rf"$p = {float(mantissa):g} \times 10^{{{int(exponent)}}}$"


def nothing(ax: Axes, results: xr.Dataset | None) -> None:
    """Say on empty axes why nothing is drawn."""
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
        color=INK,
        linespacing=1.6,
    )


def highest(y: np.ndarray) -> float:
    """Largest finite value; infinite ones are drawn there."""
    finite = y[np.isfinite(y)]
    return max(float(finite.max()), 1e-3) if finite.size else 1.0


def scale_y(ax: Axes, top: float, headroom: float) -> None:
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
    ax.axhline(_LINEAR_TO, color=FAINT, lw=0.5, ls=":", zorder=0)


def y_label(ax: Axes) -> str:
    """Label of an axis of -log10 p, with a note where it is not linear."""
    note = f"  (logarithmic above {_LINEAR_TO:.0f})" if ax.get_yscale() == "function" else ""
    return r"$-\log_{10}\,p$" + note


def position_axis(ax: Axes, name: str, x: np.ndarray, position: np.ndarray) -> None:
    """Positions in Mb under a single contig."""
    from matplotlib.ticker import MaxNLocator

    first = float(position[0] - x[0])
    low, high = ax.get_xlim()
    ticks = MaxNLocator(10).tick_values((low + first) / 1e6, (high + first) / 1e6)
    ticks = ticks[(ticks * 1e6 >= low + first) & (ticks * 1e6 <= high + first)]
    ax.set_xticks(ticks * 1e6 - first, [f"{tick:.10g}" for tick in ticks])
    ax.set_xlabel(f"position on {literal(name)} (Mb)" if name else "position (Mb)")


def p_line(ax: Axes, p: float, **style: Any) -> None:
    """A line at a p-value, named at its right end."""
    y = -math.log10(p)
    ax.axhline(y, color=FAINT, zorder=1, **style)
    ax.annotate(
        p_text(p),
        (1.0, y),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        fontsize=8,
        color=INK,
        ha="left",
        va="center",
        annotation_clip=False,
    )


def variant_name(name: str, contig: str, position: int) -> str:
    """The id; without one contig:position; empty where neither is known."""
    if name in ("", "."):
        name = f"{contig}:{position}" if contig and position > 0 else ""
    name = name if len(name) <= 24 else name[:23] + "…"
    return literal(name)
