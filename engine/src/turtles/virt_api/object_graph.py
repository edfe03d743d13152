# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects that a machine consists of and needs, as a tree: the subresource ``objectgraph``.

Which these are, and how they are named and labelled, is KubeVirt's (kubevirt.io/v1, ObjectGraphNode); backups and
disaster recovery ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from turtles.api import selectors
from turtles.api.configuration import ClusterConfiguration
from turtles.api.core import LABEL_SELECTOR
from turtles.api.feature_gates import OBJECT_GRAPH
from turtles.api.guests import launcher_pod_name
from turtles.api.kind import Kind, Missing
from turtles.api.kinds.instancetype.matchers import MATCHERS
from turtles.api.kinds.vm import VM as VM_KIND
from turtles.api.kinds.vmi import VMI as VMI_KIND
from turtles.api.language import BOOLEAN, Cause, Struct, field
from turtles.api.objects import Object, get
from turtles.kube.client import Client
from turtles.virt_api.instances import fetch, fetch_machine, instance_of
from turtles.virt_api.status import Failure

#: Label of a node, and its values.
DEPENDENCY = "kubevirt.io/dependency-type"
_STORAGE, _NETWORK, _COMPUTE, _CONFIG = "storage", "network", "compute", "config"
#: Group and dependency of each kind.
_KINDS = {
    "VirtualMachine": ("kubevirt.io", _COMPUTE),
    "VirtualMachineInstance": ("kubevirt.io", _COMPUTE),
    "VirtualMachineInstancetype": ("instancetype.kubevirt.io", _CONFIG),
    "VirtualMachineClusterInstancetype": ("instancetype.kubevirt.io", _CONFIG),
    "VirtualMachinePreference": ("instancetype.kubevirt.io", _CONFIG),
    "VirtualMachineClusterPreference": ("instancetype.kubevirt.io", _CONFIG),
    "DataVolume": ("cdi.kubevirt.io", _STORAGE),
    "ControllerRevision": ("apps", _CONFIG),
    "ConfigMap": ("", _CONFIG),
    "PersistentVolumeClaim": ("", _STORAGE),
    "ServiceAccount": ("", _CONFIG),
    "Secret": ("", _CONFIG),
    "Pod": ("", _COMPUTE),
    "NetworkAttachmentDefinition": ("k8s.cni.cncf.io", _NETWORK),
}
#: Secrets of a cloud-init volume.
_REFERENCES = ("secretRef", "networkDataSecretRef")


#: KubeVirt's answer without the gate.
_NO_GATE = "ObjectGraph feature gate not enabled: Unable to return object graph."
_OPTIONS = Struct(
    "KubeVirt's ObjectGraphOptions.",
    field("includeOptionalNodes", BOOLEAN, "Whether to include optional objects."),
    field("labelSelector", LABEL_SELECTOR, "Labels that the nodes must have."),
)


class WrongGraphOptions(Exception):
    """The options can't be read. The message says why."""


def of_vm(vm: Object, vmi: Object | None, options: Mapping[str, Any]) -> Object:
    """Return the tree of a VirtualMachine.

    :param vmi: its instance, if there is one.
    :param options: KubeVirt's ObjectGraphOptions.
    :raises WrongGraphOptions: if these can't be read.
    """
    name, namespace = vm["metadata"]["name"], vm["metadata"]["namespace"]
    spec = get(vm, "spec", "template", "spec") or {}
    children = []
    if vmi is not None:
        children.append(_node("VirtualMachineInstance", name, namespace, [*_pod(vmi)]))
    for matcher in MATCHERS:
        children += _chosen(vm, matcher, namespace)
    children += [*_needs(spec, name, namespace)]
    return _filtered(_node("VirtualMachine", name, namespace, children), options)


def of_vmi(vmi: Object, options: Mapping[str, Any]) -> Object:
    """Return the tree of a VirtualMachineInstance; as :func:`of_vm`."""
    name, namespace = vmi["metadata"]["name"], vmi["metadata"]["namespace"]
    children = [*_pod(vmi), *_needs(vmi["spec"], name, namespace)]
    return _filtered(_node("VirtualMachineInstance", name, namespace, children), options)


def _node(kind: str, name: str, namespace: str, children: Iterable[Object] = (), *, optional: bool = False) -> Object:
    group, dependency = _KINDS[kind]
    node: Object = {
        "objectReference": {"apiGroup": group, "kind": kind, "name": name, "namespace": namespace},
        "labels": {DEPENDENCY: dependency},
    }
    if optional:
        node["optional"] = True
    if below := list(children):
        node["children"] = below
    return node


def _pod(vmi: Object) -> Iterator[Object]:
    if get(vmi, "status", "activePods"):
        yield _node("Pod", launcher_pod_name(vmi), vmi["metadata"]["namespace"])


