"""What around the project decides differently than the project does: variables, Prefect's profile, keys in files."""

from __future__ import annotations

import os
import re
import shlex
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from shipway.doctor import Finding
from shipway.errors import StackError
from shipway.settings import CONFIG_FILE, STATE_FOLDER, Settings
from shipway.stack import StackFacts, facts
from shipway.stack.service import is_loopback

URL_VARIABLES = ("SHIPWAY_API_URL", "PREFECT_API_URL")
"""The one named first wins."""

SEARCHED_BYTES = 256 << 10
SEARCHED_FILES = 3_000
SEARCH_SECONDS = 2.0
TEXT = frozenset(
    ["cfg", "conf", "csv", "env", "html", "ini", "ipynb", "json", "md", "py", "sh", "toml", "txt", "yaml", "yml"]
)
NEVER = frozenset({STATE_FOLDER, ".git", "node_modules", "__pycache__", "site-packages"})

SECRETS = {
    # IDs of AWS keys: docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids
    "an AWS access key": re.compile(rb"\b(?:AKIA|ASIA)(?!\w*EXAMPLE)[0-9A-Z]{16}\b"),
    "an AWS secret key": re.compile(
        rb"(?i)(?:aws_?)?secret_?(?:access_?)?key\W{1,5}(?![\w/+]*EXAMPLE)[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])"
    ),
    "a private key": re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "a key of Prefect Cloud": re.compile(rb"\bpn[ub]_[A-Za-z0-9]{36}\b"),
}


def environment(settings: Settings, environ: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """See which variables override what the project says."""
    environ = os.environ if environ is None else environ
    stack = _stack(settings)
    for name in URL_VARIABLES:
        url = environ.get(name)
        if url and stack and not _same(url, stack.api_url):
            yield Finding(
                "environment",
                "warning",
                f"{name} is set to {plain(url)}, and the project's stack listens at {stack.api_url}",
                "a variable wins: commands in this shell do not talk to the project's stack",
                f"unset {name}",
            )
            break
    others = sorted(
        name
        for name, value in environ.items()
        if value and name.startswith(("PREFECT_", "SHIPWAY_")) and name not in URL_VARIABLES
    )
    if others:
        why = "they win over shipway.toml, the stack and Prefect's profile; their values are not shown here"
        yield Finding("environment", "note", f"variables that change settings: {', '.join(others)}", why)
    else:
        yield Finding("environment", "ok", "no other variables change settings")


def profile(settings: Settings, environ: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Compare Prefect's active profile with the project's stack."""
    environ = os.environ if environ is None else environ
    home = Path(environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    path = Path(environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        yield Finding("profile", "ok", "Prefect has no profile of its own here")
        return
    except (OSError, ValueError):
        why = "Prefect's own commands fail on it, or fall back to their defaults"
        yield Finding("profile", "warning", f"{path} cannot be read as TOML", why, f"mv {_q(path)} {_q(path)}.old")
        return
    name = str(environ.get("PREFECT_PROFILE") or table.get("active") or "")
    profiles = table.get("profiles")
    chosen = profiles.get(name, {}) if isinstance(profiles, dict) else {}
    url = str(chosen.get("PREFECT_API_URL", "")) if isinstance(chosen, dict) else ""
    stack = _stack(settings)
    if not url or stack is None or _same(url, stack.api_url) or environ.get("PREFECT_API_URL"):
        yield Finding(
            "profile", "ok", f"profile {name!r}" + (f" points to {plain(url)}" if url else " names no server")
        )
        return
    local = is_loopback(urlsplit(url).hostname or "")
    yield Finding(
        "profile",
        "warning" if local else "note",
        f"Prefect's profile {name!r} points to {plain(url)}, and the project's stack listens at {stack.api_url}",
        f"`shipway` takes the stack in this folder; `prefect` and scripts take the profile ({path})"
        + ("; it may be of a server that is long gone" if local else ""),
        f"prefect --profile {shlex.quote(name)} config set PREFECT_API_URL={stack.api_url}",
    )


def secrets_in_files(settings: Settings, seconds: float = SEARCH_SECONDS) -> Iterator[Finding]:
    """Search the project's text files for what looks like a key; say where, never what."""
    count = 0
    deadline = time.monotonic() + seconds
    for searched, path in enumerate(_texts(settings.project)):
        if searched >= SEARCHED_FILES or time.monotonic() > deadline:
            yield Finding("secrets", "note", f"only {searched} files of the project were searched for keys")
            break
        content = _read(path)
        for kind, pattern in SECRETS.items():
            if found := pattern.search(content):
                count += 1
                line = content.count(b"\n", 0, found.start()) + 1
                yield _in_file(path, line, kind)
    if not count:
        yield Finding("secrets", "ok", "no keys found in the project's files")


def plain(url: str) -> str:
    """Return an address without the user, the password and the query that it may hold."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "something that is no address"
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme and host else "something that is no address"


def _in_file(path: Path, line: int, kind: str) -> Finding:
    where = "it is read by every command and seen by git" if path.name == CONFIG_FILE else "it would go into a release"
    return Finding(
        "secrets",
        "warning",
        f"{path}:{line} looks like {kind}",
        f"{where}; take it out and make a new one: whoever saw the file has it. A block takes keys from standard input",
        "shipway block s3 NAME --bucket-path BUCKET --secrets-from-stdin",
    )


def _texts(project: Path) -> Iterator[Path]:
    """Yield the project's text files; links are not followed, and hidden folders, caches and environments left out."""
    for place, folders, files in os.walk(project):
        folders[:] = sorted(
            name
            for name in folders
            if name not in NEVER and not name.startswith(".") and not Path(place, name, "pyvenv.cfg").exists()
        )
        for name in sorted(files):
            if name.rpartition(".")[2].lower() in TEXT:
                yield Path(place, name)


def _read(path: Path) -> bytes:
    """Return the start of a plain file, or nothing."""
    with suppress(OSError):
        # Neither a link, which may lead anywhere, nor a pipe, at which a reader waits for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor
            return file.read(SEARCHED_BYTES)
    return b""


def _stack(settings: Settings) -> StackFacts | None:
    """Return the project's stack while it runs."""
    try:
        stack = facts(settings)
    except StackError:
        return None
    return stack if stack and stack.running else None


def _same(one: str, other: str) -> bool:
    def bare(url: str) -> str:
        return url.rstrip("/").replace("//localhost", "//127.0.0.1")

    return bare(one) == bare(other)


def _q(path: Path) -> str:
    return shlex.quote(str(path))
