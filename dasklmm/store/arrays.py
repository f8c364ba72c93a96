"""Zarr arrays of the package: written with dimension names, opened by path, read once a process."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import dask.array as da
import numpy as np
import xarray as xr
import zarr

from dasklmm.errors import DaskLMMError, DimensionError, StoreError
from dasklmm.store.places import absolute, check_place, reach, work_of, writing
from dasklmm.store.publish import differing, published, unchanged
from dasklmm.store.records import MARK, one_writer, vacant
from dasklmm.store.results import fingerprint

TOKEN = "token"
# Attribute of a P: its digest in single precision, by which rotated alternatives are told to be of it.
EIGENVECTORS = "eigenvectors"


def open_array(path: str | Path, name: str = "array") -> zarr.Array:
    """Open a Zarr array for reading.

    Parameters
    ----------
    path : str or Path
        Path or URL of an array, or of a group that holds the array `name` (or a single array).

    Raises
    ------
    StoreError
        Nothing there, or a group without such an array.
    """
    if not isinstance(path, (str, Path)):
        raise DimensionError(
            f"{name} is a {type(path).__name__}; a path or URL of a Zarr array, a zarr.Array, a Dask array, "
            "an xarray.DataArray or a NumPy array is needed."
        )
    reach(path)
    try:
        node = zarr.open(absolute(path), mode="r")
    except (FileNotFoundError, ValueError) as error:
        raise StoreError(
            f"{name}: no Zarr array at {str(path)!r}. Give the path that it was written to."
        ) from error
    if isinstance(node, zarr.Array):
        return _whole(node, path)
    held = dict(node.arrays())
    if name in held:
        return _whole(held[name], path)
    if len(held) == 1:
        return _whole(next(iter(held.values())), path)
    raise StoreError(
        f"{name}: the Zarr group at {str(path)!r} holds {sorted(held) or 'no array'}; an array is needed. "
        f"Give {str(path).rstrip('/')}/NAME."
    )


def _whole(array: zarr.Array, path: str | Path) -> zarr.Array:
    """An array of this package is refused where its writing did not end, or chunks of it are gone.

    A missing chunk would read as NaN without a word.
    """
    if MARK in array.attrs and (TOKEN not in array.attrs or array.nchunks_initialized < array.nchunks):
        raise StoreError(
            f"the array at {str(path)!r} is not whole: {array.nchunks_initialized} of {array.nchunks} chunks are "
            "there. Write it again with overwrite=True."
        )
    return array


def finished(array: zarr.Array) -> bool:
    """Whether the writing of an array of this package ended."""
    return TOKEN in array.attrs


def begun_array(path: str | Path, inputs: dict[str, Any], like: da.Array) -> zarr.Array | None:
    """Array of the same inputs, shape, dtype and blocks at `path`, finished or not; None where there is none."""
    try:
        array = zarr.open_array(absolute(path), mode="r+")
    except (FileNotFoundError, NotADirectoryError, FileExistsError, ValueError):  # nothing, or a file
        return None
    same = (array.shape, array.dtype, array.chunks) == (like.shape, like.dtype, like.chunksize)
    return array if same and array.attrs.get("made_of") == inputs else None


def finish_array(array: zarr.Array) -> None:
    """Mark an array as wholly written; the token tells it from one written later at its place."""
    array.attrs[TOKEN] = uuid.uuid4().hex


def eigenvectors_digest(p: Any) -> str:
    """Digest of eigenvectors (eigen, sample) as float32, so that it is the same of P in either precision."""
    rows = max(1, 2**22 // max(1, p.shape[1]))
    return fingerprint(
        *(fingerprint(np.asarray(p[i : i + rows], dtype=np.float32)) for i in range(0, p.shape[0], rows))
    )


def eigenvectors_of(array: Any) -> str | None:
    """Digest of the eigenvectors that a stored array holds, or was rotated by; None where it does not say."""
    attrs = getattr(array, "attrs", {})
    made_of = attrs.get("made_of")
    return attrs.get(EIGENVECTORS) or (made_of.get(EIGENVECTORS) if isinstance(made_of, dict) else None)


def write_array(
    path: str | Path,
    array: np.ndarray,
    dims: tuple[str, ...],
    *,
    overwrite: bool = False,
    chunk_bytes: int = 16 * 1024**2,
    attributes: dict[str, Any] | None = None,
) -> zarr.Array:
    """Write an in-memory array in blocks of whole rows. Hold `one_writer` of the path.

    Parameters
    ----------
    path : str or Path
        Path or URL.
    array : ndarray
    dims : tuple of str
        Names kept as ``dimension_names``.
    overwrite : bool
        Replace what is there, when the new array is whole; otherwise StoreError.
    chunk_bytes : int
        Size of a chunk, about.
    """
    path = absolute(path)
    vacant(path, overwrite, "array")
    with published(path) as target, writing(path):
        _fill(target, array, dims, chunk_bytes, attributes)
    return open_array(path)


def _fill(
    path: str,
    array: np.ndarray,
    dims: tuple[str, ...],
    chunk_bytes: int = 16 * 1024**2,
    attributes: dict[str, Any] | None = None,
) -> None:
    row_bytes = max(1, array.nbytes // max(1, array.shape[0]))
    rows = max(1, min(array.shape[0], chunk_bytes // row_bytes))
    target = create_array(
        path, array.shape, array.dtype, dims, chunks=(rows, *array.shape[1:]), attributes=attributes
    )
    target[...] = array
    finish_array(target)


def create_array(
    path: str | Path,
    shape: tuple[int, ...],
    dtype: Any,
    dims: tuple[str, ...],
    *,
    chunks: tuple[int, ...],
    attributes: dict[str, Any] | None = None,
) -> zarr.Array:
    """Create an empty Zarr array, format 3, with a checksum, where nothing lies.

    Floats of a rotation do not compress, so there is a crc32c and no compressor; missing chunks read NaN.
    """
    return zarr.create_array(
        absolute(path),  # workers write by this handle
        shape=shape,
        dtype=dtype,
        chunks=tuple(max(1, c) for c in chunks),
        dimension_names=dims,
        compressors=[zarr.codecs.Crc32cCodec()],
        fill_value=np.nan,
        attributes={MARK: "array", **(attributes or {})},
        config={"write_empty_chunks": True},
    )


def exists(path: str | Path) -> bool:
    """Whether a Zarr array or group lies at `path`."""
    reach(path)
    try:
        zarr.open(str(path), mode="r")
    except (FileNotFoundError, ValueError):
        return False
    return True


def token_of(array: Any) -> str | None:
    """Token of a Zarr array of this package; None of any other array."""
    return array.attrs.get(TOKEN) if isinstance(array, zarr.Array) else None


def check_token(array: zarr.Array, token: str | None) -> None:
    """Raise StoreError where an array was written anew since its token was read."""
    if token is None:
        return
    try:
        now = zarr.open_array(array.store, path=array.path, mode="r").attrs.get(TOKEN)
    except (FileNotFoundError, ValueError):
        now = None
    if now != token:
        raise written_anew(array.path or str(array.store))


def written_anew(path: str) -> StoreError:
    """Error of an array whose token is another than the one it was opened with."""
    return StoreError(
        f"the array {path!r} was written anew since this result was built, by another model perhaps. Build the "
        "result again, and give each model a p_path (and pa_path) of its own."
    )


def read(array: Any, index: Any = ...) -> np.ndarray:
    """Values of an array; StoreError where its bytes are not what was written."""
    try:
        return np.asarray(array[index])
    except (DaskLMMError, OSError, MemoryError):
        raise
    except Exception as error:  # codecs raise what they like on damaged bytes
        place = getattr(array, "store_path", None) or getattr(array, "path", "")
        raise StoreError(
            f"the array at {str(place).removeprefix('file://')!r} is damaged: it is not what was written "
            f"({error}). Write it again with overwrite=True (--overwrite)."
        ) from error


class CheckedRows:
    """Zarr array read by slices, each of which is of the array as it was when it was opened.

    The token is looked at after the reading: an array that is written anew loses it first.
    """

    ndim = 2

    def __init__(self, array: zarr.Array) -> None:
        self.array, self.shape, self.dtype, self.chunks = array, array.shape, array.dtype, array.chunks
        self.token = token_of(array)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read a slice; StoreError where the array was written anew."""
        try:
            return read(self.array, index)
        finally:
            check_token(self.array, self.token)


