"""Phenotype and covariate tables, as users of PLINK, GCTA, REGENIE and pandas have them."""

from __future__ import annotations

import csv
import gzip
import io
import logging
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from dasklmm import schema
from dasklmm.errors import TableError
from dasklmm.readers.identity import family_ids, sample_identity
from dasklmm.readers.lines import FIELD
from dasklmm.store.places import get, is_local, present, reach

logger = logging.getLogger(__name__)

# Share of rows from which -9 in a column looks like PLINK's missing code.
MINUS_NINE_SHARE = 0.01

# Spellings of missing, in small letters. "none" is one among numbers only: elsewhere it may be a category.
MISSING = ("", ".", "na", "n/a", "nan", "null", "#na", "#n/a")
MISSING_NUMBER = (*MISSING, "none")


def read_table(path: str | Path) -> pd.DataFrame:
    """Read phenotypes or covariates. Eager.

    Parameters
    ----------
    path : path or URL
        Text separated by tabs, commas or spaces, .gz or not. A header with FID and IID (or #FID, #IID, or
        IID alone) or sample_id; or a .fam, whose columns from the sixth on are phenotype_1, phenotype_2, …

    Returns
    -------
    DataFrame
        Indexed by sample id (text: "001" stays "001"; FID:IID where IIDs repeat). Numeric columns are
        float64, others text. Missing: NA, N/A, NaN, null, #NA or #N/A in letters of any size, "." or nothing;
        none in a column of numbers; in a .fam's sixth column also -9, which is PLINK's sign for
        it. Elsewhere -9 is a number, with a warning in the log where a column holds it in at least 1 % of the
        rows. Where there are FIDs, attrs["alternate_ids"] is the list of
        FID:IID, in the order of the rows as they were read.

    Raises
    ------
    TableError
        No such file, no column of ids, a row without an id, rows of different lengths, or not UTF-8.
    SampleError
        An id stands more than once.
    StoreError
        A URL that cannot be reached.

    Examples
    --------
    >>> from pathlib import Path
    >>> import dasklmm
    >>> _ = Path("traits.tsv").write_text("sample_id\\theight\\n001\\t170\\n002\\tNA\\n")
    >>> dasklmm.read_table("traits.tsv")
               height
    sample_id...
    001         170.0
    002           NaN
    """
    path = _checked(path, "table")
    table = _fam(path) if path.removesuffix(".gz").endswith(".fam") else _headed(path)
    schema.check_unique(table.index.to_numpy(dtype=str), f"the rows of {path!r}")
    return table


def read_ids(path: str | Path) -> list[str]:
    """Read a list of sample or variant ids. Eager.

    Parameters
    ----------
    path : path or URL
        An id a line; or a table that `read_table` takes, whose sample ids are used.

    Raises
    ------
    TableError
        No such file, no id, or lines of several columns without a header that names IID or sample_id.
    """
    path = _checked(path, "list of ids")
    with _open(path) as file:
        lines = [fields for line in file if (fields := FIELD.findall(line))]
    if not lines:
        raise TableError(f"{path!r} is empty; an id a line is needed.")
    if all(len(words) == 1 for words in lines) and lines[0][0].lower() not in ("iid", "#iid", "sample_id"):
        return [words[0] for words in lines]
    try:
        return [str(sample) for sample in read_table(path).index]
    except TableError as error:
        raise TableError(
            f"{path!r} has lines of {len(lines[0])} columns; an id a line is needed, or a table with a "
            f"header that names IID or sample_id ({error})"
        ) from error


def _checked(path: str | Path, kind: str) -> str:
    """The path or URL of a file that is there."""
    path = str(path)
    if is_local(path):
        if Path(path).is_dir():
            raise TableError(f"{path!r} is a directory; the file of a {kind} is needed.")
        there = Path(path).is_file()
    else:
        reach(path)
        there = present(path)
    if not there:
        raise TableError(f"there is no {kind} at {path!r}.")
    return path


