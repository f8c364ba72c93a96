"""Results of a scan that is not finished: what is done is shown as it will be, and nothing else is."""

from __future__ import annotations

import json
import shutil

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner

import dasklmm
from dasklmm import cli, errors, export, formats_out, outputs, plots, report
from dasklmm.store import records, results
from dasklmm.store.genotypes import write_genotypes

N_VARIANTS = 600


class Enough(Exception):
    """Ends a run."""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    ds = dasklmm.simulate(120, N_VARIANTS, n_contigs=3, n_causal=3, causal_variance=0.4, seed=2)
    path = tmp_path_factory.mktemp("cohort") / "g.zarr"
    write_genotypes(ds, path)
    y = ds["phenotype"].to_series().set_axis(ds["sample_id"].values)
    return dasklmm.open_genotypes(path, chunks=64), pd.DataFrame({"height": y, "weight": y**2})


CASES = {
    "one phenotype": {},
    "loco": {"loco": True},
    "refitted": {"loco": False, "variance_ratio": "per_variant"},
    "a selection": {"contigs": ["1", "3"]},
    "several phenotypes": {"loco": False},
    "a phenotype that cannot be analysed": {"loco": False},
}


def ended(cohort, store, name, **more):
    """Run a scan into a store until four blocks are tested."""
    ds, y = cohort
    traits = y if name.startswith(("several", "a phenotype")) else y["height"]
    if name.startswith("several"):  # those of the same samples are tested first
        traits = y.assign(height=y["height"].where(y.index != y.index[0])).assign(
            age=lambda t: t["height"] ** 2
        )
    if name.startswith("a phenotype"):
        traits = y.assign(height=1.0)

    def count(stage, done, total):
        if stage == "test" and done == 4 and store is not None:
            raise Enough

    options = {**CASES[name], **more}
    if store is None:
        return dasklmm.gwas(ds, traits, **options)
    # one at a time, or a block of another thread might be done later
    with pytest.raises(Enough), dask.config.set(scheduler="synchronous"):
        dasklmm.gwas(ds, traits, store=store, **{"progress": count, **options})
    return None


@pytest.mark.parametrize("name", CASES)
def test_what_is_done_is_as_it_will_be(cohort, tmp_path, name):
    store = tmp_path / "r.zarr"
    ended(cohort, store, name)
    with pytest.raises(errors.StoreError, match="allow_incomplete=True"):
        dasklmm.open_results(store)
    found = dasklmm.open_results(store, allow_incomplete=True)
    want = ended(cohort, None, name)
    xr.testing.assert_identical(found.coords.to_dataset().drop_attrs(), want.coords.to_dataset().drop_attrs())
    assert {k: (v.dims, v.dtype.kind, v.attrs) for k, v in found.variables.items()} == {
        k: (v.dims, v.dtype.kind, v.attrs) for k, v in want.variables.items()
    }
    state = found.attrs["incomplete"]
    assert 4 <= state["blocks_done"] < state["blocks"]
    assert state["variants"] == want.sizes["variant"]
    done = found["status"].values != "unfinished"
    rows = done if done.ndim == 1 else done.any(axis=1)
    assert 0 < rows.sum() == state["variants_done"] < rows.size
    for key in want.data_vars:
        got, due = found[key].values, want[key].values
        if due.dtype.kind == "f":
            np.testing.assert_allclose(got[done], due[done], rtol=1e-12)
            assert np.isnan(got[~done]).all()
        else:
            np.testing.assert_array_equal(got[done], due[done])
    for key, value in want.attrs.items():
        if key in found.attrs and key != "phenotypes":
            assert found.attrs[key] == value
    assert not {"null", "lambda_gc", "counts"} & set(found.attrs)


def test_looking_changes_nothing(cohort, tmp_path):
    """Work that was looked at, while its run goes on or after, is taken up as if it had not been."""
    store = tmp_path / "out" / "results.zarr"
    ended(cohort, store, "loco", whiten=True)
    told = CliRunner().invoke(cli.main, ["info", str(tmp_path / "out")])
    assert told.exit_code == 0, told.output
    state = dasklmm.open_results(tmp_path / "out", allow_incomplete=True).attrs["incomplete"]
    first, options, whitened, done, *_ = told.output.splitlines()
    assert first == "incomplete results of height"
    assert options == "  test lrt, kinship rrm, loco True, precision single"
    assert whitened.startswith("  whitened: ")
    assert done.startswith(f"  done: {state['blocks_done']} of ")
    ds, y = cohort
    seen = []

    def look(stage, done, total):
        if stage == "test" and done > state["blocks_done"]:
            seen.append(dasklmm.open_results(tmp_path / "out", allow_incomplete=True).attrs["incomplete"])

    got = dasklmm.gwas(ds, y["height"], loco=True, whiten=True, store=store, progress=look)
    assert len(seen) > 1
    assert [s["blocks_done"] for s in seen] == sorted(s["blocks_done"] for s in seen)
    assert got.attrs["resumed"]["test"]["kept"] == state["blocks_done"]
    want = ended(cohort, None, "loco", whiten=True)
    xr.testing.assert_equal(got, want)
    assert dasklmm.open_results(store, allow_incomplete=True).identical(dasklmm.open_results(store))


