"""Results on a local disk: complete or refused, and replaced only by what is complete."""

from __future__ import annotations

import os

import numpy as np
import pytest
import xarray as xr

from dasklmm import errors
from dasklmm.store import results


def test_former_results_stay_until_the_new_have_their_place(tmp_path, monkeypatch):
    """A write that fails at its last step, after all is made, leaves what was there, whole and alone."""
    path = tmp_path / "r.zarr"
    first, second = (xr.Dataset({"beta": ("variant", np.full(3, value))}) for value in (1.0, 2.0))
    results.write_results(first, path, {})
    replace = os.replace

    def full(source, target):
        if str(source).endswith(".partial") and str(target) == str(path):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(errors.StoreError, match="No space"):
        results.write_results(second, path, {}, overwrite=True)
    assert results.open_results(path).identical(first)
    assert [p.name for p in tmp_path.iterdir()] == ["r.zarr"]
    monkeypatch.undo()
    results.write_results(second, path, {}, overwrite=True)
    assert results.open_results(path).identical(second)
    assert [p.name for p in tmp_path.iterdir()] == ["r.zarr"]
