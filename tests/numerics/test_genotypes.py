from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dasklmm.errors import OptionError, ShapeError
from dasklmm.numerics import genotypes
from dasklmm.numerics.genotypes import (
    BlockStatistics,
    Gram,
    block_statistics,
    calls_to_dosage,
    centered,
    gram,
    imputed,
    standardise,
)

METHODS = ("rrm", "grm", "centered")
shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
calls = hnp.arrays(np.int8, shapes, elements=st.sampled_from([-2, -1, 0, 1, 2]))
wild_calls = hnp.arrays(np.int8, shapes)
dosages = hnp.arrays(np.float32, shapes, elements=st.floats(0, 2, width=32) | st.just(np.float32(np.nan)))
blocks = st.one_of(calls, wild_calls, dosages)


def naive_row(row):
    """Called values, mean, centred sum of squares of one variant, in float64."""
    row = (
        row.astype(np.float64) if row.dtype.kind == "f" else np.where(row < 0, np.nan, row.astype(np.float64))
    )
    called = row[~np.isnan(row)]
    mean = called.mean() if called.size else np.nan
    return row, called, mean, ((called - mean) ** 2).sum()


def naive_z(block, method):
    rows = []
    for values in block:
        row, called, mean, squares = naive_row(values)
        if called.size == 0 or (called == called[0]).all():
            continue
        if method == "rrm":
            scale = np.sqrt(row.size) / np.sqrt(squares)
        elif method == "grm":
            f = mean / 2
            if not 0 < f < 1:
                continue
            scale = 1 / np.sqrt(2 * f * (1 - f))
        else:
            scale = 1.0
        rows.append(np.where(np.isnan(row), 0.0, (row - mean) * scale))
    return np.array(rows).reshape(-1, block.shape[1])


def random_calls(m, n, missing=0.05, seed=0):
    rng = np.random.default_rng(seed)
    block = rng.binomial(2, rng.uniform(0.1, 0.9, (m, 1)), (m, n)).astype(np.int8)
    block[rng.random((m, n)) < missing] = -1
    return block


@given(blocks)
def test_statistics_agree_with_naive_formulas(block):
    stats = block_statistics(block)
    assert stats.n_called.dtype == np.int64
    for i, values in enumerate(block):
        _, called, mean, squares = naive_row(values)
        assert stats.n_called[i] == called.size
        assert stats.all_missing[i] == (called.size == 0)
        assert stats.constant[i] == (called.size > 0 and (called == called[0]).all())
        np.testing.assert_allclose(stats.mean[i], mean, rtol=1e-14, atol=1e-30)
        if called.size:
            np.testing.assert_allclose(stats.sum_squares_centered[i], squares, rtol=1e-12, atol=1e-30)
        else:
            assert np.isnan(stats.sum_squares_centered[i])
    assert not stats.not_finite.any()


@given(blocks, st.booleans(), st.sampled_from([np.float32, np.float64]))
def test_centered_and_imputed_agree_with_naive_formulas(block, mean_impute, dtype):
    stats = block_statistics(block)
    c = centered(block, stats, dtype, mean_impute)
    g = imputed(block, stats, dtype)
    assert c.dtype == g.dtype == dtype
    tolerance = {"rtol": 1e-12, "atol": 1e-12} if dtype == np.float64 else {"rtol": 1e-5, "atol": 2e-5}
    for i, values in enumerate(block):
        row, _, mean, _ = naive_row(values)
        expected = row - mean
        np.testing.assert_allclose(c[i], np.nan_to_num(expected) if mean_impute else expected, **tolerance)
        np.testing.assert_allclose(g[i], np.where(np.isnan(row), mean, row), **tolerance)


@given(blocks, st.sampled_from(METHODS))
def test_standardise_and_gram_agree_with_naive_formulas(block, method):
    expected = naive_z(block, method)
    z, kept = standardise(block, method, np.float64)
    assert kept == expected.shape[0]
    np.testing.assert_allclose(z, expected, rtol=1e-9, atol=1e-9)
    result = gram(block, method, np.float64)
    assert result.n_variants == kept
    size = max(1.0, np.abs(expected).max(initial=0.0) ** 2)
    np.testing.assert_allclose(result.matrix, expected.T @ expected, rtol=1e-9, atol=1e-9 * size)


@given(calls, st.data())
@settings(max_examples=50)
def test_sample_subset_is_the_same_as_taking_columns_first(block, data):
    n = block.shape[1]
    samples = np.array(data.draw(st.permutations(range(n)))[: data.draw(st.integers(1, n))])
    taken = np.ascontiguousarray(block[:, samples])
    stats, expected = block_statistics(block, samples), block_statistics(taken)
    for name in BlockStatistics.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(stats, name), getattr(expected, name))
    np.testing.assert_array_equal(centered(block, stats, samples=samples), centered(taken, stats))
    np.testing.assert_array_equal(imputed(block, stats, samples=samples), imputed(taken, stats))
    for method in METHODS:
        np.testing.assert_array_equal(
            standardise(block, method, samples=samples)[0], standardise(taken, method)[0]
        )
        np.testing.assert_array_equal(gram(block, method, samples=samples).matrix, gram(taken, method).matrix)


