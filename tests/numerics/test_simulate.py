import dataclasses

import numpy as np
import pytest

from dasklmm.errors import OptionError
from dasklmm.numerics.genotypes import block_statistics, calls_to_dosage, gram, standardise
from dasklmm.numerics.simulate import Cohort, simulate_cohort, simulate_phenotype


def plain(n_samples, n_variants, **options):
    """A cohort without structure, relatives or missing calls."""
    options = {"n_populations": 1, "fst": 0.0, "family_fraction": 0.0, "missing_rate": 0.0} | options
    return simulate_cohort(n_samples, n_variants, **options)


def kinship(calls):
    result = gram(calls, "rrm", np.float64)
    return result.matrix / result.n_variants


@pytest.fixture(scope="module")
def cohort():
    return simulate_cohort(400, 3000, seed=4)


@pytest.fixture(scope="module")
def families():
    return plain(300, 5000, family_fraction=0.5, children_per_family=3, linkage_length=0.0, seed=2)


def test_same_seed_same_cohort_and_another_seed_another():
    first, again = simulate_cohort(50, 300, seed=9), simulate_cohort(50, 300, seed=9)
    for field in dataclasses.fields(Cohort):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(again, field.name))
    assert (simulate_cohort(50, 300, seed=10).calls != first.calls).any()


def test_numbers_of_a_seed_stay():
    """A change here changes every published simulation: say so in the release notes."""
    cohort = simulate_cohort(6, 8, n_contigs=2, n_causal=2, seed=1)
    assert cohort.calls.sum(axis=1).tolist() == [9, 1, 4, 0, 5, 7, 1, 12]
    assert cohort.variant_position.tolist() == [2665, 3422, 5567, 18655, 29514, 1850, 4330, 30422]


def test_shapes_and_names(cohort):
    m, n = 3000, 400
    assert cohort.calls.shape == (m, n)
    assert cohort.calls.dtype == np.int8
    assert cohort.calls.flags.c_contiguous
    assert set(np.unique(cohort.calls)) == {-1, 0, 1, 2}
    assert cohort.phenotype.shape == (n,)
    assert cohort.covariates.shape == (n, 2)
    assert cohort.covariate_names == ("covariate_1", "covariate_2")
    for name in ("variant_contig", "variant_id", "variant_effect_allele", "variant_other_allele"):
        assert getattr(cohort, name).shape == (m,)
        assert getattr(cohort, name).dtype.kind == "U"
    assert np.unique(cohort.variant_id).size == m
    assert np.unique(cohort.sample_id).size == n
    assert set(cohort.variant_effect_allele) == set("ACGT")
    assert (cohort.variant_effect_allele != cohort.variant_other_allele).all()


def test_positions_rise_within_contigs(cohort):
    contigs = cohort.variant_contig.astype(int)
    assert (np.diff(contigs) >= 0).all()
    assert set(contigs) == {1, 2, 3, 4, 5}
    for contig in range(1, 6):
        gap = np.diff(cohort.variant_position[contigs == contig])
        assert gap.min() >= 1
        assert gap.mean() == pytest.approx(10_000, rel=0.25)


@pytest.mark.parametrize(("n_variants", "n_contigs"), [(5, 5), (7, 3), (1, 1), (100, 22)])
def test_every_contig_has_a_variant(n_variants, n_contigs):
    cohort = simulate_cohort(10, n_variants, n_contigs=n_contigs, n_causal=1)
    assert cohort.calls.shape[0] == n_variants
    assert np.unique(cohort.variant_contig).size == n_contigs


def test_missing_rate(cohort):
    assert (cohort.calls < 0).mean() == pytest.approx(0.01, rel=0.05)
    assert (plain(50, 100).calls >= 0).all()


def test_missing_calls_do_not_change_the_rest():
    whole, holed = simulate_cohort(60, 400, missing_rate=0.0), simulate_cohort(60, 400, missing_rate=0.2)
    called = holed.calls >= 0
    np.testing.assert_array_equal(holed.calls[called], whole.calls[called])
    np.testing.assert_array_equal(holed.phenotype, whole.phenotype)


def test_allele_frequencies_fill_their_range():
    frequency = plain(500, 4000).calls.mean(axis=1) / 2
    assert frequency.min() < 0.08
    assert frequency.max() > 0.92
    assert frequency.mean() == pytest.approx(0.5, abs=0.02)
    assert frequency.std() == pytest.approx(0.9 / np.sqrt(12), rel=0.05)


