# SPDX-License-Identifier: GPL-3.0-or-later
"""``virt-standalone init``: the certificates, tokens and kubeconfigs of a standalone installation.

Idempotent: what exists and is still valid is kept, so a second run changes nothing. A lost or unreadable file is
recreated; a kubeconfig whose token isn't in the token file gets a new one.
"""

import argparse
import base64
import csv
import hashlib
import io
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509

from turtles import pki
from turtles.command import Tool
from turtles.pki import Pair
from turtles.standalone.apiserver.builtin.service_addresses import DEFAULT_RANGE, first_address, service_range
from turtles.standalone.apiserver.storage import encryption

CA_LIFETIME = timedelta(days=3650)
CERTIFICATE_LIFETIME = timedelta(days=1095)
#: A certificate with less time left is reissued.
RENEWAL = timedelta(days=90)

_NODE_USER = "system:node:"


@dataclass(frozen=True)
class Identity:
    """A user of the API: the kubeconfig's file name, the user name and the groups."""

    file: str
    user: str
    groups: tuple[str, ...]


def _service_account(name: str, namespace: str) -> Identity:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    return Identity(f"{name}.kubeconfig", f"system:serviceaccount:{namespace}:{name}", groups)


def identities(nodes: Sequence[str], namespace: str) -> list[Identity]:
    """Return the users that get kubeconfigs.

    :param nodes: names of the nodes on this machine. The kubeconfig of every one but the first has its name.
    :param namespace: namespace of the service accounts among them.
    """
    return [
        Identity("admin.kubeconfig", "admin", ("system:masters",)),
        _service_account("virt-api", namespace),
        _service_account("virt-controller", namespace),
        _service_account("virt-handler", namespace),
        *(
            Identity(f"podrunner{f'-{name}' if index else ''}.kubeconfig", f"{_NODE_USER}{name}", ("system:nodes",))
            for index, name in enumerate(nodes)
        ),
        Identity("controller-manager.kubeconfig", "system:kube-controller-manager", ()),
        _service_account("kube-dns", "kube-system"),
    ]


@dataclass
class Changes:
    """Writes files unless checking; remembers what changed."""

    check: bool
    files: list[str] = field(default_factory=list)

    def write(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """Replace ``path`` atomically if its content or mode differs."""
        if path.is_file() and path.read_bytes() == data:
            if path.stat().st_mode & 0o777 == mode:
                return
            self.files.append(str(path))
            if not self.check:
                path.chmod(mode)
            return
        self.files.append(str(path))
        if self.check:
            return
        temporary = path.with_name(path.name + ".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)

    def directory(self, path: Path, mode: int) -> None:
        """Create a directory if it is missing."""
        if path.is_dir():
            return
        self.files.append(str(path))
        if not self.check:
            path.mkdir(parents=True, mode=mode)


def load_key(path: Path) -> pki.Key | None:
    """Return the key in ``path``, or None if there is none that can be read."""
    try:
        return pki.load_key(path.read_bytes())
    except (OSError, ValueError):
        return None


def load_pair(directory: Path, name: str) -> Pair | None:
    """Return the pair NAME.crt and NAME.key, or None if it is missing, broken, or about to expire."""
    key = load_key(directory / f"{name}.key")
    try:
        certificate = x509.load_pem_x509_certificate((directory / f"{name}.crt").read_bytes())
    except (OSError, ValueError):
        return None
    if key is None or certificate.public_key() != key.public_key():
        return None
    if certificate.not_valid_after_utc < datetime.now(UTC) + RENEWAL:
        return None
    return Pair(certificate, key)


class Initializer:
    """Creates one installation's files."""

    def __init__(
        self, config: Path, data: Path, server: str, names: list[str], nodes: Sequence[str], namespace: str, check: bool
    ) -> None:
        self.config, self.data, self.server, self.names = config, data, server, names
        self.nodes, self.namespace = nodes, namespace
        self.changes = Changes(check)

    def run(self) -> list[str]:
        """Create what is missing or outdated; return the paths that changed (or would)."""
        folder = self.config / "pki"
        self.changes.directory(self.config, 0o755)
        self.changes.directory(self.data, 0o700)
        self.changes.directory(folder, 0o700)
        ca = self._ca(folder, "ca", "turtles")
        self._certificate(folder, "apiserver", ca, self.names)
        front_proxy = self._ca(folder, "front-proxy-ca", "turtles-front-proxy")
        self._certificate(folder, "front-proxy-client", front_proxy, [], client=True)
        if load_key(folder / "sa.key") is None:
            self.changes.write(folder / "sa.key", pki.key_pem(pki.new_key()).encode())
        self._encryption()
        self._tokens(ca)
        return self.changes.files

    def _encryption(self) -> None:
        path = self.config / encryption.FILE
        if path.exists():
            # Never replaced, even if it can't be read: without its keys Secrets are lost.
            self.changes.write(path, path.read_bytes())
        else:
            self.changes.write(path, encryption.configuration([encryption.new_key()]))

    def _ca(self, folder: Path, name: str, common_name: str) -> Pair:
        pair = load_pair(folder, name)
        if pair is None:
            pair = pki.authority(common_name, datetime.now(UTC), CA_LIFETIME)
            self._write_pair(folder, name, pair)
        return pair

    def _certificate(self, folder: Path, name: str, ca: Pair, names: list[str], client: bool = False) -> None:
        pair = load_pair(folder, name)
        if (
            pair is None
            or not pki.is_issued_by(pair.certificate, ca.certificate)
            or not pki.covers(pair.certificate, names)
        ):
            common_name = "front-proxy-client" if client else "kube-apiserver"
            pair = pki.issue(ca, common_name, names, datetime.now(UTC), CERTIFICATE_LIFETIME, client)
            self._write_pair(folder, name, pair)

    def _write_pair(self, folder: Path, name: str, pair: Pair) -> None:
        self.changes.write(folder / f"{name}.key", pair.key_pem.encode())
        self.changes.write(folder / f"{name}.crt", pair.certificate_pem.encode(), 0o644)

    def _tokens(self, ca: Pair) -> None:
        path = self.config / "tokens.csv"
        ours = identities(self.nodes, self.namespace)
        users = {identity.user for identity in ours}
        rows = read_tokens(path)
        # Rows of users that aren't ours are an administrator's own and stay. Nodes are all ours.
        kept = [row for row in rows if row[1] not in users and not row[1].startswith(_NODE_USER)]
        hashes_of = {row[0]: row for row in rows}
        for identity in ours:
            token = _token_of(self.config / identity.file)
            row = hashes_of.get(hash_token(token)) if token else None
            wanted_groups = " ".join(identity.groups)
            if token is None or row is None or row[1] != identity.user:
                token = secrets.token_urlsafe(32)
            kept.append([hash_token(token), identity.user, wanted_groups])
            self.changes.write(self.config / identity.file, self._kubeconfig(ca, identity, token))
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows(kept)
        self.changes.write(path, stream.getvalue().encode())

    def _kubeconfig(self, ca: Pair, identity: Identity, token: str) -> bytes:
        authority = base64.b64encode(ca.certificate_pem.encode()).decode()
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "turtles", "cluster": {"server": self.server, "certificate-authority-data": authority}}
            ],
            "users": [{"name": identity.user, "user": {"token": token}}],
            "contexts": [{"name": "turtles", "context": {"cluster": "turtles", "user": identity.user}}],
            "current-context": "turtles",
        }
        return yaml.safe_dump(document, sort_keys=False).encode()


