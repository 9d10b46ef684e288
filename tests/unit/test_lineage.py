"""From a model, an artifact or a run back to raw inputs, and the same in the terms of OpenLineage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from shipway.artifact import Artifact
from shipway.cli.why import _Tree
from shipway.digest import sha256_bytes
from shipway.errors import InputError, NotFoundError
from shipway.release.build import build
from shipway.release.scan import scan
from shipway.run import models
from shipway.run.compare import compare
from shipway.run.lineage import Lineage, Target, environment_digest, find_key, find_model, trace
from shipway.run.openlineage import events
from shipway.run.record import RunRecord, run_folder, write_record
from shipway.store.folder import FolderStore

BASE = {
    "type": "object",
    "properties": {"_producer": {"type": "string", "format": "uri"}, "_schemaURL": {"type": "string", "format": "uri"}},
    "required": ["_producer", "_schemaURL"],
}
FACETS = {"type": "object", "additionalProperties": {"$ref": "#/$defs/facet"}}
DATASET = {
    "type": "object",
    "properties": {
        "namespace": {"type": "string"},
        "name": {"type": "string"},
        "facets": FACETS,
        "inputFacets": FACETS,
        "outputFacets": FACETS,
    },
    "required": ["namespace", "name"],
}
RUN_EVENT = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$defs": {"facet": BASE, "dataset": DATASET},
    "type": "object",
    "properties": {
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "eventTime": {"type": "string", "format": "date-time"},
        "producer": {"type": "string", "format": "uri"},
        "schemaURL": {"type": "string", "format": "uri"},
        "run": {
            "type": "object",
            "properties": {"runId": {"type": "string", "format": "uuid"}, "facets": FACETS},
            "required": ["runId"],
        },
        "job": {
            "type": "object",
            "properties": {"namespace": {"type": "string"}, "name": {"type": "string"}, "facets": FACETS},
            "required": ["namespace", "name"],
        },
        "inputs": {"type": "array", "items": {"$ref": "#/$defs/dataset"}},
        "outputs": {"type": "array", "items": {"$ref": "#/$defs/dataset"}},
    },
    "required": ["eventTime", "producer", "schemaURL", "run", "job"],
}
"""What https://openlineage.io/spec/2-0-2/OpenLineage.json asks of a RunEvent, in our words."""

REQUIRED = {
    "nominalTime": ["nominalStartTime"],
    "processing_engine": ["version"],
    "jobRunParameters": [],
    "jobType": ["processingType", "integration"],
    "sourceCodeLocation": ["type", "url"],
    "version": ["datasetVersion"],
    "outputStatistics": ["rowCount"],
}
"""What the facets of https://github.com/OpenLineage/OpenLineage/tree/main/spec/facets ask for besides."""


def folder_of(record: RunRecord) -> str:
    due = datetime.fromisoformat(record.timings["scheduled"])
    return run_folder(record.flow, due, record.run_name, record.run_id)


class Story:
    """Runs in a store, written one after the other."""

    def __init__(self, store: FolderStore) -> None:
        self.store = store
        self.count = 0

    def run(self, name: str, *saves: str, loads: tuple[tuple[RunRecord, str], ...] = (), **more: Any) -> RunRecord:
        """Write a run that saved and loaded artifacts of these names; return its record."""
        self.count += 1
        at = f"2026-01-{self.count % 28 + 1:02d}T03:04:05+00:00"
        record = RunRecord(
            run_id=f"0197a000-0000-7000-8000-{self.count:012x}",
            run_name=name,
            flow="main",
            deployment="main/daily",
            attempt=1,
            release=None,
            parameters={"n": self.count},
            environment={"python": "3.12.1", "platform": "Linux", "packages": {"prefect": "3.8.8"}},
            timings={"scheduled": at, "started": at, "ended": at},
        )
        folder = folder_of(record)
        artifacts = [
            Artifact(save, f"{folder}/1/{save}", sha256_bytes(f"{name}{save}".encode()), 7, "file", 3) for save in saves
        ]
        inputs = [
            {"kind": "artifact", "name": wanted, "run": maker.run_id, "asked": ""}
            | {"key": maker.artifact(wanted).key, "sha256": maker.artifact(wanted).sha256}
            for maker, wanted in loads
        ]
        record = replace(record, artifacts=tuple(artifacts), inputs=tuple(inputs), **more)
        assert write_record(self.store, folder, record)
        return record

    def of(self, record: RunRecord, artifact: str | None = None) -> Lineage:
        """Trace a run, or what it saved."""
        key = record.artifact(artifact).key if artifact else None
        kind = "artifact" if artifact else "run"
        return trace(self.store, Target(kind, artifact or record.run_name, folder_of(record), key))


@pytest.fixture
def story(folder_store: FolderStore) -> Story:
    return Story(folder_store)


def text(lineage: Lineage) -> str:
    return "\n".join(_Tree(lineage).lines())


