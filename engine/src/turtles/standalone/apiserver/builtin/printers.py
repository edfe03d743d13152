# SPDX-License-Identifier: GPL-3.0-or-later
"""How built-in kinds look as tables: Kubernetes' columns (pkg/printers/internalversion) and what is in them."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from turtles.standalone.apiserver.schema.kinds import ADMISSION, RBAC, REGISTRATION, Column
from turtles.standalone.apiserver.wire.errors import Object

Cells = Callable[[Object], list[Any]]
#: Columns, cells, and what a row says of the object's state.
Conditions = Callable[[Object], list[Object]]

#: A description that begins with this is the documentation of a field: definition (without io.k8s.api.), field.
FIELD = "@"
CREATED = "@meta.v1.ObjectMeta.creationTimestamp"
#: At most so many of a list's items are shown.
_SHOWN = 3


# -- values


def age(timestamp: Any, now: datetime | None = None) -> str:
    """Return how long ago a time was, as Kubernetes' duration.HumanDuration writes it."""
    try:
        when = datetime.fromisoformat(timestamp)
        seconds = int(((now or datetime.now(UTC)) - when).total_seconds())
    except (ValueError, TypeError):
        return "<unknown>"
    if seconds < -1:
        return "<invalid>"
    return human_duration(max(seconds, 0))


def human_duration(seconds: int) -> str:
    """Return a duration with two or three significant figures, as kubectl shows ages."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        rest = seconds % 60
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        rest = minutes % 60
        return f"{hours}h{rest}m" if rest else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        rest = hours % 24
        return f"{days}d{rest}h" if rest else f"{days}d"
    if days < 730:
        return f"{days}d"
    years, rest = days // 365, days % 365
    return f"{years}y{rest}d" if years < 8 and rest else f"{years}y"


def name(obj: Object) -> str:
    """Return an object's name."""
    return str(obj["metadata"].get("name", ""))


def created(obj: Object) -> str:
    """Return an object's age."""
    return age(obj["metadata"].get("creationTimestamp"))


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _some(items: list[str]) -> str:
    """Return the first of some items and how many more there are."""
    more = f" + {len(items) - _SHOWN} more..." if len(items) > _SHOWN else ""
    return ",".join(items[:_SHOWN]) + more


def _conditions(obj: Object) -> dict[str, Object]:
    return {str(one.get("type")): one for one in _list(_map(obj.get("status")).get("conditions"))}


def _phase(obj: Object) -> str:
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return str(_map(obj.get("status")).get("phase", ""))


# -- Pods


def _state(container: Object) -> tuple[Object, Object]:
    state = _map(container.get("state"))
    return _map(state.get("waiting")), _map(state.get("terminated"))


def _ended(terminated: Object) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


class _Containers:
    """What the states of a Pod's containers come to."""

    def __init__(self, pod: Object) -> None:
        spec, status = _map(pod.get("spec")), _map(pod.get("status"))
        self._status = status
        # Init containers that are restarted always are sidecars: they count as the others do.
        self._sidecars = {
            one.get("name") for one in _list(spec.get("initContainers")) if one.get("restartPolicy") == "Always"
        }
        self._first = len(_list(spec.get("initContainers")))
        self.total = len(_list(spec.get("containers"))) + len(self._sidecars)
        self.ready = self.restarts = 0
        self._last = ""
        self.reason = str(status.get("reason") or status.get("phase") or "")
        conditions = _conditions(pod)
        if conditions.get("PodScheduled", {}).get("reason") == "SchedulingGated":
            self.reason = "SchedulingGated"
        initializing = self._initialize()
        if not initializing or conditions.get("Initialized", {}).get("status") == "True":
            self._run(conditions.get("Ready", {}).get("status") == "True")

    @property
    def restarted(self) -> str:
        """How often containers were started again, and how long ago the last time was."""
        return f"{self.restarts} ({age(self._last)} ago)" if self.restarts and self._last else str(self.restarts)

    def _count(self, containers: Iterable[Object]) -> None:
        self.restarts, self._last = 0, ""
        for container in containers:
            self.restarts += container.get("restartCount", 0)
            before = _map(_map(container.get("lastState")).get("terminated"))
            self._last = max(self._last, before.get("finishedAt") or "")

    def _initialize(self) -> bool:
        containers = _list(self._status.get("initContainerStatuses"))
        self._count(containers)
        for index, container in enumerate(containers):
            waiting, terminated = _state(container)
            if "terminated" in _map(container.get("state")) and not terminated.get("exitCode"):
                continue
            if container.get("name") in self._sidecars and container.get("started"):
                self.ready += bool(container.get("ready"))
                continue
            if terminated:
                self.reason = f"Init:{_ended(terminated)}"
            elif waiting.get("reason") and waiting["reason"] != "PodInitializing":
                self.reason = f"Init:{waiting['reason']}"
            else:
                self.reason = f"Init:{index}/{self._first}"
            return True
        return False

    def _run(self, ready: bool) -> None:
        containers = _list(self._status.get("containerStatuses"))
        sidecars = [one for one in _list(self._status.get("initContainerStatuses")) if one["name"] in self._sidecars]
        self._count([*sidecars, *containers])
        running = False
        for container in reversed(containers):
            waiting, terminated = _state(container)
            if waiting.get("reason"):
                self.reason = str(waiting["reason"])
            elif "terminated" in _map(container.get("state")):
                self.reason = _ended(terminated)
            elif container.get("ready") and "running" in _map(container.get("state")):
                running = True
                self.ready += 1
        if self.reason == "Completed" and running:
            self.reason = "Running" if ready else "NotReady"


