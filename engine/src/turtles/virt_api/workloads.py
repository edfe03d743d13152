# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs the engine on a Kubernetes cluster: Deployments, the DaemonSet, and what goes with them. Pure.

Names and labels are those of KubeVirt's operator, so that what selects its components selects these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from turtles.api import components, exports, uploads
from turtles.api.objects import Object
from turtles.virt_api import names

PRIORITY_CLASS = "kubevirt-cluster-critical"
METRICS_SERVICE = "kubevirt-prometheus-metrics"
#: The user the unprivileged components run as; it is in the images' passwd.
ENGINE_UID = 1001
#: Port of virt-api, and those of the components' health and metrics, which are called "metrics". All speak TLS.
API_PORT = 8443
HEALTH_PORTS = {"virt-api": 8444, "virt-controller": 8443, "virt-handler": 8443}
#: Port at which virt-handler serves virt-api (KubeVirt's for consoles).
SERVER_PORT = 8186

_STATE_DIR = "/var/lib/kubevirt"
#: The kubelet's folder of device plugins, wherever its others are (``pluginapi.DevicePluginPath``).
_DEVICE_PLUGINS_DIR = "/var/lib/kubelet/device-plugins"
_PROBE_DIR = "/var/lib/kubevirt-probe"
#: Requests. Measured use is in the operations manual; limits are left to who sets them.
_REQUESTS = {
    "virt-api": {"cpu": "10m", "memory": "100Mi"},
    "virt-controller": {"cpu": "20m", "memory": "100Mi"},
    "virt-handler": {"cpu": "20m", "memory": "120Mi"},
}
_LABEL_PROMETHEUS = "prometheus.kubevirt.io"


class ValuesError(ValueError):
    """The values can't be used; the message names the key and what it must be."""


@dataclass(frozen=True)
class Values:
    """What an installation chooses. Keys of the JSON object are the names in camelCase.

    :param engine_image: reference of turtles-engine. :param launcher_image: of turtles-launcher.
    :param image_pull_secrets: names of Secrets in the engine's namespace.
    :param replicas: of virt-api and of virt-controller.
    :param kubelet_dir: where kubelets keep Pods.
    :param policy_version: API version of PodDisruptionBudgets; Kubernetes before 1.21 has policy/v1beta1 only.
    :param infra: nodeSelector, affinity and tolerations of virt-api and virt-controller, in addition to their own.
    :param workloads: those of virt-handler; machines run where it runs.
    :param resources: resources of containers by component, in place of the default requests.
    """

    engine_image: str
    launcher_image: str
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: list[str] = field(default_factory=list)
    replicas: int = components.REPLICAS
    kubelet_dir: str = "/var/lib/kubelet"
    policy_version: str = "policy/v1"
    log_level: str = "info"
    infra: dict[str, Any] = field(default_factory=dict)
    workloads: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Any) -> Values:
        """Read the JSON object.

        :raises ValuesError: it can't be used.
        """
        if not isinstance(data, dict):
            raise ValuesError("the values are not a JSON object")
        known = {_camel(each.name): each for each in fields(cls)}
        if unknown := sorted(data.keys() - known.keys()):
            raise ValuesError(f"unknown key {unknown[0]!r}; known keys are {', '.join(known)}")
        chosen: dict[str, Any] = {}
        for key, value in data.items():
            wanted = {"str": str, "int": int, "list[str]": list, "dict[str, Any]": dict}[str(known[key].type)]
            if not isinstance(value, wanted) or isinstance(value, bool):
                raise ValuesError(f"{key} must be of type {wanted.__name__}, not {type(value).__name__}")
            chosen[known[key].name] = value
        for key in ("engineImage", "launcherImage"):
            if not data.get(key):
                raise ValuesError(f"{key} is missing: a reference such as registry.example.com/turtles-engine:1.0")
        values = cls(**chosen)
        if values.replicas < 1:
            raise ValuesError(f"replicas must be at least 1, not {values.replicas}")
        for key, part in (("infra", values.infra), ("workloads", values.workloads)):
            if wrong := sorted(part.keys() - {"nodeSelector", "affinity", "tolerations"}):
                raise ValuesError(f"{key} has {wrong[0]!r}; it may have nodeSelector, affinity and tolerations")
            _check_placement(key, part)
        if wrong := sorted(values.resources.keys() - _REQUESTS.keys()):
            raise ValuesError(f"resources has {wrong[0]!r}; there are {', '.join(_REQUESTS)}")
        for component, part in values.resources.items():
            _check_resources(f"resources.{component}", part)
        return values


