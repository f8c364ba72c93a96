"""Kinship matrices against their definitions, lazily, by any chunking."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

import dasklmm
from dasklmm import errors
from dasklmm.lazy import blocks, random_effects, run
from dasklmm.store import arrays


def chunked(ds, **chunks):
    """The dosages in other chunks; coordinates stay in memory."""
    return ds.assign(dosage=ds["dosage"].chunk(chunks))


@pytest.fixture(scope="module")
def cohort():
    ds = dasklmm.simulate(40, 300, seed=9)
    dosage = ds["dosage"].values.copy()
    dosage[4] = 2
    return chunked(ds.assign(dosage=(("variant", "sample"), dosage)), variant=50)


def dense(ds, method):
    g = np.where(ds["dosage"].values < 0, np.nan, ds["dosage"].values.astype(float))
    mean = np.nanmean(g, axis=1, keepdims=True)
    z = np.nan_to_num(g - mean)
    kept = np.linalg.norm(z, axis=1) > 0
    z, mean = z[kept], mean[kept]
    if method == "rrm":
        z *= np.sqrt(z.shape[1]) / np.linalg.norm(z, axis=1, keepdims=True)
    if method == "grm":
        f = mean / 2
        z /= np.sqrt(2 * f * (1 - f))
    return z.T @ z / len(z)


@pytest.mark.parametrize("method", ["rrm", "grm", "centered"])
@pytest.mark.parametrize("chunks", [1, 77, 300])
def test_definition(cohort, method, chunks, no_compute):
    with no_compute():
        lazy = dasklmm.kinship(chunked(cohort, variant=chunks, sample=13), method)
    assert lazy.dims == ("sample_0", "sample_1")
    assert dask.is_dask_collection(lazy.data)
    got = lazy.compute()
    np.testing.assert_allclose(got, dense(cohort, method), rtol=1e-10, atol=1e-12)
    assert got["sample_id_0"].values.tolist() == cohort["sample_id"].values.tolist()
    assert got["sample_id_1"].values.tolist() == cohort["sample_id"].values.tolist()
    np.testing.assert_array_equal(got.values, got.values.T)


def test_graph_of_many_blocks_has_few_layers():
    """Each block of a lane copies the layers of the graph before it: their number must not grow with blocks."""
    parts = blocks.delayed_blocks(da.ones((600, 3), chunks=(1, 3)))
    add = blocks.delayed_call(lambda block, before: block.sum() + (before or 0), "sum")
    (total,) = blocks.lanes(parts, 1, add)
    assert len(total.__dask_graph__().layers) < 200
    assert total.compute() == 1800


def test_single_precision(cohort):
    got = dasklmm.kinship(cohort, precision="single").values
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, dense(cohort, "rrm"), atol=2e-6)


def test_equal_runs_are_equal_to_the_bit(cohort):
    one, two = (dasklmm.kinship(cohort, precision="single").values for _ in range(2))
    assert one.tobytes() == two.tobytes()


def test_refusals(cohort):
    with pytest.raises(errors.OptionError, match="kinship method is 'ibs'"):
        dasklmm.kinship(cohort, "ibs")
    with pytest.raises(errors.KinshipError, match="no variant"):
        dasklmm.kinship(cohort.isel(variant=slice(0)))
    flat = xr.zeros_like(cohort["dosage"])
    with pytest.raises(errors.KinshipError, match="no variant varies"):
        dasklmm.kinship(cohort.assign(dosage=flat)).compute()


def test_eigendecompose_and_project(cohort, no_compute):
    k = dasklmm.kinship(cohort)
    pairs = dasklmm.eigendecompose(k)
    assert pairs["p"].dims == ("eigen", "sample")
    assert pairs["sample_id"].values.tolist() == cohort["sample_id"].values.tolist()
    np.testing.assert_allclose(
        (pairs["p"].values.T * pairs["s"].values) @ pairs["p"].values, k.values, atol=1e-10
    )
    with no_compute():
        lazy = dasklmm.project(pairs, cohort.isel(sample=slice(None, None, -1)))
    assert lazy.dims == ("variant", "eigen")
    g = np.where(cohort["dosage"].values < 0, np.nan, cohort["dosage"].values.astype(float))
    g = np.where(np.isnan(g), np.nanmean(g, axis=1, keepdims=True), g)
    np.testing.assert_allclose(lazy.values, g @ pairs["p"].values.T, atol=1e-10)
    assert lazy["variant_id"].values.tolist() == cohort["variant_id"].values.tolist()
    plain = dasklmm.project(pairs["p"].values.astype(np.float32), g)
    assert plain.dtype == np.float32
    np.testing.assert_allclose(plain.values, g @ pairs["p"].values.T, atol=1e-4)
    with pytest.raises(errors.SampleError, match="30 of 40 samples"):
        dasklmm.project(pairs, cohort.isel(sample=slice(10)))
    with pytest.raises(errors.ShapeError, match="'sample'"):
        dasklmm.project(pairs["p"].values, g[:, :-1])


def test_eigendecompose_refusals(cohort, monkeypatch):
    k = dasklmm.kinship(cohort).compute()
    with pytest.raises(errors.RankError, match="from 1 to 40"):
        dasklmm.eigendecompose(k, rank=41)
    with pytest.raises(errors.KinshipError, match="square"):
        dasklmm.eigendecompose(np.ones(3))
    with pytest.raises(errors.SampleError, match="sample_id_0 and sample_id_1 differ"):
        dasklmm.eigendecompose(k.assign_coords(sample_id_1=("sample_1", k["sample_id_1"].values[::-1])))
    from dasklmm.lazy import budget

    monkeypatch.setattr(budget, "available_memory", lambda: 10_000)
    with pytest.raises(
        errors.MemoryBudgetError, match=r"an eigendecomposition of 40 samples: [\d.]+ GB are needed"
    ):
        dasklmm.eigendecompose(k)


def test_kept(cohort, tmp_path):
    """Equal genotypes and options open what is there; others are refused; what was not finished is made anew."""
    place, seen = tmp_path / "k.zarr", []
    made = dasklmm.kinship(cohort, store=place, progress=lambda *said: seen.append(said))
    values = made.values
    assert seen == [("kinship", done, 6) for done in range(1, 7)]
    np.testing.assert_array_equal(made.values, dasklmm.kinship(cohort).values)
    xr.testing.assert_identical(made["sample_id_0"], dasklmm.kinship(cohort)["sample_id_0"])
    assert made.attrs == {"method": "rrm"}
    again = dasklmm.kinship(cohort, store=place, progress=lambda *said: seen.append(said))
    assert len(seen) == 6
    xr.testing.assert_identical(again.compute(), made.compute())
    edited = cohort.assign(dosage=2 - cohort["dosage"])
    for other, options, what in (
        (edited, {}, "genotypes"),
        (cohort, {"method": "grm"}, "method"),
        (cohort.isel(sample=slice(30)), {}, "samples"),
    ):
        with pytest.raises(errors.StoreError, match=f"holds another kinship, which differs in: .*{what}"):
            dasklmm.kinship(other, store=place, **options)
    dasklmm.kinship(cohort, "grm", store=place, overwrite=True)
    np.testing.assert_array_equal(arrays.open_kinship(place).values, dasklmm.kinship(cohort, "grm").values)
    zarr.open_group(place, mode="a").attrs.pop("whole")
    np.testing.assert_array_equal(dasklmm.kinship(cohort, store=place).values, values)
    with pytest.raises(errors.StoreError, match="written anew"):
        made.compute()  # of the store that was replaced


def test_kept_without_ids_is_refused(cohort, tmp_path, no_compute):
    with no_compute(), pytest.raises(errors.KinshipError, match="carry no sample ids"):
        dasklmm.kinship(cohort.drop_vars("sample_id"), store=tmp_path / "k.zarr")


@pytest.mark.parametrize("shape", [(12, 40), (40, 12)])
def test_products_of_random_effects_are_summed_in_lanes(monkeypatch, shape):
    """There are never more n² sums about than threads, however many blocks; the matrix is z z' or z' z."""
    begun = []
    real = random_effects._add_product

    def add(block, transpose, before):
        begun.append(before is None)
        return real(block, transpose, before)

    monkeypatch.setattr(random_effects, "_add_product", add)
    monkeypatch.setattr(run, "parallelism", lambda: 2)
    z = np.random.default_rng(0).standard_normal(shape)
    transpose = shape[0] > shape[1]
    lazy = da.from_array(z, chunks=(4, -1) if transpose else (-1, 4))
    got = random_effects._sum_of_products(lazy, transpose).compute()
    np.testing.assert_allclose(got, z.T @ z if transpose else z @ z.T)
    assert (len(begun), sum(begun)) == (10, 2)
