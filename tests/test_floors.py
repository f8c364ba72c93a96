"""The house: a room imports only from its own floor's folder or from floors below it."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "dasklmm"

FLOORS = {
    0: ["errors", "numerics"],
    1: ["settings", "schema", "lazy", "readers", "store"],
    2: [
        "model_inputs",
        "model",
        "regression_rows",
        "selection",
        "cohort",
        "clock",
        "null_models",
        "rotations",
        "scan_results",
        "scanning",
        "kept_scan",
        "scan_options",
        "association",
        "live",
        "livepage",
        "progress",
    ],
    3: [
        "plots",
        "clumps",
        "report",
        "export",
        "formats_out",
        "outputs",
        "describe",
        "versions",
        "wording",
        "cluster",
        "preflight",
        "gateway",
        "datasets",
        "heap",
        "interruptions",
        "cluster_options",
        "cli_options",
        "cli_scan",
        "cli_results",
        "cli",
    ],
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
ALLOWED_LIBRARIES = {0: {"numpy", "scipy"}}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> list[str]:
    """Every module named by an import of a file, in function bodies and TYPE_CHECKING blocks too."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def room(dotted: str) -> str | None:
    parts = dotted.split(".")
    return parts[1] if parts[0] == "dasklmm" and len(parts) > 1 else None


def violations(path: Path, names: list[str]) -> list[str]:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    floor = FLOOR[own]
    out = []
    for name in names:
        target = room(name)
        if target is not None and FLOOR.get(target, -1) > floor:
            out.append(f"{path.relative_to(PACKAGE)} (floor {floor}) imports {name}")
        library = name.split(".")[0]
        if (
            floor in ALLOWED_LIBRARIES
            and target is None
            and library not in sys.stdlib_module_names
            and library not in ALLOWED_LIBRARIES[floor]
        ):
            out.append(f"{path.relative_to(PACKAGE)} (floor {floor}) imports {library}")
    return out


def test_every_room_stands_on_a_floor():
    rooms = {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in modules()}
    assert rooms - {"__init__"} == set(FLOOR)


@pytest.mark.parametrize("path", [p for p in modules() if p != PACKAGE / "__init__.py"], ids=str)
def test_no_import_points_up(path):
    assert violations(path, imported(path)) == []


def test_an_upward_import_inside_a_function_is_seen(tmp_path):
    source = tmp_path / "inner.py"
    source.write_text("def f():\n    from dasklmm import model\n    import dask\n")
    fake = PACKAGE / "numerics" / "inner.py"
    assert violations(fake, imported(source)) == [
        "numerics/inner.py (floor 0) imports dasklmm.model",
        "numerics/inner.py (floor 0) imports dask",
    ]


def test_readers_do_not_import_each_other():
    formats = {"plink", "vcfzarr"}
    for name in formats:
        for target in imported(PACKAGE / "readers" / f"{name}.py"):
            parts = set(target.split(".")[2:3]) if target.startswith("dasklmm.readers.") else set()
            assert not parts & (formats - {name})


def test_numerics_runs_with_numpy_and_scipy_alone():
    """An interpreter in which everything else is absent imports the numerics and fits a model."""
    code = textwrap.dedent(
        """
        import sys

        class Absent:
            def find_spec(self, name, path=None, target=None):
                banned = {"dask", "distributed", "xarray", "zarr", "pandas", "click", "matplotlib"}
                if name.split(".")[0] in banned:
                    raise ModuleNotFoundError(name)

        sys.meta_path.insert(0, Absent())
        import numpy as np
        from dasklmm.numerics import alternatives, design, genotypes, reml, simulate, spectrum, tails
        from dasklmm.numerics.scan import scan_block

        rng = np.random.default_rng(0)
        calls = rng.integers(0, 3, (80, 40)).astype(np.int8)
        z, m = genotypes.standardise(calls, "rrm", np.float64)
        pairs = spectrum.eigendecompose(z.T @ z / m)
        x = np.ones((40, 1))
        y = z.T @ rng.standard_normal(80) / 9 + rng.standard_normal(40)
        data = design.rotated_data(pairs.p @ y, pairs.p @ x, pairs.s)
        fit = reml.fit_null(data, on_boundary="clamp")
        test = alternatives.alternative_test(data, fit.log_gamma)
        scanned = scan_block(test, pairs.p, calls)
        assert np.isfinite(tails.neg_log10(scanned.tests.log_p)).all()
        assert not {"dask", "xarray", "zarr", "pandas"} & set(sys.modules)
        print("ran")
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "ran"


def test_public_names_resolve():
    import dasklmm

    for name in dasklmm.__all__:
        assert getattr(dasklmm, name).__name__ == name
    assert dir(dasklmm) == sorted(dasklmm.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dasklmm.nothing  # noqa: B018


def test_import_does_not_load_dask():
    code = "import sys, dasklmm; print(sorted({'dask', 'xarray', 'zarr'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
