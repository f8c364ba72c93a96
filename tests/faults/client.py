"""A client of its own process, for tests that kill it: python client.py OPTIONS (JSON)."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path

from fault_tools import Cohort, Rows

from dasklmm.errors import DaskLMMError


def main() -> None:
    options = json.loads(sys.argv[1])
    cohort = Cohort(Path(options["folder"]))
    with ExitStack() as stack:
        if options["address"]:
            from distributed import Client

            stack.enter_context(Client(options["address"], timeout=10))
        try:
            results = cohort.scan(Path(options["store"]), Rows(cohort.npy, options["delay"]))
            print(json.dumps(results.attrs.get("resumed", "opened")), flush=True)
        except DaskLMMError as error:
            print(json.dumps([type(error).__name__, str(error)]), flush=True)


if __name__ == "__main__":
    main()
