"""Exact linear mixed models for association studies, out of core, on Dask, Zarr and xarray."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dasklmm.association import gwas, phenotype_results
    from dasklmm.clumps import clump
    from dasklmm.cluster import local_cluster
    from dasklmm.datasets import simulate
    from dasklmm.describe import summary
    from dasklmm.gateway import gateway_client
    from dasklmm.lazy.eigen import eigendecompose
    from dasklmm.lazy.kinship import kinship
    from dasklmm.lazy.project import project
    from dasklmm.model import LinearMixedModel, linear_mixed_model
    from dasklmm.readers.genotypes import open_genotypes
    from dasklmm.readers.tables import read_table
    from dasklmm.readers.vcf import convert_vcf
    from dasklmm.regression_rows import linear_mixed_regression_rows
    from dasklmm.store.results import open_results

__version__ = "0.1.0"

# Names are found on first use (PEP 562): `import dasklmm.numerics` needs NumPy and SciPy alone, and the
# command line answers --help without importing Dask.
_HOMES = {
    "LinearMixedModel": "model",
    "clump": "clumps",
    "convert_vcf": "readers.vcf",
    "eigendecompose": "lazy.eigen",
    "gateway_client": "gateway",
    "gwas": "association",
    "kinship": "lazy.kinship",
    "linear_mixed_model": "model",
    "linear_mixed_regression_rows": "regression_rows",
    "local_cluster": "cluster",
    "open_genotypes": "readers.genotypes",
    "open_results": "store.results",
    "phenotype_results": "association",
    "project": "lazy.project",
    "read_table": "readers.tables",
    "simulate": "datasets",
    "summary": "describe",
}

__all__ = [
    "LinearMixedModel",
    "clump",
    "convert_vcf",
    "eigendecompose",
    "gateway_client",
    "gwas",
    "kinship",
    "linear_mixed_model",
    "linear_mixed_regression_rows",
    "local_cluster",
    "open_genotypes",
    "open_results",
    "phenotype_results",
    "project",
    "read_table",
    "simulate",
    "summary",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dasklmm' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"dasklmm.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
