"""Small tables for notebooks: escaped, and in the colours of whatever page they stand on."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

__all__ = ["table"]

_LEFT = "text-align:left;vertical-align:top"
_ROW = f"<tr><th style='{_LEFT};font-weight:normal;opacity:.75'>{{}}</th><td style='{_LEFT}'>{{}}</td></tr>"


def table(title: str, values: Mapping[str, str], note: str = "") -> str:
    """HTML of names and values; all text is escaped here. Colours are inherited, so light and dark both work."""
    # names may break after an underscore, so that in a narrow cell they leave room for the values
    rows = "".join(
        _ROW.format(escape(name).replace("_", "_<wbr>"), escape(value)) for name, value in values.items()
    )
    end = f"<p>{escape(note)}</p>" if note else ""
    return f"<div class='dasklmm'><p><strong>{escape(title)}</strong></p><table>{rows}</table>{end}</div>"
