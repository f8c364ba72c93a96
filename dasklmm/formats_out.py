"""Results in the formats of other programs: GEMMA, REGENIE, GWAS-SSF with its metadata, Parquet."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from dasklmm.errors import MissingExtraError, OptionError, StoreError
from dasklmm.export import (
    ROWS,
    UNDERFLOW,
    check_complete,
    check_one_phenotype,
    contigs,
    floats,
    positions,
    strings,
    whole_file,
    write_tsv,
)
from dasklmm.wording import title

__all__ = ["FORMATS", "check_formats", "write_format"]

FORMATS = {
    "tsv": "results.tsv.gz",
    "gemma": "results.assoc.txt",
    "regenie": "results.regenie",
    "ssf": "results.ssf.tsv.gz",
    "parquet": "results.parquet",
}
# GWAS-SSF's numbers by name, and by PLINK's numbers, which go on with 25 for the pseudo-autosomal X and 26 for MT.
_SSF_CONTIGS = {
    **{str(k): k for k in range(1, 25)},
    **dict.fromkeys(("X", "XY", "PAR", "PAR1", "PAR2", "25"), 23),
    "Y": 24,
    **dict.fromkeys(("M", "MT", "26"), 25),
}
# Bases of the human mitochondrial genome.
_MT_LENGTH = 16_569
_FLOAT = "%.10g"


def check_formats(formats: Sequence[str]) -> None:
    """Raise OptionError for a format that is not known, MissingExtraError where its library is missing."""
    for name in formats:
        if name not in FORMATS:
            raise OptionError(f"format is {name!r}; it is one of {', '.join(FORMATS)}.")
    if "parquet" in formats:
        _pyarrow()


def write_format(
    results: xr.Dataset, name: str, directory: str | Path, *, genome_assembly: str = "unknown"
) -> tuple[Path, int]:
    """Write results of one phenotype in a format. Eager.

    Parameters
    ----------
    results : Dataset (variant)
        From :func:`dasklmm.gwas`, or :func:`dasklmm.open_results`.
    name : {"tsv", "gemma", "regenie", "ssf", "parquet"}
    directory : path
        Must exist. Files are written whole under another name and renamed into place.
    genome_assembly : str
        For the metadata of "ssf", for example "GRCh38".

    Returns
    -------
    path : Path
        results.tsv.gz, results.assoc.txt, results.regenie, results.ssf.tsv.gz (its metadata beside it, as
        results.ssf.tsv.gz-meta.yaml) or the directory results.parquet, which replaces one of this function only.
    left_out : int
        Variants that the format has no row for.

    Raises
    ------
    OptionError
        An unknown format, results of several phenotypes, or incomplete ones.
    MissingExtraError
        "parquet" without pyarrow.
    StoreError
        "ssf" where no variant can be a row; "parquet" where something else lies at results.parquet.

    Notes
    -----
    beta is per copy of the effect allele in every format: GEMMA's allele1, REGENIE's ALLELE1.

    tsv: :func:`dasklmm.export.write_tsv`.

    gemma: chr, rs, ps, n_miss, allele1, allele0, af, beta, se, with a refit logl_H1, l_remle and l_mle, then
    p_wald, p_lrt or p_score, by tabs. Variants without a test are left out, as GEMMA does. A p-value that
    underflows keeps its digits, as 3.2e-412.

    regenie: CHROM GENPOS ID ALLELE0 ALLELE1 A1FREQ N TEST BETA SE CHISQ LOG10P EXTRA, by blanks. Variants without
    a test are NA, with TEST_FAIL in EXTRA. TEST is ADD; of an interaction ADD-INT_SNPx and the covariate's name.

    ssf: GWAS-SSF 1.0. Contigs are 1 to 25 (X and its pseudo-autosomal regions 23, Y 24, MT 25). Numbers are read
    as PLINK's, where 25 is the pseudo-autosomal X and 26 MT; a variant of "25" within the length of MT may be
    either's, and is left out. Left out are also variants without a test, of other contigs, of unknown position, or
    with alleles other than A, C, G and T, which the format has no row for. Where a p-value is below 1e-300, the
    column is neg_log_10_p_value. rsid is an id that begins with rs and its number; variant_id is one that names
    the contig, the position and both alleles, with ``_`` between. What else results hold (beta_main of an
    interaction) follows n.

    parquet: every variable and coordinate by its own name, partitioned by variant_contig; NaN is null. The
    attributes are JSON in the schema's metadata, under "dasklmm".

    Cost: about 15 microseconds a variant; memory for 65,536 rows of text.

    Source: Zhou & Stephens 2012 and GEMMA's manual; Mbatchou et al. 2021 and REGENIE's documentation; Hayhurst et
    al. 2022 (https://github.com/EBISPOT/gwas-summary-statistics-standard).
    """
    check_formats([name])
    check_one_phenotype(results)
    check_complete(results)
    path = Path(directory) / FORMATS[name]
    if name == "tsv":
        write_tsv(results, path)
        return path, 0
    if name == "gemma":
        return path, _gemma(results, path)
    if name == "regenie":
        return path, _regenie(results, path)
    if name == "ssf":
        return path, _ssf(results, path, genome_assembly)
    return path, _parquet(results, path)


def _pyarrow() -> Any:
    try:
        import pyarrow.dataset
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            "Parquet is written by pyarrow, which is not installed: pip install 'dasklmm[parquet]'"
        ) from error
    return pyarrow


def check_parquet(path: Path) -> None:
    """Raise StoreError where something lies at a path that is no Parquet of results: it would be replaced."""
    if path.is_symlink() or (path.exists() and not is_our_parquet(path)):
        raise StoreError(
            f"{str(path)!r} is there, and is not what this program wrote. Move it away, or give another directory."
        )


def is_our_parquet(path: Path) -> bool:
    """Whether a directory holds Parquet files of results, and nothing else."""
    files = [p for p in path.rglob("*") if not p.is_dir()]
    parts = [*path.glob("part-*.parquet"), *path.glob("variant_contig=*/part-*.parquet")]
    if not parts or set(parts) != set(files):
        return False
    pa = _pyarrow()
    try:
        return b"dasklmm" in (pa.parquet.read_schema(parts[0]).metadata or {})
    except (OSError, pa.ArrowInvalid):
        return False


def _table(path: Path, columns: dict[str, Any], rows: np.ndarray, sep: str, missing: str) -> None:
    """Write columns (variant), of which some rows."""
    with whole_file(path) as write:
        write(sep.join(columns) + "\n")
        for start in range(0, rows.size, ROWS):
            some = rows[start : start + ROWS]
            texts = [_texts(np.asarray(values)[some], missing, sep) for values in columns.values()]
            write("\n".join(map(sep.join, zip(*texts, strict=True))) + "\n")


def _texts(values: np.ndarray, missing: str, sep: str) -> list[str]:
    if values.dtype.kind == "f":
        return [missing if v != v else _FLOAT % v for v in values.tolist()]
    if values.dtype.kind in "iu":
        return list(map(str, values.tolist()))
    # a separator inside a name would shift every column after it
    broken = re.compile(r"\s" if sep == " " else r"[\t\r\n]")
    return [broken.sub("_", str(v)) or missing for v in values.tolist()]


def _given(results: xr.Dataset, name: str) -> np.ndarray:
    values = strings(results, name)
    return np.full(results.sizes["variant"], "") if values is None else values


def _whole_numbers(values: np.ndarray) -> np.ndarray:
    """Text of counts; "" where NaN."""
    return np.array(["" if v != v else f"{v:.0f}" for v in values.tolist()], dtype=str)


def _p_texts(log_p: np.ndarray) -> np.ndarray:
    """p-values as text, also those that no float holds."""
    out = []
    for value in log_p.tolist():
        if value <= UNDERFLOW or not np.isfinite(value):
            out.append(_FLOAT % 10.0**-value)
        else:
            exponent = int(np.floor(-value))
            out.append(f"{_FLOAT % 10.0 ** (-value - exponent)}e{exponent}")
    return np.array(out, dtype=str)


def _gemma(results: xr.Dataset, path: Path) -> int:
    log_p = floats(results, "neg_log10_p_value")
    rows = np.flatnonzero(~np.isnan(log_p))
    n = floats(results, "n")
    columns: dict[str, Any] = {
        "chr": contigs(results),
        "rs": _given(results, "variant_id"),
        "ps": positions(results),
        "n_miss": _whole_numbers(results.attrs.get("n", np.nan) - n),
        "allele1": _given(results, "variant_effect_allele"),
        "allele0": _given(results, "variant_other_allele"),
        "af": floats(results, "effect_allele_frequency"),
        "beta": floats(results, "beta"),
        "se": floats(results, "standard_error"),
    }
    for name, ours in (("logl_H1", "log_likelihood"), ("l_remle", "log_gamma"), ("l_mle", "log_gamma_ml")):
        if ours in results.variables:
            values = floats(results, ours)
            columns[name] = values if name == "logl_H1" else np.exp(values)
    columns[f"p_{results.attrs.get('test', 'lrt')}"] = _p_texts(log_p)
    _table(path, columns, rows, "\t", "NA")
    return log_p.size - rows.size


def _regenie(results: xr.Dataset, path: Path) -> int:
    log_p = floats(results, "neg_log10_p_value")
    covariate = results.attrs.get("interaction", "")
    columns = {
        "CHROM": contigs(results),
        "GENPOS": positions(results),
        "ID": _given(results, "variant_id"),
        "ALLELE0": _given(results, "variant_other_allele"),
        "ALLELE1": _given(results, "variant_effect_allele"),
        "A1FREQ": floats(results, "effect_allele_frequency"),
        "N": _whole_numbers(floats(results, "n")),
        "TEST": np.full(log_p.size, f"ADD-INT_SNPx{covariate}" if covariate else "ADD"),
        "BETA": floats(results, "beta"),
        "SE": floats(results, "standard_error"),
        "CHISQ": floats(results, "chi_sq"),
        "LOG10P": log_p,
        "EXTRA": np.where(np.isnan(log_p), "TEST_FAIL", ""),
    }
    _table(path, columns, np.arange(log_p.size), " ", "NA")
    return 0


def _ssf(results: xr.Dataset, path: Path, genome_assembly: str) -> int:
    log_p, place = floats(results, "neg_log10_p_value"), positions(results)
    contig = _ssf_contigs(contigs(results), place)
    effect, other = _given(results, "variant_effect_allele"), _given(results, "variant_other_allele")
    plain = re.compile("[ACGTacgt]+")
    base = {a: bool(plain.fullmatch(a)) for a in np.unique(np.concatenate([effect, other])).tolist()}
    kept = np.isfinite(log_p) & (contig > 0) & (place > 0)
    kept &= np.array(
        [base[a] and base[b] for a, b in zip(effect.tolist(), other.tolist(), strict=True)], dtype=bool
    )
    for name in ("beta", "standard_error", "effect_allele_frequency"):
        kept &= np.isfinite(floats(results, name))
    rows = np.flatnonzero(kept)
    if not rows.size:
        raise StoreError(
            "no variant can be a row of GWAS-SSF: each needs a test, a contig of 1 to 22, X, Y or MT, a position, "
            "and alleles of A, C, G and T."
        )
    rows = rows[np.lexsort((place[rows], contig[rows]))]
    ids = _given(results, "variant_id").tolist()
    rs = [re.match("rs[0-9]+(?![A-Za-z0-9])", v) for v in ids]
    beyond = bool((log_p[rows] > UNDERFLOW).any())
    columns: dict[str, Any] = {
        "chromosome": contig,
        "base_pair_location": place,
        "effect_allele": effect,
        "other_allele": other,
        "beta": floats(results, "beta"),
        "standard_error": floats(results, "standard_error"),
        "effect_allele_frequency": floats(results, "effect_allele_frequency"),
        **({"neg_log_10_p_value": log_p} if beyond else {"p_value": floats(results, "p_value")}),
        "variant_id": np.array(
            list(map(_ssf_id, ids, contig.tolist(), place.tolist(), effect.tolist(), other.tolist())),
            dtype=str,
        ),
        "rsid": np.array([m[0] if m else "" for m in rs], dtype=str),
        "n": _whole_numbers(floats(results, "n")),
    }
    done = {*columns, "status", "neg_log10_p_value", "p_value"}
    columns |= {
        str(name): floats(results, str(name))
        for name, values in results.data_vars.items()
        if name not in done and values.dims == ("variant",) and values.dtype.kind in "fiu"
    }
    _table(path, columns, rows, "\t", "#NA")
    _ssf_metadata(results, path, genome_assembly)
    return log_p.size - rows.size


def _ssf_contigs(names: np.ndarray, place: np.ndarray) -> np.ndarray:
    """GWAS-SSF's numbers of contigs (variant); 0 where it has none, or where it cannot be told."""
    codes = {c: _SSF_CONTIGS.get(_bare(c), 0) for c in np.unique(names).tolist()}
    out = np.array([codes[c] for c in names.tolist()], dtype=np.int64)
    # PLINK's 25 is X, GWAS-SSF's own is MT
    either = np.isin(names, [c for c in codes if _bare(c) == "25"]) & (place <= _MT_LENGTH)
    return np.where(either, 0, out)


def _bare(contig: str) -> str:
    return re.sub("^CHR", "", contig.upper()).lstrip("0")


def _ssf_id(name: str, contig: int, place: int, effect: str, other: str) -> str:
    """contig_position_allele_allele, where an id names these; its order of the alleles is kept."""
    parts = re.split("[:_]", name)
    if len(parts) != 4 or _SSF_CONTIGS.get(_bare(parts[0])) != contig or parts[1] != str(place):
        return ""
    return f"{contig}_{place}_{parts[2]}_{parts[3]}" if {effect, other} == set(parts[2:]) else ""


def ssf_metadata_of(path: Path) -> Path:
    """Where the metadata of a GWAS-SSF file are."""
    return path.with_name(f"{path.name}-meta.yaml")


def _ssf_metadata(results: xr.Dataset, path: Path, genome_assembly: str) -> None:
    import yaml

    import dasklmm

    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    attrs = results.attrs
    created = str(attrs.get("created", ""))[:10] or datetime.now(UTC).date().isoformat()
    frequency = attrs.get("min_allele_frequency", 0.0)
    fields = {
        "date_metadata_last_modified": datetime.fromisoformat(created).date(),
        "trait_description": [title(attrs)] if attrs.get("phenotype") else None,
        "genome_assembly": genome_assembly,
        "coordinate_system": "1-based",
        "samples": [{"sample_size": int(attrs["n"])}] if "n" in attrs else None,
        "data_file_name": path.name,
        "file_type": "GWAS-SSF v1.0",
        "data_file_md5sum": digest.hexdigest(),
        "analysis_software": f"dasklmm {attrs.get('dasklmm_version', dasklmm.__version__)}",
        "adjusted_covariates": [c for c in map(str, attrs.get("covariates", [])) if c != "intercept"] or None,
        "minor_allele_freq_lower_limit": float(frequency) if frequency else None,
        "is_harmonised": False,
        "is_sorted": True,
    }
    with whole_file(ssf_metadata_of(path)) as write:
        write(yaml.safe_dump({k: v for k, v in fields.items() if v is not None}, sort_keys=False))


def _parquet(results: xr.Dataset, path: Path) -> int:
    pa = _pyarrow()
    names = [str(k) for k, v in results.variables.items() if v.dims == ("variant",)]
    if "variant_contig" not in names:
        results, names = (
            results.assign(variant_contig=("variant", contigs(results))),
            [*names, "variant_contig"],
        )
    told = json.dumps(
        {k: v for k, v in results.attrs.items() if k not in ("seconds", "resumed")}, default=str
    )

    def table(rows: slice) -> Any:
        frame = pd.DataFrame({name: results[name].values[rows] for name in names})
        return pa.Table.from_pandas(frame, preserve_index=False)

    schema = table(slice(0, 1)).schema.with_metadata({b"dasklmm": told.encode()})
    batches = (
        batch
        for start in range(0, results.sizes["variant"], ROWS)
        for batch in table(slice(start, start + ROWS)).cast(schema).to_batches()
    )
    check_parquet(path)
    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        if results.sizes["variant"]:
            pa.dataset.write_dataset(
                batches,
                partial,
                schema=schema,
                format="parquet",
                partitioning=pa.dataset.partitioning(
                    pa.schema([("variant_contig", pa.string())]), flavor="hive"
                ),
                max_partitions=max(1024, np.unique(contigs(results)).size),
                use_threads=False,  # rows stay in order
            )
        else:  # of which no file would be written
            partial.mkdir()
            pa.parquet.write_table(schema.empty_table(), partial / "part-0.parquet")
        if path.exists():
            shutil.rmtree(path)
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return 0