class StoredArray:
    """Handle of a stored operand: small in a graph, read once by each process and kept.

    Holds a zarr.Array or anything with shape, dtype and ``[...]``, which must pickle. The key is made with
    the handle, so that an array written anew under the same path is read anew. A process keeps the `keep`
    arrays that it used last.
    """

    _kept: ClassVar[OrderedDict[str, np.ndarray]] = OrderedDict()
    _lock = threading.Lock()

    def __init__(self, array: Any, dtype: Any = None, keep: int = 2) -> None:
        self.array, self.keep = array, keep
        self.dtype = np.dtype(dtype or array.dtype)
        self.key = uuid.uuid4().hex
        self.token = token_of(array)

    def __dask_tokenize__(self) -> str:
        return self.key

    @property
    def sample_id(self) -> np.ndarray | None:
        """Sample ids kept with a P of this package, or None."""
        ids = self.array.attrs.get("sample_id") if isinstance(self.array, zarr.Array) else None
        return None if ids is None else np.array(ids, dtype=str)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.array.shape

    @classmethod
    def release(cls) -> None:
        """Give up what this process keeps of all arrays; what is still used is read again."""
        with cls._lock:
            cls._kept.clear()

    def load(self) -> np.ndarray:
        """The array in memory, read at the first call in this process; read-only."""
        with StoredArray._lock:
            kept = StoredArray._kept
            if self.key not in kept:
                check_token(self.array, self.token)
                while len(kept) >= self.keep:  # before the reading: room was counted for `keep` arrays
                    kept.popitem(last=False)
                value = np.ascontiguousarray(read(self.array), dtype=self.dtype)
                value.setflags(write=False)
                kept[self.key] = value
            kept.move_to_end(self.key)
            return kept[self.key]


