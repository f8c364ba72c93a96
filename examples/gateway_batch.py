"""Scan many phenotype tables on one cluster of a dask-gateway server, taken up where a former run stopped.

python examples/gateway_batch.py --gateway https://gateway.example.org --workers 8 \\
    --genotypes s3://bucket/cohort.zarr --results s3://bucket/results lipids.tsv height.tsv

Each table's results are a Zarr group at --results, and its table, plots and report are in --out. A table that
cannot be analysed does not end the others, and the exit code is then 1. When the cluster is lost, as spot nodes
are, another is made and the scan goes on from its finished blocks. Who you are is read from Dask's configuration
(gateway.auth). See docs/cloud_batch.md.
"""

from __future__ import annotations

import argparse
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import dasklmm
from dasklmm.errors import ClusterError, DaskLMMError
from dasklmm.gateway import gateway_client
from dasklmm.outputs import write_outputs
from dasklmm.preflight import check_paths

CLUSTERS_AT_MOST = 3


def scan_all(tables: Sequence[Path], options: argparse.Namespace, done: dict[Path, str]) -> None:
    """Scan the tables that are not done; ClusterError where the cluster is lost."""
    for path in tables:
        if path in done:
            continue
        store = f"{options.results}/{path.stem}.zarr"
        try:
            results = dasklmm.gwas(options.genotypes, str(path), store=store)
            write_outputs(results, options.out / path.stem)
        except ClusterError:
            raise
        except (DaskLMMError, OSError) as error:  # this table's own fault, or its place's
            done[path] = f"failed: {error}"
        else:
            blocks = results.attrs.get("resumed", {}).get("test", {"kept": 0, "computed": 0})
            done[path] = f"{store} ({blocks['kept']} blocks kept, {blocks['computed']} computed)"
        print(f"{path.stem}: {done[path]}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("phenotypes", nargs="+", type=Path, help="tables, one scan each")
    parser.add_argument("--gateway", required=True, metavar="URL")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="of the cluster")
    parser.add_argument("--genotypes", required=True, help="a path or URL that the workers see")
    parser.add_argument("--results", required=True, help="a folder or URL that the workers see")
    parser.add_argument("--out", type=Path, default=Path("scans"), help="tables, plots and reports, here")
    options = parser.parse_args(arguments)
    repeated = [name for name, count in Counter(p.stem for p in options.phenotypes).items() if count > 1]
    if repeated:
        parser.error(f"several tables are named {', '.join(repeated)}, and would share their results")

    # a job that is ended by its scheduler unwinds, so that the cluster is stopped
    signal.signal(signal.SIGTERM, lambda *_: parser.exit(143))
    done: dict[Path, str] = {}
    for attempt in range(1, CLUSTERS_AT_MOST + 1):
        with gateway_client(
            options.gateway,
            n_workers=options.workers,
            options=dict(text.split("=", 1) for text in options.option),
            tell=lambda line: print(line, flush=True),
        ) as client:
            check_paths(
                client,
                [options.genotypes],
                [f"{options.results}/{p.stem}.zarr" for p in options.phenotypes[:1]],
            )
            try:
                scan_all(options.phenotypes, options, done)
                break
            except ClusterError as error:  # while it worked: another may end it
                print(f"cluster {attempt} of at most {CLUSTERS_AT_MOST}: {error}", flush=True)
    succeeded = [path for path, told in done.items() if not told.startswith("failed: ")]
    return 0 if len(succeeded) == len(options.phenotypes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
