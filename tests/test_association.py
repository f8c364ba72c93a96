"""The scan from genotypes and tables to results: joins, LOCO, options, store, refusals."""

from __future__ import annotations

import json

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import optimize

import dasklmm
from dasklmm import errors
from dasklmm.numerics import reml, spectrum
from dasklmm.store import arrays
from dasklmm.store.results import open_results

N, M = 120, 400
NUMBERS = ["beta", "standard_error", "sigma_sq", "chi_sq", "p_value", "neg_log10_p_value"]


def chunked(ds, **chunks):
    """The dosages in other chunks; coordinates stay in memory."""
    return ds.assign(dosage=ds["dosage"].chunk(chunks))


@pytest.fixture(scope="module")
def cohort():
    ds = dasklmm.simulate(N, M, n_contigs=3, seed=5)
    dosage = ds["dosage"].values.copy()
    dosage[10] = 1
    dosage[11] = -1
    return chunked(ds.assign(dosage=(("variant", "sample"), dosage)), variant=70)


@pytest.fixture(scope="module")
def tables(cohort):
    ids = cohort["sample_id"].values
    y = pd.DataFrame({"trait": cohort["phenotype"].values}, index=ids)
    x = pd.DataFrame(cohort["covariates"].values, index=ids, columns=["age", "sex"])
    return y, x


def standardised(g):
    g = np.where(g < 0, np.nan, g.astype(float))
    with np.errstate(invalid="ignore"):
        mean = np.array([np.nan if np.isnan(v).all() else np.nanmean(v) for v in g])
    g = np.nan_to_num(g - mean[:, None])
    norm = np.linalg.norm(g, axis=1)
    kept = norm > 0
    return g[kept] * np.sqrt(g.shape[1]) / norm[kept, None], kept


def by_hand(ds, y, x, contigs, test="lrt"):
    """The scan step by step through the class, one model a contig left out (or one for all)."""
    g = ds["dosage"].values
    names = ds["variant_contig"].values
    filled = np.where(g < 0, np.nan, g.astype(float))
    with np.errstate(invalid="ignore"):
        mean = np.array([np.nan if np.isnan(v).all() else np.nanmean(v) for v in filled])
    filled = np.where(np.isnan(filled), mean[:, None], filled)
    frames = []
    for contig in contigs:
        here = np.ones(names.size, bool) if contig is None else names == contig
        z, _ = standardised(g if contig is None else g[~here])
        model, p = dasklmm.LinearMixedModel.from_kinship(y, x, z.T @ z / len(z))
        model.fit()
        lazy = model.fit_alternatives(filled[here] @ p.T, dims=("variant", "eigen"), test=test)
        frames.append(lazy.compute())
    return xr.concat(frames, "variant")


@pytest.mark.parametrize("loco", [True, False])
@pytest.mark.parametrize("test", ["lrt", "wald", "score"])
def test_scan_equals_the_steps_by_hand(cohort, tables, loco, test):
    y, x = tables
    got = dasklmm.gwas(cohort, y, x, loco=loco, test=test, precision="double")
    design = np.column_stack([np.ones(N), x.to_numpy()])
    contigs = ["1", "2", "3"] if loco else [None]
    want = by_hand(cohort, y["trait"].to_numpy(), design, contigs, test)
    ok = got["status"].values == "ok"
    assert got["status"].values[[10, 11]].tolist() == ["constant", "all_missing"]
    assert ok.sum() == M - 2
    for name in NUMBERS:
        np.testing.assert_allclose(got[name].values[ok], want[name].values[ok], rtol=1e-6, err_msg=name)
        assert np.isnan(got[name].values[~ok]).all()
    assert [null["contig"] for null in got.attrs["null"]] == (contigs if loco else ["all"])
    assert got.attrs["counts"]["variants_in_kinship"] == M - 2
    assert got.attrs["counts"]["samples_used"] == N


