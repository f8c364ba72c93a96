"""Paths that are given relative to this process's folder mean the same on workers that were started elsewhere."""

from __future__ import annotations

import os

import numpy as np
import pytest
from distributed import Client, LocalCluster

import dasklmm
from dasklmm.store.genotypes import write_genotypes
from dasklmm.store.places import absolute


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A worker process in one folder, this process in another."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        ) as cluster,
        Client(cluster) as client,
    ):
        client.run(os.chdir, str(there))
        yield there


def test_every_path_of_a_scan_may_be_relative(elsewhere):
    cohort = dasklmm.simulate(40, 200, n_contigs=2, seed=1)
    write_genotypes(cohort, "cohort.zarr")
    genotypes = dasklmm.open_genotypes("cohort.zarr", chunks=50)
    k = dasklmm.kinship(genotypes, store="k.zarr")
    trait = cohort["phenotype"].rename("t")
    results = dasklmm.gwas(genotypes, trait, kinship="k.zarr", loco=False, store="results.zarr")
    kept = dasklmm.open_results("results.zarr")
    np.testing.assert_array_equal(kept["p_value"].values, results["p_value"].values)
    pairs = dasklmm.eigendecompose(k, store="p.zarr")
    x = np.ones((40, 1))
    model, _ = dasklmm.LinearMixedModel.from_kinship(trait.values, x, k.values, p_path="model.zarr")
    model.fit()
    rows = dasklmm.linear_mixed_regression_rows(genotypes, model, pa_path="pa.zarr").compute()
    again = model.fit_alternatives("pa.zarr").compute()
    np.testing.assert_array_equal(rows["p_value"], again["p_value"])
    dasklmm.project(pairs, genotypes, store="rotated.zarr").compute()
    assert list(elsewhere.iterdir()) == [], "something was written in the worker's folder"


def test_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("a/b.zarr/") == absolute(f"file://{tmp_path}/a/b.zarr") == str(tmp_path / "a" / "b.zarr")
    assert absolute("s3://bucket/b.zarr/") == "s3://bucket/b.zarr"
