"""Benchmarks: python -m benchmarks [COMMAND] [options]

  table       (or no command) each stage beside what the machine can do, in about three minutes
  peers       whole runs beside Hail, GEMMA, JAMMA and FaST-LMM
  scaling     time against variants, samples, phenotypes and workers; exponents and a figure
  estimate    what a biobank would cost, from the rates of a table's JSON
  memory      peak memory of a scan larger than its workers' memory
  phenotypes  one phenotype against a hundred, on the mouse data (DASKLMM_DATA)
  refit       the refit of the variance ratio beside its matrix products, on one core

`python -m benchmarks COMMAND --help` says the options of each.
"""

from __future__ import annotations

import importlib
import sys

COMMANDS = ("table", "peers", "scaling", "estimate", "memory", "phenotypes", "refit")


def main() -> None:
    """Call the command that is named first, or the table."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in ("-h", "--help"):
        print(__doc__)
        return
    named = bool(arguments) and arguments[0] in COMMANDS
    command = arguments.pop(0) if named else "table"
    if arguments and not named and not arguments[0].startswith("-"):
        sys.exit(f"there is no benchmark {arguments[0]!r}; there are {', '.join(COMMANDS)}")
    sys.argv[1:] = arguments
    importlib.import_module(f"benchmarks.{command}").main()


if __name__ == "__main__":
    main()
