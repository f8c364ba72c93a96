from __future__ import annotations

import sys
from pathlib import Path

import pytest

# importable by name in this process, and in the workers that it starts
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fault_tools import Cohort, contents

import dasklmm


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """150 samples, 1,200 variants on three contigs: 21 blocks."""
    return Cohort.make(tmp_path_factory.mktemp("cohort"), 150, 1200, 3)


@pytest.fixture(scope="session")
def large(tmp_path_factory):
    """1,200 samples: their eigendecomposition lasts long enough to be hit."""
    return Cohort.make(tmp_path_factory.mktemp("large"), 1200, 300, 2)


def _uninterrupted(cohort, folder):
    cohort.scan(folder / "r.zarr")
    return contents(folder / "r.zarr")


@pytest.fixture(scope="session")
def wanted(cohort, tmp_path_factory):
    """Every file of an uninterrupted run's results."""
    return _uninterrupted(cohort, tmp_path_factory.mktemp("wanted"))


@pytest.fixture(scope="session")
def wanted_large(large, tmp_path_factory):
    return _uninterrupted(large, tmp_path_factory.mktemp("wanted_large"))


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes, whose nannies start a killed one anew."""
    with dasklmm.local_cluster(n_workers=2, memory_limit="1GB") as cluster, cluster.get_client():
        yield cluster
