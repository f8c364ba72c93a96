"""Tests with the variance ratio refitted for each variant: python -m benchmarks refit

Simulates families, rotates the variants, and times `refit_block` and, in turn, its matrix products alone on
one core. GEMMA 0.98.5 -lmm 4 took 1,090 microseconds a variant at 1,410 samples.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from dasklmm.numerics import design, refit, reml

ROUNDS = 9


def simulated(n: int, m: int) -> tuple[np.ndarray, ...]:
    """Response, eigenvalues, eigenvectors as rows, and variants (variant, sample) of families of ten."""
    rng = np.random.default_rng(1)
    family = np.arange(n) // 10
    f = rng.uniform(0.1, 0.9, (m, 1, 1))
    parents = rng.random((m, family[-1] + 1, 4)) < f
    inherited = [np.take_along_axis(parents[:, family], rng.integers(i, i + 2, (m, n, 1)), 2) for i in (0, 2)]
    a = (inherited[0] + inherited[1].astype(float))[:, :, 0]
    a -= a.mean(axis=1, keepdims=True)
    s, u = np.linalg.eigh(a.T @ a / m)
    y = a[0] + a[1:201].T @ rng.standard_normal(200) / 14 + rng.standard_normal(n)
    return y, np.maximum(s[::-1], 0.0), u[:, ::-1].T, a


def main() -> None:
    """Print microseconds a variant, medians of alternating rounds."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks refit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--samples", type=int, default=1410, help="[default: %(default)s]")
    parser.add_argument("--variants", type=int, default=8192, help="[default: %(default)s]")
    parser.add_argument("--covariates", type=int, default=1, help="with the intercept [default: %(default)s]")
    options = parser.parse_args()
    n, m = options.samples, options.variants
    with threadpool_limits(1):
        y, s, p, a = simulated(n, m)
        x = np.column_stack(
            [np.ones(n), np.random.default_rng(2).standard_normal((n, options.covariates - 1))]
        )
        data = design.rotated_data(p @ y, p @ x, s)
        fit = reml.fit_null(data)
        for test in ("lrt", "wald"):
            start = time.perf_counter()
            null = refit.refit_test(data, fit, test)
            seconds = time.perf_counter() - start
            window = null.window
            print(
                f"{test}: prepared in {1e3 * seconds:.0f} ms; {window.n_series} nodes within "
                f"{np.ptp(window.log_gamma[: window.n_series]) / 2:.2f} of log gamma {fit.log_gamma:.2f}, "
                f"{window.log_gamma.size - window.n_series} sentinels, {null.whole.n_series} nodes in all bounds"
            )
            for dtype in (np.float64, np.float32):
                measure(null, (a @ p.T).astype(dtype))


def measure(null: refit.RefitTest, pa: np.ndarray) -> None:
    """One line: the whole, its sums, its statistics, its matrix products alone."""
    weights = refit.node_weights(null, null.window, slice(None))
    sums = refit.node_sums(null, null.window, len(pa))
    refit.add_rotated_nodes(weights, pa, sums)
    _, redo = refit.refit_stats(null, null.window, sums, 1e-11)
    scratch = sums.copy()
    rows = null.window.tile
    tile = pa[:rows].astype(np.float64)
    squares = tile * tile

    def products() -> None:
        for _ in range(0, len(pa), rows):
            tile @ weights.products
            squares @ weights.squares

    steps: dict[str, Callable[[], object]] = {
        "refit_block": lambda: refit.refit_block(null, pa),
        "sums": lambda: refit.add_rotated_nodes(weights, pa, scratch),
        "statistics": lambda: refit.refit_stats(null, null.window, sums, 1e-11),
        "products alone": products,
    }
    micros: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            micros[name].append(1e6 * (time.perf_counter() - start) / len(pa))
    median = {name: statistics.median(values) for name, values in micros.items()}
    shown = ", ".join(f"{name} {value:.1f}" for name, value in median.items())
    ratio = median["refit_block"] / median["products alone"]
    print(f"  {pa.dtype}: us a variant: {shown}; ratio {ratio:.2f}; {redo.mean():.2%} of variants done twice")


if __name__ == "__main__":
    main()