def _read(path: str, separator: str, *, quoted: bool = True) -> pd.DataFrame:
    try:
        table = pd.read_csv(
            path if is_local(path) else _open(path),
            sep=separator,
            header=None,
            dtype=str,
            keep_default_na=False,
            skipinitialspace=True,
            compression="gzip" if is_local(path) and path.endswith(".gz") else None,
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        )
    except pd.errors.EmptyDataError as error:
        raise TableError(f"{path!r} is empty; a header and a row a sample are needed.") from error
    except pd.errors.ParserError as error:
        _check_rows(path, separator, quoted)
        raise TableError(f"{path!r} is not a table of equal rows ({error}).") from error
    except (UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise _unreadable(path, error) from error
    # pandas fills a row that is too short with ""
    if (table.iloc[:, -1] == "").any():
        _check_rows(path, separator, quoted)
    return table


def _check_rows(path: str, separator: str, quoted: bool) -> None:
    """Refuse the first row of another length than the first line's."""
    needed, first = 0, "header" if quoted else "first line"
    with _open(path) as file:
        for line, row in _rows(file, separator, quoted):
            needed = needed or len(row)
            if len(row) != needed:
                raise TableError(
                    f"{path!r} is not a table of equal rows: line {line}, which starts with {row[0]!r}, has "
                    f"{len(row)} fields, and the {first} {needed}. Write NA for what is missing, and put quotes "
                    "around text that holds the separator."
                )


def _rows(file: IO[str], separator: str, quoted: bool) -> Iterator[tuple[int, list[str]]]:
    """Number of the (last) line, and fields, of every row that is not blank."""
    if separator == r"\s+":
        field = re.compile(r'"(?:[^"]|"")*"[^ \t\r\n]*|[^ \t\r\n]+' if quoted else r"[^ \t\r\n]+")
        for number, text in enumerate(file, 1):
            if row := field.findall(text):
                yield number, row
        return
    reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
    for row in reader:
        if row not in ([], [""]):
            yield reader.line_num, row


def _open(path: str) -> IO[str]:
    if is_local(path):
        opener: Callable[..., IO[str]] = gzip.open if path.endswith(".gz") else open
        return opener(path, "rt", encoding="utf-8-sig", newline="")
    held: Any = io.BytesIO(get(path) or b"")
    return io.TextIOWrapper(
        gzip.GzipFile(fileobj=held) if path.endswith(".gz") else held, encoding="utf-8-sig", newline=""
    )


def _unreadable(path: str, error: Exception) -> TableError:
    return TableError(
        f"{path!r} cannot be read as text ({error}). UTF-8 is needed, and .gz only on what is gzipped."
    )


def _fam(path: str) -> pd.DataFrame:
    table = _read(path, r"\s+", quoted=False)
    if table.shape[1] < 6:
        raise TableError(
            f"{path!r} has {table.shape[1]} columns; a .fam has FID, IID, father, mother, sex and one or "
            "more phenotypes."
        )
    values = table.iloc[:, 5:].copy()
    values.columns = [f"phenotype_{j + 1}" for j in range(values.shape[1])]
    first = values["phenotype_1"]
    values["phenotype_1"] = first.mask(pd.to_numeric(first, errors="coerce") == -9, "NA")
    return _typed(values, table[0], table[1])


def _headed(path: str) -> pd.DataFrame:
    try:
        with _open(path) as file:
            line = next((text for text in file if text.strip()), "")
    except (UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise _unreadable(path, error) from error
    separator = "\t" if "\t" in line else "," if "," in line else r"\s+"
    # read without a header: pandas would rename equal columns, and shift rows that are too long
    table = _read(path, separator)
    columns = [str(c).strip().lstrip("\ufeff").removeprefix("#") for c in table.iloc[0]]
    table = table.iloc[1:].set_axis(columns, axis=1)
    lowered = [c.lower() for c in columns]
    id_column = next(
        (i for name in ("sample_id", "iid") if name in lowered for i in [lowered.index(name)]), None
    )
    if id_column is None:
        raise TableError(
            f"{path!r} has the columns {', '.join(columns[:20])}{', …' if len(columns) > 20 else ''}; one "
            "named sample_id, or FID and IID, is needed in the first line."
        )
    families = lowered[id_column] == "iid" and "fid" in lowered
    fid = table.iloc[:, lowered.index("fid")].str.strip() if families else None
    iid = table.iloc[:, id_column].str.strip()
    if (iid == "").any():
        raise TableError(
            f"{path!r} has {int((iid == '').sum())} rows without an id in {columns[id_column]!r}; every row "
            "needs one. Fill them or drop those rows."
        )
    rest = [c for c, low in zip(columns, lowered, strict=True) if low not in ("fid", "iid", "sample_id")]
    repeated = sorted({c for c in rest if rest.count(c) > 1})
    if repeated:
        raise TableError(f"{path!r} has several columns named {', '.join(map(repr, repeated))}.")
    return _typed(table[rest], fid, iid)


def _typed(values: pd.DataFrame, fid: pd.Series | None, iid: pd.Series) -> pd.DataFrame:
    columns = {}
    for name in values.columns:
        stripped = values[name].str.strip()
        lowered = stripped.str.lower()
        missing = lowered.isin(MISSING_NUMBER).to_numpy()
        numbers = pd.to_numeric(stripped.mask(missing), errors="coerce").to_numpy(dtype=np.float64)
        if np.isnan(numbers[~missing]).any():
            columns[name] = stripped.mask(lowered.isin(MISSING)).astype("str").array
        else:
            columns[name] = numbers
            nines = int((numbers == -9).sum())
            if nines and nines >= MINUS_NINE_SHARE * numbers.size:
                logger.warning(
                    "column %r holds -9 in %d rows; it is read as a number. PLINK's missing code? Write NA.",
                    name,
                    nines,
                )
    ids = sample_identity(fid, iid).tolist()
    out = pd.DataFrame(columns, index=pd.Index(ids, name="sample_id", dtype="str"))
    if fid is not None:
        out.attrs["alternate_ids"] = family_ids(fid, iid).tolist()
    return out