def _pod(obj: Object) -> list[Any]:
    spec, status = _map(obj.get("spec")), _map(obj.get("status"))
    containers = _Containers(obj)
    reason = containers.reason
    if obj["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            reason = "Terminating"
    gates, conditions = _list(spec.get("readinessGates")), _conditions(obj)
    met = sum(conditions.get(gate.get("conditionType"), {}).get("status") == "True" for gate in gates)
    addresses = _list(status.get("podIPs"))
    return [
        name(obj), f"{containers.ready}/{containers.total}", reason, containers.restarted, created(obj),
        addresses[0].get("ip", "") if addresses else "<none>", spec.get("nodeName") or "<none>",
        status.get("nominatedNodeName") or "<none>", f"{met}/{len(gates)}" if gates else "<none>",
    ]  # fmt: skip


_ENDS = {"Succeeded": "The pod has completed successfully.", "Failed": "The pod failed."}


def _pod_conditions(obj: Object) -> list[Object]:
    phase = _map(obj.get("status")).get("phase")
    if phase not in _ENDS:
        return []
    return [{"type": "Completed", "status": "True", "reason": phase, "message": _ENDS[phase]}]


# -- other kinds


def _node(obj: Object) -> list[Any]:
    status, info = _map(obj.get("status")), _map(_map(obj.get("status")).get("nodeInfo"))
    ready = _conditions(obj).get("Ready")
    state = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    if _map(obj.get("spec")).get("unschedulable"):
        state += ",SchedulingDisabled"
    labels, prefix = _map(obj["metadata"].get("labels")), "node-role.kubernetes.io/"
    roles = {label[len(prefix) :] for label in labels if label.startswith(prefix)} | {labels.get("kubernetes.io/role")}
    addresses = {one.get("type"): one.get("address") for one in reversed(_list(status.get("addresses")))}
    return [
        name(obj), state, ",".join(sorted(filter(None, roles))) or "<none>", created(obj),
        info.get("kubeletVersion", ""), addresses.get("InternalIP") or "<none>",
        addresses.get("ExternalIP") or "<none>", info.get("osImage") or "<unknown>",
        info.get("kernelVersion") or "<unknown>", info.get("containerRuntimeVersion") or "<unknown>",
    ]  # fmt: skip


def _event(obj: Object) -> list[Any]:
    involved, source, series = _map(obj.get("involvedObject")), _map(obj.get("source")), _map(obj.get("series"))
    first = age(obj.get("firstTimestamp") or obj.get("eventTime"))
    last, count = age(obj["lastTimestamp"]) if obj.get("lastTimestamp") else first, obj.get("count") or 1
    if series:
        # The event before the series isn't counted in it.
        last, count = age(series.get("lastObservedTime")), series.get("count", 0) + 1
    about = str(involved.get("kind", "")).lower()
    by = [source.get("component") or obj.get("reportingComponent"), source.get("host") or obj.get("reportingInstance")]
    return [
        last, obj.get("type", ""), obj.get("reason", ""), f"{about}/{involved['name']}" if involved.get("name") else
        about, involved.get("fieldPath", ""), ", ".join([by[0] or "", *([by[1]] if by[1] else ())]),
        str(obj.get("message", "")).strip(), first, count, name(obj),
    ]  # fmt: skip


def _external(obj: Object) -> str:
    spec, kind = _map(obj.get("spec")), _map(obj.get("spec")).get("type")
    own = [str(one) for one in _list(spec.get("externalIPs"))]
    if kind == "ExternalName":
        return str(spec.get("externalName", ""))
    if kind != "LoadBalancer":
        return ",".join(own) or "<none>"
    ingress = _list(_map(_map(obj.get("status")).get("loadBalancer")).get("ingress"))
    given = [str(one.get("ip") or one.get("hostname") or "") for one in ingress]
    return ",".join([*sorted(filter(None, given)), *own]) or "<pending>"


def _service(obj: Object) -> list[Any]:
    spec = _map(obj.get("spec"))
    ports = ",".join(
        f"{port.get('port')}{':' + str(port['nodePort']) if port.get('nodePort') else ''}/{port.get('protocol', 'TCP')}"
        for port in _list(spec.get("ports"))
    )
    selector = ",".join(f"{key}={value}" for key, value in sorted(_map(spec.get("selector")).items()))
    return [
        name(obj), spec.get("type", ""), spec.get("clusterIP") or "<none>", _external(obj), ports or "<none>",
        created(obj), selector or "<none>",
    ]  # fmt: skip


def _quota(obj: Object) -> list[Any]:
    status = _map(obj.get("status"))
    hard, used = _map(status.get("hard")), _map(status.get("used"))
    shown: dict[bool, list[str]] = {True: [], False: []}
    for resource in sorted(hard):
        shown[resource.startswith("limits.")].append(f"{resource}: {used.get(resource, 0)}/{hard[resource]}")
    return [name(obj), created(obj), ", ".join(shown[False]), ", ".join(shown[True])]


def _budget(obj: Object) -> list[Any]:
    spec, status = _map(obj.get("spec")), _map(obj.get("status"))
    bounds = [str(spec.get(field, "N/A")) for field in ("minAvailable", "maxUnavailable")]
    return [name(obj), *bounds, status.get("disruptionsAllowed", 0), created(obj)]


def _endpoint_slice(obj: Object) -> list[Any]:
    ports = [str(port.get("port") or port.get("name") or "*") for port in _list(obj.get("ports"))]
    addresses = [one for endpoint in _list(obj.get("endpoints")) for one in _list(endpoint.get("addresses"))]
    shown = [_some(ports) or "<unset>", _some(addresses) or "<unset>"]
    return [name(obj), obj.get("addressType", ""), *shown, created(obj)]


def _endpoints(obj: Object) -> list[Any]:
    found: list[str] = []
    for subset in _list(obj.get("subsets")):
        addresses = [str(one.get("ip")) for one in _list(subset.get("addresses"))]
        ports = _list(subset.get("ports"))
        hosts = [f"[{one}]" if ":" in one else one for one in addresses]
        found += [f"{host}:{port.get('port')}" for port in ports for host in hosts] if ports else addresses
    return [name(obj), _some(found) if obj.get("subsets") else "<none>", created(obj)]


_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _modes(modes: Any) -> str:
    return ",".join(short for mode, short in _MODES.items() if mode in _list(modes))


def _class(obj: Object) -> str:
    annotations = _map(obj["metadata"].get("annotations"))
    beta = annotations.get("volume.beta.kubernetes.io/storage-class")
    return str(beta if beta is not None else _map(obj.get("spec")).get("storageClassName") or "")


def _claim(obj: Object) -> list[Any]:
    spec, status = _map(obj.get("spec")), _map(obj.get("status"))
    bound = bool(spec.get("volumeName"))
    return [
        name(obj), _phase(obj), spec.get("volumeName", ""),
        _map(status.get("capacity")).get("storage", "0") if bound else "",
        _modes(status.get("accessModes")) if bound else "", _class(obj),
        spec.get("volumeAttributesClassName") or "<unset>", created(obj), spec.get("volumeMode") or "<unset>",
    ]  # fmt: skip


def _volume(obj: Object) -> list[Any]:
    spec, status = _map(obj.get("spec")), _map(obj.get("status"))
    claim = _map(spec.get("claimRef"))
    target = f"{claim.get('namespace')}/{claim.get('name')}" if claim else ""
    return [
        name(obj), _map(spec.get("capacity")).get("storage", "0"), _modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""), _phase(obj), target, _class(obj),
        spec.get("volumeAttributesClassName") or "<unset>", status.get("reason", ""), created(obj),
        spec.get("volumeMode") or "<unset>",
    ]  # fmt: skip


