"""A stage of the Dockerfile built without Docker: its own commands, in roots of Debian.

Each stage is a root of its own, laid over the one it begins from, and what stands
in the Dockerfile is done there: RUN by chroot, COPY from a context that honours
.dockerignore. An instruction or flag that this does not know is an error, never
passed over. The base image is played by debootstrap's Debian with its Python.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dockerfile_parse import DockerfileParser

MIRROR = "http://deb.debian.org/debian"
RUN_SECONDS = 600
_NOTED = {"LABEL", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
_ENTERED = ("/usr/bin/unshare", "--mount", "--pid", "--fork", "--kill-child")

# What a build needs of the machine around it: names, certificates, a proxy, pip's index.
_SHARED_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")
_SHARED_VARIABLES = re.compile(r"(https?|no)_proxy|PIP_(CERT|INDEX_URL)|SSL_CERT_FILE", re.I)


@dataclass(frozen=True)
class Image:
    """A built stage.

    Attributes:
        root: its files.
        layers: folders that it is laid together from, the topmost first.
        environment: by ENV.
        config: the last of each other instruction, as written.
    """

    root: Path
    layers: tuple[Path, ...]
    environment: Mapping[str, str]
    config: Mapping[str, str] = field(default_factory=dict)

    def command(self, instruction: str) -> list[str]:
        """ENTRYPOINT, CMD or HEALTHCHECK's CMD in its exec form."""
        written = self.config[instruction]
        return [str(part) for part in json.loads(written[written.index("[") :])]


class Builder:
    """Builds stages of one Dockerfile.

    Args:
        context: the folder with Dockerfile and .dockerignore.
        scratch: a tmpfs, mounted: overlays want a real file system above them.
        base: root of the base image.
    """

    def __init__(self, context: Path, scratch: Path, base: Path) -> None:
        self._context = context
        self._scratch = scratch
        self._base = base
        self._sent = sent_files(context)
        self._built: dict[str, Image] = {}
        self._arguments, self._stages = _stages(context / "Dockerfile")

    def build(self, name: str) -> Image:
        """Build a stage and all that it needs."""
        if name not in self._built:
            parent, instructions = self._stages[name]
            below = self._below(parent)
            image = self._above(below, name)
            for instruction, value in instructions:
                image = self._do(image, instruction, value)
            self._built[name] = image
        return self._built[name]

    def _below(self, parent: str) -> Image:
        if parent in self._stages:
            return self.build(parent)
        image = re.sub(r"\$\{(\w+)\}", lambda found: self._arguments[found[1]], parent)
        assert image.startswith("python:3.11-slim-bookworm"), f"{image} is not what {MIRROR} plays"
        path = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        return Image(self._base, (self._base,), {"PATH": path})

    def _above(self, below: Image, name: str) -> Image:
        folder = self._scratch / name
        for part in ("root", "upper", "work"):
            (folder / part).mkdir(parents=True)
        # Overlays of overlays go two deep at most, so each lies over all that is below.
        lower = ":".join(map(str, below.layers))
        layers = f"lowerdir={lower},upperdir={folder / 'upper'},workdir={folder / 'work'}"
        subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", layers, str(folder / "root")], check=True
        )
        return replace(below, root=folder / "root", layers=(folder / "upper", *below.layers))

    def _do(self, image: Image, instruction: str, value: str) -> Image:
        if instruction == "RUN":
            self._run(image, value)
        elif instruction == "COPY":
            self._copy(image, value)
        elif instruction == "WORKDIR":
            (image.root / value.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif instruction in ("ENV", "ARG"):
            pairs = (pair.split("=", 1) for pair in shlex.split(value))
            new = {
                key: re.sub(r"\$(\w+)", lambda found: image.environment[found[1]], text)
                for key, text in pairs
            }
            return replace(image, environment=dict(image.environment) | new)
        else:
            assert instruction in _NOTED, f"{instruction} is not known here"
        return replace(image, config=dict(image.config) | {instruction: value})

    def _run(self, image: Image, value: str) -> None:
        flags, command = re.fullmatch(r"((?:--\S+\s+)*)(.*)", value, re.DOTALL).groups()  # type: ignore[union-attr]
        caches = []
        for flag in flags.split():
            cache = re.fullmatch(r"--mount=type=cache,target=(\S+)", flag)
            assert cache is not None, f"RUN {flag} is not known here"
            caches.append(cache[1])
        workdir = image.config.get("WORKDIR", "/")
        assert "USER" not in image.config, "a RUN after USER is not known here"
        script = f"set -e; cd {workdir}; {command}"
        finished = subprocess.run(
            [*_ENTERED, "/bin/sh", "-c", _entry(image.root, caches), "sh", "sh", "-c", script],
            env=dict(image.environment) | _shared_variables(),
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )
        assert finished.returncode == 0, f"RUN {value}\n{finished.stdout}\n{finished.stderr}"

    def _copy(self, image: Image, value: str) -> None:
        *sources, target = value.split()
        folder = image.root / Path(image.config.get("WORKDIR", "/"), target).as_posix().lstrip("/")
        origin, sent = self._context, True
        if sources[0].startswith("--"):
            stage = re.fullmatch(r"--from=(\S+)", sources.pop(0))
            assert stage is not None, f"COPY {value}: a flag that is not known here"
            origin, sent = self.build(stage[1]).root, False
        for source in sources:
            found = origin / source.lstrip("/")
            if sent:
                assert self._is_sent(source), f"COPY {source}: .dockerignore keeps it back"
            # A folder's content goes into the target, a file into a target that ends in /.
            into = folder / found.name if found.is_file() and target.endswith("/") else folder
            self._copy_one(found, into, sent=sent)

    def _is_sent(self, source: str) -> bool:
        return any(path == source or path.startswith(f"{source}/") for path in self._sent)

    def _copy_one(self, source: Path, target: Path, *, sent: bool) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_file():
            shutil.copy2(source, target if not target.is_dir() else target / source.name)
        elif sent:
            for path in self._sent:
                file = self._context / path
                if source in file.parents:
                    into = target / file.relative_to(source)
                    into.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(file, into)
        else:
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)


