"""A deployment file that Prefect 2 wrote is applied as it is, and what it says in vain is named."""

from __future__ import annotations

import uuid

from tests.acceptance.conftest import Shell

OLD = """\
###
### A complete description of a Prefect Deployment for flow 'main'
###
name: old
description: From 2022
version: 1d0a2fb2f0b2a8a2
work_queue_name: blue
tags:
- wine
parameters:
  n: 3
schedule:
  cron: 0 6 * * *
  timezone: Europe/Berlin
  day_or: true
is_schedule_active: false
infra_overrides:
  env: {GREETING: hello}
  image: old/image
infrastructure:
  type: docker-container
  env: {}
  block_type_slug: docker-container
flow_name: FLOW
manifest_path: main-manifest.json
storage:
  bucket_path: wine
  _block_document_name: stack
  block_type_slug: s3
  _block_type_slug: s3
path: ''
entrypoint: work.py:main
parameter_openapi_schema:
  title: Parameters
  type: object
  properties: {}
  required: []
  definitions: null
timestamp: '2022-11-30T10:11:12+00:00'
"""


def test_it_is_translated_and_applied(project: Shell) -> None:
    flow = f"prefect2-{uuid.uuid4().hex[:8]}"
    code = f"""
import os, shipway
from prefect import flow
@flow(name="{flow}")
def main(n: int):
    shipway.save("value", os.environ["GREETING"] * n)
"""
    (project.folder / "work.py").write_text(code)
    (project.folder / "main-deployment.yaml").write_text(OLD.replace("FLOW", flow))
    done = project("deployment", "apply", "main-deployment.yaml")
    assert done.returncode == 0, done.stderr
    assert "Dropped: infra_overrides.image" in done.stderr
    assert "Dropped: infrastructure of type docker-container" in done.stderr
    [row] = [row for row in project.json("ls") if row["deployment"] == f"{flow}/old"]
    assert (row["queue"], row["tags"]) == ("blue", ["wine"])
    assert row["schedules"] == ["cron 0 6 * * * Europe/Berlin (paused)"]
    facts = project.json("run", f"{flow}/old", "--watch")
    project.ok("get", facts["run"], "value", "value.json")
    assert (project.folder / "value.json").read_text().strip() == '"hellohellohello"'
