"""What must never happen silently: others' files replaced, results of other inputs, numbers of other samples."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

import dasklmm
from dasklmm import LinearMixedModel, errors, linear_mixed_model, linear_mixed_regression_rows
from dasklmm.store import arrays
from dasklmm.store.genotypes import write_genotypes

N = 80


@pytest.fixture(scope="module")
def cohort():
    ds = dasklmm.simulate(N, 300, n_contigs=2, seed=8)
    y = pd.Series(ds["phenotype"].values, index=ds["sample_id"].values, name="trait")
    return ds, y


def writers(ds, y):
    k = dasklmm.kinship(ds)
    x = np.ones((N, 1))
    rows = linear_mixed_regression_rows
    model, _ = linear_mixed_model(y, x, k=k.compute())
    model.fit()
    return {
        "scan": lambda path, overwrite: dasklmm.gwas(ds, y, store=path, overwrite=overwrite),
        "genotypes": lambda path, overwrite: write_genotypes(ds, path, overwrite=overwrite),
        "kinship": lambda path, overwrite: arrays.write_kinship(k, path, overwrite=overwrite),
        "decomposition": lambda path, overwrite: dasklmm.eigendecompose(k, store=path, overwrite=overwrite),
        "p": lambda path, overwrite: LinearMixedModel.from_kinship(
            y, x, k.compute(), p_path=path, overwrite=overwrite
        ),
        "pa": lambda path, overwrite: rows(ds, model, pa_path=path, overwrite=overwrite),
    }


@pytest.mark.parametrize("writer", ["scan", "genotypes", "kinship", "decomposition", "p", "pa"])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("place", ["folder", "file", "group", "array"])
def test_nothing_foreign_is_replaced(cohort, tmp_path, writer, overwrite, place):
    path = tmp_path / "thesis"
    if place == "file":
        path.write_text("years of work")
    elif place == "folder":
        path.mkdir()
        (path / "thesis.txt").write_text("years of work")
    elif place == "group":
        zarr.open_group(str(path), mode="w").create_array("mine", data=np.arange(3.0))
    else:
        zarr.create_array(str(path), data=np.arange(3.0))
    before = sorted((p, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file())
    with pytest.raises(errors.StoreError):
        writers(*cohort)[writer](path, overwrite)
    assert sorted((p, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file()) == before


def test_a_work_folder_of_somebody_else_is_refused(cohort, tmp_path):
    ds, y = cohort
    (tmp_path / "r.zarr.work").mkdir()
    (tmp_path / "r.zarr.work" / "notes.txt").write_text("mine")
    with pytest.raises(errors.StoreError, match="holds something else"):
        dasklmm.gwas(ds, y, store=tmp_path / "r.zarr")
    assert (tmp_path / "r.zarr.work" / "notes.txt").read_text() == "mine"


def test_edited_genotypes_are_other_inputs(cohort, tmp_path):
    ds, y = cohort
    store = tmp_path / "r.zarr"
    dasklmm.gwas(ds, y, store=store)
    with pytest.raises(errors.StoreError, match="differs in: genotypes"):
        dasklmm.gwas(ds.assign(dosage=2 - ds["dosage"]), y, store=store)
    write_genotypes(ds, tmp_path / "g.zarr")
    opened = dasklmm.open_genotypes(tmp_path / "g.zarr")
    dasklmm.gwas(opened, y, store=tmp_path / "s.zarr")
    with pytest.raises(errors.StoreError, match="differs in: genotypes"):
        dasklmm.gwas(opened.assign(dosage=2 - opened["dosage"]), y, store=tmp_path / "s.zarr")


def test_p_of_another_model_is_refused(cohort, tmp_path):
    ds, y = cohort
    x, k = np.ones((N, 1)), dasklmm.kinship(ds).values
    path = tmp_path / "p.zarr"
    model, _ = LinearMixedModel.from_kinship(y, x, k, p_path=path)
    model.fit()
    lazy = linear_mixed_regression_rows(ds, model)
    LinearMixedModel.from_kinship(y, x, np.eye(N) + k @ k, p_path=path, overwrite=True)
    with pytest.raises(errors.StoreError, match="written anew"):
        lazy.compute()
    with pytest.raises(errors.StoreError, match="written anew"):
        linear_mixed_regression_rows(ds, model).compute()


def test_an_array_that_is_not_whole_is_refused(cohort, tmp_path):
    ds, y = cohort
    path = tmp_path / "p.zarr"
    LinearMixedModel.from_kinship(y, np.ones((N, 1)), dasklmm.kinship(ds).values, p_path=path)
    chunk = next(p for p in (path / "c").rglob("*") if p.is_file())
    chunk.unlink()
    with pytest.raises(errors.StoreError, match="not whole: 0 of 1 chunks"):
        dasklmm.project(path, ds)


@pytest.mark.parametrize("form", ["series", "integers", "dataarray"])
def test_misordered_ids_are_joined_in_every_constructor(cohort, form):
    ds, y = cohort
    rng = np.random.default_rng(0)
    ids = ds["sample_id"].values if form != "integers" else np.arange(1000, 1000 + N).astype(str)
    g = ds.assign_coords(sample_id=("sample", ids))["dosage"]
    k = (
        dasklmm.kinship(ds)
        .compute()
        .assign_coords(sample_id_0=("sample_0", ids), sample_id_1=("sample_1", ids))
    )
    index = ids.astype(int) if form == "integers" else ids
    x = pd.DataFrame({"one": 1.0, "age": rng.standard_normal(N)}, index=index)
    response = pd.Series(y.to_numpy(), index=index)
    if form == "dataarray":
        response = xr.DataArray(y.to_numpy(), dims="sample", coords={"sample_id": ("sample", ids)})
    order = rng.permutation(N)
    z = xr.DataArray(
        rng.standard_normal((N, 20)), dims=("sample", "effect"), coords={"sample_id": ("sample", ids)}
    )

    def values(turn):
        made = [
            LinearMixedModel.from_kinship(response, x.iloc[turn], k.isel(sample_0=turn, sample_1=turn)),
            LinearMixedModel.from_random_effects(response, x.iloc[turn], z.isel(sample=turn)),
            linear_mixed_model(response, x.iloc[turn], z=g.isel(sample=turn)),
            linear_mixed_model(response, x.iloc[turn], z=pd.DataFrame(z.values, index=index).iloc[turn]),
            linear_mixed_model(
                response, x.iloc[turn], k=pd.DataFrame(k.values, index, index).iloc[turn, turn]
            ),
        ]
        return [model.compute_neg_log_reml(0.0) for model, _ in made]

    np.testing.assert_allclose(values(order), values(np.arange(N)), rtol=1e-9)


def test_stored_p_joins_by_its_ids(cohort, tmp_path):
    ds, y = cohort
    path = tmp_path / "p.zarr"
    k = dasklmm.kinship(ds).compute()
    LinearMixedModel.from_kinship(y, np.ones((N, 1)), k, p_path=path)
    want = dasklmm.project(path, ds).values
    order = np.random.default_rng(1).permutation(N)
    np.testing.assert_allclose(dasklmm.project(path, ds.isel(sample=order)).values, want, atol=1e-12)


def test_wide_integers_are_numbers_and_int8_are_calls(problem):
    coded = np.random.default_rng(0).integers(-1, 2, (problem.n, 90))
    one, _ = linear_mixed_model(problem.y, problem.x, z=coded)
    two, _ = linear_mixed_model(problem.y, problem.x, z=coded.astype(float))
    assert one.compute_neg_log_reml(0.0) == pytest.approx(two.compute_neg_log_reml(0.0), rel=1e-12)


def test_stored_results_tell_damage(cohort, tmp_path):
    from dasklmm.store.results import open_results

    ds, y = cohort
    store = tmp_path / "r.zarr"
    dasklmm.gwas(ds, y, store=f"{store}/")  # a trailing slash is of no account
    metadata = store / "zarr.json"
    text = metadata.read_text()
    metadata.write_text(text.replace('"lambda_gc":', '"lambda_gd":'))
    with pytest.raises(errors.StoreError, match="damaged"):
        open_results(store)
    metadata.write_text(text)
    open_results(store)
    success = store / "_SUCCESS"
    success.write_text(success.read_text()[:-20])
    with pytest.raises(errors.StoreError, match="damaged"):
        open_results(store)


def test_overwrite_goes_on_with_its_own_work(cohort, tmp_path):
    ds, y = cohort
    store = tmp_path / "r.zarr"
    dasklmm.gwas(ds, y, store=store, test="wald")

    def stop(stage, done, total):
        if stage == "test":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dasklmm.gwas(ds, y, store=store, overwrite=True, progress=stop)
    got = dasklmm.gwas(ds, y, store=store, overwrite=True)
    assert got.attrs["resumed"]["kinship"] == {"kept": 2, "computed": 0}
    assert got.attrs["test"] == "lrt"


def test_score_null_at_a_bound_is_flagged(cohort):
    ds, _ = cohort
    rng = np.random.default_rng(1)
    for _ in range(40):
        y = pd.Series(rng.standard_normal(N), index=ds["sample_id"].values, name="noise")
        nulls = dasklmm.gwas(ds, y, test="score").attrs["null"]
        bound = [v for v in nulls if abs(v["log_gamma_tested"]) == 8.0]
        if bound:
            assert all(v["at_boundary"] for v in bound)
            return
    raise AssertionError("no null ran to a bound")


def test_low_rank_keeps_its_digits_beside_a_large_eigenvalue(cohort):
    ds, y = cohort
    rng = np.random.default_rng(2)
    shift = rng.standard_normal(N)
    k = dasklmm.kinship(ds).compute()
    k = k.copy(data=k.values + 2e5 * np.outer(shift, shift) / N)
    single, double = (
        dasklmm.gwas(ds, y, kinship=k, loco=False, rank=40, precision=p) for p in ("single", "double")
    )
    assert float(np.abs(single["neg_log10_p_value"] - double["neg_log10_p_value"]).max()) < 1e-4


def test_results_within_the_genotypes_are_refused(tmp_path):
    cohort = dasklmm.simulate(40, 60, n_contigs=2, seed=1)
    path = tmp_path / "g.zarr"
    write_genotypes(cohort, path)
    ds = dasklmm.open_genotypes(path)
    before = sorted(str(f) for f in path.rglob("*"))
    for store in (path, path / "results.zarr"):
        with pytest.raises(errors.StoreError, match="lies within the genotypes"):
            dasklmm.gwas(ds, cohort["phenotype"].rename("t"), loco=False, store=store)
    assert sorted(str(f) for f in path.rglob("*")) == before


@pytest.mark.parametrize("rank", [10.5, "10", 0, 41])
def test_a_rank_is_a_whole_number(rank):
    cohort = dasklmm.simulate(40, 60, n_contigs=2, seed=1)
    with pytest.raises(errors.RankError, match="whole number from 1 to 40"):
        dasklmm.eigendecompose(cohort, rank)


def test_a_path_is_no_kinship():
    with pytest.raises(errors.KinshipError, match="open_genotypes"):
        dasklmm.eigendecompose("k.zarr")


@pytest.mark.parametrize("of", ["Dataset", "DataArray"])
def test_ploidy_goes_with_the_dosages(tmp_path, of):
    """Frequencies of haploid genotypes are the same whether the Dataset or its dosages alone are given."""
    ds = dasklmm.simulate(40, 60, n_contigs=1, seed=1)
    calls = (ds["dosage"].values > 0).astype(np.int8)
    write_genotypes(
        ds.assign(dosage=(("variant", "sample"), calls)).assign_attrs(ploidy=1), tmp_path / "g.zarr"
    )
    opened = dasklmm.open_genotypes(tmp_path / "g.zarr")
    given = opened if of == "Dataset" else opened["dosage"]
    found = dasklmm.gwas(given, ds["phenotype"].rename("trait"), loco=False)
    np.testing.assert_allclose(found["effect_allele_frequency"], calls.mean(axis=1))


@pytest.mark.parametrize("options", [{}, {"rank": 5, "truncated": True}])
def test_one_contig_alone_varies(cohort, options):
    """Leaving it out leaves no kinship, which is said with its name and what to do."""
    ds, y = cohort
    contigs = ds["variant_contig"].values
    calls = np.where((contigs == contigs[-1])[:, None], 1, ds["dosage"].values)
    flat = ds.assign(dosage=(("variant", "sample"), calls))
    with pytest.raises(errors.KinshipError, match=rf"outside contig '{contigs[0]}'.*loco=False"):
        dasklmm.gwas(flat, y, **options)


def test_infinite_dosages_to_condition_on(cohort):
    ds, y = cohort
    dosages = ds["dosage"].values.astype(np.float32)
    dosages[5, 3] = np.inf
    odd = ds.assign(dosage=(("variant", "sample"), dosages))
    name = str(ds["variant_id"].values[5])
    with pytest.raises(errors.NotFiniteError, match=f"'{name}', to condition on, has infinite dosages"):
        dasklmm.gwas(odd, y, loco=False, condition=[name])


def test_phenotypes_as_an_array_of_two_dims(cohort):
    """Each column is a phenotype; what is no table is refused."""
    ds, y = cohort
    both = xr.DataArray(
        np.column_stack([y, y**2]),
        dims=("sample", "trait"),
        coords={"sample_id": ("sample", y.index), "trait": ["a", "b"]},
    )
    found = dasklmm.gwas(ds, both, loco=False)
    assert found["phenotype"].values.tolist() == ["a", "b"]
    np.testing.assert_array_equal(found["beta"][:, 0], dasklmm.gwas(ds, y, loco=False)["beta"])
    for odd in (both.drop_vars("sample_id"), both.rename(sample="people"), both.expand_dims("time")):
        with pytest.raises(errors.PhenotypeError, match=r"\(sample\) or \(sample, phenotype\)"):
            dasklmm.gwas(ds, odd, loco=False)
