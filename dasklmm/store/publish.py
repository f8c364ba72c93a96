"""Publishing: what lies at a path is whole, put there in one step, and true of inputs that stayed the same."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dasklmm.errors import DaskLMMError, GenotypeFormatError, GenotypeReadError, StoreError
from dasklmm.store.places import clear, is_local, remove, writing

# Characters of two values of an option that a refusal shows; a digest has 64.
_SHORT = 60


@contextmanager
def published(path: str) -> Iterator[str]:
    """Where to write what is to lie at `path`, which has it when the block ends.

    On a local disk that is beside it, and renamed into its place; what was there goes when the new one has it.
    An object store has no renaming: what was there is removed first, and the writer's last attribute tells that
    all is there. Ask `vacant` before, and hold `one_writer`.

    Raises
    ------
    StoreError
        It cannot be put there.
    """
    if not is_local(path):
        with writing(path):
            empty(path)
        yield path
        return
    _tidy(path, "partial")
    target = _beside(path, "partial")
    try:
        yield target
        with writing(path):
            exchange(target, path)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def exchange(source: str, path: str) -> None:
    """Rename a folder into its place; what was there is renamed away, and goes when the new one is there."""
    former = _beside(path, "former")
    try:
        if os.path.lexists(path):
            os.replace(path, former)
        os.replace(source, path)
    except BaseException:
        if os.path.lexists(former) and not os.path.lexists(path):
            os.replace(former, path)
        raise
    _tidy(path, "former")


def discard(path: str) -> None:
    """Remove a folder: a kill leaves all of it, or nothing of its name."""
    if os.path.lexists(path):
        os.replace(path, _beside(path, "former"))
    _tidy(path, "former")


def empty(url: str) -> None:
    """Remove a group or array of an object store; its metadata, which says whose it is, goes last."""
    clear(url, keep="zarr.json")
    remove(f"{url}/zarr.json")


def _beside(path: str, ending: str) -> str:
    return f"{path}.{uuid.uuid4().hex}.{ending}"


def _tidy(path: str, ending: str) -> None:
    """Remove what this package left beside a path, in this process or in one that was killed."""
    ours = re.compile(re.escape(Path(path).name) + r"\.[0-9a-f]{32}\." + ending)
    with suppress(OSError):
        for entry in list(Path(path).parent.iterdir()):
            if ours.fullmatch(entry.name):
                remove(str(entry))


def differing(kept: dict[str, Any], inputs: dict[str, Any]) -> list[str]:
    """Names under which two descriptions of inputs differ, with both values where they are short (no digests)."""
    names = [k for k in inputs if kept.get(k) != inputs[k]]
    both = {k: (repr(kept[k]), repr(inputs[k])) for k in names if k in kept}
    short = {k: f"{k} ({old} there, {new} now)" for k, (old, new) in both.items() if len(old + new) <= _SHORT}
    return [short.get(k, k) for k in names]


@contextmanager
def unchanged(
    of: Callable[[], dict[str, Any]], inputs: dict[str, Any], drop: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Refuse what the block made where its inputs, described by `of`, are others now; `drop` its work then.

    Raises
    ------
    StoreError
        Also in place of the error of a reader that an edited file makes fail.
    """
    try:
        yield
    except Exception as error:
        # files that are written anew make readers raise what they like
        if isinstance(error, GenotypeReadError) or not isinstance(error, DaskLMMError):
            with suppress(GenotypeFormatError, GenotypeReadError, OSError, ValueError):
                _check_unchanged(of, inputs, drop)
        raise
    _check_unchanged(of, inputs, drop)


def _check_unchanged(
    of: Callable[[], dict[str, Any]], inputs: dict[str, Any], drop: Callable[[], None]
) -> None:
    changed = differing(of(), inputs)
    if changed:
        drop()  # what was made of the one must not be taken for the other's
        raise StoreError(
            f"the {', '.join(changed)} changed while they were read, so nothing is published, and no work of this "
            "run is kept. Run the same command again when the files are at rest."
        )
