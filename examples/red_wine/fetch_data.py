"""Fetch winequality-red.csv from the UCI Machine Learning Repository, or take a copy of it, and check it.

Cortez, Cerdeira, Almeida, Matos and Reis, Wine Quality, 2009, https://doi.org/10.24432/C56S3T, CC BY 4.0.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import urllib.request
from pathlib import Path

URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/wine-quality/winequality-red.csv"
SHA256 = "4a402cf041b025d4566d954c3b9ba8635a3a8a01e039005d97d6a710278cf05e"
TARGET = Path(__file__).parent / "data" / "winequality-red.csv"
MAX_BYTES = 1 << 20


class FetchError(Exception):
    """The data could not be had."""


def fetch(source: Path | None, target: Path) -> None:
    """Write the data to `target`, from the file `source` or else from UCI; nothing is left there if it is not right."""
    try:
        if source:
            content = source.read_bytes()
        else:
            with urllib.request.urlopen(URL, timeout=60) as answer:
                content = answer.read(MAX_BYTES)
    except OSError as error:  # what urllib raises is one too
        help_ = "" if source else "; fetch it by other means and give it with --from FILE"
        raise FetchError(f"{source or URL} could not be read: {error}{help_}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise FetchError(f"{source or URL} is not the data expected: its sha256 is {found}, not {SHA256}")
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="a copy to use instead of downloading")
    parser.add_argument("--to", dest="target", type=Path, metavar="FILE", default=TARGET, help="where to write it")
    options = parser.parse_args(arguments)
    try:
        fetch(options.source, options.target)
    except (FetchError, OSError) as error:
        print(f"fetch_data: {error}", file=sys.stderr)
        return 1
    print(f"{options.target}: {options.target.stat().st_size:,} bytes, sha256 as expected")
    return 0


if __name__ == "__main__":
    sys.exit(main())
