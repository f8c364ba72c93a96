"""Faults 7, 8, 9, 12 and 13: data that cannot be analysed, whole or in part."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from fault_tools import records_of

import dasklmm
from dasklmm import errors
from dasklmm.lazy import budget

NUMBERS = ["beta", "standard_error", "sigma_sq", "chi_sq", "p_value", "neg_log10_p_value"]
N = 150


def dosages(cohort, **edits):
    """The cohort with float dosages, some variants replaced."""
    values = cohort.genotypes()["dosage"].values.astype(np.float32)
    values[values < 0] = np.nan
    for row, value in edits.values():
        values[row] = value
    ds = cohort.genotypes()
    data = xr.DataArray(values, dims=("variant", "sample")).chunk(variant=64).data
    return ds.assign(dosage=(("variant", "sample"), data))


@pytest.mark.parametrize("loco", [True, False])
def test_variants_that_cannot_be_tested(cohort, loco):
    """Fault 7: NaN, infinite, all-missing, constant, near-constant and collinear variants: that row alone."""
    sex = np.tile([0.0, 1.0], N // 2).astype(np.float32)
    near = np.ones(N, np.float32)
    near[3] += 1e-6
    infinite = np.tile([0, 1, 2], N // 3).astype(np.float32)
    infinite[5] = np.inf
    edits = {
        "nan": (10, np.nan),
        "constant": (11, 1.0),
        "infinite": (12, infinite),
        "in the span": (13, sex),
        "shifted": (14, 2 - sex),
    }
    x = pd.DataFrame({"sex": sex}, index=cohort.y.index)
    clean = dosages(cohort, **{k: (row, np.nan) for k, (row, _) in edits.items()})
    want = dasklmm.gwas(clean, cohort.y, x, loco=loco, precision="double")
    got = dasklmm.gwas(dosages(cohort, **edits), cohort.y, x, loco=loco, precision="double")
    status = got["status"].values
    assert status[10:15].tolist() == [
        "all_missing", "constant", "not_finite", "collinear_with_covariates", "collinear_with_covariates",
    ]  # fmt: skip
    for name in NUMBERS:
        assert np.isnan(got[name].values[10:15]).all()
    rest = np.delete(np.arange(1200), np.arange(10, 15))
    assert (status[rest] == want["status"].values[rest]).all()
    assert np.isfinite(got["neg_log10_p_value"].values[status == "ok"]).all()
    tiny = dasklmm.gwas(dosages(cohort, near=(10, near)), cohort.y, loco=loco, precision="double")
    row = tiny.isel(variant=10)
    assert str(row["status"].values) != "ok" or np.isfinite(row["p_value"])


@pytest.mark.parametrize(
    ("y", "x", "error"),
    [
        (None, lambda i: pd.DataFrame({"a": 1.0}, index=i), errors.CovariateError),
        (None, lambda i: pd.DataFrame({"a": range(N), "b": 2.0 * np.arange(N)}, index=i), errors.CovariateError),
        (None, lambda i: pd.DataFrame(np.eye(N) + np.arange(N), index=i), errors.CovariateError),
        (None, lambda i: pd.DataFrame({"a": np.r_[np.inf, np.arange(N - 1)]}, index=i), errors.NotFiniteError),
        (lambda i: pd.Series(2.0, index=i, name="y"), None, errors.PhenotypeError),
        (lambda i: pd.Series(np.r_[-np.inf, np.arange(N - 1)], index=i, name="y"), None, errors.NotFiniteError),
    ],
)  # fmt: skip
def test_designs_that_cannot_be_fitted(cohort, tmp_path, no_compute, y, x, error):
    """Fault 8: collinear or constant covariates, p >= n, constant or infinite y: refused before any work."""
    ids = cohort.y.index
    y = cohort.y if y is None else y(ids)
    x = None if x is None else x(ids)
    with no_compute(), pytest.raises(error):
        dasklmm.gwas(cohort.genotypes(), y, x, store=tmp_path / "r.zarr")
    assert list(tmp_path.iterdir()) == []


def test_duplicate_ids(cohort, tmp_path, no_compute):
    """Fault 9: duplicate ids of genotypes, phenotypes or covariates are refused and named."""
    ds, y = cohort.genotypes(), cohort.y
    twice = ds.assign_coords(
        sample_id=("sample", np.r_[ds["sample_id"].values[:-1], ds["sample_id"].values[:1]])
    )
    first = str(ds["sample_id"].values[0])
    for genotypes, phenotypes, covariates in (
        (twice, y, None),
        (ds, pd.concat([y, y[:1]]), None),
        (ds, y, pd.concat([y, y[:1]]).rename(columns={"trait": "age"})),
    ):
        with no_compute(), pytest.raises(errors.SampleError, match=first):
            dasklmm.gwas(genotypes, phenotypes, covariates, store=tmp_path / "r.zarr")
    assert list(tmp_path.iterdir()) == []


def test_misordered_ids(cohort):
    """Fault 9: rows of the tables in any order give the same numbers, exactly."""
    order = np.random.default_rng(1).permutation(N)
    want = dasklmm.gwas(cohort.genotypes(), cohort.y)
    got = dasklmm.gwas(cohort.genotypes(), cohort.y.iloc[order])
    for name in NUMBERS:
        np.testing.assert_array_equal(got[name], want[name])


def test_disjoint_ids(cohort, tmp_path, no_compute):
    """Fault 9: ids that do not meet are refused with the counts of both sides."""
    other = cohort.y.rename(index=lambda i: f"other-{i}")
    with (
        no_compute(),
        pytest.raises(errors.SampleError, match=r"genotypes \(150 samples.*phenotype 'trait' \(150 samples"),
    ):
        dasklmm.gwas(cohort.genotypes(), other, store=tmp_path / "r.zarr")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda k: k.__setitem__((3, 4), np.nan), r"not finite.*\[3, 4\]"),
        (lambda k: k.__setitem__((3, 4), 9.0), r"not symmetric: \[3, 4\] is 9"),
        (lambda k: k.__isub__(5 * np.eye(N)), "not positive semidefinite: its lowest eigenvalue is -"),
    ],
)
def test_bad_kinship(cohort, tmp_path, edit, message):
    """Fault 12: K with NaN, asymmetric or not PSD: refused with the numbers, nothing published."""
    k = dasklmm.kinship(cohort.genotypes()).compute().copy(deep=True)
    edit(k.values)
    with pytest.raises(errors.KinshipError, match=message):
        dasklmm.gwas(cohort.genotypes(), cohort.y, kinship=k, loco=False, store=tmp_path / "r.zarr")
    assert not (tmp_path / "r.zarr").exists()
    assert not records_of(tmp_path / "r.zarr", "test")


def test_samples_beyond_memory(cohort, tmp_path, no_compute, monkeypatch):
    """Fault 12: n whose decomposition does not fit: refused with what it needs and what there is."""
    monkeypatch.setattr(budget, "available_memory", lambda: 500_000)
    with no_compute(), pytest.raises(errors.MemoryBudgetError, match="150 samples"):
        dasklmm.gwas(cohort.genotypes(), cohort.y, store=tmp_path / "r.zarr")
    assert list(tmp_path.iterdir()) == []


def test_boundary_and_flat_likelihood(cohort, caplog):
    """Fault 13: gamma at either bound is flagged and ends no run; a flat likelihood gives finite tests."""
    ds, ids = cohort.genotypes(), cohort.y.index
    k = dasklmm.kinship(ds).compute()
    rng = np.random.default_rng(3)
    s, u = np.linalg.eigh(k.values)
    # all variance along the leading vectors, each as its eigenvalue says; and all along the last ones
    genetic = u @ (s**2 * rng.choice([-1, 1], N))
    flags = {}
    for name, y in (("upper", genetic), ("lower", u[:, 1:20].sum(axis=1))):
        got = dasklmm.gwas(ds, pd.Series(y, index=ids, name=name), loco=False)
        flags[name] = got.attrs["null"][0]
        assert (got["status"].values == "ok").sum() > 1100
    assert flags["upper"]["at_boundary"]
    assert flags["lower"]["at_boundary"]
    assert flags["lower"]["log_gamma"] < 0 < flags["upper"]["log_gamma"]
    assert "at a bound" in caplog.text
    flat = k.copy(data=np.eye(N))
    got = dasklmm.gwas(ds, cohort.y, kinship=flat, loco=False)
    ok = got["status"].values == "ok"
    assert np.isfinite(got["p_value"].values[ok]).all()
    assert ok.sum() > 1100
