"""A real cohort, killed at random moments: `dasklmm gwas` on the mouse data (WTCCC heterogeneous stock)."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys

import pytest
from fault_tools import contents, end, environment, records_of, wait_until


def command(mouse_prefix, out):
    arguments = ["gwas", f"{mouse_prefix}.bed", "--out", out, "--workers", 2, "--quiet"]
    return [sys.executable, "-m", "dasklmm.cli", *map(str, arguments)]


def to_the_end(mouse_prefix, out):
    done = subprocess.run(
        command(mouse_prefix, out),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_command_killed_three_times(mouse_prefix, tmp_path):
    """The command killed three times, at moments drawn at random, then run to the end: the same bytes."""
    to_the_end(mouse_prefix, tmp_path / "whole")
    wanted = contents(tmp_path / "whole" / "results.zarr")

    out = tmp_path / "killed"
    store = out / "results.zarr"
    draw = random.Random()
    seed = draw.randrange(10**6)
    draw.seed(seed)
    print("seed", seed)  # shown where the test fails
    # 19 Gram matrices, and of each contig at least one block of tests, P and a table
    for moment in sorted(draw.sample(range(1, 60), 3)):
        process = subprocess.Popen(
            command(mouse_prefix, out),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(
            lambda m=moment, p=process: len(records_of(store)) >= m or p.poll() is not None, seconds=120
        )
        assert process.poll() is None
        end(process)
        assert process.returncode == -signal.SIGKILL
        assert not store.exists()
    kept = len(records_of(store, "gram/0"))
    to_the_end(mouse_prefix, out)
    assert contents(store) == wanted
    resumed = json.loads((out / "run.json").read_text())["resumed"]
    assert resumed["kinship"] == {"kept": kept, "computed": 19 - kept}
