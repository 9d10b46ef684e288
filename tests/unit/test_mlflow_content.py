"""What MLflow is told of a run: names it accepts, values within its limits, and no request over them."""

from __future__ import annotations

import json
import posixpath
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shipway.artifact import Artifact
from shipway.mlflow.content import MAX_NAME, MAX_PARAMETER, MAX_TAG, content_of, entity_name
from shipway.run.record import RunRecord
from shipway.store.folder import FolderStore

FOLDER = "runs/train/2026-01-02/one-deadbeef"
RECORD = RunRecord(
    run_id="0197a000-0000-7000-8000-0000deadbeef",
    run_name="one",
    flow="train",
    deployment="train/daily",
    attempt=2,
    release=f"1.{'a' * 64}",
    parameters={"month": "2013-02", "depth": 3, "tags": ["a", "é"], "none": None},
    metrics={"rmse": 0.5},
    timings={
        "scheduled": "2026-01-02T03:04:05+00:00",
        "started": "2026-01-02T03:04:06.500+00:00",
        "ended": "2026-01-02T03:05:06+00:00",
    },
)


def test_a_run_in_the_words_of_mlflow(folder_store: FolderStore) -> None:
    content = content_of(folder_store, FOLDER, RECORD)

    assert (content.experiment, content.run_name) == ("train", "one")
    assert content.end - content.start == 59_500
    assert content.start == 1_767_323_046_500
    assert content.parameters == {"month": "2013-02", "depth": "3", "tags": '["a", "é"]', "none": "null"}
    assert content.metrics == {"rmse": 0.5}
    address = folder_store.url(FOLDER)
    assert content.tags == {
        "shipway.run_id": RECORD.run_id,
        "shipway.release": RECORD.release,
        "shipway.deployment": "train/daily",
        "shipway.attempt": "2",
        "shipway.address": f"{address}/run.json",
        "shipway.artifacts": f"{address}/2",
        "mlflow.source.name": "train/daily",
        "mlflow.source.type": "JOB",
        "mlflow.note.content": "The run saved no artifacts.",
    }


def test_a_script_run_by_hand_and_models(folder_store: FolderStore) -> None:
    models = ({"name": "delay", "version": 3}, {"name": "wine", "version": 1})
    content = content_of(folder_store, FOLDER, replace(RECORD, deployment=None, release=None, models=models))

    assert (content.tags["mlflow.source.name"], content.tags["mlflow.source.type"]) == ("train", "LOCAL")
    assert content.tags["shipway.models"] == "delay@3, wine@1"
    assert not {"shipway.deployment", "shipway.release"} & set(content.tags)


def test_what_is_too_long_is_cut_and_named(folder_store: FolderStore) -> None:
    record = replace(RECORD, parameters={"long": "x" * 7000, "short": "y"}, run_name="n" * 400, flow="f" * 400)
    content = content_of(folder_store, FOLDER, record)

    assert content.parameters == {"long": "x" * MAX_PARAMETER, "short": "y"}
    assert content.cut == ("long",)
    assert content.tags["shipway.cut"] == "long"
    assert (len(content.run_name), len(content.experiment)) == (MAX_NAME, MAX_NAME)
    assert content.experiment != content_of(folder_store, FOLDER, replace(record, flow="f" * 401)).experiment


def test_the_description_names_artifacts_as_far_as_there_is_room(folder_store: FolderStore) -> None:
    artifacts = tuple(Artifact(f"part/{n}", f"{FOLDER}/2/part/{n}", "0" * 64, 7, "file") for n in range(1000))
    few = content_of(folder_store, FOLDER, replace(RECORD, artifacts=artifacts[:2])).tags["mlflow.note.content"]
    many = content_of(folder_store, FOLDER, replace(RECORD, artifacts=artifacts)).tags["mlflow.note.content"]

    assert few.endswith(f"- `part/1`, 7 bytes: `{folder_store.url(artifacts[1].key)}`")
    assert len(many) <= MAX_TAG
    left = re.search(r"- and (\d+) more, which the record names$", many)
    assert left
    assert many.count("bytes: ") + int(left[1]) == 1000


@pytest.mark.parametrize("time", [{}, {"started": "yesterday", "ended": "2026"}])
def test_times_that_are_none(folder_store: FolderStore, time: dict[str, str]) -> None:
    content = content_of(folder_store, FOLDER, replace(RECORD, timings=time))
    assert content.start == 0


@given(st.text(max_size=300))
@example("..")
@example("/")
@example("a//b")
@example("a/.")
@example("\ud800")
def test_every_name_becomes_one_that_mlflow_accepts(name: str) -> None:
    accepted = entity_name(name)

    # The rules of MLflow 3.17, validation.py.
    assert re.match(r"^[/\w.\- :]*$", accepted)
    normal = posixpath.normpath(accepted)
    assert normal == accepted
    assert not normal.startswith(("..", "/"))
    assert normal != "."
    assert 0 < len(accepted) <= 250


@given(st.lists(st.text(alphabet="ab/._ é\n'%", max_size=6), unique=True, max_size=30))
def test_different_names_stay_different(names: list[str]) -> None:
    assert len({entity_name(name) for name in names}) == len(names)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 320), st.integers(0, 2500), st.sampled_from(["x", "é", "😀", '"']), st.integers(0, 7000))
def test_no_request_is_over_a_limit(parameters: int, metrics: int, letter: str, length: int) -> None:
    record = replace(
        RECORD,
        parameters={f"p{n}": letter * length for n in range(parameters)},
        metrics={f"{'m' * 200}{n}": n / 7 for n in range(metrics)},
    )
    content = content_of(FolderStore(Path("/nowhere")), FOLDER, record)
    batches = list(content.batches())

    for batch in batches:
        assert set(batch) <= {"params", "metrics"}
        assert len(batch.get("params", [])) <= 100
        assert sum(map(len, batch.values())) <= 1000
        assert len(json.dumps({"run_id": "0" * 32, **batch}, ensure_ascii=False).encode()) <= 1_000_000
    assert {item["key"]: item["value"] for batch in batches for item in batch.get("params", [])} == content.parameters
    assert {item["key"]: item["value"] for batch in batches for item in batch.get("metrics", [])} == content.metrics
