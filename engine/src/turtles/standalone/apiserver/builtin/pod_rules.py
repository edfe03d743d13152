# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Pod must look like, and what an update may change of it.

Source: Kubernetes' pkg/apis/core/validation. Defaults are set before; types are right (decode.py).
"""

import copy
import ipaddress
import json
import re
from collections.abc import Mapping
from typing import Any

from turtles.standalone.apiserver.builtin import network_rules
from turtles.standalone.apiserver.builtin.fields import NOT_NEGATIVE, enum
from turtles.standalone.apiserver.schema.metadata import label_causes, qualified_causes, subdomain_causes
from turtles.standalone.apiserver.wire import quantities
from turtles.standalone.apiserver.wire.errors import (
    Cause,
    Object,
    duplicate,
    field_forbidden,
    invalid_value,
    not_supported,
    required,
)

_IDS = "must be between 0 and 2147483647, inclusive"
_ENV = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*\Z")
_ENV_MESSAGE = (
    "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not "
    "start with a digit (e.g. 'my.env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', regex used for validation is "
    "'[-._a-zA-Z][-._a-zA-Z0-9]*')"
)
_STANDARD = ("cpu", "memory", "ephemeral-storage")
_HEADER = re.compile("[-A-Za-z0-9]+")
_HEADER_MESSAGE = (
    "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for "
    "validation is '[-A-Za-z0-9]+')"
)
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_UPDATES = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
#: Sources of volumes and the field that each of them needs.
_NEEDED = {
    "secret": "secretName",
    "configMap": "name",
    "hostPath": "path",
    "persistentVolumeClaim": "claimName",
    "nfs": "path",
    "iscsi": "iqn",
    "csi": "driver",
}


def _at_least(value: Any, path: str, least: int = 0, why: str = NOT_NEGATIVE) -> list[Cause]:
    return [invalid_value(path, value, why)] if isinstance(value, int) and value < least else []


def validate(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a Pod."""
    spec = obj["spec"]
    causes: list[Cause] = []
    volumes = _volumes(spec.get("volumes") or (), causes)
    seen: set[str] = set()
    if not spec.get("containers"):
        causes.append(required("spec.containers"))
    for field in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            _container(container, f"spec.{field}[{index}]", volumes, seen, causes)
            for number, port in enumerate(container.get("ports") or ()):
                if spec.get("hostNetwork") and port.get("hostPort") != port.get("containerPort"):
                    path = f"spec.{field}[{index}].ports[{number}].containerPort"
                    text = "must match `hostPort` when `hostNetwork` is true"
                    causes.append(invalid_value(path, port.get("containerPort"), text))
            if field == "initContainers" and container.get("restartPolicy") != "Always":
                for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
                    if container.get(probe) is not None:
                        text = "may not be set for init containers without restartPolicy=Always"
                        causes.append(field_forbidden(f"spec.{field}[{index}].{probe}", text))
    causes += enum(spec.get("restartPolicy"), ["Always", "OnFailure", "Never"], "spec.restartPolicy")
    policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]
    causes += enum(spec.get("dnsPolicy"), policies, "spec.dnsPolicy")
    for name, value in (spec.get("nodeSelector") or {}).items():
        causes += qualified_causes("spec.nodeSelector", name)
        causes += qualified_causes("spec.nodeSelector", value) if value else []
    for field in ("nodeName", "serviceAccountName", "schedulerName", "priorityClassName"):
        if spec.get(field):
            causes += subdomain_causes(spec[field], f"spec.{field}")
    for field in ("hostname", "subdomain"):
        if spec.get(field):
            causes += label_causes(spec[field], f"spec.{field}")
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline < 2**31:
        text = "must be between 1 and 2147483647, inclusive"
        causes.append(invalid_value("spec.activeDeadlineSeconds", deadline, text))
    causes += _security(spec.get("securityContext") or {}, "spec.securityContext")
    _tolerations(spec.get("tolerations") or (), causes)
    for alias in spec.get("hostAliases") or ():
        causes += _address(alias.get("ip"), "spec.hostAliases.ip")
        for name in alias.get("hostnames") or ():
            causes += subdomain_causes(name, "spec.hostAliases.hostnames")
    _affinity(spec.get("affinity") or {}, causes)
    if old is not None:
        causes += _update(spec, old["spec"])
    return causes


