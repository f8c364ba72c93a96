"""What was analysed, in words: the response, the effect that is tested, and what was chosen or left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_RESPONSES = {
    "inverse_normal": "by rank, inverse normal",
    "standardise": "standardised",
}
_UNITS = {
    "inverse_normal": "of standard deviations of the phenotype's normal ranks",
    "standardise": "of standard deviations of the phenotype",
}
_COUNTS = {
    "samples_in_genotypes": "samples in the genotypes",
    "samples_in_phenotypes": "samples in the phenotype table",
    "samples_with_phenotype": "samples with a phenotype value",
    "samples_with_genotypes_and_phenotype": "samples with genotypes and a phenotype value",
    "samples_in_covariates": "samples in the covariate table",
    "samples_with_covariates": "samples with every covariate",
    "samples_chosen": "samples chosen by their ids",
    "samples_used": "samples analysed",
    "variants_in_genotypes": "variants in the genotypes",
    "variants": "variants read",
    "variants_in_kinship": "variants in the kinship",
}
# Names of a list that are written out; of the rest the count is said.
_MOST = 6


def title(attrs: Mapping[str, Any]) -> str:
    """One line for a plot: the phenotype and whatever makes its tests others than the plain ones."""
    text = str(attrs.get("phenotype") or "")
    transform = _RESPONSES.get(str(attrs.get("transform")))
    if text and transform:
        text += f" ({transform})"
    if attrs.get("interaction"):
        text += f", variant × {attrs['interaction']}"
    if attrs.get("condition"):
        text += f", given {listed(attrs['condition'])}"
    return text


def unit(attrs: Mapping[str, Any]) -> str:
    """What beta and its standard error are per, and in which unit."""
    of = _UNITS.get(str(attrs.get("transform")), "of the phenotype")
    per = "copy of the effect allele"
    if attrs.get("interaction"):
        per += f" and unit of {attrs['interaction']} (the product of both)"
    return f"per {per}, in units {of}"


def notes(attrs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What differs from a plain scan, as name and text; of attributes that are absent nothing is said."""
    transform = _RESPONSES.get(str(attrs.get("transform")))
    if transform:
        yield "phenotype", transform
    if attrs.get("interaction"):
        e = attrs["interaction"]
        yield (
            "tested effect",
            f"variant × {e}: beta is the product's, beta_main the variant's own where {e} is 0",
        )
    if attrs.get("condition"):
        yield "conditioned on", listed(attrs["condition"])
    for name, each in (attrs.get("categories") or {}).items():
        reference, *levels = each["levels"]
        yield f"category {name}", f"{listed(levels)} against {reference}"
    if attrs.get("variance_ratio") == "per_variant":
        yield "variance ratio", "each variant's own"
    if attrs.get("whiten"):
        yield "whitened", "tests by a triangular factor instead of eigenvectors, equal but for rounding"
    left = list(_filters(attrs))
    if left:
        yield "filters", ", ".join(left)
    chosen = attrs.get("selection") or {}
    parts = [f"{name} {listed(chosen[name])}" for name in ("contigs", "regions") if chosen.get(name)]
    if chosen.get("variants"):
        parts.append(f"{chosen['variants']:,} ids")
    if parts:
        yield "variants chosen", " and ".join(parts)
    counts = attrs.get("counts") or {}
    if "samples_chosen" in counts:
        yield "samples chosen", f"{counts['samples_chosen']:,} ids"


def _filters(attrs: Mapping[str, Any]) -> Iterator[str]:
    if attrs.get("min_allele_count"):
        yield f"allele count ≥ {attrs['min_allele_count']:g}"
    if attrs.get("min_allele_frequency"):
        yield f"allele frequency ≥ {attrs['min_allele_frequency']:g}"
    if attrs.get("max_missing", 1.0) < 1.0:
        yield f"missing calls ≤ {attrs['max_missing']:.3g}"


def counted(count: int, noun: str) -> str:
    """How many of a thing, such as "1 variant"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def count_name(name: str) -> str:
    """What a count among the attributes of results is of."""
    status = name.removeprefix("status_")
    if status != name:
        return "variants tested" if status == "ok" else f"variants of status {status}"
    return _COUNTS.get(name, name.replace("_", " "))


def listed(names: Sequence[Any]) -> str:
    """Some names, and how many more."""
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(map(str, names[:_MOST])) + more