def test_it_goes_back_to_runs_that_loaded_nothing(story: Story) -> None:
    source = story.run("source", "numbers", "unused")
    middle = story.run("middle", "features", loads=((source, "numbers"),))
    last = story.run("last", "model", loads=((middle, "features"), (source, "numbers")))

    lineage = story.of(last, "model")
    assert list(lineage.runs) == [folder_of(last), folder_of(middle), folder_of(source)]
    assert [(item.name, item.source, item.sha256) for item in lineage.raw()] == [
        ("numbers", "run source", source.artifact("numbers").sha256)
    ]
    lines = text(lineage).splitlines()
    assert lines[0] == f"artifact model  {last.artifact('model').sha256[:12]}"
    assert [line for line in lines if "from run source" in line][1].endswith("(see above)")
    assert sum("run source" in line and "see above" not in line for line in lines) == 1
    assert sum('parameters  {"n": 1}' in line for line in lines) == 1


def test_what_came_from_outside_counts_although_its_run_loaded_more(story: Story) -> None:
    first = story.run("first", "raw/2013-01", "features")
    second = story.run("second", "raw/2013-02", "model", loads=((first, "raw/2013-01"),))
    lineage = story.of(second, "model")
    assert [item.name for item in lineage.raw()] == ["raw/2013-01", "raw/2013-02"]


