"""Results on disk: a Zarr group that is complete or not there, with the fingerprint of what made it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from dasklmm.errors import StoreError

SUCCESS = "complete"
CHUNK_VARIANTS = 65_536


def fingerprint(*values: Any) -> str:
    """SHA-256 of arrays, strings and JSON-able options; equal inputs give equal digests on any machine."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            if value.dtype.kind in "UT":
                value = "\0".join(map(str, value.tolist()))
            else:
                digest.update(f"{value.dtype.str}{value.shape}".encode())
                digest.update(np.ascontiguousarray(value).tobytes())
                continue
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        digest.update(f"{len(text)}:{text}".encode())
    return digest.hexdigest()


def write_results(
    results: xr.Dataset, path: str | Path, inputs: dict[str, Any], *, overwrite: bool = False
) -> None:
    """Write a Dataset of results as a Zarr group (format 3). Eager.

    On a local disk the group is made beside its place and renamed into it, so that what is there is
    complete. Elsewhere the mark of completeness is written last.

    Parameters
    ----------
    results : Dataset (variant)
    path : str or Path
        Path or URL.
    inputs : dict
        Name of each input or option → its value or fingerprint, compared on resume.
    overwrite : bool
        Replace what is there.
    """
    local = "://" not in str(path)
    if local and Path(path).exists() and not overwrite:
        raise StoreError(f"{str(path)!r} exists already. Give another path, or overwrite=True.")
    target = f"{path}.{os.getpid()}.partial" if local else str(path)
    group = zarr.open_group(target, mode="w")
    try:
        for name, variable in results.variables.items():
            values = variable.values
            if values.dtype.kind == "U":
                values = values.astype(np.dtypes.StringDType())
            array = group.create_array(
                str(name),
                shape=values.shape,
                dtype=values.dtype,
                chunks=(max(1, min(CHUNK_VARIANTS, values.size)),),
                dimension_names=[str(d) for d in variable.dims],
                config={"write_empty_chunks": True},
                attributes={str(k): v for k, v in variable.attrs.items()},
            )
            array[...] = values
        group.attrs["results"] = _to_json(results.attrs)
        group.attrs["coordinates"] = sorted(str(name) for name in results.coords)
        group.attrs["inputs"] = inputs
        group.attrs[SUCCESS] = True
        if local:
            if Path(path).exists():
                shutil.rmtree(path)
            os.replace(target, path)
    except BaseException:
        if local:
            shutil.rmtree(target, ignore_errors=True)
        raise


def open_results(path: str | Path) -> xr.Dataset:
    """Open the results that a scan left. Eager: they are small.

    Raises
    ------
    StoreError
        Nothing there, something else, or not complete.
    """
    group = _open(path)
    if group is None or "results" not in group.attrs or not group.attrs.get(SUCCESS):
        raise StoreError(
            f"there are no complete results at {str(path)!r}. Give the results.zarr of a finished run."
        )
    variables: dict[str, Any] = {}
    for name, array in group.arrays():
        values = np.asarray(array[...])
        if values.dtype.kind == "T":
            values = np.array(values.tolist(), dtype=str)
        dims = tuple(str(d) for d in array.metadata.dimension_names)
        variables[name] = (dims, values, dict(array.attrs))
    coords = set(group.attrs["coordinates"])
    return xr.Dataset(
        {k: v for k, v in variables.items() if k not in coords},
        coords={k: v for k, v in variables.items() if k in coords},
        attrs=_from_json(group.attrs["results"]),
    )


def differences(path: str | Path, inputs: dict[str, Any]) -> list[str] | None:
    """Names of the inputs and options in which the results at `path` differ; None where there are none."""
    group = _open(path)
    if group is None:
        return None
    kept = group.attrs.get("inputs")
    if not isinstance(kept, dict):
        raise StoreError(f"{str(path)!r} holds something other than results. Give another path.")
    return [k for k in inputs if kept.get(k) != inputs[k]]


def _open(path: str | Path) -> zarr.Group | None:
    try:
        return zarr.open_group(str(path), mode="r")
    except FileNotFoundError:
        if "://" not in str(path) and Path(path).exists():
            raise StoreError(f"{str(path)!r} exists and is not a Zarr group. Give another path.") from None
        return None


def _to_json(value: Any) -> Any:
    """JSON has no NaN: it is kept as null."""
    if isinstance(value, dict):
        return {str(k): _to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _from_json(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_from_json(v) for v in value]
    return math.nan if value is None else value
