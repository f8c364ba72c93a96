"""LinearMixedModel: its constructors, its laziness, every form of input, every refusal."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dasklmm import (
    LinearMixedModel,
    errors,
    linear_mixed_model,
    linear_mixed_regression_rows,
)

COLUMNS = ["beta", "standard_error", "sigma_sq", "chi_sq", "p_value", "neg_log10_p_value"]


@pytest.fixture
def full(problem):
    model, p = LinearMixedModel.from_kinship(problem.y, problem.x, problem.k)
    return model.fit(), p


@pytest.fixture
def low(problem):
    p, s = problem.p[:12], problem.s[:12]
    return LinearMixedModel(p @ problem.y, p @ problem.x, s, problem.y, problem.x).fit(), p


def assert_same(dataset, frame, rtol=1e-10):
    for name in COLUMNS:
        np.testing.assert_allclose(dataset[name].values, frame[name], rtol=rtol, err_msg=name)
    assert dataset["status"].values.tolist() == frame["status"].tolist()


def test_attributes_are_those_of_hail(full, low, problem):
    model, _ = full
    assert (model.n, model.f, model.r, model.low_rank) == (60, 3, 60, False)
    assert model.y is None
    assert model.x is None
    assert model.p_path is None
    lower, _ = low
    assert (lower.n, lower.f, lower.r, lower.low_rank) == (60, 3, 12, True)
    np.testing.assert_array_equal(lower.y, problem.y)
    assert model.h_sq == pytest.approx(model.sigma_sq / (model.sigma_sq + model.tau_sq))
    assert model.gamma == pytest.approx(np.exp(model.log_gamma))
    value, beta, sigma_sq, tau_sq = model.compute_neg_log_reml(model.log_gamma, return_parameters=True)
    assert value == model.compute_neg_log_reml(model.log_gamma)
    np.testing.assert_array_equal(beta, model.beta)
    assert (sigma_sq, tau_sq) == (model.sigma_sq, pytest.approx(model.tau_sq))
    assert model.optimize_result.success
    assert "h_sq 0." in repr(model)


@pytest.mark.parametrize(
    "name", ["beta", "sigma_sq", "tau_sq", "gamma", "log_gamma", "h_sq", "h_sq_standard_error"]
)
def test_unfitted_model_says_so(problem, name):
    model = LinearMixedModel(problem.p @ problem.y, problem.p @ problem.x, problem.s)
    with pytest.raises(errors.NotFittedError, match="Call fit"):
        getattr(model, name)
    assert "not fitted" in repr(model)
    for test in (model.fit_alternatives, model.fit_alternatives_numpy):
        with pytest.raises(errors.NotFittedError):
            test(np.ones((60, 60)))


def sources(array, dims, tmp_path):
    """The same matrix in every form that is accepted."""
    named = xr.DataArray(array, dims=dims)
    path = tmp_path / f"{dims[1]}.zarr"
    zarr.create_array(str(path), data=array, chunks=(7, 20), dimension_names=dims)
    group = zarr.open_group(str(tmp_path / f"group-{dims[1]}.zarr"), mode="w")
    group.create_array("pa" if dims[1] == "eigen" else "a", data=array, chunks=(10, 60))
    turned = tmp_path / f"turned-{dims[1]}.zarr"
    zarr.create_array(str(turned), data=array.T.copy(), chunks=(60, 9), dimension_names=dims[::-1])
    return {
        "numpy": array,
        "dask": da.from_array(array, chunks=(8, 13)),
        "dask transposed": da.from_array(array.T.copy(), chunks=(11, 5)),
        "xarray": named,
        "xarray transposed": named.transpose(),
        "xarray dask": named.chunk({"variant": 4}),
        "path": str(path),
        "pathlib": path,
        "zarr": zarr.open_array(str(path), mode="r"),
        "zarr transposed": str(turned),
        "group": tmp_path / f"group-{dims[1]}.zarr",
    }


FORMS = [
    "numpy", "dask", "dask transposed", "xarray", "xarray transposed", "xarray dask", "path", "pathlib",
    "zarr", "zarr transposed", "group",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rank", ["full", "low"])
def test_every_form_of_alternatives(form, rank, full, low, problem, tmp_path, no_compute):
    model, p = full if rank == "full" else low
    pa, a = (p @ problem.a).T.copy(), problem.a.T.copy()
    want = model.fit_alternatives_numpy(pa.T, a.T if rank == "low" else None)
    with no_compute():
        lazy = model.fit_alternatives(
            sources(pa, ("variant", "eigen"), tmp_path)[form],
            sources(a, ("variant", "sample"), tmp_path)[form] if rank == "low" else None,
        )
    assert lazy.sizes == {"variant": problem.m}
    assert all(dask.is_dask_collection(v.data) for v in lazy.data_vars.values())
    assert_same(lazy.compute(), want)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_chunking_and_scheduler_gives_the_same(data, full, problem):
    model, p = full
    pa = (p @ problem.a).T.copy()
    want = model.fit_alternatives_numpy(pa.T)
    m = problem.m
    cuts = data.draw(st.lists(st.integers(1, m - 1), unique=True, max_size=6).map(sorted))
    rows = tuple(np.diff([0, *cuts, m]).tolist())
    columns = data.draw(st.sampled_from([(60,), (1, 59), (20, 20, 20)]))
    size = data.draw(st.none() | st.integers(1, 40))
    scheduler = data.draw(st.sampled_from(["synchronous", "threads"]))
    lazy = model.fit_alternatives(da.from_array(pa, chunks=(rows, columns)), partition_size=size)
    with dask.config.set(scheduler=scheduler):
        assert_same(lazy.compute(), want, rtol=1e-10)


def test_results_come_in_blocks_of_several_tasks_where_nobody_chose_them(full, problem, tmp_path):
    model, p = full
    pa = np.tile((p @ problem.a).T, (90, 1))
    path = tmp_path / "pa.zarr"
    array = zarr.create_array(path, shape=pa.shape, dtype=pa.dtype, chunks=(64, pa.shape[1]))
    array[...] = pa
    with dask.config.set({"dasklmm.block-size": "31 kB"}):  # one chunk
        ours = model.fit_alternatives(path)["beta"]
    assert ours.chunks == ((16 * 64, 16 * 64, 2250 - 32 * 64),)
    assert ours.data.compute().tolist() == model.fit_alternatives_numpy(pa.T)["beta"].tolist()
    assert model.fit_alternatives(path, partition_size=100)["beta"].chunks[0][:2] == (100, 100)
    assert model.fit_alternatives(da.from_array(pa, chunks=(75, -1)))["beta"].chunks == ((75,) * 30,)


def test_a_refit_leaves_no_old_gamma(full, problem):
    """A lazy result keeps the fit it was built with; one built after has the new one."""
    model, p = full
    pa = (p @ problem.a).T.copy()
    first = model.fit_alternatives(pa)
    expected_first = model.fit_alternatives_numpy(pa.T)
    model.fit(log_gamma=0.0)
    second = model.fit_alternatives(pa)
    expected_second = model.fit_alternatives_numpy(pa.T)
    assert not np.allclose(expected_first["beta"], expected_second["beta"])
    assert_same(second.compute(), expected_second)
    assert_same(first.compute(), expected_first)
    model.fit()
    assert_same(model.fit_alternatives(pa).compute(), expected_first)


def test_fit_returns_the_model_and_zero_is_a_value(full):
    model, _ = full
    assert model.fit(log_gamma=0.0) is model
    assert model.gamma == 1.0
    assert model.h_sq == 0.5
    assert np.isnan(model.h_sq_standard_error)
    assert model.optimize_result is None


def test_coordinates_of_the_variants_are_kept(full, problem):
    model, p = full
    ids = np.array([f"rs{j}" for j in range(problem.m)])
    pa = xr.DataArray(p @ problem.a, dims=("eigen", "variant"), coords={"variant_id": ("variant", ids)})
    assert model.fit_alternatives(pa)["variant_id"].values.tolist() == ids.tolist()


def test_wald_and_score(full, problem):
    model, p = full
    pa = (p @ problem.a).T.copy()
    wald = model.fit_alternatives(pa, test="wald")
    np.testing.assert_allclose(wald["chi_sq"], (wald["beta"] / wald["standard_error"]) ** 2)
    score = model.fit_alternatives(pa, test="score")
    assert score.attrs["test"] == "score"
    # the ML fit searches where fit() was told to
    scaled, p = LinearMixedModel.from_kinship(problem.y, problem.x, problem.k * 1e-6)
    far = scaled.fit(bounds=(-20.0, 30.0)).fit_alternatives((p @ problem.a).T.copy(), test="score")
    np.testing.assert_allclose(far["chi_sq"], score["chi_sq"], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((np.ones((5, 59)),), {}, errors.ShapeError, "model's 60 along 'eigen'"),
        ((np.ones((60, 60)),), {}, errors.DimensionError, "no dim names.*Give dims="),
        ((np.ones((5, 60)),), {"dims": ("a", "eigen")}, errors.DimensionError, "dims .*are needed"),
        ((xr.DataArray(np.ones((5, 60)), dims=("snp", "pc")),), {}, errors.DimensionError, "'snp', 'pc'"),
        ((np.ones((5, 60)), np.ones((5, 60))), {}, errors.RankError, "full rank, so a must not"),
        ((np.ones((5, 60)),), {"partition_size": 0}, errors.ShapeError, "partition_size is 0"),
        (("nowhere.zarr",), {}, errors.StoreError, "no Zarr array at 'nowhere.zarr'"),
        ((3.0,), {}, errors.DimensionError, "pa is a float"),
        ((np.ones(60),), {}, errors.DimensionError, r"shape \(60,\)"),
        ((np.ones((5, 60)),), {"test": "t"}, errors.OptionError, "'lrt'"),
    ],
)
def test_wrong_alternatives_are_refused(full, arguments, options, error, message, no_compute):
    model, _ = full
    with no_compute(), pytest.raises(error, match=message):
        model.fit_alternatives(*arguments, **options)


def test_low_rank_refusals(low, problem, no_compute):
    model, p = low
    pa = (p @ problem.a).T.copy()
    with no_compute():
        with pytest.raises(errors.RankError, match="low rank, so the unrotated"):
            model.fit_alternatives(pa)
        with pytest.raises(errors.ShapeError, match="pa has 25 variants and a has 24"):
            model.fit_alternatives(pa, problem.a.T[:24])
        with pytest.raises(errors.ShapeError, match="model's 60 along 'sample'"):
            model.fit_alternatives(pa, problem.a.T[:, :50])


def test_from_kinship_writes_p_as_zarr(problem, tmp_path):
    path = tmp_path / "p.zarr"
    model, p = LinearMixedModel.from_kinship(problem.y, problem.x, problem.k, p_path=path)
    stored = zarr.open_array(str(path), mode="r")
    assert stored.metadata.zarr_format == 3
    assert stored.metadata.dimension_names == ("eigen", "sample")
    np.testing.assert_array_equal(stored[...], p)
    assert model.p_path == str(path)
    with pytest.raises(errors.StoreError, match="overwrite=True"):
        LinearMixedModel.from_kinship(problem.y, problem.x, problem.k, p_path=path)
    LinearMixedModel.from_kinship(problem.y, problem.x, 2 * problem.k, p_path=path, overwrite=True)


def test_from_kinship_joins_by_id(problem):
    ids = np.array([f"s{i}" for i in range(problem.n)])
    order = np.random.default_rng(0).permutation(problem.n)
    k = xr.DataArray(
        problem.k[np.ix_(order, order)],
        dims=("sample_0", "sample_1"),
        coords={"sample_id_0": ("sample_0", ids[order]), "sample_id_1": ("sample_1", ids[order])},
    )
    want, _ = LinearMixedModel.from_kinship(problem.y, problem.x, problem.k)
    turn = np.random.default_rng(1).permutation(problem.n)
    y = pd.Series(problem.y, index=ids)
    x = pd.DataFrame(problem.x, index=ids, columns=["intercept", "a", "b"]).iloc[turn]
    got, _ = LinearMixedModel.from_kinship(y, x, k)
    assert got.fit().log_gamma == pytest.approx(want.fit().log_gamma, abs=1e-9)
    with pytest.raises(errors.SampleError, match="1 of 60 samples are not in the kinship"):
        LinearMixedModel.from_kinship(y.rename({"s3": "t3"}), x.rename({"s3": "t3"}), k)
    with pytest.raises(errors.SampleError, match="'s1'"):
        LinearMixedModel.from_kinship(y.rename({"s0": "s1"}), x, k)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y": np.ones(60)}, errors.PhenotypeError, "constant"),
        ({"y": np.full(60, np.nan)}, errors.NotFiniteError, "y has 60 values"),
        ({"x": np.ones((60, 2))}, errors.CovariateError, "column 1 is constant"),
        ({"x": np.ones((59, 1))}, errors.ShapeError, "x needs 60 rows"),
        ({"k": np.eye(59)}, errors.ShapeError, "y has 60 samples and the kinship has shape"),
        ({"k": np.ones((60, 59))}, errors.KinshipError, "square"),
        ({"k": -np.eye(60)}, errors.KinshipError, "not positive semidefinite"),
        ({"k": np.full((60, 60), np.inf)}, errors.KinshipError, "not finite"),
    ],
)
def test_from_kinship_refuses(problem, change, error, message):
    arguments = {"y": problem.y, "x": problem.x, "k": problem.k} | change
    with pytest.raises(error, match=message):
        LinearMixedModel.from_kinship(**arguments)


@pytest.mark.parametrize("m", [200, 20])
def test_random_effects_are_their_kinship(problem, m):
    z = problem.z[:, :m]
    effects, _ = LinearMixedModel.from_random_effects(problem.y, problem.x, z)
    kinship, _ = LinearMixedModel.from_kinship(problem.y, problem.x, z @ z.T)
    assert effects.low_rank == (m < problem.n)
    for g in (-2.0, 1.0):
        assert effects.compute_neg_log_reml(g) == pytest.approx(kinship.compute_neg_log_reml(g), rel=1e-9)


@pytest.mark.parametrize("m", [200, 60, 20])
@pytest.mark.parametrize("bound", [8192, 1])
def test_dask_random_effects_by_either_route(problem, m, bound, tmp_path):
    z = problem.z[:, :m].copy() if m <= 200 else None
    want, _ = LinearMixedModel.from_random_effects(problem.y, problem.x, z)
    lazy = da.from_array(z, chunks=(17, 9))
    path = tmp_path / "p.zarr"
    model, p = LinearMixedModel.from_random_effects(
        problem.y, problem.x, lazy, p_path=path, complexity_bound=bound
    )
    assert isinstance(p, da.Array) == (bound == 1 and m < problem.n)
    np.testing.assert_allclose(model.s, want.s, rtol=1e-8, atol=1e-10)
    assert model.compute_neg_log_reml(0.5) == pytest.approx(want.compute_neg_log_reml(0.5), rel=1e-9)
    np.testing.assert_array_equal(zarr.open_array(str(path), mode="r")[...], np.asarray(p))
    a = problem.a
    got = model.fit(0.3).fit_alternatives_numpy(np.asarray(p) @ a, a if model.low_rank else None)
    wanted, q = LinearMixedModel.from_random_effects(problem.y, problem.x, z)
    expected = wanted.fit(0.3).fit_alternatives_numpy(q @ a, a if model.low_rank else None)
    np.testing.assert_allclose(got["p_value"], expected["p_value"], rtol=1e-7)


def test_dropped_pairs_are_reported(problem, caplog):
    z = problem.z[:, :10].copy()
    z[:, 9] = z[:, 0]
    model, p = LinearMixedModel.from_random_effects(problem.y, problem.x, z)
    assert model.r == p.shape[0] == 9
    assert "1 ill-conditioned eigenpairs dropped" in caplog.text


@pytest.fixture
def genotypes(problem):
    rng = np.random.default_rng(11)
    calls = rng.integers(0, 3, (90, problem.n)).astype(np.int8)
    calls[5, :4] = -1
    calls[7] = 2
    ids = np.array([f"s{i}" for i in range(problem.n)])
    return xr.Dataset(
        {
            "dosage": (("variant", "sample"), da.from_array(calls, chunks=(40, -1))),
            "gene": ("variant", np.arange(90)),
        },
        coords={"sample_id": ("sample", ids), "variant_id": ("variant", np.arange(90).astype(str))},
    )


@pytest.mark.parametrize("route", ["z", "k", "low"])
@pytest.mark.parametrize("stored", [False, True])
def test_regression_rows_equal_the_steps_by_hand(problem, genotypes, route, stored, tmp_path, caplog):
    g = genotypes["dosage"].values.astype(float)
    g[g < 0] = np.nan
    filled = np.where(np.isnan(g), np.nanmean(g, axis=1)[:, None], g)
    ids = genotypes["sample_id"].values
    y = pd.Series(problem.y, index=ids)
    used = genotypes.isel(variant=slice(0, 30)) if route == "low" else genotypes
    if route == "k":
        model, p = linear_mixed_model(y, problem.x, k=problem.k)
    else:
        model, p = linear_mixed_model(y, problem.x, z=used)
        assert "1 of" in caplog.text
        assert "do not vary" in caplog.text
    assert model.low_rank == (route == "low")
    model.fit(0.2)
    order = np.random.default_rng(2).permutation(problem.n)
    entries = genotypes.isel(sample=order)
    paths = {"pa_path": tmp_path / "pa.zarr", "a_path": tmp_path / "a.zarr"} if stored else {}
    lazy = linear_mixed_regression_rows(entries, model, pass_through=["gene"], partition_size=16, **paths)
    assert all(dask.is_dask_collection(v.data) for v in lazy.data_vars.values())
    want = model.fit_alternatives_numpy(np.asarray(p) @ filled.T, filled.T if model.low_rank else None)
    ok = np.arange(90) != 7
    for name in COLUMNS:
        np.testing.assert_allclose(lazy[name].values[ok], want[name][ok], rtol=1e-7)
    assert lazy["status"].values[7] != "ok"
    assert (lazy["status"].values[ok] == "ok").all()
    np.testing.assert_array_equal(lazy["gene"], np.arange(90))
    assert lazy["variant_id"].values[3] == "3"
    if stored:
        np.testing.assert_allclose(
            zarr.open_array(str(paths["pa_path"]), mode="r")[...], filled @ np.asarray(p).T, atol=1e-10
        )
        np.testing.assert_allclose(zarr.open_array(str(paths["a_path"]), mode="r")[...], filled)
        with pytest.raises(errors.StoreError, match="exists already"):
            linear_mixed_regression_rows(entries, model, **paths)


def test_standardised_z_is_the_realized_relationship_matrix(problem, genotypes, caplog):
    g = genotypes["dosage"].values.astype(float)
    g[g < 0] = np.nan
    g -= np.nanmean(g, axis=1)[:, None]
    g[np.isnan(g)] = 0
    g = np.delete(g, 7, axis=0)
    g *= np.sqrt(problem.n) / np.linalg.norm(g, axis=1)[:, None]
    k = g.T @ g / 89
    want, _ = LinearMixedModel.from_kinship(problem.y, problem.x, k)
    got, _ = linear_mixed_model(problem.y, problem.x, z=genotypes)
    np.testing.assert_allclose(got.s, want.s, atol=1e-10)


def test_features_without_standardisation(problem):
    got, _ = linear_mixed_model(problem.y, problem.x, z=problem.z, standardize=False)
    want, _ = LinearMixedModel.from_random_effects(problem.y, problem.x, problem.z)
    np.testing.assert_allclose(got.s, want.s)


def test_linear_mixed_model_refusals(problem, genotypes, no_compute):
    with pytest.raises(errors.OptionError, match="neither z nor k"):
        linear_mixed_model(problem.y, problem.x)
    with pytest.raises(errors.OptionError, match="both z and k"):
        linear_mixed_model(problem.y, problem.x, z=problem.z, k=problem.k)
    with pytest.raises(errors.NotFiniteError, match="1 of 90 variants have missing"):
        linear_mixed_model(problem.y, problem.x, z=genotypes, mean_impute=False)
    bare = LinearMixedModel(problem.p @ problem.y, problem.p @ problem.x, problem.s)
    with no_compute():
        with pytest.raises(errors.NotFittedError):
            linear_mixed_regression_rows(genotypes, bare)
        bare.fit()
        with pytest.raises(errors.StoreError, match="does not know its eigenvectors"):
            linear_mixed_regression_rows(genotypes, bare)
        model, _ = linear_mixed_model(problem.y, problem.x, k=problem.k)
        model.fit()
        with pytest.raises(errors.ShapeError, match="'sample'"):
            linear_mixed_regression_rows(genotypes.isel(sample=slice(50)), model)
        with pytest.raises(errors.OptionError, match="pass_through names 'x'"):
            linear_mixed_regression_rows(genotypes, model, pass_through=["x"])


def test_missing_dosage_without_imputation_is_a_named_row(problem, genotypes):
    model, _ = linear_mixed_model(problem.y, problem.x, k=problem.k)
    model.fit()
    rows = linear_mixed_regression_rows(genotypes, model, mean_impute=False)
    assert rows["status"].values[5] == "missing_dosage"
    assert np.isnan(rows["beta"].values[5])


def test_p_path_model_is_rebuilt_from_its_parts(problem, genotypes, tmp_path):
    """What a former session left on disk is enough: py, px, s and the path of P."""
    made, _ = LinearMixedModel.from_kinship(problem.y, problem.x, problem.k, p_path=tmp_path / "p.zarr")
    again = LinearMixedModel(made.py, made.px, made.s, p_path=tmp_path / "p.zarr").fit()
    want = linear_mixed_regression_rows(genotypes, made.fit())
    got = linear_mixed_regression_rows(genotypes, again)
    np.testing.assert_allclose(got["beta"], want["beta"], rtol=1e-7)
