"""What ignore files leave out is what git would leave out."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shipway.errors import FolderError
from shipway.release.scan import scan

Tree = dict[str, list[str]]
"""Lines of the ignore file in each of some folders."""

FOLDERS = ("", "a/", "b/", "a/a/", "a/b/", "b/a/", "a/b/a/", "b/ba/")
FILES = tuple(f"{folder}{name}" for folder in FOLDERS for name in ("ab", "x.txt", "y.log", "# #", "b.a"))

segments = st.sampled_from(
    [
        "a",
        "b",
        "ab",
        "x.txt",
        "*",
        "**",
        "?",
        "a*",
        "*b",
        "*.txt",
        "?b",
        "[ab]",
        "[!a]*",
        "[^x]b",
        "a[!x]b",
        "a[+-9]b",
        "[]a]b",
        "\\a",
    ]
)
patterns = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "", "!"]),
        st.sampled_from(["", "", "/", "**/"]),
        st.lists(segments, min_size=1, max_size=4).map("/".join),
        st.sampled_from(["", "", "/", "/**", "/*", "//"]),
        st.sampled_from(["", "", "", "  ", "\\ ", "\r", "/ "]),
    ),
)
others = st.sampled_from(
    ["", "# a", "\\# #", "\\!a", "#*", "/", "!", "!/", "//", " a", "*", "!*/", "!*.txt", "\\#*", "\t"]
)
lines = st.lists(st.one_of(patterns, patterns, patterns, others), min_size=1, max_size=5)
trees = st.dictionaries(st.sampled_from(FOLDERS), lines, min_size=1, max_size=4)


def write(folder: Path, tree: Tree) -> None:
    for path in FILES:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("")
    for below, lines in tree.items():
        (folder / below / ".gitignore").write_bytes("\n".join(lines).encode())


def taken(folder: Path) -> set[str]:
    try:
        return {entry.path for entry in scan(folder).entries}
    except FolderError as error:
        if "holds no file" not in error.message:
            raise
        return set()


def git_takes(folder: Path, repository: Path) -> set[str]:
    """Return the files that git would add."""
    paths = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    argv = ["git", "-c", "core.excludesFile=/dev/null", "check-ignore", "--no-index", "--stdin", "-z"]
    done = subprocess.run(
        argv,
        cwd=folder,
        env=os.environ | {"GIT_DIR": str(repository), "GIT_WORK_TREE": str(folder)},
        input="\0".join(sorted(paths)).encode(),
        capture_output=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return paths - set(done.stdout.decode().split("\0"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "--quiet", "--bare", str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "config", "core.bare", "false"], check=True)
    return folder


@pytest.mark.needs("git")
@settings(max_examples=3 * settings().max_examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees)
@example({"": ["*.txt"], "a/": ["!b/"]})
@example({"": ["a/**", "!a/x.txt"]})
@example({"": ["a", "!a"], "a/": ["*", "!x.txt"]})
@example({"": ["a/"], "a/": ["!*"]})
@example({"a/b/": ["*"], "a/": ["!b/a/x.txt"]})
@example({"": ["a[!x]b", "/b[+-9]a"]})
@example({"": ["[^]x]b", "\\[!x]b"]})
def test_git_leaves_out_the_same(repository: Path, tree: Tree) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), tree)
        assert taken(Path(folder)) == git_takes(Path(folder), repository)
