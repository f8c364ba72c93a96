"""Peak memory of a scan larger than its workers' memory: python -m benchmarks memory [--variants M] [--samples N]

Writes random int8 genotypes to a temporary Zarr store, scans them without LOCO on two workers of 500 MB, and
prints each worker's peak beside its limit and beside what the budget projected.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

import dasklmm
from dasklmm.lazy.budget import BASE_BYTES, Room, Shape, decomposition_bytes
from dasklmm.store.genotypes import write_genotypes

LIMIT = 500 * 10**6


def cohort(samples: int, variants: int) -> xr.Dataset:
    """Unrelated samples, made block by block."""

    def block(frequencies: np.ndarray, block_id: tuple[int, ...] = (0,)) -> np.ndarray:
        rng = np.random.default_rng(block_id[0])
        return rng.binomial(2, frequencies, (frequencies.shape[0], samples)).astype(np.int8)

    f = da.from_array(np.random.default_rng(0).uniform(0.05, 0.95, (variants, 1)), chunks=(2048, 1))
    dosage = da.map_blocks(block, f, dtype=np.int8, chunks=(f.chunks[0], (samples,)))
    index = np.arange(variants)
    return xr.Dataset(
        {"dosage": (("variant", "sample"), dosage)},
        coords={
            "sample_id": ("sample", np.array([f"s{i}" for i in range(samples)])),
            "variant_id": ("variant", index.astype("U8")),
            "variant_contig": ("variant", np.full(variants, "1")),
            "variant_position": ("variant", index + 1),
            "variant_effect_allele": ("variant", np.full(variants, "A")),
            "variant_other_allele": ("variant", np.full(variants, "G")),
        },
    )


def peak() -> int:
    """Most bytes that this process ever held."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@dataclass(frozen=True)
class Memory:
    """Bytes: of each worker at its peak, of its limit, and projected."""

    peaks: list[int]
    limit: int
    projected: int
    seconds: dict[str, float]

    @property
    def most(self) -> int:
        return max(self.peaks)


def scanned(n: int, m: int, limit: int = LIMIT) -> Memory:
    """Scan n samples by m variants without LOCO on two workers with this limit."""
    with tempfile.TemporaryDirectory() as name:
        write_genotypes(cohort(n, m), Path(name) / "g.zarr")
        ds = dasklmm.open_genotypes(Path(name) / "g.zarr")
        y = pd.DataFrame({"y": np.random.default_rng(1).standard_normal(n)}, index=ds["sample_id"].values)
        with (
            dasklmm.local_cluster(n_workers=2, memory_limit=limit) as cluster,
            cluster.get_client() as client,
        ):
            results = dasklmm.gwas(ds, y, loco=False, store=Path(name) / "r.zarr")
            peaks = client.run(peak)
            room = Room.of(client)
        shape = Shape(n, n, n, 1, 1, 4)
        most, _ = shape.fitting_rows(room, kinship=True)
        rows = min(most, ds["dosage"].data.chunksize[0])
        tasks = max(shape.p_bytes + shape.scan_bytes(rows), shape.kinship_bytes(rows), decomposition_bytes(n))
        return Memory(list(peaks.values()), limit, BASE_BYTES + tasks, results.attrs["seconds"])


def main() -> None:
    """Scan, and print each worker's peak."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--samples", type=int, default=2000, help="[default: %(default)s]")
    parser.add_argument(
        "--variants", type=int, default=1_000_000, help="[default: %(default)s, 2 GB on disk meanwhile]"
    )
    options = parser.parse_args()
    n, m = options.samples, options.variants
    start = time.perf_counter()
    found = scanned(n, m)
    print(f"{n:,} samples x {m:,} variants: {n * m / 1e9:.1f} GB, {time.perf_counter() - start:.0f} s")
    print(f"seconds of the stages: {found.seconds}")
    for value in found.peaks:
        print(
            f"peak {value / 1e6:,.0f} MB: {value / found.limit:.2f} of the limit, "
            f"{value / found.projected:.2f} of the projection ({found.projected / 1e6:,.0f} MB)"
        )


if __name__ == "__main__":
    main()
