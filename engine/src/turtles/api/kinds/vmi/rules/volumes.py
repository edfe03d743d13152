# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about disks and the volumes that feed them."""

from __future__ import annotations

import base64
import binascii
import posixpath
from collections.abc import Callable

from turtles.api import quantity
from turtles.api.configuration import ClusterConfiguration
from turtles.api.kinds.vmi.rules.common import MAX_STRING, SERIAL, Rule
from turtles.api.language import INVALID, NOT_SUPPORTED, REQUIRED, UNSUPPORTED, Cause
from turtles.api.objects import get
from turtles.api.rules import Causes, Spec, label_problems, one_of, subdomain_problems

_MAX_CLOUD_INIT = 2048
_BUSES = ("virtio", "scsi", "sata", "usb")
_VOLUME_SOURCES = ("containerDisk", "cloudInitNoCloud", "cloudInitConfigDrive", "emptyDisk", "persistentVolumeClaim")


def _disks(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    volumes = {volume["name"] for volume in spec.get("volumes") or ()}
    where = f"{path}.domain.devices.disks"
    first: dict[str, int] = {}
    for index, disk in enumerate(get(spec, "domain", "devices", "disks") or ()):
        here, name = f"{where}[{index}]", disk["name"]
        if name not in volumes:
            if disk.get("cdrom") is None:
                yield Cause(INVALID, f"{here}.Name '{name}' not found.", f"{here}.name")
            else:
                message = f"{here}.Name '{name}' not found; an empty CD-ROM disk is {UNSUPPORTED}"
                yield Cause(NOT_SUPPORTED, message, f"{here}.name")
        if name in first:
            message = f"{here} and {where}[{first[name]}] must not have the same Name."
            yield Cause(INVALID, message, f"{here}.name")
        first.setdefault(name, index)
        # The name becomes that of a volume of the Pod
        for problem in label_problems(name):
            yield Cause(INVALID, problem, f"{here}.name")
        yield from _disk_target(disk, here)
        yield from _disk_tuning(disk, here)


def _disk_target(disk: Spec, here: str) -> Causes:
    targets = [name for name in ("disk", "cdrom") if disk.get(name) is not None]
    if len(targets) > 1:
        yield Cause(INVALID, f"{here} can only have a single target type defined", here)
        return
    if not targets:
        return
    kind = targets[0]
    target = disk[kind]
    bus = target.get("bus") or ""
    field = f"{here}.{kind}.bus"
    if bus == "ide":
        yield Cause(INVALID, "IDE bus is not supported", field)
    elif bus == "virtio" and kind == "cdrom":
        yield Cause(INVALID, f"Bus type {bus} is invalid for CD-ROM device", field)
    elif bus in ("", "sata") and kind == "disk" and target.get("readonly"):
        yield Cause(INVALID, "sata hard-disks do not support read-only.", field)
    elif bus and bus not in _BUSES:
        message = f"{here} is set with an unrecognized bus {bus}, must be one of: [{' '.join(_BUSES)}]"
        yield Cause(INVALID, message, field)
    if kind == "cdrom":
        yield from one_of(target.get("tray"), f"{here}.cdrom.tray", ("open", "closed"))


def _disk_tuning(disk: Spec, here: str) -> Causes:
    serial = disk.get("serial")
    if serial and not SERIAL.fullmatch(serial):
        message = f"{here} must be made up of the following characters [A-Za-z0-9_.+-], if specified"
        yield Cause(INVALID, message, f"{here}.serial")
    if serial and len(serial) > MAX_STRING:
        message = f"{here} must be less than or equal to {MAX_STRING} in length, if specified"
        yield Cause(INVALID, message, f"{here}.serial")
    cache = disk.get("cache")
    if cache and cache not in ("none", "writethrough", "writeback"):
        yield Cause(INVALID, f"{here}.cache has invalid value {cache}", f"{here}.cache")
    if disk.get("io") and disk["io"] not in ("native", "threads", "default"):
        message = f"Disk IO mode for {here} is not supported. Supported modes are: native, threads, default."
        yield Cause(NOT_SUPPORTED, message, f"{here}.io")
    if disk.get("io") == "native" and cache in ("writethrough", "writeback"):
        yield Cause(INVALID, f"{here}.io native needs cache none, not {cache}", f"{here}.io")
    policy = disk.get("errorPolicy")
    if policy is not None and policy not in ("stop", "ignore", "report", "enospace"):
        yield Cause(INVALID, f'{here}.errorPolicy has invalid value "{policy}"', f"{here}.errorPolicy")


def _volumes(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    where = f"{path}.volumes"
    first: dict[str, int] = {}
    for index, volume in enumerate(spec.get("volumes") or ()):
        here, name = f"{where}[{index}]", volume["name"]
        if name in first:
            message = f"{here} and {where}[{first[name]}] must not have the same Name."
            yield Cause(INVALID, message, f"{here}.name")
        first.setdefault(name, index)
        sources = [source for source in _VOLUME_SOURCES if volume.get(source) is not None]
        if len(sources) != 1:
            yield Cause(INVALID, f"{here} must have exactly one source type set", here)
            continue
        source = sources[0]
        yield from _VOLUME_RULES[source](volume[source], f"{here}.{source}")
        # With a disk the name is checked there; one without gets a disk of the same name
        if not any(disk["name"] == name for disk in get(spec, "domain", "devices", "disks") or ()):
            for problem in label_problems(name):
                yield Cause(INVALID, problem, f"{here}.name")


def _container_disk(source: Spec, here: str) -> Causes:
    if not source["image"].strip():
        yield Cause(REQUIRED, f"{here}.image is a required field", f"{here}.image")
    yield from one_of(source.get("imagePullPolicy"), f"{here}.imagePullPolicy", ("Always", "IfNotPresent", "Never"))
    path = source.get("path")
    if not path:
        return
    if path == "/":
        yield Cause(INVALID, f"{here} must not point to root", here)
    elif "\0" in path or posixpath.normpath("/" + path.lstrip("/")) != path.removesuffix("/"):
        yield Cause(INVALID, f"{here} must be an absolute path to a file without relative components", here)


def _cloud_init(source: Spec, here: str) -> Causes:
    counts = []
    for kind, secret, many, advice in (
        ("userData", "secretRef", "userdatasource", "UserDataSecretRef"),
        ("networkData", "networkDataSecretRef", "networkdata source", "NetworkDataSecretRef"),
    ):
        text, encoded = source.get(kind), source.get(f"{kind}Base64")
        named = get(source, secret, "name")
        size = len(text.encode(errors="surrogatepass")) if text else 0
        if encoded:
            try:
                size = len(base64.b64decode(encoded.replace("\r", "").replace("\n", ""), validate=True))
            except (binascii.Error, ValueError):
                message = f"{here}.{kind}Base64 is not a valid base64 value."
                yield Cause(INVALID, message, f"{here}.{kind}Base64")
        count = sum(bool(value) for value in (text, encoded, named))
        if count > 1:
            yield Cause(INVALID, f"{here} must have only one {many} set.", here)
        if size > _MAX_CLOUD_INIT:
            message = (
                f"{here} {kind.lower()} exceeds {_MAX_CLOUD_INIT} byte limit. Should use {advice} for larger data."
            )
            yield Cause(INVALID, message, here)
        counts.append(count)
    if not any(counts):
        yield Cause(INVALID, f"{here} must have at least one userdatasource or one networkdatasource set.", here)


def _empty_disk(source: Spec, here: str) -> Causes:
    if quantity.parse(source["capacity"]) < 512:
        message = f"{here}.capacity '{source['capacity']}': must be greater than or equal to 512."
        yield Cause(INVALID, message, f"{here}.capacity")


def _claim(source: Spec, here: str) -> Causes:
    for problem in subdomain_problems(source["claimName"]):
        yield Cause(INVALID, f"{here}.claimName: {problem}", f"{here}.claimName")


def volumes_without_disk(spec: Spec, path: str) -> Causes:
    """Tell of volumes without a disk. In a template they are none yet: the instance gets the disks."""
    disks = {disk["name"] for disk in get(spec, "domain", "devices", "disks") or ()}
    for index, volume in enumerate(spec.get("volumes") or ()):
        if volume["name"] not in disks:
            here = f"{path}.domain.volumes[{index}].name"
            yield Cause(INVALID, f"{here} '{volume['name']}' not found.", here)


_VOLUME_RULES: dict[str, Callable[[Spec, str], Causes]] = {
    "containerDisk": _container_disk,
    "cloudInitNoCloud": _cloud_init,
    "cloudInitConfigDrive": _cloud_init,
    "emptyDisk": _empty_disk,
    "persistentVolumeClaim": _claim,
}


RULES: tuple[Rule, ...] = (
    _disks,
    _volumes,
)
