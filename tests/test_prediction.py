"""LinearMixedModel.predict_random_effects: joins by id, every form of the eigenvectors, refusals."""

from __future__ import annotations

from types import SimpleNamespace

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import dasklmm
from dasklmm import LinearMixedModel, errors

N, NEW, EFFECTS = 45, 6, 110
ATOL = 1e-9


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(4)
    ids = np.array([f"s{i:02d}" for i in range(N + NEW)])
    z = rng.standard_normal((N + NEW, EFFECTS)) / np.sqrt(EFFECTS)
    x = np.column_stack([np.ones(N), rng.standard_normal(N)])
    y = x @ [1.0, 0.5] + 1.5 * z[:N] @ rng.standard_normal(EFFECTS) + rng.standard_normal(N)
    k = named(z @ z.T, ids, ids)
    old, new = ids[:N], ids[N:]
    return SimpleNamespace(
        ids=ids, old=old, new=new, x=pd.DataFrame(x, old, ["one", "age"]), y=pd.Series(y, old), z=z, k=k
    )


def named(k, rows, columns):
    coords = {"sample_id_0": ("sample_0", rows), "sample_id_1": ("sample_1", columns)}
    return xr.DataArray(k, dims=("sample_0", "sample_1"), coords=coords)


def by_id(k, rows, columns):
    """The block of a kinship of some samples, in an order."""
    i, j = pd.Index(k["sample_id_0"].values), pd.Index(k["sample_id_1"].values)
    return k.isel(sample_0=i.get_indexer(rows), sample_1=j.get_indexer(columns))


def dense(model, data, rows=None, k=None):
    """Predictions with V written out, for the samples of some ids."""
    k = data.k.values if k is None else k
    rows = np.arange(N) if rows is None else rows
    v = model.sigma_sq * k[:N, :N] + model.tau_sq * np.eye(N)
    return model.sigma_sq * k[rows, :N] @ np.linalg.solve(v, data.y.values - data.x.values @ model.beta)


@pytest.fixture
def model(data):
    return LinearMixedModel.from_kinship(data.y, data.x, by_id(data.k, data.old, data.old))[0].fit()


def test_own_samples(model, data):
    got = model.predict_random_effects()
    assert got.dims == ("sample",)
    assert got.name == "random_effect"
    assert got["sample_id"].values.tolist() == data.old.tolist()
    np.testing.assert_allclose(got, dense(model, data), atol=ATOL)
    # Henderson's equations
    x, k = data.x.values, data.k.values[:N, :N]
    left = np.block([[x.T @ x, x.T], [x, np.eye(N) + np.linalg.inv(k) / model.gamma]])
    inverse = np.linalg.inv(left)
    solution = inverse @ np.concatenate([x.T @ data.y, data.y])
    np.testing.assert_allclose(got, solution[2:], atol=ATOL)
    error = np.diag(inverse)[2:] * model.tau_sq
    np.testing.assert_allclose(got["prediction_error_variance"], error, rtol=1e-8)


def test_predictions_follow_the_fit(model, data):
    first = model.predict_random_effects()
    second = model.fit(log_gamma=-1.0).predict_random_effects()
    assert not np.allclose(first, second)
    np.testing.assert_allclose(second, dense(model, data), atol=ATOL)


def test_low_rank_of_few_effects(data):
    z = data.z[:, :12] * 3
    k = z @ z.T
    effects = xr.DataArray(z[:N], dims=("sample", "effect"), coords={"sample_id": ("sample", data.old)})
    for array in (effects, effects.chunk(sample=10, effect=5)):
        model, _ = LinearMixedModel.from_random_effects(data.y, data.x, array)
        assert model.low_rank
        model.fit(on_boundary="clamp")
        np.testing.assert_allclose(model.predict_random_effects(), dense(model, data, k=k), atol=ATOL)
        got = model.predict_random_effects(named(k[N:, :N], data.new, data.old))
        np.testing.assert_allclose(got, dense(model, data, np.arange(N, N + NEW), k), atol=ATOL)


