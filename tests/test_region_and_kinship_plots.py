"""Regional plot, kinship heat map and scree, read back from their axes."""

from __future__ import annotations

import matplotlib.colors as mc
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

import dasklmm
from dasklmm import plots
from dasklmm.errors import KinshipError, OptionError, ShapeError
from dasklmm.plots import relatedness
from dasklmm.plots.region import R_SQUARED_COLORS


@pytest.fixture(scope="module")
def cohort():
    return dasklmm.simulate(
        150, 800, n_contigs=2, n_causal=2, causal_variance=0.5, linkage_length=3e6, seed=8
    )


@pytest.fixture(scope="module")
def results(cohort):
    return dasklmm.gwas(cohort, cohort["phenotype"].rename("trait"))


def drawn(ax):
    """(position in Mb, -log10 p, colour) of every point."""
    return [
        (float(x), float(y), mc.to_hex(color))
        for points in ax.collections
        for (x, y), color in zip(
            points.get_offsets(), np.resize(points.get_facecolor(), (10**4, 4)), strict=False
        )
    ]


def test_regional(cohort, results):
    window = 8_000_000
    ax = plots.regional(results, cohort, window=window)
    y = results["neg_log10_p_value"].values
    lead = int(np.nanargmax(y))
    contig, position = results["variant_contig"].values, results["variant_position"].values
    near = (contig == contig[lead]) & (np.abs(position - position[lead]) <= window)
    found = {(round(x, 9), round(height, 9)): color for x, height, color in drawn(ax)}
    assert len(found) == near.sum() > 20
    g = cohort["dosage"].values.astype(float)
    steps = set()
    for row in np.flatnonzero(near):
        color = found[round(position[row] / 1e6, 9), round(y[row], 9)]
        both = (g[row] >= 0) & (g[lead] >= 0)
        step = min(int(np.corrcoef(g[row, both], g[lead, both])[0, 1] ** 2 * 5), 4)
        assert color == ("#d55e00" if row == lead else R_SQUARED_COLORS[step])
        steps.add(step)
    assert len(steps) >= 3
    assert results["variant_id"].values[lead] in [t.get_text() for t in ax.texts]
    assert ax.get_xlabel() == f"position on {contig[lead]} (Mb)"


def test_regional_reads_its_window_alone(cohort, results):
    """Genotypes elsewhere are not read."""
    lead = int(np.nanargmax(results["neg_log10_p_value"].values))
    near = cohort["variant_position"].values[lead]
    here = (cohort["variant_contig"] == cohort["variant_contig"][lead]).values
    here &= np.abs(cohort["variant_position"].values - near) <= 10**6
    read = []

    def note(block, block_info=None):
        read.append(block_info[0]["array-location"][0])
        return block

    data = cohort["dosage"].data.rechunk({0: 20, 1: -1}).map_blocks(note, dtype=np.int8)
    read.clear()
    plots.regional(results, cohort.assign(dosage=(("variant", "sample"), data)), window=10**6)
    assert read
    rows = np.flatnonzero(here)
    assert min(a for a, _ in read) > rows[0] - 20
    assert max(b for _, b in read) <= rows[-1] + 20


def test_regional_of_a_named_lead_without_genotypes(results):
    figure = Figure()
    ax = figure.add_subplot()
    name = results["variant_id"].values[5]
    assert plots.regional(results, ax=ax, lead=name, window=10**6) is ax
    assert name in [t.get_text() for t in ax.texts]
    assert len({color for *_, color in drawn(ax)}) == 2
    assert ax.get_legend() is None


def test_regional_says_what_was_not_tested(results):
    y = results["neg_log10_p_value"].copy()
    lead = int(np.nanargmax(y.values))
    y[[lead - 1, lead + 1]] = np.nan
    ax = plots.regional(results.assign(neg_log10_p_value=y), window=10**8)
    assert "2 not tested" in [t.get_text() for t in ax.texts]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lead": "nobody"}, "the id of no variant"),
        ({"window": 0}, "window is 0"),
        ({"significance": 2}, "significance is 2"),
    ],
)
def test_regional_refuses(results, options, message):
    with pytest.raises(OptionError, match=message):
        plots.regional(results, **options)


