"""Has this machine what is needed: room on its disks, descriptors, ports?"""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from shipway.doctor import Finding
from shipway.errors import PortTakenError, StackError
from shipway.settings import Settings
from shipway.stack import facts
from shipway.stack.service import check_port

LEAST_FREE = 1 << 30
"""Bytes free below which a disk is nearly full: about one release with its data, and room for the database."""

NONE_FREE = 100 << 20
LEAST_FILES = 10_000
"""Files that a file system must still take."""

LEAST_DESCRIPTORS = 1024
"""What most systems give a process. A server with a few dozen clients and a run with its connections need hundreds."""


def disks(settings: Settings) -> Iterator[Finding]:
    """Look at the room where the state, the cache and temporary files are."""
    # Only what Shipway keeps there: the setting may name a folder that holds other things.
    cache = " ".join(shlex.quote(str(settings.cache_folder / name)) for name in ("files", "releases", "stamps"))
    temporary = tempfile.gettempdir()
    look = f"du -xh {shlex.quote(temporary)} | sort -h | tail"
    yield from disk({
        "the state folder": (settings.state, "shipway gc"),
        "the cache": (settings.cache_folder, f"rm -rf {cache}"),
        "temporary files": (Path(temporary), look),
    })  # fmt: skip


def disk(folders: Mapping[str, tuple[Path, str]], least: int = LEAST_FREE) -> Iterator[Finding]:
    """Look at the disks that folders are on, each disk once.

    Args:
        folders: what each is for, with its path, which need not exist yet, and the command that makes room there.
        least: bytes that should be free.
    """
    disks: dict[int, list[str]] = {}
    for name, (path, _mend) in folders.items():
        disks.setdefault(_existing(path).stat().st_dev, []).append(name)
    for names in disks.values():
        path, mend = folders[names[0]]
        place = _existing(path)
        free, files = shutil.disk_usage(place).free, os.statvfs(place)
        where = f"the disk of {' and of '.join(names)} ({place})"
        why = "what cannot be written fails: a run's data, the server's database, a release's copy"
        if free < least:
            level = "error" if free < NONE_FREE else "warning"
            yield Finding("disk", level, f"{where} has {free / 1e6:.0f} MB left", why, mend)  # type: ignore[arg-type]
        elif files.f_files and files.f_favail < LEAST_FILES:
            yield Finding("disk", "warning", f"{where} takes only {files.f_favail} more files", why, mend)
        else:
            yield Finding("disk", "ok", f"{free / 1e9:.0f} GB left for {' and '.join(names)}")


def descriptors() -> Iterator[Finding]:
    """Look at how many files a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= LEAST_DESCRIPTORS:
        yield Finding("descriptors", "ok", "enough open files for each process")
        return
    reachable = hard == resource.RLIM_INFINITY or hard >= LEAST_DESCRIPTORS
    yield Finding(
        "descriptors",
        "warning",
        f"a process may have only {soft} files open",
        "server and worker have one open for each connection and run, and fail when there are no more",
        f"ulimit -n {4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)}"
        if reachable
        else f"sudo prlimit --pid $$ --nofile={LEAST_DESCRIPTORS * 4}:{LEAST_DESCRIPTORS * 4}",
    )


def ports(settings: Settings) -> Iterator[Finding]:
    """See whether the stack could listen where it is to, when it is down."""
    try:
        stack = facts(settings)
    except StackError:
        stack = None
    if stack and (stack.running or any(each.process and each.process.alive for each in stack.services)):
        yield Finding("ports", "ok", "the stack has its ports")
        return
    # Where no stack was ever started a taken port is somebody's good right.
    level = "warning" if settings.secrets_file.exists() else "note"
    taken = False
    for port, name, option in (
        (settings.server_port, "Prefect server", "--port"),
        (settings.store_port, "S3 server", "--store-port"),
    ):
        try:
            check_port(settings.host, port, name, option)
        except PortTakenError as error:
            taken = True
            why = "`shipway up` cannot start while it is; end that program, or take another port"
            yield Finding("ports", level, error.message, why, f"shipway up --detach {option} {_beside(settings, port)}")  # type: ignore[arg-type]
        except StackError as error:
            taken = True
            yield Finding("ports", level, error.message, error.hint or "", "shipway up --detach --host 127.0.0.1")  # type: ignore[arg-type]
    if not taken:
        yield Finding("ports", "ok", f"ports {settings.server_port} and {settings.store_port} are free")


def _beside(settings: Settings, port: int) -> int:
    """Return a port near another one that is free now."""
    for candidate in range(port + 1, min(port + 100, 65_536)):
        if candidate in (settings.server_port, settings.store_port):
            continue
        try:
            check_port(settings.host, candidate, "", "")
        except StackError:
            continue
        return candidate
    return port + 1


def _existing(path: Path) -> Path:
    """Return a path, or the nearest folder above it that is there."""
    path = path.absolute()
    return next((each for each in (path, *path.parents) if each.exists()), Path("/"))
