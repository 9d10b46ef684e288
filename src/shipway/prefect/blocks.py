"""Saving blocks over the API; our block type's schema is read from a file, so that Prefect need not be imported."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

from shipway.errors import InputError, NotFoundError, ServerError
from shipway.prefect.api import Api, quote
from shipway.prefect.stores import LOCAL_BLOCK, STACK_BLOCK
from shipway.settings import Settings
from shipway.stack import facts
from shipway.store.url import StoreConfig


def check_block_name(name: str) -> str:
    """Return `name` if Prefect lets a block have it.

    Raises:
        InputError: it does not.
    """
    if not re.fullmatch(r"[a-z0-9-]{1,255}", name):
        raise InputError(f"a block cannot be named {name[:80]!r}", hint="use lower-case letters, digits and dashes")
    return name


def save_s3_block(settings: Settings, name: str, config: StoreConfig) -> None:
    """Save a bucket as block `s3/NAME`, made or changed; the secrets are encrypted by the server.

    Raises:
        InputError: the name is not one that Prefect allows.
    """
    data = {
        "bucket_path": "/".join(part for part in (config.bucket, config.prefix) if part),
        "endpoint_url": config.endpoint_url,
        "region_name": config.region,
        "profile_name": config.profile,
        "aws_access_key_id": config.access_key,
        "aws_secret_access_key": config.secret_key,
        "aws_session_token": config.session_token,
    }
    api = Api(settings)
    type_id, schema_id = _register(api)
    _save(api, "s3", name, {key: value for key, value in data.items() if value is not None}, type_id, schema_id)


def save_folder_block(settings: Settings, name: str, path: str) -> None:
    """Save a folder as Prefect's own block `local-file-system/NAME`.

    Raises:
        ServerError: the server does not know that block type.
    """
    api = Api(settings)
    kind = api.find("/block_types/slug/local-file-system")
    if kind is None:
        # A new server makes its own block types when the first of this route is asked for.
        api.request("POST", "/block_types/install_system_block_types")
        kind = api.find("/block_types/slug/local-file-system")
    schemas = (
        api.request("POST", "/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}})
        if kind
        else []
    )
    if not kind or not schemas:
        raise ServerError(f"{api.url} has no block type local-file-system", hint="update the Prefect server")
    _save(api, "local-file-system", name, {"basepath": path}, kind["id"], schemas[0]["id"])


def save_stack_block(settings: Settings) -> None:
    """Save the block of the running stack's own store: `s3/stack`, or `local-file-system/stack` for a folder."""
    stack = facts(settings)
    if stack is None:
        raise NotFoundError("no stack runs in this project", hint="start one with `shipway up`")
    if stack.store.kind == "s3":
        save_s3_block(settings, STACK_BLOCK, stack.store)
    else:
        save_folder_block(settings, STACK_BLOCK, str(stack.store.path))


def save_local_block(settings: Settings) -> None:
    """Save the block of the folder in the project, which serves where no store was named and no stack runs."""
    save_folder_block(settings, LOCAL_BLOCK.partition("/")[2], str(settings.make_state() / "store"))


def _register(api: Api) -> tuple[str, str]:
    """Make our block type and its schema known; return their ids."""
    document: dict[str, Any] = json.loads(files("shipway.prefect").joinpath("block_schema.json").read_text())
    kind = api.find("/block_types/slug/s3") or api.request("POST", "/block_types/", document["block_type"])
    schema = api.find(f"/block_schemas/checksum/{document['checksum']}?version={quote(document['version'])}")
    if schema is None or schema["block_type_id"] != kind["id"]:
        wanted = ("fields", "capabilities", "version")
        schema = api.request(
            "POST", "/block_schemas/", {key: document[key] for key in wanted} | {"block_type_id": kind["id"]}
        )
    return kind["id"], schema["id"]


def _save(api: Api, kind: str, name: str, data: dict[str, Any], type_id: str, schema_id: str) -> None:
    found = api.find(f"/block_types/slug/{quote(kind)}/block_documents/name/{quote(name)}")
    if found:
        body = {"data": data, "block_schema_id": schema_id, "merge_existing_data": False}
        api.request("PATCH", f"/block_documents/{found['id']}", body)
    else:
        body = {"name": check_block_name(name), "data": data, "block_schema_id": schema_id, "block_type_id": type_id}
        api.request("POST", "/block_documents/", body)
