"""Leading eigenpairs from genotypes, without forming the kinship, and decompositions that are kept."""

from __future__ import annotations

import dask
import numpy as np
import pandas as pd
import pytest

import dasklmm
from dasklmm import errors
from dasklmm.lazy import run
from dasklmm.numerics.subspace import Krylov
from dasklmm.store.genotypes import write_genotypes


@pytest.fixture(scope="module")
def cohort():
    return dasklmm.simulate(400, 3000, n_contigs=3, n_populations=4, fst=0.1, family_fraction=0.6, seed=3)


@pytest.fixture(scope="module")
def phenotype(cohort):
    return pd.DataFrame({"trait": cohort["phenotype"].values}, index=cohort["sample_id"].values)


@pytest.mark.parametrize("method", ["rrm", "grm", "centered"])
def test_leading_pairs_of_a_structured_cohort(cohort, method):
    exact = dasklmm.eigendecompose(dasklmm.kinship(cohort, method), rank=50)
    pairs = dasklmm.eigendecompose(cohort, rank=50, method=method)
    np.testing.assert_allclose(pairs["s"], exact["s"], rtol=1e-6)
    overlap = np.abs(np.sum(pairs["p"].values * exact["p"].values, axis=1))
    np.testing.assert_allclose(overlap, 1.0, atol=1e-6)
    np.testing.assert_allclose(pairs["p"].values @ pairs["p"].values.T, np.eye(50), atol=1e-10)
    assert pairs["sample_id"].values.tolist() == cohort["sample_id"].values.tolist()


def test_residuals_are_what_they_say(cohort):
    pairs = dasklmm.eigendecompose(cohort, rank=20, tolerance=1e-3)
    k = dasklmm.kinship(cohort).values
    p, s = pairs["p"].values, pairs["s"].values
    actual = np.linalg.norm(k @ p.T - p.T * s, axis=0)
    np.testing.assert_allclose(pairs["residual"], actual, rtol=1e-6, atol=1e-9)
    assert 1e-6 * s[0] < actual.max() <= 1e-3 * s[0]


def test_seeded(cohort):
    one, two, other = (dasklmm.eigendecompose(cohort, rank=5, seed=s) for s in (1, 1, 2))
    assert one["p"].values.tobytes() == two["p"].values.tobytes()
    assert one["p"].values.tobytes() != other["p"].values.tobytes()


def test_what_does_not_converge_is_said(cohort, caplog, monkeypatch):
    from dasklmm.lazy import eigen

    monkeypatch.setattr(eigen, "PASSES", 2)
    dasklmm.eigendecompose(cohort, rank=50)
    assert "after 2 passes the largest residual of the 50 pairs" in caplog.text


def test_passes_are_told_of(cohort, phenotype):
    """Each pass of each contig's decomposition is a report; the last says that all is done."""
    seen = []
    dasklmm.gwas(cohort, phenotype, rank=50, truncated=True, progress=lambda *report: seen.append(report))
    passes = [(done, total) for name, done, total in seen if name == "leading pairs"]
    assert sum(done == 1 for done, _ in passes) == 3 == sum(done == total for done, total in passes)


def test_ploidy_is_of_the_inputs(cohort, phenotype, tmp_path):
    """Frequencies depend on it: results of another ploidy are not taken for these."""
    dasklmm.gwas(cohort, phenotype, store=tmp_path / "r.zarr", loco=False)
    with pytest.raises(errors.StoreError, match="differs in: genotypes"):
        dasklmm.gwas(cohort.assign_attrs(ploidy=1), phenotype, store=tmp_path / "r.zarr", loco=False)


@pytest.mark.parametrize("n", [3, 40])
def test_krylov_of_small_and_degenerate_matrices(n):
    """As many pairs as samples, equal eigenvalues, and a matrix of rank one."""
    rng = np.random.default_rng(n)
    z = rng.standard_normal((n, n))
    for k in (z @ z.T, np.eye(n), np.outer(z[0], z[0])):
        state = Krylov(n, n)
        for _ in range(3):
            state.extend(k @ state.next)
            s, p, residual = state.pairs()
            if residual.max() <= 1e-9 * s[0]:
                break
        np.testing.assert_allclose(s, np.maximum(np.linalg.eigvalsh(k)[::-1], 0), atol=1e-8)
        np.testing.assert_allclose(p @ p.T, np.eye(n), atol=1e-10)


@pytest.mark.parametrize("loco", [False, True])
def test_truncated_scan_equals_the_scan_with_the_exact_pairs(cohort, phenotype, loco):
    options = {"loco": loco, "rank": 50, "precision": "double"}
    exact = dasklmm.gwas(cohort, phenotype, **options)
    got = dasklmm.gwas(cohort, phenotype, truncated=True, **options)
    assert float(np.abs(got["neg_log10_p_value"] - exact["neg_log10_p_value"]).max()) < 1e-4
    for one, two in zip(got.attrs["null"], exact.attrs["null"], strict=True):
        assert one["pve"] == pytest.approx(two["pve"], rel=1e-4)


def test_count_of_the_kinships_variants_is_kept(cohort, phenotype, tmp_path):
    """A run that is taken up after the leading pairs were found has the attributes of one that was not."""

    def stop(name, done, total):
        if name == "test":
            raise InterruptedError

    options = {"loco": False, "rank": 20, "truncated": True}
    with pytest.raises(InterruptedError):
        dasklmm.gwas(cohort, phenotype, store=tmp_path / "r.zarr", progress=stop, **options)
    got = dasklmm.gwas(cohort, phenotype, store=tmp_path / "r.zarr", **options)
    assert got.attrs["resumed"]["null model"] == {"kept": 1, "computed": 0}
    exact = dasklmm.gwas(cohort, phenotype, **{**options, "truncated": False})
    for name in ("variants", "variants_in_kinship", "samples_used"):
        assert got.attrs["counts"][name] == exact.attrs["counts"][name]


