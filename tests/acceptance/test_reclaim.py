"""Space is reclaimed and nothing else is: `gc`, pins, what is refused afterwards, and `verify`, on a real stack."""

from __future__ import annotations

import json
import os
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from shipway.blob import current_epoch, release_key
from shipway.cli.apply import apply_files
from shipway.deployment import history
from shipway.deployment.spec import read
from shipway.errors import InputError
from shipway.manifest import Version, read_manifest
from shipway.prefect.api import Api
from shipway.prefect.apply import apply, make_plans
from shipway.prefect.build import BuildOrder, build_deployment
from shipway.prefect.live import live
from shipway.prefect.stores import store_of
from shipway.release import build as build_module
from shipway.release.scan import scan
from shipway.run.upkeep import Collection, collect
from shipway.settings import Settings
from shipway.store.folder import FolderStore
from tests.acceptance.conftest import Shell, one_line, run_python

FLOW = """
from prefect import flow
import shipway

@flow(name="NAME")
def main():
    shipway.log_metrics({"result": RESULT})
"""


def write(project: Shell, name: str, result: int) -> None:
    (project.folder / "work.py").write_text(FLOW.replace("NAME", name).replace("RESULT", str(result)))


def objects(folder: Path) -> set[str]:
    """Return the keys of a folder store's objects."""
    return {info.key for info in FolderStore(folder).list()}


def result(project: Shell, deployment: str) -> Any:
    return project.json("run", deployment, "--watch")["metrics"]["result"]


@pytest.fixture
def name() -> str:
    return f"reclaim-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def folder_block(project: Shell, name: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Make a block of a folder, where objects can be made to look old; return it and the folder."""
    folder = tmp_path_factory.mktemp("store")
    code = f"from prefect.filesystems import LocalFileSystem; LocalFileSystem(basepath={str(folder)!r}).save({name!r})"
    run_python(code, project)
    return f"local-file-system/{name}", folder


@pytest.fixture
def s3_block(project: Shell, stack: Shell, name: str) -> str:
    """Make a block of a prefix in the stack's bucket."""
    secrets = json.loads((stack.folder / ".shipway/secrets.json").read_text())
    endpoint = json.loads((stack.folder / ".shipway/stack.json").read_text())["store"]["endpoint_url"]
    keys = {"AWS_ACCESS_KEY_ID": secrets["s3_access_key"], "AWS_SECRET_ACCESS_KEY": secrets["s3_secret_key"]}
    where = ("--bucket-path", f"shipway/{name}", "--endpoint-url", endpoint, "--region", "us-east-1")
    project.ok("block", "s3", name, *where, "--keep-keys", **keys)
    return f"s3/{name}"


def deploy_in_the_past(project: Shell, name: str, block: str, queue: str, folder: Path, results: list[int]) -> None:
    """Deploy releases four epochs ago, as far as anybody can tell today."""
    epoch = current_epoch() - 4
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        for variable, value in project.environment.items():
            patch.setenv(variable, value)
        for module in (build_module, history):
            patch.setattr(module, "current_epoch", lambda: epoch)
        for number in results:
            write(project, name, number)
            first, file = project.folder / f"{name}-deployment.yaml", project.folder / f"{number}.yaml"
            if first.exists():
                # The flow is looked at once only, which takes longer than all the rest of a build.
                version = build_module.build(scan(project.folder), FolderStore(folder)).version
                file.write_text(first.read_text().replace(str(read(first).version), str(version)))
            else:
                order = BuildOrder("./work.py:main", project.folder, "daily", block=block, queue=queue)
                build_deployment(Settings.load(), order)
                file.write_text(first.read_text())
            apply_files((file,), quiet=True)
    when = time.time() - 57 * 86_400
    for path in (folder / "code").rglob("*"):
        if path.is_file():
            os.utime(path, (when, when))


def test_gc_keeps_what_is_needed_and_removes_the_rest(
    project: Shell, name: str, folder_block: tuple[str, Path]
) -> None:
    block, folder = folder_block
    deployment, options = f"{name}/daily", ("-sb", block, "--keep-last", "2", "--keep-days", "0")
    client = Api(Settings.load(project.folder, project.environment))

    def pause(paused: bool) -> None:
        client.request("PATCH", f"/work_pools/shipway/queues/{name}", {"is_paused": paused})

    # 1 is pinned, 2 is wanted by a run that waits, 3 by nobody, 4 is the one before the current one.
    deploy_in_the_past(project, name, block, name, folder, [1, 2])
    pause(True)
    project.ok("run", deployment, "--name", f"waits-{name}")
    deploy_in_the_past(project, name, block, name, folder, [3, 4])
    write(project, name, 5)
    project.ok("deploy", "./work.py:main", "-n", "daily", "-sb", block, "-q", name)
    ids = [item["release"].partition(".")[2] for item in reversed(project.json("releases", deployment))]
    project.ok("releases", deployment, "--pin", ids[0][:12])

    before = objects(folder)
    dry = project.json("gc", "--dry-run", *options)
    assert objects(folder) == before
    assert dry["removed"]["releases"]["keys"] == [release_key(current_epoch() - 4, ids[2])]
    assert dry["trimmed"] == {deployment: 2}
    done = project("gc", "--grace", "1", *options)
    assert done.returncode == 0, done.stderr
    assert before - objects(folder) == {key for tally in dry["removed"].values() for key in tally["keys"]}
    left = project.json("releases", deployment)
    assert [item["release"].partition(".")[2] for item in left] == [ids[4], ids[3], ids[0]]
    assert [(item["current"], item["pinned"]) for item in left] == [(True, False), (False, False), (False, True)]
    assert "All is well." in project.ok("verify", "-sb", block)

    # Everybody who was promised something gets it, and nobody anything else.
    pause(False)
    assert project.json("show", f"waits-{name}", "--watch")["metrics"] == {"result": 2}
    assert result(project, deployment) == 5
    for wanted, index in ((4, 3), (1, 0)):
        project.ok("rollback", deployment, ids[index][:12])
        assert result(project, deployment) == wanted
    assert "there is no release" in one_line(project("rollback", deployment, ids[2][:12]), 4)
    for plan in ([], ["--plan"]):
        for number in (2, 3):
            line = one_line(project("apply", f"{number}.yaml", *plan), 3)
            assert line.endswith("build again")
            assert f"not in the history of {deployment}" in line
    project.ok("apply", "4.yaml")
    assert result(project, deployment) == 4
    write(project, name, 3)
    project.ok("deploy", "./work.py:main", "-n", "daily", "-sb", block)
    assert result(project, deployment) == 3


