"""What the image installs is what the project asks for; held without a network."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "requirements"
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)( ; [^\\]+)? ?(\\?)$", re.MULTILINE)

# Extras in each lock; the third are requirements in a file of their own.
LOCKS = {
    "cpu": ("cpu", "postgresql"),
    "gpu": ("gpu", "postgresql"),
    "train": ("train", "export", "cpu"),
}

# Not installed beside the tests, so what they bring along cannot be followed from here.
NOT_HERE = {"onnxruntime-gpu"}


def pins(name: str) -> dict[str, str]:
    """Version by package, of those that apply to this system."""
    found = {}
    for package, version, marker, _ in PIN.findall((FOLDER / f"{name}.txt").read_text()):
        requirement = Requirement(f"{package}=={version}{marker}")
        if requirement.marker is None or requirement.marker.evaluate():
            found[canonicalize_name(package)] = version
    return found


def asked(name: str) -> Iterator[Requirement]:
    """What a lock was made from."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    if name in LOCKS:
        yield from map(Requirement, project["project"]["dependencies"])
        for extra in LOCKS[name]:
            yield from map(Requirement, extras[extra])
    else:
        yield from map(Requirement, project["build-system"]["requires"])
    file = FOLDER / f"{name}.in"
    if file.exists():
        lines = file.read_text().splitlines()
        yield from (Requirement(line) for line in lines if line and not line.startswith("#"))


def brought_along(requirements: Iterator[Requirement]) -> dict[str, list[Requirement]]:
    """All that these need, by package, as this environment's own metadata tells."""
    found: dict[str, list[Requirement]] = {}
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        known = found.setdefault(name, [])
        if requirement in known:
            continue
        known.append(requirement)
        for text in _requires(name):
            further = Requirement(text)
            extras = requirement.extras or {""}
            if further.marker is None or any(further.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(further)
    return found


def _requires(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:
        if name in NOT_HERE:
            return []
        raise


@pytest.mark.parametrize("name", ["cpu", "gpu", "train", "build"])
def test_every_line_of_a_lock_has_a_version_and_hashes(name: str) -> None:
    text = (FOLDER / f"{name}.txt").read_text()
    pinned = PIN.findall(text)
    assert pinned
    assert all(goes_on for *_, goes_on in pinned)
    others = [line for line in text.splitlines() if line and not PIN.match(line)]
    assert all(re.match(r"#|    (--hash=sha256:[0-9a-f]{64}|# )", line) for line in others), others


@pytest.mark.parametrize("name", ["cpu", "gpu", "train"])
def test_a_lock_holds_what_is_asked_for_and_all_that_it_brings_along(name: str) -> None:
    locked = pins(name)
    needed = brought_along(asked(name))
    missing = sorted(set(needed) - set(locked))
    assert not missing, f"{name}.txt lacks {missing}: run `make lock`"
    for package, requirements in needed.items():
        for requirement in requirements:
            fits = requirement.specifier.contains(locked[package], prereleases=True)
            assert fits, (
                f"{name}.txt has {package} {locked[package]}, not {requirement}: `make lock`"
            )


def test_the_cpu_lock_holds_nothing_that_nobody_asked_for() -> None:
    extra = sorted(set(pins("cpu")) - set(brought_along(asked("cpu"))))
    assert not extra, f"cpu.txt has {extra}, which nothing needs: run `make lock`"


@pytest.mark.parametrize("name", ["cpu", "gpu", "train", "build"])
def test_locks_and_tests_use_the_same_versions(name: str) -> None:
    text = (ROOT / "constraints.txt").read_text()
    constraints = {canonicalize_name(name): version for name, version, *_ in PIN.findall(text)}
    locked = pins(name)
    stale = {p: v for p, v in locked.items() if p in constraints and constraints[p] != v}
    assert not stale, f"{name}.txt differs from constraints.txt in {stale}: run `make lock`"
    if name == "cpu":
        assert set(locked) <= set(constraints)


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_the_runtime_locks_have_no_torch(name: str) -> None:
    assert "torch" not in pins(name)


def test_the_wheel_is_built_by_what_pyproject_names() -> None:
    for requirement in asked("build"):
        assert requirement.specifier.contains(pins("build")[canonicalize_name(requirement.name)])
