"""A command's own process keeps its heap, as workers do by their environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dasklmm import heap

FAULTS = """
import resource, sys
import numpy as np
from dasklmm.heap import keep_heap
if sys.argv[1] == "kept":
    keep_heap()
def work(times):
    for _ in range(times):
        arrays = [np.ones(2**17) for _ in range(8)]
        del arrays
work(3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work(20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 20 * 8 * 2**20 // 4096


def faults(kept, environment):
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, kept], capture_output=True, text=True, check=True, env=environment
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's heap")
def test_arrays_are_not_faulted_in_anew(monkeypatch):
    for name in heap.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    assert faults("kept", dict(os.environ)) < PAGES / 10
    assert faults("as it is", dict(os.environ)) > PAGES / 4
    chosen = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # is left alone
    assert faults("kept", chosen) > PAGES / 4
    assert faults("as it is", {**os.environ, **heap.ENVIRONMENT}) < PAGES / 10


CYCLE = """
import sys
from dasklmm.heap import end_at_once
class Cycle:
    def __init__(self):
        self.itself = self
    def __del__(self):
        print("collected")
Cycle()
for _ in range(int(sys.argv[1])):
    end_at_once()
"""


def test_exit_does_not_look_for_cycles():
    def printed(times):
        command = [sys.executable, "-c", CYCLE, times]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert (printed("0"), printed("1"), printed("2")) == ("collected\n", "", "")
