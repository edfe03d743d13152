# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What distinguishes one cluster from another on the same machine, and what follows from it."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from .errors import ClusterError

#: Under every hierarchy of control groups, for all instances.
CGROUP = "turtles-kubernetes"


def cache_dir() -> Path:
    """Where downloads and binaries are kept; $TURTLES_KUBERNETES_CACHE, or below $XDG_CACHE_HOME."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TURTLES_KUBERNETES_CACHE") or base / "turtles-kubevirt" / "kubernetes")


@dataclass(frozen=True)
class Settings:
    """One cluster.

    :param instance: its name, that of its network interface on this machine too: so 15 characters at most.
    :param nodes: how many nodes; 0 is a control plane for comparing API servers.
    :param network: a /16 that nothing else uses. From it come the machines' addresses (the first /24), the nodes'
        Pods (a /24 each in the second quarter) and the Services (the upper half).
    :param controllers: whether controller manager and scheduler run, too. Nodes need them.
    :param programs: a folder with programs of Kubernetes, or what it needs to run, to use instead of those built: of
        any version from 1.20 on. What isn't there is built.
    :param state_dir: where the instances keep what they write.
    """

    instance: str = "turtles-test"
    nodes: int = 2
    network: str = "10.200.0.0/16"
    controllers: bool = True
    programs: Path | None = None
    state_dir: Path = Path("/var/lib/turtles-kubernetes")

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?", self.instance):
            raise ClusterError(f"instance {self.instance!r}: not 1 to 15 lower case letters, digits and inner hyphens")
        if not 0 <= self.nodes <= 9:
            raise ClusterError(f"{self.nodes} nodes: not 0 to 9")
        try:
            length = ipaddress.IPv4Network(self.network).prefixlen
        except ValueError as error:
            raise ClusterError(f"network: {error}") from None
        if length != 16:
            raise ClusterError(f"network {self.network}: a /16 is needed")
        if self.programs is not None and not (self.programs.is_absolute() and self.programs.is_dir()):
            raise ClusterError(f"programs {self.programs}: not an absolute path of a folder")

    def save(self) -> None:
        """Make the instance's directory with the settings in it."""
        self.directory.mkdir(parents=True, mode=0o700)
        text = json.dumps(asdict(self), default=str)
        (self.directory / "settings.json").write_text(text)

    @classmethod
    def load(cls, instance: str) -> Settings:
        """The settings of an instance that was brought up; the defaults with that name where there is none."""
        settings = cls(instance=instance)
        try:
            saved = json.loads((settings.directory / "settings.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):  # never there, or killed while writing
            return settings
        programs = saved["programs"] and Path(saved["programs"])
        return cls(**{**saved, "programs": programs, "state_dir": Path(saved["state_dir"])})

    @property
    def directory(self) -> Path:
        """All files of the instance."""
        return self.state_dir / self.instance

    @property
    def cgroup(self) -> str:
        """Its control group, the same in every hierarchy."""
        return f"{CGROUP}/{self.instance}"

    def program(self, name: str) -> Path:
        """Where a program of Kubernetes is, on this machine."""
        if self.programs is not None and (self.programs / name).exists():
            return self.programs / name
        return cache_dir() / "bin" / name

    def _subnet(self, index: int) -> ipaddress.IPv4Network:
        return list(ipaddress.IPv4Network(self.network).subnets(new_prefix=24))[index]

    @property
    def control_address(self) -> str:
        """The API server and the registry."""
        return str(self._subnet(0)[1])

    @property
    def host_address(self) -> str:
        """This machine, as the cluster sees it: where tests listen for webhooks."""
        return str(self._subnet(0)[254])

    def node_address(self, number: int) -> str:
        """Address of the node with that number, counted from 1."""
        return str(self._subnet(0)[10 + number])

    def pod_network(self, number: int) -> str:
        """The Pods of the node with that number."""
        return str(self._subnet(64 + number))

    @property
    def pods(self) -> str:
        """All Pods and nobody else: kube-proxy translates what comes to Services from elsewhere."""
        return str(list(ipaddress.IPv4Network(self.network).subnets(new_prefix=18))[1])

    @property
    def services(self) -> ipaddress.IPv4Network:
        """All ClusterIPs."""
        return list(ipaddress.IPv4Network(self.network).subnets(new_prefix=17))[1]
