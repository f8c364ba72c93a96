"""Plots of a run as files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from dasklmm.export import directories
from dasklmm.plots.drawing import file_content
from dasklmm.plots.quantiles import qq
from dasklmm.plots.region import regional
from dasklmm.plots.whole_genome import manhattan

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def save_plots(results: xr.Dataset, directory: str | Path) -> None:
    """Write manhattan.png and qq.png into a directory, at 150 dpi. Eager.

    Parameters
    ----------
    results : Dataset (variant)
    directory : path
        Made if absent. Each file is written whole and renamed into place.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.

    Examples
    --------
    >>> import dasklmm
    >>> cohort = dasklmm.simulate(100, 400, n_contigs=2, n_causal=1, causal_variance=0.4, seed=1)
    >>> results = dasklmm.gwas(cohort, cohort["phenotype"].rename("trait"))
    >>> from dasklmm import plots
    >>> plots.save_plots(results, ".")  # manhattan.png and qq.png
    """
    for name, draw in (("manhattan", manhattan), ("qq", qq)):
        _save(draw(results), Path(directory) / f"{name}.png")


def save_region(
    results: xr.Dataset,
    directory: str | Path,
    genotypes: xr.Dataset | None = None,
    *,
    lead: str | None = None,
    window: int = 500_000,
) -> Path:
    """Write region_ID.png (region_top.png of no lead) into a directory, at 150 dpi; its path. Eager.

    Parameters
    ----------
    results, genotypes, lead, window
        See :func:`dasklmm.plots.regional`, whose errors it raises.
    directory : path
        Made if absent. The file is written whole and renamed into place.

    Examples
    --------
    >>> import dasklmm
    >>> cohort = dasklmm.simulate(100, 400, n_contigs=2, n_causal=1, causal_variance=0.4, seed=1)
    >>> results = dasklmm.gwas(cohort, cohort["phenotype"].rename("trait"))
    >>> from dasklmm import plots
    >>> plots.save_region(results, ".", cohort).name
    'region_top.png'
    """
    (name,) = directories([lead or "top"])
    path = Path(directory) / f"region_{name}.png"
    _save(regional(results, genotypes, lead=lead, window=window), path)
    return path


def _save(ax: Axes, path: Path) -> None:
    content = file_content(ax)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
