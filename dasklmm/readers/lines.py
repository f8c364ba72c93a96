"""Small text files whose fields stand between blanks or tabs."""

from __future__ import annotations

import re
from pathlib import Path

from dasklmm.errors import GenotypeFormatError

FIELD = re.compile(r"[^ \t\r\n]+")


def rows_of_fields(path: Path) -> list[list[str]]:
    r"""Fields of each line that is not blank.

    A line ends at "\n" and nowhere else: `str.splitlines` and `str.split` know other ends and blanks, some of
    which names of samples have held. A byte order mark is no part of the first field.

    Raises
    ------
    GenotypeFormatError
        The file is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            return [fields for line in file if (fields := FIELD.findall(line))]
    except UnicodeDecodeError as error:
        raise GenotypeFormatError(f"{str(path)!r} is not text ({error}). UTF-8 is needed.") from error
