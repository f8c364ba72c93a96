from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

# Before NumPy loads its BLAS: tests run side by side, where BLAS's own threads would wait by spinning.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings

# A shell's background job ignores Ctrl-C, and so would the commands that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Examples are timed by nobody here: the first of a kind imports, and a busy machine is no failure. In CI the
# same examples are drawn each time, so that a change is judged by itself.
settings.register_profile("dasklmm", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("dasklmm")

ROOT = Path(__file__).resolve().parents[1]


def _shared(folder: str) -> Path:
    """A folder of the shared data: beside DASKLMM_DATA where it is set, else beside the checkout."""
    data = Path(os.environ.get("DASKLMM_DATA", ROOT.parent / "shared" / "data"))
    path = data.parent / folder if folder != "data" else data
    if not path.is_dir():
        pytest.skip(f"{folder} is not there: set DASKLMM_DATA to the folder of shared data ({path})")
    return path


@pytest.fixture(scope="session")
def mouse_prefix() -> Path:
    """Path prefix of the heterogeneous-stock mice (PLINK 1)."""
    return _shared("data") / "mouse_hs1940" / "mouse_hs1940"


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder of the numbers that Hail and GEMMA computed."""
    return _shared("reference")


@pytest.fixture(scope="session")
def problem() -> SimpleNamespace:
    """A small problem with relatedness: y, x, a, k and its eigenpairs, all float64, read-only."""
    rng = np.random.default_rng(7)
    n, m, f = 60, 25, 3
    z = rng.standard_normal((n, 200))
    k = z @ z.T / 200
    x = np.column_stack([np.ones(n), rng.standard_normal((n, f - 1))])
    a = rng.integers(0, 3, (n, m)).astype(float)
    y = x @ [1.0, 0.5, -0.5] + z @ rng.standard_normal(200) / 14 + rng.standard_normal(n)
    s, u = np.linalg.eigh(k)
    out = SimpleNamespace(y=y, x=x, a=a, k=k, z=z, s=s[::-1].copy(), p=u[:, ::-1].T.copy(), n=n, m=m, f=f)
    for value in vars(out).values():
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    return out


class NoCompute:
    """A Dask scheduler that refuses to run, so that laziness can be shown."""

    def __call__(self, dsk, keys, **kwargs):
        raise AssertionError("a lazy function computed")


@pytest.fixture
def no_compute():
    """Context in which any computation by Dask fails."""
    import dask

    return lambda: dask.config.set(scheduler=NoCompute())
