"""Reading YAML that somebody else may have written, within bounds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from shipway.errors import DeploymentFileError

MAX_BYTES = 1024 * 1024
MAX_VALUES = 100_000
MAX_DEPTH = 200
"""A deployment file is no longer, has no more values, nests no deeper. One by hand has some dozens of values."""


def load_yaml(path: Path) -> Any:
    """Return what a YAML file holds, in ruamel's containers, which know their places.

    Raises:
        DeploymentFileError: it is missing, is not YAML, or would be far larger than its text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise DeploymentFileError(f"{path} is longer than {MAX_BYTES} bytes")
        text = data.decode()
        _check_depth(text, path)
        document = YAML(typ="rt").load(text)
        _check_size(document, path)
    except FileNotFoundError:
        raise DeploymentFileError(f"{path} does not exist", hint="write it with `shipway build`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DeploymentFileError(f"{path} cannot be read: {error}") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise DeploymentFileError(f"{where}: {error.problem or 'not YAML'}") from None
    except YAMLError as error:
        raise DeploymentFileError(f"{path} is not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise DeploymentFileError(f"{path} is nested too deeply") from None
    except DeploymentFileError:
        raise
    except Exception as error:  # noqa: BLE001 - ruamel raises what its conversions do: ValueError, TypeError, KeyError...
        raise DeploymentFileError(f"{path} is not YAML: {error}") from None
    return document


def _check_depth(text: str, path: Path) -> None:
    """Refuse brackets in thousands, for which ruamel takes the square of their number: half a minute for 5,000."""
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth = depth + 1 if bracket in "[{" else max(depth - 1, 0)
        if depth > MAX_DEPTH:
            raise DeploymentFileError(f"{path} is nested too deeply")


def _check_size(document: Any, path: Path) -> None:
    """Refuse a document that aliases blow up: ten lines of them can stand for billions of values."""
    left, waiting = MAX_VALUES, [document]
    while waiting:
        left -= 1
        if left < 0:
            raise DeploymentFileError(f"{path} holds over {MAX_VALUES:,} values, counted with its aliases")
        node = waiting.pop()
        if isinstance(node, Mapping):
            waiting.extend(node.values())
        elif isinstance(node, Sequence) and not isinstance(node, str | bytes):
            waiting.extend(node)


def plain(value: Any) -> Any:
    """Turn ruamel's containers and scalars into Python's own."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value.isoformat() if hasattr(value, "isoformat") else value