def test_rotation_that_is_a_dask_array(data):
    z = da.from_array(data.z[:N, :12] * 3, chunks=(10, 12))
    want, _ = LinearMixedModel.from_random_effects(data.y, data.x, z)
    model, p = LinearMixedModel.from_random_effects(data.y, data.x, z, complexity_bound=1)
    assert isinstance(p, da.Array)
    k = named(data.z[N:, :12] @ data.z[:N, :12].T * 9, data.new, data.old)
    for kinship in (None, k, k.chunk(sample_0=2, sample_1=20)):
        got = model.fit(0.5).predict_random_effects(kinship)
        expected = want.fit(0.5).predict_random_effects(kinship)
        np.testing.assert_allclose(got, expected, atol=1e-7)  # by the Gram matrix: its square root's digits
        assert got["sample_id"].values.tolist() == expected["sample_id"].values.tolist()


def test_truncated_model_uses_its_eigenvectors(data):
    k = data.k.values
    s, u = np.linalg.eigh(k[:N, :N])
    p, s = u[:, ::-1][:, :15].T.copy(), s[::-1][:15].copy()
    y, x = data.y.values, data.x.values
    model = LinearMixedModel(p @ y, p @ x, s, y, x).fit(0.0)
    model.sample_id = data.old
    cut = k.copy()
    cut[:, :N] = k[:, :N] @ p.T @ p
    np.testing.assert_allclose(model.predict_random_effects(p=p), dense(model, data, k=cut), atol=ATOL)
    got = model.predict_random_effects(data.k, p=p)
    np.testing.assert_allclose(got, dense(model, data, np.arange(N + NEW), cut), atol=ATOL)


def test_new_samples(model, data):
    got = model.predict_random_effects(by_id(data.k, data.new, data.old))
    assert got["sample_id"].values.tolist() == data.new.tolist()
    assert "prediction_error_variance" not in got.coords
    np.testing.assert_allclose(got, dense(model, data, np.arange(N, N + NEW)), atol=ATOL)


def test_new_samples_in_any_order_of_everything(model, data):
    want = model.predict_random_effects(by_id(data.k, data.new, data.old))
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(data.new), rng.permutation(data.ids)
    k = by_id(data.k, rows, columns).transpose("sample_1", "sample_0")
    for kinship in (k, k.chunk(sample_0=2, sample_1=11)):
        got = model.predict_random_effects(kinship)
        assert got["sample_id"].values.tolist() == rows.tolist()
        lookup = pd.Series(want.values, want["sample_id"].values)
        np.testing.assert_allclose(got, lookup[rows], atol=1e-12)


def test_samples_of_the_model_get_their_own_predictions(model, data):
    own = model.predict_random_effects()
    got = model.predict_random_effects(data.k)
    np.testing.assert_allclose(got[:N], own, atol=ATOL)


def test_the_genotypes_route_end_to_end():
    """One kinship of all samples: the model from its block, the held-out samples from the rest."""
    ds = dasklmm.simulate(90, 300, seed=2)
    ids = ds["sample_id"].values
    k = dasklmm.kinship(ds).compute()
    rng = np.random.default_rng(1)
    effects = np.linalg.cholesky(k.values + 1e-9 * np.eye(90)) @ rng.standard_normal(90) * 2
    y = pd.Series(effects + 0.3 * rng.standard_normal(90), ids)
    train = rng.permutation(ids)[:70]
    x = pd.DataFrame({"one": 1.0}, index=train)
    model, _ = LinearMixedModel.from_kinship(y[train], x, k)
    got = model.fit(on_boundary="clamp").predict_random_effects(k)
    assert got.sizes["sample"] == 90
    own = model.predict_random_effects()
    assert own["sample_id"].values.tolist() == train.tolist()
    lookup = pd.Series(got.values, got["sample_id"].values)
    np.testing.assert_allclose(lookup[train], own, atol=1e-8)
    held = lookup.index.difference(train)
    assert np.corrcoef(lookup[held], pd.Series(effects, ids)[held])[0, 1] > 0.2


def test_random_effects_of_new_samples_by_their_features(data):
    z = xr.DataArray(data.z[:N], dims=("sample", "effect"), coords={"sample_id": ("sample", data.old)})
    model, _ = LinearMixedModel.from_random_effects(data.y, data.x, z)
    model.fit()
    got = model.predict_random_effects(named(data.z[N:] @ data.z[:N].T, data.new, data.old))
    np.testing.assert_allclose(got, dense(model, data, np.arange(N, N + NEW)), atol=ATOL)


