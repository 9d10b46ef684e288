"""What `scripts/release` makes of a commit: the same twice, whole, and described as it is."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from shipway.testing import skip_or_fail

ROOT = Path(__file__).parents[2]
TAKEN = ("pyproject.toml", "README.md", "LICENSE", "requirements.lock", "requirements-examples.lock", "scripts/release")


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a package as small as the build allows."""
    if shutil.which("git") is None:
        skip_or_fail("git is not installed")
    folder = tmp_path / "repository"
    for name in TAKEN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in ("src/shipway/__init__.py", "examples/flights/flow.py"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("x = 1\n")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "x")
    return folder


def release(folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "scripts/release", "--out", str(out)]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)


def test_a_release_is_whole_and_the_same_wherever_it_is_made(repository: Path, tmp_path: Path) -> None:
    # What no commit has is no part of it.
    (repository / "src/shipway/secret.py").write_text("key = 'mine'\n")
    done = release(repository, tmp_path / "one")
    assert done.returncode == 0, done.stderr
    elsewhere = tmp_path / "elsewhere"
    subprocess.run(["git", "clone", "--quiet", repository, elsewhere], check=True, capture_output=True)
    assert release(elsewhere, tmp_path / "other").returncode == 0

    made = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert made == {path.name: path.read_bytes() for path in (tmp_path / "other").iterdir()}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in made.items() if name != "SHA256SUMS"}
    assert {name.partition("-")[2].lstrip("0123456789.") for name in digests} == {
        "-py3-none-any.whl", "tar.gz", "cdx.json", "provenance.json",
    }  # fmt: skip
    assert {line.split("  ")[1]: line.split("  ")[0] for line in made["SHA256SUMS"].decode().splitlines()} == digests

    wheel = next(name for name in made if name.endswith(".whl"))
    with zipfile.ZipFile(tmp_path / "one" / wheel) as archive:
        assert "shipway/__init__.py" in archive.namelist()
        assert "shipway/secret.py" not in archive.namelist()

    statement = json.loads(made[next(name for name in made if name.endswith("provenance.json"))])
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert {each["name"]: each["digest"]["sha256"] for each in statement["subject"]} == {
        name: digest for name, digest in digests.items() if not name.endswith("provenance.json")
    }
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True, check=True)
    built_of = statement["predicate"]["buildDefinition"]
    assert built_of["resolvedDependencies"][0]["digest"] == {"gitCommit": head.stdout.strip()}

    bill = json.loads(made[next(name for name in made if name.endswith("cdx.json"))])
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    listed = {each["name"]: each for each in bill["components"]}
    locks = "".join((ROOT / name).read_text() for name in ("requirements.lock", "requirements-examples.lock"))
    wanted = {line.partition("==")[0] for line in locks.splitlines() if "==" in line and line[0].isalnum()}
    assert set(listed) == wanted
    assert all(each["externalReferences"][0]["hashes"] for each in listed.values())
    assert str(tmp_path) not in "".join(data.decode(errors="replace") for data in made.values())


def test_changes_that_no_commit_has_stop_it(repository: Path, tmp_path: Path) -> None:
    (repository / "README.md").write_text("changed\n")
    done = release(repository, tmp_path / "out")
    assert done.returncode == 1
    assert "no commit has" in done.stderr
    assert not (tmp_path / "out").exists()
