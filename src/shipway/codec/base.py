"""What a codec is, and how it recognises a value without importing the library the value comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

UNKNOWN = 1 << 62
"""An estimate for what may be of any size."""


class Codec(Protocol):
    """A way between the values of some type and one file.

    A codec may also have a text `takes` ("polars DataFrame"), shown where the known codecs are listed, and a function
    `estimate` that says roughly how many bytes a value has. Having one says that `write` only ever adds to its file: a
    large value is then sent while it is still being written. And it may have a flag `inert`: whatever a file holds, to
    read it does nothing else. A large one is then read while its digest is still being compared.

    Attributes:
        name: what a run record calls the codec; it must find the codec again years later.
        suffix: how its files end, dot included, such as `.parquet`; empty when the value brings its own.
    """

    @property
    def name(self) -> str:
        """See above."""

    @property
    def suffix(self) -> str:
        """See above."""

    def accepts(self, value: object, /) -> bool:
        """Tell whether `value` is for this codec; cheap, and imports nothing."""

    def write(self, value: Any, path: Path, /) -> int | None:
        """Write `value` to the file `path`; equal values give equal bytes.

        Returns:
            The number of rows, for what has rows.

        Raises:
            CodecError: this value cannot be written after all; the message names the place in it.
        """

    def read(self, path: Path, /) -> Any:
        """Return the value in the file `path`, whatever the file is called."""


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A codec put together from three functions, none of which imports a library before it is called."""

    name: str
    suffix: str
    takes: str
    accepts: Callable[[object], bool]
    write: Callable[[Any, Path], int | None]
    read: Callable[[Path], Any]
    estimate: Callable[[Any], int] | None = None
    inert: bool = False


def comes_from(library: str, *names: str) -> Callable[[object], bool]:
    """Return a test whether a value's type is one of `names` out of `library`.

    The type must be that one exactly: a subclass would come back as something less than it was. A library that nobody
    has imported cannot have made the value, so nothing has to be imported to know.
    """

    def accepts(value: object) -> bool:
        kind = type(value)
        return kind.__name__ in names and kind.__module__.partition(".")[0] == library

    return accepts


def type_name(value: object) -> str:
    """Return what to call the type of `value` in a message: `set`, `pandas.Series`."""
    kind = type(value)
    library = kind.__module__.partition(".")[0]
    return kind.__qualname__ if library == "builtins" else f"{library}.{kind.__qualname__}"