def _check_placement(key: str, part: Mapping[str, Any]) -> None:
    """Refuse a nodePlacement that no Pod could have. What is null is as if it weren't there."""
    selector = _object(f"{key}.nodeSelector", part.get("nodeSelector"), 'labels and values, such as {"disk": "ssd"}')
    for label, value in selector.items():
        if not isinstance(value, str):
            message = f"{key}.nodeSelector.{label} must be text, not {value!r}: write it with quotation marks"
            raise ValuesError(message)
    example = '[{"key": "dedicated", "operator": "Exists"}]'
    tolerations = part.get("tolerations") or []
    if not isinstance(tolerations, list):
        raise ValuesError(f"{key}.tolerations must be a list, such as {example}, not {tolerations!r}")
    for number, toleration in enumerate(tolerations):
        if not isinstance(toleration, dict):
            raise ValuesError(f"{key}.tolerations[{number}] must be an object as in {example}, not {toleration!r}")
    affinity = _object(f"{key}.affinity", part.get("affinity"), "nodeAffinity, podAffinity and podAntiAffinity")
    for name, value in affinity.items():
        _object(f"{key}.affinity.{name}", value, "terms, as a Pod has it")


def _check_resources(key: str, part: Any) -> None:
    """Refuse resources that no container could have."""
    resources = _object(key, part, 'requests and limits, such as {"requests": {"memory": "200Mi"}}')
    if wrong := sorted(resources.keys() - {"requests", "limits"}):
        raise ValuesError(f"{key} has {wrong[0]!r}; it may have requests and limits")
    for name, amounts in resources.items():
        amounts = _object(f"{key}.{name}", amounts, 'amounts, such as {"memory": "200Mi"}')
        for resource, amount in amounts.items():
            if not isinstance(amount, str | int | float) or isinstance(amount, bool):
                message = f"{key}.{name}.{resource} must be an amount such as 200Mi, not {amount!r}"
                raise ValuesError(message)


def _object(key: str, value: Any, what: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValuesError(f"{key} must be an object with {what}, not {value!r}")
    return value


def objects(values: Values, namespace: str) -> list[Object]:
    """Return what has to be created besides definitions and rights, in order."""
    return [
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": PRIORITY_CLASS, "labels": dict(names.LABELS)},
            "value": 1_000_000_000,
            "globalDefault": False,
            "description": "The components of KubeVirt, without which virtual machines can't be managed.",
        },
        _service(names.SERVICE, namespace, {"kubevirt.io": "virt-api"}, "https", 443, API_PORT),
        _service(uploads.PROXY_SERVICE, namespace, {"kubevirt.io": "virt-api"}, "https", 443, API_PORT),
        _service(exports.PROXY_SERVICE, namespace, {"kubevirt.io": "virt-api"}, "https", 443, API_PORT),
        _service(METRICS_SERVICE, namespace, {_LABEL_PROMETHEUS: "true"}, "metrics", 443, "metrics"),
        _deployment(values, namespace, "virt-api", _api_container(values, namespace)),
        _deployment(values, namespace, "virt-controller", _controller_container(values, namespace)),
        _daemonset(values, namespace),
        _budget(values, namespace, "virt-api"),
        _budget(values, namespace, "virt-controller"),
    ]


def _api_container(values: Values, namespace: str) -> Object:
    arguments = [f"--port={API_PORT}", f"--namespace={namespace}", "--pod-name=$(POD_NAME)"]
    container = _container(values, "virt-api", arguments)
    container["env"] = [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    container["ports"].append({"name": "https", "containerPort": API_PORT, "protocol": "TCP"})
    # Nodes learn a moment later than this process that its Pod is leaving; until then they send it requests
    container["lifecycle"] = {"preStop": {"exec": {"command": ["/usr/bin/sleep", "5"]}}}
    return container


def _controller_container(values: Values, namespace: str) -> Object:
    arguments = [f"--launcher-image={values.launcher_image}", f"--namespace={namespace}", "--leader-elect"]
    return _container(values, "virt-controller", arguments)


def _container(values: Values, name: str, arguments: list[str]) -> Object:
    return {
        "name": name,
        "image": values.engine_image,
        "imagePullPolicy": values.image_pull_policy,
        "command": [f"/usr/bin/{name}"],
        "args": [*arguments, f"--log-level={values.log_level}", f"--health-port={HEALTH_PORTS[name]}"],
        "ports": [{"name": "metrics", "containerPort": HEALTH_PORTS[name], "protocol": "TCP"}],
        # A slow node may take a while to start Python; afterwards half a minute of silence is enough
        "startupProbe": _probe("/livez", period=2, failures=60),
        "livenessProbe": _probe("/livez", period=10, failures=3),
        "readinessProbe": _probe("/readyz", period=5, failures=3),
        "resources": values.resources.get(name, {"requests": dict(_REQUESTS[name])}),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        # The client of Kubernetes writes certificates to files before it loads them
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }


def _probe(path: str, period: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": "metrics", "scheme": "HTTPS"},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 5,
    }


def _pod(values: Values, name: str, placement: Mapping[str, Any], spec: Object) -> Object:
    pod: Object = {
        "serviceAccountName": name,
        "priorityClassName": PRIORITY_CLASS,
        **components.placement(name, placement),
        **spec,
    }
    if values.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret} for secret in values.image_pull_secrets]
    return {"metadata": {"labels": _pod_labels(name)}, "spec": pod}


