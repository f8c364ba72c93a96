"""The pages: built without a warning, complete, and every example in them run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import linecache
import pkgutil
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import dasklmm
from dasklmm import errors

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(path.stem for path in DOCS.glob("*.md"))
# Differences of white space do not count, and ... stands for any text.
LOOSELY = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# A fence of Python or bash is run, unless a comment before it says why not. `text` right after it is what it
# prints.
FENCE = re.compile(r"(?:^<!-- not run: ([^\n]+) -->\n)?^```(python|bash|text)\n(.*?)^```$", flags=re.M | re.S)


def examples(page):
    """Fences of a page, in order: (line, language, code, what it prints or None)."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        reason, language, body = match.groups()
        if language != "text":
            if reason is None:
                found.append([text[: match.start()].count("\n") + 1, language, body, None, match.end()])
        elif found and not text[found[-1][-1] : match.start()].strip():
            found[-1][3] = body
    return [tuple(example[:4]) for example in found]


def run_python(name, code, scope):
    # Tracebacks then show the page's own lines.
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    exec(compile(code, name, "exec"), scope)


def run_bash(name, code):
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
    print(done.stdout, end="")


def test_fences_are_found(tmp_path, monkeypatch):
    """Each fence with a language that can be run is seen by the test below, or says why it is not run."""
    for page in PAGES:
        text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
        marked = len(re.findall(r"^<!-- not run: ", text, flags=re.M))
        fences = len(re.findall(r"^```(?:python|bash)\b", text, flags=re.M))
        assert fences == len(examples(page)) + marked, page
    assert sum(len(examples(page)) for page in PAGES) > 40


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)])
def test_page_runs(page, tmp_path, monkeypatch, capsys):
    """Fence after fence in one empty folder, the Python ones in one namespace, as a reader would."""
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{shutil.os.environ['PATH']}")
    scope = {"__name__": "__main__"}
    for line, language, code, shown in examples(page):
        name = f"docs/{page}.md:{line}"
        capsys.readouterr()
        run_python(name, code, scope) if language == "python" else run_bash(name, code)
        printed = capsys.readouterr().out
        if shown is not None:
            assert doctest.OutputChecker().check_output(shown, printed, LOOSELY), f"{name} printed\n{printed}"


def modules():
    """Modules of the package whose docstrings have examples."""
    for found in pkgutil.walk_packages(dasklmm.__path__, "dasklmm."):
        path = Path(importlib.util.find_spec(found.name).origin)
        if ">>> " in path.read_text(encoding="utf-8"):
            yield found.name


@pytest.mark.parametrize("name", sorted(modules()))
def test_docstring_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), optionflags=LOOSELY)
    assert result.failed == 0
    assert result.attempted > 0


def test_public_functions_have_examples():
    """Each public name shows how it is called."""
    for name in dasklmm.__all__:
        value = getattr(dasklmm, name)
        assert re.search(r"^\s*>>> ", value.__doc__, flags=re.M), f"{name} has no example in its docstring"


