"""Records of finished work: whole and checked, so that nothing done is lost and nothing else is believed.

A record is one object that holds its array, the fingerprint of the run's inputs and a checksum of all of
it, written under another name and renamed (or put whole on an object store). A block and the mark that it is
done are thus one thing: neither can be there without the other.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import zarr

from dasklmm.errors import StoreError
from dasklmm.store.places import check_writable, get, head, is_local, modified, put, reach, remove, unwritable

MAGIC = b"dasklmm-record-1"
# Attribute of every group and array that this package writes.
MARK = "dasklmm"
# An object store knows no lock that ends with its holder, so a writer there renews a lease. Two that begin at
# the same moment both find none: the last to write it has it, and the other sees that after a moment.
LEASE_SECONDS = 60.0
SETTLE_SECONDS = 1.0
# Of a file system that has no flock, as some of Lustre and NFS: a lease serves there too.
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


class Records:
    """Records of one run at a path or URL; small, and pickles to workers.

    Parameters
    ----------
    path : str or Path
        Folder, local or a URL that fsspec knows.
    fingerprint : str
        Of the run's inputs and options; a record of another run is none.
    """

    def __init__(self, path: str | Path, fingerprint: str) -> None:
        self.path, self.fingerprint = str(path).rstrip("/"), fingerprint

    def write(self, name: str, array: np.ndarray, **meta: Any) -> None:
        """Write a record whole."""
        array = np.ascontiguousarray(array)
        header = json.dumps(
            {
                "name": name,
                "fingerprint": self.fingerprint,
                "dtype": array.dtype.str,
                "shape": array.shape,
                "crc32": zlib.crc32(array),
                "meta": meta,
            },
            sort_keys=True,
        ).encode()
        prefix = MAGIC + struct.pack("<II", len(header), zlib.crc32(header))
        put(f"{self.path}/{name}", prefix, header, array.data)

    def read(self, name: str) -> tuple[np.ndarray, dict[str, Any]] | None:
        """Array and metadata of a record; None where it is absent, damaged, or of another run."""
        data = get(f"{self.path}/{name}")
        if data is None:
            return None
        start = len(MAGIC) + 8
        if data[: len(MAGIC)] != MAGIC or len(data) < start:
            return None
        length, check = struct.unpack("<II", data[len(MAGIC) : start])
        header = data[start : start + length]
        if len(header) != length or zlib.crc32(header) != check:
            return None
        fields = json.loads(header)
        body = memoryview(data)[start + length :]
        dtype, shape = np.dtype(fields["dtype"]), tuple(fields["shape"])
        if fields["name"] != name or fields["fingerprint"] != self.fingerprint or dtype.hasobject:
            return None
        if body.nbytes != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
            return None
        if zlib.crc32(body) != fields["crc32"]:
            return None
        return np.frombuffer(body, dtype=dtype).reshape(shape), fields["meta"]

    def names(self) -> list[str]:
        """Names of the records that are there, whole or not."""
        fs, root = fsspec.core.url_to_fs(self.path)
        if not fs.exists(root):
            return []
        found = (str(f)[len(str(root)) :].lstrip("/") for f in fs.find(root))
        return sorted(f for f in found if not f.endswith((".partial", "lock")))

    def check_own(self) -> None:
        """Refuse a folder that holds anything but records, whole or not."""
        for name in self.names():
            if head(f"{self.path}/{name}", len(MAGIC)) != MAGIC:
                raise StoreError(
                    f"{self.path!r} is where unfinished work is kept, and holds something else ({name}). Give "
                    "another store."
                )

    def write_rows(self, name: str, array: np.ndarray, block_bytes: int, of: str) -> None:
        """Write a matrix as records of some rows each, and last the record that says they are there.

        Each says `of` what it is, so that blocks of two attempts make no matrix.
        """
        rows = max(1, block_bytes // max(1, array[:1].nbytes))
        starts = np.arange(0, array.shape[0], rows)
        for i, start in enumerate(starts.tolist()):
            self.write(f"{name}/{i:05d}", array[start : start + rows], of=of)
        self.write(f"{name}/rows", starts, shape=list(array.shape), dtype=array.dtype.str, of=of)

    def stored_rows(self, name: str, of: str) -> StoredRows | None:
        """Handle of a matrix written by `write_rows` of the same; None where it is not there."""
        found = self.read(f"{name}/rows")
        if found is None or found[1]["of"] != of:
            return None
        starts, meta = found
        return StoredRows(self, name, tuple(meta["shape"]), np.dtype(meta["dtype"]), starts.size, of)

    def drop(self, name: str) -> None:
        """Remove a record, if it is there."""
        remove(f"{self.path}/{name}")


class Memory:
    """Records that are kept in this process alone, with the same methods."""

    path = "memory"

    def __init__(self) -> None:
        self._kept: dict[str, tuple[np.ndarray, dict[str, Any]]] = {}

    def write(self, name: str, array: np.ndarray, **meta: Any) -> None:
        """Keep an array."""
        self._kept[name] = (array, meta)

    def read(self, name: str) -> tuple[np.ndarray, dict[str, Any]] | None:
        """Array and metadata, or None."""
        return self._kept.get(name)

    def drop(self, name: str) -> None:
        """Forget an array."""
        self._kept.pop(name, None)


class StoredRows:
    """Matrix in records of some rows each: read whole by ``[...]``, or block by block by iteration."""

    def __init__(
        self, records: Records, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], blocks: int, of: str
    ) -> None:
        self.records, self.name, self.shape, self.dtype, self.blocks = records, name, shape, dtype, blocks
        self.of = of

    def __iter__(self) -> Iterator[np.ndarray]:
        """Blocks of rows in order; StoreError where one is damaged, or of another attempt."""
        for i in range(self.blocks):
            found = self._block(i)
            if found is None:
                raise damaged(self.records.path, f"{self.name}/{i:05d}")
            yield found

    def _block(self, i: int) -> np.ndarray | None:
        found = self.records.read(f"{self.name}/{i:05d}")
        return None if found is None or found[1].get("of") != self.of else found[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        out = np.empty(self.shape, dtype=self.dtype)
        done = 0
        for block in self:
            out[done : done + block.shape[0]] = block
            done += block.shape[0]
        return out[index]

    def whole(self) -> bool:
        """Whether every block is there and undamaged."""
        return all(self._block(i) is not None for i in range(self.blocks))


def damaged(path: str, name: str) -> StoreError:
    """Error of a record that should be there and is not, or is not what was written."""
    return StoreError(
        f"the record {name!r} at {path!r} is gone or damaged. Run the same command again: what is whole is "
        "kept, and this is computed anew."
    )


def vacant(path: str | Path, overwrite: bool, kind: str) -> None:
    """Refuse to write where something else lies, or nothing can be. Eager: writes and removes a file.

    Absent or empty is fine; with `overwrite` a Zarr array or group of the same kind ("array", "results",
    "kinship"…) that this package wrote. Anything else is never removed.

    Raises
    ------
    StoreError
    """
    reach(path)
    try:
        node: Any = zarr.open(str(path), mode="r")
    except (FileNotFoundError, NotADirectoryError, ValueError):
        node = None
    if node is None:
        fs, root = fsspec.core.url_to_fs(str(path))
        fs.invalidate_cache()
        if fs.exists(root) and (fs.isfile(root) or fs.ls(root, detail=False)):
            raise StoreError(
                f"{str(path)!r} holds something that is not of this package, which is never replaced. Give "
                "another path."
            )
        check_writable(path)
        return
    if not overwrite:
        raise StoreError(f"{str(path)!r} exists already. Give another path, or overwrite=True (--overwrite).")
    if MARK not in node.attrs:
        what = "array" if isinstance(node, zarr.Array) else "group"
        raise StoreError(
            f"{str(path)!r} is a Zarr {what} that this package did not write, which is never replaced. Give "
            "another path."
        )
    if node.attrs[MARK] != kind:
        raise StoreError(
            f"{str(path)!r} holds something of another kind ({node.attrs[MARK]}), which is not replaced by "
            f"this ({kind}). Give another path."
        )
    check_writable(path)


@contextmanager
def one_writer(path: str | Path) -> Iterator[Callable[[], None]]:
    """Hold the one right to write at a path; StoreError where another run holds it.

    A local lock ends with its process, however that ends. On an object store, and on a disk without locks, a
    lease is renewed while the run lives, and is free a minute after its last renewal: call what is yielded
    before anything is published, which raises StoreError where the lease has lapsed and is another's.
    """
    file = _locked(Path(path)) if is_local(path) else None
    if file is None:
        with _lease(str(path)) as check:
            yield check
        return
    with file:
        try:
            yield lambda: None  # the system keeps it
        finally:
            _leave(Path(path))


def _refuse(path: str | Path, holder: str) -> StoreError:
    return StoreError(
        f"another run is writing at {str(path)!r} ({holder}). Wait for it, end it, or give another store."
    )


def _opened(path: Path) -> Any:
    path.mkdir(parents=True, exist_ok=True)
    return (path / "lock").open("ab+", buffering=0)


def _is_at(file: Any, place: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.fstat(file.fileno()).st_ino == place.stat().st_ino
    except FileNotFoundError:
        return False


def _locked(path: Path) -> Any:
    """Open file that holds the lock of a folder; None where its file system has no locks."""
    import fcntl

    try:
        file = _opened(path)
    except OSError as error:
        raise StoreError(
            f"{str(path)!r} cannot be made: {error.strerror}. Give a store where you can write."
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().decode().strip() or "its process is not known"
        file.close()
        raise _refuse(path, holder) from None
    except OSError as error:
        file.close()
        if error.errno in NO_LOCKS:
            return None
        raise unwritable(path, error) from error
    if not _is_at(file, path / "lock"):
        file.close()
        raise _refuse(path, "it ended at this moment")  # and took its lock away; the next try has it
    with suppress(OSError):  # a full disk: the lock holds without the name of its holder
        file.truncate(0)
        file.write(f"process {os.getpid()}".encode())
    return file


def _leave(path: Path) -> None:
    """Leave nothing but the lock of a run that was refused, and nothing at all of one that ended."""
    with suppress(OSError):  # another run opens its lock there at this moment
        if not any(entry.name != "lock" for entry in path.iterdir()):
            (path / "lock").unlink(missing_ok=True)
            path.rmdir()


@contextmanager
def _lease(path: str) -> Iterator[Callable[[], None]]:
    place, own = f"{path}/lock", uuid.uuid4().hex
    age = _age(place, own)
    if age is not None and age < LEASE_SECONDS:
        raise _refuse(
            path,
            f"its lease was renewed {age:.0f} s ago; if that run was killed, it is free in "
            f"{LEASE_SECONDS - age:.0f} s",
        )
    ended = threading.Event()

    def owner() -> str | None:
        return _lease_fields(place).get("owner")

    def renew() -> None:
        put(place, json.dumps({"owner": own, "time": time.time()}).encode())

    def keep() -> None:
        while not ended.wait(LEASE_SECONDS / 4):
            with suppress(Exception):  # file systems raise what they like; tried again at the next turn
                if owner() != own:
                    return  # the lease lapsed and is another's now
                renew()

    def check() -> None:
        if owner() != own:
            raise _refuse(path, "it took the lease over from this one, which had lapsed")

    renew()
    time.sleep(SETTLE_SECONDS)
    if owner() != own:
        raise _refuse(path, "it began at the same moment")
    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield check
    finally:
        ended.set()
        thread.join()
        with suppress(Exception):  # it lapses
            if owner() == own:
                remove(place)
                if is_local(path):
                    Path(path).rmdir()


def _lease_fields(place: str) -> dict[str, Any]:
    """Owner and time of a lease; nothing where there is none, or what is there is none."""
    try:
        fields = json.loads(get(place) or b"{}")
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _age(place: str, own: str) -> float | None:
    """Seconds since a lease was renewed; None where there is none.

    By the file system's clock alone, which a file written now tells; where it tells no times, by the clocks of
    the holder and of this machine.
    """
    fields = _lease_fields(place)
    if "owner" not in fields:
        return None
    probe = f"{place}.{own}.partial"
    put(probe, b"")
    then, now = modified(place), modified(probe)
    remove(probe)
    if then is None or now is None:
        then, now = float(fields.get("time", 0.0)), time.time()
    return max(0.0, now - then)
