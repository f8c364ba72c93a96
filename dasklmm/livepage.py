"""The page of a running scan on the scheduler's dashboard, drawn with Bokeh; imported on the scheduler alone."""

from __future__ import annotations

import functools
import logging
import math
import time
from html import escape
from typing import Any

import jinja2
import numpy as np
from bokeh.models import (
    ColumnDataSource,
    CustomJS,
    Div,
    FixedTicker,
    HoverTool,
    NoOverlap,
    Range1d,
    Select,
    Span,
)
from bokeh.plotting import figure
from bokeh.server.connection import ServerConnection
from distributed.dashboard.core import BokehApplication
from distributed.dashboard.scheduler import template_variables
from tornado.ioloop import IOLoop

# Dark and light differ in lightness, not in hue alone; hits are Okabe & Ito's vermilion, larger, and ringed.
_LINE = -math.log10(5e-8)
_EVERY_MS = 500
_NAMED_POINTS = 200
# A run has the last two always, and those before where they are computed.
_STAGES = {
    "kinship": "Kinship",
    "leading pairs": "Leading pairs",
    "null model": "Rotate and fit the null models",
    "test": "Test",
}
_ALWAYS = ("null model", "test")

_COLORS = """
const dark = matchMedia("(prefers-color-scheme: dark)");
function paint() {
  const d = dark.matches;
  const ink = d ? "#e4e9ee" : "#1c2733", soft = d ? "#9aa7b4" : "#5b6876", rule = d ? "#323b45" : "#dde3ea";
  even.glyph.fill_color = {value: d ? "#8fb4d9" : "#20558a"};
  odd.glyph.fill_color = {value: d ? "#4d7fb3" : "#8fb4d9"};
  hits.glyph.fill_color = {value: d ? "#ff8c42" : "#d55e00"};
  hits.glyph.line_color = {value: d ? "#14191f" : "#ffffff"};
  line.line_color = soft;
  for (const axis of [x_axis, y_axis]) {
    axis.major_label_text_color = ink; axis.axis_label_text_color = soft; axis.axis_line_color = soft;
    axis.major_tick_line_color = soft;
  }
  grid.grid_line_color = rule;
}
dark.addEventListener("change", paint);
paint();
"""

_TEMPLATE = jinja2.Template(
    """{% from macros import embed %}<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>dasklmm: scan</title>
<link rel="shortcut icon" href="statics/images/favicon.ico">
{{ bokeh_css }}
{{ bokeh_js }}
<style>
:root { color-scheme: light dark; --ink: #1c2733; --soft: #5b6876; --rule: #dde3ea; --page: #fbfcfd;
  --card: #ffffff; --mark: #20558a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --soft: #9aa7b4; --rule: #323b45;
  --page: #14191f; --card: #1b222a; --mark: #8fb4d9; } }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 24px 28px 40px; }
nav { display: flex; gap: 18px; font-size: 13.5px; align-items: baseline; }
nav strong { font-size: 15px; margin-right: auto; }
a { color: var(--mark); text-decoration: none; }
a:hover { text-decoration: underline; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 12px;
  margin-top: 16px; }
.line { display: flex; flex-wrap: wrap; gap: 16px; align-items: end; margin-top: 10px; }
.line > :first-child { flex: 1 1 300px; }
</style>
</head>
<body>
<main>
<nav><strong>dasklmm</strong><a href="status">Dask status</a><a href="tasks">tasks</a>
<a href="workers">workers</a></nav>
<div class="line"><div>{{ embed(roots.heading) }}</div><div>{{ embed(roots.choice) }}</div></div>
{{ embed(roots.tiles) }}
<div class="card">{{ embed(roots.manhattan) }}</div>
{{ embed(roots.stages) }}
</main>
{{ plot_script }}
</body>
</html>
"""
)

# Within a Div's own style sheet; the page's colours reach it as custom properties.
_STYLE = """
:host { width: 100%; color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.bk-clearfix { width: 100%; }
h1 { font-size: 26px; line-height: 1.2; margin: 6px 0 2px; overflow-wrap: anywhere; }
p { margin: 0; color: var(--soft); font-size: 14px; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; margin: 16px 0 0; }
dl div { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 10px 16px; }
dt { color: var(--soft); font-size: 13px; }
dd { margin: 2px 0 0; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
small { font-size: 13px; font-weight: 400; color: var(--soft); }
ul { list-style: none; margin: 16px 0 0; padding: 0; display: grid; gap: 10px; }
li { display: grid; grid-template-columns: 240px 1fr 150px; gap: 16px; align-items: center; }
li span { font-variant-numeric: tabular-nums; color: var(--soft); text-align: right; }
.bar { height: 10px; border-radius: 5px; background: var(--rule); overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--mark); border-radius: 5px; }
@media (max-width: 640px) { li { grid-template-columns: 1fr; gap: 2px; } li span { text-align: left; } }
"""

