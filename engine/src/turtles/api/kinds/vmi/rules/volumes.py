# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about volumes: what backs disks and filesystems."""

from __future__ import annotations

import binascii
import posixpath
from collections.abc import Callable

from turtles.api import quantity
from turtles.api.configuration import ClusterConfiguration
from turtles.api.feature_gates import DOWNWARD_METRICS, HOST_DISK
from turtles.api.kinds.vmi.rules.common import Rule
from turtles.api.kinds.vmi.schema.volumes import VOLUME_SOURCES
from turtles.api.language import INVALID, NOT_FOUND, REQUIRED, Cause
from turtles.api.objects import get
from turtles.api.rules import Causes, Spec, one_of, subdomain_problems

_MAX_CLOUD_INIT = 2048
_MIN_CAPACITY = 512
_MAX_LABEL = 32
_HOST_DISK_TYPES = ("Disk", "DiskOrCreate")
#: Sources of which a machine has one at most, with the words for them in a refusal.
_SINGLE = {
    "serviceAccount": "serviceAccount volume",
    "downwardMetrics": "downwardMetric volume",
    "memoryDump": "memory dump volume",
}
#: Directories of the Pod that aren't for guests. Those of the engine are refused to instances, with other words.
_RESERVED_PATHS = ("/", "/proc", "/sys", "/dev")
_RESERVED_PREFIXES = ("/run/kubevirt", "/run/libvirt", "/proc/", "/sys/", "/dev/")

_Judge = Callable[[Spec, str, str, ClusterConfiguration], Causes]