def _address(text: Any, path: str) -> list[Cause]:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return [invalid_value(path, text or "", "must be valid IP address")]
    return []


def _security(context: Object, path: str) -> list[Cause]:
    profile = context.get("seccompProfile")
    return _ids(context, path) + ([] if profile is None else _seccomp(profile, f"{path}.seccompProfile"))


def _seccomp(profile: Object, path: str) -> list[Cause]:
    kind, local = profile.get("type"), profile.get("localhostProfile")
    if not kind:
        return [required(f"{path}.type", "type is required when seccompProfile is set")]
    causes = enum(kind, ["Localhost", "RuntimeDefault", "Unconfined"], f"{path}.type")
    where = f"{path}.localhostProfile"
    if kind != "Localhost":
        if local is not None:
            causes.append(invalid_value(where, local, "can only be set when seccomp type is Localhost"))
    elif local is None:
        causes.append(required(where, "must be set when seccomp type is Localhost"))
    elif local.startswith("/"):
        causes.append(invalid_value(where, local, "must be a relative path"))
    elif ".." in local.split("/"):
        causes.append(invalid_value(where, local, "must not contain '..'"))
    return causes


def _ids(context: Object, path: str) -> list[Cause]:
    return [
        invalid_value(f"{path}.{field}", context[field], _IDS)
        for field in ("runAsUser", "runAsGroup", "fsGroup")
        if isinstance(context.get(field), int) and not 0 <= context[field] < 2**31
    ]


