"""From the name of a block to a store: `s3/NAME`, prefect-aws's `s3-bucket/NAME`, `local-file-system/NAME`."""

from __future__ import annotations

from typing import Any

from shipway.errors import InputError, NotFoundError, ServerUnreachableError
from shipway.prefect.api import Api, quote
from shipway.settings import Settings
from shipway.store.base import Store
from shipway.store.opening import open_store
from shipway.store.url import StoreConfig, parse_bucket_path, parse_folder

STACK_BLOCK = "stack"
LOCAL_BLOCK = "local-file-system/shipway"
KINDS = ("s3", "s3-bucket", "local-file-system")

_NESTED = {"credentials", "aws_client_parameters"}
_READ = _NESTED | {
    "bucket_path", "bucket_name", "bucket_folder", "basepath", "endpoint_url", "region_name", "profile_name",
    "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "minio_root_user", "minio_root_password",
}  # fmt: skip
"""What is read of a block of any of these kinds."""


def store_of(settings: Settings, block: str, *, known: bool = False) -> Store:
    """Open the store that a block describes.

    Args:
        settings: whose server has the block.
        block: `TYPE/NAME`.
        known: whether the store has answered somebody before, so that its silence is an outage, to be waited out.

    Raises:
        InputError: `block` is not `TYPE/NAME`, or of a type that is no store.
        NotFoundError: there is no such block.
    """
    return open_store(store_config(settings, block), known=known, outage_seconds=settings.outage_seconds)


def store_config(settings: Settings, block: str) -> StoreConfig:
    """Return what a block says about its store; raises as `store_of` does."""
    kind, slash, name = block.partition("/")
    if not slash or not name or kind not in KINDS:
        # An address with keys in it is not repeated.
        what = "an address" if "@" in block else repr(block[:100])
        raise InputError(
            f"{what} does not name a storage block", hint=f"write TYPE/NAME, TYPE one of {', '.join(KINDS)}"
        )
    data = _texts(read_block(Api(settings), kind, name), block)
    if kind == "s3":
        return _ours(data)
    return _prefect_aws(data) if kind == "s3-bucket" else _folder(data, settings)


def _texts(data: dict[str, Any], block: str) -> dict[str, Any]:
    """Return a block's data if what is read of it is text, or an object of texts.

    Raises:
        InputError: it is not; its values, which may be secrets, are not repeated.
    """
    for name in data.keys() & _READ:
        value = data[name]
        if isinstance(value, dict) and name in _NESTED:
            _texts(value, block)
        elif value is not None and (not isinstance(value, str) or name in _NESTED):
            raise InputError(f"block {block} describes no store: its {name} is malformed", hint="save it again")
    return data


def read_block(api: Api, kind: str, name: str) -> dict[str, Any]:
    """Return a block document's data, secrets included.

    Raises:
        NotFoundError: there is no such block; the message names those there are.
    """
    path = f"/block_types/slug/{quote(kind)}/block_documents/name/{quote(name)}?include_secrets=true"
    found = api.find(path)
    if found is None:
        rows = api.pages("/block_documents/filter", {"block_types": {"slug": {"any_": list(KINDS)}}})
        names = sorted(f"{row['block_type']['slug']}/{row['name']}" for row in rows if row["block_type"])
        hint = (
            f"there are {', '.join(names[:10])}"
            if names
            else f"make it with `shipway block s3 {name} --bucket-path BUCKET`"
        )
        raise NotFoundError(f"there is no block {kind}/{name}", hint=hint)
    data: dict[str, Any] = found["data"]
    return data


def default_block(settings: Settings) -> str:
    """Return the block used where none is named: the settings', else the stack's own, else a folder in the project.

    Raises:
        ServerUnreachableError: no server is there to ask.
    """
    if settings.store:
        return settings.store
    api = Api(settings)
    for kind in ("s3", "local-file-system"):
        if api.find(f"/block_types/slug/{kind}/block_documents/name/{STACK_BLOCK}"):
            return f"{kind}/{STACK_BLOCK}"
    return LOCAL_BLOCK


def is_local_default(settings: Settings, block: str) -> bool:
    """Tell whether `block` is the folder in the project, which is made when it is first used."""
    try:
        return (
            block == LOCAL_BLOCK
            and Api(settings).find(f"/block_types/slug/local-file-system/block_documents/name/{block.split('/')[1]}")
            is None
        )
    except ServerUnreachableError:
        return False


def _ours(data: dict[str, Any]) -> StoreConfig:
    bucket, prefix = parse_bucket_path(str(data.get("bucket_path", "")))
    return StoreConfig(
        kind="s3",
        bucket=bucket,
        prefix=prefix,
        endpoint_url=data.get("endpoint_url"),
        region=data.get("region_name"),
        profile=data.get("profile_name"),
        access_key=data.get("aws_access_key_id"),
        secret_key=data.get("aws_secret_access_key"),
        session_token=data.get("aws_session_token"),
    )


def _prefect_aws(data: dict[str, Any]) -> StoreConfig:
    """Read prefect-aws's `S3Bucket`, whose credentials are an AwsCredentials or a MinIOCredentials block."""
    credentials = data.get("credentials") or {}
    client = credentials.get("aws_client_parameters") or {}
    folder = str(data.get("bucket_folder") or "").strip("/")
    bucket, prefix = parse_bucket_path(f"{data.get('bucket_name', '')}/{folder}".rstrip("/"))
    return StoreConfig(
        kind="s3",
        bucket=bucket,
        prefix=prefix,
        endpoint_url=client.get("endpoint_url"),
        region=credentials.get("region_name"),
        profile=credentials.get("profile_name"),
        access_key=credentials.get("aws_access_key_id") or credentials.get("minio_root_user"),
        secret_key=credentials.get("aws_secret_access_key") or credentials.get("minio_root_password"),
        session_token=credentials.get("aws_session_token"),
    )


def _folder(data: dict[str, Any], settings: Settings) -> StoreConfig:
    path = parse_folder(data.get("basepath") or str(settings.state / "store"))
    return StoreConfig(kind="folder", path=path if path.is_absolute() else settings.project / path)
