"""The live page on a cluster's own server, in a browser; its thinning, reprs and progress."""

from __future__ import annotations

import subprocess
import sys
from html import escape

import chromium
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster

import dasklmm
from dasklmm import live
from dasklmm.numerics import html
from dasklmm.numerics.tails import lambda_gc
from dasklmm.numerics.thinning import CELLS, Thinned
from dasklmm.progress import Notebook, Stages, duration

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture
def client():
    with (
        LocalCluster(
            n_workers=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def cohort():
    return dasklmm.simulate(80, 1500, n_contigs=3, n_causal=1, causal_variance=0.5, h_sq=0.2, seed=1)


def shown(client):
    """What the scheduler holds for the page."""

    def read(dask_scheduler):
        page = dask_scheduler.extensions["dasklmm"]
        return {k: getattr(page, k) for k in ("state", "stages", "points", "phenotypes", "contigs", "left")}

    return client.run_on_scheduler(read)


def test_thinning_keeps_every_peak_and_never_more_points_than_cells():
    rng = np.random.default_rng(0)
    y = -np.log10(rng.random(200_000))
    y[::1000] += 10 * rng.random(200)
    y[5] = np.nan
    x = np.sort(rng.random(y.size)).astype(np.float32)
    thinned = Thinned()
    for part in np.array_split(rng.permutation(y.size), 7):
        thinned.add(part, x[part], y[part])
    kept = np.isfinite(thinned.y)
    assert thinned.y.size == CELLS == 20_000
    assert thinned.n == y.size - 1
    np.testing.assert_array_equal(thinned.y[kept], y[thinned.row[kept]].astype(np.float32))
    bins = np.minimum((x * 1250).astype(int), 1249)
    of_kept = bins[thinned.row[kept]]
    for b in range(0, 1250, 50):
        assert thinned.y[kept][of_kept == b].max() == np.nanmax(y[bins == b]).astype(np.float32)
    assert thinned.lambda_gc == pytest.approx(lambda_gc(y), abs=1e-3)
    assert np.array_equal(np.sort(thinned.take_changed()), np.flatnonzero(kept))
    assert thinned.take_changed().size == 0


def test_inflation_without_tests_is_not_known():
    thinned = Thinned()
    thinned.add(np.arange(3), np.zeros(3), np.full(3, np.nan))
    assert thinned.n == 0
    assert np.isnan(thinned.lambda_gc)


@pytest.mark.skipif(chromium.FOUND is None, reason="needs chromium")
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_in_a_browser(client, cohort, tmp_path, dark):
    results = dasklmm.gwas(cohort, cohort["phenotype"].rename(EVIL))
    seen = chromium.visit(live.page_url(client), tmp_path, "Complete", dark)
    assert seen["errors"] == []
    assert seen["title"] == "dasklmm: scan"
    assert EVIL in seen["text"]
    assert f"{results.attrs['lambda_gc']:.2f}" in seen["text"]
    assert "variants tested 1,500" in seen["text"]
    assert "Kinship 3 of 3" in seen["text"]
    top = results.isel(variant=int(results["neg_log10_p_value"].values.argmax()))
    assert str(top["variant_id"].values) in seen["text"]
    assert "Leading pairs" not in seen["text"]
    pixels = decoded(seen["png"])
    background = pixels[5, 5]
    assert (background < 60).all() if dark else (background > 200).all()
    hit = np.array([255, 140, 66] if dark else [213, 94, 0])
    assert (np.abs(pixels.astype(int) - hit).max(axis=-1) < 12).any(), "no hit is drawn"


@pytest.mark.skipif(chromium.FOUND is None, reason="needs chromium")
def test_the_phenotypes_can_be_read_in_the_dark_and_the_contigs_on_a_narrow_page(client, tmp_path):
    """By pixels: the control is dark, and no ink of the contigs' names spans two of them."""
    import pandas as pd

    cohort = dasklmm.simulate(40, 440, n_contigs=22, seed=1)
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.standard_normal((40, 2)), index=cohort["sample_id"].values, columns=["a", "b"])
    dasklmm.gwas(cohort, table)
    seen = chromium.visit(live.page_url(client), tmp_path, "Complete", dark=True, size=(480, 900))
    pixels = decoded(seen["png"]).astype(int)
    assert (pixels[150:185, 30:240].max(axis=2) > 240).mean() < 0.02, "the control is light"
    axis = pixels[757:777, 95:440].min(axis=2) > 120  # the row of the names, light on dark
    columns = np.flatnonzero(axis.any(axis=0))
    names = np.split(columns, np.flatnonzero(np.diff(columns) > 4) + 1)  # the digits of a name are nearer
    assert len(names) >= 6
    assert max(name[-1] - name[0] for name in names) < 18, "names run into one another"


def decoded(png):
    import io

    from matplotlib.image import imread

    return (imread(io.BytesIO(png))[..., :3] * 255).astype(np.uint8)


def test_scheduler_holds_what_was_found(client, cohort):
    results = dasklmm.gwas(cohort, cohort["phenotype"].rename("trait"))
    page = shown(client)
    y = results["neg_log10_p_value"].values
    points = page["points"]["trait"]
    assert page["state"] == "complete"
    assert [name for name, _ in page["contigs"]] == ["1", "2", "3"]
    assert points["tested"] == np.isfinite(y).sum()
    assert points["lambda_gc"] == pytest.approx(results.attrs["lambda_gc"], abs=0.01)
    assert np.nanmax(points["y"]) == np.nanmax(y).astype(np.float32)
    best = np.nanargmax(points["y"])
    assert points["position"][best] == results["variant_position"].values[np.nanargmax(y)]
    assert {k: done == total for k, (done, total) in page["stages"].items()} == {
        "kinship": True,
        "null model": True,
        "test": True,
    }


def test_a_run_taken_up_shows_the_points_of_kept_blocks(client, cohort, tmp_path):
    def stop(stage, done, total):
        if stage == "test" and done == 2:
            raise RuntimeError("stopped")

    y = cohort["phenotype"].rename("trait")
    ds = cohort.chunk(variant=250)
    with pytest.raises(RuntimeError, match="stopped"):
        dasklmm.gwas(ds, y, store=tmp_path / "r.zarr", progress=stop)
    assert shown(client)["state"] == "stopped"
    results = dasklmm.gwas(ds, y, store=tmp_path / "r.zarr")
    assert results.attrs["resumed"]["test"]["kept"] > 0
    tested = np.isfinite(results["neg_log10_p_value"].values).sum()
    assert shown(client)["points"]["trait"]["tested"] == tested


def test_of_many_phenotypes_the_first_are_shown(client, cohort):
    import pandas as pd

    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        rng.standard_normal((80, 6)), index=cohort["sample_id"].values, columns=[f"t{i}" for i in range(6)]
    )
    results = dasklmm.gwas(cohort, table)
    page = shown(client)
    assert page["phenotypes"] == list(table.columns)
    assert list(page["points"]) == ["t0", "t1", "t2", "t3"]
    for k, name in enumerate(page["points"]):
        y = results["neg_log10_p_value"].values[:, k]
        assert np.nanmax(page["points"][name]["y"]) == np.nanmax(y).astype(np.float32)


