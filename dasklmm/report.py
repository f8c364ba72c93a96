"""One self-contained HTML page about a scan, and a fragment for notebooks."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from dasklmm import wording
from dasklmm.errors import MissingExtraError, OptionError
from dasklmm.export import GENOME_WIDE, WINDOW, check_complete, summary
from dasklmm.numerics.clumping import SECONDARY_P_VALUE
from dasklmm.plots import manhattan, qq
from dasklmm.plots.drawing import file_content

__all__ = ["summary_html", "write_report"]

_TESTS = {"lrt": "likelihood-ratio", "wald": "Wald", "score": "score"}
_KINSHIPS = {
    "rrm": "the realized relationship matrix",
    "grm": "the genomic relationship matrix",
    "centered": "the centered relationship matrix",
    "given": "a kinship matrix that was given",
}
_STATUSES = {
    "ok": "tested",
    "constant": "every analysed sample with a call has the same genotype, so there is no effect to estimate",
    "all_missing": "no analysed sample has a call",
    "collinear_with_covariates": "the genotype is a linear combination of the covariates",
    "missing_dosage": "some dosages are missing and were not to be imputed",
    "no_null_model": "the phenotype has no null model, so that nothing was tested",
    "low_allele_count": "left out by the filter: too few copies of the rarer allele",
    "low_allele_frequency": "left out by the filter: the rarer allele is too rare",
    "high_missingness": "left out by the filter: too many samples have no call",
    "not_finite": "a dosage is infinite, or the products overflowed",
    "perfect_fit": "the genotype and the covariates explain the phenotype to the last digit",
}
_NULL_COLUMNS = {
    "contig": "contig",
    "h_sq": "h²",
    "h_sq_standard_error": "SE of h²",
    "pve": "PVE",
    "sigma_sq": "σ²",
    "tau_sq": "τ²",
    "gamma": "γ",
    "n": "samples",
    "rank": "rank",
}
_HIT_COLUMNS = {
    "variant_id": "variant",
    "variant_contig": "contig",
    "variant_position": "position",
    "variant_effect_allele": "effect allele",
    "variant_other_allele": "other allele",
    "effect_allele_frequency": "frequency",
    "beta": "β",
    "standard_error": "SE",
    "p_value": "p",
    "neg_log10_p_value": "−log₁₀ p",
    "n_clumped": "clumped",
}
# Rows of a table of hits; the whole of it is for a file.
_MOST_HITS = 50
# How the hits of `summary` were made independent.
_BY_DISTANCE = {"distance": WINDOW, "secondary_p_value": SECONDARY_P_VALUE}
_OPTIONS = (
    "phenotype",
    "test",
    "variance_ratio",
    "kinship",
    "loco",
    "precision",
    "intercept",
    "covariates",
    "n",
    "n_covariates",
    "rank",
    "truncated",
)
_BOUNDARY = (
    "The likelihood still rises at the end of the range that was searched for the variance ratio γ. h² is then "
    "as good as 0 (γ small: the kinship explains nothing) or 1 (γ large: it explains everything), its standard "
    "error means little, and the tests use γ at that end. Few samples, little relatedness, or a phenotype "
    "without a heritable part are the usual reasons."
)
# Between these λ_GC is called near 1.
_LOW, _HIGH = 0.95, 1.1

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #5b6876; --rule: #dde3ea; --page: #fbfcfd;
  --card: #ffffff; --mark: #20558a; --warn: #a84300; --warn-page: #fff4ea; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --soft: #9aa7b4; --rule: #323b45;
  --page: #14191f; --card: #1b222a; --mark: #8fb4d9; --warn: #ffb27d; --warn-page: #33241a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 44px 0 10px; }
p { max-width: 74ch; margin: 0 0 10px; }
.lead { font-size: 17px; color: var(--soft); }
.note { color: var(--soft); font-size: 13.5px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(168px, 1fr)); gap: 10px;
  margin: 26px 0 0; padding: 0; }
.tiles div { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 12px 11px; }
.tiles dt { color: var(--soft); font-size: 12.5px; white-space: nowrap; }
.tiles dd { margin: 2px 0 0; font-size: 21px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tiles small { font-size: 13px; font-weight: 400; color: var(--soft); white-space: nowrap; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 18px 5px 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule); }
thead th { color: var(--soft); font-weight: 600; font-size: 13px; white-space: nowrap; }
tbody th { font-weight: 400; }
td.number, th.number { text-align: right; white-space: nowrap; }
sub, sup { line-height: 0; font-size: 0.75em; }
tr.flag td, tr.flag th { color: var(--warn); }
.warning { background: var(--warn-page); color: var(--ink); border-left: 4px solid var(--warn);
  border-radius: 6px; padding: 10px 14px; margin: 12px 0; max-width: none; }
figure { margin: 12px 0 0; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border: 1px solid var(--rule);
  border-radius: 10px; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 0 44px; }
@media print { main { padding: 0; max-width: none; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


def write_report(
    results: xr.Dataset,
    path: str | Path,
    plots: Mapping[str, str | Path] | None = None,
    hits: pd.DataFrame | None = None,
) -> None:
    """Write one self-contained HTML page about a scan. Eager.

    Parameters
    ----------
    results : Dataset (variant)
        From :func:`dasklmm.gwas`. Attributes that are absent or NaN are left out or shown as a dash.
    path : path
        Written whole under another name and renamed into place.
    plots : mapping, optional
        "manhattan" and "qq" → path of a PNG that is drawn already, as from
        :func:`dasklmm.plots.save_plots`. Default: drawn here.
    hits : DataFrame, optional
        From :func:`dasklmm.clump`; its 50 most significant rows are shown. Default, and where it has no row:
        the ten strongest variants that are independent by distance (1 Mb).

    Raises
    ------
    OptionError
        `hits` is not such a table, or the results are incomplete.

    Notes
    -----
    The null model, counts and reasons, genomic inflation, independent hits, both plots, options and versions.
    No scripts, nothing loaded from elsewhere. Without matplotlib the page says how to get the plots. Cost: that
    of the plots.

    Examples
    --------
    >>> import dasklmm
    >>> cohort = dasklmm.simulate(100, 400, n_contigs=2, n_causal=1, causal_variance=0.4, seed=1)
    >>> results = dasklmm.gwas(cohort, cohort["phenotype"].rename("trait"))
    >>> from dasklmm.report import write_report
    >>> write_report(results, "report.html")
    """
    check_complete(results)
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(_page(results, plots, hits), encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def summary_html(results: xr.Dataset) -> str:
    """Fragment of HTML for a notebook: what was run, heritability, inflation and top hits. Eager.

    Parameters
    ----------
    results : Dataset (variant)

    Returns
    -------
    str
        Without styles, scripts or plots of its own.
    """
    found = summary(results)
    figures = "".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in _figures(results, found))
    hits = _hits(found, wording.unit(results.attrs), most=5)
    return (
        f'<div class="dasklmm"><p><strong>{_name(results)}</strong>. {_sentence(results, found)}</p>'
        f"{_notes(results)}<table><tbody>{figures}</tbody></table>{hits}</div>"
    )


# the page ---------------------------------------------------------------------------------------


def _page(
    results: xr.Dataset, plots: Mapping[str, str | Path] | None = None, hits: pd.DataFrame | None = None
) -> str:
    _check_hits(hits)
    found = summary(results)
    tiles = "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in _figures(results, found))
    manhattan_figure, qq_figure = _plots(results, plots or {})
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_name(results)}: mixed-model association</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{_name(results)}</h1>
<p class="lead">{_sentence(results, found)}</p>
{_notes(results)}
<dl class="tiles">{tiles}</dl>
<h2>Associations along the genome</h2>
{manhattan_figure}
<h2>Independent hits</h2>
{_hits(found, wording.unit(results.attrs), hits)}
<h2>Null model</h2>
{_null(results)}
<h2>Calibration</h2>
{_calibration(results, found)}
{qq_figure}
<h2>Samples and variants</h2>
{_counts(results, found)}
<h2>How it was run</h2>
{_run(results)}
</main>
</body>
</html>
"""