def make_base(root: Path) -> None:
    """Debian with its Python in place of the image python:3.11-slim-bookworm."""
    packages = "--include=python3,python3-venv,ca-certificates"
    command = ["debootstrap", "--variant=minbase", packages, "bookworm", str(root), MIRROR]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS)
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    for file in _SHARED_FILES:
        if Path(file).exists():
            shutil.copy(file, root / file.lstrip("/"))


def _entry(root: Path, caches: list[str]) -> str:
    """A script that runs its arguments in a root; a cache is this machine's own folder."""
    mounts = [f"mount -t proc proc {root}/proc", f"mount --rbind /dev {root}/dev"]
    for cache in caches:
        Path(cache).mkdir(parents=True, exist_ok=True)
        mounts.append(f"mkdir -p {root}{cache} && mount --bind {cache} {root}{cache}")
    return " && ".join([*mounts, f'exec chroot {root} "$@"'])


def sent_files(context: Path) -> list[str]:
    """Files of the context that .dockerignore lets through; the last rule that fits wins."""
    rules = [
        (line.lstrip("!"), line.startswith("!"))
        for line in (context / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others"], cwd=context, capture_output=True, text=True
    )
    assert listed.returncode == 0, listed.stderr
    return [path for path in listed.stdout.splitlines() if _passes(path, rules)]


def _passes(path: str, rules: list[tuple[str, bool]]) -> bool:
    parents = [path, *(str(parent) for parent in Path(path).parents if str(parent) != ".")]
    passes = True
    for pattern, keeps in rules:
        bare = pattern.removeprefix("**/")
        if any(
            pattern == "**"
            or fnmatch.fnmatch(one, pattern)
            or (bare != pattern and fnmatch.fnmatch(Path(one).name, bare))
            for one in parents
        ):
            passes = keeps
    return passes


def _stages(
    dockerfile: Path,
) -> tuple[dict[str, str], dict[str, tuple[str, list[tuple[str, str]]]]]:
    """Global arguments; each stage's parent and instructions."""
    arguments: dict[str, str] = {}
    stages: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    instructions: list[tuple[str, str]] | None = None
    lines: list[dict[str, Any]] = DockerfileParser(str(dockerfile)).structure
    for line in lines:
        instruction, value = line["instruction"], line["value"]
        if instruction == "COMMENT":
            continue
        if instruction == "FROM":
            parent, _, name = value.split()
            instructions = []
            stages[name] = (parent, instructions)
        elif instructions is None:
            key, _, text = value.partition("=")
            arguments[key] = text
        else:
            instructions.append((instruction, value))
    return arguments, stages


def _shared_variables() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if _SHARED_VARIABLES.fullmatch(k)}
