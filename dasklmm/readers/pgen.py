"""PLINK 2: .pgen, .pvar(.zst) and .psam, read by Pgenlib, one thread a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from dasklmm.errors import GenotypeFormatError, MissingExtraError
from dasklmm.readers.dataset import genotype_dataset, text, unnamed
from dasklmm.readers.identity import needs_family, sample_identity
from dasklmm.readers.lines import rows_of_fields

MAGIC = b"\x6c\x1b"
MISSING = -9  # Pgenlib's, of calls and of dosages
# The third byte, of a file that holds its own index: fixed-width calls, dosages, phased dosages; variable records.
MODES = {0x02: False, 0x03: True, 0x04: True, 0x10: None}
BLOCK = 65_536  # variants of a block of the index
HAS_DOSAGE = 0x60  # of a record's type


class PgenRows:
    """Rows (variant, sample) of a .pgen: copies of ALT, int8 (-1 missing) or float32 (NaN missing).

    Holds a path and two counts, and so pickles. Nothing is kept open.

    Notes
    -----
    Every read opens the file anew, which reads its index: some 12 bytes of memory a variant of the file.
    """

    ndim = 2

    def __init__(self, path: str, shape: tuple[int, int], dtype: Any) -> None:
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)

    def __getitem__(self, index: tuple[Any, Any]) -> np.ndarray:
        rows, columns = index
        wanted = np.arange(self.shape[0], dtype=np.uint32)[rows]
        out = np.empty((wanted.size, self.shape[1]), self.dtype)
        if wanted.size:
            self._read(wanted, out)
            out[out == MISSING] = -1 if self.dtype == np.int8 else np.nan
        return out[:, columns]

    def _read(self, wanted: np.ndarray, out: np.ndarray) -> None:
        with open(self.path, "rb"):  # an OSError, which is tried again, where there is no file
            pass
        in_turn = np.array_equal(wanted, np.arange(wanted[0], wanted[0] + wanted.size))
        try:
            with _open(self.path, self.shape) as reader:
                if self.dtype == np.int8:
                    if in_turn:
                        reader.read_range(int(wanted[0]), int(wanted[-1]) + 1, out)
                    else:
                        reader.read_list(wanted, out)
                elif in_turn:
                    reader.read_dosages_range(int(wanted[0]), int(wanted[-1]) + 1, out)
                else:
                    reader.read_dosages_list(wanted, out)
        except RuntimeError as error:
            raise GenotypeFormatError(
                f"{self.path!r} is damaged in variants {wanted.min():,} to {wanted.max() + 1:,} "
                f"({_said(error)}), or was changed since it was opened. Copy or write it again."
            ) from error


def _pgenlib() -> Any:
    try:
        import pgenlib
    except ImportError as error:
        raise MissingExtraError(
            "PLINK 2 files are read by Pgenlib, which is not installed: pip install 'dasklmm[pgen]'"
        ) from error
    return pgenlib


def _open(path: str, shape: tuple[int, int]) -> Any:
    return _pgenlib().PgenReader(path.encode(), raw_sample_ct=shape[1], variant_ct=shape[0])


def _said(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return (said.decode(errors="replace") if isinstance(said, bytes) else str(said)).strip()


def open_pgen(pgen: Path, chunks: int | None, field: str) -> xr.Dataset:
    """Open a .pgen with the .pvar (or .pvar.zst) and .psam beside it. Lazy.

    Parameters
    ----------
    pgen : Path
    chunks : int or None
        Variants of a block; None for about 64 MB.
    field : {"auto", "genotype", "dosage"}
        "auto": dosages where any variant has them, else hard calls.

    Returns
    -------
    Dataset (variant, sample)
        dosage : int8 copies of the effect allele (-1 missing), or float32 (NaN missing; a call without a dosage
        counts as its copies). The effect allele is ALT, the other allele REF. Sample ids are the IIDs, or
        FID:IID where IIDs repeat; then attrs["sample_ids_have_family"] is True. A variant without an id is named
        contig:position:REF:ALT.

    Raises
    ------
    GenotypeFormatError
        A file is missing, is none of PLINK 2, disagrees with the others, or is damaged; or a variant has several
        ALT alleles.
    MissingExtraError
        Pgenlib is not installed.

    Notes
    -----
    Source: PLINK 2's file formats, https://www.cog-genomics.org/plink/2.0/formats and
    https://github.com/chrchang/plink-ng/tree/master/pgen_spec.
    """
    package = _pgenlib()
    name = str(pgen)
    pvar = next(
        (p for end in (".pvar", ".pvar.zst") if (p := pgen.with_suffix(end)).is_file()),
        pgen.with_suffix(".pvar"),
    )
    psam = pgen.with_suffix(".psam")
    for path in (pgen, pvar, psam):
        if not path.is_file():
            raise GenotypeFormatError(
                f"{str(path)!r} is missing; PLINK 2 genotypes need .pgen, .pvar (or .pvar.zst) and .psam of one "
                "prefix."
            )
    samples, family = _samples(psam)
    contig, position, ids, first, second = _variants(package, pvar)
    shape = (contig.size, samples.size)
    try:
        # Pgenlib compares the counts with the file's
        with _open(name, shape):
            pass
        dosages = _has_dosages(pgen, shape[0])
    except RuntimeError as error:
        raise GenotypeFormatError(
            f"{name!r} cannot be read: {_said(error)} {pvar.name!r} has {shape[0]:,} variants and {psam.name!r} "
            f"{shape[1]:,} samples. The three files do not belong together, or the .pgen is damaged."
        ) from error
    use_dosages = field == "dosage" or (field == "auto" and dosages)
    out = genotype_dataset(
        PgenRows(str(pgen.absolute()), shape, np.float32 if use_dosages else np.int8),
        chunks=chunks,
        stored_chunk=1,
        sample_id=samples,
        contig=contig,
        position=position,
        variant_id=unnamed(ids, contig, position, first, second),
        effect_allele=second,
        other_allele=first,
        path=name,
        file_format="PLINK 2",
    )
    if family:
        out.attrs["sample_ids_have_family"] = True
    return out


def _has_dosages(pgen: Path, m: int) -> bool:
    """Whether any variant has dosages, by the types of its records in the file's index."""
    with pgen.open("rb") as file:
        head = file.read(12)
        mode = head[2] if head[:2] == MAGIC and len(head) == 12 else None
        if mode not in MODES:
            raise GenotypeFormatError(
                f"{str(pgen)!r} starts with {head[:3].hex()}, which is not a PLINK 2 .pgen that holds its own "
                "index. Make it anew with plink2 --make-pgen."
            )
        known = MODES[mode]
        if known is not None:
            return known
        form = head[11]
        if not form & 4:  # types of 4 bits cannot say so
            return False
        width, alleles = (form & 3) + 1, (form >> 4) & 3
        file.seek(8 * -(-m // BLOCK), 1)
        for start in range(0, m, BLOCK):
            count = min(BLOCK, m - start)
            if (np.frombuffer(file.read(count), np.uint8) & HAS_DOSAGE).any():
                return True
            file.seek(count * (width + alleles) + (-(-count // 8) if form >> 6 == 3 else 0), 1)
    return False


def _variants(package: Any, pvar: Path) -> tuple[np.ndarray, ...]:
    """Contigs, positions, ids, REF and ALT."""
    columns: tuple[list[Any], ...] = ([], [], [], [], [])
    try:
        with package.PvarReader(str(pvar).encode()) as reader:
            for row in range(reader.get_variant_ct()):
                contig, count = reader.get_variant_chrom(row), reader.get_allele_ct(row)
                if count != 2:
                    raise GenotypeFormatError(
                        f"{str(pvar)!r}: variant {row} ({reader.get_variant_id(row).decode()!r} at "
                        f"{contig.decode()}:{reader.get_variant_pos(row)}) has {count - 1} ALT alleles, and one "
                        "is needed. Split such variants (plink2 --make-pgen multiallelics=-), or leave them out "
                        "(--max-alleles 2)."
                    )
                found = (
                    contig,
                    reader.get_variant_pos(row),
                    reader.get_variant_id(row),
                    reader.get_allele_code(row, 0),
                    reader.get_allele_code(row, 1),
                )
                for column, value in zip(columns, found, strict=True):
                    column.append(value)
    except RuntimeError as error:
        raise GenotypeFormatError(f"{str(pvar)!r} is not a .pvar ({_said(error)}).") from error
    try:
        contig, ids, first, second = (text(np.array(columns[k], dtype=bytes)) for k in (0, 2, 3, 4))
    except UnicodeDecodeError as error:
        raise GenotypeFormatError(f"{str(pvar)!r} is not text ({error}).") from error
    return contig, np.array(columns[1], dtype=np.int64), ids, first, second


def _samples(psam: Path) -> tuple[np.ndarray, bool]:
    """Sample ids, and whether they are FID:IID."""
    fields = [row for row in rows_of_fields(psam) if row[0][:2] != "##"]
    header = ["FID", "IID"]  # of a .fam, which a .psam without a header is
    if fields and fields[0][0].startswith("#"):
        first, *others = fields.pop(0)
        header = [first[1:], *others]
    if "IID" not in header:
        raise GenotypeFormatError(f"{str(psam)!r} has the columns {', '.join(header)}; IID is needed.")
    short = next((k for k, row in enumerate(fields) if len(row) <= header.index("IID")), None)
    if short is not None:
        raise GenotypeFormatError(f"{str(psam)!r}: sample {short + 1} has no IID.")
    iid = pd.Series([row[header.index("IID")] for row in fields], dtype=str)
    fid = pd.Series([row[header.index("FID")] for row in fields], dtype=str) if "FID" in header else None
    return sample_identity(fid, iid), fid is not None and needs_family(iid)