def test_page_is_linked_from_the_dashboard_and_made_once(client):
    url = live.page_url(client)
    assert live.page_url(client) == url

    def pages(dask_scheduler):
        from distributed.dashboard.scheduler import template_variables

        applications = dask_scheduler.http_application.applications
        paths = [path for a in applications for path in getattr(a, "app_paths", [])]
        return template_variables(dask_scheduler)["pages"].count("dasklmm"), paths.count("/dasklmm")

    assert client.run_on_scheduler(pages) == (1, 1)


def test_task_names_read_as_the_stages(client, cohort, tmp_path):
    dasklmm.gwas(cohort, cohort["phenotype"], store=tmp_path / "r.zarr")
    names = client.run_on_scheduler(lambda dask_scheduler: set(dask_scheduler.task_prefixes))
    assert {"kinship", "rotate", "test"} <= names
    assert not {name for name in names if name.startswith(("_", "scan", "kinship-"))}


def test_only_stages_of_the_run_are_shown():
    from dasklmm.livepage import _stages

    page = live.Shown()
    page.take({"run": "a", "begin": {"phenotypes": ["t"], "shown": ["t"]}})
    assert [name in _stages(page) for name in ("Kinship", "Leading pairs", "Test")] == [False, False, True]
    page.take({"run": "a", "stages": {"leading pairs": (1, 7)}, "left": {}})
    assert "1 of 7" in _stages(page)
    assert "Kinship" not in _stages(page)