def test_a_run_taken_up_elsewhere_adds_in_the_same_order(cohort, phenotype, tmp_path, monkeypatch):
    """Leading pairs in double precision have the same bits with another number of threads."""

    def stop(name, done, total):
        if name == "test":
            raise InterruptedError

    options = {"loco": True, "rank": 5, "truncated": True, "precision": "double"}
    ds = dasklmm.open_genotypes(stored(cohort, tmp_path), chunks=200)
    monkeypatch.setattr(run, "parallelism", lambda: 1)
    want = dasklmm.gwas(ds, phenotype, store=tmp_path / "want.zarr", **options)
    with pytest.raises(InterruptedError):
        dasklmm.gwas(ds, phenotype, store=tmp_path / "r.zarr", progress=stop, **options)
    monkeypatch.setattr(run, "parallelism", lambda: 6)
    got = dasklmm.gwas(ds, phenotype, store=tmp_path / "r.zarr", **options)
    assert got.attrs["resumed"]["null model"]["computed"] == 2
    assert got.drop_attrs().identical(want.drop_attrs())


def stored(cohort, folder):
    write_genotypes(cohort, folder / "g.zarr")
    return folder / "g.zarr"


def test_vectors_do_not_go_through_the_graph(cohort, tmp_path):
    """Each pass would send them to the scheduler, which warns of a large graph."""
    path = stored(cohort, tmp_path)
    want = dasklmm.eigendecompose(cohort, rank=20)
    with (
        dask.config.set({"distributed.admin.large-graph-warning-threshold": "80kB"}),  # they are 96 kB
        dasklmm.local_cluster(n_workers=2, memory_limit="700MB") as cluster,
        cluster.get_client(),
    ):
        got = dasklmm.eigendecompose(dasklmm.open_genotypes(path), rank=20)
    np.testing.assert_allclose(got["s"], want["s"], rtol=1e-6)


def test_kept_decomposition_is_reused(cohort, phenotype, tmp_path):
    store = tmp_path / "d.zarr"
    made = dasklmm.eigendecompose(cohort, rank=30, store=store)
    again = dasklmm.eigendecompose(cohort, rank=30, store=store)
    np.testing.assert_array_equal(again["p"].values, made["p"].values)
    with pytest.raises(errors.StoreError, match="differs in: method"):
        dasklmm.eigendecompose(cohort, rank=30, method="grm", store=store)
    with pytest.raises(errors.StoreError, match="differs in: genotypes, samples"):
        dasklmm.eigendecompose(cohort.isel(sample=slice(1, None)), rank=30, store=store)
    want = dasklmm.gwas(cohort, phenotype, loco=False, rank=30, truncated=True, precision="double")
    for kinship in (store, made.isel(sample=slice(None, None, -1))):
        got = dasklmm.gwas(cohort, phenotype, loco=False, kinship=kinship, precision="double")
        np.testing.assert_allclose(got["neg_log10_p_value"], want["neg_log10_p_value"], rtol=1e-4, atol=1e-6)
        assert got.attrs["rank"] == 30
    with pytest.raises(errors.SampleError, match="is of 400 samples and 399 are analysed"):
        dasklmm.gwas(cohort, phenotype.iloc[1:], loco=False, kinship=store)


def test_exact_decomposition_is_kept_too(cohort, tmp_path):
    k = dasklmm.kinship(cohort).compute()
    store = tmp_path / "d.zarr"
    made = dasklmm.eigendecompose(k, store=store)
    np.testing.assert_array_equal(dasklmm.eigendecompose(k, store=store)["s"], made["s"])
    with pytest.raises(errors.StoreError, match="differs in: values"):
        dasklmm.eigendecompose(2 * k, store=store)
    dasklmm.eigendecompose(2 * k, store=store, overwrite=True)


def test_another_kind_is_not_overwritten(cohort, phenotype, tmp_path):
    """overwrite=True replaces a decomposition by another, never results or genotypes."""
    k = dasklmm.kinship(cohort).compute()
    dasklmm.gwas(cohort, phenotype, loco=False, rank=20, store=tmp_path / "r.zarr")
    with pytest.raises(errors.StoreError, match=r"another kind \(results\)"):
        dasklmm.eigendecompose(k, store=tmp_path / "r.zarr", overwrite=True)
    assert dasklmm.open_results(tmp_path / "r.zarr").attrs["rank"] == 20
    dasklmm.eigendecompose(k, store=tmp_path / "d.zarr")
    with pytest.raises(errors.StoreError, match=r"another kind \(decomposition\)"):
        dasklmm.gwas(cohort, phenotype, loco=False, store=tmp_path / "d.zarr", overwrite=True)


def test_refusals(cohort, phenotype):
    with pytest.raises(errors.RankError, match="give rank"):
        dasklmm.eigendecompose(cohort)
    with pytest.raises(errors.OptionError, match="truncated=True"):
        dasklmm.gwas(cohort, phenotype, truncated=True)
    flat = cohort.assign(dosage=cohort["dosage"] * 0)
    with pytest.raises(errors.KinshipError, match="no variant varies"):
        dasklmm.eigendecompose(flat, rank=3)
    with pytest.raises(errors.StoreError, match="neither a kinship nor a decomposition"):
        dasklmm.gwas(cohort, phenotype, loco=False, kinship="nowhere/k.zarr")
