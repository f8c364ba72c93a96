"""Several phenotypes in one scan: each has the numbers it would have alone."""

from __future__ import annotations

import io
import sys
import threading
from dataclasses import replace

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import dasklmm
from dasklmm import errors, null_models, scanning
from dasklmm.lazy import budget
from dasklmm.numerics import alternatives, design, reml, spectrum
from dasklmm.store.results import open_results

N, M = 110, 260
OF_THE_RUN = ("created", "seconds", "resumed")


@pytest.fixture(scope="module")
def cohort():
    ds = dasklmm.simulate(N, M, n_contigs=3, seed=8)
    return ds.assign(dosage=ds["dosage"].chunk({"variant": 70}))


@pytest.fixture(scope="module")
def tables(cohort):
    """Five phenotypes of three patterns of missingness, one that is constant, and two covariates."""
    ids = cohort["sample_id"].values
    rng = np.random.default_rng(2)
    base = cohort["phenotype"].values
    y = pd.DataFrame({f"t{k}": base + rng.standard_normal(N) for k in range(5)}, index=ids)
    y.iloc[:9, 1] = np.nan
    y.iloc[4:6, 2] = np.nan
    y.iloc[:9, 4] = np.nan
    y["flat"] = 2.0
    x = pd.DataFrame(cohort["covariates"].values, index=ids, columns=["age", "sex"])
    return y, x


def same(one, other):
    """Equal to the bit, attributes too."""
    assert {k: v for k, v in one.attrs.items() if k not in OF_THE_RUN} == {
        k: v for k, v in other.attrs.items() if k not in OF_THE_RUN
    }
    assert one.drop_attrs().identical(other.drop_attrs())


@pytest.mark.parametrize(
    "options",
    [{}, {"loco": False, "test": "score"}, {"rank": 30, "precision": "double"}],
    ids=["loco", "score", "low rank"],
)
def test_together_and_alone(cohort, tables, options):
    """Scanned together, phenotypes have the bits that they have alone, whatever their missingness."""
    y, x = tables
    together = dasklmm.gwas(cohort, y, x, **options)
    assert dict(together.sizes) == {"variant": M, "phenotype": 6}
    for name in list(y.columns)[:5]:
        alone = dasklmm.gwas(cohort, y[[name]], x, **options)
        got = dasklmm.phenotype_results(together, name)
        same(got, alone)
        assert got.attrs["n"] == int(y[name].notna().sum())


def test_chosen_phenotypes_in_their_order(cohort, tables):
    y, _ = tables
    got = dasklmm.gwas(cohort, y, phenotype=["t3", "t1"], loco=False)
    assert got["phenotype"].values.tolist() == ["t3", "t1"] == got.attrs["phenotype"]
    one = dasklmm.gwas(cohort, y, phenotype=["t1"], loco=False)
    assert one.sizes["phenotype"] == 1
    same(dasklmm.phenotype_results(one, "t1"), dasklmm.phenotype_results(got, "t1"))
    alone = dasklmm.gwas(cohort, y, phenotype="t1", loco=False)
    assert dict(alone.sizes) == {"variant": M}
    assert dasklmm.phenotype_results(alone, "t1") is alone


def test_a_phenotype_that_fails_does_not_end_the_run(cohort, tables, caplog):
    y, x = tables
    got = dasklmm.gwas(cohort, y[["t0", "flat"]].assign(word="a"), x)
    assert "flat" in caplog.text
    assert "is constant" in got.attrs["phenotypes"]["flat"]["error"]
    assert "not numeric" in got.attrs["phenotypes"]["word"]["error"]
    flat = got.sel(phenotype="flat")
    assert (flat["status"] == "no_null_model").all()
    assert np.isnan(flat["beta"]).all()
    assert (flat["n"] == 0).all()
    with pytest.raises(errors.PhenotypeError, match="none of 2 phenotypes"):
        dasklmm.gwas(cohort, y[["flat"]].assign(word="a"), x)
    with pytest.raises(errors.PhenotypeError, match="'flat' is constant"):
        dasklmm.gwas(cohort, y[["flat"]], x)


def test_a_phenotype_at_the_boundary_is_flagged(cohort, tables):
    y, _ = tables
    # along the eigenvectors that kinship has least of, so that none of it is heritable
    noise = np.linalg.eigh(dasklmm.kinship(cohort).values)[1][:, 1:4].sum(axis=1)
    got = dasklmm.gwas(cohort, y[["t0"]].assign(noise=noise), loco=False)
    assert got.attrs["phenotypes"]["noise"]["null"][0]["at_boundary"] is True
    assert got.attrs["phenotypes"]["t0"]["null"][0]["at_boundary"] is False
    assert (got["status"] == "ok").all()