def test_statistics_do_not_depend_on_the_layout_or_the_block():
    for block in (random_calls(301, 2500), calls_to_dosage(random_calls(301, 2500), np.float64) / 3):
        whole = block_statistics(block)
        for other in (np.asfortranarray(block), np.repeat(block, 2, axis=1)[:, ::2]):
            np.testing.assert_array_equal(block_statistics(other).mean, whole.mean)
            np.testing.assert_array_equal(centered(other, whole), centered(block, whole))
        for start in (0, 17, 300):
            one = block_statistics(block[start : start + 1])
            assert one.mean[0] == whole.mean[start]
            assert one.sum_squares_centered[0] == whole.sum_squares_centered[start]


def test_int8_counts_are_exact_over_many_samples():
    block = np.full((2, 300_001), 127, dtype=np.int8)
    block[1, 0] = 126
    stats = block_statistics(block)
    n = 300_001
    assert stats.constant.tolist() == [True, False]
    assert stats.sum_squares_centered[0] == 0.0
    assert stats.mean[1] == (127 * n - 1) / n
    assert stats.sum_squares_centered[1] == pytest.approx((n - 1) / n, rel=1e-15)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.float32, np.float64])
def test_other_dtypes_give_the_numbers_of_int8(dtype):
    block = random_calls(40, 60)
    other = calls_to_dosage(block, dtype) if np.dtype(dtype).kind == "f" else block.astype(dtype)
    expected, stats = block_statistics(block), block_statistics(other)
    np.testing.assert_array_equal(stats.n_called, expected.n_called)
    np.testing.assert_allclose(stats.mean, expected.mean, rtol=1e-14)
    np.testing.assert_allclose(centered(other, stats), centered(block, expected), rtol=1e-6, atol=1e-6)


def test_flags_of_each_kind_of_variant():
    block = np.array(
        [
            [0, 1, 2, 1],
            [1, 1, np.nan, 1],
            [np.nan] * 4,
            [0, np.inf, 1, np.nan],
            [np.inf, -np.inf, 1, 2],
            [np.inf] * 4,
            [0.1, 0.1, 0.1, np.nan],
        ]
    )
    stats = block_statistics(block)
    assert stats.n_called.tolist() == [4, 3, 0, 3, 4, 4, 3]
    assert stats.constant.tolist() == [False, True, False, False, False, False, True]
    assert stats.all_missing.tolist() == [False, False, True, False, False, False, False]
    assert stats.not_finite.tolist() == [False, False, False, True, True, True, False]
    assert stats.varies.tolist() == [True] + [False] * 6
    assert stats.mean[6] == 0.1
    assert np.isnan(stats.mean[2:6]).all()
    c = centered(block, stats)
    np.testing.assert_array_equal(c[1:], 0.0)
    np.testing.assert_array_equal(c[0], [-1, 0, 1, 0])
    g = imputed(block, stats, np.float64)
    np.testing.assert_array_equal(g[1], 1.0)
    assert np.isnan(g[2:6]).all()
    for method in METHODS:
        z, kept = standardise(block, method)
        assert kept == z.shape[0] == 1
        result = gram(block, method)
        assert result.n_variants == 1
        assert np.isfinite(result.matrix).all()


def test_rows_take_the_statistics_of_some_variants():
    block = random_calls(10, 20)
    stats = block_statistics(block)
    part = stats.rows(slice(3, 7))
    np.testing.assert_array_equal(part.mean, stats.mean[3:7])
    np.testing.assert_array_equal(centered(block[3:7], part), centered(block, stats)[3:7])


def test_grm_drops_frequencies_outside_the_range():
    block = np.array([[2.0, 2.0, 2.5], [-0.5, 0.0, 0.0], [0, 1, 2]], dtype=np.float64)
    assert standardise(block, "grm")[1] == 1
    assert standardise(block, "rrm")[1] == 3


def test_calls_to_dosage():
    block = np.array([[0, 1, 2], [-1, -2, 1]], dtype=np.int8)
    out = calls_to_dosage(block)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, [[0, 1, 2], [np.nan, np.nan, 1]])
    dosage = np.array([[0.25, np.nan, -0.5]])
    passed = calls_to_dosage(dosage, np.float64)
    np.testing.assert_array_equal(passed, dosage)
    assert not np.shares_memory(passed, dosage)