def _affinity(affinity: Object, causes: list[Cause]) -> None:
    wanted = (affinity.get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    if wanted is not None and not wanted.get("nodeSelectorTerms"):
        path = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
        causes.append(required(path, "must have at least one node selector term"))
    for field in ("podAffinity", "podAntiAffinity"):
        terms = (affinity.get(field) or {}).get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        for index, term in enumerate(terms):
            if not term.get("topologyKey"):
                path = f"spec.affinity.{field}.requiredDuringSchedulingIgnoredDuringExecution[{index}].topologyKey"
                causes.append(required(path, "can not be empty"))


def _name(named: Object, path: str, seen: set[str], causes: list[Cause]) -> None:
    """Check that something has a name, a label of DNS that nothing else has; add it to those seen."""
    name = named.get("name")
    if not name:
        causes.append(required(f"{path}.name"))
    elif name in seen:
        causes.append(duplicate(f"{path}.name", name))
    else:
        causes += label_causes(name, f"{path}.name")
        seen.add(name)


def _volumes(volumes: Any, causes: list[Cause]) -> set[str]:
    names: set[str] = set()
    for index, volume in enumerate(volumes):
        path = f"spec.volumes[{index}]"
        _name(volume, path, names, causes)
        sources = [field for field in volume if field != "name"]
        for field in sources[1:]:
            causes.append(field_forbidden(f"{path}.{field}", "may not specify more than 1 volume type"))
        for field in sources[:1]:
            needed = _NEEDED.get(field)
            if needed and not volume[field].get(needed):
                causes.append(required(f"{path}.{field}.{needed}"))
    return names


def _container(container: Object, path: str, volumes: set[str], seen: set[str], causes: list[Cause]) -> None:
    _name(container, path, seen, causes)
    if not container.get("image"):
        causes.append(required(f"{path}.image"))
    elif container["image"].strip() != container["image"]:
        causes.append(
            invalid_value(f"{path}.image", container["image"], "must not have leading or trailing whitespace")
        )
    policy = container.get("imagePullPolicy")
    if policy:
        causes += enum(policy, ["Always", "IfNotPresent", "Never"], f"{path}.imagePullPolicy")
    if container.get("terminationMessagePolicy") not in ("File", "FallbackToLogsOnError"):
        text = "must be 'File' or 'FallbackToLogsOnError'"
        value = container.get("terminationMessagePolicy")
        causes.append(invalid_value(f"{path}.terminationMessagePolicy", value, text))
    _ports(container.get("ports") or (), f"{path}.ports", causes)
    _environment(container.get("env") or (), f"{path}.env", causes)
    _mounts(container.get("volumeMounts") or (), f"{path}.volumeMounts", volumes, causes)
    for field in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(field) is not None:
            _probe(container[field], f"{path}.{field}", causes)
    causes += _security(container.get("securityContext") or {}, f"{path}.securityContext")
    _resources(container.get("resources") or {}, f"{path}.resources", causes)


def _ports(ports: Any, path: str, causes: list[Cause]) -> None:
    names: set[str] = set()
    for index, port in enumerate(ports):
        where, number, name = f"{path}[{index}]", port.get("containerPort"), port.get("name")
        if name:
            causes += network_rules.port_name_causes(name, f"{where}.name")
            if name in names:
                causes.append(duplicate(f"{where}.name", name))
            names.add(name)
        if not number:
            causes.append(required(f"{where}.containerPort"))
        else:
            causes += network_rules.port_causes(number, f"{where}.containerPort")
        if port.get("hostPort"):
            causes += network_rules.port_causes(port["hostPort"], f"{where}.hostPort")
        causes += network_rules.protocol_causes(port, where)


def _environment(variables: Any, path: str, causes: list[Cause]) -> None:
    for index, variable in enumerate(variables):
        where, name = f"{path}[{index}]", variable.get("name")
        if not name:
            causes.append(required(f"{where}.name"))
        elif not _ENV.match(name):
            causes.append(invalid_value(f"{where}.name", name, _ENV_MESSAGE))
        source = variable.get("valueFrom")
        if source is None:
            continue
        if variable.get("value"):
            text = "may not be specified when `value` is not empty"
            causes.append(invalid_value(f"{where}.valueFrom", "", text))
        elif len(source) != 1:
            text = (
                "may not have more than one field specified at a time"
                if source
                else ("must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`")
            )
            causes.append(invalid_value(f"{where}.valueFrom", "", text))


def _mounts(mounts: Any, path: str, volumes: set[str], causes: list[Cause]) -> None:
    places: set[str] = set()
    for index, mount in enumerate(mounts):
        where, name, place = f"{path}[{index}]", mount.get("name"), mount.get("mountPath")
        if not name:
            causes.append(required(f"{where}.name"))
        elif name not in volumes:
            causes.append(Cause("FieldValueNotFound", f'Not found: "{name}"', f"{where}.name"))
        if not place:
            causes.append(required(f"{where}.mountPath"))
        elif place in places:
            causes.append(invalid_value(f"{where}.mountPath", place, "must be unique"))
        places.add(str(place))
        sub = mount.get("subPath") or ""
        if sub.startswith("/"):
            causes.append(invalid_value(f"{where}.subPath", sub, "must be a relative path"))
        elif ".." in sub.split("/"):
            causes.append(invalid_value(f"{where}.subPath", sub, "must not contain '..'"))


def _probe(probe: Object, path: str, causes: list[Cause]) -> None:
    handlers = [field for field in _HANDLERS if probe.get(field) is not None]
    if not handlers:
        causes.append(required(path, "must specify a handler type"))
    for field in handlers[1:]:
        causes.append(field_forbidden(f"{path}.{field}", "may not specify more than 1 handler type"))
    for field in handlers[:1]:
        port = probe[field].get("port")
        if isinstance(port, int):
            causes += network_rules.port_causes(port, f"{path}.{field}.port")
        elif port is not None:
            causes += network_rules.port_name_causes(str(port), f"{path}.{field}.port")
        if field == "exec" and not probe[field].get("command"):
            causes.append(required(f"{path}.exec.command"))
        for index, header in enumerate(probe[field].get("httpHeaders") or ()):
            if not _HEADER.fullmatch(name := header.get("name") or ""):
                causes.append(invalid_value(f"{path}.{field}.httpHeaders[{index}].name", name, _HEADER_MESSAGE))
    for field in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        causes += _at_least(probe.get(field), f"{path}.{field}")


def _resources(resources: Object, path: str, causes: list[Cause]) -> None:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for field, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            where = f"{path}.{field}[{name}]"
            causes += qualified_causes(where, name)
            if "/" not in name and name not in _STANDARD and not name.startswith("hugepages-"):
                causes.append(invalid_value(where, name, "must be a standard resource type or fully qualified"))
                causes.append(invalid_value(where, name, "must be a standard resource for containers"))
            if quantities.value(amount) < 0:
                causes.append(invalid_value(where, amount, NOT_NEGATIVE))
    for name, amount in requests.items():
        if name not in limits:
            if "/" in name and not name.startswith("kubernetes.io/"):
                causes.append(required(f"{path}.limits", f"Limit must be set for non overcommitable resources: {name}"))
            continue
        limit = quantities.value(limits[name])
        if name in _STANDARD and quantities.value(amount) > limit:
            text = f"must be less than or equal to {name} limit of {limits[name]}"
            causes.append(invalid_value(f"{path}.requests", amount, text))
        elif name not in _STANDARD and quantities.value(amount) != limit:
            text = f"must be equal to {name} limit of {limits[name]}"
            causes.append(invalid_value(f"{path}.requests", amount, text))


def _tolerations(tolerations: Any, causes: list[Cause]) -> None:
    for index, one in enumerate(tolerations):
        path, operator = f"spec.tolerations[{index}]", one.get("operator", "Equal")
        if one.get("key"):
            causes += qualified_causes(f"{path}.key", one["key"])
        elif operator != "Exists":
            text = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            causes.append(invalid_value(f"{path}.operator", one.get("operator", ""), text))
        if one.get("tolerationSeconds") is not None and one.get("effect", "") != "NoExecute":
            text = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            causes.append(invalid_value(f"{path}.effect", one.get("effect", ""), text))
        if operator not in ("Equal", "Exists"):
            causes.append(not_supported(f"{path}.operator", operator, ["Equal", "Exists"]))
        elif operator == "Exists" and one.get("value"):
            causes.append(
                invalid_value(f"{path}.operator", one["value"], "value must be empty when `operator` is 'Exists'")
            )
        if one.get("effect"):
            causes += enum(one["effect"], ["NoSchedule", "PreferNoSchedule", "NoExecute"], f"{path}.effect")


# -- updates


def _update(new: Object, old: Object) -> list[Cause]:
    for field in ("containers", "initContainers"):
        if len(new.get(field) or ()) != len(old.get(field) or ()):
            return [field_forbidden(f"spec.{field}", "pod updates may not add or remove containers")]
    causes: list[Cause] = []
    before, after = old.get("activeDeadlineSeconds"), new.get("activeDeadlineSeconds")
    if before is not None and (after is None or after > before):
        text = "must be less than or equal to previous value"
        if after is None:
            text = "must not update from a positive integer to nil value"
        causes.append(invalid_value("spec.activeDeadlineSeconds", after, text))
    kept = {_without_seconds(one) for one in new.get("tolerations") or ()}
    if any(_without_seconds(one) not in kept for one in old.get("tolerations") or ()):
        text = "existing toleration can not be modified except its tolerationSeconds"
        causes.append(field_forbidden("spec.tolerations", text))
    if _fixed(new, old) != _fixed(old, old):
        causes.append(field_forbidden("spec", _UPDATES))
    return causes


def _without_seconds(toleration: Mapping[str, Any]) -> str:
    return json.dumps({k: v for k, v in toleration.items() if k != "tolerationSeconds"}, sort_keys=True)


def _fixed(spec: Object, old: Object) -> Object:
    """Return what must stay of a Pod's spec: one with scheduling gates may still get constraints on its node."""
    free = {"activeDeadlineSeconds", "tolerations"}
    if old.get("schedulingGates"):
        free |= {"schedulingGates", "nodeSelector", "affinity"}
    if old.get("terminationGracePeriodSeconds", 0) < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        free.add("terminationGracePeriodSeconds")
    fixed = {name: value for name, value in spec.items() if name not in free}
    for field in ("containers", "initContainers"):
        if fixed.get(field):
            fixed[field] = [{n: v for n, v in copy.copy(one).items() if n != "image"} for one in fixed[field]]
    return fixed
