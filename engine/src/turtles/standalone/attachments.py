# SPDX-License-Identifier: GPL-3.0-or-later
"""Further networks of Pods: NetworkAttachmentDefinitions, and the annotations that choose them. Pure.

Source: Network Plumbing Working Group, "Kubernetes Network Custom Resource Definition De-facto Standard" 1.3, which
Multus implements; the CNI specification 1.0 for what is in a definition.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from turtles.api.objects import Object
from turtles.api.texts import from_json

GROUP, PLURAL = "k8s.cni.cncf.io", "network-attachment-definitions"
#: Annotations of a Pod: the networks that it wants, the one instead of the node's own, and what it got.
NETWORKS = "k8s.v1.cni.cncf.io/networks"
DEFAULT_NETWORK = "v1.multus-cni.io/default-network"
STATUS = "k8s.v1.cni.cncf.io/network-status"

#: Version of a configuration that names none (CNI specification 0.1.0).
_OLDEST = "0.1.0"
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")
_NETWORK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_OBJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
#: As the kernel's dev_valid_name says, without what no tool can handle.
_INTERFACE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
#: Keys of an entry that ask for what this runtime doesn't do.
_UNSUPPORTED = ("default-route", "infiniband-guid")
#: Keys of an entry that become runtime configuration, by the plugins' capability.
_CAPABILITIES = {"mac": "mac", "ips": "ips", "bandwidth": "bandwidth", "portMappings": "portMappings"}


class AttachmentError(Exception):
    """A Pod's networks can't be attached as declared. The message names the annotation or the definition."""


@dataclass(frozen=True)
class Selection:
    """A definition that a Pod wants to be attached to.

    :param interface: name in the Pod.
    :param capabilities: runtime configuration, by capability.
    :param args: for plugins, as the CNI conventions' ``args.cni``.
    """

    namespace: str
    name: str
    interface: str
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def definition(self) -> str:
        """Namespace and name of the definition, as in a network status."""
        return f"{self.namespace}/{self.name}"


def selections(annotations: Mapping[str, str], namespace: str) -> list[Selection]:
    """Return what a Pod's annotation asks for, in its order.

    :param namespace: the Pod's.
    :raises AttachmentError: the annotation can't be understood.
    """
    text = (annotations.get(NETWORKS) or "").strip()
    if not text:
        return []
    entries = _json_entries(text) if text[0] in "[{" else [_short(each) for each in text.split(",") if each.strip()]
    selected = [_selection(entry, namespace, f"net{number}") for number, entry in enumerate(entries, 1)]
    names = [each.interface for each in selected]
    for name in names:
        if names.count(name) > 1 or name in ("eth0", "lo"):
            raise AttachmentError(f"annotation {NETWORKS}: interface {name!r} is already taken; choose another name")
    return selected


def default_network(annotations: Mapping[str, str], namespace: str) -> Selection | None:
    """Return what takes the place of the node's own network, None if that is to stay.

    :param namespace: the Pod's.
    :raises AttachmentError: the annotation can't be understood.
    """
    text = (annotations.get(DEFAULT_NETWORK) or "").strip()
    if not text:
        return None
    entries = _json_entries(text, DEFAULT_NETWORK) if text[0] in "[{" else [_short(text, DEFAULT_NETWORK)]
    if len(entries) != 1:
        raise AttachmentError(f"annotation {DEFAULT_NETWORK}: needs exactly one network, not {len(entries)}")
    return _selection({**entries[0], "interface": "eth0"}, namespace, "eth0", DEFAULT_NETWORK)


def _short(text: str, annotation: str = NETWORKS) -> dict[str, Any]:
    """Read ``[namespace/]name[@interface]``."""
    whole, at, interface = text.strip().partition("@")
    namespace, slash, name = whole.rpartition("/")
    if not name or (slash and not namespace) or (at and not interface):
        raise AttachmentError(f"annotation {annotation}: {text.strip()!r} is not [NAMESPACE/]NAME[@INTERFACE]")
    return {"name": name, **({"namespace": namespace} if slash else {}), **({"interface": interface} if at else {})}


def _json_entries(text: str, annotation: str = NETWORKS) -> list[dict[str, Any]]:
    try:
        entries = from_json(text)
    except ValueError as error:
        raise AttachmentError(f"annotation {annotation} is not valid JSON: {error}") from error
    entries = [entries] if isinstance(entries, dict) else entries
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise AttachmentError(f"annotation {annotation} must be a JSON list of objects, each with a name")
    return entries


def _selection(entry: Mapping[str, Any], namespace: str, interface: str, annotation: str = NETWORKS) -> Selection:
    name, where = entry.get("name"), entry.get("namespace") or namespace
    for key, value in (("name", name), ("namespace", where)):
        if not isinstance(value, str) or not _OBJECT_NAME.fullmatch(value):
            raise AttachmentError(f"annotation {annotation}: {key} {value!r} is not the name of a Kubernetes object")
    here = f"annotation {annotation}, network {where}/{name}"
    interface = entry.get("interface") or interface
    if not isinstance(interface, str) or not _INTERFACE.fullmatch(interface) or interface in (".", ".."):
        raise AttachmentError(f"{here}: interface {interface!r} is not the name of a network interface (1 to 15 bytes)")
    for key in _UNSUPPORTED:
        if entry.get(key):
            raise AttachmentError(f"{here}: {key} is not supported; leave it out")
    mac, ips, args = entry.get("mac"), entry.get("ips"), entry.get("cni-args") or {}
    if mac and (not isinstance(mac, str) or not _MAC.fullmatch(mac)):
        raise AttachmentError(f"{here}: mac {mac!r} is not a MAC address such as 02:00:00:aa:bb:cc")
    if ips and (not isinstance(ips, list) or not all(isinstance(each, str) for each in ips)):
        raise AttachmentError(f'{here}: ips {ips!r} is not a list of addresses such as ["192.0.2.7/24"]')
    if not isinstance(args, dict):
        raise AttachmentError(f"{here}: cni-args must be an object")
    capabilities = {capability: entry[key] for key, capability in _CAPABILITIES.items() if entry.get(key)}
    return Selection(str(where), str(name), interface, capabilities, args)


def network_of(definition: Object) -> dict[str, Any] | None:
    """Return the CNI configuration list in a NetworkAttachmentDefinition, of a single plugin as well.

    None if it has no configuration: then a file of the node has the network of the definition's name.

    :raises AttachmentError: it isn't one; the message says where.
    """
    metadata = definition.get("metadata") or {}
    try:
        return parse_config((definition.get("spec") or {}).get("config"), str(metadata.get("name") or ""))
    except ValueError as error:
        name = f"{metadata.get('namespace')}/{metadata.get('name')}"
        raise AttachmentError(f"NetworkAttachmentDefinition {name}: spec.config {error}") from error


def parse_config(text: Any, name: str) -> dict[str, Any] | None:
    """Return the CNI configuration list in the text of a ``spec.config``, None if it is empty.

    :param name: of the definition, which the network has if the configuration names none.
    :raises ValueError: what is wrong, to be read after the field's name.
    """
    if not text or not str(text).strip():
        return None
    try:
        config = from_json(text)
    except (TypeError, ValueError) as error:
        raise ValueError(f"is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"must be a JSON object, a CNI network configuration, not {_kind(config)}")
    version, network = config.get("cniVersion", _OLDEST), config.get("name") or name
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise ValueError(f'has cniVersion {version!r}; it must be a version such as "0.4.0"')
    if not isinstance(network, str) or not _NETWORK_NAME.fullmatch(network):
        raise ValueError(f"has name {network!r}; a network's name has letters, digits, '_', '.' and '-' only")
    if "plugins" not in config:
        plugins: Any = [{key: value for key, value in config.items() if key not in ("cniVersion", "name")}]
        _check_plugin(plugins[0], "")
    else:
        plugins = config["plugins"]
        if not isinstance(plugins, list) or not plugins:
            raise ValueError("has no plugins; it needs a list of at least one, each with a type")
        for index, plugin in enumerate(plugins):
            _check_plugin(plugin, f"plugins[{index}]")
    return {"cniVersion": version, "name": network, "plugins": plugins}


def _check_plugin(plugin: Any, where: str) -> None:
    of, dot = (f" of {where}", f"{where}.") if where else ("", "")
    if not isinstance(plugin, dict):
        raise ValueError(f"has {_kind(plugin)} as {where}; a plugin is an object with a type")
    kind = plugin.get("type")
    if kind is None or kind == "":
        raise ValueError(f"lacks the type{of}: the name of a CNI plugin, such as bridge or macvlan")
    if not isinstance(kind, str) or "/" in kind:
        raise ValueError(f"has {dot}type {kind!r}; it must be the name of a CNI plugin, such as bridge or macvlan")
    ipam = plugin.get("ipam")
    if ipam is not None and not isinstance(ipam, dict):
        raise ValueError(f"has {_kind(ipam)} as {dot}ipam; it must be an object with a type, such as host-local")
    # Without any key it is no address management, which Multus' examples write.
    if ipam and not isinstance(ipam.get("type"), str):
        raise ValueError(f"lacks {dot}ipam.type: the name of an IPAM plugin, such as host-local or static")


def _kind(value: Any) -> str:
    return {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")


def plugin_types(network: Mapping[str, Any]) -> list[str]:
    """Return the plugins that a configuration list names, those for addresses included."""
    types = []
    for plugin in network["plugins"]:
        types.append(str(plugin["type"]))
        if kind := (plugin.get("ipam") or {}).get("type"):
            types.append(str(kind))
    return types


def status_entry(name: str, interface: str, result: Mapping[str, Any], *, default: bool) -> Object:
    """Return an entry of a Pod's network status.

    :param name: of the definition, with its namespace; of the node's own network.
    :param result: of the CNI plugins.
    :param default: it is the Pod's own network.
    """
    interfaces: Sequence[Mapping[str, Any]] = result.get("interfaces") or ()
    own = next((each for each in interfaces if each.get("sandbox") and each.get("name") == interface), {})
    entry: Object = {"name": name, "interface": interface, "ips": addresses(result, interface)}
    entry |= {key: own[key] for key in ("mac", "mtu") if own.get(key)}
    if default:
        entry["default"] = True
    entry["dns"] = {key: value for key, value in (result.get("dns") or {}).items() if value}
    return entry


def addresses(result: Mapping[str, Any], ifname: str = "eth0") -> list[str]:
    """Return the Pod's addresses in a result, without prefix length, in the plugins' order.

    Addresses of interfaces outside the sandbox (a bridge's) are left out.
    """
    interfaces = result.get("interfaces") or []
    texts = []
    for entry in result.get("ips") or []:
        index = entry.get("interface")
        if index is not None and 0 <= index < len(interfaces):
            interface = interfaces[index]
            if not interface.get("sandbox") or interface.get("name") != ifname:
                continue
        texts.append(str(entry["address"]).split("/")[0])
    return texts
