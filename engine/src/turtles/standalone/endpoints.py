# SPDX-License-Identifier: GPL-3.0-or-later
"""Endpoints and EndpointSlices of Services, as kube-controller-manager keeps them.

:func:`subsets` and :func:`slices` say, as pure functions, what leads to a Service's Pods; :func:`mirrored` does so for
Endpoints that were written by hand. :class:`EndpointsController` feeds them from informers and writes.

Rules: Kubernetes documentation, "EndpointSlices" (conditions, labels, mirroring) and "Services without selectors".
"""

import hashlib
import ipaddress
import json
import logging
from typing import Any

from turtles.api.objects import Object, annotations_of, is_deleted, labels_of, owner_reference
from turtles.kube.client import AlreadyExists, Client, NotFound
from turtles.kube.informer import Informer, Key, key_of
from turtles.kube.manager import Controller, Trigger, each
from turtles.kube.writer import Writer
from turtles.standalone.pods import has_ended
from turtles.standalone.well_known import SERVICE_NAME, SKIP_MIRROR

log = logging.getLogger(__name__)

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
HEADLESS = "service.kubernetes.io/headless"
_CONTROLLER = "endpointslice-controller.k8s.io"
_MIRROR = "endpointslicemirroring-controller.k8s.io"
#: Endpoints in one slice, at most.
_SLICE = 100

#: Named ports as (name, number, protocol).
_Ports = tuple[tuple[str, int, str], ...]


def selects(service: Object, pod: Object) -> bool:
    """Say whether a Service's selector names a Pod."""
    selector = (service.get("spec") or {}).get("selector") or {}
    labels = labels_of(pod)
    same = service["metadata"]["namespace"] == pod["metadata"]["namespace"]
    return bool(selector) and same and all(labels.get(key) == value for key, value in selector.items())


def ready(pod: Object) -> bool:
    """Say whether a Pod has the condition Ready."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def families_of(service: Object) -> list[str]:
    """Return the families of a Service's addresses, the first one first."""
    return service["spec"].get("ipFamilies") or ["IPv4"]


def address_of(pod: Object, family: str) -> str:
    """Return a Pod's address of a family, empty if it has none."""
    status = pod.get("status") or {}
    listed = [entry.get("ip") or "" for entry in status.get("podIPs") or ()] or [status.get("podIP") or ""]
    return next((address for address in listed if address and _family_of(address) == family), "")


