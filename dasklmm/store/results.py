"""Results on disk: a Zarr group that is complete, or refused."""

from __future__ import annotations

import hashlib
import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import xarray as xr
import zarr

from dasklmm.errors import StoreError
from dasklmm.store import places, records
from dasklmm.store.publish import differing, published
from dasklmm.store.unfinished import results_so_far

SUCCESS = "_SUCCESS"
# of a run's directory
NAME = "results.zarr"
CHUNK_VARIANTS = 65_536
# What differs between two runs of the same inputs is kept elsewhere (run.json), so that equal runs leave
# equal bytes.
ATTRIBUTES = ("results", "coordinates", "inputs")
OF_THE_RUN = ("created", "seconds", "resumed")


def fingerprint(*values: Any) -> str:
    """SHA-256 of arrays, strings and JSON-able options; equal inputs give equal digests on any machine."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            if value.dtype.kind in "UTO":
                value = "\0".join(map(str, value.tolist()))
            else:
                digest.update(f"{value.dtype.str}{value.shape}".encode())
                digest.update(np.ascontiguousarray(value).tobytes())
                continue
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        digest.update(f"{len(text)}:{text}".encode())
    return digest.hexdigest()


def source_stamp(path: str) -> str:
    """Digest of names, sizes and times of the files at a path or URL, without reading them; "" if none.

    "" too where a file has neither a time nor an ETag: an edit may leave its size.
    """
    if not path:
        return ""
    try:
        fs, root = fsspec.core.url_to_fs(path)
        fs.invalidate_cache()
        found = fs.find(root, detail=True)
    except (FileNotFoundError, ValueError, ImportError):
        return ""
    facts = []
    for name, info in sorted(found.items()):
        stamp = next((str(info[k]) for k in ("ETag", "etag", "mtime", "LastModified") if k in info), "")
        if not stamp:
            return ""
        facts.append([name[len(root) :], info.get("size"), stamp])
    return fingerprint(facts) if facts else ""


def write_results(
    results: xr.Dataset, path: str | Path, inputs: dict[str, Any], *, overwrite: bool = False
) -> None:
    """Write a Dataset of results as a Zarr group (format 3). Eager.

    On a local disk the group is made beside its place and renamed into it. On an object store the file
    _SUCCESS, a manifest with a checksum of each array, is written last. Equal results give equal bytes.

    Parameters
    ----------
    results : Dataset (variant)
    path : str or Path
        Path or URL.
    inputs : dict
        Name of each input or option → its value or fingerprint, compared when the run is repeated.
    overwrite : bool
        Replace what is there.
    """
    if "incomplete" in results.attrs:
        raise StoreError("the results are incomplete; finish their run by the same command, and keep those.")
    path = places.absolute(path)
    records.vacant(path, overwrite or unfinished(path), "results")
    with published(path) as target, places.writing(path):
        group = zarr.open_group(target, mode="w", attributes={records.MARK: "results"})
        manifest = {}
        for name, variable in results.variables.items():
            values = variable.values
            values = values.astype(values.dtype.newbyteorder("="), copy=False)  # as they are read again
            manifest[str(name)] = fingerprint(values)
            if values.dtype.kind == "U":
                values = values.astype(np.dtypes.StringDType())
            array = group.create_array(
                str(name),
                shape=values.shape,
                dtype=values.dtype,
                # a phenotype's numbers are apart from the others', so that one is read alone
                chunks=(max(1, min(CHUNK_VARIANTS, values.shape[0])), *(1 for _ in values.shape[1:])),
                dimension_names=[str(d) for d in variable.dims],
                config={"write_empty_chunks": True},
                # a chunk that is gone reads as what is nobody's result
                **({"fill_value": np.nan} if values.dtype.kind == "f" else {}),
                attributes={str(k): v for k, v in variable.attrs.items()},
            )
            array[...] = values
        group.attrs.update(
            {
                "results": _to_json({k: v for k, v in results.attrs.items() if k not in OF_THE_RUN}),
                "coordinates": sorted(str(name) for name in results.coords),
                "inputs": inputs,
            }
        )
        attributes = fingerprint({k: group.attrs[k] for k in ATTRIBUTES})
        text = json.dumps({"arrays": manifest, "attributes": attributes}, sort_keys=True, indent=1)
        places.put(f"{target}/{SUCCESS}", text.encode())


def open_results(path: str | Path, *, allow_incomplete: bool = False) -> xr.Dataset:
    """Open the results that a scan left. Eager: they are small.

    Parameters
    ----------
    path : path or URL
        Of the results, or of a run's directory that holds them as results.zarr.
    allow_incomplete : bool
        Where there are no complete results, show what there is: the blocks that an interrupted or running scan
        has done, or the variables of damaged results that can still be read. Never for a publication.

    Returns
    -------
    Dataset (variant)
        As :func:`dasklmm.gwas` returned it. Of incomplete results: rows that are not done are NaN with the status
        "unfinished"; the attribute `incomplete` counts (`blocks`, `blocks_done`, `variants`, `variants_done`), or
        names what is `gone` of damaged results; null models, lambda_GC and counts are there of those alone.

    Raises
    ------
    StoreError
        Nothing there, something else, not complete, or not what was written.

    Examples
    --------
    >>> import dasklmm
    >>> cohort = dasklmm.simulate(100, 400, n_contigs=2, n_causal=1, causal_variance=0.4, seed=1)
    >>> results = dasklmm.gwas(cohort, cohort["phenotype"].rename("trait"), store="results.zarr")
    >>> dasklmm.open_results("results.zarr").equals(results)
    True
    """
    path = places.absolute(path)
    places.reach(path)
    if any(places.present(f"{path}/{name}") for name in (NAME, places.work_of(NAME))):
        path = f"{path}/{NAME}"
    try:
        return _complete(path)
    except StoreError:
        if not allow_incomplete:
            raise
        found: xr.Dataset | StoreError | None
        try:
            found = _so_far(path)
        except StoreError as error:
            found = error
        with suppress(StoreError):
            return _complete(path)  # of a run that ended while its work was looked at
        if found is None:
            raise StoreError(
                f"there are no results at {str(path)!r}, nor of an unfinished run. Give the results.zarr of a "
                "run, or the run's directory."
            ) from None
        if isinstance(found, StoreError):
            raise found from None
        return found


def _complete(path: str | Path) -> xr.Dataset:
    group = _open(path)
    done = None if group is None else places.get(f"{str(path).rstrip('/')}/{SUCCESS}")
    if group is not None and "results" in group.attrs and done is None and places.is_local(path):
        raise _damaged(path, SUCCESS)  # the group was renamed into its place with it
    if group is None or "results" not in group.attrs or done is None:
        raise StoreError(
            f"there are no complete results at {str(path)!r}. Give the results.zarr of a finished run, or the "
            "run's directory; a run that was interrupted is continued by the same command, and "
            "open_results(..., allow_incomplete=True) shows what it has done."
        )
    try:
        marks = json.loads(done)
        manifest, attributes = marks["arrays"], marks["attributes"]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, SUCCESS) from error
    if _attributes(group) != attributes:
        raise _damaged(path, "zarr.json")
    variables: dict[str, Any] = {}
    for name, digest in manifest.items():
        try:
            variables[name] = _variable(group, name)
        except Exception as error:  # codecs raise what they like on damaged bytes
            raise _damaged(path, name) from error
        if fingerprint(variables[name][1]) != digest:
            raise _damaged(path, name)
    return _dataset(group, variables)


def _variable(group: zarr.Group, name: str) -> tuple[tuple[str, ...], np.ndarray, dict[str, Any]]:
    array: Any = group[name]
    values = np.asarray(array[...])
    if values.dtype.kind == "T":
        values = np.array(values.tolist(), dtype=str)
    return tuple(str(d) for d in array.metadata.dimension_names), values, dict(array.attrs)


def _attributes(group: zarr.Group) -> str:
    return fingerprint({k: group.attrs.get(k) for k in ATTRIBUTES})


def _dataset(group: zarr.Group, variables: dict[str, Any]) -> xr.Dataset:
    coords: Any = group.attrs["coordinates"]
    return xr.Dataset(
        {k: v for k, v in variables.items() if k not in coords},
        coords={k: v for k, v in variables.items() if k in coords},
        attrs=_from_json(group.attrs["results"]),
    )


def _so_far(path: str | Path) -> xr.Dataset | None:
    """What there is of results that are not complete; None where there is nothing of them."""
    work = places.work_of(path)
    text = places.get(f"{work}/inputs.json")
    if text is not None:
        return results_so_far(records.Records(work, fingerprint(inputs_of(text, work))))
    group = _open(path)
    if group is None or not isinstance(group.attrs.get("results"), dict):
        return None
    if not isinstance(group.attrs.get("coordinates"), list):
        return None
    try:
        marks = json.loads(places.get(f"{str(path).rstrip('/')}/{SUCCESS}") or b"{}")
        manifest = dict(marks["arrays"])
        gone = {*manifest, *([] if _attributes(group) == marks["attributes"] else ["zarr.json"])}
    except (ValueError, KeyError, TypeError):
        manifest, gone = {}, {SUCCESS}
    variables: dict[str, Any] = {}
    held = [name for name in places.entries(str(path)) if name not in ("zarr.json", SUCCESS)]
    if not manifest:
        gone.update(held)
    for name in manifest or held:
        with suppress(Exception):  # codecs raise what they like on damaged bytes
            found = _variable(group, name)
            if fingerprint(found[1]) == manifest.get(name, fingerprint(found[1])):
                variables[name] = found
                gone.discard(name)
    out = _dataset(group, variables)
    out.attrs["incomplete"] = {"gone": sorted(gone)}
    return out


def inputs_of(text: bytes, work: str) -> dict[str, Any]:
    """Inputs of unfinished work, of what its inputs.json holds; StoreError where that is damaged."""
    try:
        inputs = json.loads(text)
    except ValueError:
        inputs = None
    if not isinstance(inputs, dict):
        raise StoreError(
            f"{work}/inputs.json is damaged, so that the unfinished work there is nobody's. Give overwrite=True "
            "(--overwrite) to drop it."
        )
    return inputs


def _damaged(path: str | Path, name: str) -> StoreError:
    return StoreError(
        f"{name!r} of the results at {str(path)!r} is gone or damaged: it is not what was written. Run the "
        "scan again with overwrite=True (--overwrite)."
    )


def differences(path: str | Path, inputs: dict[str, Any]) -> list[str] | None:
    """Names of the inputs and options in which the results at `path` differ; None where there are none."""
    group = _open(path)
    if group is None and places.is_local(path) and Path(path).exists():
        raise StoreError(
            f"{str(path)!r} exists and is not a Zarr group. Give another path, or remove it yourself."
        )
    if group is None or (records.MARK not in group.attrs and not dict(group.attrs)):
        return None
    if not places.is_local(path) and places.get(f"{str(path).rstrip('/')}/{SUCCESS}") is None:
        return None  # a write to an object store that ended before its manifest: it is written anew
    kept = group.attrs.get("inputs")
    if not isinstance(kept, dict):
        raise StoreError(f"{str(path)!r} holds something other than results. Give another path.")
    return differing(kept, inputs)


def unfinished(path: str | Path) -> bool:
    """Whether an object store holds results whose writing ended before its manifest; they are written anew."""
    if places.is_local(path):
        return False
    group = _open(path)
    marked = group is not None and records.MARK in group.attrs
    return marked and places.get(f"{str(path).rstrip('/')}/{SUCCESS}") is None


def _open(path: str | Path) -> zarr.Group | None:
    places.reach(path)
    try:
        return zarr.open_group(str(path), mode="r")
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AssertionError) as error:  # what Zarr raises on odd metadata
        raise StoreError(
            f"{str(path)!r} cannot be read: its metadata is damaged, or it is no Zarr group ({error}). Remove it "
            "yourself if it is what a run left, and run that again; or give another path."
        ) from error


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