def test_hardy_weinberg_without_structure():
    calls = plain(2000, 1000, linkage_length=0.0, seed=3).calls
    p = calls.mean(axis=1) / 2
    heterozygotes = (calls == 1).mean(axis=1)
    expected = 2 * p * (1 - p)
    z = (1 - heterozygotes / expected) * np.sqrt(2000)
    assert abs(z.mean()) < 0.15
    assert z.std() == pytest.approx(1.0, abs=0.1)


def test_linkage_disequilibrium_falls_with_distance():
    z, _ = standardise(plain(1000, 2000, n_contigs=1, seed=5).calls, "rrm", np.float64)
    r_sq = [((z[:-lag] * z[lag:]).mean(axis=1) ** 2).mean() for lag in (1, 10, 50, 500)]
    assert r_sq[0] > 0.3
    assert r_sq[0] > r_sq[1] > r_sq[2] > r_sq[3]
    assert r_sq[3] < 0.01
    unlinked, _ = standardise(plain(1000, 500, n_contigs=1, linkage_length=0.0).calls, "rrm", np.float64)
    assert ((unlinked[:-1] * unlinked[1:]).mean(axis=1) ** 2).mean() < 0.002


def test_relatives_share_half_their_alleles(families):
    k = kinship(families.calls)
    children = np.flatnonzero(families.father >= 0)
    assert children.size == 90
    parent_child = np.concatenate(
        [k[children, families.father[children]], k[children, families.mother[children]]]
    )
    siblings = (families.father[:, None] == families.father) & (families.father >= 0)
    siblings &= ~np.eye(300, dtype=bool)
    related = (families.family[:, None] == families.family) & (families.family >= 0)
    assert parent_child.mean() == pytest.approx(0.5, abs=0.03)
    assert k[siblings].mean() == pytest.approx(0.5, abs=0.04)
    assert abs(k[~related & ~np.eye(300, dtype=bool)].mean()) < 0.01
    # Siblings' sharing varies, a parent's does not: transmission is by recombined strands.
    assert k[siblings].std() > 2 * parent_child.std()
    assert (families.family[families.father[children]] == families.family[children]).all()


def test_transmission_is_mendelian(families):
    child = np.flatnonzero(families.father >= 0)
    calls = families.calls
    for parent in (families.father[child], families.mother[child]):
        # opposite homozygotes cannot be parent and child
        assert (np.abs(calls[:, child] - calls[:, parent]) < 2).all()
    both = (calls[:, families.father[child]] == 1) & (calls[:, families.mother[child]] == 1)
    assert calls[:, child][both].mean() == pytest.approx(1.0, abs=0.03)
    assert (calls[:, child][both] == 1).mean() == pytest.approx(0.5, abs=0.03)


def test_recombination_is_at_one_centimorgan_a_megabase():
    """Phase of a heterozygous father with a homozygous mother is seen in the child's calls."""
    cohort = plain(
        400, 2000, n_contigs=1, family_fraction=1.0, children_per_family=2, linkage_length=0.0,
        mean_spacing=5e4, seed=7,
    )  # fmt: skip
    calls, expected, seen = cohort.calls, 0.0, 0
    for first in np.flatnonzero(cohort.father >= 0)[::2]:
        father, mother = cohort.father[first], cohort.mother[first]
        informative = np.flatnonzero((calls[:, father] == 1) & (calls[:, mother] != 1))
        # Siblings agree where they got the same strand; a crossover in either changes it.
        agree = calls[informative, first] == calls[informative, first + 1]
        seen += np.count_nonzero(agree[1:] != agree[:-1])
        span = cohort.variant_position[informative[[0, -1]]]
        expected += 2 * (span[1] - span[0]) * 1e-8
    assert seen == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize("fst", [0.02, 0.1])
def test_populations_differ_by_fst(fst):
    cohort = simulate_cohort(
        900, 3000, fst=fst, family_fraction=0.0, missing_rate=0.0, linkage_length=0.0, seed=6
    )
    groups = [cohort.calls[:, cohort.population == i].astype(float) for i in range(3)]
    p = np.array([g.mean(axis=1) / 2 for g in groups])
    sampling = p * (1 - p) / (2 * 300 - 1)
    # Hudson's estimator, ratio of averages, over the three pairs
    top, bottom = 0.0, 0.0
    for i, j in ((0, 1), (0, 2), (1, 2)):
        top += ((p[i] - p[j]) ** 2 - sampling[i] - sampling[j]).sum()
        bottom += (p[i] * (1 - p[j]) + p[j] * (1 - p[i])).sum()
    assert top / bottom == pytest.approx(fst, rel=0.1)


