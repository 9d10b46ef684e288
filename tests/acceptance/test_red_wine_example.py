"""The red wine example: a plain script, and the program that fetches its data."""

from __future__ import annotations

import importlib.util
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RED_WINE = ROOT / "examples" / "red_wine"


def load(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fetch(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, RED_WINE / "fetch_data.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_copy_is_taken_when_it_is_the_right_one(csv_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "data" / "winequality-red.csv"

    done = fetch("--from", csv_file, "--to", target)

    assert (done.returncode, done.stderr) == (0, "")
    assert target.read_bytes() == csv_file.read_bytes()
    assert list(target.parent.iterdir()) == [target]


def test_a_wrong_copy_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("fixed acidity;quality\n7.4;5\n")

    done = fetch("--from", wrong, "--to", tmp_path / "data" / "wine.csv")

    assert done.returncode == 1
    assert "is not the data expected" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [wrong]


def test_a_wrong_copy_does_not_replace_a_right_one(csv_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "wine.csv"
    fetch("--from", csv_file, "--to", target)

    assert fetch("--from", Path(__file__), "--to", target).returncode == 1
    assert target.read_bytes() == csv_file.read_bytes()


def test_a_copy_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    done = fetch("--from", tmp_path / "missing.csv", "--to", tmp_path / "wine.csv")

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "missing.csv could not be read" in done.stderr


def test_without_a_network_the_way_around_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = load(RED_WINE / "fetch_data.py", "fetch_data")
    monkeypatch.setattr(program, "URL", "http://127.0.0.1:9/winequality-red.csv")

    assert program.main(["--to", str(tmp_path / "wine.csv")]) == 1
    assert "give it with --from FILE" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_script_trains_and_leaves_its_models_in_the_working_folder(
    csv_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(RED_WINE, tmp_path / "wine", ignore=shutil.ignore_patterns("data", "models", "__pycache__"))
    fetch("--from", csv_file, "--to", tmp_path / "wine" / "data" / "winequality-red.csv")
    monkeypatch.chdir(tmp_path)
    script = load(tmp_path / "wine" / "orchestration.py", "red_wine_orchestration")
    task = type(script.train_model)
    tasks = {name: value for name, value in vars(script).items() if isinstance(value, task)}
    for name, value in tasks.items():
        if name not in ("fit_preprocessor", "train_model"):
            monkeypatch.setattr(script, name, value.fn)
    for name in ("fit_preprocessor", "train_model"):
        plain = tasks[name].fn
        monkeypatch.setattr(plain, "fn", plain, raising=False)
        monkeypatch.setattr(script, name, plain)

    rmse = script.main.fn()

    assert rmse == pytest.approx(0.667, abs=0.01)
    assert capsys.readouterr().out.startswith("RMSE: 0.6")
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["model.pkl", "preprocessor.pkl"]
    kept = pickle.loads((tmp_path / "models" / "preprocessor.pkl").read_bytes())  # noqa: S301 - written just now
    assert kept["columns"] == script.COLUMNS


def test_the_script_knows_nothing_of_shipway() -> None:
    text = (RED_WINE / "orchestration.py").read_text(encoding="utf-8")

    assert "shipway" not in text.lower()
    assert text.rstrip().endswith('if __name__ == "__main__":\n    main()')
