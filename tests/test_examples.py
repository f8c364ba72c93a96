"""The examples run, and show what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_power_study(tmp_path, capsys):
    """Least squares is inflated; the mixed model is not, and finds the most at the same type I error."""
    pytest.importorskip("matplotlib")
    table = load("power_study").main(
        ["--out", str(tmp_path), "--samples", "600", "--variants", "3000", "--phenotypes", "60"]
    )
    assert (tmp_path / "power_study.png").stat().st_size > 10_000
    kept = pd.read_csv(tmp_path / "power_study.tsv", sep="\t", index_col=0)
    pd.testing.assert_frame_equal(kept, table, atol=1e-4)
    assert "LMM-LOCO" in capsys.readouterr().out
    inflation, power = table["lambda"], table["power"]
    assert inflation["OLS"] > inflation["OLS + PCs"] > 1.15
    assert 0.9 < inflation["LMM-LOCO"] < 1.1
    assert power["LMM-LOCO"] > power["OLS + PCs"] > power["OLS"]
