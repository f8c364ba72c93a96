"""Seeded cohorts with linkage disequilibrium, population structure, families and planted effects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from dasklmm.errors import OptionError
from dasklmm.numerics.genotypes import Method, standardise

__all__ = ["Cohort", "simulate_cohort", "simulate_phenotype"]

_Float = NDArray[np.float64]
_Int = NDArray[np.int64]
_Text = NDArray[np.str_]

# Variants drawn at a time; bounds the memory of the random numbers.
_SLAB = 512
_MORGANS_PER_BASE = 1e-8
_FREQUENCY_RANGE = (0.05, 0.95)
_CAUSAL_FREQUENCY_RANGE = (0.1, 0.9)
# Shares of the planted effects fall by this factor from one to the next.
_EFFECT_DECAY = 0.8


@dataclass(frozen=True, eq=False)
class Cohort:
    """A simulated cohort.

    Attributes
    ----------
    calls : ndarray (variant, sample), int8
        Copies of the effect allele, -1 missing.
    variant_contig : ndarray (variant), str
        "1", "2", ...; contigs are contiguous and in order.
    variant_position : ndarray (variant), int64
        Bases, increasing strictly within a contig.
    variant_id, variant_effect_allele, variant_other_allele : ndarray (variant), str
    sample_id : ndarray (sample), str
    phenotype : ndarray (sample), float64
        Of variance about 1.
    covariates : ndarray (sample, covariate), float64
    covariate_names : tuple of str
    causal_index : ndarray (causal), int64
        Variants with a planted effect, by falling share of variance.
    causal_effect : ndarray (causal), float64
        Planted effect per copy of the effect allele.
    population : ndarray (sample), int64
        From 0.
    family : ndarray (sample), int64
        From 0; -1 for samples without relatives.
    father, mother : ndarray (sample), int64
        Position of the parent among the samples, -1 if there is none.
    """

    calls: NDArray[np.int8]
    variant_contig: _Text
    variant_position: _Int
    variant_id: _Text
    variant_effect_allele: _Text
    variant_other_allele: _Text
    sample_id: _Text
    phenotype: _Float
    covariates: _Float
    covariate_names: tuple[str, ...]
    causal_index: _Int
    causal_effect: _Float
    population: _Int
    family: _Int
    father: _Int
    mother: _Int


def simulate_cohort(
    n_samples: int,
    n_variants: int,
    *,
    n_contigs: int = 5,
    n_populations: int = 3,
    fst: float = 0.05,
    family_fraction: float = 0.4,
    children_per_family: int = 2,
    n_causal: int = 20,
    h_sq: float = 0.3,
    causal_variance: float = 0.4,
    covariate_variance: float = 0.05,
    n_covariates: int = 2,
    missing_rate: float = 0.01,
    mean_spacing: float = 10_000.0,
    linkage_length: float = 500_000.0,
    seed: int = 0,
) -> Cohort:
    """Simulate genotypes, relatives and a phenotype; the same arguments give the same cohort.

    Allele frequencies differ between populations by the model of Balding & Nichols (1995). A founder's
    haplotype thresholds a Gaussian process along the contig, whose correlation falls by e over
    `linkage_length`, so that neighbouring variants are in linkage disequilibrium and Hardy-Weinberg
    proportions hold within a population. Children receive recombined parental haplotypes (Haldane,
    1 cM per Mb).

    The phenotype is the sum of a polygenic term over all variants, planted effects, covariates and
    independent noise, of the variances asked for. One causal variant lies in each of `n_causal` equal
    parts of the genome.

    Parameters
    ----------
    n_samples, n_variants : int
    n_contigs : int
        Contigs, from longest to shortest.
    n_populations : int
        Populations of about equal size.
    fst : float
        Differentiation of the populations, 0 <= fst < 1.
    family_fraction : float
        Share of the samples in nuclear families: two parents and their children.
    children_per_family : int
    n_causal : int
        Variants with a planted effect.
    h_sq, causal_variance, covariate_variance : float
        Shares of the phenotype's variance: polygenic, planted, covariates. Their sum is at most 1;
        noise is the rest. The planted share is 0 without causal variants, that of the covariates
        without covariates.
    n_covariates : int
        Standard normal covariates.
    missing_rate : float
        Share of calls set to missing, independently.
    mean_spacing : float
        Mean distance of neighbouring variants, bases.
    linkage_length : float
        Bases over which the latent correlation of a haplotype falls by e; 0 for no linkage.
    seed : int

    Returns
    -------
    Cohort

    Raises
    ------
    OptionError
        A count or share outside the values it can take.

    Notes
    -----
    Memory n_variants * n_samples bytes and little more. About 0.05 microseconds a call on one core.
    """
    n_causal = min(n_causal, n_variants) if n_causal > 0 else n_causal
    planted = causal_variance if n_causal > 0 else 0.0
    covariate_share = covariate_variance if n_covariates > 0 else 0.0
    noise = 1.0 - h_sq - planted - covariate_share
    for name, count, least in (
        ("n_samples", n_samples, 1),
        ("n_contigs", n_contigs, 1),
        ("n_variants", n_variants, n_contigs),
        ("n_populations", n_populations, 1),
        ("children_per_family", children_per_family, 1),
        ("n_causal", n_causal, 0),
        ("n_covariates", n_covariates, 0),
    ):
        if count < least:
            raise OptionError(f"{name} is {count}; it needs to be {least} or more.")
    for name, share in (
        ("fst", fst),
        ("family_fraction", family_fraction),
        ("h_sq", h_sq),
        ("causal_variance", causal_variance),
        ("covariate_variance", covariate_variance),
        ("missing_rate", missing_rate),
    ):
        if not 0.0 <= share <= 1.0 or (name == "fst" and share == 1.0):
            raise OptionError(f"{name} is {share}; it is a share from 0 to 1 (fst below 1).")
    if noise < -1e-12:
        raise OptionError(
            f"h_sq + causal_variance + covariate_variance is {1.0 - noise:.6g}; shares of the "
            "phenotype's variance add up to at most 1. Lower one of them."
        )
    if not mean_spacing >= 1.0 or not linkage_length >= 0.0:
        raise OptionError(
            f"mean_spacing is {mean_spacing} and linkage_length {linkage_length}; they need to be "
            "at least 1 and 0 bases."
        )

    # A stream for each purpose and contig: one does not move when another draws more.
    trait_seed, missing_seed, *contig_seeds = np.random.SeedSequence(seed).spawn(2 + n_contigs)
    pedigree = _pedigree(n_samples, n_populations, family_fraction, children_per_family)
    sizes = _contig_sizes(n_variants, n_contigs)
    ends = np.cumsum(sizes)
    calls = np.empty((n_variants, n_samples), dtype=np.int8)
    position = np.empty(n_variants, dtype=np.int64)
    effect_base = np.empty(n_variants, dtype=np.int64)
    other_base = np.empty(n_variants, dtype=np.int64)
    for size, end, contig_seed in zip(sizes, ends, contig_seeds, strict=True):
        rng = np.random.Generator(np.random.PCG64(contig_seed))
        part = slice(end - size, end)
        gap = 1 + np.floor(rng.exponential(mean_spacing - 1.0, size)).astype(np.int64)
        position[part] = np.cumsum(gap)
        effect_base[part] = rng.integers(0, 4, size)
        other_base[part] = (effect_base[part] + rng.integers(1, 4, size)) % 4
        frequency = _frequencies(rng, int(size), n_populations, fst)
        _draw_contig(rng, calls[part], gap, frequency, pedigree, linkage_length)

    rng = np.random.Generator(np.random.PCG64(trait_seed))
    phenotype = np.sqrt(h_sq) * _unit(_polygenic(rng, calls, "rrm", 1)[:, 0])
    causal_index, causal_effect = _plant(rng, calls, n_causal, planted)
    phenotype += causal_effect @ calls[causal_index].astype(np.float64)
    covariates = rng.standard_normal((n_samples, n_covariates))
    phenotype += np.sqrt(covariate_share) * _unit(covariates @ rng.choice([-1.0, 1.0], size=n_covariates))
    phenotype += np.sqrt(max(noise, 0.0)) * rng.standard_normal(n_samples)
    phenotype -= phenotype.mean()

    _erase(np.random.Generator(np.random.PCG64(missing_seed)), calls, missing_rate)
    bases = np.array(list("ACGT"))
    contig = np.repeat(np.array([str(i) for i in range(1, n_contigs + 1)]), sizes)
    effect, other = bases[effect_base], bases[other_base]
    width = len(str(n_samples))
    return Cohort(
        calls=calls,
        variant_contig=contig,
        variant_position=position,
        variant_id=np.array(
            [f"{c}:{p}:{o}:{e}" for c, p, o, e in zip(contig, position, other, effect, strict=True)]
        ),
        variant_effect_allele=effect,
        variant_other_allele=other,
        sample_id=np.array([f"sample_{i:0{width}d}" for i in range(1, n_samples + 1)]),
        phenotype=phenotype,
        covariates=covariates,
        covariate_names=tuple(f"covariate_{i}" for i in range(1, n_covariates + 1)),
        causal_index=causal_index,
        causal_effect=causal_effect,
        population=pedigree.population,
        family=pedigree.family,
        father=pedigree.father,
        mother=pedigree.mother,
    )


def simulate_phenotype(
    calls: NDArray[Any],
    h_sq: float,
    *,
    n_phenotypes: int | None = None,
    method: Method = "rrm",
    seed: int = 0,
) -> _Float:
    """Draw phenotypes of the mixed model's null: y ~ N(0, h_sq K + (1 - h_sq) I).

    The polygenic term is Z^T b with b ~ N(0, 1/m) over the variants that vary, hence of covariance
    K = Z^T Z / m exactly; no variant has an effect beyond it.

    Parameters
    ----------
    calls : ndarray (variant, sample)
        int8 calls (negative: missing) or float dosages (NaN: missing).
    h_sq : float
        Weight of K, 0 to 1.
    n_phenotypes : int, optional
        Draw this many, independent of each other, in one pass over the calls.
    method : {"rrm", "grm", "centered"}
        Standardisation of K.
    seed : int

    Returns
    -------
    ndarray (sample) or (phenotype, sample), float64

    Raises
    ------
    OptionError
        `h_sq` outside 0 to 1, `n_phenotypes` below 1, an unknown method, or h_sq > 0 where no variant
        varies.

    Notes
    -----
    Cost 2 variant sample phenotype flop in float32.
    """
    if not 0.0 <= h_sq <= 1.0:
        raise OptionError(f"h_sq is {h_sq}; it is a share from 0 to 1.")
    count = 1 if n_phenotypes is None else n_phenotypes
    if count < 1:
        raise OptionError(f"n_phenotypes is {count}; it needs to be 1 or more.")
    rng = np.random.Generator(np.random.PCG64(seed))
    y = np.sqrt(1.0 - h_sq) * rng.standard_normal((count, calls.shape[1]))
    if h_sq > 0.0:
        polygenic = _polygenic(rng, calls, method, count)
        if not polygenic.any():
            raise OptionError(f"h_sq is {h_sq} but no variant varies; give genotypes that vary or h_sq = 0.")
        y += np.sqrt(h_sq) * polygenic.T
    return np.asarray(y[0] if n_phenotypes is None else y)


@dataclass(frozen=True, eq=False)
class _Pedigree:
    """Who is whose child; arrays (sample), and (founder) or (child) for positions among samples."""

    population: _Int
    family: _Int
    father: _Int
    mother: _Int
    founders: _Int
    children: _Int


def _pedigree(
    n_samples: int, n_populations: int, family_fraction: float, children_per_family: int
) -> _Pedigree:
    """Families first, members adjacent; populations in turn, so that each has families."""
    size = 2 + children_per_family
    n_families = round(family_fraction * n_samples) // size
    in_families = n_families * size
    family = np.full(n_samples, -1, dtype=np.int64)
    family[:in_families] = np.repeat(np.arange(n_families), size)
    population = np.arange(n_samples, dtype=np.int64) % n_populations
    population[:in_families] = family[:in_families] % n_populations
    member = np.arange(in_families) % size
    children = np.flatnonzero(member >= 2)
    father, mother = np.full((2, n_samples), -1, dtype=np.int64)
    father[children] = family[children] * size
    mother[children] = father[children] + 1
    founders = np.flatnonzero(father < 0)
    return _Pedigree(population, family, father, mother, founders, children)


def _contig_sizes(n_variants: int, n_contigs: int) -> _Int:
    """Variants of each contig, falling from the first to a third of it; none is empty."""
    share = np.linspace(1.5, 0.5, n_contigs) if n_contigs > 1 else np.ones(1)
    bounds = np.rint((n_variants - n_contigs) * np.cumsum(share) / share.sum()).astype(np.int64)
    return np.asarray(np.diff(bounds, prepend=0) + 1)


def _frequencies(rng: np.random.Generator, n_variants: int, n_populations: int, fst: float) -> _Float:
    """Balding-Nichols: Beta(p(1 - F)/F, (1 - p)(1 - F)/F) around p; (variant, population)."""
    ancestral = rng.uniform(*_FREQUENCY_RANGE, size=(n_variants, 1))
    if fst == 0.0:
        return np.repeat(ancestral, n_populations, axis=1)
    spread = (1.0 - fst) / fst
    shape = (n_variants, n_populations)
    first = np.broadcast_to(ancestral * spread, shape)
    return np.asarray(rng.beta(first, spread - first))


def _draw_contig(
    rng: np.random.Generator,
    calls: NDArray[np.int8],
    gap: _Int,
    frequency: _Float,
    pedigree: _Pedigree,
    linkage_length: float,
) -> None:
    """Fill the calls (variant, sample) of one contig from its first variant to its last."""
    founders, children = pedigree.founders, pedigree.children
    # Founder k has the haplotypes 2k and 2k + 1.
    home = np.repeat(pedigree.population[founders], 2)
    row = np.full(calls.shape[1], -1, dtype=np.int64)
    row[founders] = np.arange(founders.size)
    parents = [2 * row[pedigree.father[children]], 2 * row[pedigree.mother[children]]]

    threshold = special.ndtri(frequency).astype(np.float32)
    with np.errstate(divide="ignore"):
        kept = np.exp(-gap / np.float64(linkage_length)).astype(np.float32)
    fresh = np.sqrt(1.0 - kept * kept)
    # Recombination fraction (Haldane); one half before the first variant.
    crossing = (0.5 * -np.expm1(-2.0 * _MORGANS_PER_BASE * gap)).astype(np.float32)
    kept[0], fresh[0], crossing[0] = 0.0, 1.0, 0.5

    latent = np.zeros(home.size, dtype=np.float32)
    phase = [np.zeros(children.size, dtype=bool) for _ in parents]
    for start in range(0, calls.shape[0], _SLAB):
        part = slice(start, min(start + _SLAB, calls.shape[0]))
        process = rng.standard_normal((part.stop - start, home.size), dtype=np.float32)
        process *= fresh[part, None]
        for current, weight in zip(process, kept[part], strict=True):
            current += weight * latent
            latent = current
        haplotype = process < threshold[part][:, home]
        calls[part, founders] = haplotype[:, 0::2].astype(np.int8) + haplotype[:, 1::2]
        gametes = np.zeros((part.stop - start, children.size), dtype=np.int8)
        for side, parent in enumerate(parents):
            switch = rng.random(gametes.shape, dtype=np.float32) < crossing[part, None]
            strand = np.logical_xor.accumulate(switch, axis=0) ^ phase[side]
            phase[side] = strand[-1]
            gametes += np.where(strand, haplotype[:, parent + 1], haplotype[:, parent])
        calls[part, children] = gametes


def _polygenic(rng: np.random.Generator, calls: NDArray[Any], method: Method, count: int) -> _Float:
    """Z^T b / sqrt(m), b standard normal; (sample, count)."""
    total, kept = np.zeros((calls.shape[1], count)), 0
    for start in range(0, calls.shape[0], _SLAB):
        z, n_kept = standardise(calls[start : start + _SLAB], method, np.float32)
        total += z.T @ rng.standard_normal((n_kept, count), dtype=np.float32)
        kept += n_kept
    return np.asarray(total / np.sqrt(max(kept, 1)))


def _plant(
    rng: np.random.Generator, calls: NDArray[np.int8], n_causal: int, variance: float
) -> tuple[_Int, _Float]:
    """Causal variants, one in each part of the genome, and effects of the total variance asked for."""
    index = np.empty(n_causal, dtype=np.int64)
    low, high = _CAUSAL_FREQUENCY_RANGE
    bounds = np.linspace(0, calls.shape[0], n_causal + 1).astype(np.int64)
    for k in range(n_causal):
        part = np.arange(bounds[k], bounds[k + 1])
        frequency = 0.5 * calls[part].mean(axis=1)
        common = part[(frequency >= low) & (frequency <= high)]
        index[k] = rng.choice(common if common.size else part)
    rng.shuffle(index)
    dosage = calls[index].astype(np.float64)
    deviation = dosage.std(axis=1)
    varies = deviation > 0.0
    effect = np.zeros(n_causal)
    effect[varies] = np.sqrt(_EFFECT_DECAY ** np.flatnonzero(varies)) / deviation[varies]
    effect *= rng.choice([-1.0, 1.0], size=n_causal)
    realised = float(np.std(effect @ dosage))
    return index, effect * np.sqrt(variance) / realised if realised > 0.0 else effect


def _unit(values: _Float) -> _Float:
    """Centred and scaled to variance 1; zeros if constant."""
    centred = values - values.mean()
    deviation = float(centred.std())
    return np.asarray(centred / deviation if deviation > 0.0 else centred)


def _erase(rng: np.random.Generator, calls: NDArray[np.int8], rate: float) -> None:
    """Set calls to missing, independently, in place."""
    if rate == 0.0:
        return
    for start in range(0, calls.shape[0], _SLAB):
        part = calls[start : start + _SLAB]
        part[rng.random(part.shape, dtype=np.float32) < rate] = -1
