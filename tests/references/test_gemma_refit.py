"""Agreement with GEMMA 0.98.5 -lmm 4 on the mouse data: variance ratio, effect and tests of every variant."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import dasklmm
from dasklmm.formats_out import write_format
from dasklmm.numerics import design, genotypes, refit, reml, scan, spectrum
from dasklmm.numerics.records import Status


@pytest.fixture(scope="module")
def gemma(reference):
    return pd.read_csv(reference / "gemma" / "mouse_cd8_lmm4.assoc.txt.gz", sep="\t").set_index("rs")


@pytest.fixture(scope="module")
def mouse(mouse_prefix, gemma):
    """Rotated data and rotated variants; GEMMA's kinship is that of all mice, centred on the phenotyped."""
    cohort = dasklmm.open_genotypes(f"{mouse_prefix}.bed")
    y = dasklmm.read_table(f"{mouse_prefix}.fam").iloc[:, 0].dropna()
    cohort = cohort.isel(variant=np.isin(cohort["variant_id"].values, gemma.index.to_numpy(dtype=str)))
    assert (cohort["variant_id"].values == gemma.index).all()
    kept = np.isin(cohort["sample_id"].values, y.index.to_numpy(dtype=str))
    k = dasklmm.kinship(cohort, "centered").values[np.ix_(kept, kept)]
    pairs = spectrum.eigendecompose(spectrum.double_centered(k))
    data = design.rotated_data(pairs.p @ y.to_numpy(), pairs.p @ np.ones((y.size, 1)), pairs.s)
    calls = cohort["dosage"].values[:, kept]
    dosage = genotypes.centered(calls, genotypes.block_statistics(calls), np.float64)
    return data, scan.rotate(dosage, pairs.p)


@pytest.mark.parametrize("test", ["lrt", "wald"])
def test_every_variant_s_variance_ratio_and_test_are_gemma_s(mouse, gemma, test):
    data, pa = mouse
    got = refit.refit_block(refit.refit_test(data, reml.fit_null(data), test), pa)
    assert (got.status == Status.OK).all()
    assert not got.at_boundary.any()

    def gap(values, column):
        return np.abs(values / gemma[column].to_numpy() - 1.0)

    # seven digits are printed; GEMMA ends its search at 1e-5 or so of the ratio
    assert gap(got.beta, "beta").max() < 1e-4
    assert gap(got.standard_error, "se").max() < 1e-5
    for values, column in ((got.log_gamma, "l_remle"), (got.log_gamma_ml, "l_mle")):
        assert gap(np.exp(values), column).max() < 1e-4
        assert np.median(gap(np.exp(values), column)) < 1e-6
    assert gap(got.log_likelihood, "logl_H1").max() < 1e-6
    log10_p = np.log10(gemma["p_wald" if test == "wald" else "p_lrt"].to_numpy())
    assert np.abs(got.log_p / np.log(10.0) - log10_p).max() < 1e-4


def test_the_table_reads_as_gemma_s(mouse_prefix, gemma, tmp_path):
    """Columns, their order, alleles, frequencies and numbers of --format gemma beside GEMMA's own file."""
    cohort = dasklmm.open_genotypes(f"{mouse_prefix}.bed")
    tested = cohort["variant_id"].values[
        np.isin(cohort["variant_id"].values, gemma.index.to_numpy(dtype=str))
    ]
    k = dasklmm.kinship(cohort.isel(variant=np.isin(cohort["variant_id"].values, tested)), "centered")
    results = dasklmm.gwas(
        cohort,
        f"{mouse_prefix}.fam",
        kinship=k,
        loco=False,
        test="wald",
        variance_ratio="per_variant",
        variants=tested.tolist(),
        precision="double",
    )
    path, left_out = write_format(results, "gemma", tmp_path)
    assert left_out == 0
    ours, theirs = pd.read_csv(path, sep="\t"), gemma.reset_index()
    names = [*ours.columns]
    assert [c for c in ("chr", "rs", *gemma.columns[1:]) if c in names] == names
    assert {*gemma.columns, "rs"} - {*names} == {"p_lrt", "p_score"}  # one test is taken
    theirs["ps"] = theirs["ps"].clip(lower=0)  # GEMMA writes the -9 of the .bim for an unknown position
    for column in ("chr", "rs", "ps", "n_miss", "allele1", "allele0"):
        assert (ours[column].astype(str) == theirs[column].astype(str)).all(), column
    np.testing.assert_allclose(ours["af"], theirs["af"], atol=6e-4)  # three digits are printed
    for column, tolerance in {
        "beta": 1e-4,
        "se": 1e-5,
        "logl_H1": 1e-6,
        "l_remle": 1e-4,
        "l_mle": 1e-4,
    }.items():
        np.testing.assert_allclose(ours[column], theirs[column], rtol=tolerance)
    np.testing.assert_allclose(np.log10(ours["p_wald"]), np.log10(theirs["p_wald"]), atol=1e-4)
