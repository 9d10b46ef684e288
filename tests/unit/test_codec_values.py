"""Each codec but JSON: the value comes back, and the same value has the same bytes."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy
import pandas
import polars
import pyarrow
import pytest
from matplotlib.figure import Figure

from shipway.codec import Codec, codec_for, codec_named, encode, register, tables
from shipway.errors import CodecError


def polars_frame() -> polars.DataFrame:
    number = polars.int_range(300_000)  # more than one row group
    return polars.select(
        when=polars.datetime(2013, 1, 1, time_zone="UTC") + polars.duration(minutes=number),
        carrier=polars.when(number % 3 == 0).then(polars.lit("UA")).when(number % 3 == 1).then(polars.lit("AA")),
        delay=(number % 977).cast(polars.Float64),
        list=polars.concat_list(number % 3),
    ).with_columns(polars.col("carrier").cast(polars.Categorical))


def pandas_frame() -> pandas.DataFrame:
    index = pandas.Index(["x", "y"], name="key")
    return pandas.DataFrame({"a": [1, 2], "b": ["p", None], "c": pandas.Categorical(["u", "v"])}, index=index)


def figure() -> Figure:
    drawn = Figure(figsize=(4, 3), layout="constrained")
    axes = drawn.subplots()
    axes.plot([1, 2, 3], [3, 1, 2], label="delay, min")
    axes.fill_between([1, 2, 3], [3, 1, 2], alpha=0.3)
    axes.legend()
    return drawn


def booster() -> lightgbm.Booster:
    rng = numpy.random.default_rng(7)
    features = rng.normal(size=(500, 3))
    target = features @ [1.0, -2.0, 0.5] + rng.normal(size=500)
    options = {"verbose": -1, "num_threads": 1, "deterministic": True, "seed": 7}
    return lightgbm.train(options, lightgbm.Dataset(features, target), 20)


MAKERS: dict[str, Callable[[], Any]] = {
    "polars": polars_frame,
    "lazy": lambda: polars_frame().lazy(),
    "pandas": pandas_frame,
    "arrow": lambda: pyarrow.table({"a": [1, None], "b": ["x", "y"]}),
    "batch": lambda: pyarrow.RecordBatch.from_pydict({"a": [1, 2]}),
    "numpy": lambda: numpy.arange(12, dtype="float32").reshape(4, 3),
    "figure": figure,
    "booster": booster,
    "bytes": lambda: b"\x00\xff",
    "bytearray": lambda: bytearray(b"\x00\xff"),
    "memoryview": lambda: memoryview(b"0123456789")[::2],
}


@pytest.mark.parametrize(
    ("kind", "codec", "suffix", "rows"),
    [
        ("polars", "polars", ".parquet", 300_000),
        ("lazy", "polars", ".parquet", 300_000),
        ("pandas", "pandas", ".parquet", 2),
        ("arrow", "arrow", ".parquet", 2),
        ("batch", "arrow", ".parquet", 2),
        ("numpy", "numpy", ".npy", 4),
        ("figure", "svg", ".svg", None),
        ("booster", "lightgbm", ".txt", None),
        ("bytes", "bytes", ".bin", None),
        ("bytearray", "bytes", ".bin", None),
        ("memoryview", "bytes", ".bin", None),
    ],
)
def test_each_value_finds_its_codec_and_has_the_same_bytes_twice(
    kind: str, codec: str, suffix: str, rows: int | None, tmp_path: Path
) -> None:
    value = MAKERS[kind]()

    encoded = encode(value, tmp_path / "first")
    encode(value, tmp_path / "again")
    encode(MAKERS[kind](), tmp_path / "equal")

    assert (encoded.codec, encoded.suffix, encoded.rows) == (codec, suffix, rows)
    first = (tmp_path / "first").read_bytes()
    assert (tmp_path / "again").read_bytes() == first
    assert (tmp_path / "equal").read_bytes() == first


def test_polars_comes_back_as_polars(tmp_path: Path) -> None:
    frame = polars_frame()

    encode(frame, tmp_path / "[odd] *name")

    back = codec_named("polars").read(tmp_path / "[odd] *name")
    assert back.equals(frame)
    assert back.schema == frame.schema


def test_a_lazy_frame_comes_back_as_a_frame(tmp_path: Path) -> None:
    encoded = encode(polars_frame().lazy().filter(polars.col("delay") < 2), tmp_path / "lazy")

    back = codec_named("polars").read(tmp_path / "lazy")
    assert back.equals(polars_frame().filter(polars.col("delay") < 2))
    assert encoded.rows == back.height > 0


def test_a_lazy_frame_has_the_same_bytes_whatever_the_number_of_threads(tmp_path: Path) -> None:
    code = """if True:
        import hashlib, pathlib, polars, sys
        from shipway.codec import encode
        number = polars.int_range(1_000_000)
        encode(polars.select(a=number, b=number % 31).lazy().filter(polars.col("a") > 5), pathlib.Path(sys.argv[1]))
        print(hashlib.sha256(pathlib.Path(sys.argv[1]).read_bytes()).hexdigest())
    """
    call = [sys.executable, "-c", code, str(tmp_path / "lazy")]
    seen = {
        subprocess.run(
            call, check=True, capture_output=True, text=True, env={**os.environ, "POLARS_MAX_THREADS": threads}
        ).stdout
        for threads in ("1", "4", "7")
    }

    assert len(seen) == 1


def test_pandas_comes_back_as_pandas_with_its_index(tmp_path: Path) -> None:
    encode(pandas_frame(), tmp_path / "frame")

    pandas.testing.assert_frame_equal(codec_named("pandas").read(tmp_path / "frame"), pandas_frame())


def test_arrow_comes_back_as_a_table(tmp_path: Path) -> None:
    for kind in ("arrow", "batch"):
        encode(MAKERS[kind](), tmp_path / kind)
        back = codec_named("arrow").read(tmp_path / kind)
        assert isinstance(back, pyarrow.Table)
        assert back.to_pydict() == MAKERS[kind]().to_pydict()


@pytest.mark.parametrize(
    "array", [numpy.array(7), numpy.zeros((0, 3)), numpy.array(["x", "yz"]), numpy.asfortranarray([[1, 2]])]
)
def test_numpy_comes_back_as_it_was(array: Any, tmp_path: Path) -> None:
    encode(array, tmp_path / "array")

    back = codec_named("numpy").read(tmp_path / "array")
    assert numpy.array_equal(back, array)
    assert back.dtype == array.dtype


def test_a_figure_is_an_svg_without_date_or_script(tmp_path: Path) -> None:
    encode(figure(), tmp_path / "figure")

    text = codec_named("svg").read(tmp_path / "figure")
    assert text.startswith("<?xml")
    assert "<dc:date>" not in text
    assert "<script" not in text


def test_a_figure_has_the_same_bytes_in_another_process_and_needs_no_pyplot(tmp_path: Path) -> None:
    code = """if True:
        import hashlib, pathlib, sys
        from matplotlib.figure import Figure
        from shipway.codec import encode
        figure = Figure()
        figure.subplots().fill_between([1, 2], [2, 1])
        encode(figure, pathlib.Path(sys.argv[1]))
        assert "matplotlib.pyplot" not in sys.modules
        print(hashlib.sha256(pathlib.Path(sys.argv[1]).read_bytes()).hexdigest())
    """
    call = [sys.executable, "-c", code, str(tmp_path / "figure")]
    seen = {subprocess.run(call, check=True, capture_output=True, text=True).stdout for _ in range(2)}

    assert len(seen) == 1


def test_a_booster_predicts_the_same_to_the_last_bit(tmp_path: Path) -> None:
    model = booster()
    features = numpy.random.default_rng(8).normal(size=(100, 3))

    encode(model, tmp_path / "model")
    back = codec_named("lightgbm").read(tmp_path / "model")

    assert numpy.asarray(back.predict(features)).tobytes() == numpy.asarray(model.predict(features)).tobytes()
    encode(back, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()


@pytest.mark.parametrize("kind", ["bytes", "bytearray", "memoryview"])
def test_bytes_come_back_as_bytes(kind: str, tmp_path: Path) -> None:
    encode(MAKERS[kind](), tmp_path / "bytes")

    assert codec_named("bytes").read(tmp_path / "bytes") == bytes(MAKERS[kind]())


def test_a_file_is_taken_as_it_is_under_its_own_suffix(tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    source.write_bytes(b"\x08\x07")

    encoded = encode(source, tmp_path / "copy")

    assert (encoded.codec, encoded.suffix, encoded.rows) == ("file", ".onnx", None)
    assert codec_named("file").read(tmp_path / "copy") == tmp_path / "copy"
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


@pytest.mark.parametrize(("name", "said"), [("missing", "does not exist"), (".", "is not a regular file")])
def test_a_path_without_a_file_is_refused(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(CodecError, match=said):
        encode(tmp_path / name, tmp_path / "copy")

    assert not (tmp_path / "copy").exists()


def test_a_pickled_path_has_the_suffix_of_a_pickle(tmp_path: Path) -> None:
    assert encode(Path("model.onnx"), tmp_path / "value", "pickle").suffix == ".pkl"
    assert codec_named("pickle").read(tmp_path / "value") == Path("model.onnx")


def test_what_cannot_be_pickled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CodecError, match="the function cannot be pickled"):
        encode(lambda: 1, tmp_path / "value", "pickle")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (polars.DataFrame({"a": polars.Series([object()], dtype=polars.Object)}), "column 'a' holds Python objects"),
        (pandas.DataFrame({"a": [1, "x"]}), "the pandas frame cannot become Parquet"),
        (pyarrow.table([pyarrow.UnionArray.from_sparse(pyarrow.array([0], "int8"), [pyarrow.array([1])])], ["u"]),
         "the Arrow table cannot become Parquet"),
        (numpy.array([object()]), "a numpy array of Python objects"),
    ],
)  # fmt: skip
def test_a_table_that_parquet_cannot_hold_is_refused_in_one_line(value: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(CodecError, match=said) as refused:
        encode(value, tmp_path / "value")

    assert "\n" not in str(refused.value)


class OwnFrame(polars.DataFrame):
    pass


@pytest.mark.parametrize("value", [OwnFrame(), numpy.ma.masked_array([1]), pandas.Series([1]), object(), {1}, int])
def test_what_would_come_back_as_less_is_refused(value: Any) -> None:
    with pytest.raises(CodecError, match=r"^there is no codec for a .*; known are .*JSON|known are") as refused:
        codec_for(value)

    assert "shipway.codec.register" in str(refused.value)


@pytest.mark.parametrize(("saved", "lost", "comes_back_as"), [
    ("polars", {"polars"}, pandas.DataFrame),
    ("pandas", {"pandas"}, polars.DataFrame),
    ("arrow", {"pyarrow"}, polars.DataFrame),
    ("polars", {"polars", "pandas"}, pyarrow.Table),
])  # fmt: skip
def test_parquet_is_read_with_what_is_installed_and_that_is_said(
    saved: str, lost: set[str], comes_back_as: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(polars.DataFrame({"a": [1]}), tmp_path / "frame")
    found = importlib.util.find_spec
    monkeypatch.setattr(tables, "find_spec", lambda name: None if name in lost else found(name))

    with pytest.warns(UserWarning, match=f"saved with {saved}, read with"):
        back = codec_named(saved).read(tmp_path / "frame")

    assert isinstance(back, comes_back_as)


def test_without_any_parquet_reader_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "find_spec", lambda name: None)

    with pytest.raises(CodecError, match="install polars"):
        codec_named("polars").read(tmp_path / "frame")


def test_a_codec_asked_for_by_name_must_take_the_value() -> None:
    with pytest.raises(CodecError, match="codec 'json' does not take a bytes; it takes dict"):
        codec_for(b"", "json")
    with pytest.raises(CodecError, match=r"there is no codec 'yaml'; .*known are arrow, bytes"):
        codec_named("yaml")


class LinesCodec:
    name = "lines"
    suffix = ".txt"

    def accepts(self, value: object) -> bool:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)

    def write(self, value: list[str], path: Path) -> int:
        path.write_text("".join(f"{line}\n" for line in value), encoding="utf-8")
        return len(value)

    def read(self, path: Path) -> list[str]:
        return path.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    import shipway.codec

    monkeypatch.setattr(shipway.codec, "_codecs", dict(shipway.codec._codecs))


@pytest.mark.usefixtures("own_registry")
def test_a_codec_registered_later_wins(tmp_path: Path) -> None:
    lines: Codec = LinesCodec()
    register(lines)

    assert encode(["a", "b"], tmp_path / "value").rows == 2
    assert codec_named("lines").read(tmp_path / "value") == ["a", "b"]
    assert codec_for([1]).name == "json"
    with pytest.raises(CodecError, match=r"known are .*, lines;"):
        codec_for({1})


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize(("name", "suffix"), [("", ".x"), ("a/b", ".x"), ("a", "x"), ("a", ".x/y")])
def test_a_codec_that_could_not_name_a_file_is_refused(name: str, suffix: str) -> None:
    codec = LinesCodec()
    codec.name, codec.suffix = name, suffix

    with pytest.raises(CodecError, match=r"a codec cannot have the name"):
        register(codec)


@pytest.mark.usefixtures("own_registry")
def test_the_example_of_the_guide_works(tmp_path: Path) -> None:
    guide = Path(__file__).parents[2] / "docs" / "howto" / "add-a-codec.md"
    blocks = re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "guide", "path": tmp_path / "text"}

    exec("\n".join(blocks), names)  # noqa: S102

    assert codec_named("vocabulary").read(tmp_path / "text") == names["vocabulary"]
