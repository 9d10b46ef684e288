"""What an S3 server's refusal means, in words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shipway.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    StoreError,
    StoreUnreachableError,
    UnsupportedStoreError,
)
from shipway.store.url import StoreConfig

CREDENTIALS_HINT = "give an access key and secret key, set AWS_PROFILE, or log in with 'aws sso login'"
CAPABLE = "AWS, Cloudflare R2, MinIO, Ceph or SeaweedFS in a recent version"
"""Stores that have all Shipway needs."""

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken"}
_REGION = {
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "IncorrectEndpoint",
    "PermanentRedirect",
    "TemporaryRedirect",
}
_FULL = {"InsufficientCapacity", "InsufficientStorage", "QuotaExceeded", "StorageFull", "XMinioStorageFull"}
_STATUS = re.compile(r"status(?: code)?: (\d{3})")
_CODE = re.compile(r"<Code>([^<]*)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_IN_REGION = re.compile(r"<Region>([^<]*)</Region>|expecting '([a-z0-9-]+)'")
# What the client says when there was no answer, what that means, and what to do.
_DAMAGED = frozenset({"BadDigest", "IncompleteBody", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"})

_SILENCES = (
    ("dns error", "its name cannot be resolved", "check the endpoint's spelling and your network"),
    ("InvalidContentType", "it does not speak TLS", "write http:// instead of https://"),
    ("InvalidCertificate", "its certificate is not trusted", "have this machine trust whoever issued it"),
    ("tcp connect error", "nothing accepts connections there", "is it running, and is the port right?"),
    ("TimedOut", "it took too long", "check its address and your network"),
    ("error sending request", "the connection was lost", "check its address and your network"),
    ("response body error", "its answer broke off", "check its address and your network"),
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the server answered.

    Attributes:
        status: HTTP status, 0 when unknown.
        code: S3's name for the error, empty when there was no body.
        message: S3's sentence about it.
        region: the region that the server says the bucket is in.
    """

    status: int = 0
    code: str = ""
    message: str = ""
    region: str = ""


def explain(refusal: Refusal, config: StoreConfig, thing: str) -> StoreError:
    """Turn a server's refusal of what was wanted of `thing` (the address of an object or bucket) into an error."""
    code, status = refusal.code, refusal.status
    at = f" at {config.endpoint_url}" if config.endpoint_url else ""
    error: StoreError
    if code == "NoSuchBucket":
        error = BucketNotFoundError(
            f"bucket {config.bucket!r} does not exist{at}", hint="create it, or check its name and endpoint"
        )
    elif code == "InvalidAccessKeyId":
        error = AccessDeniedError(f"the store{at or ' at AWS'} does not know the access key", hint=CREDENTIALS_HINT)
    elif code == "SignatureDoesNotMatch":
        error = AccessDeniedError(
            f"the secret key does not belong to the access key, says the store{at}", hint="check the secret key"
        )
    elif code in _EXPIRED:
        error = AccessDeniedError(
            f"the credentials for {thing}{at} have expired", hint="log in again or renew the token"
        )
    elif code == "RequestTimeTooSkewed":
        error = AccessDeniedError(
            f"this machine's clock differs too much from that of the store{at}", hint="set the clock of this machine"
        )
    elif code in _REGION or status in {301, 307}:
        named = f" {refusal.region}" if refusal.region else " another one"
        error = StoreError(
            f"bucket {config.bucket!r} is not in region {config.region or 'us-east-1'} but in{named}{at}",
            hint=f"use --region {refusal.region}" if refusal.region else "say its region with --region",
        )
    elif code in _FULL or status == 507:
        error = StoreError(f"the store{at} is full or over its quota: {thing} was not written", hint="make room in it")
    elif code == "NotImplemented" or status == 501:
        error = UnsupportedStoreError(
            f"the store{at} lacks something needed for {thing}: {refusal.message or code}",
            hint=f"use a store that has it: {CAPABLE}",
        )
    elif status in {401, 403}:
        error = AccessDeniedError(
            f"the credentials do not allow this on {thing}{at}",
            hint="grant s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket on the bucket and its objects",
        )
    elif code in _DAMAGED:
        error = StoreUnreachableError(
            f"what was sent to the store{at} arrived damaged, it says of {thing} ({code})", hint="check your network"
        )
    elif status == 429 or status >= 500:
        error = StoreUnreachableError(
            f"the store{at} keeps answering {status} {code} for {thing}".replace("  ", " "), hint="try again later"
        )
    else:
        what = " ".join(part for part in (str(status or ""), code, refusal.message[:200]) if part)
        error = StoreError(f"the store{at} refused {thing}: {what or 'it did not say why'}")
    return error


def unreachable(config: StoreConfig, why: str, *, hint: str = "check its address and your network") -> StoreError:
    """Return the error for a server that did not answer at all."""
    return StoreUnreachableError(f"the store at {config.endpoint_url or 'AWS'} does not answer: {why}", hint=hint)


def read_refusal(text: str) -> Refusal:
    """Find in an exception's text what the server answered; empty when it did not."""
    status, code, message, region = (each.search(text) for each in (_STATUS, _CODE, _MESSAGE, _IN_REGION))
    number = int(status.group(1)) if status else 0
    if "redirect without LOCATION" in text:  # how the client puts a 301 from AWS
        number = 301
    return Refusal(
        number,
        code.group(1) if code else "",
        message.group(1) if message else "",
        (region.group(1) or region.group(2)) if region else "",
    )


def read_silence(text: str, config: StoreConfig) -> StoreError | None:
    """Find in an exception's text why the server did not answer; None when that is not what went wrong."""
    for sign, why, hint in _SILENCES:
        if sign in text:
            return unreachable(config, why, hint=hint)
    return None
