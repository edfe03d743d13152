# SPDX-License-Identifier: GPL-3.0-or-later
"""The Pod runner's configuration file (YAML)."""

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from turtles.errors import ConfigurationError
from turtles.standalone.dns import addresses


class ConfigError(ConfigurationError, ValueError):
    """The configuration file is not usable; the message names the key and what to do."""


#: User and group of QEMU, by default those of what runs from preloaded images.
QEMU = 107


@dataclass(frozen=True)
class Preload:
    """An image whose containers are forked from this Python installation instead of being executed.

    :param image: image reference as in ``container.image``.
    :param entry_point: ``module:function``, called as ``function(argv) -> exit code``.
    :param prepare: ``module:function`` or None, called once as ``function(cache_dir)`` before the first Pod starts.
    :param user: numeric uid and gid that ``prepare`` runs as.
    """

    image: str
    entry_point: str
    prepare: str | None = None
    user: int = QEMU

    @property
    def key(self) -> str:
        """A short name that is safe in paths."""
        return hashlib.sha256(self.image.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class ServiceConfig:
    """How Services are reached on this node.

    :param cidr: the API server's range of cluster IPs.
    :param cidr_ipv6: that of the second family, empty if there is none.
    :param node_port_addresses: networks; node ports are served on the addresses of this machine that are in one.
    :param external_addresses: networks; external addresses of Services that are in one are served.
    :param other_nodes: bridge and Pod networks of each of the other nodes on this machine. With one, this node
        translates the source addresses of what Pods of all of them send out, in place of their CNI plugins: between
        nodes they stay.
    """

    cidr: str
    node_port_addresses: tuple[str, ...] = ()
    external_addresses: tuple[str, ...] = ()
    other_nodes: tuple[tuple[str, ...], ...] = ()
    cidr_ipv6: str = ""


@dataclass(frozen=True)
class DNSConfig:
    """The cluster's DNS (:mod:`turtles.standalone.dns`): its server's cluster IP, and its domain."""

    server: str
    domain: str


@dataclass(frozen=True)
class Config:
    """The podrunner's configuration. All paths are absolute.

    :param visible_paths: what containers see of the host besides :data:`host_programs.HOST_PATHS` and the engine's
        Python.
    :param masked_paths: directories below those that they don't see.
    :param dns: what Pods know of the cluster's DNS; None: there is none.
    :param pod_pids_limit: processes and threads that a Pod may have, -1 for no limit.
    :param max_image_bytes: of one image to download, and of what comes out of its layers.
    :param max_image_apparent_bytes: of its files' sizes, with holes.
    :param image_pull_timeout: seconds a pull may take.
    """

    node_name: str
    kubeconfig: Path
    root_dir: Path
    run_dir: Path
    images_dir: Path
    cni_conf_dir: Path
    cni_bin_dir: tuple[Path, ...]
    allowed_image_dirs: tuple[Path, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    preload: tuple[Preload, ...] = ()
    devices: Mapping[str, Path] = field(default_factory=dict)
    node_ip: str | None = None
    masked_paths: tuple[Path, ...] = ()
    visible_paths: tuple[Path, ...] = ()
    max_pods: int = 110
    pod_pids_limit: int = 4096
    device_count: int = 110
    cgroup_parent: str = "turtles"
    cache_mount: str = "/var/cache/turtles-launcher"
    max_image_bytes: int = 64 << 30
    max_image_apparent_bytes: int = 1 << 40
    image_pull_timeout: int = 1800
    max_parallel_image_pulls: int = 8
    max_image_pulls_per_namespace: int = 2
    workers: int = 12
    services: ServiceConfig | None = None
    dns: DNSConfig | None = None

    @property
    def pods_dir(self) -> Path:
        """Where Pods' directories are, in the kubelet's layout."""
        return self.root_dir / "pods"

    @property
    def zygote_socket(self) -> Path:
        """Unix socket of the process that forks containers."""
        return self.run_dir / "zygote.sock"

    @property
    def policy_table(self) -> str:
        """Name of the nftables table with the rules of NetworkPolicies."""
        return f"{self.cgroup_parent}-policies"

    @property
    def stream_socket(self) -> Path:
        """Unix socket at which the API server asks for logs and sessions."""
        return self.run_dir / "node.sock"

    def preload_of(self, image: str) -> Preload | None:
        """Return the preload entry an image reference means, or None when the image can't be run here."""
        for entry in self.preload:
            if normalize_reference(entry.image) == normalize_reference(image):
                return entry
        return None


def normalize_reference(image: str) -> str:
    """Return an image reference with its default tag, without the default registry."""
    image = image.removeprefix("docker.io/").removeprefix("library/")
    return image if "@" in image or ":" in image.rsplit("/", 1)[-1] else f"{image}:latest"


def _paths(value: Any) -> tuple[Path, ...]:
    return tuple(Path(item) for item in ([value] if isinstance(value, str) else value or []))


def _limits(data: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {attribute: _number(key, data[key]) for key, attribute in names.items() if data.get(key) is not None}


def _number(key: str, value: Any) -> int:
    """Return a limit, which may be text after templating."""
    text = str(value)
    if isinstance(value, bool) or not re.fullmatch("[1-9][0-9]{0,17}", text):
        raise ConfigError(f"the podrunner's configuration needs a whole number of at least 1 as {key}, not {value!r}")
    return int(text)


def _services(value: Any) -> ServiceConfig | None:
    if not value:
        return None
    lists = ("nodePortAddresses", "externalAddresses")
    known = {"cidr", "cidrIPv6", *lists, "otherNodes"}
    if not isinstance(value, dict) or not value.get("cidr") or set(value) - known:
        raise ConfigError(f"services needs cidr, and may have cidrIPv6, {', '.join(lists)} and otherNodes")
    node_ports, external = (tuple(str(text) for text in value.get(key) or ()) for key in lists)
    others = value.get("otherNodes") or ()
    needed = {"bridge", "podCIDR"}
    if not all(isinstance(node, dict) and needed <= set(node) <= {*needed, "podCIDRIPv6"} for node in others):
        raise ConfigError("each of services.otherNodes needs bridge and podCIDR, and may have podCIDRIPv6")
    keys = ("bridge", "podCIDR", "podCIDRIPv6")
    nodes = tuple(tuple(str(node[key]) for key in keys if node.get(key)) for node in others)
    cidr, cidr_ipv6 = str(value["cidr"]), str(value.get("cidrIPv6") or "")
    _check_networks((cidr, *(str(node["podCIDR"]) for node in others)), 4)
    _check_networks(filter(None, (cidr_ipv6, *(str(node.get("podCIDRIPv6") or "") for node in others))), 6)
    _check_networks((*node_ports, *external))
    return ServiceConfig(cidr, node_ports, external, nodes, cidr_ipv6)


def _check_networks(texts: Iterable[str], version: int | None = None) -> None:
    what = f"an IPv{version} network" if version else "a network"
    for text in texts:
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise ConfigError(f"services: {text} is not {what}: {error}") from error
        if version not in (None, network.version):
            raise ConfigError(f"services: {text} is not {what}")


def _dns(value: Any) -> DNSConfig | None:
    if not value:
        return None
    if not isinstance(value, dict) or not all(value.get(key) for key in ("domain", "serviceCIDR")):
        raise ConfigError("dns needs domain and serviceCIDR")
    try:
        return DNSConfig(addresses.cluster_ip(str(value["serviceCIDR"])), str(value["domain"]))
    except ValueError as error:
        raise ConfigError(f"dns: {value['serviceCIDR']} is not an IPv4 network: {error}") from error


def parse(data: Any) -> Config:
    """Return the configuration a parsed YAML document describes.

    :raises ConfigError: a required key is missing, a key is unknown, or a path is relative.
    """
    if not isinstance(data, dict):
        raise ConfigError("the podrunner's configuration must be a YAML mapping")
    required = ("nodeName", "kubeconfig", "rootDir", "runDir", "imagesDir", "cniConfDir", "cniBinDir")
    optional = {
        "nodeIP": "node_ip",
        "maxPods": "max_pods",
        "deviceCount": "device_count",
        "cgroupParent": "cgroup_parent",
        "cacheMount": "cache_mount",
        "workers": "workers",
    }
    limits = {
        "maxImageBytes": "max_image_bytes",
        "maxImageApparentBytes": "max_image_apparent_bytes",
        "imagePullTimeoutSeconds": "image_pull_timeout",
        "maxParallelImagePulls": "max_parallel_image_pulls",
        "maxImagePullsPerNamespace": "max_image_pulls_per_namespace",
    }
    others = {
        "allowedImageDirs",
        "insecureRegistries",
        "preload",
        "devices",
        "maskedPaths",
        "visiblePaths",
        "services",
        "dns",
        "podPidsLimit",
    }
    missing = [key for key in required if not data.get(key)]
    if missing:
        raise ConfigError(f"the podrunner's configuration lacks: {', '.join(missing)}")
    unknown = set(data) - set(required) - set(optional) - set(limits) - others
    if unknown:
        raise ConfigError(f"the podrunner's configuration has unknown keys: {', '.join(sorted(unknown))}")
    preload = []
    for index, entry in enumerate(data.get("preload") or []):
        if not isinstance(entry, dict) or not entry.get("image") or ":" not in str(entry.get("entryPoint", "")):
            raise ConfigError(f"preload[{index}] needs image and entryPoint (module:function)")
        preload.append(Preload(entry["image"], entry["entryPoint"], entry.get("prepare"), int(entry.get("user", QEMU))))
    config = Config(
        node_name=data["nodeName"],
        kubeconfig=Path(data["kubeconfig"]),
        root_dir=Path(data["rootDir"]),
        run_dir=Path(data["runDir"]),
        images_dir=Path(data["imagesDir"]),
        cni_conf_dir=Path(data["cniConfDir"]),
        cni_bin_dir=_paths(data["cniBinDir"]),
        allowed_image_dirs=_paths(data.get("allowedImageDirs")),
        insecure_registries=tuple(data.get("insecureRegistries") or ()),
        preload=tuple(preload),
        devices={name: Path(path) for name, path in (data.get("devices") or {}).items()},
        masked_paths=_paths(data.get("maskedPaths")),
        visible_paths=_paths(data.get("visiblePaths")),
        services=_services(data.get("services")),
        dns=_dns(data.get("dns")),
        pod_pids_limit=_pids_limit(data.get("podPidsLimit", Config.pod_pids_limit)),
        **{attribute: data[key] for key, attribute in optional.items() if data.get(key) is not None},
        **_limits(data, limits),
    )
    for path in (
        config.kubeconfig,
        config.root_dir,
        config.run_dir,
        config.images_dir,
        config.cni_conf_dir,
        *config.masked_paths,
        *config.visible_paths,
    ):
        if not path.is_absolute():
            raise ConfigError(f"the podrunner's configuration needs absolute paths, not {path}")
    return config


def _pids_limit(value: Any) -> int:
    """Return podPidsLimit, which has the same meaning as for a kubelet."""
    try:
        limit = int(value)
    except (TypeError, ValueError):
        limit = 0
    if isinstance(value, bool) or limit < -1 or limit == 0:
        raise ConfigError(f"podPidsLimit must be a positive number, or -1 for no limit, not {value!r}")
    return limit


def load(path: str | Path) -> Config:
    """Read the configuration file.

    :raises ConfigError: the file is missing, not YAML, or not usable.
    """
    try:
        return parse(yaml.safe_load(Path(path).read_text()))
    except OSError as error:
        raise ConfigError(f"can't read the podrunner's configuration {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"the podrunner's configuration {path} is not YAML: {error}") from error
