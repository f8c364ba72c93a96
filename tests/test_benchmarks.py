"""The benchmarks' own machinery: tables, fits and arithmetic, at sizes of no meaning; no time is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def test_stages_on_a_cluster_of_processes(tmp_path):
    kept = tmp_path / "table.json"
    options = [
        "--samples",
        "60",
        "--variants",
        "512",
        "--rounds",
        "1",
        "--workers",
        "1",
        "--precision",
        "float32",
    ]
    stages = "fused,whitened,kinship,refit,scheduler"
    done = python("-m", "benchmarks", *options, "--only", stages, "--json", str(kept))
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(kept.read_text())
    assert {"processor", "cores", "blas", "versions", "load_before"} <= set(found["machine"])
    assert found["sizes"]["samples"] == 60
    names = [row["stage"].strip() for row in found["rows"]]
    assert names == [
        "rotate + test",
        "rotate + test, whitened",
        "kinship",
        "refit",
        "rotate + refit",
        "scheduler share",
        "at 1e6 variants",
    ]
    for row in found["rows"]:
        assert {"limit", "dasklmm", "ratio", "target", "met", "unit", "precision", "workers"} <= set(row)
        assert row["limit"]["min"] <= row["limit"]["median"] <= row["limit"]["max"]
        assert len(row["limit"]["runs"]) >= 1
    assert all(row["limit"]["min"] > 0 for row in found["rows"][:5])
    refit = found["rows"].pop(3)  # a difference, which noise can make negative
    assert len(refit["added_runs"]) == 1
    assert (refit["ratio"] is None) == ("not measurable" in refit["note"]) == (refit["added_runs"][0] <= 0)
    assert all(row["dasklmm"]["min"] > 0 for row in found["rows"][:4])
    assert found["rows"][-1]["seconds_a_task"] >= 0
    # a line of the table for each row, after the header
    lines = done.stdout.splitlines()
    header = next(i for i, text in enumerate(lines) if text.startswith("stage"))
    assert [text.split("|")[0].split()[0] for text in lines[header + 1 : header + 8]] == [
        name.split()[0] for name in names
    ]


@pytest.mark.parametrize("command", ["table", "memory", "refit", "phenotypes", "estimate"])
def test_help_says_how_a_command_is_called(command):
    done = python("-m", "benchmarks", command, "--help")
    assert done.returncode == 0, done.stderr
    called = "python -m benchmarks" + ("" if command == "table" else f" {command}")
    assert done.stdout.startswith(f"usage: {called} [")
    assert "\n\n" in done.stdout


def test_rows_know_whether_they_meet_their_target():
    from benchmarks.measure import Spread
    from benchmarks.table import Row, line

    limit, program = Spread.of([1.0, 3.0, 2.0]), Spread.of([2.0, 2.5, 9.0])
    share = Row("a", "float32", 2, limit, program, "s", 0.5)
    assert share.ratio == 0.5
    assert share.met
    assert "1.000 (2.000-3.000) s" in line(share)
    times = Row("b", "", None, limit, program, "s", 1.5, at_least=False)
    assert times.ratio == 2.0
    assert not times.met
    assert "*" in line(times)


def test_what_is_not_measurable_is_said_and_is_null_in_the_json(monkeypatch, tmp_path):
    """A refit whose runs took less than those of the null."""
    from types import SimpleNamespace

    from benchmarks import table
    from benchmarks.measure import Spread, write_json

    runs = {"limit": [1.0], "rotation": [1.0], "null": [3.0, 2.0], "per variant": [2.5, 1.9]}
    monkeypatch.setattr(table, "alternate", lambda *_: {k: Spread.of(v) for k, v in runs.items()})
    bench = table.Bench(SimpleNamespace(refit_nodes=lambda: 8), table.DEFAULT, 1, None)
    row, _ = table.refit(bench, "float32")
    assert "not measurable" in table.line(row)
    assert "*" not in table.line(row)
    assert row.as_json()["added_runs"] == pytest.approx([-0.5, -0.1])
    write_json(tmp_path / "a.json", {"rows": [row.as_json()]})
    assert json.loads((tmp_path / "a.json").read_text())["rows"][0]["ratio"] is None


def test_removing_files_is_timed_neither_in_the_limit_nor_in_the_program(monkeypatch, tmp_path):
    from types import SimpleNamespace

    from benchmarks import table

    inside, removed = [], []

    def seconds(step):
        inside.append(True)
        step()
        inside.pop()
        return 1.0

    monkeypatch.setattr(table, "seconds", seconds)
    monkeypatch.setattr(table, "_remove", lambda path: removed.append(bool(inside)))
    monkeypatch.setattr(table.limits, "gemm", lambda *_: None)
    monkeypatch.setattr(table.dasklmm, "linear_mixed_regression_rows", lambda *_, **__: None)
    work = SimpleNamespace(
        fresh=lambda: tmp_path / str(len(removed)), open=lambda: None, model=lambda _: None
    )
    sizes = table.Sizes(4, 8, (8, 4), (4, 8), 1)
    (row,) = table.rotate(table.Bench(work, sizes, 1, None), "float32")
    assert removed == [False, False]
    assert row.limit.runs == row.dasklmm.runs == (1.0,)


def test_steps_alternate_and_may_count_their_own_seconds():
    from benchmarks.measure import alternate

    order: list[str] = []
    runs = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b") or 7.0}, 2)
    assert order == ["a", "b", "a", "b"]
    assert runs["b"].runs == (7.0, 7.0)
    assert runs["a"].most < 7.0


def test_limits_do_the_work_that_they_stand_for(tmp_path, monkeypatch):
    from benchmarks import limits

    seen: list[int] = []
    limits.side_by_side(seen.append, 3)
    assert sorted(seen) == [0, 1, 2]
    for workers in (1, 2, 3):
        tiles = [limits._tiles(2500, 1024, which, workers) for which in range(workers)]
        assert sum(map(sum, tiles)) == 2500
    limits.write(tmp_path, [10, 20, 30], 2)

    done: list[int] = []

    class Counted:
        """NumPy whose products count the multiplications that they stand for."""

        def __getattr__(self, name):
            return getattr(np, name)

        def matmul(self, a, b, out):
            done.append(a.shape[0] * a.shape[1] * b.shape[1])
            return np.matmul(a, b, out=out)

    monkeypatch.setattr(limits, "np", Counted())
    for workers in (1, 2):
        done.clear()
        limits.gemm(2500, 7, 5, "float32", workers)
        assert sum(done) == 2500 * 7 * 5
        done.clear()
        limits.syrk(2500, 7, "float32", workers)
        assert sum(done) == 2500 * 7 * 7
    assert [(tmp_path / str(i)).stat().st_size for i in range(3)] == [10, 20, 30]


def test_chunk_files_of_a_stored_rotation_are_what_the_limit_reads(tmp_path):
    from benchmarks import limits
    from benchmarks.work import Work

    work = Work(tmp_path, 40, 64, (300, 40))
    path = work.stored_rotation("float32")
    chunks = [p for p in path.rglob("*") if p.is_file() and p.name != "zarr.json"]
    null = work.rotation_model().alternative_test()
    limits.read_and_sum(chunks, (300, 40), "float32", null)
    with pytest.raises(EOFError):
        limits.read_and_sum(chunks, (400, 40), "float32", null)
    table = work.rotation_model().fit_alternatives(path).compute()
    assert np.isfinite(table["neg_log10_p_value"]).all()


def test_exponents_of_a_made_up_series():
    from benchmarks.scaling import STAGES, Series, add, exponent

    sizes = [1000, 2000, 4000]
    assert exponent(sizes, [1e-9 * s**3 for s in sizes]) == pytest.approx(3)
    assert np.isnan(exponent([5], [1.0]))
    series = Series("samples", "16 variants")
    for size in sizes:  # a stage that costs 4 s once, and then s per thousand
        add(series, size, dict.fromkeys(STAGES, 4.0 + size / 1000), lambda text: None)
    everywhere, largest = series.exponents()["test"]
    assert largest == pytest.approx(np.log2(8 / 6))
    assert 0 < everywhere < largest < 1
    assert series.as_json()["exponents"]["whole"] == {"all": everywhere, "largest": largest}


def test_every_point_of_a_scaling_is_measured(monkeypatch):
    from contextlib import nullcontext

    from benchmarks import scaling

    monkeypatch.setattr(scaling, "cluster_of", nullcontext)  # threads: the table's test has the cluster
    sizes = scaling.Sizes((64, 128), (20, 30), (1, 2), (1, 2), 20, 64, (20, 128), 1)
    said: list[str] = []
    series = {one.name: one for one in scaling.measured(sizes, said.append)}
    assert {name: one.sizes for name, one in series.items()} == {
        "variants": [64, 128],
        "samples": [20, 30],
        "phenotypes": [1, 2],
        "workers": [1, 2],
    }
    assert len(said) == 8
    assert all(len(t) == 2 and min(t) > 0 for one in series.values() for t in one.seconds.values())


def test_figure_of_a_made_up_series(tmp_path):
    from benchmarks.scaling import STAGES, Series, add, draw, short

    assert [short(v) for v in (1, 8000, 15_000, 150_000, 1_000_000)] == ["1", "8,000", "15k", "150k", "1M"]
    series = []
    for name, sizes in (("samples", [500, 1000]), ("workers", [1, 2])):
        one = Series(name, "so many")
        for size in sizes:
            add(one, size, dict.fromkeys(STAGES, float(size)), lambda text: None)
        series.append(one)
    draw(series, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def made_up_table() -> dict:
    common = {"precision": "float64", "workers": 2, "samples": 1000, "variants": 10_000}
    rows = [
        {**common, "stage": "rotate + test", "dasklmm": {"min": 1.0}},
        {**common, "stage": "rotate + test", "workers": 1, "dasklmm": {"min": 99.0}},
        {**common, "stage": "rotate + test", "precision": "float32", "dasklmm": {"min": 0.5}},
        {**common, "stage": "kinship", "dasklmm": {"min": 0.25}},
        {
            **common,
            "stage": "test on stored PA",
            "precision": "float32",
            "bytes": 4e9,
            "dasklmm": {"min": 2.0},
        },
        {**common, "stage": "eigendecomposition", "dasklmm": {"min": 0.1}},
        {**common, "stage": "  at 1e6 variants", "precision": "float32", "seconds_a_task": 0.002},
    ]
    return {"rows": rows}


def test_estimate_is_arithmetic_on_measured_rates():
    from benchmarks.estimate import PASSES, Rates, breaks_first, estimate

    rates = Rates.of(made_up_table())
    assert rates == Rates(2e10, 1e10, 2e10, 1e9, 1e-10, 0.002)  # of one core: two workers did the work
    n, m, rank = 20_000, 1_000_000, 1000
    stages = {s.name.strip(): s for s in estimate(rates, n, m, rank, 10, 16e9, 64e9, 1e9)}
    read = n * m / 5 / 1e10
    assert stages["rotate + test"].seconds == pytest.approx(2 * rank * n * m / 1e11 + read)
    assert stages["leading pairs"].seconds == pytest.approx(PASSES * (4 * n * m * (rank + 10) / 2e11 + read))
    assert stages["kinship, exact"].seconds == pytest.approx(n * n * m / 2e11 + read)
    assert stages["eigh, exact"].seconds == pytest.approx(1e-10 * n**3)
    assert stages["reading P"].seconds == pytest.approx(10 * 8 * rank * n / 1e10)  # once a worker
    assert stages["its basis"].memory == 16 * n * 8 * (rank + 10)
    assert breaks_first(list(stages.values())).name == "leading pairs"
    small = estimate(rates, n, m, rank, 10, 7e8, 64e9, 1e9)
    streamed = {s.name.strip(): s for s in small}
    assert streamed["reading P"].seconds > 10 * stages["reading P"].seconds  # by every task
    tight = estimate(rates, n, m, rank, 10, 16e9, 1e9, 1e9)
    assert breaks_first(tight).name.strip() == "its basis"
    assert not breaks_first(tight).fits


def test_share_of_the_scheduler_at_a_million_variants():
    from benchmarks.table import projected_share

    # 1,024 samples: 16,384 variants a task of 64 MB, 62 tasks
    assert projected_share(0.1, 0.01, 1e-5, 1024) == pytest.approx(0.72 / 10.72)


def test_peers_that_are_not_there_are_named(monkeypatch, capsys, tmp_path):
    from benchmarks import peers

    for peer in peers.INSTALL:
        monkeypatch.delenv(f"DASKLMM_{peer.upper()}", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert all(peers.find(peer) is None for peer in peers.INSTALL)
    monkeypatch.setenv("DASKLMM_JAMMA", sys.executable)
    assert peers.find("jamma") == sys.executable
    monkeypatch.delenv("DASKLMM_JAMMA")
    monkeypatch.setenv("DASKLMM_DATA", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["peers", "--only", "mouse"])
    peers.main()
    said = capsys.readouterr().out
    assert all(f"{peer} is not there" in said for peer in peers.INSTALL)
    assert "mouse is left out" in said


def test_tests_alone_of_rotated_variants(tmp_path):
    import dasklmm
    from benchmarks import rotated

    took, log_p = rotated.ours(rotated.prepare(tmp_path, 300, 40), rounds=1)
    assert took.keys() == {"float32", "float64", "limit float32", "limit float64"}
    assert all(0 < seconds < 60 for seconds in took.values())
    data = np.load(tmp_path / "data.npz")
    pa = np.fromfile(tmp_path / "data.bin").reshape(300, 40)
    model = dasklmm.LinearMixedModel(data["py"], data["px"], data["s"]).fit(
        log_gamma=float(data["log_gamma"])
    )
    want = model.fit_alternatives_numpy(pa.T)["neg_log10_p_value"]
    np.testing.assert_allclose(log_p, want, rtol=1e-10)
    given = {"float32": 3e-4, "limit float32": 1.5e-4, "float64": 6e-4, "limit float64": 3e-4}
    told = rotated.line((300, 40), given, 3e-2, 1e-9)
    assert (
        "dasklmm 1.00 in float32 (limit 0.50), 2.00 in float64 (limit 1.00); hail 100.0 (100.0 times" in told
    )
    assert "hail" not in rotated.line((300, 40), took, None, None)


def test_a_peers_p_values_are_joined_by_id(tmp_path):
    from benchmarks import peers

    (tmp_path / "a.tsv").write_text("rs\tp_wald\nv1\t0.01\nv2\tNA\nv3\t0.1\n")
    theirs = peers._table(tmp_path / "a.tsv", "rs", "p_wald")
    ours = pd.Series([2.5, 7.0, 1.0], ["v1", "v2", "v3"])
    assert peers.gap(ours, theirs) == (pytest.approx(0.5), 2)
    nothing, shared = peers.gap(ours, pd.Series([1.0], ["other"]))
    assert np.isnan(nothing)
    assert shared == 0
    (tmp_path / "log").write_text("## time on optimization = 0.5 min\n")
    assert peers._of_log(tmp_path / "log", r"optimization = ([\d.]+) min", 60.0) == 30.0
    assert peers._of_log(tmp_path / "none", "x", 1.0) is None


def test_a_part_alone_is_told_beside_the_peers(tmp_path):
    import dasklmm
    from benchmarks import peers

    ds = dasklmm.simulate(60, 200, n_contigs=2, seed=1)
    peers.write_plink(tmp_path, ds, ds["phenotype"].values)
    assert 0 < peers.refit_alone(tmp_path) < 60
    rows = [
        {"program": name, "alone_us": us}
        for name, us in {"dasklmm": 10.0, "gemma": 1170.0, "x": None}.items()
    ]
    assert peers.part_alone("refit", rows) == (
        "  the refit alone, microseconds a variant: dasklmm 10.0; gemma 1,170.0 (117.0 times)"
    )
    assert not peers.part_alone("refit", rows[1:])


def test_a_peer_that_fails_does_not_end_the_rest(tmp_path):
    from benchmarks import peers

    def log_p(folder: Path) -> pd.Series:
        return pd.Series([1.0], ["v"])

    good = (sys.executable, "-c", "pass")
    bad = (sys.executable, "-c", "open('tried', 'a').write('x'); raise SystemExit('no such thing')")
    contest = peers.Contest(
        "x", (peers.Program("dasklmm", (good,), log_p), peers.Program("gemma", (bad,), log_p)), ("gemma",)
    )
    said: list[str] = []
    rows = peers.measured("mouse", contest, tmp_path, 2, said.append)
    assert [row["program"] for row in rows] == ["dasklmm"]
    assert "no such thing" in said[0]
    assert (tmp_path / "tried").read_text() == "x"  # not again in the second round


def test_every_program_has_all_cores(tmp_path, monkeypatch):
    """Settings of threads that this process may have do not reach it."""
    from benchmarks import peers

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    code = "import os; print([k for k in os.environ if k.endswith('_NUM_THREADS')], file=open('seen', 'w'))"
    peers.run(tmp_path, peers.Program("x", ((sys.executable, "-c", code),), lambda _: pd.Series()))
    assert (tmp_path / "seen").read_text().strip() == "[]"
    assert 'master="local[*]"' in (ROOT / "benchmarks" / "hail_run.py").read_text()


def test_a_program_that_does_more_is_said_to(tmp_path):
    from benchmarks import peers

    contests = {c.label: c for c in peers.contests("mouse", {"jamma": "jamma", "fastlmm": "python"})}
    assert set(contests["LOCO, Wald"].more) == {"jamma"}
    assert not any(c.more for label, c in contests.items() if label != "LOCO, Wald")
    done = (sys.executable, "-c", "pass")
    programs = tuple(
        peers.Program(n, (done,), lambda _: pd.Series([1.0], ["v"])) for n in ("dasklmm", "jamma")
    )
    contest = peers.Contest("x", programs, (), {"jamma": "does more"})
    rows = peers.measured("mouse", contest, tmp_path, 1, print)
    assert [row["more_work"] for row in rows] == [None, "does more"]
    assert peers.line(rows[1]).endswith("does more")


def test_commands():
    assert "peers" in python("-m", "benchmarks", "--help").stdout
    unknown = python("-m", "benchmarks", "nothing")
    assert unknown.returncode != 0
    assert "there is no benchmark 'nothing'" in unknown.stderr
