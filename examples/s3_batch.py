"""One job of a cloud's batch service: scan phenotype tables from S3, with everything that lasts on S3.

python examples/s3_batch.py --workers 16 --genotypes s3://bucket/cohort.zarr --results s3://bucket/results \\
    s3://bucket/traits/height.tsv s3://bucket/traits/lipids.tsv

The machine may be taken away at any time: start the same command again, anywhere, and finished blocks are not
computed again. As an array job (AWS_BATCH_JOB_ARRAY_INDEX, CLOUD_RUN_TASK_INDEX, SLURM_ARRAY_TASK_ID or --part,
of --parts) each job takes its share of the tables. Credentials and the region are found as boto3 finds them. See
docs/cloud_batch.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

import fsspec

import dasklmm
from dasklmm.outputs import write_outputs

INDEX = ("AWS_BATCH_JOB_ARRAY_INDEX", "CLOUD_RUN_TASK_INDEX", "SLURM_ARRAY_TASK_ID")


def scan(url: str, options: argparse.Namespace, folder: Path) -> None:
    """Scan one table; its results, table, plots and report are then at --results."""
    name = Path(url).name
    stem = name.split(".")[0]
    fsspec.filesystem("s3").get_file(url, str(folder / name))

    def tell(stage: str, done: int, total: int) -> None:
        if done in (1, total):
            print(f"{stem}: {stage} {done}/{total}", flush=True)

    store = f"{options.results}/{stem}/results.zarr"
    results = dasklmm.gwas(options.genotypes, str(folder / name), store=store, progress=tell)
    written = write_outputs(results, folder / stem)
    for path in written.values():
        place = f"{options.results}/{stem}/{path.relative_to(folder / stem)}"
        fsspec.filesystem("s3").put_file(str(path), place)
    for stage, blocks in results.attrs.get("resumed", {}).items():
        print(f"{stem}: {stage} kept {blocks['kept']}, computed {blocks['computed']}", flush=True)
    print(f"{stem}: {options.results}/{stem}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("phenotypes", nargs="+", metavar="URL", help="tables, one scan each")
    parser.add_argument("--genotypes", required=True, metavar="URL", help="a VCF-Zarr")
    parser.add_argument("--results", required=True, metavar="URL")
    parser.add_argument("--workers", type=int, help="processes; one for each core if left out")
    part = next((os.environ[name] for name in INDEX if name in os.environ), "0")
    parser.add_argument("--part", type=int, default=int(part), help="of the array job, from 0")
    parser.add_argument("--parts", type=int, default=1)
    options = parser.parse_args(arguments)

    # what a spot node gets before it goes: the run unwinds, and gives up its lease on the results at once
    signal.signal(signal.SIGTERM, lambda *_: parser.exit(143))
    with (
        tempfile.TemporaryDirectory() as folder,
        dasklmm.local_cluster(options.workers) as cluster,
        cluster.get_client(),
    ):
        for url in options.phenotypes[options.part :: options.parts]:
            scan(url, options, Path(folder))


if __name__ == "__main__":
    main()
