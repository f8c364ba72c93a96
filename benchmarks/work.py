"""What the stages work on: a simulated cohort in a store, its eigenpairs, models and rotations, each made once."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import xarray as xr

import dasklmm
from dasklmm.lazy.project import write_rows
from dasklmm.numerics import refit
from dasklmm.store.arrays import create_array, finish_array
from dasklmm.store.genotypes import write_genotypes

DTYPES = {"float32": np.float32, "float64": np.float64}
PRECISION = {"float32": "single", "float64": "double"}
# The samples of a simulation are drawn variant by variant; more than this many variants are repeated.
MOST_DRAWN = 16_384
PA_CHUNK_BYTES = 16 * 1024**2


class Work:
    """Inputs of `samples` and `variants`, and a rotation of its own size for the test on stored PA."""

    def __init__(self, folder: Path, samples: int, variants: int, pa: tuple[int, int]) -> None:
        self.folder, self.samples, self.variants, self.pa_shape = folder, samples, variants, pa
        self._made: dict[str, Any] = {}
        self._count = 0

    def fresh(self) -> Path:
        """A path where nothing lies yet."""
        self._count += 1
        return self.folder / f"fresh-{self._count}"

    @cached_property
    def genotypes(self) -> Path:
        """Store of int8 genotypes: families, 1 % missing."""
        drawn = dasklmm.simulate(self.samples, min(self.variants, MOST_DRAWN), n_causal=5, seed=1)
        self.phenotype = pd.Series(
            drawn["phenotype"].values, index=drawn["sample_id"].values.astype(str), name="trait"
        )
        times = -(-self.variants // drawn.sizes["variant"])
        ds = xr.concat([drawn] * times, "variant", data_vars="minimal", coords="minimal", compat="override")
        ds = ds.isel(variant=slice(self.variants)) if times > 1 else drawn
        index = np.arange(self.variants)
        ds = ds.assign_coords(
            variant_id=("variant", np.char.add("v", index.astype(str))),
            variant_position=("variant", index + 1),
        )
        path = self.folder / "genotypes.zarr"
        with dask.config.set(scheduler="threads"):  # or a cluster would be sent the genotypes
            write_genotypes(ds, path)
        return path

    @property
    def y(self) -> pd.Series:
        """Phenotype of every sample."""
        _ = self.genotypes
        return self.phenotype

    def open(self, **options: Any) -> xr.Dataset:
        """The genotypes, opened anew."""
        return dasklmm.open_genotypes(self.genotypes, **options)

    @cached_property
    def kinship(self) -> xr.DataArray:
        """Kinship of the first variants, in memory: a stage that starts from it does not time it."""
        head = self.open().isel(variant=slice(4 * self.samples))
        return dasklmm.kinship(head, precision="single").compute(scheduler="threads")

    @cached_property
    def pairs(self) -> xr.Dataset:
        """Its eigenpairs."""
        return dasklmm.eigendecompose(self.kinship)

    def p_store(self, dtype: str) -> str:
        """Path of P in a precision, with its sample ids."""
        path = self.folder / f"p-{dtype}.zarr"
        if not path.exists():
            write_rows(self.pairs["p"].astype(dtype), path)
        return str(path)

    def model(self, dtype: str) -> dasklmm.LinearMixedModel:
        """Fitted model whose P is stored in a precision."""
        p, y = self.pairs["p"].values, self.y.to_numpy()
        px = p @ np.ones((self.samples, 1))
        model = dasklmm.LinearMixedModel(p @ y, px, self.pairs["s"].values, p_path=self.p_store(dtype))
        return model.fit(on_boundary="clamp")

    def rotation_model(self) -> dasklmm.LinearMixedModel:
        """Fitted model as large as the stored rotation, of noise."""
        if "rotation model" not in self._made:
            r = self.pa_shape[1]
            rng = np.random.default_rng(2)
            s = np.sort(rng.exponential(size=r))[::-1]
            model = dasklmm.LinearMixedModel(
                rng.standard_normal(r) * np.sqrt(1 + s), rng.standard_normal((r, 1)), s
            )
            self._made["rotation model"] = model.fit(on_boundary="clamp")
        return self._made["rotation model"]

    def stored_rotation(self, dtype: str) -> Path:
        """Store of PA (variant, eigen), noise, chunked and checked as `linear_mixed_regression_rows` does."""
        path = self.folder / f"pa-{dtype}.zarr"
        if not path.exists():
            m, r = self.pa_shape
            rows = max(1, min(m, PA_CHUNK_BYTES // (r * np.dtype(dtype).itemsize)))
            array = create_array(path, (m, r), np.dtype(dtype), ("variant", "eigen"), chunks=(rows, r))
            noise = np.random.default_rng(3).standard_normal((rows, r), dtype=np.float32).astype(dtype)
            for start in range(0, m, rows):
                stop = min(start + rows, m)
                array[start:stop] = noise[: stop - start]
            finish_array(array)
        return path

    def refit_nodes(self) -> int:
        """Columns of a refit's products with a rotated tile: of squares and of products together."""
        if "nodes" not in self._made:
            model = self.model("float64")
            null = refit.refit_test(model.data, model.null, "lrt")
            weights = refit.node_weights(null, null.window, slice(None))
            self._made["nodes"] = weights.squares.shape[1] + weights.products.shape[1]
        return self._made["nodes"]

    def scan(self, dtype: str, *, ds: xr.Dataset | None = None, **options: Any) -> xr.Dataset:
        """`gwas` with the eigenpairs given, into a store that is removed again."""
        path = self.fresh()
        try:
            return dasklmm.gwas(
                self.open() if ds is None else ds, self.y, kinship=self.pairs, loco=False,
                precision=PRECISION[dtype], store=path, **options,
            )  # fmt: skip
        finally:
            shutil.rmtree(path, ignore_errors=True)