def _storage_class(obj: Object) -> list[Any]:
    annotations = _map(obj["metadata"].get("annotations"))
    keys = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
    default = any(annotations.get(key) == "true" for key in keys)
    return [
        name(obj) + (" (default)" if default else ""), obj.get("provisioner", ""), obj.get("reclaimPolicy", "Delete"),
        obj.get("volumeBindingMode", "Immediate"), bool(obj.get("allowVolumeExpansion")), created(obj),
    ]  # fmt: skip


def _binding(obj: Object) -> list[Any]:
    role = _map(obj.get("roleRef"))

    def names(kind: str) -> str:
        return ", ".join(
            f"{one['namespace']}/{one.get('name')}" if one.get("namespace") else str(one.get("name"))
            for one in _list(obj.get("subjects"))
            if one.get("kind") == kind
        )

    cells = [name(obj), f"{role.get('kind')}/{role.get('name')}", created(obj)]
    return [*cells, names("User"), names("Group"), names("ServiceAccount")]


def _revision(obj: Object) -> list[Any]:
    owners = (one for one in _list(obj["metadata"].get("ownerReferences")) if one.get("controller"))
    owner = next(owners, None)
    shown = "<none>"
    if owner is not None:
        group = str(owner.get("apiVersion", "")).rpartition("/")[0]
        shown = f"{str(owner['kind']).lower()}{'.' + group if group else ''}/{owner['name']}"
    return [name(obj), shown, obj.get("revision", 0), created(obj)]