def open_kinship(path: str | Path) -> xr.DataArray:
    """Kinship written by `write_kinship`: a lazy DataArray (sample_0, sample_1) with its sample ids.

    Raises
    ------
    StoreError
        Nothing there, or no kinship with ids.
    """
    try:
        group = zarr.open_group(absolute(path), mode="r")
    except (FileNotFoundError, ValueError) as error:
        raise StoreError(f"there is no kinship at {str(path)!r}. Give the path of a Zarr group.") from error
    held = dict(group.arrays())
    if unfinished(path) or not {"kinship", "sample_id"} <= set(held):
        raise StoreError(
            f"the Zarr group at {str(path)!r} holds {sorted(held)}; a kinship needs 'kinship' and 'sample_id'."
        )
    ids = _ids(held["sample_id"], path)
    return xr.DataArray(
        da.from_array(CheckedRows(_whole(held["kinship"], path)), name=False, inline_array=True),
        dims=("sample_0", "sample_1"),
        coords={"sample_id_0": ("sample_0", ids), "sample_id_1": ("sample_1", ids)},
        name="kinship",
        attrs={k: v for k, v in group.attrs.items() if k not in (MARK, "made_of", "whole")},
    )


def _check_kind(path: str | Path, kind: str) -> None:
    """Refuse to look for a kinship or decomposition where this package keeps something of another kind."""
    held = zarr.open(str(path), mode="r").attrs.get(MARK, kind)
    if held != kind:
        raise StoreError(
            f"{str(path)!r} holds something of another kind ({held}), and a {kind} would be kept there. Give "
            "another path."
        )


