"""Results of a scan that is not finished: how they are laid out, kept first, and the blocks that are done."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from dasklmm.errors import StoreError
from dasklmm.store.records import Records

UNFINISHED = "unfinished"


def block_name(unit: int, block: int) -> str:
    """Name of the record of a block of tests; a unit is a contig that is left out, or all."""
    return f"test/{unit:05d}/{block:06d}"


def keep_layout(
    kept: Records,
    template: xr.Dataset,
    coords: xr.Dataset,
    unit: np.ndarray,
    blocks: Sequence[Sequence[int]],
    statuses: Sequence[str],
) -> None:
    """Keep what the blocks of tests are of, before any is done. Eager.

    Parameters
    ----------
    kept : Records
        Of the run.
    template : Dataset (variant, or variant and phenotype)
        Results of no variant: the variables in the order of a block's columns, the last one the status, and the
        attributes that are known already.
    coords : Dataset (variant)
        Coordinates of the results' variants.
    unit : ndarray of int (variant)
        Which unit tests each, -1 for none.
    blocks : sequence of sequence of int
        Variants of each block of each unit.
    statuses : sequence of str
        Names of the codes that a block's last column holds.
    """
    for name, coord in coords.coords.items():
        if kept.read(f"layout/{name}") is None:
            values, form = _packed(np.asarray(coord.values))
            kept.write(f"layout/{name}", values, attrs=dict(coord.attrs), **form)
    if kept.read("layout/unit") is None:
        kept.write("layout/unit", unit.astype(np.int32))
    if kept.read("layout/blocks") is not None:
        return
    lengths = [(i, size) for i, sizes in enumerate(blocks) for size in sizes]
    kept.write(
        "layout/blocks",
        np.array(lengths, dtype=np.int64).reshape(-1, 2),
        variables=[[str(k), v.dtype.str, dict(v.attrs)] for k, v in template.data_vars.items()],
        coords=[str(name) for name in coords.coords],
        phenotypes=template["phenotype"].values.tolist() if "phenotype" in template.coords else None,
        statuses=list(statuses),
        attrs=template.attrs,
    )


def _packed(values: np.ndarray) -> tuple[np.ndarray, dict[str, str]]:
    """Texts as compressed bytes, for one long allele would set the width of all; numbers as they are."""
    if values.dtype.kind != "U" or not values.size:
        return values, {}
    text = zlib.compress(json.dumps(values.tolist()).encode(), 1)
    return np.frombuffer(text, dtype=np.uint8), {"text": values.dtype.str}


def _unpacked(values: np.ndarray, meta: dict[str, Any]) -> np.ndarray:
    if "text" not in meta:
        return values
    return np.array(json.loads(zlib.decompress(values.tobytes())), dtype=meta["text"])


def results_so_far(kept: Records) -> xr.Dataset:
    """Results of the blocks that a run has done. Eager.

    Rows that are not done are NaN (0 and False where there is no NaN), with the status "unfinished". The attribute
    `incomplete` counts blocks and variants, all and done.

    Raises
    ------
    StoreError
        The run ended before it laid its results out.
    """
    layout, unit = kept.read("layout/blocks"), kept.read("layout/unit")
    if layout is None or unit is None:
        raise StoreError(
            f"the unfinished work at {kept.path!r} holds no results that can be shown. Run the same command "
            "again: what is finished is kept."
        )
    lengths, said = layout
    phenotypes, width = said["phenotypes"] or [""], len(said["variables"])
    n = unit[0].size
    columns = np.full((n, len(phenotypes), width), np.nan)
    done = np.zeros((n, len(phenotypes)), dtype=bool)
    blocks_done = 0
    for i in np.unique(lengths[:, 0]).tolist():
        rows, end = np.flatnonzero(unit[0] == i), 0
        for j, size in enumerate(lengths[lengths[:, 0] == i, 1].tolist()):
            end += size
            found = kept.read(block_name(i, j))
            # a version before did not say of whom a block is
            if found is None or "phenotypes" not in found[1]:
                continue
            blocks_done += 1
            own = rows[end - size : end]
            tested = found[1]["phenotypes"]
            columns[np.ix_(own, tested)] = found[0].reshape(size, len(tested), width)
            done[np.ix_(own, tested)] = True
    dims = ("variant", "phenotype") if said["phenotypes"] else ("variant",)
    variables: dict[str, Any] = {}
    for k, (name, dtype, attrs) in enumerate(said["variables"]):
        column = columns[..., k] if said["phenotypes"] else columns[:, 0, k]
        shown = done if said["phenotypes"] else done[:, 0]
        if k == width - 1:
            labels = np.array([*said["statuses"], UNFINISHED])
            values = labels[np.where(shown, column, len(said["statuses"])).astype(np.int64)]
        else:
            values = column if np.dtype(dtype).kind == "f" else np.where(shown, column, 0).astype(dtype)
        variables[name] = (dims, values, attrs)
    coords: dict[str, Any] = {}
    gone: list[str] = []
    for name in said["coords"]:
        found = kept.read(f"layout/{name}")
        if found is None:
            gone.append(name)
        else:
            coords[name] = ("variant", _unpacked(*found), found[1]["attrs"])
    if said["phenotypes"]:
        coords["phenotype"] = ("phenotype", np.array(phenotypes, dtype=str))
    counts: dict[str, Any] = {
        "blocks": len(lengths),
        "blocks_done": blocks_done,
        "variants": int(lengths[:, 1].sum()),
        "variants_done": int(done.any(axis=1).sum()),
    }
    if gone:
        counts["gone"] = gone
    return xr.Dataset(variables, coords, {**said["attrs"], "incomplete": counts})
