"""Each notebook of the examples runs from a clean kernel, and shows what its text promises."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NOTEBOOKS = sorted(path.stem for path in EXAMPLES.glob("*.ipynb"))


def executed(name, folder, monkeypatch):
    """The notebook as it is after all its cells ran in a process of its own, in an empty folder."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    book = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    where = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(book, timeout=300, resources=where).execute()
    return book


def outputs(book, kind):
    """What the cells of a notebook show of a MIME type."""
    found = [out.get("data", {}) for cell in book.cells for out in cell.get("outputs", [])]
    return [data[kind] for data in found if kind in data]


@pytest.fixture
def run(tmp_path, monkeypatch):
    def notebook(name):
        book = executed(name, tmp_path, monkeypatch)
        for cell in book.cells:
            for out in cell.get("outputs", []):
                assert out.get("name") != "stderr", f"cell {cell['id']} wrote to stderr: {out['text']}"
        return book

    return notebook


def test_first_scan(run, tmp_path):
    book = run("first_scan")
    assert len(outputs(book, "image/png")) == 3
    assert (tmp_path / "report.html").stat().st_size > 50_000
    html = "\n".join(outputs(book, "text/html"))
    assert "<progress" in html
    found = {
        cell["id"]: cell["outputs"][0]["data"]["text/plain"] for cell in book.cells if cell.get("outputs")
    }
    hits = [line.split()[1] for line in found["first-10"].splitlines()[2:]]
    assert set(ast.literal_eval(found["first-11"])) == set(hits[:3])
    assert len(hits) <= 5, "few places, each once"


def test_from_hail(run):
    book = run("from_hail")
    assert len(outputs(book, "image/png")) == 1
    assert float(outputs(book, "text/plain")[-1].removeprefix("np.float64(").rstrip(")")) < 1e-9
    strongest = outputs(book, "text/plain")[-2].splitlines()[2].split()
    assert strongest[0] == "7"


def test_out_of_core(run):
    book = run("out_of_core")
    printed = "".join(out.get("text", "") for cell in book.cells for out in cell.get("outputs", []))
    assert "interrupted at" in printed
    assert "'kinship': '23 of 23'" in printed
    resumed = next(ast.literal_eval(text) for text in outputs(book, "text/plain") if text.startswith("{"))
    assert resumed["kinship"] == {"kept": 5, "computed": 0}
    assert resumed["test"]["kept"] > 0
    assert resumed["test"]["computed"] > 0
    assert "True" in outputs(book, "text/plain")


def test_your_own_kernel(run):
    book = run("your_own_kernel")
    found = next(ast.literal_eval(text) for text in outputs(book, "text/plain") if text.startswith("{"))
    assert found["mixed model"] == 1
    assert found["plain regression"] > 20
    assert float(outputs(book, "text/plain")[-1]) > 0.9


def test_the_first_plot_of_a_kernel_is_shown_and_files_are_not(tmp_path, monkeypatch):
    """Without a word to matplotlib before: pictures of what was drawn, each once, and nothing stays open."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    cells = (
        "import numpy as np, xarray as xr\nfrom dasklmm import plots\nfrom dasklmm.report import write_report\n"
        'r = xr.Dataset({"neg_log10_p_value": ("variant", np.arange(9.0))})\nax = plots.qq(r)',
        'plots.save_plots(r, ".")\nwrite_report(r, "report.html")',
        'from matplotlib import pyplot\nplots.manhattan(r).set_title("mine")\n'
        "assert len(pyplot.get_fignums()) == 1",
        "pyplot.get_fignums()",
        "own, mine = pyplot.subplots()\nassert plots.qq(r, mine) is mine",
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    nbclient.NotebookClient(book, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [sum("image/png" in out.get("data", {}) for out in cell.outputs) for cell in book.cells]
    assert shown == [1, 0, 1, 0, 1]
    assert outputs(book, "text/plain")[-2] == "[]"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_kept_without_outputs(name):
    """Their differences are then those of the text and code alone."""
    nbformat = pytest.importorskip("nbformat")
    book = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert code
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert f"test_{name}" in globals(), "every notebook is run by a test of its own"
