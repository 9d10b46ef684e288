"""Folder -> entries: what a release takes of a folder, what it leaves, and what it refuses."""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from shipway.digest import sha256_bytes, sha256_file
from shipway.errors import FolderError
from shipway.manifest import LINK, Entry, collision, unsafe
from shipway.release.ignore import Ignore
from shipway.release.index import Index, identity

NEVER = (
    ".git/", ".hg/", ".svn/", ".shipway/", ".venv/", "venv/", "node_modules/", "__pycache__/", "*.py[cod]",
    ".mypy_cache/", ".ruff_cache/", ".pytest_cache/", ".hypothesis/", ".ipynb_checkpoints/", ".tox/",
    ".nox/", "*.egg-info/", ".DS_Store",
)  # fmt: skip
"""Left out whatever the ignore file says: version control, environments, caches and the stack's own folder."""

SECRET = (
    ".env",
    ".env.*",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "id_rsa",
    "id_ed25519",
    "credentials",
    "credentials.json",
    ".netrc",
    ".pypirc",
)
"""Names that look like secrets: refused unless the ignore file leaves them out or names them with `!`."""

BIG_FILE = 20 * 1000 * 1000
"""Files of more bytes than this are said by name: they are often data that got in by mistake."""

MARKS = (b"# Shipway deployment", b'{\n  "shipway_manifest"')
"""How the two files that `build` writes begin: they describe a release and are no part of it."""