def held_kinship(path: str | Path, inputs: dict[str, Any], overwrite: bool) -> xr.DataArray | None:
    """Kinship of the same inputs at `path`; None where there is none, StoreError where it is another."""
    if overwrite or not exists(path) or unfinished(path):
        return None
    _check_kind(path, "kinship")
    found = open_kinship(path)
    kept = zarr.open_group(str(path), mode="r").attrs.get("made_of")
    other = differing(kept, inputs) if isinstance(kept, dict) else ["what it was made of, which was not kept"]
    if other:
        raise StoreError(
            f"{str(path)!r} holds another kinship, which differs in: {', '.join(other)}. Give another store, or "
            "overwrite=True (--overwrite)."
        )
    return found


def write_kinship(
    kinship: xr.DataArray, path: str | Path, inputs: dict[str, Any] | None = None, *, overwrite: bool = False
) -> None:
    """Write a kinship with its sample ids, and what it was made of, as a Zarr group. Eager: computes it.

    One that was not written to its end is replaced. Hold `one_writer` of the path.
    """
    path = absolute(path)
    vacant(path, overwrite or unfinished(path), "kinship")
    values = np.asarray(kinship.values, dtype=np.float64)
    with published(path) as target, writing(path):
        group = zarr.open_group(target, mode="w", attributes={MARK: "kinship"})
        group.attrs.update({str(k): v for k, v in kinship.attrs.items()})
        _fill_ids(group, kinship["sample_id_0"].values, "sample_0")
        _fill(f"{target}/kinship", values, ("sample_0", "sample_1"))
        if inputs is not None:
            group.attrs["made_of"] = inputs
        group.attrs["whole"] = True  # last: without it the kinship is not there


def write_spectrum(
    pairs: xr.Dataset, path: str | Path, inputs: dict[str, Any], *, overwrite: bool = False
) -> None:
    """Write eigenpairs with their sample ids and what they were made of, as a Zarr group. Eager.

    Hold `one_writer` of the path.
    """
    path = absolute(path)
    vacant(path, overwrite or unfinished(path), "decomposition")
    with published(path) as target, writing(path):
        group = zarr.open_group(target, mode="w", attributes={MARK: "decomposition"})
        for name in pairs.data_vars:
            dims = tuple(str(d) for d in pairs[name].dims)
            values = np.asarray(pairs[name].values)
            attributes = {EIGENVECTORS: eigenvectors_digest(values)} if name == "p" else None
            _fill(f"{target}/{name}", values, dims, attributes=attributes)
        if "sample_id" in pairs.coords:
            _fill_ids(group, pairs["sample_id"].values, "sample")
        group.attrs["inputs"] = inputs  # last: without it the decomposition is not there


def _fill_ids(group: zarr.Group, ids: Any, dim: str) -> None:
    values = np.asarray(ids, dtype=str).astype(np.dtypes.StringDType())
    array = group.create_array(
        "sample_id",
        shape=values.shape,
        dtype=values.dtype,
        dimension_names=[dim],
        compressors=[zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()],
        attributes={MARK: "array"},
        config={"write_empty_chunks": True},
    )
    array[...] = values
    finish_array(array)


def _ids(array: zarr.Array, path: str | Path) -> np.ndarray:
    whole = _whole(array, path)
    try:
        return np.array(whole[...].tolist(), dtype=str)
    except Exception as error:  # codecs raise what they like on damaged bytes
        raise StoreError(
            f"the sample ids at {str(path)!r} are damaged: they are not what was written. Write it again with "
            "overwrite=True."
        ) from error