# Bokeh's own control is black on white whatever the page is.
_CONTROL = """
.bk-input-group label { color: var(--soft); font-size: 13px; }
select:not([multiple]).bk-input { appearance: auto; background: var(--card); color: var(--ink);
  border-color: var(--rule); }
"""


def connect(scheduler: Any, path: str, shown: Any) -> bool:
    """Serve the page beside the dashboard's own; False where the scheduler serves no dashboard."""
    application = scheduler.http_application
    dashboards = [a for a in application.applications if hasattr(a, "app_paths")]
    if not dashboards:
        return False
    prefix = dashboards[0].prefix
    names = template_variables(scheduler)
    page = functools.partial(_document, shown)
    bokeh_app = BokehApplication({path: page}, scheduler, prefix=prefix, template_variables=names)
    application.add_application(bokeh_app)
    bokeh_app.initialize(IOLoop.current())
    bokeh_app.start()
    logging.getLogger("tornado.application").addFilter(_worth_telling)
    # the list that the navigation bar of every page is made from
    if path.strip("/") not in names["pages"]:
        names["pages"].append(path.strip("/"))
    return True


def _worth_telling(record: logging.LogRecord) -> bool:
    """False for what Bokeh 3 raises where a page is closed as it opens: nothing is wrong, and nobody is there."""
    error = record.exc_info[1] if record.exc_info else None
    trace = error.__traceback__ if isinstance(error, AssertionError) else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is None or trace.tb_frame.f_code is not ServerConnection.session.fget.__code__


def _document(shown: Any, scheduler: Any, extra: Any, doc: Any) -> None:
    doc.title = "dasklmm: scan"
    doc.template = _TEMPLATE
    page = _Page(shown)
    for root in (page.heading, page.choice, page.tiles, page.plot, page.stages):
        doc.add_root(root)
    doc.js_on_event("document_ready", page.paint)
    page.update()
    doc.add_periodic_callback(page.update, _EVERY_MS)


class _Page:
    """The models of one reader's page, and how they follow what is shown."""

    def __init__(self, shown: Any) -> None:
        self._shown = shown
        self._drawn: Any = None
        self._run = ""
        self.heading, self.tiles, self.stages = (
            Div(name=name, sizing_mode="stretch_width", margin=0, stylesheets=[_STYLE])
            for name in ("heading", "tiles", "stages")
        )
        self.choice = Select(
            name="choice", title="Phenotype", options=[], width=220, margin=0, stylesheets=[_CONTROL]
        )
        self.choice.on_change("value", lambda attr, old, new: self.update())
        empty: dict[str, list[float]] = {"x": [], "y": []}
        self._sources = [ColumnDataSource(empty) for _ in range(2)]
        self._hits = ColumnDataSource({**empty, "place": []})
        self.plot = plot = figure(
            name="manhattan",
            height=400,
            sizing_mode="stretch_width",
            x_range=Range1d(-0.012, 1.012),
            y_range=Range1d(0, 9),
            tools="xpan,xwheel_zoom,xbox_zoom,reset,save",
            toolbar_location="above",
            output_backend="canvas",
            background_fill_alpha=0,
            border_fill_alpha=0,
            outline_line_alpha=0,
        )
        plot.toolbar.logo = None
        even, odd = (
            plot.scatter("x", "y", source=source, size=4, line_alpha=0, fill_color="#20558a")
            for source in self._sources
        )
        hits = plot.scatter("x", "y", source=self._hits, size=8, line_width=1, fill_color="#d55e00")
        plot.add_tools(
            HoverTool(renderers=[hits], tooltips=[("at", "@place"), ("−log₁₀ p", "@y{0.00}")], name="hover")
        )
        line = Span(location=_LINE, dimension="width", line_dash="dashed", line_width=1)
        plot.add_layout(line)
        plot.xgrid.visible = False
        plot.yaxis.axis_label = "−log₁₀ p"
        plot.xaxis.axis_label = "contig"
        plot.xaxis.major_label_policy = NoOverlap(min_distance=6)
        plot.yaxis.minor_tick_line_alpha = plot.xaxis.major_tick_line_alpha = 0
        plot.xaxis.minor_tick_line_alpha = 0
        x_axis, y_axis = plot.xaxis[0], plot.yaxis[0]
        x_axis.axis_label_text_font_style = y_axis.axis_label_text_font_style = "normal"
        args = {"even": even, "odd": odd, "hits": hits, "line": line, "x_axis": x_axis, "y_axis": y_axis}
        self.paint = CustomJS(args={**args, "grid": plot.ygrid[0]}, code=_COLORS)

    def update(self) -> None:
        """Draw what has changed since the last time."""
        shown = self._shown
        options = list(shown.points)
        if self._run != shown.run:
            self._run = shown.run
            self.choice.options = options
            self.choice.visible = len(options) > 1
            self.choice.value = options[0] if options else ""
        name = self.choice.value if self.choice.value in shown.points else (options[0] if options else "")
        self.heading.text = _heading(shown, name)
        if self._drawn == (shown.version, name):
            return
        self._drawn = (shown.version, name)
        points = shown.points.get(name)
        self.tiles.text = _tiles(points)
        self.stages.text = _stages(shown)
        if points is not None:
            self._draw(points)

    def _draw(self, points: dict[str, Any]) -> None:
        contigs = self._shown.contigs
        kept = np.flatnonzero(np.isfinite(points["y"]))
        x, y, contig = points["x"][kept], points["y"][kept], points["contig"][kept]
        for parity, source in enumerate(self._sources):
            part = (contig % 2 == parity) & (y <= _LINE)
            source.data = {"x": x[part], "y": y[part]}
        top = np.flatnonzero(y > _LINE)
        named = top[np.argsort(-y[top], kind="stable")]
        places = [
            f"{contigs[contig[i]][0]}:{points['position'][kept[i]]:,}" if rank < _NAMED_POINTS else ""
            for rank, i in enumerate(named)
        ]
        self._hits.data = {"x": x[named], "y": y[named], "place": places}
        self.plot.y_range.end = max(1.15 * _LINE, 1.1 * float(y.max())) if y.size else 9.0
        ticks = _spaced(contigs)
        axis = self.plot.xaxis[0]
        axis.ticker = FixedTicker(ticks=[at for _, at in ticks])
        # positions are keys of equal value on both sides
        axis.major_label_overrides = {at: name for name, at in ticks}