def test_before_anything_is_laid_out(cohort, tmp_path):
    store = tmp_path / "r.zarr"
    ended(cohort, store, "loco")
    shutil.rmtree(f"{store}.work/layout")
    with pytest.raises(errors.StoreError, match="no results that can be shown"):
        dasklmm.open_results(store, allow_incomplete=True)
    for damaged in ("{", "[]"):
        (tmp_path / "r.zarr.work" / "inputs.json").write_text(damaged)
        with pytest.raises(errors.StoreError, match=r"inputs.json is damaged.*--overwrite"):
            dasklmm.open_results(store, allow_incomplete=True)
        with pytest.raises(errors.StoreError, match=r"inputs.json is damaged.*--overwrite"):
            ended(cohort, store, "loco")
    ended(cohort, store, "loco", overwrite=True)
    with pytest.raises(errors.StoreError, match="no results at"):
        dasklmm.open_results(tmp_path / "nothing.zarr", allow_incomplete=True)


def test_a_run_that_ends_while_it_is_looked_at_is_complete(cohort, tmp_path, monkeypatch):
    ds, y = cohort
    store = tmp_path / "r.zarr"
    ended(cohort, store, "loco")
    look = results._so_far

    def after_the_end(path):
        dasklmm.gwas(ds, y["height"], loco=True, store=store)
        return look(path)

    monkeypatch.setattr(results, "_so_far", after_the_end)
    found = dasklmm.open_results(store, allow_incomplete=True)
    assert "incomplete" not in found.attrs


def test_a_damaged_layout_is_made_again(cohort, tmp_path):
    store = tmp_path / "r.zarr"
    ended(cohort, store, "loco")
    for name in ("unit", "variant_id"):
        (tmp_path / "r.zarr.work" / "layout" / name).write_bytes(b"x")

    def stop(stage, done, total):
        if stage == "test":
            raise Enough

    ended(cohort, store, "loco", progress=stop)
    found = dasklmm.open_results(store, allow_incomplete=True)
    assert (found["variant_id"].values == cohort[0]["variant_id"].values).all()


def test_a_block_that_does_not_say_of_whom_is_not_shown(cohort, tmp_path):
    """As a version before wrote them; the run itself takes it up."""
    store = tmp_path / "r.zarr"
    ended(cohort, store, "loco")
    kept = records.Records(
        f"{store}.work", results.fingerprint(json.loads((tmp_path / "r.zarr.work/inputs.json").read_text()))
    )
    before = dasklmm.open_results(store, allow_incomplete=True).attrs["incomplete"]
    name = next(name for name in kept.names() if name.startswith("test/"))
    kept.write(name, kept.read(name)[0])
    after = dasklmm.open_results(store, allow_incomplete=True).attrs["incomplete"]
    assert after["blocks_done"] == before["blocks_done"] - 1


def test_one_long_allele_does_not_swell_the_layout(tmp_path):
    ds = dasklmm.simulate(60, 3000, n_contigs=2, seed=1)
    alleles = ds["variant_effect_allele"].values.astype("U2000")
    alleles[7] = "ACGT" * 500
    ds = ds.assign_coords(variant_effect_allele=("variant", alleles))

    def stop(stage, done, total):
        if stage == "test":
            raise Enough

    with pytest.raises(Enough):
        dasklmm.gwas(ds, ds["phenotype"].rename("t"), store=tmp_path / "r.zarr", progress=stop)
    assert sum(f.stat().st_size for f in (tmp_path / "r.zarr.work" / "layout").iterdir()) < 200_000
    found = dasklmm.open_results(tmp_path / "r.zarr", allow_incomplete=True)
    assert (found["variant_effect_allele"].values == alleles).all()


