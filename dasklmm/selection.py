"""Which variants are tested, and which share a null model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from dasklmm import schema
from dasklmm.errors import LocoError, OptionError, some

ALL = "all"


@dataclass(frozen=True, eq=False)
class Selection:
    """The variants that are tested.

    Attributes
    ----------
    chosen : ndarray (variant) of bool
    said : dict
        How they were asked for, as JSON can hold it: "variants" (the count of ids), "contigs", "regions".
    """

    chosen: np.ndarray
    said: dict[str, int | list[str]]


def selected_variants(
    ds: xr.Dataset,
    variants: Sequence[str] | None,
    contigs: Sequence[str] | None,
    regions: Sequence[str] | None,
) -> Selection | None:
    """The variants that are tested; None for all.

    Parameters
    ----------
    variants, contigs : sequence of str, optional
        Ids, and names.
    regions : sequence of str, optional
        "contig:start-end" with both ends included, "contig:position", or "contig".

    Raises
    ------
    OptionError
        An id, contig or region that holds no variant, or no variant that is in all that is given.
    """
    if variants is None and contigs is None and regions is None:
        return None
    chosen = np.ones(ds.sizes[schema.VARIANT], dtype=bool)
    said: dict[str, int | list[str]] = {}
    if variants is not None:
        known, wanted = _ids(ds, variants, "the chosen variants")
        chosen = np.isin(known, wanted)
        said["variants"] = int(np.unique(wanted).size)
    if contigs is not None or regions is not None:
        if not {"variant_contig", "variant_position"} <= set(ds.variables):
            raise OptionError(
                "contigs or regions were given, and the genotypes carry no variant_contig or variant_position."
            )
        names = np.asarray(ds["variant_contig"].values, dtype=str)
        position = np.asarray(ds["variant_position"].values)
        if contigs is not None:
            said["contigs"] = [contigs] if isinstance(contigs, str) else list(map(str, contigs))
            for contig in said["contigs"]:
                _check_contig(contig, names, "contig")
            chosen &= np.isin(names, said["contigs"])
        if regions is not None:
            said["regions"] = [regions] if isinstance(regions, str) else list(map(str, regions))
            chosen &= np.any([_in_region(region, names, position) for region in said["regions"]], axis=0)
    if not chosen.any():
        raise OptionError(
            f"no variant is in all of the chosen {' and '.join(said)}: each narrows what the others leave. Give "
            "one of them."
        )
    return Selection(chosen, said)


def variant_positions(ds: xr.Dataset, variants: Sequence[str], what: str) -> np.ndarray:
    """Rows of variants by id, in the order given; OptionError names those that are not there, or not once."""
    known, wanted = _ids(ds, variants, what)
    rows = np.flatnonzero(np.isin(known, wanted))
    if rows.size != wanted.size or np.unique(wanted).size != wanted.size:
        names, counts = np.unique(np.concatenate([known[rows], wanted]), return_counts=True)
        raise OptionError(
            f"{what}: {some(names[counts > 2].tolist())} stand more than once. Give each variant once, by an id "
            "of its own."
        )
    order = np.argsort(known[rows], kind="stable")
    return np.asarray(rows[order][np.searchsorted(known[rows][order], wanted)])


def _ids(ds: xr.Dataset, variants: Sequence[str], what: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids of all variants and of the wanted, all of which are there."""
    if "variant_id" not in ds.variables:
        raise OptionError(f"{what} are given by id, and the genotypes carry no variant_id.")
    known = np.asarray(ds["variant_id"].values, dtype=str)
    wanted = np.asarray([variants] if isinstance(variants, str) else list(map(str, variants)), dtype=str)
    if not wanted.size:
        raise OptionError(f"{what}: the list of ids is empty. Give at least one id.")
    absent = wanted[~np.isin(wanted, known)]
    if absent.size:
        raise OptionError(
            f"{what}: {absent.size:,} of {wanted.size:,} ids are not among the {known.size:,} variants of the "
            f"genotypes ({some(absent.tolist())}; there they are like {str(known[0])!r}). Check the ids."
        )
    return known, wanted


def _check_contig(contig: str, names: np.ndarray, what: str) -> None:
    if (names == contig).any():
        return
    several = " To give several, repeat the option." if "," in contig else ""
    raise OptionError(
        f"{what} {contig!r} has no variant; the contigs are {some(list(dict.fromkeys(names.tolist())))}.{several}"
    )


def _in_region(region: str, names: np.ndarray, position: np.ndarray) -> np.ndarray:
    contig, colon, span = region.rpartition(":")
    if not colon or (names == region).any():  # HLA contigs have colons in their names
        _check_contig(region, names, "region")
        return np.asarray(names == region)
    start, dash, end = span.replace(",", "").partition("-")
    end = end if dash else start
    if not (start.isdecimal() and end.isdecimal()) or int(start) > int(end):
        raise OptionError(
            f"region is {region!r}; 'contig:start-end' with whole numbers is needed, the smaller first, such as "
            "'1:1-5000000'."
        )
    _check_contig(contig, names, f"the contig of region {region!r},")
    on_contig = names == contig
    inside = on_contig & (position >= int(start)) & (position <= int(end))
    if not inside.any():
        span = f"{position[on_contig].min():,} to {position[on_contig].max():,}"
        raise OptionError(f"region {region!r} holds no variant; those of contig {contig!r} lie from {span}.")
    return np.asarray(inside)


def contig_ranges(ds: xr.Dataset, loco: bool) -> dict[str, np.ndarray]:
    """Variants of each group that is scanned with one null model: of each contig with LOCO, or all.

    Raises
    ------
    LocoError
        Fewer than two contigs.
    """
    if not loco:
        return {ALL: np.arange(ds.sizes[schema.VARIANT])}
    if "variant_contig" not in ds.coords and "variant_contig" not in ds:
        raise LocoError(
            "the genotypes carry no variant_contig, which leaving a contig out needs. Assign it over the dim "
            "variant, or give loco=False (--no-loco)."
        )
    names = np.asarray(ds["variant_contig"].values, dtype=str)
    contigs = list(dict.fromkeys(names.tolist()))
    if len(contigs) < 2:
        raise LocoError(
            f"leave-one-contig-out needs variants on at least two contigs; all {names.size} are on "
            f"{contigs[0]!r}. Give loco=False (--no-loco), or a kinship from other variants."
        )
    return {contig: np.flatnonzero(names == contig) for contig in contigs}
