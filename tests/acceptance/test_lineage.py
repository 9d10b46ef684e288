"""What a run was made of, and the same run again, on a real stack."""

from __future__ import annotations

import json
import uuid

import pytest

from shipway.blob import release_key
from shipway.digest import sha256_bytes
from shipway.manifest import Version
from shipway.prefect.stores import store_of
from shipway.settings import Settings
from tests.acceptance.conftest import Shell, one_line

FLOWS = """
import os
import subprocess
from prefect import flow
import polars as pl
import shipway
from shipway.errors import NotFoundError

@flow(name="NAME-source")
def source(n: int) -> None:
    shipway.save("numbers", pl.read_csv("data/cars.csv") * n)

@flow(name="NAME-train")
def train(label: str = "x") -> None:
    numbers = shipway.load("numbers", flow="NAME-source")
    try:
        earlier = shipway.load("total")
    except NotFoundError:
        earlier = None
    shipway.save("total", {"sum": int(numbers["dist"].sum()), "earlier": earlier, "label": label})
    subprocess.run(["cp", "notes.txt", "copied.txt"], check=True)
    shipway.save("model", {"sum": 1})
    shipway.register("NAME-model", decision=None)

@flow(name="NAME-dice")
def dice() -> None:
    shipway.save("noise", os.urandom(8).hex())
    shipway.save("fixed", [1, 2, 3])
"""


def test_a_result_is_traced_and_done_again(project: Shell) -> None:
    name = f"lineage-{uuid.uuid4().hex[:8]}"
    (project.folder / "data").mkdir()
    files = {"work.py": FLOWS.replace("NAME", name), "data/cars.csv": "speed,dist\n4,2\n7,4\n", "notes.txt": "notes\n"}
    files |= {"unused.txt": "nobody reads this\n", "uv.lock": "version = 1\n"}
    for path, content in files.items():
        (project.folder / path).write_text(content)
    digests = {path: sha256_bytes(content.encode()) for path, content in files.items()}
    for flow in ("source", "train"):
        project.ok("deploy", f"./work.py:{flow}", "-n", "daily")
    project.ok("run", f"{name}-source/daily", "-p", "n=1", "--watch", "--name", f"{name}-s1")
    facts = project.json("run", f"{name}-train/daily", "--watch", "--name", f"{name}-t1")

    # The files were read by a library that is not Python, by a child, and by Python itself.
    assert {item["path"]: item["sha256"] for item in facts["reads"]} == {
        path: digests[path] for path in ("work.py", "notes.txt")
    }
    source = project.json("show", f"{name}-s1")
    assert {item["path"] for item in source["reads"]} == {"work.py", "data/cars.csv"}
    assert "1 loaded from other runs" in project.ok("show", f"{name}-t1")

    shown = project.ok("why", f"{name}-t1:total")
    assert f"uv.lock {digests['uv.lock'][:12]}" in shown
    assert f"from run {name}-s1" in shown
    assert '{"n": 1}' in shown
    raw = project.json("why", f"{name}-t1", "--raw")
    assert {item["name"]: item["sha256"] for item in raw} == {
        path: digests[path] for path in ("data/cars.csv", "notes.txt")
    }
    address = next(item["address"] for item in facts["artifacts"] if item["name"] == "total")
    assert project.ok("why", address) == shown
    events = project.json("why", f"{name}-model@1")
    assert [event["job"]["name"] for event in events] == [f"{name}-source/daily", f"{name}-train/daily"]
    assert events[0]["outputs"][0]["name"] == events[1]["inputs"][0]["name"]

    # What was saved since is not looked at: neither newer numbers, nor the total that there was none of.
    project.ok("run", f"{name}-source/daily", "-p", "n=1000", "--watch")
    (project.folder / "work.py").write_text(files["work.py"].replace('"label": label', '"label": 0'))
    project.ok("deploy", "./work.py:train", "-n", "daily", "-p", "label=late")
    again = project.json("reproduce", f"{name}-t1")
    assert again["identical"], again
    assert set(again["same"]) == {"copied.txt", "model", "total"}
    repeated = project.json("show", again["run"])
    assert (repeated["release"], repeated["inputs"]) == (facts["release"], facts["inputs"])
    assert [version["version"] for version in project.json("models", f"{name}-model")["versions"]] == [1]


@pytest.mark.long
def test_what_differs_is_named(project: Shell) -> None:
    name = f"lineage-{uuid.uuid4().hex[:8]}"
    (project.folder / "work.py").write_text(FLOWS.replace("NAME", name))
    project.ok("deploy", "./work.py:dice", "-n", "daily")
    project.ok("run", f"{name}-dice/daily", "--watch", "--name", f"{name}-one")

    done = project("reproduce", f"{name}-one", "--json")
    assert "saved 1 thing not as" in one_line(done, 12)
    found = json.loads(done.stdout)
    assert [(item["name"], item["problem"]) for item in found["differences"]] == [("noise", "differs")]
    assert (found["same"], found["identical"]) == (["fixed"], False)
    done = project("reproduce", f"{name}-one", "--with", found["run"])
    one_line(done, 12)
    assert "the flow itself varies" in done.stdout
    settings = Settings.load(project.folder, project.environment)
    version = Version.parse(project.json("show", f"{name}-one")["release"])
    store, key = store_of(settings, "s3/stack"), release_key(version.epoch, version.release_id)
    manifest = store.read(key)
    store.delete(key)
    assert f"its release {version.short} is gone" in one_line(project("reproduce", f"{name}-one"), 4)
    assert f"release {version.short}  it is missing" in project.ok("why", f"{name}-one")
    store.create(key, manifest)  # others verify the same store
    assert "there is no model and no run" in one_line(project("why", "nobody-knows"), 4)
    assert "there is no run" in one_line(project("reproduce", "nobody-knows"), 4)
    assert "does not lie in" in one_line(project("why", "s3://elsewhere/runs/x"), 3)
