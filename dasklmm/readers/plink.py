"""PLINK 1: .bed, .bim and .fam, read by bed-reader, one thread a task."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from dasklmm.errors import GenotypeFormatError, MissingExtraError
from dasklmm.readers.dataset import genotype_dataset, text, unnamed
from dasklmm.readers.identity import needs_family, sample_identity

MAGIC = b"\x6c\x1b"
MISSING = -127  # bed-reader's int8


class BedRows:
    """Rows (variant, sample) of a .bed file; holds a path and two counts, and so pickles.

    Nothing is kept open: with the counts given, opening reads three bytes (40 microseconds).
    """

    ndim = 2
    dtype = np.dtype(np.int8)

    def __init__(self, path: str, shape: tuple[int, int]) -> None:
        self.path, self.shape = path, shape

    def __getitem__(self, index: tuple[Any, Any]) -> np.ndarray:
        rows, columns = index
        bed = _bed_reader().open_bed(
            self.path, iid_count=self.shape[1], sid_count=self.shape[0], count_A1=True
        )
        calls = bed.read(index=(slice(None), rows), dtype="int8", order="F", num_threads=1)
        out = calls.T
        np.maximum(out, -1, out=out)  # MISSING is less; half the time of a mask
        return out[:, columns]


def _bed_reader() -> Any:
    try:
        import bed_reader
    except ImportError as error:
        raise MissingExtraError(
            "PLINK 1 files are read by bed-reader, which is not installed: pip install 'dasklmm[plink]'"
        ) from error
    return bed_reader


def open_plink(bed: Path, chunks: int | None) -> xr.Dataset:
    """Open a .bed with the .bim and .fam beside it. Lazy.

    The effect allele is allele 1 (.bim column 5), of which the .bed counts copies. Sample ids are the IIDs,
    or FID:IID where IIDs repeat; then attrs["sample_ids_have_family"] is True. A variant without an id is named
    contig:position:allele 2:allele 1.

    Raises
    ------
    GenotypeFormatError
        A file is missing, is no .bed in variant-major order, or has another size than .bim and .fam say.
    """
    _bed_reader()
    bim, fam = bed.with_suffix(".bim"), bed.with_suffix(".fam")
    for path in (bed, bim, fam):
        if not path.is_file():
            raise GenotypeFormatError(
                f"{str(path)!r} is missing; PLINK 1 genotypes need .bed, .bim and .fam of one prefix."
            )
    variants = _table(bim, 6)
    samples = _table(fam, 2)
    m, n = len(variants), len(samples)
    with bed.open("rb") as file:
        start = file.read(3)
    if not start:
        raise GenotypeFormatError(f"{str(bed)!r} is empty. Copy it again, or make it with plink --make-bed.")
    if start[:2] != MAGIC or start[2:] != b"\x01":
        raise GenotypeFormatError(
            f"{str(bed)!r} starts with {start.hex()}, not 6c1b01: it is not a PLINK 1 .bed in variant-major "
            "order. Make it anew with plink --make-bed."
        )
    needed = 3 + m * ((n + 3) // 4)
    size = bed.stat().st_size
    if size != needed:
        raise GenotypeFormatError(
            f"{str(bed)!r} has {size:,} bytes; {m:,} variants (.bim) and {n:,} samples (.fam) need {needed:,}. "
            "The three files do not belong together, or the .bed is cut short."
        )
    try:
        position = variants[3].astype(np.int64).to_numpy()
    except ValueError as error:
        raise GenotypeFormatError(
            f"{str(bim)!r}: column 4 holds positions that are not whole numbers ({error})."
        ) from error
    contig, ids, effect, other = (text(variants[k]) for k in (0, 1, 4, 5))
    out = genotype_dataset(
        BedRows(str(bed.absolute()), (m, n)),
        chunks=chunks,
        stored_chunk=1,
        sample_id=sample_identity(samples[0], samples[1]),
        contig=contig,
        position=position,
        variant_id=unnamed(ids, contig, position, other, effect),
        effect_allele=effect,
        other_allele=other,
        path=str(bed),
        file_format="PLINK 1",
    )
    if needs_family(samples[1]):
        out.attrs["sample_ids_have_family"] = True
    return out


def _table(path: Path, columns: int) -> pd.DataFrame:
    try:
        table = pd.read_csv(
            path, sep=r"\s+", header=None, dtype=str, keep_default_na=False, quoting=csv.QUOTE_NONE
        )
    except pd.errors.EmptyDataError as error:
        raise GenotypeFormatError(f"{str(path)!r} is empty.") from error
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise GenotypeFormatError(f"{str(path)!r} is not a table of equal rows ({error}).") from error
    # pandas fills short rows with "", which no field between white space can be
    short = np.flatnonzero(table.iloc[:, -1] == "")
    if short.size:
        raise GenotypeFormatError(
            f"{str(path)!r}: row {short[0] + 1} has fewer columns than the {table.shape[1]} of the longest."
        )
    if table.shape[1] < columns:
        raise GenotypeFormatError(
            f"{str(path)!r} has {table.shape[1]} columns; at least {columns} are needed."
        )
    return table
