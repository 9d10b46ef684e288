"""Ignore files: what they say of a path, in gitignore's language, with one in any folder.

What a pattern means is the library's to know; which file counts, and which line of it, is decided here. The library
answers for a whole path, with the folders above it in mind, and files in several folders cannot be asked like that.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pathspec

from shipway.errors import FolderError

IGNORE_FILES = (".shipwayignore", ".prefectignore", ".gitignore")
"""The first of these that a folder holds says which of them counts there and in all folders below."""

_UNKNOWN = re.compile(r"(?<!\\)\[[^]]*[\\[]")
"""Brackets that the library reads in another way than git does: those with a backslash or a bracket in them."""
_BRACKET = re.compile(r"(?<!\\)\[(?!\^/)")
"""Where brackets begin in the library's expressions; they would take a slash too, which git's never do."""


@dataclass(frozen=True, slots=True)
class _Line:
    """One pattern: what it is about, whether it leaves that out, and whether it is about folders only."""

    pattern: re.Pattern[str]
    leaves_out: bool
    folders_only: bool


@dataclass(frozen=True, slots=True)
class _File:
    """One ignore file: its folder, its lines from the last to the first, and what finds that none is about a path."""

    folder: str
    lines: tuple[_Line, ...]
    any: re.Pattern[str]

    def verdict(self, path: str, is_folder: bool) -> bool | None:
        path = path[len(self.folder) :]
        if self.any.search(path):
            for line in self.lines:
                if is_folder or not line.folders_only:
                    found = line.pattern.search(path)
                    # The only group of a pattern is the end of a folder above: that was asked about by itself.
                    if found and found.lastindex is None:
                        return line.leaves_out
        return None


@dataclass(frozen=True, slots=True)
class Ignore:
    """The ignore files that count in one folder.

    Attributes:
        name: what ignore files are called here and below; empty where none was met yet.
    """

    name: str = ""
    _files: tuple[_File, ...] = ()

    def below(self, root: Path, folder: str, names: Collection[str]) -> Ignore:
        """Return what counts in a folder of `root`, given as its path with a final `/` and the names in it.

        Raises:
            FolderError: its ignore file cannot be read.
        """
        wanted = (self.name,) if self.name else IGNORE_FILES
        name = next((name for name in wanted if name in names), None)
        file = _read(root, folder, name) if name else None
        return Ignore(name, (file, *self._files)) if name and file else self

    def verdict(self, path: str, is_folder: bool) -> bool | None:
        """Tell whether `path` is left out; None where no line is about it.

        The nearest file decides, and in it the last line. What is below a folder that is left out must not be asked.
        """
        for file in self._files:
            verdict = file.verdict(path, is_folder)
            if verdict is not None:
                return verdict
        return None

    @property
    def file(self) -> str:
        """Path of the file that one more line belongs into."""
        return self._top + (self.name or IGNORE_FILES[0])

    def line(self, path: str) -> str:
        """Return the line of that file which names `path`."""
        return path.removeprefix(self._top)

    @property
    def _top(self) -> str:
        return self._files[-1].folder if self._files else ""


def _read(root: Path, folder: str, name: str) -> _File | None:
    path = root / folder / name
    try:
        if not path.is_file():
            return None
        text = path.read_bytes().decode("utf-8-sig")
        lines = _lines(text)
    except OSError as error:
        raise FolderError(f"{folder}{name} cannot be read: {error.strerror}", hint="mend its permissions") from None
    except UnicodeDecodeError:
        raise FolderError(f"{folder}{name} is not UTF-8", hint="save it as UTF-8") from None
    except (ValueError, re.error) as error:
        what = f"{folder}{name} holds a pattern that is not understood: {error}"
        raise FolderError(what, hint="write it in another way") from None
    # Most paths are in no line, as one search finds. A group may have its name only once.
    patterns = [re.sub(r"\(\?P<\w+>", "(?:", line.pattern.pattern) for line in lines]
    return _File(folder, lines, re.compile("|".join(patterns) or "(?!)"))


def _lines(text: str) -> tuple[_Line, ...]:
    lines = []
    for whole in text.split("\n"):
        line = whole.removesuffix("\r")
        if not line.endswith("\\ "):
            line = line.rstrip(" ")
        # Without its last slash a pattern is about a folder, and not about all that is in it too.
        bare = line.removesuffix("/")
        if bare in ("", "!") or bare.startswith("#"):
            continue
        if _UNKNOWN.search(bare):
            raise ValueError(line)
        (read,) = pathspec.GitIgnoreSpec.from_lines([bare]).patterns
        if read.regex and read.include is not None:
            pattern = re.compile(_BRACKET.sub("(?!/)[", read.regex.pattern))
            lines.append(_Line(pattern, read.include, bare != line))
    return tuple(reversed(lines))
