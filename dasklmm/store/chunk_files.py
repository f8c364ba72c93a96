"""Rows of an uncompressed Zarr array, read from its chunk files straight into place, or piece by piece.

Zarr's own reading decodes every chunk into memory of its own and copies it from there. Of 0.39 GB of float32 in
blocks of 32 MB, in the page cache: `readinto` alone 0.05 to 0.07 s, this 0.09 to 0.12, Zarr 0.17 (after a first
pass).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.storage import LocalStore

from dasklmm.errors import StoreError
from dasklmm.store.arrays import TOKEN, token_of, written_anew

CHECKSUM_BYTES = 4

# Of a piece: larger ones leave the core's cache between their reading and their sums, smaller ones cost calls.
PIECE_BYTES = 1024**2


class ChunkFiles:
    """Array that :func:`chunk_files` accepts. Holds a path and shapes, and so pickles.

    A slice of its rows is a :class:`ChunkRows`, which reads nothing until it is asked.
    """

    ndim = 2

    def __init__(
        self, folder: str, shape: tuple[int, int], rows: int, dtype: np.dtype[Any], token: str | None = None
    ) -> None:
        self.folder, self.shape, self.rows, self.dtype, self.token = folder, shape, rows, dtype, token

    def __getitem__(self, index: tuple[Any, Any]) -> np.ndarray | ChunkRows:
        wanted, columns = index
        start, stop, step = wanted.indices(self.shape[0])
        rows = ChunkRows(self, start, max(start, stop))
        if step == 1 and columns.indices(self.shape[1]) == (0, self.shape[1], 1):
            return rows
        return np.asarray(rows)[::step, columns]

    @contextmanager
    def as_opened(self) -> Iterator[None]:
        """Raise StoreError after a reading where the array was written anew: it then loses its token first."""
        raised = None
        try:
            yield
        except (OSError, StoreError) as error:
            raised = error
        if self.token is not None and self._token_now() != self.token:
            raise written_anew(str(Path(self.folder).parent)) from raised
        if raised is not None:
            raise raised

    def _token_now(self) -> str | None:
        try:
            text = (Path(self.folder).parent / "zarr.json").read_text(encoding="utf-8")
            return json.loads(text).get("attributes", {}).get(TOKEN)
        except (FileNotFoundError, ValueError):
            return None

    def pieces(self, chunk: int, held: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Rows of one chunk in order, each with its first row's number: parts of `held`, or all read into it.

        `held` has rows for a piece, which the next one takes, or for the whole chunk.

        Raises
        ------
        StoreError
            After the last piece: the chunk is not what was written.
        """
        path = f"{self.folder}/{chunk}/0"
        checksum, complete = 0, True
        check = bytearray(CHECKSUM_BYTES)
        with open(path, "rb", buffering=0) as file:
            for start in range(0, self.rows, held.shape[0]):
                piece = held[: min(held.shape[0], self.rows - start)]
                octets = piece.reshape(-1).view(np.uint8)
                complete = complete and _filled(file, octets)
                checksum = google_crc32c.extend(checksum, octets)
                yield start, piece
            complete = complete and file.readinto(check) == CHECKSUM_BYTES and not file.read(1)
        # Zarr's codec crc32c appends it, little-endian
        if not complete or int.from_bytes(check, "little") != checksum:
            raise StoreError(
                f"the chunk {path!r} is damaged: its checksum is another. Write the array again with "
                "overwrite=True."
            )


def _filled(file: Any, octets: np.ndarray) -> bool:
    data, filled = memoryview(octets), 0
    while filled < data.nbytes:
        count = file.readinto(data[filled:])
        if not count:
            return False
        filled += count
    return True


class ChunkRows:
    """Rows start … stop of an array's chunk files: read whole by ``np.asarray``, piece by piece by iteration.

    A piece is (rows, columns), and its memory the next one's: what it holds is to be used before. That it is
    what was written is known at the end of its chunk, where StoreError says that it is not. Pieces spare the
    faults of a block's pages, mapped anew each time above 32 MB, and are summed while they lie in the cache.
    """

    ndim = 2

    def __init__(self, files: ChunkFiles, start: int, stop: int) -> None:
        self.files, self.start, self.stop = files, start, stop
        self.dtype, self.shape = files.dtype, (stop - start, files.shape[1])

    def __iter__(self) -> Iterator[np.ndarray]:
        files = self.files
        rows = max(1, PIECE_BYTES // max(1, files.shape[1] * files.dtype.itemsize))
        held = np.empty((min(rows, files.rows), files.shape[1]), files.dtype)
        with files.as_opened():
            for chunk in self._chunks():
                for row, piece in files.pieces(chunk, held):
                    row += chunk * files.rows
                    wanted = piece[max(0, self.start - row) : max(0, self.stop - row)]
                    if wanted.size:
                        yield wanted

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        out = np.empty(self.shape, self.dtype)
        with self.files.as_opened():
            for chunk in self._chunks():
                first = chunk * self.files.rows
                begin, end = max(self.start, first), min(self.stop, first + self.files.rows)
                place = out[begin - self.start : end - self.start]
                whole = end - begin == self.files.rows
                held = place if whole else np.empty((self.files.rows, self.shape[1]), self.dtype)
                for _ in self.files.pieces(chunk, held):
                    pass
                if not whole:
                    place[...] = held[begin - first : end - first]
        return out if dtype is None else out.astype(dtype, copy=False)

    def _chunks(self) -> range:
        return range(self.start // self.files.rows, -(-self.stop // self.files.rows))


def chunk_files(array: Any) -> ChunkFiles | None:
    """Reader of the chunk files of a Zarr array; None where Zarr has to read it.

    It reads arrays of two dims on the local disk, Zarr format 3, in chunks of whole rows all of whose files are
    there, of native floats or integers in C order, with the codecs bytes and crc32c: what this package writes for
    P and rotated alternatives.
    """
    if not isinstance(array, zarr.Array) or not isinstance(array.store, LocalStore):
        return None
    metadata = array.metadata.to_dict()
    codecs = [codec.get("name") for codec in metadata.get("codecs", ()) if isinstance(codec, dict)]
    key = metadata.get("chunk_key_encoding")
    plain = (
        metadata.get("zarr_format") == 3
        and codecs == ["bytes", "crc32c"]
        and isinstance(key, dict)
        and key.get("name") == "default"
        and (key.get("configuration") or {}).get("separator", "/") == "/"
        and array.dtype.kind in "iuf"
        and array.dtype.isnative
        and sys.byteorder == "little"
    )
    if not plain or array.ndim != 2 or array.chunks[1] != array.shape[1] or not array.size:
        return None
    endian = (metadata["codecs"][0].get("configuration") or {}).get("endian", "little")
    if endian != "little" or array.nchunks_initialized < array.nchunks:
        return None
    folder = Path(array.store.root) / array.path / "c"
    return ChunkFiles(str(folder.absolute()), array.shape, array.chunks[0], array.dtype, token_of(array))
