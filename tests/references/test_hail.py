"""Agreement with what Hail 0.2.93 itself computed (see the README of the shared reference folder)."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import dasklmm
from dasklmm import LinearMixedModel

CASES = ["full_rank", "full_rank_log_gamma_0", "low_rank", "random_effects_full"]


@pytest.fixture
def case(request, reference):
    with np.load(reference / "hail" / "cases.npz") as file:
        prefix = f"{request.param}/"
        return {k.removeprefix(prefix): file[k] for k in file.files if k.startswith(prefix)}


def model_of(case, low_rank):
    unrotated = (case["y"], case["x"]) if low_rank else ()
    return LinearMixedModel(case["py"], case["px"], case["s"], *unrotated)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_null_and_alternatives(case, request):
    low_rank = "low_rank" in request.node.name
    model = model_of(case, low_rank)
    fixed = np.isnan(case["h_sq_standard_error"])
    model.fit(0.0 if fixed else None)
    # Hail's optimum is good to the square root of rounding in the likelihood, some 1e-7
    assert model.log_gamma == pytest.approx(float(case["log_gamma"]), abs=1e-6)
    np.testing.assert_allclose(model.h_sq, case["h_sq"], rtol=1e-6)
    np.testing.assert_allclose(model.sigma_sq, case["sigma_sq"], rtol=1e-6)
    np.testing.assert_allclose(model.tau_sq, case["tau_sq"], rtol=1e-6)
    np.testing.assert_allclose(model.h_sq_standard_error, case["h_sq_standard_error"], rtol=1e-4)
    np.testing.assert_allclose(model.h_sq_normalized_lkhd(), case["h_sq_normalized_lkhd"], rtol=1e-9)
    for g, value in zip(case["neg_log_reml_grid_x"], case["neg_log_reml_grid"], strict=True):
        assert model.compute_neg_log_reml(g) == pytest.approx(value, rel=1e-9)

    model.fit(float(case["log_gamma"]))
    np.testing.assert_allclose(model.beta, case["beta_null"], rtol=1e-9)
    np.testing.assert_allclose(model.gamma, case["gamma"], rtol=1e-9)
    got = model.fit_alternatives_numpy(case["pa"], case["a"] if low_rank else None)
    lazy = model.fit_alternatives(case["pa"].T, case["a"].T if low_rank else None, dims=("variant", "eigen"))
    assert (got["status"][:-1] == "ok").all()
    assert got["status"].iloc[-1] != "ok"  # the constant: rounding noise there, NaN here
    for name in ("beta", "sigma_sq", "chi_sq", "p_value"):
        for ours in (got[name].to_numpy(), lazy[name].values):
            for theirs in ("alt", "spark"):
                np.testing.assert_allclose(ours[:-1], case[f"{theirs}_{name}"][:-1], rtol=1e-9, err_msg=name)
            assert np.isnan(ours[-1])


@pytest.mark.parametrize("case", ["full_rank"], indirect=True)
def test_from_kinship(case):
    model, p = LinearMixedModel.from_kinship(case["y"], case["x"], case["k"])
    np.testing.assert_allclose(model.s, case["s"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.abs(np.sum(p * case["p"], axis=1)), 1.0, rtol=1e-9)
    model.fit(float(case["log_gamma"]))
    got = model.fit_alternatives_numpy(p @ case["a"])
    np.testing.assert_allclose(got["beta"][:-1], case["alt_beta"][:-1], rtol=1e-9)
    np.testing.assert_allclose(got["p_value"][:-1], case["alt_p_value"][:-1], rtol=1e-9)


@pytest.mark.parametrize("case", ["low_rank"], indirect=True)
def test_from_random_effects_low_rank(case):
    model, p = LinearMixedModel.from_random_effects(case["y"], case["x"], case["z"])
    assert model.low_rank
    assert p.shape == (40, 150)
    np.testing.assert_allclose(model.s, case["s"], rtol=1e-9)
    model.fit(float(case["log_gamma"]))
    got = model.fit_alternatives_numpy(p @ case["a"], case["a"])
    np.testing.assert_allclose(got["p_value"][:-1], case["alt_p_value"][:-1], rtol=1e-9)


@pytest.mark.parametrize("case", ["random_effects_full"], indirect=True)
def test_from_random_effects_full_rank(case):
    model, p = LinearMixedModel.from_random_effects(case["y0"], case["x0"], case["z"])
    assert not model.low_rank
    assert p.shape == (90, 90)
    np.testing.assert_allclose(model.s, case["s"], rtol=1e-9)
    model.fit(float(case["log_gamma"]))
    np.testing.assert_allclose(model.beta, case["beta_null"], rtol=1e-9)
    # its alternatives are kept rotated by Hail's own eigenvectors
    theirs = LinearMixedModel(case["py"], case["px"], case["s"]).fit(float(case["log_gamma"]))
    got = theirs.fit_alternatives_numpy(case["pa"])
    np.testing.assert_allclose(got["p_value"][:-1], case["alt_p_value"][:-1], rtol=1e-9)


@pytest.fixture(scope="module")
def mouse(mouse_prefix):
    phenotypes = dasklmm.read_table(f"{mouse_prefix}.fam").iloc[:, [0]]
    return dasklmm.open_genotypes(f"{mouse_prefix}.bed"), phenotypes


@pytest.fixture(scope="module")
def hail_mouse(reference):
    null = json.loads((reference / "hail" / "mouse_null.json").read_text())
    return null, pd.read_csv(reference / "hail" / "mouse_alternatives.csv.gz").set_index("rsid")


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("precision", ["double", "single"])
def test_mouse(mouse, hail_mouse, precision, whiten):
    genotypes, phenotypes = mouse
    null, table = hail_mouse
    results = dasklmm.gwas(genotypes, phenotypes, loco=False, test="lrt", precision=precision, whiten=whiten)
    ours = results.attrs["null"][0]
    assert ours["h_sq"] == pytest.approx(null["h_sq"], abs=1e-6)
    assert ours["h_sq_standard_error"] == pytest.approx(null["se"], abs=1e-6)
    assert results.attrs["counts"]["variants_in_kinship"] == null["m"] == len(table)
    frame = results.to_dataframe().set_index("variant_id")
    tested = frame[frame["status"] == "ok"]
    assert set(tested.index) == set(table.index)
    tested = tested.loc[table.index]
    scaled = (tested["beta"] - table["beta"]) / tested["standard_error"]
    log_p = tested["neg_log10_p_value"] + np.log10(table["p_value"])
    if precision == "single":
        assert scaled.abs().max() < 1e-4
        assert log_p.abs().max() < 1e-4
        return
    # differences are Hail's optimum of log gamma, off by 4e-8; near zero they are told in standard errors
    assert scaled.abs().max() < 1e-6
    for name, floor in [("beta", 0.01), ("sigma_sq", 0.0), ("chi_sq", 0.01), ("p_value", 0.0)]:
        large = table[name].abs() > floor
        assert large.mean() > 0.7
        np.testing.assert_allclose(tested[name][large], table[name][large], rtol=1e-6, err_msg=name)
    assert (tested["chi_sq"] - table["chi_sq"]).abs().max() < 1e-6
