"""BGEN 1.1 to 1.3: dosages of the second allele, decoded by the package bgen, one thread a task."""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from dasklmm.errors import GenotypeFormatError, MissingExtraError
from dasklmm.readers.dataset import genotype_dataset, text, unnamed
from dasklmm.readers.identity import needs_family, sample_identity
from dasklmm.readers.lines import rows_of_fields

# Variants from one remembered offset to the next: offsets travel with every task, so not all are kept.
STEP = 32
# Bytes of the file that are copied and decoded at a time.
WINDOW_BYTES = 32 * 1024**2
# Offset of the first variant, then the header: its length, variants, samples, magic, flags.
HEADER_BYTES = 24
TYPES = frozenset("0DCPB")  # of a .sample's columns
SAMPLE_IDS = 1 << 31  # of the flags: sample ids follow the header


class BgenRows:
    """Rows (variant, sample) of a .bgen: copies of the second allele, float32, NaN missing.

    Holds a path, the header's flags and one file offset for every 32 variants, and so pickles. Nothing is kept
    open.

    Notes
    -----
    The package reads on from the first variant only, or by an index file that may be another file's. So the
    bytes of a few variants are copied behind a header of their own into a temporary file, of 32 MiB at most
    unless 32 variants are larger.
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, path: str, shape: tuple[int, int], flags: int, offsets: np.ndarray) -> None:
        self.path, self.shape, self.flags, self.offsets = path, shape, flags, offsets

    def __getitem__(self, index: tuple[Any, Any]) -> np.ndarray:
        rows, columns = index
        wanted = np.arange(self.shape[0])[rows]
        out = np.empty((wanted.size, self.shape[1]), self.dtype)
        for first, last in self._windows(np.unique(wanted // STEP)):
            start, stop = first * STEP, min(last * STEP, self.shape[0])
            places = np.flatnonzero((wanted >= start) & (wanted < stop))
            if places.size:
                self._read(out, places, wanted[places] - start, first, last)
        return out[:, columns]

    def _windows(self, steps: np.ndarray) -> list[tuple[int, int]]:
        """Runs of neighbouring steps, first and past the last, of no more bytes than a window."""
        out: list[tuple[int, int]] = []
        for step in steps.tolist():
            if out and out[-1][1] == step:
                first = out[-1][0]
                if self.offsets[step + 1] - self.offsets[first] <= WINDOW_BYTES:
                    out[-1] = (first, step + 1)
                    continue
            out.append((step, step + 1))
        return out

    def _read(self, out: np.ndarray, places: np.ndarray, wanted: np.ndarray, first: int, last: int) -> None:
        """Put the dosages of a window's variants `wanted` into rows `places` of `out`."""
        begin, end = int(self.offsets[first]), int(self.offsets[last])
        with open(self.path, "rb") as file:
            file.seek(begin)
            body = file.read(end - begin)
        count = min(last * STEP, self.shape[0]) - first * STEP
        try:
            if len(body) != end - begin:
                raise ValueError(f"the file ends at byte {begin + len(body):,}")
            with tempfile.NamedTemporaryFile(suffix=".bgen") as window:
                fields = (HEADER_BYTES - 4, HEADER_BYTES - 4, count, self.shape[1])
                window.write(b"".join(int(v).to_bytes(4, "little") for v in fields))
                window.write(b"bgen" + (self.flags & ~SAMPLE_IDS).to_bytes(4, "little"))
                window.write(body)
                window.flush()
                with _bgen().BgenReader(window.name, delay_parsing=True) as reader:
                    rows: dict[int, list[int]] = {}
                    for place, row in zip(places.tolist(), wanted.tolist(), strict=True):
                        rows.setdefault(row, []).append(place)
                    for row, variant in enumerate(islice(reader, max(rows) + 1)):
                        if row in rows:
                            out[rows[row]] = _dosage(variant)
        except GenotypeFormatError as error:
            raise GenotypeFormatError(f"{self.path!r}: {error}") from error
        except (ValueError, IndexError, MemoryError, UnicodeDecodeError) as error:
            raise GenotypeFormatError(
                f"{self.path!r} is damaged in variants {first * STEP:,} to {first * STEP + count:,} ({error}), or "
                "was changed since it was opened. Copy or write it again."
            ) from error


def _dosage(variant: Any) -> np.ndarray:
    """Expected copies of the second allele (sample), a haploid call on the scale of a diploid one; NaN missing."""
    if variant.layout == 1:
        # the sum is the certainty of the call, which the package takes for 1
        probabilities = variant.probabilities.astype(np.float64)
        dosage: np.ndarray = probabilities @ (0.0, 1.0, 2.0) / probabilities.sum(axis=1)
        return dosage
    ploidy = variant.ploidy
    if ploidy.max(initial=0) > 2:
        raise GenotypeFormatError(
            f"variant {variant.rsid!r} at {variant.chrom}:{variant.pos} has calls of ploidy {ploidy.max()}; "
            "1 or 2 is needed. Leave such variants out."
        )
    dosage = variant.alt_dosage
    if (ploidy != 2).any():
        dosage[ploidy == 1] *= 2.0
        dosage[ploidy == 0] = np.nan
    return dosage


def _bgen() -> Any:
    try:
        import bgen
    except ImportError as error:
        raise MissingExtraError(
            "BGEN files are read by the package bgen, which is not installed: pip install 'dasklmm[bgen]'"
        ) from error
    return bgen


