"""Build then checkout returns the same tree, whatever the tree."""

import tempfile
from pathlib import Path

import pathspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shipway.manifest import folded, unsafe
from shipway.release.build import build
from shipway.release.checkout import checkout
from shipway.release.ignore import IGNORE_FILES
from shipway.release.scan import NEVER, SECRET, scan
from shipway.store.folder import FolderStore

left_out = pathspec.GitIgnoreSpec.from_lines([*NEVER, *SECRET, *IGNORE_FILES, "pyvenv.cfg"])
segments = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12).filter(
    lambda text: unsafe(text) is None and not left_out.match_file(text) and not left_out.match_file(f"{text}/")
)
trees = st.dictionaries(
    st.lists(segments, min_size=1, max_size=3).map("/".join), st.binary(max_size=400), min_size=1, max_size=8
)


def consistent(tree: dict[str, bytes]) -> bool:
    """Tell whether a file system can hold the tree: no file is also a folder, no two names collide."""
    paths = {folded(path) for path in tree}
    parents = {folded(path.rsplit("/", n)[0]) for path in tree for n in range(1, path.count("/") + 1)}
    return len(paths) == len(tree) and not paths & parents


@settings(max_examples=settings().max_examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees.filter(consistent), st.randoms(use_true_random=False))
def test_round_trip(tree: dict[str, bytes], random: object) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        ids = []
        for name in ("one", "two"):
            folder = Path(scratch) / name
            paths = list(tree)
            random.shuffle(paths)  # type: ignore[attr-defined]
            for path in paths:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(tree[path])
            ids.append(build(scan(folder), FolderStore(Path(scratch) / f"store-{name}")).version)
        assert ids[0] == ids[1]
        copy = Path(scratch) / "copy"
        checkout(FolderStore(Path(scratch) / "store-one"), ids[0], copy)
        found = {path.relative_to(copy).as_posix(): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
        assert found == tree
