"""What lies at a path or URL: bytes put whole, read and removed, and a place that cannot be reached said so."""

from __future__ import annotations

import io
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec

from dasklmm.errors import DaskLMMError, MissingExtraError, StoreError

# What installs the file system of a URL.
REMEDIES = {
    **dict.fromkeys(("s3", "s3a"), "pip install 'dasklmm[cloud]'"),
    **dict.fromkeys(("http", "https"), "pip install aiohttp requests"),
}

AMAZON = (
    "Give credentials as the AWS tools take them (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws; for "
    "public data FSSPEC_S3_ANON=true), and AWS_ENDPOINT_URL where the server is not Amazon's; workers need them "
    "too."
)


def is_local(path: str | Path) -> bool:
    """Whether a path is on this machine's file system, not a URL."""
    return "://" not in str(path)


def absolute(path: str | Path) -> str:
    """A path as every process sees it, wherever it was started; a URL as it is, without a slash at its end."""
    text = str(path).removeprefix("file://")
    return str(Path(text).absolute()) if is_local(text) else text.rstrip("/")


def work_of(path: str | Path) -> str:
    """Where the unfinished work of what will lie at a path is kept, and its lock."""
    return f"{str(path).rstrip('/')}.work"


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Say in one StoreError that a place cannot be written, or is full."""
    try:
        yield
    except DaskLMMError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error
    except Exception as error:
        if is_local(path):
            raise
        raise unwritable(path, error) from error  # file systems of URLs raise what they like


def put(path: str, *parts: Any) -> None:
    """Write bytes whole: under another name and renamed, or as one object.

    Raises
    ------
    StoreError
        The place cannot be written, or is full.
    """
    with writing(path):
        _put(path, *parts)


def unwritable(path: str | Path, error: Exception) -> StoreError:
    """Error of a place that cannot be written, or is full."""
    reason = getattr(error, "strerror", None) or error
    remedy = (
        "Free space, or give a place that can be written"
        if is_local(path)
        else "Give a place that is there (a bucket is not made) and that your credentials may write"
    )
    return StoreError(
        f"{str(path)!r} cannot be written: {reason}. {remedy}, and run the same command again: of a scan, what is "
        "finished is kept."
    )


def _put(path: str, *parts: Any) -> None:
    if is_local(path):
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}.partial")
        try:
            with partial.open("wb") as file:
                for part in parts:
                    file.write(part)
            os.replace(partial, target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return
    fs, root = fsspec.core.url_to_fs(path)
    buffer = io.BytesIO()
    for part in parts:
        buffer.write(part)
    fs.pipe_file(root, buffer.getvalue())


def get(path: str) -> bytes | None:
    """Bytes at a path, or None where there are none."""
    try:
        if is_local(path):
            return Path(path).read_bytes()
        fs, root = fsspec.core.url_to_fs(path)
        return bytes(fs.cat_file(root))
    except FileNotFoundError:
        return None


def head(path: str, size: int) -> bytes:
    """The first bytes of a file."""
    fs, root = fsspec.core.url_to_fs(path)
    return bytes(fs.cat_file(root, start=0, end=size))


def modified(path: str) -> float | None:
    """When a file was written by the clock of its file system, in seconds; None where that is not told."""
    fs, root = fsspec.core.url_to_fs(path)
    fs.invalidate_cache()
    try:
        return float(fs.modified(root).timestamp())
    except Exception:  # noqa: BLE001  (file systems raise what they like)
        return None


def present(path: str) -> bool:
    """Whether a file or folder lies at a path."""
    fs, root = fsspec.core.url_to_fs(path)
    fs.invalidate_cache()
    return bool(fs.exists(root))


def remove(path: str | Path) -> None:
    """Remove a folder and what is in it, if it is there."""
    fs, root = fsspec.core.url_to_fs(str(path))
    fs.invalidate_cache()
    if fs.exists(root):
        fs.rm(root, recursive=True)


def entries(path: str) -> list[str]:
    """Names of what a folder holds; none where it is not there."""
    fs, root = fsspec.core.url_to_fs(path)
    fs.invalidate_cache()
    held = fs.ls(root, detail=False) if fs.exists(root) else []
    return sorted(str(place).rstrip("/").rsplit("/", 1)[-1] for place in held)


def clear(path: str, keep: str, first: str = "") -> None:
    """Remove all that a folder holds but the entry `keep`; the entry `first` before the others."""
    fs, root = fsspec.core.url_to_fs(path)
    for name in sorted(entries(path), key=lambda name: name != first):
        if name != keep:
            fs.rm(f"{root}/{name}", recursive=True)


def reach(path: str | Path) -> None:
    """See that the file system of a URL answers, before anything is asked of it. Eager.

    Raises
    ------
    MissingExtraError
        The library of the URL's file system is not installed; with the remedy.
    StoreError
        No such file system, no credentials, no permission, or no server.
    """
    if is_local(path):
        return
    scheme = str(path).partition("://")[0]
    try:
        fs, root = fsspec.core.url_to_fs(str(path))
        fs.exists(root)
    except FileNotFoundError:
        return  # such as a bucket that is not there: nothing lies at the path
    except ImportError as error:
        remedy = REMEDIES.get(scheme)
        raise MissingExtraError(
            f"{str(path)!r} needs a library that is not installed"
            + (f" ({error}): {remedy}" if remedy else f": {error}")
        ) from error
    except Exception as error:  # file systems raise what they like
        remedy = AMAZON if scheme in ("s3", "s3a") else "Check the URL, and that this machine may read it."
        raise StoreError(
            f"{str(path)!r} cannot be reached ({type(error).__name__}: {error}). {remedy}"
        ) from error


def check_writable(path: str | Path) -> None:
    """See that something can be written beside a path, before the work that leaves something there. Eager.

    Raises
    ------
    StoreError, MissingExtraError
    """
    reach(path)
    probe = f"{absolute(path)}.{uuid.uuid4().hex}.partial"
    try:
        _put(probe, b"")
        with suppress(FileNotFoundError):  # taken for a killed run's by one that writes there
            remove(probe)
    except Exception as error:  # file systems raise what they like
        raise unwritable(path, error) from error


def check_space(path: str | Path, needed: int) -> None:
    """Refuse a folder of a local disk that has no room for what will lie there, before any work. Eager.

    What lies there already counts as room. Object stores, and disks whose size is told as 0, do not tell.

    Raises
    ------
    StoreError
    """
    if not is_local(path):
        return
    folder = Path(path)
    held = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    free = usage.free + held
    if usage.total and needed > free:
        raise StoreError(
            f"unfinished work at {str(path)!r} will need {needed / 1e9:,.3g} GB, and {free / 1e9:,.3g} GB are "
            "free there. Free space, or give a store on another disk or an object store (store=, --store)."
        )


def check_place(path: str | Path) -> None:
    """Reach a place for what is written later; where nothing lies there yet, see that something can. Eager."""
    reach(path)
    if not present(str(path)):
        check_writable(path)