def dense_scan(y, x, k, alternatives):
    """Estimates and likelihood-ratio tests with V = gamma K + I written out, gamma by REML of the null.

    The root of the derivative of the restricted likelihood, (n - f) y'QKQy / y'Qy = tr(QK), with
    Q = V^-1 - V^-1 X (X'V^-1 X)^-1 X'V^-1.
    """
    n, f = x.shape

    def projection(design, gamma):
        inverse = np.linalg.inv(gamma * k + np.eye(n))
        vx = inverse @ design
        return inverse - vx @ np.linalg.solve(design.T @ vx, vx.T), inverse

    def slope(log_gamma):
        q, _ = projection(x, np.exp(log_gamma))
        return (n - f) * (y @ q @ k @ q @ y) / (y @ q @ y) - np.trace(q @ k)

    gamma = np.exp(optimize.brentq(slope, -7.9, 7.9, xtol=1e-13, rtol=1e-13))
    q, inverse = projection(x, gamma)
    rows = []
    for a in alternatives:
        full = np.column_stack([x, a])
        normal = full.T @ inverse @ full
        beta = np.linalg.solve(normal, full.T @ inverse @ y)
        residual = y - full @ beta
        rss = residual @ inverse @ residual
        sigma_sq = rss * gamma / (n - f - 1)
        error = np.sqrt(rss / (n - f - 1) * np.linalg.inv(normal)[-1, -1])
        rows.append([beta[-1], error, sigma_sq, n * np.log((y @ q @ y) / rss)])
    return np.array(rows)


def test_loco_equals_a_dense_refit_of_every_contig(cohort, tables):
    """Leave-one-contig-out against each contig's kinship, null and tests made from nothing, to 1e-8."""
    y, x = tables
    got = dasklmm.gwas(cohort, y, x, precision="double")
    design = np.column_stack([np.ones(N), x.to_numpy()])
    g, contigs = cohort["dosage"].values, cohort["variant_contig"].values
    filled = np.where(g < 0, np.nan, g.astype(float))
    with np.errstate(invalid="ignore"):
        mean = np.array([np.nan if np.isnan(v).all() else np.nanmean(v) for v in filled])
    filled = np.where(np.isnan(filled), mean[:, None], filled)
    ok = got["status"].values == "ok"
    for contig in ("1", "2", "3"):
        z, _ = standardised(g[contigs != contig])
        here = ok & (contigs == contig)
        want = dense_scan(y["trait"].to_numpy(), design, z.T @ z / len(z), filled[here])
        error = got["standard_error"].values[here]
        np.testing.assert_allclose(
            got["beta"].values[here] / error, want[:, 0] / want[:, 1], rtol=0, atol=1e-8
        )
        np.testing.assert_allclose(error, want[:, 1], rtol=1e-8)
        np.testing.assert_allclose(got["sigma_sq"].values[here], want[:, 2], rtol=1e-8)
        np.testing.assert_allclose(got["chi_sq"].values[here], want[:, 3], rtol=1e-8, atol=1e-8)


def test_single_precision_is_close_to_double(cohort, tables):
    y, x = tables
    single, double = (dasklmm.gwas(cohort, y, x, precision=p) for p in ("single", "double"))
    error = np.abs(single["beta"] - double["beta"]) / double["standard_error"]
    assert float(error.max()) < 1e-4
    assert float(np.abs(single["neg_log10_p_value"] - double["neg_log10_p_value"]).max()) < 1e-4
    assert not np.array_equal(single["beta"].values, double["beta"].values)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("chunks", [1, 33, 400])
def test_any_chunking_and_scheduler_gives_the_same(cohort, tables, scheduler, chunks):
    y, x = tables
    want = dasklmm.gwas(cohort, y, x, precision="double")
    if chunks == 1:
        cohort = cohort.isel(variant=slice(0, 40)).assign_coords(
            variant_contig=("variant", np.repeat(["1", "2"], 20))
        )
        want = dasklmm.gwas(cohort, y, x, precision="double")
    with dask.config.set(scheduler=scheduler):
        got = dasklmm.gwas(chunked(cohort, variant=chunks, sample=50), y, x, precision="double")
    for name in NUMBERS:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-9, err_msg=name)