def _name(results: xr.Dataset) -> str:
    return escape(str(results.attrs.get("phenotype") or "Association scan"))


def _sentence(results: xr.Dataset, found: Mapping[str, Any]) -> str:
    """What was run, in words; parts that are not known are left out."""
    attrs = results.attrs
    test = attrs.get("test")
    verb = f" with the {escape(_TESTS.get(str(test), str(test)))} test" if test else ""
    n = _count(attrs.get("n"))
    samples = f" in {n} samples" if n else ""
    what = (
        f"interaction with {escape(str(attrs['interaction']))}" if attrs.get("interaction") else "association"
    )
    text = (
        f"{found['tested']:,} of {found['variants']:,} variants were tested for {what}{samples}{verb} in a "
        "linear mixed model"
    )
    kinship = attrs.get("kinship")
    if kinship:
        text += f", with {escape(_KINSHIPS.get(str(kinship), f'the kinship {kinship}'))}"
        if attrs.get("loco"):
            text += " of all other contigs for the variants of each (leave-one-contig-out)"
    covariates = [str(c) for c in _sequence(attrs.get("covariates")) if str(c) != "intercept"]
    if covariates:
        text += f", adjusted for {escape(wording.listed(covariates))}"
    if attrs.get("intercept") is False or attrs.get("intercept") == 0:
        text += ", without an intercept"
    return text + "."