def test_stored_resumed_and_reopened(cohort, tables, tmp_path):
    y, x = tables
    seen = []

    def stop(stage, done, total):
        seen.append((stage, done, total))
        if stage == "test" and done == 3:
            raise KeyboardInterrupt

    store = tmp_path / "r.zarr"
    with pytest.raises(KeyboardInterrupt):
        dasklmm.gwas(cohort, y, x, store=store, progress=stop)
    assert ("null model", 1, 9) in seen  # three groups, three contigs
    got = dasklmm.gwas(cohort, y, x, store=store)
    assert got.attrs["resumed"]["kinship"] == {"kept": 9, "computed": 0}
    assert got.attrs["resumed"]["test"]["kept"] >= 2
    want = dasklmm.gwas(cohort, y, x)
    assert got.drop_attrs().identical(want.drop_attrs())
    again = open_results(store)
    assert again.drop_attrs().identical(want.drop_attrs())
    same(dasklmm.phenotype_results(again, "t2"), dasklmm.phenotype_results(want, "t2"))
    with pytest.raises(errors.StoreError, match=r"differs in: .*phenotype"):
        dasklmm.gwas(cohort, y[["t0", "t1"]], x, store=store)


def test_on_a_cluster(cohort, tables):
    y, x = tables
    want = dasklmm.gwas(cohort, y, x)
    with dasklmm.local_cluster(n_workers=2, memory_limit="1GB") as cluster, cluster.get_client():
        got = dasklmm.gwas(cohort, y, x)
    assert got.drop_attrs().identical(want.drop_attrs())


def test_one_reading_of_the_genotypes_for_all(cohort, tables):
    """The tests of three groups read each block once; so do their Gram matrices where memory allows."""
    y, _ = tables
    read = []

    def counted(block, block_info=None):
        if block_info:
            read.append(block_info[0]["chunk-location"])
        return block

    dosage = cohort["dosage"].data.map_blocks(counted, dtype=np.int8, meta=np.empty((0, 0), np.int8))
    dasklmm.gwas(cohort.assign(dosage=(("variant", "sample"), dosage)), y, loco=False)
    assert len(read) == 2 * dosage.numblocks[0]


def test_phenotypes_that_cannot_be_told_apart(cohort, tables):
    y, _ = tables
    with pytest.raises(errors.PhenotypeError, match="each name once"):
        dasklmm.gwas(cohort, pd.concat([y[["t0"]], y[["t0"]]], axis=1))
    with pytest.raises(errors.PhenotypeError, match="no phenotype 'nix'"):
        dasklmm.gwas(cohort, y, phenotype=["t0", "nix"])
    got = dasklmm.gwas(cohort, y, phenotype=["t0", "t1"], loco=False)
    with pytest.raises(errors.PhenotypeError, match="they are of t0, t1"):
        dasklmm.phenotype_results(got, "t2")


def test_inverse_normal_transform(cohort, tables):
    """Only the order of the values counts."""
    y, x = tables
    got = dasklmm.gwas(cohort, y[["t1"]], x, transform="inverse_normal", loco=False)
    bent = dasklmm.gwas(cohort, np.exp(y[["t1"]] / 3), x, transform="inverse_normal", loco=False)
    np.testing.assert_array_equal(got["beta"], bent["beta"])
    assert got.attrs["transform"] == "inverse_normal"
    with pytest.raises(errors.OptionError, match="transform"):
        dasklmm.gwas(cohort, y[["t1"]], x, transform="log")


def test_what_draws_or_tells_of_one_phenotype_refuses_several(cohort, tables, tmp_path):
    pytest.importorskip("matplotlib")
    from dasklmm import export, plots, report

    y, _ = tables
    got = dasklmm.gwas(cohort, y[["t0", "t1"]], loco=False)
    for told in (
        lambda: plots.manhattan(got),
        lambda: plots.qq(got),
        lambda: plots.save_plots(got, tmp_path / "plots"),
        lambda: report.summary_html(got),
        lambda: report.write_report(got, tmp_path / "report.html"),
        lambda: export.write_tsv(got, tmp_path / "r.tsv.gz"),
        lambda: export.top_hits(got),
        lambda: dasklmm.clump(got),
    ):
        with pytest.raises(errors.OptionError, match="phenotype_results"):
            told()
    assert list(tmp_path.iterdir()) == []
    plots.qq(dasklmm.phenotype_results(got, "t1"))