def _family_of(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"


def ports_of(service: Object, pod: Object) -> _Ports:
    """Return where a Pod listens for a Service: its ports with their target in this Pod, but those it doesn't have."""
    ports = []
    for port in service["spec"].get("ports") or []:
        protocol = port.get("protocol") or "TCP"
        target = port.get("targetPort") or port["port"]
        number = target if isinstance(target, int) else _named_port(pod, target, protocol)
        if number is not None:
            ports.append((port.get("name") or "", number, protocol))
    return tuple(ports)


def _named_port(pod: Object, name: str, protocol: str) -> int | None:
    for container in pod["spec"].get("containers") or []:
        for port in container.get("ports") or []:
            if port.get("name") == name and (port.get("protocol") or "TCP") == protocol:
                return int(port["containerPort"])
    return None


def _port_list(ports: _Ports) -> list[Object]:
    return [{"name": name, "port": number, "protocol": protocol} for name, number, protocol in ports]


def _address_key(address: str) -> tuple[int, int, str]:
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        return 9, 0, address
    return number.version, int(number), address


def _reference(pod: Object) -> Object:
    metadata = pod["metadata"]
    return {"kind": "Pod", "namespace": metadata["namespace"], "name": metadata["name"], "uid": metadata["uid"]}


def subsets(service: Object, pods: list[Object]) -> list[Object]:
    """Return the subsets of a Service's Endpoints, which have the addresses of its first family.

    :param pods: those that the Service selects.
    """
    family = families_of(service)[0]
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    headless = service["spec"].get("clusterIP") == "None"
    groups: dict[_Ports, tuple[list[Object], list[Object]]] = {}
    living = {ip: pod for pod in pods if not has_ended(pod) and (ip := address_of(pod, family))}
    for ip, pod in sorted(living.items(), key=lambda item: _address_key(item[0])):
        leaving = is_deleted(pod)
        ports = ports_of(service, pod)
        if (leaving and not publish) or not (ports or headless):
            continue
        address: Object = {"ip": ip, "targetRef": _reference(pod)}
        if pod["spec"].get("nodeName"):
            address["nodeName"] = pod["spec"]["nodeName"]
        if pod["spec"].get("hostname") and pod["spec"].get("subdomain") == service["metadata"]["name"]:
            address["hostname"] = pod["spec"]["hostname"]
        good, bad = groups.setdefault(ports, ([], []))
        (good if publish or ready(pod) else bad).append(address)
    result = []
    for ports, (good, bad) in sorted(groups.items()):
        subset: Object = {}
        if good:
            subset["addresses"] = good
        if bad:
            subset["notReadyAddresses"] = bad
        if ports:
            subset["ports"] = [_without_empty_name(port) for port in _port_list(ports)]
        result.append(subset)
    return result


def _without_empty_name(port: Object) -> Object:
    return port if port["name"] else {key: value for key, value in port.items() if key != "name"}


def slices(service: Object, pods: list[Object]) -> list[Object]:
    """Return the EndpointSlices of a Service with a selector, for each of its families.

    :param pods: those that the Service selects.
    """
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    groups: dict[_Ports, list[Object]] = {}
    for pod in pods:
        addresses = [address for family in families_of(service) if (address := address_of(pod, family))]
        if has_ended(pod) or not addresses:
            continue
        leaving, serving = is_deleted(pod), ready(pod)
        endpoint: Object = {
            "conditions": {"ready": publish or (serving and not leaving), "serving": serving, "terminating": leaving},
            "targetRef": _reference(pod),
        }
        if pod["spec"].get("nodeName"):
            endpoint["nodeName"] = pod["spec"]["nodeName"]
        if pod["spec"].get("hostname") and pod["spec"].get("subdomain") == service["metadata"]["name"]:
            endpoint["hostname"] = pod["spec"]["hostname"]
        group = groups.setdefault(ports_of(service, pod), [])
        group += [{"addresses": [address], **endpoint} for address in addresses]
    if not groups:
        groups[()] = []
    owner = owner_reference({"apiVersion": "v1", "kind": "Service", "metadata": service["metadata"]})
    labels = dict(labels_of(service))
    if service["spec"].get("clusterIP") == "None":
        labels[HEADLESS] = ""
    return _sliced(service, owner, labels, _CONTROLLER, groups)


def mirrored(service: Object, endpoints: Object) -> list[Object]:
    """Return the EndpointSlices that say what hand-made Endpoints of a Service without selector say."""
    if labels_of(endpoints).get(SKIP_MIRROR) == "true":
        return []
    groups: dict[_Ports, list[Object]] = {}
    for subset in endpoints.get("subsets") or []:
        ports = tuple(
            (port.get("name") or "", port["port"], port.get("protocol") or "TCP") for port in subset.get("ports") or []
        )
        for key, good in (("addresses", True), ("notReadyAddresses", False)):
            for address in subset.get(key) or []:
                endpoint: Object = {"addresses": [address["ip"]], "conditions": {"ready": good}}
                for name in ("targetRef", "nodeName", "hostname"):
                    if address.get(name):
                        endpoint[name] = address[name]
                groups.setdefault(ports, []).append(endpoint)
    owner = owner_reference({"apiVersion": "v1", "kind": "Endpoints", "metadata": endpoints["metadata"]})
    return _sliced(service, owner, dict(labels_of(endpoints)), _MIRROR, groups)


def _sliced(
    service: Object, owner: Object, labels: dict[str, str], manager: str, groups: dict[_Ports, list[Object]]
) -> list[Object]:
    """Return slices of at most a hundred endpoints, of one address family and one set of ports each.

    Their names follow from what is in them, so that a controller that was killed half-way finds its own again.
    """
    namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
    result = []
    for ports, endpoints in sorted(groups.items()):
        families: dict[str, list[Object]] = {}
        for endpoint in sorted(endpoints, key=lambda entry: _address_key(entry["addresses"][0])):
            families.setdefault(_family_of(endpoint["addresses"][0]), []).append(endpoint)
        for family, members in (families or {families_of(service)[0]: []}).items():
            for start in range(0, max(1, len(members)), _SLICE):
                digest = hashlib.sha256(f"{owner['uid']} {ports} {family} {start}".encode()).hexdigest()[:5]
                result.append(
                    {
                        "apiVersion": "discovery.k8s.io/v1",
                        "kind": "EndpointSlice",
                        "metadata": {
                            "name": f"{name[:57]}-{digest}",
                            "namespace": namespace,
                            "ownerReferences": [owner],
                            "labels": {**labels, SERVICE_NAME: name, MANAGED_BY: manager},
                        },
                        "addressType": family,
                        "endpoints": members[start : start + _SLICE],
                        "ports": _port_list(ports),
                    }
                )
    return result


def same_slice(one: Object, other: Object) -> bool:
    """Say whether two EndpointSlices say the same."""
    return _said(one) == _said(other)


def _said(obj: Object) -> str:
    metadata = obj["metadata"]
    content = [metadata.get("labels") or {}, obj.get("endpoints") or [], obj.get("ports") or []]
    return json.dumps([*content, [owner["uid"] for owner in metadata.get("ownerReferences") or []]], sort_keys=True)


class EndpointsController:
    """Maintains Endpoints and EndpointSlices of all Services."""

    def __init__(
        self, client: Client, pods: Informer, services: Informer, endpoints: Informer, slices_: Informer
    ) -> None:
        self._writer = Writer(client)
        self._pods, self._services, self._endpoints, self._slices = pods, services, endpoints, slices_
        #: Services that are gone: their Endpoints go too. Endpoints may be made before their Service.
        self._gone: set[Key] = set()
        slices_.add_index("service", lambda obj: [_service_of(obj)])

    def controller(self) -> Controller:
        """Return what the manager runs."""
        triggers = [
            Trigger(self._services, self._for_service),
            each(self._endpoints),
            Trigger(self._slices, _sliced_service),
            Trigger(self._pods, self._for_pod),
        ]
        return Controller("endpoints", self.reconcile, triggers, workers=2)

    def prepare(self) -> None:
        """Take Endpoints without a Service for those of a Service deleted earlier; the caches are filled."""
        self._gone.update(key_of(obj) for obj in self._endpoints.list() if not _by_others(obj))

    def _for_service(self, old: Object | None, new: Object | None) -> list[Key]:
        key = key_of(new or old or {})
        if new is None:
            self._gone.add(key)
        return [key]

    def _for_pod(self, old: Object | None, new: Object | None) -> list[Key]:
        if old is not None and new is not None and _relevant(old) == _relevant(new):
            return []
        return [
            key_of(service)
            for pod in (old, new)
            if pod is not None
            for service in self._services.list(pod["metadata"]["namespace"])
            if selects(service, pod)
        ]

    def reconcile(self, key: Key) -> None:
        """Write the Endpoints and EndpointSlices of one Service."""
        namespace, name = key
        service = self._services.get(namespace, name)
        endpoints = self._endpoints.get(namespace, name)
        spec = (service or {}).get("spec") or {}
        wanted: list[Object] = []
        if service is None:
            if endpoints is not None and key in self._gone:
                self._writer.delete(self._endpoints, endpoints)
            self._gone.discard(key)
        elif spec.get("selector") and spec.get("type") != "ExternalName":
            chosen = [pod for pod in self._pods.list(namespace) if selects(service, pod)]
            self._write_endpoints(service, endpoints, subsets(service, chosen))
            wanted = slices(service, chosen)
        elif endpoints is not None:
            wanted = mirrored(service, endpoints)
        self._write_slices(f"{namespace}/{name}", wanted)

    def _write_endpoints(self, service: Object, endpoints: Object | None, wanted: list[Object]) -> None:
        labels = dict(labels_of(service))
        labels.pop(HEADLESS, None)
        if service["spec"].get("clusterIP") == "None":
            labels[HEADLESS] = ""
        metadata = {key: service["metadata"][key] for key in ("namespace", "name")}
        if endpoints is None:
            body = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata | {"labels": labels}}
            try:
                self._writer.create(self._endpoints, body | {"subsets": wanted})
            except NotFound:
                log.debug("the namespace is gone", extra={"service": metadata["name"]})
            return
        same = json.dumps(endpoints.get("subsets") or [], sort_keys=True) == json.dumps(wanted, sort_keys=True)
        if same and labels_of(endpoints) == labels:
            return
        new = {**endpoints, "metadata": {**endpoints["metadata"], "labels": labels}, "subsets": wanted}
        self._writer.replace(self._endpoints, new)

    def _write_slices(self, service: str, wanted: list[Object]) -> None:
        ours = {obj["metadata"]["name"]: obj for obj in self._slices.by_index("service", service) if _is_ours(obj)}
        for obj in wanted:
            there = ours.pop(obj["metadata"]["name"], None)
            if there is None:
                try:
                    self._writer.create(self._slices, obj)
                except (NotFound, AlreadyExists) as error:
                    log.debug("not creating the slice now", extra={"service": service, "error": str(error)})
            elif not same_slice(there, obj):
                kept = {key: there["metadata"][key] for key in ("uid", "resourceVersion")}
                self._writer.replace(self._slices, {**obj, "metadata": {**obj["metadata"], **kept}})
        for obj in ours.values():
            self._writer.delete(self._slices, obj)