def test_names_on_the_page_are_text():
    """Each place that takes a name of the data: what is strongest, and the heading."""
    from dasklmm.livepage import _heading, _tiles

    top = {"id": EVIL, "contig": EVIL, "position": 7, "y": 9.0}
    for position in (7, 0):
        tiles = _tiles({"lambda_gc": 1.0, "tested": 10, "top": {**top, "position": position}})
        assert "&lt;script&gt;" in tiles
        assert "<script" not in tiles
        assert "<img" not in tiles
    page = live.Shown()
    page.take({"run": "a", "begin": {"phenotypes": [EVIL], "shown": [EVIL]}})
    assert "<script" not in _heading(page, EVIL)


def test_a_page_closed_as_it_opens_is_not_told(client):
    """By Bokeh's own class: its assertion alone is held back, and no other error of the server."""
    import logging

    from bokeh.server.connection import ServerConnection

    assert live.page_url(client)
    closed, told = ServerConnection.__new__(ServerConnection), []
    closed._session = None

    class Kept(logging.Handler):
        def emit(self, record):
            told.append(record.getMessage())

    def failing():
        raise AssertionError

    log, kept = logging.getLogger("tornado.application"), Kept()
    before = log.level, log.disabled  # other tests of this process may have hushed it
    log.setLevel(logging.ERROR)
    log.disabled = False
    log.addHandler(kept)
    try:
        for name, what in (("closed", lambda: closed.session), ("other", failing)):
            try:
                what()
            except AssertionError:
                log.error("uncaught: %s", name, exc_info=True)
        log.error("plain")
    finally:
        log.removeHandler(kept)
        log.setLevel(before[0])
        log.disabled = before[1]
    assert told == ["uncaught: other", "plain"]


def test_configuration_turns_the_page_off(client):
    import dask

    with dask.config.set({"dasklmm.live-page": False}):
        assert live.page_url(client) is None


def test_without_bokeh_there_is_no_page_and_nothing_else_changes():
    script = """
import sys
sys.modules["bokeh"] = None
import dasklmm
from distributed import Client, LocalCluster
from dasklmm.live import page_url
ds = dasklmm.simulate(30, 60, seed=1)
options = dict(protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0")
with LocalCluster(n_workers=1, processes=False, **options) as c:
    with Client(c) as client:
        print(page_url(client), dasklmm.gwas(ds, ds["phenotype"]).sizes["variant"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "None 60"


def test_a_page_that_fails_does_not_end_the_scan(client, cohort):
    live.page_url(client)

    def break_it(dask_scheduler):
        def take(message):
            raise RuntimeError("broken page")

        dask_scheduler.extensions["dasklmm"].take = take

    client.run_on_scheduler(break_it)
    assert dasklmm.gwas(cohort, cohort["phenotype"]).sizes["variant"] == 1500


def test_estimate_is_unknown_until_measured_and_not_flattered_by_kept_work():
    now = [0.0]
    stages = Stages(lambda: now[0])

    def report(done):
        now[0] += 2.0
        stages.report("test", done, 1000)
        return stages.left("test")

    assert report(501) == "time left unknown"  # 500 were kept
    assert report(502) == report(503) == "time left unknown"
    assert report(504) == f"about {duration(2.0 * 496)} left" == "about 17 min left"
    assert report(1000) == ""


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (59, "59 s"), (59.7, "1 min"), (3600, "1 h 0 min")]
)
def test_duration(seconds, words):
    assert duration(seconds) == words


def test_notebook_progress_is_text_and_escaped_html():
    progress = Notebook(url="http://127.0.0.1/?a=<b>")
    progress("null <b>", 1, 2)
    assert "null <b>: 1 of 2, time left unknown" in repr(progress)
    assert "<b>" not in progress._repr_html_()
    assert "max='2'" in progress._repr_html_()
    progress.complete()
    assert "complete" not in repr(progress) + progress._repr_html_()


def test_progress_of_what_is_complete_already(cohort, tmp_path, monkeypatch, capsys):
    """A notebook's cell, or the terminal, is not left empty where results are only opened."""
    told = []
    monkeypatch.setattr("dasklmm.association.bars", lambda url: told.append(Notebook(url)) or told[-1])
    asked = cohort, cohort["phenotype"].rename("y")
    for _ in range(2):
        dasklmm.gwas(*asked, loco=False, store=tmp_path / "r.zarr", progress=True)
    assert repr(told[0]).startswith("kinship: ")
    assert "complete already" not in told[0]._repr_html_()
    for text in (repr(told[1]), told[1]._repr_html_()):
        assert "complete already: nothing was computed" in text
    with pytest.raises(dasklmm.errors.StoreError):
        dasklmm.gwas(*asked, store=tmp_path / "r.zarr", progress=True)
    assert repr(told[2]) == "not begun"
    monkeypatch.undo()
    capsys.readouterr()
    dasklmm.gwas(*asked, loco=False, store=tmp_path / "r.zarr", progress=True)
    assert capsys.readouterr().err == "complete already: nothing was computed\n"