def _spaced(contigs: list[list[Any]]) -> list[tuple[str, float]]:
    """Contig names that fit beside one another on a wide page; on a narrow one the browser leaves out more."""
    out: list[tuple[str, float]] = []
    edge = -1.0
    for name, at in contigs:
        text = name if len(name) <= 12 else name[:11] + "…"
        half = 0.0033 * (len(text) + 1.5)
        if text and at - half >= edge:
            out.append((text, float(at)))
            edge = at + half
    return out


def _heading(shown: Any, name: str) -> str:
    if not shown.run:
        return "<h1>No scan yet</h1><p>The next scan on this cluster is shown here as its results arrive.</p>"
    seconds = (shown.ended or time.time()) - shown.begun
    state = {"running": "Running", "complete": "Complete", "stopped": "Stopped"}.get(shown.state, "Running")
    text = f"{state}, {duration(seconds)}"
    if len(shown.phenotypes) > len(shown.points):
        text += f". The first {len(shown.points)} of {len(shown.phenotypes):,} phenotypes are shown here"
    return f"<h1>{escape(name)}</h1><p>{text}.</p>"


def duration(seconds: float) -> str:
    """Seconds in words, as "3 min 20 s"."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _tiles(points: dict[str, Any] | None) -> str:
    known = points is not None and "top" in points
    value = points["lambda_gc"] if known and points else float("nan")
    inflation = f"{value:.3f}" if math.isfinite(value) else "—"
    tested = f"{points['tested']:,}" if known and points else "0"
    best = "—"
    if known and points:
        top = points["top"]
        place = f"{top['contig']}:{top['position']:,}" if top["position"] > 0 else top["contig"]
        where = " at ".join(part for part in (top["id"], place) if part)
        best = f"{top['y']:.2f} <small>−log₁₀ p, {escape(where)}</small>"
    return (
        f"<dl><div><dt>inflation λ<sub>GC</sub></dt><dd>{inflation}</dd></div>"
        f"<div><dt>variants tested</dt><dd>{tested}</dd></div>"
        f"<div style='grid-column: span 2'><dt>strongest</dt><dd>{best}</dd></div></dl>"
    )


def _stages(shown: Any) -> str:
    rows = []
    for stage, title in _STAGES.items():
        if stage not in shown.stages and stage not in _ALWAYS:
            continue
        done, total = shown.stages.get(stage, (0, 0))
        share = 100.0 * done / total if total else 0.0
        count = f"{done:,} of {total:,}" if total else "not begun"
        left = shown.left.get(stage, "")
        count += f"<br>{escape(left)}" if left else ""
        rows.append(
            f"<li>{title}<div class='bar' role='progressbar' aria-label='{title}' aria-valuenow='{share:.0f}'>"
            f"<i style='width:{share:.1f}%'></i></div><span>{count}</span></li>"
        )
    return f"<ul>{''.join(rows)}</ul>"
