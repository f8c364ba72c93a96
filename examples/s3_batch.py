"""One job of a cloud's batch service: scan phenotype tables from S3, with everything that lasts on S3.

python examples/s3_batch.py --workers 16 --genotypes s3://bucket/cohort.zarr --results s3://bucket/results \\
    s3://bucket/traits/height.tsv s3://bucket/traits/lipids.tsv

The machine may be taken away at any time: start the same command again, anywhere, and finished blocks are not
computed again. As an array job (AWS_BATCH_JOB_ARRAY_INDEX, CLOUD_RUN_TASK_INDEX, SLURM_ARRAY_TASK_ID or --part,
from 0, of --parts) each job takes its share of the tables. A table that cannot be analysed does not end the
others, and the exit code is then 1. Credentials and the region are found as boto3 finds them. See
docs/cloud_batch.md.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import fsspec

import dasklmm
from dasklmm.errors import DaskLMMError
from dasklmm.outputs import write_outputs

INDEX = ("AWS_BATCH_JOB_ARRAY_INDEX", "CLOUD_RUN_TASK_INDEX", "SLURM_ARRAY_TASK_ID")


def name_of(url: str) -> str:
    """Name of a table's results: that of its file, without what tells its format."""
    return re.sub(r"\.\w+(\.b?gz)?$", "", url.rsplit("/", 1)[-1])


def scan(url: str, options: argparse.Namespace, folder: Path) -> None:
    """Scan one table; its results, table, plots and report are then at --results."""
    name = name_of(url)
    fs, place = fsspec.core.url_to_fs(url)
    table = folder / url.rsplit("/", 1)[-1]
    fs.get_file(place, str(table))

    def tell(stage: str, done: int, total: int) -> None:
        if done in (1, total):
            print(f"{name}: {stage} {done}/{total}", flush=True)

    store = f"{options.results}/{name}/results.zarr"
    results = dasklmm.gwas(options.genotypes, str(table), store=store, progress=tell)
    write_outputs(results, folder / "outputs")
    fs, place = fsspec.core.url_to_fs(f"{options.results}/{name}")
    fs.put(f"{folder}/outputs/", f"{place}/", recursive=True)  # of several phenotypes there are folders
    for stage, blocks in results.attrs.get("resumed", {}).items():
        print(f"{name}: {stage} kept {blocks['kept']}, computed {blocks['computed']}", flush=True)
    print(f"{name}: {options.results}/{name}", flush=True)


def share(options: argparse.Namespace, parser: argparse.ArgumentParser) -> list[str]:
    """The tables of this job; what would lose a table, or have two in one place, is refused."""
    names = Counter(map(name_of, options.phenotypes))
    repeated = [name for name, count in names.items() if count > 1]
    if repeated:
        parser.error(f"several tables are named {', '.join(repeated)}, and would share their results")
    if options.part is None:
        variable = next((name for name in INDEX if name in os.environ), None)
        options.part = 0 if variable is None else int(os.environ[variable])
        if variable is not None and options.parts is None:
            parser.error(f"{variable} is {options.part}: give --parts, the number of jobs of the array")
    parts = options.parts or 1
    if not 0 <= options.part < parts:
        parser.error(
            f"part {options.part} of {parts}: parts are counted from 0 to {parts - 1}, as with sbatch --array"
            f"=0-{parts - 1}"
        )
    return options.phenotypes[options.part :: parts]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("phenotypes", nargs="+", metavar="URL", help="tables, one scan each")
    parser.add_argument("--genotypes", required=True, metavar="URL", help="a VCF-Zarr")
    parser.add_argument("--results", required=True, metavar="URL")
    parser.add_argument("--workers", type=int, help="processes; one for each core if left out")
    parser.add_argument("--part", type=int, help="of the array job, from 0")
    parser.add_argument("--parts", type=int, help="jobs of the array")
    options = parser.parse_args(arguments)
    urls = share(options, parser)
    failed = 0

    # what a spot node gets before it goes: the run unwinds, and gives up its lease on the results at once
    signal.signal(signal.SIGTERM, lambda *_: parser.exit(143))
    with dasklmm.local_cluster(options.workers) as cluster, cluster.get_client():
        for url in urls:
            try:
                with tempfile.TemporaryDirectory() as folder:
                    scan(url, options, Path(folder))
            except (DaskLMMError, OSError) as error:  # this table's own fault, or its place's
                failed += 1
                print(f"{name_of(url)}: failed: {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