def _volumes(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    where = f"{path}.volumes"
    volumes = spec.get("volumes") or ()
    first: dict[str, int] = {}
    for index, volume in enumerate(volumes):
        here, name = f"{where}[{index}]", volume["name"]
        if name in first:
            message = f"{here} and {where}[{first[name]}] must not have the same Name."
            yield Cause(INVALID, message, f"{here}.name")
        first.setdefault(name, index)
        if get(volume, "dataVolume", "name") == "":
            yield Cause(REQUIRED, "DataVolume 'name' must be set", f"{here}.name")
        sources = [source for source in VOLUME_SOURCES if volume.get(source) is not None]
        if len(sources) != 1:
            yield Cause(INVALID, f"{here} must have exactly one source type set", here)
        for source, judge in _JUDGES.items():
            if source in sources:
                yield from judge(volume[source], f"{here}.{source}", here, config)
    for source, words in _SINGLE.items():
        if sum(volume.get(source) is not None for volume in volumes) > 1:
            yield Cause(INVALID, f"{where} must have max one {words} set", where)


def _cloud_init(source: Spec, here: str, volume: str, config: ClusterConfiguration) -> Causes:
    kind_of_source = here.rpartition(".")[2]
    found = 0
    for kind, secret, many, advice in (
        ("userData", "secretRef", "userdatasource", "UserDataSecretRef"),
        ("networkData", "networkDataSecretRef", "networkdata source", "NetworkDataSecretRef"),
    ):
        text, encoded = source.get(kind), source.get(f"{kind}Base64")
        size = 0
        if encoded:
            try:
                size = len(binascii.a2b_base64(encoded.replace("\r", "").replace("\n", ""), strict_mode=True))
            except (binascii.Error, ValueError):
                # Clients know it by these words, which name the field twice.
                field = f"{here}.{kind}Base64"
                message = f"{field}.{kind_of_source}.{kind}Base64 is not a valid base64 value."
                yield Cause(INVALID, message, field)
        if text:
            size = len(text.encode(errors="surrogatepass"))
        count = sum(bool(value) for value in (text, encoded, get(source, secret, "name")))
        if count > 1:
            yield Cause(INVALID, f"{here} must have only one {many} set.", here)
        if size > _MAX_CLOUD_INIT:
            message = (
                f"{here} {kind.lower()} exceeds {_MAX_CLOUD_INIT} byte limit. Should use {advice} for larger data."
            )
            yield Cause(INVALID, message, here)
        found += count
    if not found:
        yield Cause(INVALID, f"{here} must have at least one userdatasource or one networkdatasource set.", here)


def _downward_metrics(source: Spec, here: str, volume: str, config: ClusterConfiguration) -> Causes:
    if not config.has_gate(DOWNWARD_METRICS):
        message = f"downwardMetrics disks are not allowed: {DOWNWARD_METRICS} feature gate is not enabled."
        yield Cause(INVALID, message, volume)


def _host_disk(source: Spec, here: str, volume: str, config: ClusterConfiguration) -> Causes:
    if not config.has_gate(HOST_DISK):
        yield Cause(INVALID, f"{HOST_DISK} feature gate is not enabled", volume)
    path, kind = source["path"], source["type"]
    if not path:
        yield Cause(NOT_FOUND, f"{here}.path is required for hostDisk volume", f"{here}.path")
    elif not _is_plain_path(path):
        yield Cause(INVALID, f"{here}.path must be an absolute path without relative components", f"{here}.path")
    if kind not in _HOST_DISK_TYPES:
        one, other = _HOST_DISK_TYPES
        message = f"{here}.type has invalid value '{kind}', allowed are '{one}' or '{other}'"
        yield Cause(INVALID, message, f"{here}.type")
    capacity = quantity.parse(source.get("capacity") or 0)
    if kind == "Disk" and capacity:
        message = f"{here}.capacity is allowed to pass only with {here}.type equal to 'DiskOrCreate'"
        yield Cause(INVALID, message, f"{here}.capacity")
    if capacity < 0:
        message = f"{here}.capacity '{source['capacity']}': must be greater than or equal to 0."
        yield Cause(INVALID, message, f"{here}.capacity")


def _config_map(source: Spec, here: str, volume: str, config: ClusterConfiguration) -> Causes:
    yield from _named(source.get("name"), f"{here}.name")
    yield from _volume_label(source, here)


def _secret(source: Spec, here: str, volume: str, config: ClusterConfiguration) -> Causes:
    yield from _named(source.get("secretName"), f"{here}.secretName")
    yield from _volume_label(source, here)


def _service_account(source: Spec, here: str, volume: str, config: ClusterConfiguration) -> Causes:
    yield from _named(source.get("serviceAccountName"), f"{here}.serviceAccountName")


def _downward_api(source: Spec, here: str, volume: str, config: ClusterConfiguration) -> Causes:
    for index, file in enumerate(source.get("fields") or ()):
        path = file["path"]
        if not path or not _is_plain_path(f"/{path}"):
            field = f"{here}.fields[{index}].path"
            yield Cause(INVALID, f"{field} must be a relative path without relative components", field)
    yield from _volume_label(source, here)


def _sysprep(source: Spec, here: str) -> Causes:
    names = [get(source, kind, "name") for kind in ("configMap", "secret")]
    if sum(bool(name) for name in names) != 1:
        yield Cause(INVALID, f"{here} must have either configMap or secret set", here)


def _container_path(source: Spec, here: str, volume: str, config: ClusterConfiguration) -> Causes:
    path = source["path"]
    if not _is_plain_path(path):
        yield Cause(INVALID, f"{here}.path must be an absolute path without relative components", f"{here}.path")
    elif path in _RESERVED_PATHS or path.startswith(_RESERVED_PREFIXES):
        yield Cause(INVALID, f"{here}.path {path} is reserved", f"{here}.path")
    if source.get("readOnly") is False:
        yield Cause(INVALID, f"{here}.readOnly must be true", f"{here}.readOnly")


def _empty_disk(source: Spec, here: str, volume: str, config: ClusterConfiguration) -> Causes:
    if quantity.parse(source["capacity"]) < 0:
        message = f"{here}.capacity '{source['capacity']}': must be greater than or equal to 0."
        yield Cause(INVALID, message, f"{here}.capacity")


def _small_disk(source: Spec, here: str) -> Causes:
    if quantity.parse(source["capacity"]) < _MIN_CAPACITY:
        message = f"{here}.capacity '{source['capacity']}': must be greater than or equal to {_MIN_CAPACITY}."
        yield Cause(INVALID, message, f"{here}.capacity")


def _claim(source: Spec, here: str) -> Causes:
    for problem in subdomain_problems(source["claimName"]):
        yield Cause(INVALID, f"{here}.claimName: {problem}", f"{here}.claimName")


def _ephemeral(source: Spec, here: str) -> Causes:
    claim = source.get("persistentVolumeClaim")
    if claim is None:
        yield Cause(REQUIRED, f"{here}.persistentVolumeClaim is a required field", f"{here}.persistentVolumeClaim")
    else:
        yield from _claim(claim, f"{here}.persistentVolumeClaim")


def _data_volume(source: Spec, here: str) -> Causes:
    for problem in subdomain_problems(source["name"]) if source["name"] else ():
        yield Cause(INVALID, f"{here}.name: {problem}", f"{here}.name")


def _container_disk_paths(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    for index, volume in enumerate(spec.get("volumes") or ()):
        source, here = volume.get("containerDisk") or {}, f"{path}.volumes[{index}].containerDisk"
        if source.get("path") == "/":
            yield Cause(INVALID, f"{here} must not point to root", here)
        elif source.get("path") and not _is_plain_path(source["path"]):
            yield Cause(INVALID, f"{here} must be an absolute path to a file without relative components", here)


def _container_disk(source: Spec, here: str) -> Causes:
    if not source["image"].strip():
        yield Cause(REQUIRED, f"{here}.image is a required field", f"{here}.image")
    policies = ("Always", "IfNotPresent", "Never")
    yield from one_of(source.get("imagePullPolicy"), f"{here}.imagePullPolicy", policies)


def _without_content(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    for index, volume in enumerate(spec.get("volumes") or ()):
        for source, judge in _FUTILE_SOURCES.items():
            if volume.get(source) is not None:
                yield from judge(volume[source], f"{path}.volumes[{index}].{source}")


def _utility_volumes(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    if spec.get("utilityVolumes") is not None:
        message = "cannot create VMI with utility volumes in spec, utility volumes can only be added via hotplug"
        yield Cause(INVALID, message, f"{path}.utilityVolumes")


def _account_of_pod(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    name, here = spec.get("serviceAccountName"), f"{path}.serviceAccountName"
    if not name:
        return
    if problems := subdomain_problems(name):
        yield Cause(INVALID, f"{here} is not a valid service account name: {'; '.join(problems)}", here)
    for volume in spec.get("volumes") or ():
        other = get(volume, "serviceAccount", "serviceAccountName")
        if volume.get("serviceAccount") is not None and other != name:
            message = (
                f'spec.serviceAccountName "{name}" and serviceAccount volume "{other or ""}" must reference the same '
                "service account"
            )
            yield Cause(INVALID, message, here)
            return


def _is_plain_path(path: str) -> bool:
    """Tell whether a path is absolute, and the shortest way to write it but for a slash at its end."""
    return path.isprintable() and posixpath.normpath("/" + path.lstrip("/")) == (path.removesuffix("/") or "/")


def _named(name: str | None, here: str) -> Causes:
    if not name:
        yield Cause(INVALID, f"{here} is a required field", here)


def _volume_label(source: Spec, here: str) -> Causes:
    if not (source.get("volumeLabel") or "").isprintable():
        yield Cause(INVALID, f"{here}.volumeLabel must be printable characters", f"{here}.volumeLabel")


def _long_label(source: Spec, here: str) -> Causes:
    label = source.get("volumeLabel") or ""
    if len(label) > _MAX_LABEL or not label.isascii():
        message = f"{here}.volumeLabel must be up to {_MAX_LABEL} printable ASCII characters"
        yield Cause(INVALID, message, f"{here}.volumeLabel")


#: In the order in which a volume's sources are judged.
_JUDGES: dict[str, _Judge] = {
    "cloudInitNoCloud": _cloud_init,
    "cloudInitConfigDrive": _cloud_init,
    "downwardMetrics": _downward_metrics,
    "hostDisk": _host_disk,
    "configMap": _config_map,
    "secret": _secret,
    "serviceAccount": _service_account,
    "downwardAPI": _downward_api,
    "containerPath": _container_path,
    "emptyDisk": _empty_disk,
}
_FUTILE_SOURCES: dict[str, Callable[[Spec, str], Causes]] = {
    "containerDisk": _container_disk,
    "configMap": _long_label,
    "secret": _long_label,
    "downwardAPI": _long_label,
    "sysprep": _sysprep,
    "emptyDisk": _small_disk,
    "persistentVolumeClaim": _claim,
    "memoryDump": _claim,
    "ephemeral": _ephemeral,
    "dataVolume": _data_volume,
}

#: About new VirtualMachineInstances only.
CREATION: tuple[Rule, ...] = (_utility_volumes,)
PATHS: tuple[Rule, ...] = (_container_disk_paths,)
RULES: tuple[Rule, ...] = (_volumes, *PATHS)
#: What is judged after everything else.
LAST: tuple[Rule, ...] = (_account_of_pod,)
FUTILE: tuple[Rule, ...] = (_without_content,)