def test_structure_is_the_first_axis_of_the_kinship(cohort):
    k = kinship(cohort.calls)
    same = cohort.population[:, None] == cohort.population
    unrelated = (cohort.family[:, None] != cohort.family) | (cohort.family[:, None] < 0)
    unrelated &= ~np.eye(400, dtype=bool)
    assert k[same & unrelated].mean() > k[~same].mean() + 0.05


def test_phenotype_has_the_planted_effects():
    cohort = plain(4000, 300, n_causal=5, h_sq=0.0, causal_variance=0.6, covariate_variance=0.1, seed=8)
    assert cohort.phenotype.var() == pytest.approx(1.0, abs=0.1)
    assert cohort.phenotype.mean() == pytest.approx(0.0, abs=1e-12)
    design = np.column_stack([np.ones(4000), cohort.covariates, cohort.calls[cohort.causal_index].T])
    estimate, rss, *_ = np.linalg.lstsq(design, cohort.phenotype)
    np.testing.assert_allclose(estimate[3:], cohort.causal_effect, atol=0.06)
    assert np.abs(cohort.causal_effect).min() > 0.1
    assert rss[0] / 4000 == pytest.approx(0.3, abs=0.03)
    planted = cohort.causal_effect @ cohort.calls[cohort.causal_index].astype(float)
    assert planted.var() == pytest.approx(0.6, rel=1e-9)


def test_causal_variants_are_spread_and_common():
    cohort = simulate_cohort(300, 2000, n_causal=20, seed=12)
    assert sorted(cohort.causal_index // 100) == list(range(20))
    frequency = block_statistics(cohort.calls[cohort.causal_index]).mean / 2
    assert ((frequency > 0.08) & (frequency < 0.92)).all()


def test_default_cohort_has_strong_hits():
    cohort = simulate_cohort(1000, 2000, seed=0)
    dosage = calls_to_dosage(cohort.calls[cohort.causal_index[:5]], np.float64)
    y = cohort.phenotype
    for row in dosage:
        called = ~np.isnan(row)
        r = np.corrcoef(row[called], y[called])[0, 1]
        assert r**2 * 1000 > 15


@pytest.mark.parametrize("h_sq", [0.0, 0.3, 0.8])
def test_null_phenotypes_have_the_heritability_asked_for(families, h_sq):
    y = simulate_phenotype(families.calls, h_sq, n_phenotypes=400, seed=1)
    assert y.shape == (400, 300)
    k = kinship(families.calls)
    off = ~np.eye(300, dtype=bool)
    # Haseman-Elston: cov(y_i, y_j) = h_sq K_ij
    moments = (y.T @ y / 400)[off]
    assert (moments * k[off]).sum() / (k[off] ** 2).sum() == pytest.approx(h_sq, abs=0.03)
    assert y.var() == pytest.approx(1.0, abs=0.03)


def test_null_phenotype_forms(families):
    one = simulate_phenotype(families.calls, 0.5, seed=3)
    assert one.shape == (300,)
    np.testing.assert_array_equal(one, simulate_phenotype(families.calls, 0.5, seed=3))
    assert (one != simulate_phenotype(families.calls, 0.5, seed=4)).all()
    holed = families.calls.copy()
    holed[::3, ::4] = -1
    assert np.isfinite(simulate_phenotype(holed, 0.5)).all()


def test_one_of_everything():
    cohort = simulate_cohort(1, 1, n_contigs=1, n_populations=1, n_causal=1, n_covariates=0)
    assert np.isfinite(cohort.phenotype).all()
    assert simulate_cohort(20, 10, n_causal=0, n_contigs=1).causal_index.size == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"h_sq": 0.8, "causal_variance": 0.4}, "add up to at most 1"),
        ({"fst": 1.0}, "fst is 1.0"),
        ({"missing_rate": -0.1}, "missing_rate is -0.1"),
        ({"h_sq": float("nan")}, "h_sq is nan"),
        ({"n_contigs": 11}, "n_variants is 10; it needs to be 11"),
        ({"n_populations": 0}, "n_populations is 0"),
        ({"mean_spacing": 0.0}, "mean_spacing is 0.0"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(OptionError, match=message):
        simulate_cohort(10, 10, **options)


def test_phenotype_options_out_of_range_are_named(families):
    with pytest.raises(OptionError, match=r"h_sq is 1\.5"):
        simulate_phenotype(families.calls, 1.5)
    with pytest.raises(OptionError, match="n_phenotypes is 0"):
        simulate_phenotype(families.calls, 0.5, n_phenotypes=0)
    with pytest.raises(OptionError, match="no variant varies"):
        simulate_phenotype(np.ones((3, 4), np.int8), 0.5)
