"""Versions of what decides the numbers."""

from __future__ import annotations

import platform
from importlib import metadata

import dasklmm

LIBRARIES = ("dask", "distributed", "numpy", "scipy", "xarray", "zarr")


def versions() -> dict[str, str]:
    """Versions of dasklmm, of Python, of the libraries and the BLAS that decide the numbers."""
    return {
        "dasklmm": dasklmm.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in LIBRARIES},
        "blas": blas(),
    }


def blas() -> str:
    """BLAS libraries of this process with their threads, such as "openblas 0.3.31 (Haswell, 8 threads)"."""
    import numpy  # noqa: F401  (NumPy and SciPy bring a BLAS each, which is found once it is loaded)
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_info

    found = []
    for library in threadpool_info():
        if library["user_api"] == "blas":
            threads = library["num_threads"]
            of = [library.get("architecture"), f"{threads} thread{'s' if threads > 1 else ''}"]
            found.append(f"{library['internal_api']} {library['version']} ({', '.join(filter(None, of))})")
    return "; ".join(dict.fromkeys(found)) or "not known"