def test_regional_refuses_other_results(cohort, results):
    with pytest.raises(OptionError, match="has both a test and a position"):
        plots.regional(results.assign(neg_log10_p_value=results["neg_log10_p_value"] * np.nan))
    with pytest.raises(OptionError, match="no variant_position"):
        plots.regional(results.drop_vars("variant_position"))
    with pytest.raises(ShapeError, match="800 variants and the genotypes 799"):
        plots.regional(results, cohort.isel(variant=slice(799)))


def test_kinship_heatmap_puts_relatives_together():
    """Two shuffled groups are two blocks, whatever the order of the samples."""
    group = np.random.default_rng(0).permutation(np.repeat([0, 1], 20))
    k = np.where(group[:, None] == group, 0.4, -0.3) + np.eye(40)
    ax = plots.kinship_heatmap(k)
    cells = ax.images[0].get_array()
    np.testing.assert_allclose(cells[:20, :20] - np.eye(20), 0.4)
    np.testing.assert_allclose(cells[:20, 20:], -0.3)
    assert ax.images[0].norm.vmax == -ax.images[0].norm.vmin == pytest.approx(0.4)
    given = plots.kinship_heatmap(k, order="given").images[0].get_array()
    np.testing.assert_array_equal(given, k)


def test_kinship_heatmap_of_many_samples(cohort, tmp_path, monkeypatch):
    """Cells are means of blocks, read from where it is kept; the last ones are of fewer."""
    monkeypatch.setattr(relatedness, "_CELLS", 40)
    monkeypatch.setattr(relatedness, "_CLUSTERED", 100)
    monkeypatch.setattr(relatedness, "_ROW_BYTES", 8 * 150 * 10)
    k = dasklmm.kinship(cohort, store=tmp_path / "k.zarr").values
    figure = Figure()
    ax = figure.add_subplot()
    assert plots.kinship_heatmap(tmp_path / "k.zarr", ax=ax) is ax
    cells = ax.images[0].get_array()
    assert cells.shape == (38, 38)
    for i, j in ((0, 0), (3, 20), (37, 5), (37, 37)):
        assert cells[i, j] == pytest.approx(k[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean())
    assert "means of 4 x 4" in ax.get_xlabel()
    with pytest.raises(OptionError, match="up to 100 are clustered"):
        plots.kinship_heatmap(k, order="clustered")


def test_kinship_heatmap_refuses():
    with pytest.raises(KinshipError, match=r"shape \(2, 3\)"):
        plots.kinship_heatmap(np.ones((2, 3)))
    with pytest.raises(KinshipError, match="1 values that are not finite"):
        plots.kinship_heatmap(np.diag([1.0, np.nan]))
    with pytest.raises(OptionError, match="order is 'sorted'"):
        plots.kinship_heatmap(np.eye(3), order="sorted")


def test_scree(cohort):
    pairs = dasklmm.eigendecompose(dasklmm.kinship(cohort))
    figure = Figure()
    ax = figure.add_subplot()
    assert plots.scree(pairs, ax=ax, most=50) is ax
    s = pairs["s"].values
    np.testing.assert_allclose(ax.lines[0].get_ydata(), s[:50])
    (share,) = (other for other in figure.axes if other is not ax)
    np.testing.assert_allclose(share.lines[0].get_ydata(), np.cumsum(s[:50]) / s.sum())
    low = plots.scree(pairs.isel(eigen=slice(10)))
    assert low.get_xlabel() == "eigenvector (leading 10 of 150)"
    assert len(low.figure.axes) == 1
    np.testing.assert_allclose(plots.scree(s[::-1]).lines[0].get_ydata(), s)


def test_scree_of_a_model(cohort):
    model, _ = dasklmm.LinearMixedModel.from_kinship(
        cohort["phenotype"].values, np.ones((150, 1)), dasklmm.kinship(cohort).values
    )
    ax = plots.scree(model)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.sort(model.s)[::-1])
    assert len(ax.figure.axes) == 2


@pytest.mark.parametrize("wrong", [[], [1.0, np.nan], np.ones((2, 2))])
def test_scree_refuses(wrong):
    with pytest.raises(OptionError, match="finite eigenvalues"):
        plots.scree(wrong)


def test_phenotype_of_several(cohort):
    table = xr.Dataset({"a": cohort["phenotype"], "b": -cohort["phenotype"]}).to_dataframe()
    table.index = cohort["sample_id"].values
    several = dasklmm.gwas(cohort, table[["a", "b"]])
    with pytest.raises(OptionError, match="hold 2 phenotypes; one is needed"):
        plots.regional(several)
