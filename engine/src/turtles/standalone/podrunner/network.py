# SPDX-License-Identifier: GPL-3.0-or-later
"""A Pod's network namespace and its attachments by CNI plugins: to the node's own network, and to those it chooses.

What Multus does on a cluster: :mod:`turtles.standalone.attachments` reads what a Pod asks for.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from turtles.api.objects import Object, annotations_of
from turtles.standalone import attachments
from turtles.standalone.attachments import AttachmentError, Selection
from turtles.standalone.podrunner import cni, network_namespace
from turtles.standalone.podrunner.cni import CNIError
from turtles.standalone.podrunner.config import Config
from turtles.standalone.podrunner.mount_points import is_mount
from turtles.standalone.podrunner.poddir import PodDir
from turtles.standalone.policy.enforcer import Policies, PolicyError

log = logging.getLogger(__name__)

#: Returns a NetworkAttachmentDefinition by namespace and name, None if there is none.
Definitions = Callable[[str, str], Object | None]


class DefinitionError(CNIError):
    """A Pod asks for a network that isn't defined, or not well; someone has to change that."""


@dataclass(frozen=True)
class _Wanted:
    """A network that a Pod is to be attached to."""

    network: dict[str, Any]
    interface: str
    definition: str
    capabilities: Mapping[str, Any]


class Networks:
    """Attaches the Pods of a node to their networks.

    :param definitions: returns a NetworkAttachmentDefinition.
    :param policies: has the policies for a Pod hold before its containers start.
    """

    def __init__(self, config: Config, definitions: Definitions, policies: Policies | None = None) -> None:
        self._config, self._definitions, self._policies = config, definitions, policies
        #: Pods whose attachments were made or checked by this process.
        self._sure: set[str] = set()
        #: The annotation with the networks that a Pod is attached to, by the Pod's uid.
        self._followed: dict[str, str] = {}

    def forget(self, uid: str) -> None:
        """Forget a Pod."""
        self._sure.discard(uid)
        self._followed.pop(uid, None)
        if self._policies is not None:
            self._policies.release(uid)

    def set_up(self, pod: Object, directory: PodDir, *, fresh: bool) -> Object:
        """Create a Pod's network namespace and attach it, unless that has been done; return the first CNI result.

        :param fresh: none of its containers has been started, so that attachments may still be made again.
        :raises DefinitionError: it asks for a network that isn't defined, or not well.
        :raises turtles.standalone.podrunner.cni.CNIError: a plugin failed; it can be repeated.
        """
        if pod["spec"].get("hostNetwork"):
            return {}
        netns = namespace_path(self._config, directory.uid)
        if not is_mount(netns):
            # Left from before a reboot or a crash: release the old attachments first.
            _release(self._config, directory)
            network_namespace.create(netns)
        elif fresh and directory.uid not in self._sure:
            self._check(pod, directory)
        known = _attachment(self._config, directory.cni_record).result()
        if known is not None and (directory.uid in self._sure or not fresh):
            # What its networks were defined as may have changed, or be gone.
            return known
        wanted = self._wanted(pod)
        first: Object = {}
        for index, each in enumerate(wanted):
            result = self._attach(pod, directory, _record(directory, index), each)
            first = first or result
        self._isolate(pod, first)
        self._sure.add(directory.uid)
        self._followed[directory.uid] = _chosen_text(pod)
        return first

    def follow(self, pod: Object, directory: PodDir) -> None:
        """Attach a running Pod to what its annotation names since it started, and detach it from what that left out.

        Multus calls it dynamic networks. Interfaces are told apart by their names.

        :raises DefinitionError: it asks for a network that isn't defined, or not well.
        :raises turtles.standalone.podrunner.cni.CNIError: a plugin failed; it can be repeated.
        """
        text = _chosen_text(pod)
        if pod["spec"].get("hostNetwork") or self._followed.get(directory.uid) == text:
            return
        try:
            chosen = attachments.selections({attachments.NETWORKS: text}, pod["metadata"]["namespace"])
        except AttachmentError as error:
            raise DefinitionError(str(error)) from error
        wanted = {selection.interface: selection for selection in chosen}
        for path in list(_records(directory))[1:]:
            attachment = _attachment(self._config, path)
            record = attachment.record() or {}
            if record.get("ifname") in wanted and record.get("result") is not None:
                del wanted[record["ifname"]]
            else:
                attachment.delete()
                log.info("detached", extra={"pod": pod["metadata"]["name"], "interface": record.get("ifname")})
        for selection in wanted.values():
            self._attach(pod, directory, _free_record(directory), self._chosen(selection))
            log.info("attached", extra={"pod": pod["metadata"]["name"], "interface": selection.interface})
        self._followed[directory.uid] = text

    def _attach(self, pod: Object, directory: PodDir, record: Path, wanted: _Wanted) -> Object:
        attachment = _attachment(self._config, record)
        args, netns = _args(pod, wanted.capabilities), namespace_path(self._config, directory.uid)
        try:
            return attachment.add(
                wanted.network, directory.uid, netns, wanted.interface, args, wanted.capabilities, wanted.definition
            )
        except CNIError as error:
            if not wanted.definition:
                raise
            raise CNIError(f"NetworkAttachmentDefinition {wanted.definition}: {error}") from error

    def _isolate(self, pod: Object, result: Object) -> None:
        assigned = attachments.addresses(result)
        if self._policies is None or not assigned:
            return
        try:
            self._policies.isolate(pod, assigned)
        except PolicyError as error:
            raise CNIError(str(error)) from error

    def _check(self, pod: Object, directory: PodDir) -> None:
        """Check attachments that an earlier process made, and release all of them if one isn't as it was."""
        for record in _records(directory):
            try:
                _attachment(self._config, record).check()
            except CNIError as error:
                log.warning("a Pod is attached again: %s", error, extra={"pod": pod["metadata"]["name"]})
                _release(self._config, directory)
                return

    def _wanted(self, pod: Object) -> list[_Wanted]:
        metadata = pod["metadata"]
        annotations, namespace = metadata.get("annotations") or {}, metadata["namespace"]
        try:
            instead = attachments.default_network(annotations, namespace)
            chosen = attachments.selections(annotations, namespace)
            wanted = [self._own(pod) if instead is None else self._chosen(instead)]
            return wanted + [self._chosen(selection) for selection in chosen]
        except AttachmentError as error:
            raise DefinitionError(str(error)) from error

    def _own(self, pod: Object) -> _Wanted:
        network = cni.load_network(self._config.cni_conf_dir)
        return _Wanted(network, "eth0", "", {"portMappings": _host_ports(pod)})

    def _chosen(self, selection: Selection) -> _Wanted:
        here = f"NetworkAttachmentDefinition {selection.definition}"
        definition = self._definitions(selection.namespace, selection.name)
        if definition is None:
            raise DefinitionError(f"{here} does not exist; create it, or correct the Pod's annotation")
        network = attachments.network_of(definition)
        if network is None:
            try:
                network = cni.named_network(self._config.cni_conf_dir, selection.name)
            except CNIError as error:
                raise DefinitionError(f"{here} has no spec.config, and {error}") from error
        for kind in attachments.plugin_types(network):
            if not cni.has_plugin(self._config.cni_bin_dir, kind):
                there = ", ".join(cni.plugins(self._config.cni_bin_dir)) or "none"
                raise DefinitionError(f"{here}: spec.config names the CNI plugin {kind!r}; this node has {there}")
        for plugin in network["plugins"]:
            master = plugin.get("master")
            if master and not plugin.get("linkInContainer") and not Path("/sys/class/net", str(master)).exists():
                raise DefinitionError(f"{here}: spec.config names master {master!r}, an interface that this node lacks")
        if selection.args:
            plugins = [{**plugin, "args": {"cni": dict(selection.args)}} for plugin in network["plugins"]]
            network = {**network, "plugins": plugins}
        return _Wanted(network, selection.interface, selection.definition, selection.capabilities)