@pytest.mark.parametrize("variance_ratio", ["null", "per_variant"])
@pytest.mark.parametrize("rank", [None, 30])
def test_means_cost_no_digits(cohort, tables, variance_ratio, rank):
    """A phenotype and a covariate far from zero have the tests, and the likelihood, of those near it."""
    y, x = tables
    y = y[["t0"]]
    options = {"variance_ratio": variance_ratio, "rank": rank, "precision": "double"}
    want = dasklmm.gwas(cohort, y, x, **options)
    far = x.assign(age=x["age"] + 1e4 * x["age"].std())
    got = dasklmm.gwas(cohort, y + 1e4 * y["t0"].std(), far, **options)
    np.testing.assert_allclose(got["neg_log10_p_value"], want["neg_log10_p_value"], rtol=1e-8, atol=1e-8)
    for one, two in zip(got.attrs["null"], want.attrs["null"], strict=True):
        assert one["log_likelihood"] == pytest.approx(two["log_likelihood"], abs=1e-7)
        assert one["beta"][1:] == pytest.approx(two["beta"][1:], abs=1e-8)
        moved = two["beta"][0] + 1e4 * y["t0"].std() - 1e4 * x["age"].std() * two["beta"][1]
        assert one["beta"][0] == pytest.approx(moved, rel=1e-9)


def test_contigs_are_decomposed_side_by_side(monkeypatch):
    """Two at a time both run before either ends, and the numbers are those of one after the other."""
    four = dasklmm.simulate(60, 80, n_contigs=4, seed=4)
    y = pd.DataFrame({"t": four["phenotype"].values}, index=four["sample_id"].values)
    eigendecompose, meet = spectrum.eigendecompose, threading.Barrier(2)

    def together(*arguments, **options):
        meet.wait(timeout=60)
        return eigendecompose(*arguments, **options)

    with dask.config.set(scheduler="threads", num_workers=2):
        monkeypatch.setattr(budget, "decompositions_at_once", lambda n, room, threads: 1)
        want = dasklmm.gwas(four, y)
        monkeypatch.setattr(budget, "decompositions_at_once", lambda n, room, threads: 2)
        monkeypatch.setattr(spectrum, "eigendecompose", together)
        got = dasklmm.gwas(four, y)
    assert got.drop_attrs().identical(want.drop_attrs())


def test_a_phenotype_whose_samples_have_no_kinship(tmp_path):
    """Where no variant of the other contigs varies among a phenotype's samples, it fails alone."""
    ds = dasklmm.simulate(60, 80, n_contigs=2, seed=4).compute()
    calls = ds["dosage"].values.copy()
    calls[ds["variant_contig"].values == ds["variant_contig"].values[-1], :30] = 1
    ds = ds.assign(dosage=(("variant", "sample"), calls)).chunk({"variant": 20})
    y = pd.DataFrame({"all": ds["phenotype"].values, "few": ds["phenotype"].values}, index=ds["sample_id"])
    y.iloc[30:, 1] = np.nan
    for store in (None, tmp_path / "r.zarr"):
        got = dasklmm.gwas(ds, y, store=store)
        nulls = got.attrs["phenotypes"]["few"]["null"]
        assert [("error" in null) for null in nulls] == [True, False]
        assert "no variant varies" in nulls[0]["error"]
        alone = dasklmm.gwas(ds, y[["all"]])
        assert dasklmm.phenotype_results(got, "all").drop_attrs().identical(alone.drop_attrs())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"rank": 95}, "rank is 95"),
        ({"interaction": "site[b]"}, "not among the covariates"),
        ({"interaction": "dose", "intercept": False}, "the covariate 'dose' is 1.0 in every sample"),
    ],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_phenotype_that_the_options_do_not_fit(cohort, options, reason, reverse):
    """What an option asks of samples and covariates is asked of each phenotype, in whatever order they stand."""
    ids = cohort["sample_id"].values
    y = pd.DataFrame({"all": cohort["phenotype"].values, "few": cohort["phenotype"].values}, index=ids)
    y.iloc[:20, 1] = np.nan
    x = pd.DataFrame({"dose": np.arange(N) >= 20}, index=ids).astype(float)
    if options.get("interaction") != "dose":
        x = pd.DataFrame({"site": np.repeat(["a", "b", "c"], [20, 40, 50])}, index=ids)
    else:
        x["age"] = cohort["covariates"].values[:, 0]
    if reverse:
        y = y[["few", "all"]]
    got = dasklmm.gwas(cohort, y, x, **options)
    assert reason in got.attrs["phenotypes"]["few"]["error"]
    assert set(dasklmm.phenotype_results(got, "few")["status"].values) == {"no_null_model"}
    same(dasklmm.phenotype_results(got, "all"), dasklmm.gwas(cohort, y[["all"]], x, **options))
    with pytest.raises((errors.RankError, errors.OptionError, errors.CovariateError), match=reason):
        dasklmm.gwas(cohort, y[["few"]], x, **options)