def _api_service(obj: Object) -> list[Any]:
    service = _map(_map(obj.get("spec")).get("service"))
    available = _conditions(obj).get("Available", {})
    text = available.get("status", "Unknown")
    if text != "True" and available.get("reason"):
        text += f" ({available['reason']})"
    where = f"{service.get('namespace')}/{service.get('name')}" if service else "Local"
    return [name(obj), where, text, created(obj)]


def _counted(field: str) -> Cells:
    return lambda obj: [name(obj), len(_list(obj.get(field))), created(obj)]


# -- columns


def _column(title: str, description: str, type: str = "string", wide: bool = False) -> Column:
    return Column(title, type, "name" if title == "Name" else "", description, int(wide))


def _wide(title: str, description: str) -> Column:
    return _column(title, description, wide=True)


NAME = _column("Name", "@meta.v1.ObjectMeta.name")
_AGE = _column("Age", CREATED)
_SPEC, _STATUS, _INFO = "@core.v1.PodSpec.", "@core.v1.PodStatus.", "@core.v1.NodeSystemInfo."
_SERVICE, _EVENT = "@core.v1.ServiceSpec.", "@core.v1.Event."
_VOLUME, _CLAIM = "@core.v1.PersistentVolumeSpec.", "@core.v1.PersistentVolumeClaimStatus."
_WEBHOOKS = (
    NAME, _column("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration", "integer"),
    _AGE,
)  # fmt: skip


def _bindings(kind: str) -> tuple[Column, ...]:
    where = kind[0].lower() + kind[1:]
    subjects = [_wide(one, f"{one} in the {where}") for one in ("Users", "Groups", "ServiceAccounts")]
    return NAME, _column("Role", f"@rbac.v1.{kind}.roleRef"), _AGE, *subjects