def test_every_form_of_the_eigenvectors(model, data, tmp_path):
    want = model.predict_random_effects()
    k = by_id(data.k, data.old, data.old)
    stored, p = LinearMixedModel.from_kinship(data.y, data.x, k, p_path=tmp_path / "p.zarr")
    bare = LinearMixedModel(stored.py, stored.px, stored.s, p_path=tmp_path / "p.zarr")
    for other in (stored, bare):
        got = other.fit().predict_random_effects()
        np.testing.assert_allclose(got, want, atol=ATOL)
        assert got["sample_id"].values.tolist() == data.old.tolist()
    np.testing.assert_allclose(
        bare.predict_random_effects(data.k), model.predict_random_effects(data.k), atol=ATOL
    )
    plain = LinearMixedModel(stored.py, stored.px, stored.s).fit()
    pairs = dasklmm.eigendecompose(k)
    for form in (p, da.from_array(p, chunks=(-1, 8)), pairs, pairs["p"].T, tmp_path / "p.zarr"):
        np.testing.assert_allclose(plain.predict_random_effects(p=form), want, atol=ATOL)
    assert "sample_id" not in plain.predict_random_effects(p=p).coords
    order = np.random.default_rng(0).permutation(N)
    got = model.predict_random_effects(p=pairs.isel(sample=order))
    np.testing.assert_allclose(got, want, atol=ATOL)


def test_what_is_missing_is_said(data, model):
    rows = by_id(data.k, data.new, data.old)
    unfitted, p = LinearMixedModel.from_kinship(data.y, data.x, by_id(data.k, data.old, data.old))
    with pytest.raises(errors.NotFittedError, match=r"Call fit\(\)"):
        unfitted.predict_random_effects()
    bare = LinearMixedModel(model.py, model.px, model.s).fit()
    with pytest.raises(errors.StoreError, match=r"from_kinship.*p= to predict"):
        bare.predict_random_effects()
    with pytest.raises(errors.ShapeError, match=r"p has shape \(10, 45\); \(45, 45\), \(eigen, sample\)"):
        bare.predict_random_effects(p=p[:10])
    with pytest.raises(errors.SampleError, match="the model knows no sample ids"):
        bare.predict_random_effects(rows, p=p)
    with pytest.raises(errors.SampleError, match="carries no sample_id_1"):
        model.predict_random_effects(rows.drop_vars("sample_id_1"))
    with pytest.raises(errors.SampleError, match="no sample_id_0 and no sample_id_1"):
        model.predict_random_effects(rows.drop_vars(["sample_id_0", "sample_id_1"]))
    with pytest.raises(errors.SampleError, match="2 of 45 samples are not in the kinship's sample_id_1"):
        model.predict_random_effects(rows[:, 2:])
    with pytest.raises(errors.SampleError, match="stand more than once"):
        model.predict_random_effects(xr.concat([rows, rows], "sample_0"))
    with pytest.raises(errors.DimensionError, match="is ndarray; a DataArray"):
        model.predict_random_effects(rows.values)
    with pytest.raises(errors.DimensionError, match=r"is \('a', 'sample_1'\)"):
        model.predict_random_effects(rows.rename(sample_0="a"))
    with pytest.raises(errors.KinshipError, match="1 of 6 new samples is not finite"):
        model.predict_random_effects(rows.where(rows["sample_id_0"] != data.new[2]))


def test_rows_that_are_not_centred_as_the_models_are_refused(data):
    k = data.k.values
    means = k[:N, :N].mean(axis=0)
    centred = k[:, :N] - k[:, :N].mean(axis=1, keepdims=True) - means + means.mean()
    own = named(centred[:N], data.old, data.old)
    model, _ = LinearMixedModel.from_kinship(data.y, data.x, own)
    model.fit()
    with pytest.raises(errors.KinshipError, match=r"centred over its samples.*6 of 6 new samples"):
        model.predict_random_effects(by_id(data.k, data.new, data.old))
    got = model.predict_random_effects(named(centred[N:], data.new, data.old))
    plain, _ = LinearMixedModel.from_kinship(data.y, data.x, by_id(data.k, data.old, data.old))
    want = plain.fit().predict_random_effects(data.k)
    # centring moves every prediction by one constant
    np.testing.assert_allclose(got - want[N:], -float(want[:N].mean()), atol=1e-7)