TRIES = 3


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found in a folder.

    Attributes:
        folder: the folder scanned.
        entries: the files taken, sorted by path.
        skipped: paths left out by the ignore file or as environments, folders ending in `/`; caches go unsaid.
        big: paths of files over `BIG_FILE`.
    """

    folder: Path
    entries: tuple[Entry, ...]
    skipped: tuple[str, ...] = ()
    big: tuple[str, ...] = ()


_never_folder = re.compile("|".join(fnmatch.translate(name[:-1]) for name in NEVER if name.endswith("/")))
_never_file = re.compile("|".join(fnmatch.translate(name) for name in NEVER if not name.endswith("/")))
_secret = re.compile("|".join(map(fnmatch.translate, SECRET)))


def scan(folder: Path, index: Index | None = None) -> Scan:
    """Hash every file of `folder` that belongs to a release; one that `index` knows unchanged is not read.

    The result depends on paths, modes and contents alone, never on order, time, owner or machine. The index is left
    with what was found, for the caller to save.

    Raises:
        FolderError: the folder is missing or empty, or holds something that cannot be released.
    """
    if not folder.is_dir():
        raise FolderError(f"{folder} is not a folder")
    walker = _Walker(folder, index or Index())
    entries = sorted(walker.walk(str(folder), "", Ignore()), key=lambda entry: entry.path.encode())
    if not entries:
        raise FolderError(f"{folder} holds no file to release", hint="look at its ignore file, or name another folder")
    if clash := collision(entry.path for entry in entries):
        raise FolderError(clash, hint="rename one of them")
    big = tuple(entry.path for entry in entries if entry.size > BIG_FILE)
    return Scan(folder, tuple(entries), tuple(sorted(walker.skipped)), big)


def read_entry(folder: Path, path: str) -> bytes:
    """Return the content a release keeps for `path`: a file's bytes or a link's target."""
    full = folder / path
    return os.fsencode(full.readlink()) if full.is_symlink() else full.read_bytes()


@dataclass(frozen=True, slots=True)
class _Walker:
    root: Path
    index: Index
    skipped: list[str] = field(default_factory=list)

    def walk(self, folder: str, prefix: str, above: Ignore) -> Iterator[Entry]:
        """Yield the entries of a folder, whose paths begin with `prefix`; `above` counts in the folder above."""
        try:
            found = list(os.scandir(folder))
        except OSError as error:
            raise _unreadable(prefix or str(self.root), error, above) from None
        names = {item.name for item in found}
        if prefix and "pyvenv.cfg" in names:  # a virtual environment, whatever its name
            self.skipped.append(prefix)
            return
        ignore = above.below(self.root, prefix, names)
        for item in found:
            path = prefix + item.name
            if item.is_dir(follow_symlinks=False):
                if not self._leaves_out(path, item.name, ignore, is_folder=True):
                    yield from self.walk(item.path, f"{path}/", ignore)
            elif not self._leaves_out(path, item.name, ignore, is_folder=False) and not _is_own_output(self.root, path):
                if reason := unsafe(path):
                    hint = f"rename it, or add it to {ignore.file}"
                    raise FolderError(f"{path!r} cannot be released: {reason}", hint=hint)
                yield self._entry(item.path, path, ignore)

    def _leaves_out(self, path: str, name: str, ignore: Ignore, *, is_folder: bool) -> bool:
        """Tell whether `path` is left out; raises FolderError for a secret nobody decided about."""
        if (_never_folder if is_folder else _never_file).match(name):
            return True
        verdict = ignore.verdict(path, is_folder)
        if verdict:
            self.skipped.append(f"{path}/" if is_folder else path)
            return True
        # `verdict` is False, not None, where a line starting with `!` names the file: then it was decided.
        if verdict is None and not is_folder and _secret.match(name):
            line = ignore.line(path)
            raise FolderError(
                f"{path} looks like a secret, so it is not put into a release",
                hint=f"write {line} into {ignore.file} to leave it out, or !{line} to take it all the same",
            )
        return False

    def _entry(self, full: str, path: str, ignore: Ignore) -> Entry:
        for _ in range(TRIES):
            try:
                before = os.lstat(full)
                if stat.S_ISLNK(before.st_mode):
                    return _link(self.root, path, ignore)
                if not stat.S_ISREG(before.st_mode):
                    raise FolderError(f"{path} is {_kind(before.st_mode)}, not a file", hint=f"add it to {ignore.file}")
                mode = "100755" if before.st_mode & stat.S_IXUSR else "100644"
                now = identity(before)
                sha256 = self.index.digest(path, now)
                if sha256 is None:
                    sha256, size = sha256_file(Path(full))
                    # A file written to while it is read would have a digest of bytes that never stood together.
                    if identity(os.lstat(full)) != now or size != before.st_size:
                        continue
            except OSError as error:
                raise _unreadable(path, error, ignore) from None
            self.index.note(path, now, sha256)
            return Entry(path, mode, before.st_size, sha256)
        raise FolderError(f"{path} changes while it is read", hint=f"stop what writes it, or add it to {ignore.file}")


def _is_own_output(root: Path, path: str) -> bool:
    if not path.endswith(("-manifest.json", "-deployment.yaml")):
        return False
    try:
        with (root / path).open("rb") as file:
            return file.read(64).startswith(MARKS)
    except OSError:
        return False


def _link(root: Path, path: str, ignore: Ignore) -> Entry:
    target = str((root / path).readlink())
    hint = f"make it a relative link inside the folder, or add it to {ignore.file}"
    try:
        end = (root / path).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        loop = isinstance(error, RuntimeError) or error.errno == errno.ELOOP
        raise FolderError(
            f"{path} is a link {'in a loop' if loop else f'to {target}, which does not exist'}", hint=hint
        ) from None
    if os.path.isabs(target) or not end.is_relative_to(root.resolve()):  # noqa: PTH117 - a link's text, not a path of ours
        raise FolderError(f"{path} is a link that leaves the folder", hint=hint)
    content = os.fsencode(target)
    return Entry(path, LINK, len(content), sha256_bytes(content))


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISSOCK, "a socket"), (stat.S_ISFIFO, "a named pipe"))
    return next((word for test, word in kinds if test(mode)), "a device")


def _unreadable(path: str, error: OSError, ignore: Ignore) -> FolderError:
    return FolderError(
        f"{path} cannot be read: {error.strerror}", hint=f"mend its permissions, or add it to {ignore.file}"
    )
