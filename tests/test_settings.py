"""Settings from a YAML file, environment variables and dask.config.set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dask
import pytest

import dasklmm
from dasklmm import settings
from dasklmm.errors import OptionError
from dasklmm.lazy import budget
from dasklmm.lazy.budget import Room


def test_defaults():
    assert settings.DEFAULTS["dasklmm"].keys() == {
        "block-size",
        "usable-memory",
        "live-page",
        "worker-timeout",
        "progress",
    }
    assert (settings.block_size(), settings.usable_memory()) == (64 * 1024**2, 0.8)
    assert settings.live_page()
    assert not settings.progress()


def test_each_is_documented():
    page = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text()
    for key, value in settings.DEFAULTS["dasklmm"].items():
        assert f"| `dasklmm.{key}` | `{str(value).lower() if isinstance(value, bool) else value}` |" in page


def test_block_size():
    assert budget.rows_per_task(400, 1, 10**6) > 10_000
    with dask.config.set({"dasklmm.block-size": "100kB"}):
        assert budget.rows_per_task(400, 1, 10**6) == 250


def test_usable_memory():
    with dask.config.set({"dasklmm.usable-memory": 0.5}):
        assert Room(2 * 10**9, 1).free == 10**9 - budget.BASE_BYTES


def test_progress(capsys):
    cohort = dasklmm.simulate(60, 100, n_contigs=2, seed=1)
    with dask.config.set({"dasklmm.progress": True}):
        dasklmm.gwas(cohort, cohort["phenotype"].rename("t"))
        assert "null model: 2 done" in capsys.readouterr().err
        dasklmm.gwas(cohort, cohort["phenotype"].rename("t"), progress=False)
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("block-size", "many", settings.block_size),
        ("block-size", "12", settings.block_size),
        ("block-size", None, settings.block_size),
        ("block-size", float("inf"), settings.block_size),
        ("usable-memory", 1.2, settings.usable_memory),
        ("usable-memory", True, settings.usable_memory),
        ("live-page", "perhaps", settings.live_page),
        ("progress", 1, settings.progress),
        ("worker-timeout", "soon", settings.worker_timeout),
        ("worker-timeout", 0, settings.worker_timeout),
        ("worker-timeout", "1e400", settings.worker_timeout),
        ("worker-timeout", True, settings.worker_timeout),
    ],
)
def test_a_bad_value_is_refused(key, value, read):
    with (
        dask.config.set({f"dasklmm.{key}": value}),
        pytest.raises(OptionError, match=rf"dasklmm\.{key} is .*is needed.*DASK_DASKLMM__"),
    ):
        read()


@pytest.mark.parametrize("given", [{"blok-size": "1MB"}, {"progress": True, "blok_size": "1MB"}, "blok-size"])
def test_a_name_that_is_none_is_refused(given):
    with dask.config.set({"dasklmm": given}), pytest.raises(OptionError) as raised:
        settings.check()
    assert "no setting dasklmm.blok" in str(raised.value)
    assert "block-size, " in str(raised.value)
    assert "DASK_DASKLMM__BLOK_SIZE" in str(raised.value)


def test_names_of_variables_are_known():
    """Dask keeps their underscores where it knows no such key yet."""
    with dask.config.set({"dasklmm": {"block_size": "1MB"}}):
        settings.check()


def test_a_whole_section_may_be_set():
    with dask.config.set({"dasklmm": {"progress": True}}):
        assert settings.progress()
        assert settings.block_size() == 64 * 1024**2


@pytest.mark.parametrize("name", ["LIVE_PAGE", "USABLE_MEMORY"])
def test_a_bad_value_is_refused_before_a_cluster_starts(name, tmp_path):
    dasklmm.simulate(30, 40, n_contigs=2, seed=1).to_netcdf(tmp_path / "g.nc", engine="h5netcdf")
    done = subprocess.run(
        [
            sys.executable, "-m", "dasklmm.cli", "kinship", str(tmp_path / "g.nc"),
            "--out", str(tmp_path / "k"), "--workers", "1",
        ],
        env={**os.environ, f"DASK_DASKLMM__{name}": "some"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    key = name.lower().replace("_", "-")
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: the setting dasklmm.{key} is 'some'")  # and no word of workers


def test_file_and_variable(tmp_path):
    """As Dask reads them when it starts: a variable wins over a file."""
    (tmp_path / "dasklmm.yaml").write_text("dasklmm:\n  block-size: 1MB\n  usable-memory: 0.7\n")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from dasklmm import settings as s; print(s.block_size(), s.usable_memory(), s.live_page())",
        ],
        env={
            **os.environ,
            "DASK_CONFIG": str(tmp_path),
            "DASK_DASKLMM__USABLE_MEMORY": "0.6",
            "DASK_DASKLMM__LIVE_PAGE": "False",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["1000000", "0.6", "False"]
