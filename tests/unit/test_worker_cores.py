"""What OpenMP is told: a share of the cores that there are, the same for every run of a worker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shipway.worker.cores import cores, openmp


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(8)), raising=False)


def machine(root: Path, group: str, quotas: dict[str, str]) -> Path:
    """Make what Linux shows of control groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group)
    for place, quota in quotas.items():
        folder = root / "sys/fs/cgroup" / place
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.max").write_text(f"{quota}\n")
    return root


@pytest.mark.parametrize(
    ("group", "quotas", "expected"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {".": "200000 100000"}, 2),
        ("1:cpu:/\n0::/a/b\n", {"a/b": "max 100000", "a": "350000 100000"}, 3),
        ("0::/a/b\n", {"a/b": "50000 100000"}, 1),
        ("0::/a/b\n", {"a/b": "9900000 100000"}, 8),
        ("0::/../../elsewhere\n", {}, 8),
        ("0::/a\n", {"a": "nonsense"}, 8),
        ("1:cpu:/\n", {}, 8),
        ("", {}, 8),
    ],
)
def test_as_many_cores_as_may_be_used(
    tmp_path: Path, eight: None, group: str, quotas: dict[str, str], expected: int
) -> None:
    assert cores(machine(tmp_path, group, quotas)) == expected


def test_without_control_groups(tmp_path: Path, eight: None) -> None:
    assert cores(tmp_path) == 8


@pytest.mark.parametrize(("limit", "threads"), [(None, "8"), (1, "8"), (2, "4"), (3, "2"), (8, "1"), (100, "1")])
def test_runs_share_the_cores(monkeypatch: pytest.MonkeyPatch, limit: int | None, threads: str) -> None:
    monkeypatch.setattr("shipway.worker.cores.cores", lambda: 8)
    assert openmp(limit) == {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": threads}