def _chosen(vm: Object, matcher: Any, namespace: str) -> Iterator[Object]:
    """Yield what a VirtualMachine has its size or its defaults from, and the copy of it that counts."""
    wanted = matcher.of(vm)
    if wanted is None:
        return
    try:
        kind = matcher.kind_of(wanted)
    except Missing:
        kind = None
    if kind is not None and wanted.get("name"):
        yield _node(kind, wanted["name"], "" if kind == matcher.cluster_kind else namespace, optional=True)
    used = get(vm, "status", matcher.reference)
    revision = get(used, "controllerRevisionRef", "name") if used else wanted.get("revisionName")
    if revision:
        yield _node("ControllerRevision", revision, namespace)


def _needs(spec: Mapping[str, Any], name: str, namespace: str) -> Iterator[Object]:
    """Yield what the spec of an instance names."""
    for credential in spec.get("accessCredentials") or ():
        for kind in ("sshPublicKey", "userPassword"):
            if secret := get(credential, kind, "source", "secret", "secretName"):
                yield _node("Secret", secret, namespace)
    for volume in spec.get("volumes") or ():
        yield from _volume(volume, namespace)
    if get(spec, "domain", "devices", "tpm", "persistent") or get(
        spec, "domain", "firmware", "bootloader", "efi", "persistent"
    ):
        yield _node("PersistentVolumeClaim", f"persistent-state-for-{name}", namespace)
    for network in spec.get("networks") or ():
        if definition := get(network, "multus", "networkName"):
            *where, which = definition.split("/", 1)
            yield _node("NetworkAttachmentDefinition", which, where[0] if where else namespace, optional=True)


def _volume(volume: Mapping[str, Any], namespace: str) -> Iterator[Object]:
    for source, key, kind in (
        ("dataVolume", "name", "DataVolume"),
        ("persistentVolumeClaim", "claimName", "PersistentVolumeClaim"),
        ("memoryDump", "claimName", "PersistentVolumeClaim"),
        ("configMap", "name", "ConfigMap"),
        ("secret", "secretName", "Secret"),
        ("serviceAccount", "serviceAccountName", "ServiceAccount"),
    ):
        if name := get(volume, source, key):
            below = [_node("PersistentVolumeClaim", name, namespace)] if kind == "DataVolume" else []
            yield _node(kind, name, namespace, below)
    if claim := get(volume, "ephemeral", "persistentVolumeClaim", "claimName"):
        yield _node("PersistentVolumeClaim", claim, namespace)
    for kind in ("cloudInitNoCloud", "cloudInitConfigDrive"):
        for reference in _REFERENCES:
            if secret := get(volume, kind, reference, "name"):
                yield _node("Secret", secret, namespace)


def _filtered(node: Object, options: Mapping[str, Any]) -> Object:
    """Leave out what isn't asked for; what is below it goes with it."""
    causes: list[Cause] = []
    _OPTIONS.check(dict(options), "", causes)
    selector = options.get("labelSelector")
    if causes := causes or selectors.selector_causes(selector, "labelSelector"):
        raise WrongGraphOptions(causes[0].message)

    def wanted(child: Object) -> bool:
        if child.get("optional") and options.get("includeOptionalNodes") is False:
            return False
        return selector is None or selectors.selects(selector, child["labels"])

    def below(parent: Object) -> Object:
        children = [below(child) for child in parent.get("children") or () if wanted(child)]
        rest = {key: value for key, value in parent.items() if key != "children"}
        return {**rest, "children": children} if children else rest

    return below(node)


class ObjectGraphs:
    """The handlers of the subresource, for the machines that the client reaches.

    :param configuration: returns the configuration in force.
    """

    def __init__(self, client: Client, configuration: Callable[[], ClusterConfiguration]) -> None:
        self._client, self._configuration = client, configuration

    def of_vm(self, namespace: str, name: str, options: Object) -> Object:
        """Return the objects that a VirtualMachine consists of and needs."""
        self._check(name, VM_KIND)
        vm = fetch_machine(self._client, namespace, name)
        try:
            vmi = instance_of(self._client, namespace, name)
        except Failure:
            vmi = None
        return self._answer(lambda: of_vm(vm, vmi, options), VM_KIND, name)

    def of_vmi(self, namespace: str, name: str, options: Object) -> Object:
        """Return the objects that a VirtualMachineInstance consists of and needs."""
        self._check(name, VMI_KIND)
        vmi = fetch(self._client, namespace, name)
        return self._answer(lambda: of_vmi(vmi, options), VMI_KIND, name)

    def _check(self, name: str, kind: Kind) -> None:
        if not self._configuration().has_gate(OBJECT_GRAPH):
            raise Failure(400, _NO_GATE, kind, name)

    @staticmethod
    def _answer(graph: Callable[[], Object], kind: Kind, name: str) -> Object:
        try:
            return graph()
        except WrongGraphOptions as error:
            raise Failure(400, f"ObjectGraphOptions: {error}", kind, name) from None
