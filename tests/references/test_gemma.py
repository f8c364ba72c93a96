"""Agreement with GEMMA 0.98.5 on the mouse data: the null, its PVE, and the score test."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import dasklmm
from dasklmm.numerics import spectrum


@pytest.fixture(scope="module")
def gemma(reference):
    return pd.read_csv(reference / "gemma" / "mouse_cd8_lmm4.assoc.txt.gz", sep="\t").set_index("rs")


def test_score_test_with_gemma_s_kinship(mouse_prefix, gemma):
    genotypes = dasklmm.open_genotypes(f"{mouse_prefix}.bed")
    phenotypes = dasklmm.read_table(f"{mouse_prefix}.fam").iloc[:, 0]
    chosen = np.isin(genotypes["variant_id"].values, gemma.index.to_numpy(dtype=str))
    assert chosen.sum() == 10_768
    k = dasklmm.kinship(genotypes.isel(variant=chosen), "centered").compute()
    results = dasklmm.gwas(genotypes, phenotypes, kinship=k, loco=False, test="score", precision="double")
    null = results.attrs["null"][0]
    assert null["gamma"] == pytest.approx(4.34337, rel=1e-5)
    assert null["pve"] == pytest.approx(0.609672, abs=1e-6)
    assert null["log_likelihood"] == pytest.approx(-1584.07, abs=5e-3)
    assert null["log_likelihood_ml"] == pytest.approx(-1584.45, abs=5e-3)
    frame = results.to_dataframe().set_index("variant_id").loc[gemma.index]
    assert (frame["variant_effect_allele"] == gemma["allele1"]).all()
    log_p = frame["neg_log10_p_value"] + np.log10(gemma["p_score"])
    assert log_p.abs().max() < 1e-4


def test_restricted_kinship_double_centred_gives_gemma_s_null(mouse_prefix, gemma):
    """The same by hand, through the class."""
    genotypes = dasklmm.open_genotypes(f"{mouse_prefix}.bed")
    y = dasklmm.read_table(f"{mouse_prefix}.fam").iloc[:, 0].dropna()
    chosen = np.isin(genotypes["variant_id"].values, gemma.index.to_numpy(dtype=str))
    k = dasklmm.kinship(genotypes.isel(variant=chosen), "centered")
    kept = np.isin(genotypes["sample_id"].values, y.index.to_numpy(dtype=str))
    k = spectrum.double_centered(k.values[np.ix_(kept, kept)])
    model, _ = dasklmm.LinearMixedModel.from_kinship(y.to_numpy(), np.ones((y.size, 1)), k)
    assert model.fit().gamma == pytest.approx(4.34337, rel=1e-5)


@pytest.mark.parametrize("test", ["wald", "lrt"])
def test_every_variant_s_own_variance_ratio(mouse_prefix, gemma, test):
    """`gemma -lmm 4`, all of its 10,768 variants: estimates, both variance ratios, p-values, likelihood."""
    genotypes = dasklmm.open_genotypes(f"{mouse_prefix}.bed")
    phenotypes = dasklmm.read_table(f"{mouse_prefix}.fam").iloc[:, 0]
    chosen = np.isin(genotypes["variant_id"].values, gemma.index.to_numpy(dtype=str))
    genotypes = genotypes.isel(variant=chosen)
    results = dasklmm.gwas(
        genotypes,
        phenotypes,
        kinship=dasklmm.kinship(genotypes, "centered").compute(),
        loco=False,
        test=test,
        variance_ratio="per_variant",
        precision="double",
    )
    frame = results.to_dataframe().set_index("variant_id").loc[gemma.index]
    assert (frame["status"] == "ok").all()
    assert (frame["variant_effect_allele"] == gemma["allele1"]).all()
    assert ((frame["beta"] - gemma["beta"]).abs() / gemma["se"]).max() < 1e-4
    assert (frame["standard_error"] / gemma["se"] - 1).abs().max() < 1e-4
    for ours, theirs in (("log_gamma", "l_remle"), ("log_gamma_ml", "l_mle")):
        gap = (np.exp(frame[ours]) / gemma[theirs] - 1).abs()
        assert gap.max() < 1e-3
        assert gap.median() < 1e-6
    assert (frame["log_likelihood"] - gemma["logl_H1"]).abs().max() < 1e-3
    assert (frame["neg_log10_p_value"] + np.log10(gemma[f"p_{test}"])).abs().max() < 1e-3
    assert not frame["at_boundary"].any()