def test_order_of_samples_in_tables_and_kinship_is_of_no_account(cohort, tables):
    y, x = tables
    rng = np.random.default_rng(0)
    k = dasklmm.kinship(cohort).compute()
    order = rng.permutation(N)
    k = k.isel(sample_0=order, sample_1=order)
    want = dasklmm.gwas(cohort, y, x, loco=False, precision="double")
    got = dasklmm.gwas(
        cohort,
        y.iloc[rng.permutation(N)],
        x.iloc[rng.permutation(N)],
        kinship=k,
        loco=False,
        precision="double",
    )
    np.testing.assert_allclose(got["beta"], want["beta"], rtol=1e-7)
    shuffled = cohort.isel(sample=rng.permutation(N))
    moved = dasklmm.gwas(shuffled, y, x, loco=False, precision="double")
    np.testing.assert_allclose(moved["p_value"], want["p_value"], rtol=1e-7)


def test_samples_without_values_are_left_out_and_counted(cohort, tables):
    y, x = (t.copy() for t in tables)
    y.iloc[:10] = np.nan
    x.iloc[5:15, 0] = np.nan
    y = pd.concat([y, pd.DataFrame({"trait": [1.0, 2.0]}, index=["stranger", "other"])])
    got = dasklmm.gwas(cohort, y, x, loco=False)
    assert (
        got.attrs["counts"]
        | {
            "samples_in_genotypes": 120,
            "samples_in_phenotypes": 122,
            "samples_with_phenotype": 112,
            "samples_with_genotypes_and_phenotype": 110,
            "samples_in_covariates": 120,
            "samples_with_covariates": 110,
            "samples_used": 105,
        }
        == got.attrs["counts"]
    )
    assert got["n"].max() == 105
    want = dasklmm.gwas(cohort.isel(sample=slice(15, None)), *tables, loco=False)
    np.testing.assert_allclose(got["neg_log10_p_value"], want["neg_log10_p_value"], rtol=1e-6)


def test_effect_allele_frequency_and_calls(cohort, tables):
    got = dasklmm.gwas(cohort, *tables, loco=False)
    g = cohort["dosage"].values
    called = (g >= 0).sum(axis=1)
    np.testing.assert_array_equal(got["n"], called)
    want = np.where(g >= 0, g, 0).sum(axis=1) / (2 * np.maximum(called, 1))
    np.testing.assert_allclose(got["effect_allele_frequency"].values[12:], want[12:])
    assert np.isnan(got["effect_allele_frequency"].values[11])


def test_low_rank_scan_equals_the_low_rank_model(cohort, tables):
    y, x = tables
    got = dasklmm.gwas(cohort, y, x, loco=False, rank=40, precision="double")
    g = cohort["dosage"].values
    z, _ = standardised(g)
    k = spectrum.double_centered(z.T @ z / len(z))
    pairs = spectrum.eigendecompose(k, 40)
    design = np.column_stack([np.ones(N), x.to_numpy()])
    yy = y["trait"].to_numpy()
    model = dasklmm.LinearMixedModel(pairs.p @ yy, pairs.p @ design, pairs.s, yy, design).fit()
    filled = np.where(g < 0, 0, g).astype(float)
    whole = (g >= 0).all(axis=1) & (g != g[:, :1]).any(axis=1)
    want = model.fit_alternatives_numpy(pairs.p @ filled.T, filled.T)
    np.testing.assert_allclose(got["beta"].values[whole], want["beta"][whole], rtol=1e-6)
    assert got.attrs["rank"] == 40