def test_a_directory_of_a_run_by_url(cohort, tmp_path):
    ended(cohort, tmp_path / "out" / "results.zarr", "loco")
    found = dasklmm.open_results(f"file://{tmp_path}/out", allow_incomplete=True)
    assert found.attrs["incomplete"]["blocks_done"] >= 4


def test_damaged_results(cohort, tmp_path):
    """What can be read is shown, and what cannot is named."""
    store = tmp_path / "r.zarr"
    ds, y = cohort
    want = dasklmm.gwas(ds, y["height"], store=store)
    (chunk,) = (store / "beta" / "c").iterdir()
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(errors.StoreError, match="'beta'"):
        dasklmm.open_results(store)
    found = dasklmm.open_results(store, allow_incomplete=True)
    assert found.attrs.pop("incomplete") == {"gone": ["beta"]}
    xr.testing.assert_equal(found, want.drop_vars("beta"))
    attributes = (store / "zarr.json").read_text()
    (store / "zarr.json").write_text(attributes.replace('"n": 120', '"n": 121'))
    found = dasklmm.open_results(store, allow_incomplete=True)
    assert found.attrs["incomplete"] == {"gone": ["beta", "zarr.json"]}
    for other in ("[]", "{", '{"arrays": 3}'):
        (store / "_SUCCESS").write_text(other)
        with pytest.raises(errors.StoreError, match="'_SUCCESS'"):
            dasklmm.open_results(store)
    (store / "_SUCCESS").unlink()
    chunk.unlink()
    found = dasklmm.open_results(store, allow_incomplete=True)
    assert found.attrs["incomplete"] == {"gone": ["_SUCCESS"]}
    assert np.isnan(found["beta"]).all()  # and not 0, which a chunk that is gone would read as
    told = CliRunner().invoke(cli.main, ["info", str(store)])
    assert told.output.startswith("incomplete results of height\n  gone or damaged: _SUCCESS\n")
    for odd in ({"zarr_format": 3, "node_type": "group", "more": 1}, json.loads(attributes)):
        if "attributes" in odd:
            odd["attributes"]["coordinates"] = None
        (store / "zarr.json").write_text(json.dumps(odd))
        with pytest.raises(errors.StoreError):
            dasklmm.open_results(store, allow_incomplete=True)


@pytest.mark.parametrize("checked", [True, False])
def test_an_array_whose_metadata_is_damaged_is_gone(cohort, tmp_path, checked):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    ds, y = cohort
    dasklmm.gwas(ds, y["height"], store=tmp_path / "r.zarr")
    (tmp_path / "r.zarr" / "variant_contig" / "zarr.json").write_text("{")
    if not checked:
        (tmp_path / "r.zarr" / "_SUCCESS").unlink()
    found = dasklmm.open_results(tmp_path / "r.zarr", allow_incomplete=True)
    assert found.attrs["incomplete"]["gone"] == [*([] if checked else ["_SUCCESS"]), "variant_contig"]
    assert "beta" in found
    with pytest.raises(errors.OptionError, match="variant_contig"):
        plots.manhattan(found)


def test_a_coordinate_of_unfinished_work_that_is_gone_is_said(cohort, tmp_path):
    store = tmp_path / "r.zarr"
    ended(cohort, store, "loco")
    (tmp_path / "r.zarr.work" / "layout" / "variant_position").unlink()
    found = dasklmm.open_results(store, allow_incomplete=True)
    assert found.attrs["incomplete"]["gone"] == ["variant_position"]
    assert "gone or damaged: variant_position" in str(dasklmm.summary(found))
    with pytest.raises(errors.OptionError, match="same command again: what is finished is kept"):
        export.positions(found)


def test_they_are_to_look_at_alone(cohort, tmp_path):
    """Plots show them; nothing that is passed on is made of them."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    store = tmp_path / "r.zarr"
    ended(cohort, store, "loco")
    found = dasklmm.open_results(store, allow_incomplete=True)
    assert plots.manhattan(found).get_title("left") == "height (incomplete)"
    assert plots.qq(found).lines
    assert str(dasklmm.summary(found)).startswith("incomplete results")
    for write in (
        lambda: export.write_tsv(found, tmp_path / "t"),
        lambda: formats_out.write_format(found, "gemma", tmp_path),
        lambda: outputs.write_outputs(found, tmp_path / "out"),
        lambda: report.write_report(found, tmp_path / "r.html"),
        lambda: dasklmm.clump(found),
        lambda: results.write_results(found, tmp_path / "w.zarr", {}),
    ):
        with pytest.raises((errors.OptionError, errors.StoreError), match="are incomplete"):
            write()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.zarr.work"]