def namespace_path(config: Config, uid: str) -> Path:
    """Return where a Pod's network namespace is mounted."""
    return config.run_dir / "netns" / uid


def addresses(config: Config, directory: PodDir) -> list[str]:
    """Return the addresses of a Pod in its own network, without any if it has none."""
    return attachments.addresses(_attachment(config, directory.cni_record).result() or {})


def status(config: Config, directory: PodDir, annotations: Mapping[str, str]) -> str | None:
    """Return a Pod's network status annotation, None if it has never chosen networks or isn't attached to all of them.

    :param annotations: the Pod's.
    """
    if not any(annotations.get(key) for key in (attachments.NETWORKS, attachments.DEFAULT_NETWORK, attachments.STATUS)):
        return None
    entries = []
    for index, path in enumerate(_records(directory)):
        record = _attachment(config, path).record()
        if not record or record.get("result") is None:
            return None
        name = record.get("definition") or record["network"]["name"]
        entries.append(attachments.status_entry(name, record["ifname"], record["result"], default=index == 0))
    return json.dumps(entries, indent=1) if entries else None


def tear_down(config: Config, directory: PodDir) -> None:
    """Release a Pod's addresses and port mappings, and its network namespace.

    :raises turtles.standalone.podrunner.cni.CNIError: a plugin failed; it can be repeated.
    """
    _release(config, directory)
    network_namespace.delete(namespace_path(config, directory.uid))


def _release(config: Config, directory: PodDir) -> None:
    """Detach a Pod from its networks, in reverse order."""
    for record in reversed(list(_records(directory))):
        _attachment(config, record).delete()


def _attachment(config: Config, record: Path) -> cni.Attachment:
    return cni.Attachment(config.cni_bin_dir, record)


def _record(directory: PodDir, index: int) -> Path:
    return directory.cni_record if index == 0 else directory.path / f"cni-{index:03}.json"


def _free_record(directory: PodDir) -> Path:
    return next(path for index in count(1) if not (path := _record(directory, index)).exists())


def _chosen_text(pod: Object) -> str:
    return annotations_of(pod).get(attachments.NETWORKS) or ""


def _records(directory: PodDir) -> Iterator[Path]:
    """Yield the records of a Pod's attachments, in the order in which they were made."""
    if directory.cni_record.exists():
        yield directory.cni_record
    yield from sorted(directory.path.glob("cni-[0-9][0-9][0-9].json"))


def _host_ports(pod: Object) -> list[Object]:
    return [
        {
            "hostPort": port["hostPort"],
            "containerPort": port["containerPort"],
            "protocol": (port.get("protocol") or "TCP").lower(),
            "hostIP": port.get("hostIP") or "",
        }
        for container in pod["spec"]["containers"]
        for port in container.get("ports") or []
        if port.get("hostPort")
    ]


def _args(pod: Object, capabilities: Mapping[str, Any]) -> dict[str, str]:
    """Return CNI_ARGS. Plugins without the capability for a MAC know it from there."""
    metadata = pod["metadata"]
    return {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": metadata["namespace"],
        "K8S_POD_NAME": metadata["name"],
        "K8S_POD_INFRA_CONTAINER_ID": metadata["uid"],
        "K8S_POD_UID": metadata["uid"],
        **({"MAC": str(capabilities["mac"])} if capabilities.get("mac") else {}),
    }