def hash_token(token: str) -> str:
    """Return a token's hash, as in the token file. Tokens have 256 random bits, so a plain hash is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_tokens(path: Path) -> list[list[str]]:
    """Return the token file's rows: hash, user, groups separated by spaces. A missing file has none."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    return [row for row in csv.reader(text.splitlines()) if len(row) == 3 and not row[0].startswith("#")]


def _token_of(path: Path) -> str | None:
    try:
        token = yaml.safe_load(path.read_text())["users"][0]["user"]["token"]
    except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError):
        return None
    return token if isinstance(token, str) else None


def server_names(bind: str, extra: list[str]) -> list[str]:
    """Return the names and addresses under which clients may reach the server."""
    service = [f"kubernetes{suffix}" for suffix in ("", ".default", ".default.svc", ".default.svc.cluster.local")]
    names = ["localhost", "127.0.0.1", "::1", *service, socket.gethostname(), *extra]
    if bind not in ("0.0.0.0", "::"):  # noqa: S104 - a comparison, not a bind
        names.append(bind)
    return list(dict.fromkeys(name for name in names if name))


def main(argv: list[str]) -> int:
    """Run ``virt-standalone init`` and print ``{"changed": bool, "files": [...], "fingerprint": "..."}``.

    The fingerprint covers certificates and encryption keys: a server that was started with other ones needs a restart.
    """
    tool = Tool(
        "virt-standalone init",
        "Creates the certificates, tokens and kubeconfigs of a standalone installation. What exists and is still valid "
        "is kept, so a second run changes nothing.",
    )
    add = tool.parser.add_argument
    add("--config-dir", type=Path, default=Path("/etc/turtles"), help="where to put them (default: %(default)s)")
    add(
        "--data-dir",
        type=Path,
        default=Path("/var/lib/turtles/apiserver"),
        help="the API server's folder (default: %(default)s)",
    )
    add("--bind", default="127.0.0.1", help="address the API server listens on (default: %(default)s)")
    add("--port", type=int, default=6443, help="port the API server listens on (default: %(default)s)")
    add(
        "--node-name",
        dest="nodes",
        action="append",
        default=[],
        help="name of a Node object of this machine; may be repeated (default: the host's name)",
    )
    add("--namespace", default="kubevirt", help="namespace of the engine's service accounts (default: %(default)s)")
    add("--san", action="append", default=[], help="additional name or address of the API server")
    add("--service-cidr", type=service_range, default=DEFAULT_RANGE, help="address range of Services")
    add("--check", action="store_true", help="change nothing, print what would change")
    return tool.report(_initialize, argv)


def _initialize(options: argparse.Namespace) -> dict[str, object]:
    host = "127.0.0.1" if options.bind in ("0.0.0.0", "::") else options.bind  # noqa: S104 - a comparison
    initializer = Initializer(
        options.config_dir,
        options.data_dir,
        f"https://{f'[{host}]' if ':' in host else host}:{options.port}",
        server_names(options.bind, [first_address(options.service_cidr), *options.san]),
        [name.lower() for name in options.nodes or (socket.gethostname(),)],
        options.namespace,
        options.check,
    )
    files = initializer.run()
    used = [*sorted((options.config_dir / "pki").glob("*.crt")), options.config_dir / encryption.FILE]
    fingerprint = hashlib.sha256(b"".join(path.read_bytes() for path in used if path.exists())).hexdigest()
    return {"changed": bool(files), "files": files, "fingerprint": fingerprint}
