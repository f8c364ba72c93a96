"""Power and calibration with relatives and structure: python examples/power_study.py [--out DIR] [--phenotypes N]

One cohort of families from three populations. Every phenotype has a polygenic part from the contigs 1 to 8, a
difference between populations that is no gene's doing, five variants of real effect on those contigs, and noise;
the contigs 9 and 10 have no part in it. Four methods test every variant of every phenotype:

OLS        least squares, which takes all samples for unrelated
OLS + PCs  the same with the ten leading principal components among the covariates
LMM        the mixed model with one kinship of all contigs
LMM-LOCO   the mixed model with the kinship of all other contigs

Calibration is the genomic inflation of the variants on contigs 9 and 10. Power is the share of the real effects
found at the p-value that one in a thousand of those idle variants reaches by the same method, so that a method is
not paid for its false positives.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

import dasklmm

METHODS = ["OLS", "OLS + PCs", "LMM", "LMM-LOCO"]
COLORS = ["#b9b9b9", "#7aa6c2", "#e0a25b", "#1b6ca8"]
EFFECTS = [0.01, 0.02, 0.03, 0.04, 0.05]  # shares of the variance of a phenotype
TYPE_I_ERROR = 1e-3
IDLE = ("9", "10")


def standardised(dosage: np.ndarray) -> np.ndarray:
    """Variants with mean 0 and variance 1, missing calls at the mean; constant ones are zero."""
    g = np.where(dosage < 0, np.nan, dosage.astype(np.float64))
    g = np.nan_to_num(g - np.nanmean(g, axis=1, keepdims=True))
    spread = g.std(axis=1, keepdims=True)
    return np.divide(g, spread, out=np.zeros_like(g), where=spread > 0)


def phenotypes(cohort: xr.Dataset, count: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Phenotypes (sample, phenotype), and the rows of their real effects (phenotype, effect)."""
    rng = np.random.default_rng(seed)
    z = standardised(cohort["dosage"].values)
    contig, population = cohort["variant_contig"].values, cohort["population"].values
    active = np.flatnonzero(~np.isin(contig, IDLE) & (z.std(axis=1) > 0))
    real = np.stack([rng.choice(active, len(EFFECTS), replace=False) for _ in range(count)])

    def scaled(values: np.ndarray, share: float) -> np.ndarray:
        return np.sqrt(share) * (values - values.mean(axis=0)) / values.std(axis=0)

    polygenic = scaled(z[active].T @ rng.standard_normal((active.size, count)), 0.5)
    environment = scaled(rng.standard_normal((population.max() + 1, count))[population], 0.1)
    noise = scaled(rng.standard_normal((z.shape[1], count)), 0.4 - sum(EFFECTS))
    effects = np.stack([np.sqrt(EFFECTS) @ z[rows] for rows in real], axis=1)
    y = polygenic + environment + noise + effects
    names = [f"phenotype {k + 1}" for k in range(count)]
    return pd.DataFrame(y, index=cohort["sample_id"].values, columns=names), real


def least_squares(cohort: xr.Dataset, y: pd.DataFrame, x: np.ndarray) -> np.ndarray:
    """-log10 p of every variant (variant, phenotype) by least squares beside x."""
    q = np.linalg.qr(x)[0]
    z = standardised(cohort["dosage"].values)
    z -= (z @ q) @ q.T
    r = y.to_numpy() - q @ (q.T @ y.to_numpy())
    length = np.linalg.norm(z, axis=1)
    length[length < 1e-8] = np.nan
    correlation = (z @ r) / np.multiply.outer(length, np.linalg.norm(r, axis=0))
    dof = y.shape[0] - x.shape[1] - 1
    t = np.abs(correlation) * np.sqrt(dof / (1 - correlation**2))
    return np.asarray(-(np.log(2) + stats.t.logsf(t, dof)) / np.log(10))


def study(samples: int, variants: int, count: int, seed: int) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Inflation and power of each method, and the -log10 p of the idle variants."""
    cohort = dasklmm.simulate(
        samples, variants, n_contigs=10, n_populations=3, fst=0.03, family_fraction=0.6, seed=seed
    )
    y, real = phenotypes(cohort, count, seed)
    ones = np.ones((samples, 1))
    components = dasklmm.eigendecompose(dasklmm.kinship(cohort).compute(), rank=10)["p"].values.T
    found = {
        "OLS": least_squares(cohort, y, ones),
        "OLS + PCs": least_squares(cohort, y, np.column_stack([ones, components])),
    }
    for name, loco in (("LMM", False), ("LMM-LOCO", True)):
        found[name] = dasklmm.gwas(cohort, y, loco=loco)["neg_log10_p_value"].values
    idle = np.isin(cohort["variant_contig"].values, IDLE)
    rows, nulls = [], {}
    for name in METHODS:
        null = found[name][idle].ravel()
        nulls[name] = np.sort(null[~np.isnan(null)])
        threshold = np.quantile(nulls[name], 1 - TYPE_I_ERROR)
        hits = found[name][real, np.arange(count)[:, None]] > threshold
        chi_sq = stats.chi2.isf(10.0 ** -nulls[name], 1)
        rows.append(
            {
                "method": name,
                "lambda": np.median(chi_sq) / stats.chi2.median(1),
                **{f"power at {share:.0%}": hits[:, j].mean() for j, share in enumerate(EFFECTS)},
                "power": hits.mean(),
            }
        )
    return pd.DataFrame(rows).set_index("method"), nulls


def draw(table: pd.DataFrame, nulls: dict[str, np.ndarray], path: Path) -> None:
    """Power against effect, and the QQ plot of the idle variants."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    shares = 100 * np.array(EFFECTS)
    for name, color in zip(METHODS, COLORS, strict=True):
        power = table.loc[name, [f"power at {share:.0%}" for share in EFFECTS]].to_numpy(float)
        left.plot(shares, power, "o-", color=color, label=name)
        null = nulls[name][::-1][:20_000]
        expected = -np.log10((np.arange(null.size) + 0.5) / nulls[name].size)
        right.plot(expected, null, ".", ms=3, color=color, label=f"{name}, λ {table.loc[name, 'lambda']:.2f}")
    left.set(
        xlabel="variance explained by the variant (%)",
        ylabel=f"power at a type I error of {TYPE_I_ERROR:g}",
        ylim=(0, 1.02),
    )
    top = right.get_xlim()[1]
    right.plot([0, top], [0, top], "-", lw=1, color="#444444")
    right.set(xlabel="expected −log₁₀ p", ylabel="observed −log₁₀ p of variants without effect")
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    """Run the study, print its table, and write power_study.png and power_study.tsv."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--samples", type=int, default=800)
    parser.add_argument("--variants", type=int, default=4000)
    parser.add_argument("--phenotypes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    table, nulls = study(options.samples, options.variants, options.phenotypes, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    draw(table, nulls, options.out / "power_study.png")
    table.to_csv(options.out / "power_study.tsv", sep="\t", float_format="%.4f")
    print(table.round(3).to_string())
    print(f"{time.perf_counter() - start:.0f} s; {options.out / 'power_study.png'}")
    return table


if __name__ == "__main__":
    main()
