"""The plots, read back from their axes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from itertools import pairwise

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from dasklmm import plots
from dasklmm.errors import DimensionError, MissingExtraError, OptionError
from dasklmm.plots import files, whole_genome

pytest.importorskip("matplotlib")

LINE = -np.log10(5e-8)
HIT = (0xD5 / 255, 0x5E / 255, 0.0, 1.0)


def scan(values, contig="1", position=None, **attrs):
    """Results with these -log10 p-values; every 10 kb a variant unless positions are given."""
    values = np.asarray(values, dtype=float)
    position = np.arange(1, values.size + 1) * 10_000 if position is None else position
    contig = np.full(values.size, contig) if isinstance(contig, str) else np.asarray(contig)
    status = np.where(np.isnan(values), "constant", "ok")
    coords = {
        "variant_contig": contig,
        "variant_position": np.asarray(position, dtype=np.int64),
        "variant_id": np.array([f"v{i}" for i in range(values.size)]),
        "variant_effect_allele": np.full(values.size, "A"),
        "variant_other_allele": np.full(values.size, "G"),
    }
    return xr.Dataset(
        {"neg_log10_p_value": ("variant", values), "status": ("variant", status)},
        coords={k: ("variant", v) for k, v in coords.items()},
        attrs={"phenotype": "height", **attrs},
    )


def null(n, seed=0):
    return -np.log10(np.random.default_rng(seed).uniform(size=n))


def points(ax):
    """(point, 2) of everything scattered."""
    return np.concatenate([np.asarray(c.get_offsets()) for c in scattered(ax)])


def scattered(ax):
    return [c for c in ax.collections if type(c).__name__ == "PathCollection" and len(c.get_offsets())]


def texts(ax):
    return [t.get_text() for t in ax.texts]


def ticks(ax):
    return [t.get_text() for t in ax.get_xticklabels()]


def horizontal(ax):
    """Heights of the lines across the axes."""
    return [float(line.get_ydata()[0]) for line in ax.lines if len(set(line.get_ydata())) == 1]


# Manhattan --------------------------------------------------------------------------------------


def test_manhattan_draws_every_tested_variant_and_the_line():
    values = null(500)
    values[:20] = np.nan
    ax = plots.manhattan(scan(values, contig=np.repeat(["1", "2"], 250)))
    np.testing.assert_allclose(np.sort(points(ax)[:, 1]), np.sort(values[20:]))
    assert horizontal(ax) == pytest.approx([LINE])
    assert r"$p = 5 \times 10^{-8}$" in texts(ax)
    assert "log" in ax.get_ylabel()
    assert ax.get_title(loc="left") == "height"
    assert all(c.get_rasterized() for c in scattered(ax))


def test_second_line_and_its_label():
    ax = plots.manhattan(scan(null(50)), significance=1e-6, suggestive=1e-4)
    assert horizontal(ax) == pytest.approx([6.0, 4.0])
    assert r"$p = 1 \times 10^{-4}$" in texts(ax)


@pytest.mark.parametrize("wrong", [{"significance": 0.0}, {"suggestive": 1.5}])
def test_a_line_outside_0_to_1_is_refused(wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        plots.manhattan(scan(null(5)), **wrong)


def test_contigs_are_in_natural_order_and_alternate_in_tone():
    names = ["10", "MT", "2", "X", "chr1", "Y"]
    contig = np.repeat(names, 30)
    ax = plots.manhattan(scan(null(180), contig=contig, position=np.tile(np.arange(1, 31) * 1000, 6)))
    assert ticks(ax) == ["1", "2", "10", "X", "Y", "MT"]
    assert (np.diff(ax.get_xticks()) > 0).all()
    tones = {tuple(c.get_facecolor()[0]) for c in scattered(ax)}
    assert len(tones) == 2
    assert len(points(ax)) == 180


def test_lengths_of_contigs_are_to_scale():
    contig = np.repeat(["1", "2"], 2)
    ax = plots.manhattan(scan([1, 2, 3, 4], contig=contig, position=[1, 3_000_001, 1, 1_000_001]))
    x = {y: x for x, y in points(ax)}
    assert (x[2] - x[1]) / (x[4] - x[3]) == pytest.approx(3.0)


def test_labels_of_many_contigs_do_not_touch():
    names = [f"scaffold_{i}_unplaced_genomic" for i in range(1, 301)]
    ax = plots.manhattan(scan(null(1200), contig=np.repeat(names, 4), position=np.tile([1, 9, 50, 90], 300)))
    ax.figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in ax.get_xticklabels()]
    assert 10 < len(boxes) < 300
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
    # the number that tells scaffolds apart is what is shown
    assert ticks(ax)[0] == "1"
    assert all(label.isdecimal() for label in ticks(ax))
    assert "scaffold_…_unplaced_genomic" in ax.get_xlabel()


def test_short_names_keep_numbers_whole():
    assert whole_genome._short_names(["scaffold_10_unplaced", "scaffold_11_unplaced"])[0] == ["10", "11"]
    assert whole_genome._short_names(["chr1", "chrX", "1"])[0] == ["1", "X", "1"]
    same = "one_name_that_is_long"
    assert whole_genome._short_names([same])[0] == [same[:11] + "…"]


def test_one_contig_has_positions():
    ax = plots.manhattan(scan(null(100), contig="7", position=np.linspace(20e6, 120e6, 100)))
    assert ax.get_xlabel() == "position on 7 (Mb)"
    labels = [float(t) for t in ticks(ax)]
    assert min(labels) >= 19
    assert max(labels) <= 122
    # a tick stands where a variant of its position would
    first = np.array(labels) * 1e6 - ax.get_xticks()
    np.testing.assert_allclose(first, 20e6 - points(ax)[:, 0].min(), rtol=1e-9)


def test_unknown_positions_stand_at_the_end_of_their_contig():
    position = np.tile(np.arange(1, 51) * 1000, 2)
    position[[3, 60]] = [-9, 0]
    values = null(100)
    ax = plots.manhattan(scan(values, contig=np.repeat(["1", "2"], 50), position=position))
    assert ticks(ax) == ["1", "2"]
    assert "unknown position at the end" in ax.get_xlabel()
    by_y = {round(y, 9): x for x, y in points(ax)}
    x = np.array([by_y[round(v, 9)] for v in values])
    known = position > 0
    for row, own in ((3, np.arange(100) < 50), (60, np.arange(100) >= 50)):
        assert x[row] > x[known & own].max()
    assert x[3] < x[50:].min()


def test_variants_without_a_contig_stand_at_the_right():
    contig = np.repeat(["1", "2", ""], 20)
    position = np.concatenate([np.tile(np.arange(1, 21) * 1000, 2), np.zeros(20, int)])
    ax = plots.manhattan(scan(null(60), contig=contig, position=position))
    assert ticks(ax) == ["1", "2", "?"]
    assert "? contig unknown" in ax.get_xlabel()
    assert len(points(ax)) == 60


@pytest.mark.parametrize("position", [0, -9])
def test_no_position_at_all(position):
    values = null(60)
    ax = plots.manhattan(scan(values, contig=np.repeat(["1", "2"], 30), position=np.full(60, position)))
    assert ticks(ax) == ["1", "2"]
    assert len(np.unique(points(ax)[:, 0])) == 60


def test_without_coordinates():
    results = scan(null(40)).drop_vars(["variant_contig", "variant_position", "variant_id"])
    ax = plots.manhattan(results)
    assert len(points(ax)) == 40
    assert "order of the results" in ax.get_xlabel()


def test_tops_of_towers_are_named():
    values = null(3000, seed=3).clip(max=5)
    values[[500, 501, 1500, 2900]] = [20, 18, 12, 9]
    contig = np.repeat(["1", "2", "3"], 1000)
    results = scan(values, contig=contig)
    ax = plots.manhattan(results)
    # v501 is in the same window as the stronger v500
    assert {t for t in texts(ax) if t.startswith("v")} == {"v500", "v1500", "v2900"}
    red = [c for c in scattered(ax) if tuple(c.get_facecolor()[0]) == pytest.approx(HIT)]
    assert sorted(np.asarray(red[0].get_offsets())[:, 1]) == [9, 12, 18, 20]
    assert {t for t in texts(plots.manhattan(results, label_top=1)) if t.startswith("v")} == {"v500"}
    assert not [t for t in texts(plots.manhattan(results, label_top=False)) if t.startswith("v")]


def test_names_of_neighbouring_towers_do_not_overlap():
    values = null(2000, seed=4).clip(max=4)
    values[100:2000:120] = np.linspace(8, 9, 16)
    ax = plots.manhattan(scan(values, position=np.arange(1, 2001) * 50_000))
    ax.figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in ax.texts if t.get_text().startswith("v")]
    assert 1 < len(boxes) <= 8
    for i, a in enumerate(boxes):
        assert not any(a.overlaps(b) for b in boxes[i + 1 :])


def test_no_hits_leave_room_for_the_line():
    ax = plots.manhattan(scan(null(100).clip(max=2)))
    assert ax.get_ylim()[1] > LINE
    assert not [t for t in texts(ax) if t.startswith("v")]


@pytest.mark.parametrize("draw", [plots.manhattan, plots.qq])
def test_nothing_tested_is_said(draw):
    ax = draw(scan(np.full(30, np.nan)))
    assert "No variant has a p-value" in " ".join(texts(ax))
    assert "constant 30" in " ".join(texts(ax))
    assert not scattered(ax)
    assert plots.png(ax).startswith(b"\x89PNG")


@pytest.mark.parametrize("draw", [plots.manhattan, plots.qq])
def test_no_variants(draw):
    assert plots.png(draw(scan([]))).startswith(b"\x89PNG")


@pytest.mark.parametrize("draw", [plots.manhattan, plots.qq])
def test_a_p_value_of_1e_5000(draw):
    values = null(400)
    values[7] = 5000.0
    ax = draw(scan(values))
    assert points(ax)[:, 1].max() == 5000
    assert "logarithmic above 20" in ax.get_ylabel()
    # the rest is not flattened: a height of 10 stands well above the floor, 5000 within the axes
    low, ten, top = ax.transAxes.inverted().transform(ax.transData.transform([(0, 0), (0, 10), (0, 5000)]))[
        :, 1
    ]
    assert low == pytest.approx(0.0)
    assert ten > 0.2
    assert 0.8 < top <= 1.0
    assert plots.png(ax).startswith(b"\x89PNG")


def test_an_infinite_value_is_drawn_at_the_top():
    values = null(50)
    values[3] = np.inf
    for draw in (plots.manhattan, plots.qq):
        assert np.isfinite(points(draw(scan(values)))).all()


def test_many_variants_are_thinned_and_keep_their_tops():
    # every position thrice, with about the same p-value: one point to the eye
    one = null(40_000, seed=5)
    one[[1000, 15_000]] = [30, 11]
    values = np.concatenate([one, one - 1e-9, one - 2e-9])
    ax = plots.manhattan(scan(values, position=np.tile(np.arange(1, 40_001) * 1000, 3)))
    drawn = points(ax)[:, 1]
    assert len(drawn) < 45_000
    assert set(np.sort(one)[-200:]) <= set(drawn)


def test_dask_backed_results():
    results = scan(null(100))
    lazy = results.assign(
        neg_log10_p_value=("variant", da.from_array(results["neg_log10_p_value"].values, chunks=30))
    )
    for draw in (plots.manhattan, plots.qq):
        np.testing.assert_array_equal(points(draw(lazy)), points(draw(results)))


def test_text_is_never_read_as_mathematics():
    values = null(100).clip(max=4)
    values[50] = 20
    results = scan(values, contig="chr$1$", phenotype="$x_{$")
    results["variant_id"].values[:] = "$\\frac$"
    for draw in (plots.manhattan, plots.qq):
        assert plots.png(draw(results)).startswith(b"\x89PNG")


# quantiles --------------------------------------------------------------------------------------


def test_qq_of_uniform_p_values_is_the_diagonal():
    n = 999
    ax = plots.qq(scan(-np.log10(np.arange(1, n + 1) / (n + 1))))
    drawn = points(ax)
    assert len(drawn) == n
    np.testing.assert_allclose(drawn[:, 0], drawn[:, 1], rtol=1e-12)
    assert any("= 1.000" in t and "999 variants" in t for t in texts(ax))
    assert ax.get_legend().get_texts()[0].get_text() == "95 % band"
    assert "expected" in ax.get_xlabel()
    assert "observed" in ax.get_ylabel()


def test_qq_band_holds_the_diagonal_and_is_widest_at_the_end():
    ax = plots.qq(scan(null(2000)))
    band = next(c for c in ax.collections if type(c).__name__ == "FillBetweenPolyCollection")
    edges = band.get_paths()[0].vertices
    x = np.unique(edges[:, 0])
    width = np.array([np.ptp(edges[edges[:, 0] == v, 1]) for v in x])
    assert width[-1] > 10 * width[len(x) // 10] > 0
    last = edges[edges[:, 0] == x[-1], 1]
    assert last.min() < x[-1] < last.max()


# heritability -----------------------------------------------------------------------------------


def profile_at(h):
    grid = np.arange(101) / 100
    values = np.exp(-0.5 * ((grid - h) / 0.05) ** 2)
    values[[0, -1]] = np.nan
    return values / np.nansum(values)


def test_h_sq_profile_of_an_array_and_of_a_model():
    class Model:
        def h_sq_normalized_lkhd(self):
            return profile_at(0.3)

    for source in (profile_at(0.3), Model()):
        ax = plots.h_sq_profile(source)
        assert "0.30" in texts(ax)
        curve = ax.lines[0]
        np.testing.assert_allclose(curve.get_ydata(), profile_at(0.3)[1:-1])
        assert ax.get_xlim() == (0, 1)


def test_h_sq_profile_of_the_wrong_length():
    with pytest.raises(DimensionError, match="101"):
        plots.h_sq_profile(np.ones(100))


def test_h_sq_profile_that_is_unknown_is_said():
    assert texts(plots.h_sq_profile(np.full(101, np.nan))) == ["The likelihood is not known"]


# files and figures ------------------------------------------------------------------------------


def test_axes_of_the_caller_are_used():
    from matplotlib.figure import Figure

    figure = Figure()
    ax = figure.add_subplot()
    assert plots.manhattan(scan(null(20)), ax) is ax
    assert plots.qq(scan(null(20)), figure.add_subplot()).figure is figure


def test_save_plots_writes_whole_files_and_the_same_again(tmp_path):
    results = scan(null(300))
    plots.save_plots(results, tmp_path / "a")
    plots.save_plots(results, tmp_path / "b")
    assert {p.name for p in (tmp_path / "a").iterdir()} == {"manhattan.png", "qq.png"}
    for name in ("manhattan.png", "qq.png"):
        first = (tmp_path / "a" / name).read_bytes()
        assert first.startswith(b"\x89PNG")
        assert first.endswith(b"IEND\xaeB`\x82")
        assert first == (tmp_path / "b" / name).read_bytes()


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    plots.save_plots(scan(null(30)), tmp_path)
    before = (tmp_path / "qq.png").read_bytes()

    def refuse(*_):
        raise OSError("no space")

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(OSError, match="no space"):
        plots.save_plots(scan(null(30, seed=1)), tmp_path)
    assert (tmp_path / "qq.png").read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))


def test_without_matplotlib_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dasklmm\[plot\]'"):
        plots.manhattan(scan(null(5)))


def test_scripts_do_not_leave_figures_to_pyplot_unless_it_is_interactive():
    from matplotlib import pyplot

    plots.qq(scan(null(20)))
    assert pyplot.get_fignums() == []
    with pyplot.ion():
        ax = plots.qq(scan(null(20)))
        assert pyplot.gca() is ax
    pyplot.close(ax.figure)


def test_pyplot_is_not_imported_in_a_script():
    code = textwrap.dedent(
        """
        import sys
        import numpy as np, xarray as xr
        from dasklmm import plots
        assert "matplotlib" not in sys.modules
        r = xr.Dataset({"neg_log10_p_value": ("variant", np.arange(9.0))})
        plots.png(plots.manhattan(r)), plots.png(plots.qq(r))
        print("matplotlib.pyplot" in sys.modules)
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr
