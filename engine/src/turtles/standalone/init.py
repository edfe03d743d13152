# SPDX-License-Identifier: GPL-3.0-or-later
"""``virt-standalone init``: the certificates, tokens and kubeconfigs of a standalone installation.

Idempotent: whatever is there and still fits is kept, so a second run changes nothing. A lost or unreadable file is
made anew; a kubeconfig whose token the token file doesn't know gets a new token.
"""

import argparse
import base64
import csv
import hashlib
import io
import ipaddress
import json
import os
import secrets
import socket
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from turtles.standalone.apiserver.builtin.service_addresses import DEFAULT_RANGE, first_address, service_range
from turtles.standalone.apiserver.storage import encryption

CA_DAYS = 3650
CERTIFICATE_DAYS = 1095
#: A certificate with fewer days left is issued anew.
RENEW_DAYS = 90


@dataclass(frozen=True)
class Identity:
    """A user of the API: the kubeconfig's file name, the user name and the groups."""

    file: str
    user: str
    groups: tuple[str, ...]


def _service_account(name: str, namespace: str) -> Identity:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    return Identity(f"{name}.kubeconfig", f"system:serviceaccount:{namespace}:{name}", groups)


def identities(node_name: str, namespace: str) -> list[Identity]:
    """Return everybody who gets a kubeconfig; service accounts are those of ``namespace``."""
    return [
        Identity("admin.kubeconfig", "admin", ("system:masters",)),
        _service_account("virt-api", namespace),
        _service_account("virt-controller", namespace),
        _service_account("virt-handler", namespace),
        Identity("podrunner.kubeconfig", f"system:node:{node_name}", ("system:nodes",)),
        Identity("controller-manager.kubeconfig", "system:kube-controller-manager", ()),
    ]


