"""Releases of 1 GB in 20 files, beside the same tools as in `bench_release`."""

from __future__ import annotations

from benchmarks.bench_release import beside
from benchmarks.folders import GIGABYTE
from benchmarks.report import Table


def run() -> list[Table]:
    """Measure on an S3 server of its own."""
    return beside((GIGABYTE,))