#: Columns and cells by resource; a kind that isn't here has its name and the time of its creation.
TABLES: dict[str, tuple[tuple[Column, ...], Cells]] = {
    "/namespaces": (
        (NAME, _column("Status", "The status of the namespace"), _AGE),
        lambda obj: [name(obj), _map(obj.get("status")).get("phase", ""), created(obj)],
    ),
    "/nodes": (
        (
            NAME, _column("Status", "The status of the node"), _column("Roles", "The roles of the node"), _AGE,
            _column("Version", f"{_INFO}kubeletVersion"), _wide("Internal-IP", "@core.v1.NodeStatus.addresses"),
            _wide("External-IP", "@core.v1.NodeStatus.addresses"), _wide("OS-Image", f"{_INFO}osImage"),
            _wide("Kernel-Version", f"{_INFO}kernelVersion"),
            _wide("Container-Runtime", f"{_INFO}containerRuntimeVersion"),
        ),
        _node,
    ),
    "/pods": (
        (
            NAME, _column("Ready", "The aggregate readiness state of this pod for accepting traffic."),
            _column("Status", "The aggregate status of the containers in this pod."),
            _column(
                "Restarts", "The number of times the containers in this pod have been restarted and when the last "
                "container in this pod has restarted.",
            ), _AGE, _wide("IP", f"{_STATUS}podIP"), _wide("Node", f"{_SPEC}nodeName"),
            _wide("Nominated Node", f"{_STATUS}nominatedNodeName"), _wide("Readiness Gates", f"{_SPEC}readinessGates"),
        ),
        _pod,
    ),
    "/events": (
        (
            _column("Last Seen", f"{_EVENT}lastTimestamp"), _column("Type", f"{_EVENT}type"),
            _column("Reason", f"{_EVENT}reason"), _column("Object", f"{_EVENT}involvedObject"),
            _wide("Subobject", "@core.v1.ObjectReference.fieldPath"), _wide("Source", f"{_EVENT}source"),
            _column("Message", f"{_EVENT}message"), _wide("First Seen", f"{_EVENT}firstTimestamp"),
            _wide("Count", f"{_EVENT}count"), _wide("Name", "@meta.v1.ObjectMeta.name"),
        ),
        _event,
    ),
    "/secrets": (
        (NAME, _column("Type", "@core.v1.Secret.type"), _column("Data", "@core.v1.Secret.data"), _AGE),
        lambda obj: [name(obj), obj.get("type", ""), len(_map(obj.get("data"))), created(obj)],
    ),
    "/configmaps": (
        (NAME, _column("Data", "@core.v1.ConfigMap.data"), _AGE),
        lambda obj: [name(obj), len(_map(obj.get("data"))) + len(_map(obj.get("binaryData"))), created(obj)],
    ),
    "/serviceaccounts": (
        (NAME, _column("Secrets", "@core.v1.ServiceAccount.secrets"), _AGE), _counted("secrets"),
    ),
    "/services": (
        (
            NAME, _column("Type", f"{_SERVICE}type"), _column("Cluster-IP", f"{_SERVICE}clusterIP"),
            _column("External-IP", f"{_SERVICE}externalIPs"), _column("Port(s)", f"{_SERVICE}ports"), _AGE,
            _wide("Selector", f"{_SERVICE}selector"),
        ),
        _service,
    ),
    "/endpoints": ((NAME, _column("Endpoints", "@core.v1.Endpoints.subsets"), _AGE), _endpoints),
    "/resourcequotas": (
        (
            NAME, _AGE,
            _column("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
            _column("Limit", "Limits control the maximum amount of cpu/memory that a container may use independent of "
                    "contention on the node."),
        ),
        _quota,
    ),
    "policy/poddisruptionbudgets": (
        (
            NAME, _column("Min Available", "The minimum number of pods that must be available."),
            _column("Max Unavailable", "The maximum number of pods that may be unavailable."),
            _column(
                "Allowed Disruptions", "Calculated number of pods that may be disrupted at this time.", "integer"
            ), _AGE,
        ),
        _budget,
    ),
    "discovery.k8s.io/endpointslices": (
        (
            NAME, _column("AddressType", "@discovery.v1.EndpointSlice.addressType"),
            _column("Ports", "@discovery.v1.EndpointSlice.ports"),
            _column("Endpoints", "@discovery.v1.EndpointSlice.endpoints"), _AGE,
        ),
        _endpoint_slice,
    ),
    "/persistentvolumeclaims": (
        (
            NAME, _column("Status", f"{_CLAIM}phase"),
            _column("Volume", "@core.v1.PersistentVolumeClaimSpec.volumeName"),
            _column("Capacity", f"{_CLAIM}capacity"), _column("Access Modes", f"{_CLAIM}accessModes"),
            _column("StorageClass", "StorageClass of the pvc"),
            _column("VolumeAttributesClass", "VolumeAttributesClass of the pvc"), _AGE,
            _wide("VolumeMode", "@core.v1.PersistentVolumeClaimSpec.volumeMode"),
        ),
        _claim,
    ),
    "/persistentvolumes": (
        (
            NAME, _column("Capacity", f"{_VOLUME}capacity"), _column("Access Modes", f"{_VOLUME}accessModes"),
            _column("Reclaim Policy", f"{_VOLUME}persistentVolumeReclaimPolicy"),
            _column("Status", "@core.v1.PersistentVolumeStatus.phase"), _column("Claim", f"{_VOLUME}claimRef"),
            _column("StorageClass", "StorageClass of the pv"),
            _column("VolumeAttributesClass", "VolumeAttributesClass of the pv"),
            _column("Reason", "@core.v1.PersistentVolumeStatus.reason"), _AGE,
            _wide("VolumeMode", f"{_VOLUME}volumeMode"),
        ),
        _volume,
    ),
    "storage.k8s.io/storageclasses": (
        (
            NAME, _column("Provisioner", "@storage.v1.StorageClass.provisioner"),
            _column("ReclaimPolicy", "@storage.v1.StorageClass.reclaimPolicy"),
            _column("VolumeBindingMode", "@storage.v1.StorageClass.volumeBindingMode"),
            _column("AllowVolumeExpansion", "@storage.v1.StorageClass.allowVolumeExpansion"), _AGE,
        ),
        _storage_class,
    ),
    "coordination.k8s.io/leases": (
        (NAME, _column("Holder", "@coordination.v1.LeaseSpec.holderIdentity"), _AGE),
        lambda obj: [name(obj), _map(obj.get("spec")).get("holderIdentity") or "", created(obj)],
    ),
    "scheduling.k8s.io/priorityclasses": (
        (
            NAME, _column("Value", "@scheduling.v1.PriorityClass.value", "integer"),
            _column("Global-Default", "@scheduling.v1.PriorityClass.globalDefault", "boolean"), _AGE,
            _column("PreemptionPolicy", "@scheduling.v1.PriorityClass.preemptionPolicy"),
        ),
        lambda obj: [
            name(obj), obj.get("value", 0), bool(obj.get("globalDefault")), created(obj),
            obj.get("preemptionPolicy", ""),
        ],
    ),
    "apps/controllerrevisions": (
        (
            NAME, _column("Controller", "Controller of the object"),
            _column("Revision", "@apps.v1.ControllerRevision.revision"), _AGE,
        ),
        _revision,
    ),
    f"{RBAC}/rolebindings": (_bindings("RoleBinding"), _binding),
    f"{RBAC}/clusterrolebindings": (_bindings("ClusterRoleBinding"), _binding),
    f"{REGISTRATION}/apiservices": (
        (
            NAME, _column("Service", "The reference to the service that hosts this API endpoint."),
            _column("Available", "Whether this service is available."), _AGE,
        ),
        _api_service,
    ),
    f"{ADMISSION}/mutatingwebhookconfigurations": (_WEBHOOKS, _counted("webhooks")),
    f"{ADMISSION}/validatingwebhookconfigurations": (_WEBHOOKS, _counted("webhooks")),
}  # fmt: skip
#: Kinds without a printer of their own.
GENERIC: tuple[tuple[Column, ...], Cells] = (
    (NAME, _column("Created At", CREATED, "date")),
    lambda obj: [name(obj), obj["metadata"].get("creationTimestamp")],
)
#: What a row says of its object's state.
CONDITIONS: dict[str, Conditions] = {"/pods": _pod_conditions}
