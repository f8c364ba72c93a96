"""What a model is made of, as it was given: arrays, tables and named arrays, joined by their ids."""

from __future__ import annotations

import logging
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from dasklmm import schema
from dasklmm.errors import DimensionError, SampleError, ShapeError
from dasklmm.numerics import design

logger = logging.getLogger(__name__)


class Inputs:
    """Response and design with the ids and names that they came with."""

    def __init__(self, y: np.ndarray, x: np.ndarray, ids: np.ndarray | None, names: list[str] | None) -> None:
        self.y, self.x, self.ids, self.names = y, x, ids, names

    @classmethod
    def of(cls, y: Any, x: Any) -> Inputs:
        """Those of y and x in any form, x in the order of y's ids; ShapeError, SampleError."""
        y_ids, x_ids = ids_of(y), ids_of(x)
        names = [str(c) for c in x.columns] if isinstance(x, pd.DataFrame) else None
        if isinstance(x, xr.DataArray):
            x = x.transpose(schema.SAMPLE, ...)
        y_, x_ = design.as_vector(y, "y"), design.as_matrix(x, "x")
        if y_ids is not None and x_ids is not None:
            x_ = x_[schema.positions(y_ids, x_ids, "x")]
        if x_.shape[0] != y_.size:
            raise ShapeError(f"y has {y_.size} samples and x has shape {x_.shape}; x needs {y_.size} rows.")
        return cls(y_, x_, y_ids if y_ids is not None else x_ids, names)

    def check(self) -> None:
        """Refuse the design before anything costs time; say where it has no intercept."""
        design.check_design(self.x, self.y.size, self.names)
        if not self.intercept:
            logger.warning("x has no intercept: no constant lies in the span of its columns")

    @property
    def intercept(self) -> bool:
        """Whether a constant lies in the span of x."""
        return design.has_intercept(self.x)


def ids_of(array: Any) -> np.ndarray | None:
    """Sample ids that a table or a named array carries, None where it has none."""
    if isinstance(array, (pd.Series, pd.DataFrame)):
        if isinstance(array.index, pd.RangeIndex):
            return None  # plain row numbers
        ids = np.asarray(array.index.astype(str), dtype=str)
        schema.check_unique(ids, "the table")
        return ids
    if isinstance(array, xr.DataArray):
        return schema.sample_ids(array)
    return None


def kinship_of(k: Any, inputs: Inputs) -> tuple[Any, np.ndarray | None]:
    """Kinship in the order of y's samples where both have ids, and the ids; SampleError."""
    if isinstance(k, pd.DataFrame):
        ids = ids_of(k)
        if ids is not None and not np.array_equal(ids, np.asarray(k.columns.astype(str), dtype=str)):
            raise SampleError(
                "the kinship's index and columns differ; both must be the same sample ids in the same order."
            )
        coords = {} if ids is None else {"sample_id_0": ("sample_0", ids), "sample_id_1": ("sample_1", ids)}
        k = xr.DataArray(k.to_numpy(dtype=np.float64), dims=("sample_0", "sample_1"), coords=coords)
    if not isinstance(k, xr.DataArray):
        return (k if isinstance(k, da.Array) else np.asarray(k)), inputs.ids
    ids = schema.kinship_ids(k)
    if ids is None or inputs.ids is None:
        return k.data, inputs.ids if ids is None else ids
    index = schema.positions(inputs.ids, ids, "the kinship")
    return k.data[index][:, index], inputs.ids


def cross_ids(kinship: Any, ids: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the rows of a kinship with other samples, and where the model's samples stand in its columns."""
    if not isinstance(kinship, xr.DataArray) or set(kinship.dims) != {"sample_0", "sample_1"}:
        given = getattr(kinship, "dims", type(kinship).__name__)
        raise DimensionError(
            f"the kinship of new samples is {given}; a DataArray (sample_0, sample_1) is needed: new samples, and "
            "those of the model, with sample_id_0 and sample_id_1."
        )
    new_ids, old_ids = (schema.sample_ids(kinship, name) for name in ("sample_id_0", "sample_id_1"))
    if new_ids is None or old_ids is None:
        missing = [n for n, v in (("sample_id_0", new_ids), ("sample_id_1", old_ids)) if v is None]
        raise SampleError(
            f"the kinship of new samples carries no {' and no '.join(missing)}, so it cannot be joined to the "
            "model's samples. Assign sample_id_0 over sample_0 and sample_id_1 over sample_1."
        )
    if ids is None:
        raise SampleError(
            "the model knows no sample ids, so the kinship of new samples cannot be joined to it. Make it from y "
            "as a Series, or from a kinship with sample ids, or set sample_id of the model."
        )
    return new_ids, schema.positions(ids, old_ids, "the kinship's sample_id_1")
