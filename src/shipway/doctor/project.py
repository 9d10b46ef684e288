"""Is what the project keeps in `.shipway`, and beside it on this machine, as it was left?"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from shipway.doctor import Finding
from shipway.errors import InputError, StackError
from shipway.settings import CONFIG_FILE, Settings
from shipway.stack import StackFacts, facts
from shipway.stack.manager import held
from shipway.stack.seaweed import SeaweedPorts, socket_folder_path, socket_paths

PRIVATE_FILES = ("secrets.json", "store/s3.json", "store/tls/part.key")
"""Files of the state folder that hold secrets."""


def unreadable(error: InputError, settings: Settings) -> Finding:
    """Explain settings that cannot be read, without the values that they hold."""
    what = re.sub(r"( sets \S+ to ).*(, which is )", r"\1a value\2", error.message, flags=re.DOTALL)
    variable = re.match(r"environment variable (\w+) ", what)
    mend = f"unset {variable[1]}" if variable else ""
    if not variable and what.startswith(f"{settings.project / CONFIG_FILE} "):
        mend = f"${{EDITOR:-vi}} {shlex.quote(str(settings.project / CONFIG_FILE))}"
    return Finding("settings", "error", what, error.hint or "no command works until they can be", mend)


def permissions(settings: Settings) -> Iterator[Finding]:
    """Look at the owner and mode of what nobody else may read or write."""
    store = settings.state / "store"
    folders = [settings.state, settings.cache_folder]
    if (place := socket_folder_path(store)) != store.resolve():
        folders.append(place)
    wrong = 0
    for path, mode in [*((each, 0o700) for each in folders), *((settings.state / n, 0o600) for n in PRIVATE_FILES)]:
        for finding in _private(path, mode):
            wrong += 1
            yield finding
    foreign_sockets = [
        path for path in _socket_paths(settings) if path.exists() and path.lstat().st_uid != os.geteuid()
    ]
    for path in [*_foreign(settings.state), *foreign_sockets]:
        wrong += 1
        yield _not_ours(path)
    if not wrong:
        yield Finding("permissions", "ok", "state and cache are for their owner alone")


def leftovers(settings: Settings) -> Iterator[Finding]:
    """Look for what is left of a stack that is gone, and for parts of a running one that are not ready."""
    try:
        stack = facts(settings)
    except StackError:
        yield Finding("stack", "note", f"not looked at: {settings.secrets_file.name} cannot be trusted")
        return
    if stack and stack.running:
        yield from _services(stack)
    elif _starting(settings):
        yield Finding("stack", "note", "the stack starts or stops just now")
    elif stack:
        alive = [each for each in stack.services if each.process and each.process.alive]
        named = ", ".join(f"{each.name} (pid {each.process.pid})" for each in alive if each.process)
        yield Finding(
            "stack",
            "error",
            f"the supervisor (pid {stack.supervisor.pid}) is gone"
            + (f"; {named} go on without it" if alive else "; only its description is left"),
            "it was killed: nothing restarts what dies, and commands look for a server where there may be none",
            "shipway down",
        )
    elif settings.stack_file.exists():
        yield Finding(
            "stack",
            "error",
            f"{settings.stack_file} is left over or damaged, and belongs to no stack that runs",
            "commands believe that a server listens where it says",
            f"rm {shlex.quote(str(settings.stack_file))}",
        )
    else:
        yield from _sockets(settings)


def _services(stack: StackFacts) -> Iterator[Finding]:
    wrong = [each for each in stack.services if each.true_state != "ready"]
    for each in wrong:
        yield Finding(
            "stack",
            "note" if stack.state == "starting" else "warning",
            f"the {each.name} is {each.true_state} ({each.restarts} restarts)",
            "the supervisor starts it again; its log says why it ended",
            f"shipway logs {each.name}",
        )
    if not wrong:
        yield Finding("stack", "ok", f"{', '.join(each.name for each in stack.services)} ready at {stack.api_url}")


def _sockets(settings: Settings) -> Iterator[Finding]:
    """Look for sockets at which nobody listens any more; called when no stack runs."""
    stale = [path for path in _socket_paths(settings) if _deserted(path)]
    if stale:
        yield Finding(
            "stack",
            "warning",
            f"left of an S3 server that is gone: {', '.join(map(str, stale))}",
            "it was killed, and so was its supervisor; nobody listens at these sockets any more",
            f"rm -f {' '.join(shlex.quote(str(path)) for path in stale)}",
        )
    else:
        yield Finding("stack", "ok", "no stack is running, and none left anything behind")


def _socket_paths(settings: Settings) -> list[Path]:
    """Return where the sockets of the project's S3 server are while it runs."""
    ports = SeaweedPorts.read(settings.state / "ports.json")
    return socket_paths(settings.state / "store", ports) if ports else []


def _deserted(path: Path) -> bool:
    """Tell whether a path is a socket at which nobody listens."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            probe.connect(str(path))
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def _starting(settings: Settings) -> bool:
    try:
        return held(settings)
    except OSError:
        return False


def _private(path: Path, mode: int) -> Iterator[Finding]:
    """Yield what is wrong with a file or folder that must be its owner's alone; nothing where there is none."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except PermissionError:
        yield Finding("permissions", "error", f"{path} cannot be looked at", "a folder above it is closed to us")
        return
    name = shlex.quote(str(path))
    if stat.S_ISLNK(found.st_mode) and mode == 0o600:
        why = "whoever can write where it leads has the secrets"
        copy = f'cp --remove-destination "$(readlink -f {name})" {name}'
        yield Finding("permissions", "error", f"{path} is a link", why, copy)
        return
    if not path.exists():
        return  # a link that leads nowhere: the folder is made when it is needed
    found = path.stat()
    if found.st_uid != os.geteuid():
        yield _not_ours(path)
    elif found.st_mode & 0o077:
        what = f"{path} has mode {stat.S_IMODE(found.st_mode):o}: other users of this machine can enter or read it"
        why = "it holds secrets" if mode == 0o600 else "what they can read they can copy, what they can write, replace"
        yield Finding("permissions", "error", what, why, f"chmod {mode:o} {name}")
    elif found.st_mode & (mode & 0o700) != mode & 0o700:
        what = f"{path} has mode {stat.S_IMODE(found.st_mode):o}: its owner cannot use it"
        yield Finding("permissions", "error", what, "the stack reads and writes it", f"chmod {mode:o} {name}")


def _foreign(state: Path) -> list[Path]:
    """Return what of the state folder itself belongs to somebody else, as after a command that was run with sudo."""
    try:
        with os.scandir(state) as found:
            items = [Path(item.path) for item in found if item.stat(follow_symlinks=False).st_uid != os.geteuid()]
    except OSError:
        return []
    return [path for path in items if path.name not in PRIVATE_FILES]


def _not_ours(path: Path) -> Finding:
    try:
        owner = pwd.getpwuid(path.lstat().st_uid).pw_name
    except (KeyError, OSError):
        owner = "another user"
    return Finding(
        "permissions",
        "error",
        f"{path} belongs to {owner}",
        "it was made by a command of that user, perhaps with sudo; ours can neither trust nor change it",
        f"sudo chown -R {os.geteuid()}:{os.getegid()} {shlex.quote(str(path))}",
    )
