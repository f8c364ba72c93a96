"""The genome as one axis: contigs in their natural order, side by side."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["contig_key", "layout"]

_NAMED = {"X": 0, "Y": 1, "XY": 2, "M": 3, "MT": 3}


def contig_key(name: str) -> tuple[Any, ...]:
    """Sort key: numbers, then X, Y, XY, MT, then other names with their numbers as numbers."""
    bare = re.sub(r"^(chromosome|chrom|chr)[_ ]?(?=.)", "", name, flags=re.IGNORECASE).upper()
    if bare.isdecimal() and int(bare) > 0:
        return (0, int(bare), name)
    if bare in _NAMED:
        return (1, _NAMED[bare], name)
    parts = [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", bare) if p]
    return ({"0": 3, "": 4}.get(bare, 2), parts, name)


def layout(
    contig: NDArray[Any], position: NDArray[Any]
) -> tuple[NDArray[Any], list[str], list[float], NDArray[Any], bool]:
    """x of each variant, contig names and their centres, each variant's place among the contigs, and tails.

    A contig spans its variants' positions. Variants of unknown position are spread by their order, over
    the strip of their contig if nothing there has a position, else over a tail after its last position;
    the last value says whether there is such a tail.
    """
    unique, inverse = np.unique(contig, return_inverse=True)
    names = sorted(map(str, unique), key=contig_key)
    place = np.empty(unique.size, dtype=np.int64)
    place[[int(np.searchsorted(unique, name)) for name in names]] = np.arange(unique.size)
    code = place[inverse.ravel()] if contig.size else np.zeros(0, dtype=np.int64)
    known = position > 0
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    np.minimum.at(low, code[known], position[known])
    np.maximum.at(high, code[known], position[known])
    span = np.where(np.isfinite(low), high - low, np.nan)
    loose = np.bincount(code[~known], minlength=len(names)).astype(np.float64)
    placed = np.isfinite(span)
    # Base pairs a variant of those with positions, so that variants without look as dense.
    density = (span[placed].sum() / np.count_nonzero(known) if placed.any() else 1.0) or 1.0
    span = np.where(placed, span, density * loose)
    tail = np.where(placed, density * loose, 0.0)
    total = float((span + tail).sum()) or 1.0
    span = np.maximum(span, 0.004 * total)
    gap = 0.12 * total / max(len(names), 12)
    # Where the variants without a position begin and how wide they stand.
    late = np.where(tail > 0.0, span + 0.3 * gap, 0.0)
    wide = np.where(tail > 0.0, tail, span)
    lone = np.where(low == high, 0.5 * span, 0.0)
    span = np.where(tail > 0.0, late + tail, span)
    start = np.concatenate([[0.0], np.cumsum(span + gap)[:-1]]) if names else np.zeros(0)
    x = np.zeros(contig.size)
    x[known] = position[known] - low[code[known]] + lone[code[known]]
    order = np.flatnonzero(~known)
    order = order[np.argsort(code[order], kind="stable")]
    if order.size:
        at = code[order]
        rank = np.arange(order.size) - (np.cumsum(loose) - loose)[at]
        x[order] = late[at] + (rank + 0.5) / loose[at] * wide[at]
    x += start[code]
    return x, names, (start + 0.5 * span).tolist(), code, bool((tail > 0.0).any())
