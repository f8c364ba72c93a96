"""The page, parsed as a browser would."""

from __future__ import annotations

import base64
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr

from dasklmm import export, report
from dasklmm.errors import OptionError
from dasklmm.numerics.records import STATUS_LABELS

HOSTILE = "<script>alert('x')</script>&\"$"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Elements with their attributes, rows of tables as text, all text; fails on tags that do not nest."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.rows, self.text, self.open = [], [], "", []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append((dict(attrs), []))
        if tag in ("td", "th"):
            self.rows[-1][1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if "tr" in self.open and self.rows[-1][1]:
            self.rows[-1][1][-1] += data

    def row(self, first):
        return next(cells for _, cells in self.rows if cells[0] == first)

    def tags(self):
        return {tag for tag, _ in self.elements}


def null_model(contig="all", **changed):
    return {
        "contig": contig, "h_sq": 0.5966, "h_sq_standard_error": 0.0324, "pve": 0.5961, "log_gamma": 0.391,
        "gamma": 1.4791, "sigma_sq": 0.5025, "tau_sq": 0.3397, "n": 1410, "rank": 1409, "at_boundary": False,
        **changed,
    }  # fmt: skip


def scan(values=(1.0, 0.3, 9.25, 0.6), status=None, contig="1", **attrs):
    values = np.asarray(values, dtype=float)
    m = values.size
    status = np.where(np.isnan(values), "constant", "ok") if status is None else np.asarray(status)
    with np.errstate(under="ignore"):
        variables = {
            "n": np.full(m, 1410),
            "effect_allele_frequency": np.full(m, 0.25),
            "beta": np.full(m, -0.125),
            "standard_error": np.full(m, 0.03),
            "p_value": 10.0**-values,
            "neg_log10_p_value": values,
            "status": status,
        }
    coords = {
        "variant_contig": np.full(m, contig),
        "variant_position": np.arange(1, m + 1) * 2_000_000,
        "variant_id": np.array([f"rs{i}" for i in range(m)], dtype="<U40"),
        "variant_effect_allele": np.full(m, "A"),
        "variant_other_allele": np.full(m, "G"),
    }
    known = {
        "phenotype": "CD8", "test": "lrt", "kinship": "rrm", "loco": False, "precision": "single",
        "intercept": True, "covariates": ["intercept", "age", "sex"], "n": 1410, "n_covariates": 3,
        "rank": 1410, "dasklmm_version": "9.8.7", "created": "2026-01-02T03:04:05+00:00",
        "counts": {"samples_in_genotypes": 1940, "samples_with_phenotype": 1500, "samples_used": 1410,
                   "variants": m, "variants_in_kinship": 10992, "status_ok": m},
        "null": [null_model()], "seconds": {"kinship": 12.25, "test": 3.5},
    }  # fmt: skip
    return xr.Dataset(
        {k: ("variant", v) for k, v in variables.items()},
        coords={k: ("variant", v) for k, v in coords.items()},
        attrs=known | attrs,
    )


def written(tmp_path, results, **options):
    report.write_report(results, tmp_path / "report.html", **options)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return written(tmp_path_factory.mktemp("report"), scan())


def test_title_and_sentence(page):
    assert "CD8" in page.text
    assert ("html", {"lang": "en"}) in page.elements
    sentence = re.search(r"4 of 4 variants were tested.*?\.", page.text).group()
    for words in ("1,410 samples", "likelihood-ratio test", "realized relationship matrix", "age, sex"):
        assert words in sentence
    assert "leave-one-contig-out" not in page.text


def test_the_page_needs_nothing_else(page):
    assert not page.tags() & {"script", "link", "iframe", "object"}
    sources = [a["src"] for tag, a in page.elements if tag == "img"]
    assert len(sources) == 2
    for source in sources:
        head, data = source.split(",", 1)
        assert head == "data:image/png;base64"
        assert base64.b64decode(data, validate=True).startswith(b"\x89PNG")
    assert not [a for _, a in page.elements if any(str(v).startswith("http") for v in a.values())]
    assert all(a.get("alt") for tag, a in page.elements if tag == "img")


def test_styles_are_inline_for_light_and_dark(tmp_path):
    report.write_report(scan(), tmp_path / "r.html")
    html = (tmp_path / "r.html").read_text()
    assert "prefers-color-scheme: dark" in html
    assert "@import" not in html
    assert "url(" not in html


def test_null_model(page):
    heads = page.row("contig")
    cells = dict(zip(heads, page.row("all"), strict=True))
    assert cells["h²"] == "0.5966"
    assert cells["SE of h²"] == "0.0324"
    assert cells["σ²"] == "0.5025"
    assert cells["τ²"] == "0.3397"
    assert cells["γ"] == "1.479"
    assert cells["rank"] == "1,409"
    assert "At a bound" not in page.text


def test_loco_lists_each_contig_and_explains_a_bound(tmp_path):
    nulls = [null_model("1"), null_model("2", h_sq=0.4, at_boundary=True, h_sq_standard_error=np.nan)]
    page = written(tmp_path, scan(loco=True, null=nulls))
    assert "leave-one-contig-out" in page.text
    assert "0.400–0.597" in page.text
    flagged = [cells for attrs, cells in page.rows if attrs.get("class") == "flag"]
    assert [cells[0] for cells in flagged] == ["2"]
    assert "at a bound" in flagged[0]
    assert "nan" not in page.text
    assert "The likelihood still rises" in page.text
    assert page.row("contig left out")


def test_counts_and_reasons(tmp_path):
    page = written(tmp_path, scan([1.0, np.nan, np.nan], status=["ok", "constant", "a_new_reason"]))
    assert page.row("samples in the genotypes")[1] == "1,940"
    assert page.row("samples analysed")[1] == "1,410"
    assert page.row("ok")[1:] == ["1", "tested"]
    assert "same genotype" in page.row("constant")[2]
    assert page.row("a new reason")[1] == "1"


def test_every_status_is_explained():
    assert set(report._STATUSES) == set(STATUS_LABELS)


def test_top_hits(page):
    heads = page.row("variant")
    best = dict(zip(heads, page.row("rs2"), strict=True))
    assert best["position"] == "6,000,000"
    assert best["effect allele"] == "A"
    assert best["β"] == "−0.125"
    assert best["frequency"] == "0.250"
    assert best["p"] == "5.62·10−10"
    assert best["−log₁₀ p"] == "9.25"
    assert best["clumped"] == "0"
    order = [cells[0] for _, cells in page.rows if cells[0].startswith("rs")]
    assert order == ["rs2", "rs0", "rs3", "rs1"]
    assert "contig within 1 Mb of it are clumped under it (those of p ≤ 0.01 are counted)" in page.text


def given_hits(m, **attrs):
    table = export.variant_table(scan(np.linspace(20, 9, m)), np.arange(m)).assign(n_clumped=np.arange(m) + 7)
    table.attrs = attrs
    return table


def test_hits_that_are_given(tmp_path):
    hits = given_hits(3, p_value=5e-8, secondary_p_value=1e-4, distance=250_000, r_squared=0.5)
    page = written(tmp_path, scan(np.linspace(20, 9, 30)), hits=hits)
    rows = [cells for _, cells in page.rows if cells[0].startswith("rs")]
    assert [cells[0] for cells in rows] == ["rs0", "rs1", "rs2"]
    assert [cells[-1] for cells in rows] == ["7", "8", "9"]
    assert "within 250 kb of it and with r² ≥ 0.5 with it in the genotypes are clumped" in page.text
    assert "p ≤ 1.00·10−4 are counted" in page.text
    assert "most significant of" not in page.text


def test_many_hits_are_cut_and_it_is_said(tmp_path):
    page = written(tmp_path, scan(), hits=given_hits(1200))
    assert len([cells for _, cells in page.rows if cells[0].startswith("rs")]) == 50
    assert "The 50 most significant of 1,200." in page.text
    assert "of its contig near it are clumped under it." in page.text


def test_given_hits_that_are_none(tmp_path):
    page = written(tmp_path, scan(), hits=given_hits(3, p_value=1e-20).iloc[:0])
    assert "No variant reaches p = 1.00·10−20; these are the strongest." in page.text
    assert page.row("rs2")


@pytest.mark.parametrize("hits", [given_hits(3).drop(columns="n_clumped"), {"variant_id": []}, 3])
def test_hits_that_are_no_table_of_hits(tmp_path, hits):
    with pytest.raises(OptionError, match=r"without .*n_clumped; the table of dasklmm.clump"):
        report.write_report(scan(), tmp_path / "r.html", hits=hits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("neg_log10", "shown"),
    [
        (0.0, "1"),
        (1.0, "0.1"),
        (5000.0, "1.00·10<sup>−5000</sup>"),
        (5000.25, "5.62·10<sup>−5001</sup>"),
        # 9.9996e-8 is rounded up to the next power
        (7.00001737, "1.00·10<sup>−7</sup>"),
        (None, "—"),
        (float("nan"), "—"),
    ],
)
def test_p_from_its_logarithm(neg_log10, shown):
    assert report._p(neg_log10) == shown


def test_options_versions_and_times(page):
    assert page.row("test")[1] == "lrt"
    assert page.row("loco")[1] == "no"
    assert page.row("covariates")[1] == "intercept, age, sex"
    assert page.row("dasklmm")[1] == "9.8.7"
    assert page.row("kinship")[1] == "rrm"
    assert page.row("sum")[1] == "15.8"


def test_text_is_escaped_everywhere(tmp_path):
    nulls = [null_model(HOSTILE), null_model("2")]
    results = scan(
        [1.0, 9.0, np.nan],
        status=["ok", "ok", HOSTILE],
        contig=HOSTILE,
        phenotype=HOSTILE,
        kinship=HOSTILE,
        test=HOSTILE,
        precision=HOSTILE,
        covariates=[HOSTILE],
        counts={HOSTILE: 3},
        seconds={HOSTILE: 1.0},
        versions={HOSTILE: HOSTILE},
        dasklmm_version=HOSTILE,
        created=HOSTILE,
        null=nulls,
        loco=True,
        interaction=HOSTILE,
        condition=[HOSTILE],
        categories={HOSTILE: {"levels": [HOSTILE, HOSTILE]}},
        selection={"contigs": [HOSTILE]},
    )
    for name in ("variant_id", "variant_effect_allele", "variant_other_allele"):
        results[name] = ("variant", np.full(3, HOSTILE))
    page = written(tmp_path, results)
    assert "script" not in page.tags()
    # once for each place that was given it, at least
    assert page.text.count(HOSTILE) >= 18
    for html in (report.summary_html(results), (tmp_path / "report.html").read_text()):
        assert "<script" not in html


def test_nothing_tested(tmp_path):
    page = written(tmp_path, scan([np.nan] * 5))
    assert "0 of 5 variants were tested" in page.text
    assert "No variant has a p-value." in page.text
    assert "nan" not in page.text.lower()


def test_a_p_value_of_1e_5000(tmp_path):
    page = written(tmp_path, scan([1.0, 5000.0, 0.5]))
    assert page.row("rs1")[-3:-1] == ["1.00·10−5000", "5000.00"]
    assert "inf" not in re.sub("inflation", "", page.text)


def test_no_hits_are_said(tmp_path):
    assert "No variant reaches" in written(tmp_path, scan([1.0, 2.0])).text


def test_results_without_attributes(tmp_path):
    results = scan()
    results.attrs = {}
    page = written(tmp_path, results)
    assert "Association scan" in page.text
    assert "The results carry no null model." in page.text


def test_attributes_that_are_null_or_nan(tmp_path):
    page = written(tmp_path, scan(null=[null_model(h_sq=None, pve=np.nan)], counts=None, seconds=None))
    assert page.row("all")[1] == "—"
    assert "None" not in page.text


def test_plots_that_are_drawn_already_are_used(tmp_path):
    source = tmp_path / "drawn"
    source.mkdir()
    drawn = {}
    for name in ("manhattan", "qq"):
        drawn[name] = source / f"{name}.png"
        drawn[name].write_bytes(f"\x89PNG of {name}".encode("latin-1"))
    (tmp_path / "page").mkdir()
    page = written(tmp_path / "page", scan(), plots=drawn)
    images = [base64.b64decode(a["src"].split(",")[1]) for tag, a in page.elements if tag == "img"]
    assert images == [b"\x89PNG of manhattan", b"\x89PNG of qq"]


def test_without_matplotlib_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    page = written(tmp_path, scan())
    assert "pip install 'dasklmm[plot]'" in page.text
    assert "img" not in page.tags()


def test_same_results_give_the_same_page(tmp_path):
    report.write_report(scan(), tmp_path / "a.html")
    report.write_report(scan(), tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_failed_write_keeps_the_old_page(tmp_path, monkeypatch):
    report.write_report(scan(), tmp_path / "r.html")
    before = (tmp_path / "r.html").read_bytes()

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(report.os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        report.write_report(scan(phenotype="other"), tmp_path / "r.html")
    assert (tmp_path / "r.html").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_summary_for_notebooks():
    html = report.summary_html(scan(np.linspace(0.5, 12, 40)))
    page = Page(html)
    assert not page.tags() & {"html", "style", "script", "img"}
    assert page.row("heritability h²")[1] == "0.597 ± 0.032"
    assert page.row("variants tested")[1] == "40"
    assert len([cells for _, cells in page.rows if cells[0].startswith("rs")]) == 5
    assert len(html) < 8000


@pytest.mark.parametrize(
    ("value", "attrs", "said"),
    [
        (1.0, {"loco": True}, "near it"),
        (0.95, {"loco": False}, "near it"),
        (1.1, {}, "near it"),
        (0.9, {"loco": False, "kinship": "rrm"}, "also stands in its own kinship"),
        (0.9, {"loco": False, "kinship": "given"}, "may also stand in its own kinship"),
        (0.9, {"loco": True}, "too large"),
        (1.2, {"loco": True}, "polygenic signal"),
        (1.2, {"loco": False}, "structure is left"),
    ],
)
def test_inflation_in_words(value, attrs, said):
    assert said in report._inflation(value, attrs)
