"""The shape of the package: who may import whom, how long a function may be, and what must never be called."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "pipeline"

# Each row may import the rows before it; packages of one row do not import each other.
LAYERS: list[set[str]] = [
    {"errors"},
    {"config"},
    {"artifacts", "runtime"},
    {"tracking", "statistics", "checks", "pages"},
    {"data"},
    {"labels"},
    {"models"},
    {"losses"},
    {"ppo", "evaluation"},
    {"stages", "graph"},
    {"sweeps"},
    {"comparison"},
    {"commands"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
TORCH_FREE = {
    "errors",
    "config",
    "artifacts",
    "tracking",
    "statistics",
    "checks",
    "pages",
    "data",
    "labels",
    "graph",
    "sweeps",
    "comparison",
    "commands",
    "__main__",
}
ALLOWED_IMPORTERS = {
    "wandb": {"tracking"},
    "wandb_workspaces": {"tracking"},
    "trl": {"stages"},
    "hydra": {"config", "commands", "__main__"},
    "jinja2": {"pages", "data"},
    "optuna": {"sweeps"},
    "submitit": {"sweeps"},
}
FORBIDDEN = {
    r"(?<![\w.])eval\(": "eval",
    r"(?<![\w.])exec\(": "exec",
    r"\b(import|from) pickle\b|\bpickle\.": "pickle",
    r"\b(import|from) dill\b|\bdill\.": "dill",
    r"joblib\.load": "joblib.load",
    r"weights_only\s*=\s*False": "weights_only=False",
    r"trust_remote_code\s*=\s*True": "trust_remote_code=True",
    r"shell\s*=\s*True": "shell=True",
    r"yaml\.load\(": "yaml.load",
    r"hydra\.utils\.instantiate|_target_": "instantiate",
}

MODULES = sorted(PACKAGE.rglob("*.py"))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_names(tree: ast.Module, *, top_level_only: bool = False) -> set[str]:
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def violations_of_layers(layer: str, names: set[str]) -> list[str]:
    found = []
    for name in names:
        parts = name.split(".")
        if parts[0] != "pipeline" or len(parts) < 2 or parts[1] == layer:
            continue
        if LEVEL[parts[1]] >= LEVEL[layer]:
            found.append(name)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_left(path: Path) -> None:
    layer = layer_of(path)
    if layer == "__init__":
        return
    names = imported_names(tree_of(path))
    assert violations_of_layers(layer, names) == []
    for package, importers in ALLOWED_IMPORTERS.items():
        if any(name.split(".")[0] == package for name in names):
            assert layer in importers, f"{package} is imported in {sorted(importers)} only"


def test_the_layer_check_sees_an_import_that_points_right() -> None:
    assert violations_of_layers("config", {"pipeline.stages.sft"}) == ["pipeline.stages.sft"]
    assert violations_of_layers("artifacts", {"pipeline.runtime.seeds"}) == ["pipeline.runtime.seeds"]
    assert violations_of_layers("stages", {"pipeline.config.root", "os"}) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_function_is_longer_than_sixty_lines(path: Path) -> None:
    functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    too_long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in functions
        if node.end_lineno and node.end_lineno - node.lineno >= 60
    }
    assert too_long == {}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_unsafe_is_called(path: Path) -> None:
    code = path.read_text(encoding="utf-8")
    nodes = ast.walk(tree_of(path))
    prose = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    for text in sorted(prose, key=len, reverse=True):
        if "\n" in text or " " in text:
            code = code.replace(text, "")
    code = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith("#"))
    found = [name for pattern, name in FORBIDDEN.items() if re.search(pattern, code)]
    assert found == []


def test_torch_free_layers_import_no_torch() -> None:
    names = [
        "pipeline." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if layer_of(path) in TORCH_FREE
    ]
    script = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'torch', 'peft', 'trl', 'wandb', 'accelerate'} & set(sys.modules)\n"
        "    assert not heavy, f'{name} imports {heavy}'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(names) > 20
