"""Tables as Parquet, compressed with zstd, read back as the library they were saved with; arrays as `.npy`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from shipway.codec.base import UNKNOWN, BuiltIn, comes_from
from shipway.errors import CodecError

# Said rather than left to polars, which otherwise cuts a stream wherever the threads of this machine happened to.
_ROW_GROUP = 1 << 18
# pyarrow's own level, of which polars' files take two thirds of the processor time of level 3, its default: numbers
# hardly become smaller at that, mixed columns by a fifteenth.
_LEVEL = 1


def _write_polars(frame: Any, path: Path) -> int:
    import polars

    for name, dtype in frame.collect_schema().items():
        if dtype == polars.Object:  # polars panics at it instead of raising
            raise _not_parquet("polars frame", f"column {name!r} holds Python objects")
    try:
        if isinstance(frame, polars.DataFrame):
            frame.write_parquet(path, compression="zstd", compression_level=_LEVEL, row_group_size=_ROW_GROUP)
            return frame.height
        frame.sink_parquet(path, compression="zstd", compression_level=_LEVEL, row_group_size=_ROW_GROUP)
    except polars.exceptions.PolarsError as error:
        raise _not_parquet("polars frame", error) from error
    return int(polars.scan_parquet(path, glob=False).select(polars.len()).collect().item())


def _read_polars(path: Path) -> Any:
    import polars

    return polars.read_parquet(path, glob=False)


def _estimate_polars(frame: Any) -> int:
    # What a query yields nobody knows before it was made.
    return int(frame.estimated_size()) if hasattr(frame, "estimated_size") else UNKNOWN


def _write_pandas(frame: Any, path: Path) -> int:
    try:
        frame.to_parquet(path, engine="pyarrow", compression="zstd")
    except ImportError:
        raise CodecError("pandas writes Parquet through pyarrow, which is missing", hint="install pyarrow") from None
    except (ValueError, TypeError, NotImplementedError) as error:
        raise _not_parquet("pandas frame", error) from error
    return len(frame)


def _read_pandas(path: Path) -> Any:
    import pandas

    return pandas.read_parquet(path, engine="pyarrow")


def _write_arrow(table: Any, path: Path) -> int:
    import pyarrow
    import pyarrow.parquet

    whole = table if isinstance(table, pyarrow.Table) else pyarrow.Table.from_batches([table])
    try:
        pyarrow.parquet.write_table(whole, path, compression="zstd")
    except pyarrow.ArrowException as error:
        raise _not_parquet("Arrow table", error) from error
    return int(whole.num_rows)


def _read_arrow(path: Path) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(path).read()


def _write_numpy(array: Any, path: Path) -> int | None:
    import numpy

    if array.dtype.hasobject:
        raise CodecError("a numpy array of Python objects cannot be saved", hint="give it a dtype of its own")
    with path.open("wb") as file:
        numpy.save(file, array, allow_pickle=False)
    return len(array) if array.ndim else None


def _read_numpy(path: Path) -> Any:
    import numpy

    try:
        return numpy.load(path, allow_pickle=False)
    except MemoryError:
        # It may be a small file that says it were a large one: this raises ValueError then, and takes no memory.
        numpy.load(path, allow_pickle=False, mmap_mode="r")
        raise


def _not_parquet(what: str, reason: object) -> CodecError:
    first = next(iter(str(reason).splitlines()), type(reason).__name__)
    return CodecError(f"the {what} cannot become Parquet: {first}", hint="convert or drop that column")


_READERS: dict[str, tuple[tuple[str, ...], Callable[[Path], Any]]] = {
    "polars": (("polars",), _read_polars),
    "pandas": (("pandas", "pyarrow"), _read_pandas),
    "arrow": (("pyarrow",), _read_arrow),
}


def _read_parquet(saved_with: str, path: Path) -> Any:
    """Read Parquet with the library it was saved with, or with another that is installed, which is said."""
    missing = [library for library in _READERS[saved_with][0] if not find_spec(library)]
    for name in (saved_with, *(other for other in _READERS if other != saved_with)):
        needs, read = _READERS[name]
        if all(find_spec(library) for library in needs):
            if missing:
                said = f"saved with {saved_with}, read with {name}: {' and '.join(missing)} cannot be found here"
                warnings.warn(said, UserWarning, stacklevel=3)
            return read(path)
    raise CodecError("nothing that reads Parquet is installed", hint="install polars, or pandas and pyarrow")


POLARS = BuiltIn(
    name="polars",
    suffix=".parquet",
    takes="polars DataFrame or LazyFrame",
    accepts=comes_from("polars", "DataFrame", "LazyFrame"),
    write=_write_polars,
    read=partial(_read_parquet, "polars"),
    estimate=_estimate_polars,
    inert=True,
)
"""A polars DataFrame as Parquet; a LazyFrame is streamed into the file and comes back as a DataFrame."""

PANDAS = BuiltIn(
    name="pandas",
    suffix=".parquet",
    takes="pandas DataFrame",
    accepts=comes_from("pandas", "DataFrame"),
    write=_write_pandas,
    read=partial(_read_parquet, "pandas"),
    estimate=lambda frame: int(frame.memory_usage().sum()),
)
"""A pandas DataFrame as Parquet, its index included."""

ARROW = BuiltIn(
    name="arrow",
    suffix=".parquet",
    takes="Arrow Table or RecordBatch",
    accepts=comes_from("pyarrow", "Table", "RecordBatch"),
    write=_write_arrow,
    read=partial(_read_parquet, "arrow"),
    estimate=lambda table: int(table.nbytes),
)
"""An Arrow Table as Parquet; a RecordBatch comes back as a Table."""

NUMPY = BuiltIn(
    name="numpy",
    suffix=".npy",
    takes="numpy array",
    accepts=comes_from("numpy", "ndarray"),
    write=_write_numpy,
    read=_read_numpy,
    estimate=lambda array: int(array.nbytes),
    inert=True,
)
"""A numpy array as `.npy`, never with pickled objects in it."""
