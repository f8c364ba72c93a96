"""Every variant of some genotypes in a fitted model: rotate and test, at once or from a store of the rotated."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from dasklmm import schema
from dasklmm.errors import OptionError
from dasklmm.lazy import associate, project
from dasklmm.model import LinearMixedModel
from dasklmm.numerics import alternatives
from dasklmm.store.places import absolute


def linear_mixed_regression_rows(
    entries: Any,
    model: LinearMixedModel,
    pa_path: str | Path | None = None,
    a_path: str | Path | None = None,
    mean_impute: bool = True,
    partition_size: int | None = None,
    pass_through: Sequence[str] = (),
    overwrite: bool = False,
) -> xr.Dataset:
    """Test every variant in a fitted model that keeps its rotation. Lazy, but for what is stored.

    Parameters
    ----------
    entries : Dataset of `open_genotypes`, DataArray (variant, sample) in any order, or array
        Alternatives; joined to the model's samples by id where both have ids.
    model : LinearMixedModel
        Fitted; made by `from_kinship`, `from_random_effects` or `linear_mixed_model`, or with p_path.
    pa_path, a_path : str, optional
        Store the rotated alternatives, and the imputed ones, there as Zarr arrays, computed now. The tests
        then read what a model of its rank needs of them. One of the same inputs is opened, and goes on where its
        writing was interrupted; anything else there is refused.
    mean_impute : bool
        Impute missing dosages by the variant's mean; otherwise such a variant is a NaN row.
    partition_size : int, optional
        Variants of a task.
    pass_through : sequence of str
        Variables of `entries` over variant to carry into the result, beside its coordinates.
    overwrite : bool
        Replace what this package wrote at `pa_path` and `a_path`.

    Returns
    -------
    Dataset (variant)
        As of :meth:`LinearMixedModel.fit_alternatives`. Cost 2 eigen sample flop a variant.

    Raises
    ------
    NotFittedError, StoreError, SampleError, ShapeError, DimensionError
        Before anything is read.

    Examples
    --------
    >>> import numpy as np
    >>> import dasklmm
    >>> cohort = dasklmm.simulate(100, 400, n_contigs=2, h_sq=0.5, seed=1)
    >>> y, x = cohort["phenotype"], np.ones((100, 1))
    >>> model, p = dasklmm.linear_mixed_model(y, x, cohort)
    >>> lazy = dasklmm.linear_mixed_regression_rows(cohort, model.fit())
    >>> lazy["p_value"].dims, lazy.to_dataframe().shape[0]
    (('variant',), 400)
    """
    null = model.alternative_test("lrt")
    p = project.operand(model.rotation)
    array = entries["dosage"] if isinstance(entries, xr.Dataset) else entries
    samples = None
    if model.sample_id is not None and isinstance(array, xr.DataArray):
        available = schema.sample_ids(array)
        if available is not None and not np.array_equal(available, model.sample_id):
            samples = schema.positions(model.sample_id, available, "entries")
    rows = schema.as_rows(
        array,
        "entries",
        (schema.VARIANT, schema.SAMPLE),
        model.n if samples is None else None,
        partition_size=partition_size,
    )
    carried = dict(rows.coords)
    for name in pass_through:
        if not isinstance(entries, xr.Dataset) or name not in entries:
            raise OptionError(f"pass_through names {name!r}, which entries do not hold.")
        carried[name] = entries[name]
    if pa_path is not None and a_path is not None and absolute(pa_path) == absolute(a_path):
        raise OptionError(
            f"pa_path and a_path are both {str(pa_path)!r}; give each array a place of its own."
        )
    made_of = functools.partial(project.rotation_inputs, entries, rows)
    imputed = project.imputed_rows(rows, samples, mean_impute)
    rotated = project.rotated_rows(rows, p, samples, mean_impute)
    to_keep = {
        "impute": (imputed, a_path, functools.partial(made_of, None, samples, mean_impute)),
        "rotate": (rotated, pa_path, functools.partial(made_of, p, samples, mean_impute)),
    }
    for lazy, path, of in to_keep.values():
        if path is not None:
            project.check_apart(path, p)
            project.check_rows(lazy, path, of, overwrite=overwrite)  # before anything is read
    kept = {
        label: project.keep_rows(lazy, path, of, label=label, overwrite=overwrite)
        for label, (lazy, path, of) in to_keep.items()
        if path is not None
    }
    if pa_path is None:
        group = associate.Group(alternatives.stacked_tests([null]), p, samples, model.intercept)
        data = associate.scan([group], rows.data, label="test", mean_impute=mean_impute)
        out = associate.dataset(data[:, 2:], associate.TEST_COLUMNS, rows.coords, test="lrt")
    else:
        stored, plain = kept["rotate"], kept.get("impute", imputed)
        out = model.fit_alternatives(stored, plain if model.low_rank else None, partition_size)
        out = out.assign_coords({k: v.variable for k, v in rows.coords.items()})
    return out.assign_coords({n: carried[n].variable for n in pass_through})