def _is_ours(endpoint_slice: Object) -> bool:
    return labels_of(endpoint_slice).get(MANAGED_BY) in (_CONTROLLER, _MIRROR)


def _sliced_service(old: Object | None, new: Object | None) -> list[Key]:
    """Return the Services of an EndpointSlice of ours: a change of its label concerns two."""
    keys = []
    for obj in (old, new):
        if obj is not None and _is_ours(obj):
            namespace, _, name = _service_of(obj).partition("/")
            keys.append((namespace, name))
    return keys


def _service_of(obj: Object) -> str:
    metadata = obj["metadata"]
    return f"{metadata['namespace']}/{(metadata.get('labels') or {}).get(SERVICE_NAME, '')}"


def _by_others(endpoints: Object) -> bool:
    """Say whether Endpoints without Service are none of ours, such as those of leader elections of old."""
    annotations = annotations_of(endpoints)
    return "control-plane.alpha.kubernetes.io/leader" in annotations


def _relevant(pod: Object) -> tuple[Any, ...]:
    status, metadata = pod.get("status") or {}, pod["metadata"]
    return (
        metadata["uid"],
        metadata.get("labels"),
        metadata.get("deletionTimestamp") is None,
        status.get("podIP"),
        status.get("podIPs"),
        status.get("phase"),
        ready(pod),
        pod["spec"].get("nodeName"),
    )