def test_data_files_of_a_release_are_raw_and_its_locks_are_known(story: Story, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    for name in ("flow.py", "cars.csv", "requirements.txt", "requirements-dev.lock", "uv.lock", "requirements.md"):
        (tmp_path / "code" / name).write_text(name)
    version = build(scan(tmp_path / "code"), story.store).version
    reads = tuple({"path": name, "sha256": sha256_bytes(name.encode())} for name in ("flow.py", "cars.csv"))
    lineage = story.of(story.run("one", "model", release=str(version), reads=reads), "model")

    assert [(item.name, item.source) for item in lineage.raw()] == [("cars.csv", f"release {version.short}")]
    assert lineage.locks[str(version)] == {
        name: sha256_bytes(name.encode()) for name in ("requirements.txt", "requirements-dev.lock", "uv.lock")
    }
    shown = text(lineage)
    assert f"release {version.short}" in shown
    assert f"uv.lock {sha256_bytes(b'uv.lock')[:12]}" in shown
    assert f"cars.csv {sha256_bytes(b'cars.csv')[:12]}" in shown


def test_what_is_missing_or_damaged_is_shown_as_such(story: Story) -> None:
    gone, damaged, other = (story.run(name, "x") for name in ("gone", "damaged", "other"))
    odd = story.run("odd", "x")
    loads = ((gone, "x"), (damaged, "x"), (other, "x"), (odd, "x"))
    last = story.run("last", "model", loads=loads, release=f"1.{'a' * 64}")
    story.store.delete(f"{folder_of(gone)}/run.json")
    story.store.put(f"{folder_of(damaged)}/run.json", b"{")
    story.store.delete(f"{folder_of(other)}/run.json")
    write_record(story.store, folder_of(other), replace(other, artifacts=()))

    story.store.delete(f"{folder_of(odd)}/run.json")
    write_record(story.store, folder_of(odd), replace(odd, inputs=({"name": "x"},)))

    lineage = story.of(last)
    assert [lineage.problem(item) for item in last.inputs] == [
        "its record is missing",
        lineage.runs[folder_of(damaged)],
        "run other did not save it",
        lineage.runs[folder_of(odd)],
    ]
    shown = text(lineage)
    assert "is not a run record" in shown
    assert "run other did not save it" in shown
    assert "aaaaaaaaaaaa  it is missing" in shown
    assert len(events(story.store, lineage)) == 2


def test_too_many_runs_are_cut_and_that_is_said(story: Story) -> None:
    sources = [story.run(f"source-{number}", "x") for number in range(5)]
    last = story.run("last", "model", loads=tuple((source, "x") for source in sources))
    lineage = trace(story.store, Target("run", "last", folder_of(last)), max_runs=3)
    assert (len(lineage.runs), lineage.cut) == (3, 3)
    assert "not looked at" in text(lineage)


def test_a_long_line_of_runs_is_shown_whole(story: Story) -> None:
    record = story.run("run-0", "x")
    for number in range(1, 120):
        record = story.run(f"run-{number}", "x", loads=((record, "x"),))
    lineage = story.of(record)
    assert len(lineage.runs) == 120
    assert "run run-0 " in text(lineage)


@pytest.fixture
def model(story: Story) -> RunRecord:
    """A run that has made versions 1 and 2 of a model, of which the first is champion."""
    record = story.run("maker", "model", "metrics")
    saved = record.artifact("model")
    for version in (1, 2):
        facts = {"name": "delay", "version": version, "at": "", "run": record.run_id, "run_name": record.run_name}
        facts |= {"folder": folder_of(record), "attempt": 1, "artifact": "model"}
        facts |= {"key": saved.key, "sha256": saved.sha256}
        story.store.create(models.version_key("delay", version), models.version_bytes(facts))
    champion = models.Champion("delay", (models.Moved(1, "2026-01-01", "me", "because"),))
    story.store.create(models.champion_key("delay"), models.champion_bytes(champion))
    return record


def test_a_model_is_found_by_its_name_and_version(story: Story, model: RunRecord) -> None:
    champion = find_model(story.store, "delay")
    assert champion is not None
    assert (champion.kind, champion.folder, dict(champion.facts)) == (
        "model",
        folder_of(model),
        {"version": 1, "champion": True},
    )
    assert text(trace(story.store, champion)).startswith("model delay version 1, champion  ")
    second = find_model(story.store, "delay@2")
    assert second is not None
    assert second.facts == {"version": 2, "champion": False}
    assert find_model(story.store, "nobody") is None
    assert find_model(story.store, "nobody@3") is None
    with pytest.raises(NotFoundError, match="no version 9"):
        find_model(story.store, "delay@9")


def test_every_object_of_a_run_or_model_leads_to_it(story: Story, model: RunRecord) -> None:
    folder = folder_of(model)
    found = {key: find_key(story.store, key) for key in (f"{folder}/run.json", f"{folder}/1/metrics")}
    assert [(target.kind, target.name) for target in found.values()] == [("run", "maker"), ("artifact", "metrics")]
    assert find_key(story.store, "models/delay/champion.json").facts["version"] == 1
    assert find_key(story.store, "models/delay/2.json").facts["version"] == 2
    assert find_key(story.store, f"reports/{folder.removeprefix('runs/')}.html").kind == "run"
    story.store.put(f"{folder}/2/left", b"")
    story.store.put("code/1/packs/a", b"")
    with pytest.raises(NotFoundError, match="does not name"):
        find_key(story.store, f"{folder}/2/left")
    with pytest.raises(NotFoundError):
        find_key(story.store, "models/delay/7.json")
    with pytest.raises(InputError, match="not of a run"):
        find_key(story.store, "code/1/packs/a")


def facets_in(value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every facet in an event, by its name."""
    if isinstance(value, list):
        for item in value:
            yield from facets_in(item)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, dict) and "_schemaURL" in inner:
                yield name, inner
            else:
                yield from facets_in(inner)


def test_events_are_what_openlineage_asks_for(story: Story, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/uv.lock").write_text("uv.lock")
    version = build(scan(tmp_path / "code"), story.store).version
    reads = ({"path": "cars.csv", "sha256": "a" * 64},)
    source = story.run("source", "numbers")
    last = story.run("last", "model", loads=((source, "numbers"),), release=str(version), reads=reads)

    found = events(story.store, story.of(last))
    validator = jsonschema_rs.Draft202012Validator(RUN_EVENT, validate_formats=True)
    for event in json.loads(json.dumps(found)):
        validator.validate(event)
        for name, facet in facets_in(event):
            assert name in REQUIRED or name.startswith("shipway_")
            assert set(REQUIRED.get(name, [])) <= facet.keys(), name
    assert [event["run"]["runId"] for event in found] == [source.run_id, last.run_id]
    made, used = found[0]["outputs"][0], found[1]["inputs"][0]
    assert {**made, "outputFacets": None} == {**used, "outputFacets": None}
    assert made["name"].endswith(source.artifact("numbers").key)
    assert made["facets"]["version"]["datasetVersion"] == source.artifact("numbers").sha256
    assert (made["outputFacets"]["outputStatistics"]["rowCount"], made["namespace"]) == (3, "file")
    job = found[1]["job"]
    assert job["facets"]["sourceCodeLocation"]["version"] == str(version)
    assert job["facets"]["shipway_locks"]["files"] == {"uv.lock": sha256_bytes(b"uv.lock")}
    assert found[1]["run"]["facets"]["shipway_reads"]["files"] == list(reads)
    with pytest.raises(jsonschema_rs.ValidationError):
        validator.validate({**found[0], "run": {}})


def test_runs_are_compared_name_by_name(story: Story) -> None:
    before = story.run("run", "same", "differs", "missing")
    other = replace(before.artifact("differs"), sha256="b" * 64, rows=4)
    new = replace(other, name="new")
    packages = {"prefect": "3.8.9", "polars": "2.0"}
    environment = {"python": "3.13.0", "platform": "Linux", "packages": packages}
    after = replace(before, artifacts=(before.artifact("same"), other, new), environment=environment)

    found = compare(before, after)
    assert found.same == ("same",)
    assert [(item.name, item.problem) for item in found.differences] == [
        ("differs", "differs"),
        ("missing", "missing"),
        ("new", "new"),
    ]
    assert found.differences[0].rows == (3, 4)
    assert found.reasons == (
        "Python was 3.12.1, and is 3.13.0",
        "Packages differ: polars none -> 2.0, prefect 3.8.8 -> 3.8.9",
    )
    assert compare(before, replace(before, environment=environment)).reasons == ()
    assert environment_digest(before) != environment_digest(after)