def made_once(
    path: str | Path,
    kind: str,
    of: Callable[[], dict[str, Any]],
    held: Callable[[str, dict[str, Any], bool], Any],
    make: Callable[[], Any],
    write: Callable[..., None],
    *,
    overwrite: bool = False,
) -> Any:
    """What a path holds of the same inputs, as `held` opens it; where it holds none, what is made and kept there.

    Parameters
    ----------
    path : str or Path
        Path or URL.
    kind : str
        Of what is kept: "kinship", "decomposition".
    of : callable () -> dict
        Describes the inputs: a value or a digest under each name. Called before and after `make`.
    held : callable (path, inputs, overwrite) -> object or None
    make : callable () -> object
    write : callable (object, path, inputs, overwrite=)

    Raises
    ------
    StoreError
        The path holds something else, cannot be written, or another run writes there; before any work. The
        inputs changed meanwhile: nothing is kept.
    """
    path = absolute(path)
    check_place(path)  # before the inputs are read for their digest
    inputs = of()
    found = held(path, inputs, overwrite)
    if found is not None:
        return found  # also where nothing can be written
    vacant(path, overwrite or unfinished(path), kind)
    with one_writer(work_of(path)) as still_ours:
        found = held(path, inputs, overwrite)  # of a run that ended meanwhile
        if found is None:
            with unchanged(of, inputs):
                found = make()
            still_ours()
            write(found, path, inputs, overwrite=overwrite)
    return found


def open_spectrum(path: str | Path) -> xr.Dataset:
    """Eigenpairs kept by `eigendecompose`: p as a lazy array, the rest in memory.

    Raises
    ------
    StoreError
        Nothing there, or no complete decomposition.
    """
    try:
        group = zarr.open_group(absolute(path), mode="r")
    except (FileNotFoundError, ValueError) as error:
        raise StoreError(f"there is no decomposition at {str(path)!r}.") from error
    held = dict(group.arrays())
    if "inputs" not in group.attrs or not {"p", "s"} <= set(held):
        raise StoreError(
            f"the Zarr group at {str(path)!r} holds {sorted(held)}, and no complete decomposition."
        )
    variables: dict[str, Any] = {
        "p": (
            ("eigen", "sample"),
            da.from_array(CheckedRows(_whole(held["p"], path)), name=False, inline_array=True),
        )
    }
    variables |= {k: ("eigen", read(_whole(held[k], path))) for k in ("s", "residual") if k in held}
    coords = {}
    if "sample_id" in held:
        coords["sample_id"] = ("sample", _ids(held["sample_id"], path))
    return xr.Dataset(variables, coords=coords, attrs={"inputs": dict(group.attrs["inputs"])})


def unfinished(path: str | Path) -> bool:
    """Whether an array or group of this package lies there whose writing ended before its last attribute."""
    try:
        node: Any = zarr.open(str(path), mode="r")
    except (FileNotFoundError, ValueError):
        return False
    attrs = node.attrs
    if isinstance(node, zarr.Array):
        return attrs.get(MARK) == "array" and TOKEN not in attrs
    return attrs.get(MARK) in ("kinship", "decomposition") and not {"inputs", "whole"} & set(attrs)


def held_spectrum(path: str | Path, inputs: dict[str, Any], overwrite: bool) -> xr.Dataset | None:
    """Eigenpairs of the same inputs at `path`; None where there are none, StoreError where they are others."""
    if overwrite or not exists(path) or unfinished(path):
        return None
    _check_kind(path, "decomposition")
    found = open_spectrum(path)
    kept = found.attrs.pop("inputs")
    other = differing(kept, inputs)
    if other:
        raise StoreError(
            f"{str(path)!r} holds the decomposition of another kinship, which differs in: {', '.join(other)}. "
            "Give another store, or overwrite=True (--overwrite)."
        )
    return found


def open_kinship_or_spectrum(path: str | Path) -> xr.DataArray | xr.Dataset:
    """Whatever of the two lies at a path."""
    reach(path)
    try:
        group = zarr.open_group(absolute(path), mode="r")
    except (FileNotFoundError, ValueError) as error:
        raise StoreError(
            f"there is neither a kinship nor a decomposition at {str(path)!r}. Give the path of a Zarr group."
        ) from error
    return open_spectrum(path) if "s" in group else open_kinship(path)