def open_bgen(path: Path, chunks: int | None) -> xr.Dataset:
    """Open a .bgen. Lazy: the variants' names are read, by one pass over their heads.

    Parameters
    ----------
    path : Path
    chunks : int or None
        Variants of a block; None for about 64 MB.

    Returns
    -------
    Dataset (variant, sample)
        dosage : float32, expected copies of the second allele, 0 to 2 (of a haploid call twice its one), NaN
        missing.
        The effect allele is the second, the other allele the first, which BGEN writers such as PLINK 2
        (ref-first) and QCTOOL give the reference.

    Raises
    ------
    GenotypeFormatError
        No BGEN, truncated, damaged, without sample ids, or with a variant of other than two alleles.
    MissingExtraError
        The package bgen is not installed.

    Notes
    -----
    Sample ids are those in the file; where it has none, those of the .sample beside it (ID_2, or ID_1:ID_2
    where they repeat). A variant's id is its rsid, else its varid, else contig:position:first:second.

    Cost: about six microseconds a variant.

    Source: Band & Marchini 2018, doi:10.1101/308296; the format at https://www.chg.ox.ac.uk/~gav/bgen_format.
    """
    package = _bgen()
    name = str(path)
    try:
        reader = package.BgenReader(name, delay_parsing=True)
    except (ValueError, UnicodeDecodeError, MemoryError) as error:
        raise GenotypeFormatError(f"{name!r} is no BGEN file, or is damaged ({error}).") from error
    with reader:
        header = reader.header
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            file.seek(
                int.from_bytes(head[4:], "little")
            )  # the flags end the header, 4 bytes behind its start
            flags = int.from_bytes(file.read(4), "little")
        embedded = list(reader.samples) if header.has_sample_ids else None
        columns: tuple[list[Any], ...] = ([], [], [], [], [], [])
        end, offsets = header.offset + 4, []
        try:
            for row, variant in enumerate(reader):
                alleles = variant.alleles
                if len(alleles) != 2:
                    raise GenotypeFormatError(
                        f"{name!r}: variant {row} ({variant.rsid!r} at {variant.chrom}:{variant.pos}) has "
                        f"{len(alleles)} alleles, and two are needed: a dosage is of one of two. Split such "
                        "variants before they are written as BGEN (bcftools norm -m-), or leave them out."
                    )
                if row % STEP == 0:
                    offsets.append(variant.fileoffset)
                end = variant.next_variant_offset
                found = (variant.chrom, variant.pos, variant.rsid, variant.varid, *alleles)
                for column, value in zip(columns, found, strict=True):
                    column.append(value)
        except (ValueError, UnicodeDecodeError, MemoryError) as error:
            if isinstance(error, GenotypeFormatError):
                raise
            raise GenotypeFormatError(
                f"{name!r} is cut short or damaged: of the {header.nvariants:,} variants of its header "
                f"{len(columns[0]):,} can be read ({error}). Copy or write it again."
            ) from error
    m, n = len(columns[0]), header.nsamples
    if m != header.nvariants or end != size:
        raise GenotypeFormatError(
            f"{name!r} has {size:,} bytes, and the {m:,} variants in it end at byte {end:,}; its header says "
            f"{header.nvariants:,} variants. It is cut short, or damaged. Copy or write it again."
        )
    samples, family = _samples(path, embedded, n)
    contig, rsid, varid, first, second = (text(columns[k]) for k in (0, 2, 3, 4, 5))
    position = np.array(columns[1], dtype=np.int64)
    out = genotype_dataset(
        BgenRows(str(path.absolute()), (m, n), flags, np.array([*offsets, end], dtype=np.int64)),
        chunks=chunks,
        stored_chunk=STEP,
        sample_id=samples,
        contig=contig,
        position=position,
        variant_id=unnamed(np.where(np.isin(rsid, ("", ".")), varid, rsid), contig, position, first, second),
        effect_allele=second,
        other_allele=first,
        path=name,
        file_format="BGEN",
    )
    if family:
        out.attrs["sample_ids_have_family"] = True
    return out


def _samples(path: Path, embedded: list[str] | None, n: int) -> tuple[np.ndarray, bool]:
    """Sample ids, and whether they are FID:IID."""
    if embedded is not None:
        return text(embedded), False
    beside = path.with_suffix(".sample")
    if not beside.is_file():
        raise GenotypeFormatError(
            f"{str(path)!r} holds no sample ids, and there is no {beside.name!r} beside it. Put its .sample file "
            "there, under that name."
        )
    lines = rows_of_fields(beside)
    header, types, rows = (lines or [[]])[0], (lines[1:2] or [[]])[0], lines[2:]
    if header[:1] != ["ID_1"] or types[:1] != ["0"] or not TYPES.issuperset(types) or len(rows) != n:
        raise GenotypeFormatError(
            f"{str(beside)!r} has the columns {', '.join(header[:3])}, the types {' '.join(types[:3])} below them "
            f"and then {len(rows):,} samples; {str(path)!r} has {n:,}, and a .sample file begins with the columns "
            "ID_1 and ID_2 and a line of types, 0 of ids and of missing. Give the one that was written with it."
        )
    uneven = next((k for k, row in enumerate(lines) if len(row) != len(header)), None)
    if uneven is not None:
        raise GenotypeFormatError(
            f"{str(beside)!r}: the row that starts with {lines[uneven][0]!r} has {len(lines[uneven])} fields, and "
            f"the header {len(header)}."
        )
    family = "ID_2" in header
    first = pd.Series([row[0] for row in rows], dtype=str)
    iid = pd.Series([row[header.index("ID_2")] for row in rows], dtype=str) if family else first
    fid = first if family else None
    return sample_identity(fid, iid), fid is not None and needs_family(iid)