def test_site_is_built_without_a_warning(tmp_path):
    """With -n every reference must be found as well. Formulas are MathML: nothing is loaded from elsewhere."""
    for needed in ("sphinx", "myst_parser", "numpydoc", "pydata_sphinx_theme", "latex2mathml"):
        pytest.importorskip(needed)
    options = ["-q", "-W", "-n", "-b", "html", "-d", str(tmp_path / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *options, str(DOCS), str(tmp_path / "html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    api = (tmp_path / "html/api.html").read_text(encoding="utf-8")
    for name in dasklmm.__all__:
        assert f'id="dasklmm.{name}"' in api, f"{name} is not on the page of functions"
    pages = list((tmp_path / "html").glob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)', page.read_text("utf-8"))
        assert not loaded, f"{page.name} loads {loaded}"
    assert "<math" in (tmp_path / "html/mathematics.html").read_text(encoding="utf-8")


def test_pages_name_files_that_are_there():
    """Files that pages point to in code or in links."""
    root = DOCS.parent
    for page in PAGES:
        text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
        for path in re.findall(r"`((?:examples|tests|benchmarks|docs|dasklmm)/[\w/.]+\.\w+)`", text):
            assert (root / path).is_file(), f"{page}.md names {path}"


def test_every_page_is_on_the_first_one():
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\((\w+)\.md\)", text))
    assert linked == set(PAGES) - {"index", "reference", "background"}  # which are lists of the others
    notebooks = {path.stem for path in (DOCS.parent / "examples").glob("*.ipynb")}
    assert set(re.findall(r"examples/(\w+)\.ipynb", text)) == notebooks


def test_every_fence_has_a_language():
    """One without would be coloured as Python."""
    for page in PAGES:
        fences = re.findall(r"^```.*$", (DOCS / f"{page}.md").read_text(encoding="utf-8"), flags=re.M)
        assert all(fence != "```" for fence in fences[::2]), page


def error_classes():
    return [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, Exception)]


def test_every_error_has_its_section():
    headings = re.findall(r"^## (\w+)$", (DOCS / "errors.md").read_text(encoding="utf-8"), flags=re.M)
    assert sorted(headings) == sorted(c.__name__ for c in error_classes() if c is not errors.DaskLMMError)


def hail_names():
    """New names in the second column of the tables of hail.md, by old ones in the first."""
    text = (DOCS / "hail.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) +\| (`.*?) *\|", text, flags=re.M)
    return dict(rows)


def looked_up(expression):
    """The object that a call or dotted name of the page stands for."""
    dotted = re.match(r"(?:dasklmm)?(?:\.\w+)+", expression)
    assert dotted, f"{expression!r} names nothing"
    value = dasklmm if dotted[0].startswith("dasklmm") else model_of_three()
    for name in dotted[0].removeprefix("dasklmm").strip(".").split("."):
        value = getattr(value, name)
    return value


def model_of_three():
    y, x = np.array([1.0, 2.0, 4.0, 3.0]), np.ones((4, 1))
    k = np.array([[2.0, 1, 0, 0], [1, 2, 0, 0], [0, 0, 2, 1], [0, 0, 1, 2]])
    return dasklmm.LinearMixedModel.from_kinship(y, x, k)[0].fit(0.0)


# What Hail 0.2.93 documents of the class and of the three functions.
HAIL_NAMES = re.findall(
    r"\w+",
    """
    fit compute_neg_log_reml h_sq_normalized_lkhd fit_alternatives fit_alternatives_numpy from_kinship
    from_random_effects low_rank n f r y x py px s p_path beta sigma_sq tau_sq gamma log_gamma h_sq
    h_sq_standard_error optimize_result
    """,
)
HAIL_FUNCTIONS = re.findall(
    r"\w+",
    """
    LinearMixedModel linear_mixed_model linear_mixed_regression_rows realized_relationship_matrix
    genetic_relatedness_matrix
    """,
)


# Keywords of Hail 0.2.93 that are others here, or gone.
HAIL_KEYWORDS = {
    "fit_alternatives": ("pa_t_path", "a_t_path"),
    "fit_alternatives_numpy": ("return_pandas",),
    "linear_mixed_model": ("z_t",),
    "linear_mixed_regression_rows": ("entry_expr", "pa_t_path", "a_t_path"),
}


def test_each_keyword_of_hail_that_is_not_taken_is_said():
    rows = (DOCS / "hail.md").read_text(encoding="utf-8").splitlines()
    for name, keywords in HAIL_KEYWORDS.items():
        function = getattr(dasklmm, name, None) or getattr(dasklmm.LinearMixedModel, name)
        (differs,) = (row.split(" | ")[2] for row in rows if re.match(rf"\| `[\w.]*\.{name}\(", row))
        for keyword in keywords:
            assert keyword not in inspect.signature(function).parameters
            assert f"`{keyword}=`" in differs, f"{name}({keyword}=)"
        for new in re.findall(r" (?:is|are) `(\w+)=`", differs):
            assert new in inspect.signature(function).parameters


def test_every_old_name_of_hail_has_its_new_one():
    names = hail_names()
    old = " ".join(names)
    for name in HAIL_FUNCTIONS:
        assert re.search(rf"\bhl\.(?:\w+\.)?{name}\b", old), f"{name} is not on Hail's page"
    for name in HAIL_NAMES:
        assert re.search(rf"`(?:LinearMixedModel)?\.{name}\b", old), f"{name} is not on Hail's page"
        assert hasattr(model_of_three(), name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for new in names.values():
            for expression in re.findall(r"`([^`]+)`", new):
                looked_up(expression)
