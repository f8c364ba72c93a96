"""Sphinx's configuration: sphinx-build -W -n -b html docs docs/_build."""

from __future__ import annotations

from typing import Any

from latex2mathml.converter import convert

import dasklmm

project = "dasklmm"
author = "The dasklmm developers"
version = release = dasklmm.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["_build"]
root_doc = "index"
nitpicky = True
smartquotes = False  # "auto" in quotes is a value to type

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say shapes and units, which types do not
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "pydata_sphinx_theme"
html_title = "dasklmm"
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
highlight_language = "text"  # of a fence without a language
html_sidebars = {name: [] for name in ("index", "tutorial", "howto", "hail")}
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
copyright = f"{author}. BSD 3-Clause"


# Formulas are MathML, which browsers draw themselves: the pages need nothing from the network.


def _inline(writer: Any, node: Any) -> None:
    writer.body.append(convert(node.astext()))
    raise _skip()


def _display(writer: Any, node: Any) -> None:
    number = f'<span class="eqno">({node["number"]})</span>' if node["number"] else ""
    anchor = f' id="equation-{node["label"]}"' if node["label"] else ""
    formula = convert(node.astext(), display="block")
    writer.body.append(f'<div class="formula"{anchor}><div>{formula}</div>{number}</div>\n')
    raise _skip()


def _skip() -> Exception:
    from docutils.nodes import SkipNode

    return SkipNode()


def setup(app: Any) -> dict[str, Any]:
    """Sphinx's hook: the renderer of formulas."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
