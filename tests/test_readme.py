"""The README's Python runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.M | re.S)


def test_there_are_examples():
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize("index", range(2))
def test_example_runs(index, tmp_path):
    path = tmp_path / "example.py"
    path.write_text(EXAMPLES[index])
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    if index == 0:
        assert "beta" in done.stdout