def test_a_small_table_is_escaped():
    page = html.table(EVIL, {EVIL: EVIL}, EVIL)
    assert "<script" not in page
    assert page.count(escape(EVIL)) == 4  # title, name, value, note
    assert "a_<wbr>long_<wbr>name" in html.table("t", {"a_long_name": "1"})  # leaves a narrow cell room


def test_reprs_as_text_and_html(cohort):
    rng = np.random.default_rng(0)
    z = rng.standard_normal((40, 60))
    y = z @ rng.standard_normal(60) / 8 + rng.standard_normal(40)
    model, _ = dasklmm.LinearMixedModel.from_random_effects(y, np.ones((40, 1)), z)
    assert "Not fitted" in model._repr_html_()
    model.fit(log_gamma=0.0)
    assert "(given)" in model._repr_html_()
    assert f"h_sq: {model.h_sq:.4g}" in repr(model.null)
    assert f"{model.h_sq:.4g}" in model.null._repr_html_()
    results = dasklmm.gwas(cohort, cohort["phenotype"].rename(EVIL))
    found = dasklmm.summary(results)
    assert f"results of {EVIL}: 1,500 variants" in repr(found)
    assert "<script" not in found._repr_html_()
    assert f"{results.attrs['lambda_gc']:.3f}" in found._repr_html_()


def test_a_summary_says_what_was_found(cohort):
    """Heritability, significant variants, the strongest, and counts in words; of several, a line for each."""
    y = pd.DataFrame({"7 up": cohort["phenotype"].values}, index=cohort["sample_id"].values)
    one = dasklmm.gwas(cohort, y, loco=False)
    best = one.isel(variant=int(np.nanargmax(one["neg_log10_p_value"].values)))
    count = int((one["p_value"] < 5e-8).sum())
    rows = dasklmm.summary(one)._repr_html_()
    for line in (
        f"p < 5e-8: {count} variant{'s' if count != 1 else ''}", "samples with a phenotype value: 80",
        "samples with genotypes and a phenotype value: 80", "samples analysed: 80", "variants tested: 1,500",
    ):  # fmt: skip
        assert f"\n  {line}\n" in f"{dasklmm.summary(one)!r}\n"
        assert f">{line.split(': ')[1]}</td>" in rows
    assert f"\n  strongest: {best['variant_id'].item()} at " in repr(dasklmm.summary(one))
    assert "80 of 80 samples, 1,500 variants (1,500 tested)" in rows
    both = dasklmm.gwas(cohort, y.assign(flat=1.0, other=y["7 up"] ** 2), loco=False)
    found = dasklmm.summary(both)
    h_sq = one.attrs["null"][0]["h_sq"]
    line = f"7 up: 80 samples, h_sq {h_sq:.4f}, lambda_GC {one.attrs['lambda_gc']:.3f}, {count} variant"
    assert f"\n  {line}" in repr(found)
    assert ">7 up</th>" in found._repr_html_()
    assert "flat: phenotype 'flat' is constant" in repr(found)