@dataclass
class Changes:
    """Writes files unless checking; remembers what changed."""

    check: bool
    files: list[str] = field(default_factory=list)

    def write(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """Replace ``path`` atomically when its content or mode differ."""
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
        """Make a directory when it is missing."""
        if path.is_dir():
            return
        self.files.append(str(path))
        if not self.check:
            path.mkdir(parents=True, mode=mode)


@dataclass
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def pem(self) -> bytes:
        """Return the certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as unencrypted PKCS#8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    """Return the key in ``path``, or None when there is none that can be read."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def load_pair(directory: Path, name: str) -> Pair | None:
    """Return the pair NAME.crt and NAME.key, or None when it is missing, broken, or about to expire."""
    key = load_key(directory / f"{name}.key")
    try:
        certificate = x509.load_pem_x509_certificate((directory / f"{name}.crt").read_bytes())
    except (OSError, ValueError):
        return None
    if key is None or certificate.public_key() != key.public_key():
        return None
    if certificate.not_valid_after_utc < datetime.now(UTC) + timedelta(days=RENEW_DAYS):
        return None
    return Pair(certificate, key)


def _name(common_name: str, organizations: tuple[str, ...] = ()) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, value) for value in organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def make_ca(common_name: str) -> Pair:
    """Make a self-signed certificate authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name)
    builder = _builder(name, name, key, CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(True), critical=True)
    return Pair(builder.sign(key, hashes.SHA256()), key)


def make_certificate(
    ca: Pair, common_name: str, names: list[str], organizations: tuple[str, ...] = (), client: bool = False
) -> Pair:
    """Issue a certificate.

    :param names: DNS names and addresses for the subject alternative names.
    :param client: for a client; else for a server.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(common_name, organizations), ca.certificate.subject, key, CERTIFICATE_DAYS)
    usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    builder = builder.add_extension(issuer, critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
    return Pair(builder.sign(ca.key, hashes.SHA256()), key)


def _general_names(names: list[str]) -> list[x509.GeneralName]:
    result: list[x509.GeneralName] = []
    for name in names:
        try:
            result.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            result.append(x509.DNSName(name))
    return result


def _covers(pair: Pair, ca: Pair, names: list[str]) -> bool:
    """Whether a certificate is the CA's and names all of ``names``."""
    try:
        pair.certificate.verify_directly_issued_by(ca.certificate)
        extension = pair.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return not names
    except Exception:
        return False
    return set(_general_names(names)) <= set(extension.value)


class Initializer:
    """Makes one installation's files."""

    def __init__(
        self, config: Path, data: Path, server: str, names: list[str], node_name: str, namespace: str, check: bool
    ) -> None:
        self.config, self.data, self.server, self.names = config, data, server, names
        self.node_name, self.namespace = node_name, namespace
        self.changes = Changes(check)

    def run(self) -> list[str]:
        """Make or keep everything; return the paths that changed (or would)."""
        pki = self.config / "pki"
        self.changes.directory(self.config, 0o755)
        self.changes.directory(self.data, 0o700)
        self.changes.directory(pki, 0o700)
        ca = self._ca(pki, "ca", "turtles")
        self._certificate(pki, "apiserver", ca, self.names)
        front_proxy = self._ca(pki, "front-proxy-ca", "turtles-front-proxy")
        self._certificate(pki, "front-proxy-client", front_proxy, [], client=True)
        if load_key(pki / "sa.key") is None:
            self.changes.write(pki / "sa.key", key_pem(ec.generate_private_key(ec.SECP256R1())))
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

    def _ca(self, pki: Path, name: str, common_name: str) -> Pair:
        pair = load_pair(pki, name)
        if pair is None:
            pair = make_ca(common_name)
            self._write_pair(pki, name, pair)
        return pair

    def _certificate(self, pki: Path, name: str, ca: Pair, names: list[str], client: bool = False) -> None:
        pair = load_pair(pki, name)
        if pair is None or not _covers(pair, ca, names):
            common_name = "front-proxy-client" if client else "kube-apiserver"
            self._write_pair(pki, name, make_certificate(ca, common_name, names, client=client))

    def _write_pair(self, pki: Path, name: str, pair: Pair) -> None:
        self.changes.write(pki / f"{name}.key", key_pem(pair.key))
        self.changes.write(pki / f"{name}.crt", pair.pem(), 0o644)

    def _tokens(self, ca: Pair) -> None:
        path = self.config / "tokens.csv"
        ours = identities(self.node_name, self.namespace)
        users = {identity.user for identity in ours}
        rows = read_tokens(path)
        # Rows of users that aren't ours are an administrator's own and stay.
        kept = [row for row in rows if row[1] not in users]
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
        authority = base64.b64encode(ca.pem()).decode()
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
    """Return what the token file holds of a token. Tokens have 256 random bits, so a plain hash is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_tokens(path: Path) -> list[list[str]]:
    """Return the token file's rows: hash, user, groups separated by blanks. A missing file has none."""
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

    The fingerprint is that of certificates and keys: a server that was started with another has to be restarted.
    """
    parser = argparse.ArgumentParser(prog="virt-standalone init", description=__doc__)
    parser.add_argument("--config-dir", type=Path, default=Path("/etc/turtles"))
    parser.add_argument("--data-dir", type=Path, default=Path("/var/lib/turtles/apiserver"))
    parser.add_argument("--bind", default="127.0.0.1", help="address the API server listens on")
    parser.add_argument("--port", type=int, default=6443)
    parser.add_argument("--node-name", default=socket.gethostname())
    parser.add_argument("--namespace", default="kubevirt", help="that of the service accounts with kubeconfigs")
    parser.add_argument("--san", action="append", default=[], help="further name or address of the API server")
    parser.add_argument("--service-cidr", type=service_range, default=DEFAULT_RANGE, help="addresses of Services")
    parser.add_argument("--check", action="store_true", help="change nothing, print what would change")
    options = parser.parse_args(argv)
    host = "127.0.0.1" if options.bind in ("0.0.0.0", "::") else options.bind  # noqa: S104 - a comparison
    server = f"https://{f'[{host}]' if ':' in host else host}:{options.port}"
    names = server_names(options.bind, [first_address(options.service_cidr), *options.san])
    initializer = Initializer(
        options.config_dir,
        options.data_dir,
        server,
        names,
        options.node_name.lower(),
        options.namespace,
        options.check,
    )
    try:
        files = initializer.run()
    except OSError as error:
        print(f"virt-standalone init: {error}", file=sys.stderr)
        return 1
    used = [*sorted((options.config_dir / "pki").glob("*.crt")), options.config_dir / encryption.FILE]
    fingerprint = hashlib.sha256(b"".join(path.read_bytes() for path in used if path.exists())).hexdigest()
    print(json.dumps({"changed": bool(files), "files": files, "fingerprint": fingerprint}))
    return 0