def test_bars_end_with_the_run(cohort, tables, monkeypatch):
    """progress=True draws on a terminal, and leaves no line open, also where the run fails."""
    y, x = tables

    class Screen(io.StringIO):
        def isatty(self):
            return True

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    dasklmm.gwas(cohort, y[["t0"]], x, progress=True)
    assert "test [####################] " in screen.getvalue()
    assert screen.getvalue().endswith("\n")
    flat = cohort.assign(dosage=cohort["dosage"] * 0)
    with pytest.raises(errors.KinshipError):
        dasklmm.gwas(flat, y[["t0"]], x, progress=True)
    assert screen.getvalue().endswith("\n")


def test_one_of_a_group_that_cannot_be_fitted_does_not_end_the_run(cohort, tables, monkeypatch):
    y, x = tables
    fit = scanning.fitted_null

    def some(table, t, mean_diagonal, own, options):
        if own.phenotype == "t3":
            raise errors.OptimisationError("no optimum")
        return fit(table, t, mean_diagonal, own, options)

    monkeypatch.setattr(scanning, "fitted_null", some)
    got = dasklmm.gwas(cohort, y[["t0", "t3"]], x, loco=False)
    assert set(got["status"].sel(phenotype="t3").values) == {"no_null_model"}
    assert got.attrs["phenotypes"]["t3"]["null"][0]["error"] == "no optimum"
    same(dasklmm.phenotype_results(got, "t0"), dasklmm.gwas(cohort, y["t0"], x, loco=False))


def test_a_low_rank_model_rotates_in_double_precision(cohort, tables):
    """Its inner product is a difference of large terms where one eigenvalue is far above the others."""
    y, x = tables
    ids = cohort["sample_id"].values
    rng = np.random.default_rng(4)
    z = rng.standard_normal((N, 40))
    spike = rng.standard_normal(N)
    k = xr.DataArray(
        z @ z.T / 40 + 1e4 * np.outer(spike, spike) / N,
        dims=("sample_0", "sample_1"),
        coords={"sample_id_0": ("sample_0", ids), "sample_id_1": ("sample_1", ids)},
    )
    single, double = (
        dasklmm.gwas(cohort, y["t0"], x, kinship=k, loco=False, rank=20, precision=precision)
        for precision in ("single", "double")
    )
    np.testing.assert_allclose(single["chi_sq"], double["chi_sq"], rtol=1e-9, atol=1e-9)


def test_a_score_test_at_the_bound_of_its_own_null_is_flagged():
    """It is taken at the ML null, which can lie at a bound where the REML null does not."""
    n = 60
    data = design.rotated_data(
        np.random.default_rng(0).standard_normal(n), np.ones((n, 1)), np.linspace(3, 0, n)
    )
    fit = reml.fit_null(data, on_boundary="clamp")
    inside, at_bound = (replace(fit, at_boundary=flag) for flag in (False, True))
    test = alternatives.alternative_test(data, 0.0, "score")

    def flagged(tested):
        return null_models.Null(data, inside, inside.beta, tested, tested, 0.5, test).summary()["at_boundary"]

    assert flagged(at_bound)
    assert not flagged(inside)


@pytest.mark.parametrize("lost", [errors.ClusterError, errors.GenotypeReadError, errors.MemoryBudgetError])
def test_what_is_lost_on_the_way_to_a_decomposition_is_no_phenotypes_fault(cohort, tables, monkeypatch, lost):
    """It ends the run, where a kinship that cannot be ends the phenotypes whose it is."""

    def fail(*arguments, **options):
        raise error("it is gone")

    monkeypatch.setattr(scanning, "leading_pairs", fail)
    options = {"phenotype": ["t0", "t1"], "rank": 20, "truncated": True, "loco": False}
    error = lost
    with pytest.raises(lost, match="it is gone"):
        dasklmm.gwas(cohort, *tables, **options)
    error = errors.KinshipError
    got = dasklmm.gwas(cohort, *tables, **options)
    assert set(got["status"].values.ravel()) == {"no_null_model"}