def _deployment(values: Values, namespace: str, name: str, container: Object) -> Object:
    spec: Object = {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": ENGINE_UID,
            "runAsGroup": ENGINE_UID,
            "fsGroup": ENGINE_UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(name, namespace),
        "spec": {
            "replicas": values.replicas,
            "selector": {"matchLabels": {"kubevirt.io": name}},
            # The one replica of a small cluster isn't taken away before the next one is there
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": _pod(values, name, values.infra, spec),
        },
    }


def _daemonset(values: Values, namespace: str) -> Object:
    name = "virt-handler"
    kubelet = values.kubelet_dir.rstrip("/")
    # Pods' folders appear at the node's own path: that is what libvirt's sockets and the state files name
    folders: dict[str, tuple[str, str, str | None]] = {
        "pods": (f"{kubelet}/pods", "Directory", "HostToContainer"),
        "device-plugins": (_DEVICE_PLUGINS_DIR, "DirectoryOrCreate", None),
        "state": (_STATE_DIR, "DirectoryOrCreate", None),
    }
    arguments = [
        "--node-name=$(NODE_NAME)",
        f"--namespace={namespace}",
        f"--pods-dir={kubelet}/pods",
        f"--state-dir={_STATE_DIR}/handler",
        f"--probe-dir={_PROBE_DIR}",
        f"--device-plugins-dir={_DEVICE_PLUGINS_DIR}",
        "--host-root=/host",
        f"--node-folder={_STATE_DIR}",
        "--server-address=$(POD_IP)",
        f"--server-port={SERVER_PORT}",
    ]
    container = _container(values, name, arguments)
    container["env"] = [
        {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    container["ports"].append({"name": "server", "containerPort": SERVER_PORT, "protocol": "TCP"})
    # Namespaces of Pods, taps, NAT: this is the one privileged part
    container["securityContext"] = {"privileged": True, "runAsUser": 0, "readOnlyRootFilesystem": True}
    container["volumeMounts"] += [
        {"name": each, "mountPath": path, **({"mountPropagation": propagation} if propagation else {})}
        for each, (path, _, propagation) in folders.items()
    ]
    probe = {"name": "probe", "mountPath": _PROBE_DIR}
    # A container's own /dev is as it was when the container started; devices come and go
    container["volumeMounts"] += [{**probe, "readOnly": True}, {"name": "dev", "mountPath": "/host/dev"}]
    spec: Object = {
        "hostPID": True,
        "terminationGracePeriodSeconds": 15,
        # QEMU and libvirtd, which the engine's image hasn't got, say what the node can do
        "initContainers": [
            {
                "name": "node-probe",
                "image": values.launcher_image,
                "imagePullPolicy": values.image_pull_policy,
                "command": ["/usr/bin/virt-node-probe", f"--output={_PROBE_DIR}"],
                "resources": container["resources"],
                "securityContext": {"privileged": True, "runAsUser": 0},
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [probe],
            }
        ],
        "containers": [container],
        "volumes": [
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
            {"name": "probe", "emptyDir": {}},
            {"name": "dev", "hostPath": {"path": "/dev", "type": "Directory"}},
            *({"name": each, "hostPath": {"path": path, "type": type_}} for each, (path, type_, _) in folders.items()),
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": _metadata(name, namespace),
        "spec": {
            "selector": {"matchLabels": {"kubevirt.io": name}},
            # Kubernetes rounds up: one of a few nodes. Of many, one that is dead holds up none of the others
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "template": _pod(values, name, values.workloads, spec),
        },
    }


def _service(
    name: str, namespace: str, selector: dict[str, str], port_name: str, port: int, target: int | str
) -> Object:
    metadata = _metadata(name, namespace)
    spec: Object = {
        "selector": selector,
        "ports": [{"name": port_name, "port": port, "targetPort": target, "protocol": "TCP"}],
    }
    if port_name == "metrics":
        # Each of the Pods has figures of its own
        metadata["labels"][_LABEL_PROMETHEUS] = "true"
        spec["clusterIP"] = "None"
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def _budget(values: Values, namespace: str, name: str) -> Object:
    return {
        "apiVersion": values.policy_version,
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(name, namespace),
        # With one replica a budget of one available would forbid every drain
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"kubevirt.io": name}}},
    }


def _metadata(name: str, namespace: str) -> Object:
    return {"name": name, "namespace": namespace, "labels": {**names.LABELS, "kubevirt.io": name}}


def _pod_labels(name: str) -> dict[str, str]:
    return {**names.LABELS, "kubevirt.io": name, "app.kubernetes.io/component": name, _LABEL_PROMETHEUS: "true"}


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.title() for word in rest)