def test_null_attributes(cohort, tables):
    null = dasklmm.gwas(cohort, *tables, loco=False).attrs["null"][0]
    assert null["h_sq"] == pytest.approx(null["sigma_sq"] / (null["sigma_sq"] + null["tau_sq"]))
    assert 0 < null["h_sq_standard_error"] < 0.5
    # the kinship's mean diagonal is 1, so that both scales agree (up to missing calls)
    assert null["pve"] == pytest.approx(null["h_sq"], abs=0.01)


def test_a_boundary_null_is_flagged_and_ends_no_run(cohort, tables, caplog):
    rng = np.random.default_rng(8)
    flat = None
    for _ in range(40):  # noise alone: about half of such nulls run to the lower bound
        y = pd.DataFrame({"noise": rng.standard_normal(N)}, index=cohort["sample_id"].values)
        got = dasklmm.gwas(cohort, y)
        flags = [null["at_boundary"] for null in got.attrs["null"]]
        if any(flags):
            flat = got
            break
    assert flat is not None
    null = got.attrs["null"][flags.index(True)]
    assert null["log_gamma"] in (-8.0, 8.0)
    assert np.isnan(null["h_sq_standard_error"])
    assert "at a bound" in caplog.text
    assert (got["status"].values == "ok").sum() == M - 2


def test_intercept_is_optional_and_said(cohort, tables, caplog):
    y, x = tables
    caplog.set_level("INFO")
    got = dasklmm.gwas(cohort, y, x, loco=False, intercept=False, precision="double")
    assert got.attrs["intercept"] is False
    assert got.attrs["covariates"] == ["age", "sex"]
    assert "no intercept" in caplog.text
    z, _ = standardised(cohort["dosage"].values)
    model, p = dasklmm.LinearMixedModel.from_kinship(y["trait"].to_numpy(), x.to_numpy(), z.T @ z / len(z))
    g = cohort["dosage"].values
    whole = (g >= 0).all(axis=1) & (g != g[:, :1]).any(axis=1)
    want = model.fit().fit_alternatives_numpy(p @ g[whole].T)
    np.testing.assert_allclose(got["beta"].values[whole], want["beta"], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y": lambda y: y * np.nan}, errors.PhenotypeError, "has no value"),
        ({"y": lambda y: y.rename(index=lambda i: f"x{i}")}, errors.SampleError, r"120 samples, such as 'x"),
        ({"y": lambda y: pd.concat([y, y[:1]])}, errors.SampleError, "the phenotypes: 1 sample ids"),
        ({"y": lambda y: y * 0 + 3}, errors.PhenotypeError, "phenotype 'trait' is constant"),
        ({"y": lambda y: y.replace(y.iloc[0, 0], np.inf)}, errors.NotFiniteError, "1 infinite"),
        ({"y": lambda y: y.astype(str)}, errors.PhenotypeError, "not numeric"),
        ({"y": lambda y: "none.tsv"}, errors.TableError, "there is no table"),
        ({"y": lambda y: 3}, errors.PhenotypeError, "are a int"),
        (
            {"x": lambda x: x.assign(one=2.0)},
            errors.CovariateError,
            "'one' is constant, and so is 'intercept'",
        ),
        (
            {"x": lambda x: x.assign(s=x.age + x.sex)},
            errors.CovariateError,
            "'s' is a linear combination of 'age', 'sex'",
        ),
        ({"x": lambda x: x.assign(a="u")}, errors.CovariateError, "'a' is categorical with one level only"),
        ({"x": lambda x: x.replace(x.iloc[0, 0], np.inf)}, errors.NotFiniteError, "covariate 'age'"),
        (
            {"x": lambda x: pd.DataFrame(np.eye(N)[:, :-1], index=x.index)},
            errors.CovariateError,
            "120 columns for 120",
        ),
        ({"phenotype": "height"}, errors.PhenotypeError, "no phenotype 'height'; the columns are trait"),
        ({"kinship": "ibs"}, errors.OptionError, "'rrm', 'grm', 'centered'"),
        ({"test": "t"}, errors.OptionError, "'lrt', 'wald', 'score'"),
        ({"variance_ratio": "x"}, errors.OptionError, "variance_ratio is 'x'"),
        ({"precision": "half"}, errors.OptionError, "precision is 'half'"),
        ({"rank": 0}, errors.RankError, "from 1 to 120"),
        ({"kinship": np.eye(N), "loco": False}, errors.KinshipError, "joined by id"),
        (
            {"kinship": xr.DataArray(np.eye(N), dims=("sample_0", "sample_1"))},
            errors.LocoError,
            "a kinship of your own",
        ),
        (
            {"kinship": xr.DataArray(np.eye(N), dims=("a", "b")), "loco": False},
            errors.KinshipError,
            "no sample ids",
        ),
    ],
)
def test_bad_input_is_refused_before_any_work(cohort, tables, change, error, message, no_compute):
    y, x = tables
    change = dict(change)
    y = change.pop("y", lambda v: v)(y)
    x = change.pop("x", lambda v: v)(x)
    with no_compute(), pytest.raises(error, match=message):
        dasklmm.gwas(cohort, y, x, **change)


