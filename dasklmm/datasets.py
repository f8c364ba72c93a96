"""Simulated cohorts as named arrays and as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from dasklmm.errors import OptionError, StoreError
from dasklmm.numerics.simulate import simulate_cohort
from dasklmm.store.genotypes import write_genotypes

# The cohort of the command line: human-like in its number of contigs, with a few effects that 1,000 samples
# can find, and a polygenic rest small enough that a scan's lambda stays near 1.
DEMONSTRATION: dict[str, Any] = {
    "n_contigs": 22,
    "n_causal": 8,
    "causal_variance": 0.35,
    "h_sq": 0.2,
    "family_fraction": 0.3,
    "linkage_length": 150_000.0,
}


def simulate(n_samples: int, n_variants: int, *, seed: int = 0, **options: Any) -> xr.Dataset:
    """Simulate a cohort with populations, families and planted effects. Eager.

    Parameters
    ----------
    n_samples, n_variants : int
    seed : int
        Equal seeds give equal cohorts.
    **options
        Of :func:`dasklmm.numerics.simulate.simulate_cohort`: n_contigs, n_populations, fst,
        family_fraction, n_causal, h_sq, causal_variance, n_covariates, missing_rate, …

    Returns
    -------
    Dataset (variant, sample, covariate)
        A genotype Dataset, as of `open_genotypes`, with phenotype (sample), covariates
        (sample, covariate), population and family (sample), and true_beta (variant), 0 where no effect is
        planted. Memory: n_samples n_variants bytes.

    Raises
    ------
    OptionError
        An option outside its range, or shares of the variance that exceed 1.

    Examples
    --------
    >>> import dasklmm
    >>> cohort = dasklmm.simulate(100, 400, n_contigs=2, n_causal=3, causal_variance=0.2, seed=1)
    >>> cohort["dosage"].shape, int((cohort["true_beta"] != 0).sum())
    ((400, 100), 3)
    """
    if seed < 0:
        raise OptionError(f"seed is {seed}; it needs to be 0 or more.")
    cohort = simulate_cohort(n_samples, n_variants, seed=seed, **options)
    true_beta = np.zeros(n_variants)
    true_beta[cohort.causal_index] = cohort.causal_effect
    rows = max(1, min(n_variants, 16 * 1024**2 // n_samples))
    return xr.Dataset(
        {
            "dosage": (("variant", "sample"), da.from_array(cohort.calls, chunks=(rows, -1), name=False)),
            "true_beta": ("variant", true_beta),
            "phenotype": ("sample", cohort.phenotype),
            "covariates": (("sample", "covariate"), cohort.covariates),
            "population": ("sample", cohort.population),
            "family": ("sample", cohort.family),
        },
        coords={
            "sample_id": ("sample", cohort.sample_id),
            "covariate": np.array(cohort.covariate_names, dtype=str),
            "variant_contig": ("variant", cohort.variant_contig),
            "variant_position": ("variant", cohort.variant_position),
            "variant_id": ("variant", cohort.variant_id),
            "variant_effect_allele": ("variant", cohort.variant_effect_allele),
            "variant_other_allele": ("variant", cohort.variant_other_allele),
        },
        attrs={"source": f"simulated, seed {seed}", "format": "simulated"},
    )


def write_cohort(ds: xr.Dataset, directory: str | Path, *, overwrite: bool = False) -> dict[str, Path]:
    """Write a simulated cohort: genotypes.zarr, phenotypes.tsv, covariates.tsv, effects.tsv. Eager.

    Returns
    -------
    dict
        "genotypes", "phenotypes", "covariates", "effects" → path.
    """
    folder = Path(directory)
    names = {"genotypes": "genotypes.zarr"} | {k: f"{k}.tsv" for k in ("phenotypes", "covariates", "effects")}
    paths = {key: folder / name for key, name in names.items()}
    present = [str(p) for p in paths.values() if p.exists()]
    if present and not overwrite:
        raise StoreError(
            f"{present[0]!r} exists already. Give another directory, or overwrite (--overwrite)."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_genotypes(ds, paths["genotypes"], overwrite=True)
    index = pd.Index(ds["sample_id"].values.tolist(), name="sample_id")
    pd.DataFrame({"trait": ds["phenotype"].values}, index=index).to_csv(paths["phenotypes"], sep="\t")
    covariates = pd.DataFrame(ds["covariates"].values, index=index, columns=ds["covariate"].values.tolist())
    covariates.to_csv(paths["covariates"], sep="\t")
    planted = np.flatnonzero(ds["true_beta"].values)
    effects = ds[["variant_id", "variant_contig", "variant_position", "variant_effect_allele", "true_beta"]]
    frame = effects.isel(variant=planted).to_dataframe().reset_index(drop=True)
    frame.to_csv(paths["effects"], sep="\t", index=False)
    return paths
