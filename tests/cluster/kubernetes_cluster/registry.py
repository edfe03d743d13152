# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A registry of images that every node pulls from, with and without credentials."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml

from .errors import ClusterError, wait_for
from .machine import Machine
from .pki import Authority

PORT = 5000
PRIVATE_PORT = 5001
USER, PASSWORD = "puller", "only-for-tests"
# bcrypt of PASSWORD, the only form the registry takes
HTPASSWD = f"{USER}:$2b$05$GEzFYHzwNhaDpXZ2i2meAOdumfE3nErniMYs9r3H13Zb/ZNWGjPFa\n"


@dataclass(frozen=True)
class Registry:
    """A registry over TLS.

    :param address: host and port; anyone reads and writes.
    :param private: the same images, for those who have the credentials.
    :param certificates: a folder with its authority as ca.crt, as skopeo's --dest-cert-dir takes it.
    """

    address: str
    private: str
    certificates: Path

    @classmethod
    def at(cls, address: str, certificates: Path) -> Registry:
        """The one on the machine with that address."""
        return cls(f"{address}:{PORT}", f"{address}:{PRIVATE_PORT}", certificates)

    @property
    def pull_secret(self) -> str:
        """Content of a kubernetes.io/dockerconfigjson Secret for `private`."""
        auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return json.dumps({"auths": {self.private: {"auth": auth}}})

    def push(self, source: str, name: str) -> str:
        """Copy an image into the registry.

        :param source: as skopeo names images, such as oci-archive:/path.tar or docker-archive:/path.tar.
        :param name: repository and tag.
        :return: its reference.
        :raises ClusterError: with what skopeo said.
        """
        reference = f"{self.address}/{name}"
        # --insecure-policy: which signatures are wanted is no matter of this registry
        command = ["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-cert-dir", str(self.certificates)]
        done = subprocess.run(
            [*command, source, f"docker://{reference}"], capture_output=True, text=True, check=False, timeout=600
        )
        if done.returncode:
            raise ClusterError(f"pushing {source} to {reference}: {done.stderr}")
        return reference


def start_registry(machine: Machine, address: str, authority: Authority, etc: Path, certificates: Path) -> Registry:
    """Start it on a machine.

    :param address: the machine's.
    :param etc: a folder on the host that is /etc/registry there.
    :param certificates: the folder for clients to make.
    """
    certificates.mkdir()
    shutil.copy(authority.certificate, certificates / "ca.crt")
    logs = []
    for name, port, access in (
        ("registry", PORT, {}),
        ("registry-private", PRIVATE_PORT, {"htpasswd": {"realm": "tests", "path": "/etc/registry/htpasswd"}}),
    ):
        configuration = {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": "/var/lib/registry"}, "delete": {"enabled": True}},
            "http": {
                "addr": f"{address}:{port}",
                "secret": "shared by both",
                "tls": {"certificate": "/etc/registry/registry.crt", "key": "/etc/registry/registry.key"},
            },
            **({"auth": access} if access else {}),
        }
        (etc / f"{name}.yml").write_text(yaml.safe_dump(configuration))
        logs.append(machine.log(name))
    (etc / "htpasswd").write_text(HTPASSWD)
    processes = [
        machine.start(name, "docker-registry", "serve", f"/etc/registry/{name}.yml")
        for name in ("registry", "registry-private")
    ]
    trust = ssl.create_default_context(cafile=str(authority.certificate))
    for port in (PORT, PRIVATE_PORT):

        def answers(port: int = port) -> bool:
            with socket.create_connection((address, port), timeout=5) as connection:
                return bool(trust.wrap_socket(connection, server_hostname=address).version())

        wait_for(f"registry at {address}:{port}", answers, timeout=60, logs=logs, processes=processes)
    return Registry.at(address, certificates)