def test_one_contig_refuses_loco_with_the_remedy(cohort, tables, no_compute):
    one = cohort.isel(variant=cohort["variant_contig"].values == "2")
    with no_compute(), pytest.raises(errors.LocoError, match=r"all \d+ are on '2'.*--no-loco"):
        dasklmm.gwas(one, *tables)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda k: k[:-1], "square"),
        (lambda k: k.where(k != k[3, 4]), "not finite"),
        (lambda k: k - 5 * xr.zeros_like(k).copy(data=np.eye(N)), "not positive semidefinite"),
        (lambda k: k + xr.zeros_like(k).copy(data=np.triu(np.ones((N, N)))), "not symmetric"),
    ],
)
def test_bad_kinship_is_refused(cohort, tables, edit, message):
    k = edit(dasklmm.kinship(cohort).compute())
    with pytest.raises(errors.KinshipError, match=message):
        dasklmm.gwas(cohort, *tables, kinship=k, loco=False)


def test_kinship_of_other_samples_is_refused(cohort, tables):
    k = dasklmm.kinship(cohort.isel(sample=slice(100))).compute()
    with pytest.raises(errors.SampleError, match="20 of 120 samples are not in the kinship"):
        dasklmm.gwas(cohort, *tables, kinship=k, loco=False)


def test_kinship_from_a_path(cohort, tables, tmp_path):
    k = dasklmm.kinship(cohort)
    arrays.write_kinship(k, tmp_path / "k.zarr")
    want = dasklmm.gwas(cohort, *tables, loco=False, precision="double")
    got = dasklmm.gwas(cohort, *tables, kinship=tmp_path / "k.zarr", loco=False, precision="double")
    np.testing.assert_allclose(got["beta"], want["beta"], rtol=1e-7)
    with pytest.raises(errors.StoreError, match="exists already"):
        arrays.write_kinship(k, tmp_path / "k.zarr")


def test_store_is_whole_and_opened_again(cohort, tables, tmp_path):
    store = tmp_path / "r.zarr"
    first = dasklmm.gwas(cohort, *tables, store=store)
    seen = []
    again = dasklmm.gwas(cohort, *tables, store=store, progress=lambda *a: seen.append(a))
    assert seen == []
    xr.testing.assert_identical(again, open_results(store))
    assert {p.name for p in tmp_path.iterdir()} == {"r.zarr"}
    for name in first.data_vars:
        np.testing.assert_array_equal(again[name], first[name])
    assert again.attrs["counts"] == first.attrs["counts"]
    with pytest.raises(errors.StoreError, match=r"differs in: test \('lrt' there, 'wald' now\)\. Give"):
        dasklmm.gwas(cohort, *tables, store=store, test="wald")
    with pytest.raises(errors.StoreError, match="differs in: phenotype values"):
        dasklmm.gwas(cohort, tables[0] * 2, tables[1], store=store)
    with pytest.raises(errors.StoreError, match="resume is False"):
        dasklmm.gwas(cohort, *tables, store=store, resume=False)
    other = dasklmm.gwas(cohort, *tables, store=store, test="wald", overwrite=True)
    assert open_results(store).attrs["test"] == other.attrs["test"] == "wald"