def test_gram_is_exactly_symmetric_and_adds_over_variants(monkeypatch):
    monkeypatch.setattr(genotypes, "GRAM_TILE", 64)
    block = random_calls(500, 90)
    block[7] = 1
    for method in METHODS:
        for dtype, tolerance in ((np.float32, 1e-5), (np.float64, 1e-12)):
            whole = gram(block, method, dtype)
            assert whole.n_variants == 499
            assert whole.matrix.dtype == np.float64
            np.testing.assert_array_equal(whole.matrix, whole.matrix.T)
            exact = naive_z(block, method)
            exact = exact.T @ exact
            assert np.abs(whole.matrix - exact).max() < tolerance * np.abs(exact).max()
            parts = gram(block[:130], method, dtype) + gram(block[130:], method, dtype)
            assert parts.n_variants == 499
            assert np.abs(parts.matrix - exact).max() < tolerance * np.abs(exact).max()
            rest = whole - gram(block[:130], method, dtype)
            assert rest.n_variants == 499 - 129


@pytest.mark.parametrize("rows", [1, 50, 95, 96, 97, 160, 500, 64 * 7])
def test_updates_of_a_gram_matrix_are_equal_parts(rows, monkeypatch):
    monkeypatch.setattr(genotypes, "GRAM_TILE", 64)
    made = []
    standard = genotypes.standardise
    monkeypatch.setattr(
        genotypes, "standardise", lambda block, *a: (made.append(len(block)), standard(block, *a))[1]
    )
    gram(random_calls(rows, 20), "rrm", np.float64)
    assert sum(made) == rows
    assert max(made) == genotypes.gram_tile(rows) <= 96
    assert max(made) - min(made) < len(made)


def test_updates_have_the_variants_that_memory_is_planned_for():
    assert max(map(genotypes.gram_tile, range(20_000))) == genotypes.MOST_IN_GRAM_TILE - 1


def test_rrm_kinship_has_trace_n_and_no_mean():
    result = gram(random_calls(300, 50), "rrm", np.float64)
    k = result.matrix / result.n_variants
    assert np.trace(k) == pytest.approx(50, rel=1e-12)
    np.testing.assert_allclose(k.sum(axis=0), 0.0, atol=1e-12)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_empty_blocks(shape):
    for block in (np.empty(shape, np.int8), np.empty(shape, np.float32)):
        stats = block_statistics(block)
        assert centered(block, stats).shape == imputed(block, stats).shape == shape
        result = gram(block, "rrm")
        assert result.n_variants == 0
        np.testing.assert_array_equal(result.matrix, np.zeros((shape[1], shape[1])))


def test_inputs_are_not_changed():
    for block in (random_calls(30, 40), calls_to_dosage(random_calls(30, 40))):
        block.flags.writeable = False
        stats = block_statistics(block)
        centered(block, stats), imputed(block, stats), gram(block, "grm"), calls_to_dosage(block)


def test_bad_input_is_named():
    block = random_calls(4, 5)
    with pytest.raises(ShapeError, match=r"\(5,\).*\(variant, sample\)"):
        block_statistics(block[0])
    with pytest.raises(OptionError, match="dtype bool"):
        block_statistics(block > 0)
    with pytest.raises(ShapeError, match=r"3 variants.*block of 4"):
        centered(block, block_statistics(block[:3]))
    with pytest.raises(OptionError, match=r"'gcta'.*rrm, grm, centered"):
        standardise(block, "gcta")
    with pytest.raises(OptionError, match=r"int8.*float32 or float64"):
        calls_to_dosage(block, np.int8)
    with pytest.raises(ShapeError, match=r"\(2, 2\) and \(3, 3\)"):
        Gram(np.eye(2), 1) + Gram(np.eye(3), 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [np.int8, np.int16, np.float64])
@pytest.mark.parametrize("center", [True, False])
def test_counts_and_dosages_together_are_those_of_each(dtype, kind, center):
    rng = np.random.default_rng(5)
    block = rng.integers(-1, 3, (150, 3000)).astype(kind)
    block[3], block[4], block[5, 7:] = 2, -1, -1
    if kind == np.float64:
        block[block < 0] = np.nan
        block[6, 2], block[7, 3] = np.inf, 1e39  # more than single precision holds, said by nobody
    columns = rng.permutation(3000)[:2500]
    counts = genotypes.block_statistics(block, columns)
    got, counted = genotypes.counted_dosages(block, dtype, center=center, samples=columns)
    alone = (genotypes.centered if center else genotypes.imputed)(block, counts, dtype, samples=columns)
    np.testing.assert_array_equal(got, alone)
    for field in fields(counts):
        np.testing.assert_array_equal(getattr(counted, field.name), getattr(counts, field.name))


@pytest.mark.parametrize("largest", [2, 3, 127])
def test_sums_of_calls_are_exact(largest):
    rng = np.random.default_rng(6)
    block = rng.integers(0, largest + 1, (3, 20_000)).astype(np.int8)
    block[1] = largest
    counts = genotypes.block_statistics(block)
    exact = block.astype(np.int64)
    squares = 20_000 * (exact**2).sum(axis=1) - exact.sum(axis=1) ** 2
    assert counts.mean.tolist() == (exact.sum(axis=1) / 20_000).tolist()
    assert counts.sum_squares_centered.tolist() == (squares / 20_000).tolist()
    assert counts.constant.tolist() == [False, True, False]
