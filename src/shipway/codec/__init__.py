"""What a value becomes in the bucket, and how it comes back.

A codec turns a value into one file and a file into a value. It is found by the value's type, whose library is never
imported to find out. Nothing is pickled unless that is asked for by name. A folder is no single file: whoever saves one
walks it and hands over its files, each a `Path`, one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipway.codec.base import BuiltIn, Codec, type_name
from shipway.codec.objects import BYTES, FILE, LIGHTGBM, PICKLE, SVG
from shipway.codec.plain import JSON
from shipway.codec.tables import ARROW, NUMPY, PANDAS, POLARS
from shipway.errors import CodecError, IntegrityError, ShipwayError

__all__ = [
    "Codec",
    "Encoded",
    "codec_for",
    "codec_named",
    "decode",
    "encode",
    "estimate",
    "reading",
    "register",
    "suffix_for",
]


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of a value.

    Attributes:
        codec: name of the codec that wrote it.
        suffix: how the file's name should end, dot included; may be empty.
        rows: number of rows, for what has rows.
    """

    codec: str
    suffix: str
    rows: int | None


def encode(value: Any, path: Path, name: str | None = None) -> Encoded:
    """Write `value` to the file `path` with the codec for it, or with the one called `name`.

    Raises:
        CodecError: there is no codec for the value, or the codec cannot write this one.
    """
    codec = codec_for(value, name)
    return Encoded(codec.name, suffix_for(value, codec), codec.write(value, path))


def decode(name: str, path: Path, what: str) -> Any:
    """Return the value in the file `path`, which was written with the codec called `name`.

    Args:
        name: the codec's name, as the run record says it.
        path: the file.
        what: what to call it in a message.

    Raises:
        CodecError: there is no such codec in this process.
        IntegrityError: the file is not what a codec of ours writes.
    """
    codec = codec_named(name)
    if not isinstance(codec, BuiltIn) or codec is PICKLE:
        # What another's codec or a pickled class raises is for those who know it.
        return codec.read(path)
    with reading(what, name):
        return codec.read(path)


@contextmanager
def reading(what: str, codec: str) -> Iterator[None]:
    """Turn whatever a library raises at bytes that it does not expect into an error of ours.

    Raises:
        IntegrityError: it has raised something; that a library, memory or the disk fails is left as it is.
    """
    try:
        yield
    except (ShipwayError, ImportError, MemoryError):
        raise
    except BaseException as error:
        # What polars raises when it has panicked is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if isinstance(error, OSError) and error.errno is not None:
            raise
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise IntegrityError(f"{what} is not what codec {codec} writes: {first[:200]}") from error


def suffix_for(value: Any, codec: Codec) -> str:
    """Return how the name of the file that `codec` writes for `value` should end, dot included; may be empty."""
    suffix: str = value.suffix if codec.name == FILE.name else codec.suffix
    return suffix


def estimate(value: Any, codec: Codec) -> int:
    """Return roughly how many bytes `value` has; 0 where its file is not to be read before it is whole."""
    function = getattr(codec, "estimate", None)
    return int(function(value)) if function else 0


def codec_for(value: object, name: str | None = None) -> Codec:
    """Return the codec for `value`, or the one called `name` if it takes the value.

    Raises:
        CodecError: no codec takes the value; the message lists what is known.
    """
    if name is not None:
        codec = codec_named(name)
        if not codec.accepts(value):
            raise CodecError(f"codec {name!r} does not take a {type_name(value)}", hint=f"it takes {_takes(codec)}")
        return codec
    automatic = [codec for codec in _codecs.values() if codec.name != PICKLE.name]
    for codec in reversed(automatic):
        if codec.accepts(value):
            return codec
    raise CodecError(
        f"there is no codec for a {type_name(value)}; known are {', '.join(map(_takes, automatic))}",
        hint="convert it, or write a file and save its Path, or add a codec with shipway.codec.register, "
        'or, if you must, ask for codec="pickle"',
    )


def codec_named(name: str) -> Codec:
    """Return the codec called `name`, which a run record says its artifact was written with.

    Raises:
        CodecError: there is none in this process.
    """
    if name not in _codecs:
        known = ", ".join(sorted(_codecs))
        raise CodecError(f"there is no codec {name[:100]!r}", hint=f"import what registers it; known are {known}")
    return _codecs[name]


def register(codec: Codec) -> None:
    """Make a codec known in this process; of several that take a value, the one registered last is used.

    A codec of a name that is known already takes that one's place.

    Raises:
        CodecError: its name or suffix cannot be part of a file name.
    """
    dotted = codec.suffix.startswith(".") or not codec.suffix
    if not codec.name or not dotted or "/" in codec.name + codec.suffix:
        raise CodecError(
            f"a codec cannot have the name {codec.name!r} and the suffix {codec.suffix!r}",
            hint="give it a name and a suffix without `/`, the suffix starting with a dot, such as .parquet",
        )
    _codecs.pop(codec.name, None)
    _codecs[codec.name] = codec


def _takes(codec: Codec) -> str:
    return str(getattr(codec, "takes", codec.name))


# Asked from the last to the first: a path has its own codec, though it could stand in JSON as text too.
_codecs: dict[str, Codec] = {
    codec.name: codec for codec in (PICKLE, JSON, FILE, BYTES, NUMPY, LIGHTGBM, SVG, ARROW, PANDAS, POLARS)
}
