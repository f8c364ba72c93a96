"""Clumping against its definition variant by variant, and r² against numpy.corrcoef."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasklmm import errors
from dasklmm.numerics import clumping
from dasklmm.numerics.clumping import clump_variants, squared_correlations

# clumping ---------------------------------------------------------------------------------------


def clumped(contig, position, score, **options):
    return clump_variants(
        np.asarray(contig),
        np.asarray(position),
        np.asarray(score, dtype=float),
        **{"threshold": 5.0} | options,
    )


def test_by_distance_by_hand():
    position = [100, 200, 300, 301, 900, 150, 150, 1000]
    contig = [0, 0, 0, 0, 0, 1, 1, 0]
    score = [6.0, 9.0, 7.0, 8.0, 5.0, 4.9, 2.0, 4.0]
    found = clumped(contig, position, score, distance=100, secondary=3.0)
    # 300 is within 100 of 200, 301 is not; 300 is 200's, which comes first
    assert found.index.tolist() == [1, 3, 4]
    assert found.member_of.tolist() == [0, 0, 0, 1, 2, -1, -1, 2]


def test_r_squared_by_hand():
    r2 = np.eye(4)
    r2[0, 1] = r2[1, 0] = 0.5
    r2[0, 2] = r2[2, 0] = 0.49
    r2[2, 3] = r2[3, 2] = 0.9
    asked = []

    def r_squared(index, variants):
        asked.append((index, variants.tolist()))
        return r2[index, variants]

    found = clumped([0] * 4, [1, 2, 3, 4], [9, 8, 7, 6], r_squared=r_squared)
    assert found.index.tolist() == [0, 2]
    assert found.member_of.tolist() == [0, 0, 1, 1]
    assert asked == [(0, [1, 2, 3]), (2, [3])]


def test_ties_come_in_order_of_contig_position_and_row():
    found = clumped([1, 0, 0, 0], [1, 60, 50, 50], [7, 7, 7, 7], distance=0)
    assert found.index.tolist() == [2, 1, 0]
    assert found.member_of.tolist() == [2, 1, 0, 0]


def test_unknown_positions_are_one_place_of_their_contig():
    found = clumped([0, 0, 0, 1, 1], [0, -5, 3, 0, 2], [9, 8, 7, 6, 5], distance=10)
    assert found.member_of.tolist() == [0, 0, 1, 2, 3]


def test_without_a_contig_a_variant_is_near_no_other():
    assert clumped([-1, -1, -1], [5, 5, 0], [9, 8, 7]).member_of.tolist() == [0, 1, 2]


def test_rounding_of_r_squared_does_not_part_equal_variants():
    found = clumped([0, 0], [1, 2], [9, 8], r2=1.0, r_squared=lambda i, j: np.full(j.size, 1 - 3e-16))
    assert found.index.tolist() == [0]


def test_no_clump():
    for score in ([], [np.nan, 4.99], [np.nan, np.nan]):
        found = clumped([0] * len(score), list(range(len(score))), score, secondary=1.0)
        assert found.index.size == 0
        assert (found.member_of == -1).all()
        assert found.member_of.size == len(score)


def test_infinite_significance_is_an_index():
    assert clumped([0, 0], [1, 2], [9, np.inf]).index.tolist() == [1]


def test_lengths_that_differ():
    with pytest.raises(errors.ShapeError, match="3, 2 and 3 variants"):
        clumped([0, 0, 0], [1, 2], [1, 2, 3])


@dataclass
class Scan:
    contig: np.ndarray
    position: np.ndarray
    score: np.ndarray
    r2: np.ndarray

    def clump(self, **options):
        return clump_variants(
            self.contig, self.position, self.score, r_squared=lambda i, j: self.r2[i, j], **options
        )

    def near(self, i, j, distance):
        known = self.position[i] > 0, self.position[j] > 0
        if i == j or self.contig[i] != self.contig[j] or self.contig[i] < 0 or known[0] != known[1]:
            return i == j
        return not known[0] or abs(int(self.position[i]) - int(self.position[j])) <= distance

    def rows(self, order):
        return Scan(
            self.contig[order], self.position[order], self.score[order], self.r2[np.ix_(order, order)]
        )


def definition(scan, threshold, secondary, distance, r2):
    """Clump by clump, over plain lists."""
    order = sorted(
        np.flatnonzero(scan.score >= secondary).tolist(),
        key=lambda i: (-scan.score[i], scan.contig[i], max(scan.position[i], 0), i),
    )
    member_of, index = [-1] * scan.score.size, []
    for i in order:
        if member_of[i] < 0 and scan.score[i] >= threshold:
            for j in order:
                if member_of[j] < 0 and (i == j or (scan.near(i, j, distance) and scan.r2[i, j] >= r2)):
                    member_of[j] = len(index)
            index.append(i)
    return index, member_of


@st.composite
def scans(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    m = draw(st.integers(0, 40))
    score = np.where(rng.uniform(size=m) < 0.1, np.nan, rng.uniform(0, 10, m))
    if draw(st.booleans()):
        score = np.round(score)
    r2 = rng.uniform(size=(m, m))
    r2 = np.maximum(r2, r2.T)
    return Scan(rng.integers(-1, 3, m), rng.integers(-2, 60, m), score, r2)


OPTIONS = {
    "threshold": st.sampled_from([0.0, 4.0, 8.0]),
    "secondary": st.sampled_from([0.0, 2.0, 4.0]),
    "distance": st.integers(0, 40),
    "r2": st.sampled_from([0.0, 0.5, 0.9, 1.0]),
}


@given(scans(), st.fixed_dictionaries(OPTIONS))
def test_it_is_the_definition(scan, options):
    options["secondary"] = min(options["secondary"], options["threshold"])
    found = scan.clump(**options)
    index, member_of = definition(scan, **options)
    assert found.index.tolist() == index
    assert found.member_of.tolist() == member_of


@given(scans(), st.fixed_dictionaries(OPTIONS))
def test_what_clumps_promise(scan, options):
    found = scan.clump(**options)
    index, member_of, score = found.index, found.member_of, scan.score
    # every significant variant is in a clump; what is in none is not, or is near no index
    assert (member_of[score >= options["threshold"]] >= 0).all()
    assert (member_of[index] == np.arange(index.size)).all()
    assert (member_of[np.isnan(score)] == -1).all()
    assert (np.diff(score[index]) <= 0).all()
    for i in np.flatnonzero(member_of >= 0):
        leader = index[member_of[i]]
        assert score[i] <= score[leader]
        assert i == leader or (
            scan.near(i, leader, options["distance"]) and scan.r2[i, leader] >= options["r2"]
        )
    for k, i in enumerate(index):
        for j in index[:k]:
            assert not (scan.near(i, j, options["distance"]) and scan.r2[i, j] >= options["r2"])


@given(scans(), st.fixed_dictionaries(OPTIONS), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(scan, options, random):
    # a tie of score and place is settled by the row
    _, first = np.unique(np.stack([scan.contig, np.maximum(scan.position, 0)]), axis=1, return_index=True)
    scan = scan.rows(np.sort(first))
    order = np.array(random.sample(range(first.size), first.size), dtype=np.int64)
    whole, moved = scan.clump(**options), scan.rows(order).clump(**options)
    assert order[moved.index].tolist() == whole.index.tolist()
    assert moved.member_of.tolist() == whole.member_of[order].tolist()


@given(scans(), st.integers(0, 5))
def test_a_limit_keeps_the_first_clumps(scan, at_most):
    whole, some = scan.clump(threshold=2.0), scan.clump(threshold=2.0, at_most=at_most)
    assert some.index.tolist() == whole.index[:at_most].tolist()
    np.testing.assert_array_equal(some.member_of, np.where(whole.member_of < at_most, whole.member_of, -1))


# r² ---------------------------------------------------------------------------------------------


def by_corrcoef(x, block):
    out = []
    for y in block:
        both = ~np.isnan(x) & ~np.isnan(y)
        out.append(np.corrcoef(x[both], y[both])[0, 1] ** 2)
    return np.array(out)


@pytest.mark.parametrize("tile", [1 << 17, 300])
def test_r_squared_of_calls(monkeypatch, tile):
    monkeypatch.setattr(clumping, "_TILE_ELEMENTS", tile)
    rng = np.random.default_rng(3)
    calls = rng.integers(-1, 3, (50, 120)).astype(np.int8)
    floats = np.where(calls < 0, np.nan, calls)
    got = squared_correlations(calls[7], calls)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, by_corrcoef(floats[7], floats), rtol=1e-12, atol=1e-15)
    assert got[7] == pytest.approx(1.0, abs=1e-15)
    samples = rng.permutation(120)[:70]
    got = squared_correlations(calls[7], calls, samples)
    want = by_corrcoef(floats[7, samples], floats[:, samples])
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_r_squared_of_dosages(offset):
    rng = np.random.default_rng(4)
    dosage = rng.uniform(0, 2, (20, 200)) + offset
    dosage[rng.uniform(size=dosage.shape) < 0.1] = np.nan
    got = squared_correlations(dosage[0], dosage)
    np.testing.assert_allclose(got, by_corrcoef(dosage[0], dosage), rtol=1e-8, atol=1e-15)


def test_r_squared_that_is_not_defined_is_zero():
    x = np.array([0, 1, 2, -1, -1], dtype=np.int8)
    block = np.array(
        [[1, 1, 1, 0, 2], [-1, -1, -1, 0, 1], [-1, -1, 2, 0, 1], [-1, 1, 2, 0, 1]], dtype=np.int8
    )
    # constant over the pairs, no pair, one pair, two pairs
    assert squared_correlations(x, block).tolist() == [0.0, 0.0, 0.0, 1.0]
    assert squared_correlations(block[0], x[None], np.array([0, 1, 2])).tolist() == [0.0]
    # 0.1 is not exact: its sum less its mean is not 0
    constant = np.full((2, 1000), 0.1)
    varying = np.random.default_rng(0).uniform(size=1000)
    assert squared_correlations(varying, constant).tolist() == [0.0, 0.0]
    assert squared_correlations(constant[0], varying[None]).tolist() == [0.0]
    assert squared_correlations(x[:0], block[:, :0]).tolist() == [0.0] * 4


def test_an_infinite_dosage_counts_as_missing():
    x, y = np.array([0.0, 1.0, 2.0, 5.0]), np.array([[0.1, 1.0, 1.5, np.inf]])
    want = np.corrcoef(x[:3], y[0, :3])[0, 1] ** 2
    assert squared_correlations(x, y)[0] == pytest.approx(want, rel=1e-12)


def test_r_squared_of_other_samples():
    with pytest.raises(errors.ShapeError, match=r"shape \(4,\) and the block \(2, 5\)"):
        squared_correlations(np.zeros(4), np.zeros((2, 5)))