def test_results_that_are_none_are_refused(tmp_path):
    with pytest.raises(errors.StoreError, match="no complete results"):
        open_results(tmp_path / "none.zarr")
    (tmp_path / "r.zarr").mkdir()
    (tmp_path / "r.zarr" / "notes.txt").write_text("x")
    with pytest.raises(errors.StoreError, match=r"no complete results at .*Give the results\.zarr"):
        open_results(tmp_path / "r.zarr")


def test_attributes_are_json(cohort, tables):
    got = dasklmm.gwas(cohort, *tables, loco=False)
    assert json.loads(json.dumps(got.attrs))["phenotype"] == "trait"
    assert set(got.attrs["seconds"]) == {"kinship", "null model", "test"}


def test_progress_counts_every_block(cohort, tables):
    seen = []
    dasklmm.gwas(cohort, *tables, progress=lambda *a: seen.append(a))
    tests = [s for s in seen if s[0] == "test"]
    assert {s[0] for s in seen} == {"kinship", "null model", "test"}
    assert [done for _, done, _ in tests] == list(range(1, len(tests) + 1))
    assert {total for _, _, total in tests} == {len(tests)}
    blocks = cohort["dosage"].data.numblocks[0]
    kinship = [s[1:] for s in seen if s[0] == "kinship"]
    assert kinship == [(done, len(kinship)) for done in range(1, len(kinship) + 1)]
    assert len(kinship) >= blocks


@pytest.mark.slow
def test_calibration_with_relatives():
    """200 null traits in a cohort with families: the mixed model's lambda is 1, plain regression's is not."""
    from dasklmm.numerics.simulate import simulate_phenotype

    ds = dasklmm.simulate(300, 2000, n_causal=0, causal_variance=0.0, family_fraction=0.8, seed=2)
    calls = ds["dosage"].values
    traits = simulate_phenotype(calls, 0.6, n_phenotypes=200, seed=3)
    z, _ = standardised(calls)
    tested = z[::2]
    pairs = spectrum.eigendecompose(z.T @ z / len(z))
    from dasklmm.numerics import alternatives, design
    from dasklmm.numerics.tails import lambda_gc, neg_log10

    x = np.ones((300, 1))
    pa, px = tested @ pairs.p.T, pairs.p @ x
    mixed, plain = [], []
    for y in traits:
        data = design.rotated_data(pairs.p @ y, px, pairs.s)
        fit = reml.fit_null(data, on_boundary="clamp")
        for gamma, out in ((fit.log_gamma, mixed), (-30.0, plain)):
            stats = alternatives.test_block(alternatives.alternative_test(data, gamma), pa)
            out.append(lambda_gc(neg_log10(stats.log_p)))
    assert abs(np.mean(mixed) - 1.0) < 0.05
    assert np.mean(plain) > 1.2


def test_rank_cuts_a_given_decomposition(cohort, tables):
    y, x = tables
    pairs = dasklmm.eigendecompose(dasklmm.kinship(cohort))
    options = {"kinship": pairs, "loco": False, "precision": "double"}
    got = dasklmm.gwas(cohort, y, x, rank=30, **options)
    want = dasklmm.gwas(cohort, y, x, **(options | {"kinship": pairs.isel(eigen=slice(30))}))
    assert got.attrs["rank"] == 30
    np.testing.assert_array_equal(got["beta"], want["beta"])
    with pytest.raises(errors.RankError, match="holds 30 eigenpairs"):
        dasklmm.gwas(cohort, y, x, rank=40, **(options | {"kinship": pairs.isel(eigen=slice(30))}))