def _notes(results: xr.Dataset) -> str:
    """What differs from a plain scan, a line each."""
    return "".join(
        f'<p class="note"><strong>{escape(name)}</strong>: {escape(note)}</p>'
        for name, note in wording.notes(results.attrs)
    )


def _figures(results: xr.Dataset, found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The few numbers a reader looks for first, label and value, as HTML."""
    nulls = _nulls(results)
    h = [v for v in (_number(row.get("h_sq")) for row in nulls) if v is not None]
    if not h:
        h_sq = "—"
    elif len(h) == 1:
        error = _number(nulls[0].get("h_sq_standard_error"))
        h_sq = f"{h[0]:.3f}" + ("" if error is None else f" <small>± {error:.3f}</small>")
    else:
        h_sq = f"{min(h):.3f}–{max(h):.3f} <small>{len(h)} contigs</small>"
    return [
        ("heritability h²", h_sq),
        ("inflation λ<sub>GC</sub>", _text(found["lambda_gc"], ".3f")),
        ("variants tested", f"{found['tested']:,}"),
        ("variants with p &lt; 5·10⁻⁸", f"{found['genome_wide_significant']:,}"),
        ("samples", _count(results.attrs.get("n")) or "—"),
    ]


def _plots(results: xr.Dataset, drawn: Mapping[str, str | Path]) -> tuple[str, str]:
    """Both plots as HTML figures, or a note that matplotlib is not installed."""

    def content(name: str, draw: Callable[[xr.Dataset], Any]) -> bytes:
        return Path(drawn[name]).read_bytes() if name in drawn else file_content(draw(results))

    try:
        first, second = content("manhattan", manhattan), content("qq", qq)
    except MissingExtraError:
        note = (
            '<p class="note">There is no plot, because matplotlib is not installed: '
            "<code>pip install 'dasklmm[plot]'</code>.</p>"
        )
        return note, ""
    return (
        _figure(first, "Manhattan plot: −log₁₀ p of every variant along the genome", 1000),
        _figure(second, "Quantile-quantile plot: observed against expected −log₁₀ p", 460),
    )


def _figure(content: bytes, description: str, width: int) -> str:
    data = base64.b64encode(content).decode("ascii")
    return f'<figure><img src="data:image/png;base64,{data}" width="{width}" alt="{description}"></figure>'


def _check_hits(hits: Any) -> None:
    absent = [name for name in _HIT_COLUMNS if name not in getattr(hits, "columns", ())]
    if hits is not None and absent:
        raise OptionError(
            f"hits are a {type(hits).__name__} without {', '.join(absent)}; the table of dasklmm.clump(results, "
            "genotypes) is needed."
        )


def _hits(
    found: Mapping[str, Any], unit: str, hits: pd.DataFrame | None = None, most: int = _MOST_HITS
) -> str:
    how: Mapping[Any, Any] = _BY_DISTANCE
    given = found["top_hits"]
    threshold = None if found["genome_wide_significant"] else GENOME_WIDE
    if hits is not None and hits.empty:
        threshold = _number(hits.attrs.get("p_value")) or threshold
    elif hits is not None:
        given, how = hits.to_dict("records"), hits.attrs
    if not given:
        return "<p>No variant has a p-value.</p>"
    rows = [
        [
            _p(hit["neg_log10_p_value"]) if name == "p_value" else _hit_cell(name, hit[name])
            for name in _HIT_COLUMNS
        ]
        for hit in given[:most]
    ]
    note = (
        f'<p class="note">{_clumping(how)} On a contig, variants of unknown position count as one place. '
        f"β and SE are {escape(unit)}.</p>"
    )
    if hits is not None and len(hits) > len(rows):
        note = f"<p>The {len(rows)} most significant of {len(hits):,}.</p>{note}"
    if threshold is not None:
        note = f"<p>No variant reaches p = {_p(-math.log10(threshold))}; these are the strongest.</p>{note}"
    return note + _table(_HIT_COLUMNS.values(), rows, numbers=[2, *range(5, 11)])


def _clumping(attrs: Mapping[Any, Any]) -> str:
    """In a sentence, how hits were made independent; what is not known is left out."""
    distance, r2 = _number(attrs.get("distance")), _number(attrs.get("r_squared"))
    conditions = []
    if distance is not None:
        conditions.append(f"within {_base_pairs(distance)} of it")
    if r2 is not None:
        conditions.append(f"with r² ≥ {r2:g} with it in the genotypes")
    secondary = _number(attrs.get("secondary_p_value"))
    counted = f" (those of p ≤ {_p(-math.log10(secondary))} are counted)" if secondary else ""
    return (
        "Each is the most significant variant of a clump: less significant ones of its contig "
        f"{' and '.join(conditions) or 'near it'} are clumped under it{counted}."
    )


def _base_pairs(count: float) -> str:
    for unit, size in (("Mb", 1e6), ("kb", 1e3)):
        if count >= size:
            return f"{count / size:g} {unit}"
    return f"{count:g} bases"


def _hit_cell(name: str, value: Any) -> str:
    if name == "variant_position":
        return f"{value:,}" if value and value > 0 else "—"
    if name == "n_clumped":
        return _count(value) or "—"
    if name == "neg_log10_p_value":
        return _text(value, ".2f")
    if name == "effect_allele_frequency":
        return _text(value, ".3f")
    if isinstance(value, str):
        return escape(value) or "—"
    return _text(value, ".4g")


def _p(neg_log10: float | None) -> str:
    """p from its logarithm, as HTML: a p-value that underflows is shown like any other."""
    value = _number(neg_log10)
    if value is None:
        return "—"
    if value < 3.0:
        return f"{10.0**-value:.3g}"
    exponent = math.ceil(value)
    mantissa = f"{10.0 ** (exponent - value):.2f}"
    if mantissa == "10.00":
        mantissa, exponent = "1.00", exponent - 1
    return f"{mantissa}·10<sup>−{exponent}</sup>"


def _null(results: xr.Dataset) -> str:
    nulls = _nulls(results)
    if not nulls:
        return "<p>The results carry no null model.</p>"
    rows, flags = [], []
    for null in nulls:
        bound = bool(null.get("at_boundary"))
        cells = []
        for name in _NULL_COLUMNS:
            value = null.get(name)
            if name == "contig":
                cells.append(escape(str(value if value is not None else "—")))
            elif name in ("n", "rank"):
                cells.append(_count(value) or "—")
            else:
                cells.append(_text(value, ".4f" if name in ("h_sq", "h_sq_standard_error", "pve") else ".4g"))
        cells.append("at a bound" if bound else "")
        rows.append(cells)
        flags.append(bound)
    loco = bool(results.attrs.get("loco"))
    heads = ["contig left out" if loco and n == "contig" else label for n, label in _NULL_COLUMNS.items()]
    html = _table([*heads, ""], rows, numbers=range(1, len(heads)), flags=flags)
    warning = f'<p class="warning"><strong>At a bound.</strong> {_BOUNDARY}</p>' if any(flags) else ""
    note = (
        '<p class="note">y = Xβ + u + ε, u ~ N(0, σ²K), ε ~ N(0, τ²I), fitted by restricted maximum likelihood; '
        # kept on one line each
        "γ\u00a0=\u00a0σ²\u2060/\u2060τ², h²\u00a0=\u00a0σ²\u2060/\u2060(σ²\u00a0+\u00a0τ²). "
        "PVE weighs σ² with the mean diagonal of K, as GEMMA does.</p>"
    )
    return note + warning + html


def _calibration(results: xr.Dataset, found: Mapping[str, Any]) -> str:
    value = found["lambda_gc"]
    if value is None:
        return "<p>Without a p-value there is no λ<sub>GC</sub>.</p>"
    return (
        f"<p>λ<sub>GC</sub> = {value:.3f}: the median test statistic over its median without association. "
        f"{_inflation(value, results.attrs)}</p>"
    )


def _inflation(value: float, attrs: Mapping[str, Any]) -> str:
    """What an inflation of this size may come from."""
    loco = bool(attrs.get("loco"))
    if value < _LOW:
        if loco:
            return (
                "That is below 1, which few variants, closely linked ones or covariates that carry genotypes may "
                "do; the p-values are, if anything, too large."
            )
        held = "may also stand" if attrs.get("kinship", "given") == "given" else "also stands"
        return (
            f"That is below 1: without LOCO the tested variant {held} in its own kinship, which takes up part of "
            "its effect and deflates the statistic. With LOCO it does not."
        )
    if value > _HIGH:
        if loco:
            return (
                "That is well above 1. As the tested contig is left out of its kinship (LOCO), polygenic signal "
                "and linkage raise it, and so does structure that is left; principal components among the "
                "covariates tell which."
            )
        return (
            "That is well above 1, though without LOCO a variant that stands in its own kinship is deflated: "
            "relatedness or structure is left that the model does not hold."
        )
    return "1 is expected without structure that is left and without many effects; this is near it."


def _counts(results: xr.Dataset, found: Mapping[str, Any]) -> str:
    counts = results.attrs.get("counts")
    counts = counts if isinstance(counts, Mapping) else {}
    rows = [
        [escape(wording.count_name(str(name))), _count(value) or "—"]
        for name, value in counts.items()
        if not str(name).startswith("status_")
    ]
    left = _table(["", "count"], rows, numbers=[1]) if rows else '<p class="note">Not recorded.</p>'
    reasons = [
        [escape(name.replace("_", " ")), f"{count:,}", escape(_STATUSES.get(name, ""))]
        for name, count in found["status"].items()
    ]
    right = _table(["status", "variants", "meaning"], reasons, numbers=[1]) if reasons else ""
    return f'<div class="columns"><div>{left}</div><div>{right}</div></div>'


def _run(results: xr.Dataset) -> str:
    attrs = results.attrs
    options = [[escape(name.replace("_", " ")), _option(attrs[name])] for name in _OPTIONS if name in attrs]
    if "dasklmm_version" in attrs:
        options.append(["dasklmm", escape(str(attrs["dasklmm_version"]))])
    for name, version in _mapping(attrs.get("versions")).items():
        options.append([escape(str(name)), escape(str(version))])
    if "created" in attrs:
        options.append(["created", escape(str(attrs["created"]))])
    seconds = _mapping(attrs.get("seconds"))
    times = [[escape(str(stage)), _text(value, ",.1f")] for stage, value in seconds.items()]
    known = [v for v in map(_number, seconds.values()) if v is not None]
    if len(known) > 1:
        times.append(["sum", f"{sum(known):,.1f}"])
    left = _table(["option", "value"], options) if options else '<p class="note">Not recorded.</p>'
    right = _table(["stage", "seconds"], times, numbers=[1]) if times else ""
    return f'<div class="columns"><div>{left}</div><div>{right}</div></div>'


# parts ------------------------------------------------------------------------------------------


def _table(
    heads: Iterable[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Iterable[int] = (),
    flags: Sequence[bool] = (),
) -> str:
    """A table of HTML that is already escaped; `numbers` are the columns set to the right."""
    right = set(numbers)

    def cells(tag: str, values: Iterable[str]) -> str:
        return "".join(
            f'<{tag} class="number">{v}</{tag}>' if j in right else f"<{tag}>{v}</{tag}>"
            for j, v in enumerate(values)
        )

    flag = ' class="flag"'
    body = "".join(
        f"<tr{flag if flags and flags[i] else ''}>{cells('td', row)}</tr>" for i, row in enumerate(rows)
    )
    head = f"<thead><tr>{cells('th', heads)}</tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def _nulls(results: xr.Dataset) -> list[Mapping[str, Any]]:
    return [row for row in _sequence(results.attrs.get("null")) if isinstance(row, Mapping)]


def _sequence(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    """A finite float, or None."""
    try:
        value = float(value)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _text(value: Any, spec: str) -> str:
    number = _number(value)
    return "—" if number is None else format(number, spec).replace("-", "−")


def _count(value: Any) -> str:
    number = _number(value)
    return "" if number is None else f"{number:,.0f}"


def _option(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return escape(", ".join(map(str, value))) or "none"
    return escape(f"{value:,}" if isinstance(value, int) else str(value))
