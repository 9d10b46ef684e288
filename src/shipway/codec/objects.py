"""Figures, models, bytes and files; and pickle, for those who ask for it by name."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

from shipway.codec.base import BuiltIn, comes_from, type_name
from shipway.errors import CodecError


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _is_figure(value: object) -> bool:
    return any(kind.__module__ == "matplotlib.figure" and kind.__name__ == "Figure" for kind in type(value).__mro__)


def _write_figure(figure: Any, path: Path) -> None:
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "shipway"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def _write_booster(booster: Any, path: Path) -> None:
    path.write_text(booster.model_to_string(), encoding="utf-8", newline="\n")


def _read_booster(path: Path) -> Any:
    import lightgbm

    return lightgbm.Booster(model_str=_read_text(path))


def _is_bytes(value: object) -> bool:
    return isinstance(value, bytes | bytearray | memoryview)


def _write_bytes(value: bytes | bytearray | memoryview, path: Path) -> None:
    path.write_bytes(value.tobytes() if isinstance(value, memoryview) else value)


def _count_bytes(value: bytes | bytearray | memoryview) -> int:
    return memoryview(value).nbytes


def _is_path(value: object) -> bool:
    return isinstance(value, Path)


def _copy(source: Path, path: Path) -> None:
    if not source.is_file():
        what = "is not a regular file" if source.exists() else "does not exist"
        raise CodecError(f"{source} {what}", hint="write the file before it is saved")
    shutil.copyfile(source, path)


def _same_path(path: Path) -> Path:
    return path


def _pickle(value: Any, path: Path) -> None:
    try:
        with path.open("wb") as file:
            pickle.dump(value, file, protocol=5)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise CodecError(f"the {type_name(value)} cannot be pickled: {error}", hint="save its parts") from error


def _unpickle(path: Path) -> Any:
    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301 - asked for by name when it was saved


SVG = BuiltIn("svg", ".svg", "matplotlib Figure", _is_figure, _write_figure, _read_text)
"""A matplotlib figure as SVG, without date and with fixed ids, so that the same figure has the same bytes.

It comes back as the SVG's text. Neither pyplot nor a display is needed.
"""

LIGHTGBM = BuiltIn(
    "lightgbm", ".txt", "LightGBM Booster", comes_from("lightgbm", "Booster"), _write_booster, _read_booster
)
"""A LightGBM Booster as its text model, which holds no code and predicts the same to the last bit."""

BYTES = BuiltIn("bytes", ".bin", "bytes", _is_bytes, _write_bytes, Path.read_bytes, _count_bytes)
"""Bytes as they are; a bytearray or memoryview comes back as bytes."""

FILE = BuiltIn("file", "", "Path of a file or folder", _is_path, _copy, _same_path)
"""A file as it is, under its own suffix; it comes back as a path. A folder is for the caller to take apart."""

PICKLE = BuiltIn("pickle", ".pkl", "anything", lambda _value: True, _pickle, _unpickle)
"""Anything Python can pickle, only when asked for by name.

Warning: loading a pickle runs whatever code it names, so load only what you trust. It also needs the same classes,
often of the same versions, as when it was written. What has a format of its own is better saved in that.
"""