@pytest.mark.long
def test_a_move_that_the_server_refuses_is_taken_back(
    project: Shell, name: str, folder_block: tuple[str, Path]
) -> None:
    block, _ = folder_block
    write(project, name, 1)
    project.ok("deploy", "./work.py:main", "-n", "daily", "-sb", block)
    before = project.json("releases", f"{name}/daily")
    write(project, name, 2)
    project.ok("build", "./work.py:main", "-n", "daily", "-sb", block)
    file = project.folder / f"{name}-deployment.yaml"
    good = file.read_text()
    file.write_text(good.replace("job_variables: {}", "job_variables: {env: 5}"))
    done = project("apply", file.name)
    assert done.returncode == 7, done.stdout + done.stderr
    assert project.json("releases", f"{name}/daily") == before
    assert result(project, f"{name}/daily") == 1
    # Nor is anything left of two where the second has become too old since the plan was made.
    file.write_text(good)
    settings = Settings.load(project.folder, project.environment)
    one, two = make_plans(settings, [read(file), structs.replace(read(file), name="other")])
    old = f"{current_epoch() - 2}.{two.spec.version.release_id}"
    with pytest.raises(InputError, match="build again"):
        apply(settings, [one, replace(two, spec=structs.replace(two.spec, release=old))])
    assert project.json("releases", f"{name}/daily") == before
    assert result(project, f"{name}/daily") == 1
    project.ok("apply", file.name)
    assert result(project, f"{name}/daily") == 2


@pytest.mark.long
def test_an_interrupted_apply_is_completed_or_gone_back_from(
    project: Shell, name: str, folder_block: tuple[str, Path]
) -> None:
    block, folder = folder_block
    deployment = f"{name}/daily"
    versions = []
    for number in (1, 2, 3):
        write(project, name, number)
        project.ok("build" if number == 3 else "deploy", "./work.py:main", "-n", "daily", "-sb", block)
        versions.append(read(project.folder / f"{name}-deployment.yaml").version)
    # Killed before the server was told.
    history.move_pointer(FolderStore(folder), name, "daily", versions[2], entrypoint="work.py:main")
    assert [item["current"] for item in project.json("releases", deployment)] == [False, True, False]
    assert result(project, deployment) == 2
    project.ok("rollback", deployment)
    assert result(project, deployment) == 1
    project.ok("rollback", deployment, versions[2].short)
    assert result(project, deployment) == 3
    history.move_pointer(FolderStore(folder), name, "daily", versions[0], entrypoint="work.py:main")
    project.ok("apply", f"{name}-deployment.yaml")
    releases = project.json("releases", deployment)
    assert (releases[0]["release"], releases[0]["current"]) == (str(versions[2]), True)


@pytest.mark.long
def test_on_s3_one_flipped_byte_is_found(project: Shell, name: str, s3_block: str) -> None:
    deployment = f"{name}/daily"
    for number in (1, 2, 3):
        write(project, name, number)
        project.ok("deploy", "./work.py:main", "-n", "daily", "-sb", s3_block)
    assert result(project, deployment) == 3
    assert "All is well." in project.ok("verify", "-sb", s3_block)
    assert "Nothing would be removed" in project.ok("gc", "--dry-run", "-sb", s3_block)

    # Nothing can be old here: a window of no epochs makes everything old enough.
    settings = Settings.load(project.folder, project.environment)
    store, client = store_of(settings, s3_block), Api(settings)
    collection = Collection(store, keep_last=2, keep_days=0, live=lambda: live(client), epochs=0)
    done = collect(collection, grace=0)
    assert {kind: tally.objects for kind, tally in done.removed.items() if tally.objects} == {
        "releases": 1,
        "packs": 1,
    }
    assert deployment not in done.unknown
    project.ok("rollback", deployment)
    assert result(project, deployment) == 2

    version = Version.parse(project.json("releases", deployment)[0]["release"])
    manifest = read_manifest(store, version)
    where = next(manifest.contents[entry.sha256] for entry in manifest.entries if entry.path == "work.py")
    data = bytearray(store.read(where.key))
    data[where.offset] ^= 1
    store.put(where.key, bytes(data))
    done_ = project("verify", "-sb", s3_block)
    assert done_.returncode == 9
    assert "Traceback" not in done_.stderr
    assert done_.stderr.splitlines()[-1].startswith("shipway: 1 thing is missing or damaged")
    [row] = [line.split() for line in done_.stdout.splitlines() if line.startswith("damaged")]
    assert row[:4] == ["damaged", "release", version.short, "work.py"]
    assert row[-1] == where.key
    [finding] = json.loads(project("verify", "-sb", s3_block, "--json").stdout)["findings"]
    assert (finding["name"], finding["paths"]) == (str(version), ["work.py"])
    assert deployment in finding["users"]
