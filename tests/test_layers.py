"""Imports run one way, and serving carries nothing of what training needs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LAYERS: list[set[str]] = [
    {"errors", "metric_files", "settings"},
    {"auth", "logs", "metrics"},
    {"card", "files", "jpeg", "recipes", "console", "http", "hangup", "drift", "monitor", "page"},
    {"images", "report", "schemas", "searches"},
    {"data", "engine", "guard", "jobs", "shadow_files"},
    {"watch", "prediction", "findings"},
    {"batcher", "eda", "offline", "registry", "openapi"},
    {"scale"},
    {"sessions", "shadow", "comparison", "requests", "stored_data"},
    {"predictor", "client"},
    {"__init__"},
    {"service"},
    {"supervisor"},
    {"cli"},
]
"""Modules and subpackages of `imgcls`, lowest first: each imports from lower layers only.

`__init__` is what `import imgcls` gives: names of the modules below it.
"""
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}

HEAVY = {
    "torch", "torchvision", "timm", "sklearn", "pandas", "gradio", "onnx", "onnxscript", "optuna",
    "mlflow", "tensorboard", "ray", "cleanlab",
}  # fmt: skip
"""What only `training` and its users may carry; the serving image has none of it."""

ALLOWED = {
    "demo_steps": {"sklearn"},
    **{module: {"ray"} for module in ("cluster", "chunks")},
}
"""The demo's images are scikit-learn's digits, and `--engine ray` is Ray: loaded when asked for."""

TRAINING_SEES = LAYER["scale"]
"""The highest layer of imgcls that `training` builds on."""


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all that a file imports, inside functions and for type checking too."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from imgcls import images` imports the module `imgcls.images`.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def unit(dotted: str) -> str:
    """The module or subpackage of imgcls that a dotted name belongs to."""
    parts = dotted.split(".")
    name = parts[1] if len(parts) > 1 else "__init__"
    known = (ROOT / "imgcls" / name).is_dir() or (ROOT / "imgcls" / f"{name}.py").is_file()
    return name if known else "__init__"


def unit_of_file(path: Path) -> str:
    return path.relative_to(ROOT / "imgcls").parts[0].removesuffix(".py")


def test_every_module_of_imgcls_has_a_layer() -> None:
    there = {unit_of_file(path) for path in sources("imgcls")}
    assert there == set(LAYER)


@pytest.mark.parametrize("path", sources("imgcls"), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_from_lower_layers_only(path: Path) -> None:
    own = unit_of_file(path)
    for dotted in imports(path):
        if dotted.split(".")[0] != "imgcls" or unit(dotted) == own:
            continue
        assert LAYER[unit(dotted)] < LAYER[own], f"{own} must not import {dotted}"


@pytest.mark.parametrize("path", sources("imgcls"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imgcls_imports_neither_training_nor_what_it_needs(path: Path) -> None:
    roots = {dotted.split(".")[0] for dotted in imports(path)}
    assert not roots & (HEAVY | {"training"}) - ALLOWED.get(path.stem, set())


@pytest.mark.parametrize("path", sources("training"), ids=lambda p: str(p.relative_to(ROOT)))
def test_training_does_not_build_on_the_service(path: Path) -> None:
    for dotted in imports(path):
        if dotted.split(".")[0] == "imgcls":
            assert LAYER[unit(dotted)] <= TRAINING_SEES, f"training must not import {dotted}"


def test_service_py_only_names_the_service() -> None:
    assert {dotted.split(".")[0] for dotted in imports(ROOT / "service.py")} <= {
        "imgcls",
        "pathlib",
        "sys",
    }


@pytest.mark.parametrize(
    "module", ["service", "imgcls", "imgcls.client", "imgcls.cli.app", "imgcls.cli.demo_steps"]
)
def test_a_fresh_interpreter_loads_nothing_heavy(module: str) -> None:
    code = (
        f"import sys, {module}; "
        f"print(*sorted({{m.split('.')[0] for m in sys.modules}} & {HEAVY | {'training'}!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_the_supervisor_of_a_server_loads_no_numpy() -> None:
    """BentoML's supervising process imports the service too, and every start waits for it."""
    late = {"numpy", "PIL", "onnxruntime", "pyarrow", "simplejpeg"}
    code = f"import sys, service; print(*sorted({late} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
