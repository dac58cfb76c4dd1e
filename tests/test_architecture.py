"""The arrows between packages, and a server without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
OURS = ("server", "training", "export", "gvvad")

# What the offline packages may take from the server: its pure core and the engines.
CORE = {
    f"server.{name}"
    for name in (
        "contract",
        "bundle",
        "preprocess",
        "windows",
        "ingest",
        "engine",
        "truth",
        "metrics",
        "curves",
        "operating",
        "bank",
        "alerts",
        "alert_machine",
        "replay",
    )
}

IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if "torch" in sys.modules:
        sys.exit(f"{name} loads torch")
"""


def sources(package: str) -> list[Path]:
    return sorted(path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Dotted names of all that a file imports, wherever the import stands."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            # `from server import rpc` reaches server.rpc, so each name counts.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_below(name: str, allowed: set[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in allowed)


def strays(package: str, allowed: set[str]) -> list[str]:
    return [
        f"{path} imports {name}"
        for path in sources(package)
        for name in imported(path)
        if name.split(".")[0] in OURS and not is_below(name, allowed)
    ]


def test_the_server_imports_only_itself_and_its_stubs() -> None:
    assert strays("server", {"server", "gvvad.v1"}) == []


def test_the_stubs_are_imported_from_rpc_alone() -> None:
    outside = [path for path in sources("server") if path.parts[1] != "rpc"]
    users = [path for path in outside if any(is_below(name, {"gvvad"}) for name in imported(path))]
    assert users == []


def test_training_takes_only_the_core_of_the_server() -> None:
    assert strays("training", {"training"} | CORE) == []


def test_export_takes_training_and_the_core_of_the_server() -> None:
    assert strays("export", {"export", "training"} | CORE) == []


def test_no_server_file_names_torch_even_in_a_function() -> None:
    users = [
        path for path in sources("server") if any(is_below(n, {"torch"}) for n in imported(path))
    ]
    assert users == []


def test_importing_every_server_module_never_loads_torch() -> None:
    modules = [
        ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        for path in sources("server")
        # Alembic runs its own files, and only within a migration.
        if path.name != "__main__.py" and "migrations" not in path.parts
    ]
    finished = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *modules], cwd=ROOT, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr


def test_every_package_is_installed() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in ("server", "training", "export")
        for path in (ROOT / package).rglob("*.py")
    }
    assert there == {name for name in setup["packages"] if not name.startswith("gvvad")}
