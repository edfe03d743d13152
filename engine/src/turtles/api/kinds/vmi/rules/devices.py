# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about devices other than disks and interfaces."""

from __future__ import annotations

from collections.abc import Sequence

from turtles.api.configuration import ClusterConfiguration
from turtles.api.feature_gates import DOWNWARD_METRICS, GPUS_WITH_DRA, HOST_DEVICES, HOST_DEVICES_WITH_DRA, VSOCK
from turtles.api.kinds.vmi.rules.common import Rule
from turtles.api.language import DUPLICATE, INVALID, NOT_SUPPORTED, REQUIRED, Cause
from turtles.api.objects import get
from turtles.api.rules import Causes, Spec, one_of

#: Types of graphics cards, by architecture.
_VIDEO_TYPES = {
    "amd64": ("vga", "cirrus", "virtio", "ramfb", "bochs"),
    "arm64": ("virtio", "ramfb"),
    "s390x": ("virtio",),
}
_PANIC_MODELS = ("hyperv", "isa", "pvpanic")
_SOUND_MODELS = ("ich9", "ac97")
_WATCHDOG_ACTIONS = ("poweroff", "reset", "shutdown")
#: Requests of resource claims that devices come from (claim, request), with the first device of each.
_Requests = dict[tuple[str, str], int]


def _devices(spec: Spec) -> Spec:
    found: Spec = get(spec, "domain", "devices") or {}
    return found


# --- GPUs and host devices -------------------------------------------------------------------------------------------


def _resource_claims(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    claims = [claim["name"] for claim in spec.get("resourceClaims") or ()]
    for index, name in enumerate(claims):
        if name in claims[:index]:
            message = f'duplicate resourceClaims name "{name}"'
            yield Cause(DUPLICATE, message, f"{path}.resourceClaims[{index}].name")
    gpus: _Requests = {}
    host_devices: _Requests = {}
    where = f"{path}.domain.devices"
    yield from _claimed_gpus(_devices(spec).get("gpus") or (), f"{where}.gpus", config, gpus)
    others = _devices(spec).get("hostDevices") or ()
    yield from _claimed_host_devices(others, f"{where}.hostDevices", config, host_devices)
    for request, index in host_devices.items():
        if (gpu := gpus.get(request)) is not None:
            message = (
                f'duplicate claimName/requestName pair "{"/".join(request)}" between GPUs[{gpu}] and '
                f"HostDevices[{index}]"
            )
            yield Cause(DUPLICATE, message, f"{where}.hostDevices[{index}]")
    if not {claim for claim, _ in (*gpus, *host_devices)} <= set(claims):
        message = (
            "vmi.spec.resourceClaims must specify all claims used in vmi.spec.domain.devices.gpus and "
            "vmi.spec.domain.devices.hostDevices"
        )
        yield Cause(INVALID, message, f"{path}.resourceClaims")


def is_claimed(device: Spec) -> bool:
    """Say whether a GPU or host device comes from a resource claim rather than from a device plugin."""
    return not device.get("deviceName") and _has_claim(device)


def _has_claim(device: Spec) -> bool:
    return any(device.get(key) is not None for key in ("claimName", "requestName"))


def _claimed_gpus(gpus: Sequence[Spec], here: str, config: ClusterConfiguration, used: _Requests) -> Causes:
    claimed = [gpu for gpu in gpus if is_claimed(gpu)]
    if claimed and len(claimed) < len(gpus):
        message = (
            "vmi.spec.domain.devices.gpus contains both DRA and non-DRA GPUs; each GPU must be either DRA or non-DRA"
        )
        yield Cause(INVALID, message, here)
        return
    if not claimed:
        for gpu in gpus:
            yield from _plugin_device(gpu, here, "GPU", "gpus")
    elif not config.has_gate(GPUS_WITH_DRA):
        message = "vmi.spec.domain.devices.gpus contains DRA enabled GPUs but feature gate is not enabled"
        yield Cause(INVALID, message, here)
    else:
        yield from _claims([*enumerate(claimed)], here, "GPU", used)


def _claimed_host_devices(devices: Sequence[Spec], here: str, config: ClusterConfiguration, used: _Requests) -> Causes:
    claimed = [(index, device) for index, device in enumerate(devices) if is_claimed(device)]
    for device in devices:
        if not is_claimed(device):
            yield from _plugin_device(device, here, "HostDevice", "hostDevices")
    if claimed and not config.has_gate(HOST_DEVICES_WITH_DRA):
        message = "vmi.spec.domain.devices.hostDevices contains DRA enabled HostDevices but feature gate is not enabled"
        yield Cause(INVALID, message, here)
    else:
        yield from _claims(claimed, here, "HostDevice", used)


def _plugin_device(device: Spec, here: str, kind: str, field: str) -> Causes:
    where = f"vmi.spec.domain.devices.{field} contains {kind}s"
    if not device.get("deviceName"):
        message = (
            f"{where} without deviceName or claimRequest; each {kind} must specify either a deviceName or a "
            "claimRequest"
        )
        yield Cause(REQUIRED, message, here)
    elif _has_claim(device):
        yield Cause(INVALID, f"{where} with both deviceName and claimRequest", here)


def _claims(claimed: Sequence[tuple[int, Spec]], here: str, kind: str, used: _Requests) -> Causes:
    whole = []
    for index, device in claimed:
        missing = [key for key in ("claimName", "requestName") if not device.get(key)]
        for key in missing:
            yield Cause(REQUIRED, f"{key} is required for DRA {kind}", f"{here}[{index}].{key}")
        if not missing:
            whole.append((index, device))
    for index, device in whole:
        request = (device["claimName"], device["requestName"])
        if request in used:
            message = f'duplicate claimName/requestName pair "{"/".join(request)}"'
            yield Cause(DUPLICATE, message, f"{here}[{index}]")
        used.setdefault(request, index)


# --- inputs ----------------------------------------------------------------------------------------------------------


def _inputs(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    for index, device in enumerate(_devices(spec).get("inputs") or ()):
        here = f"{path}.domain.devices.inputs[{index}]"
        if (device.get("bus") or "usb") not in ("virtio", "usb"):
            yield Cause(INVALID, "Input device can have only virtio or usb bus.", f"{here}.bus")
        if device["type"] != "tablet":
            yield Cause(INVALID, "Input device can have only tablet type.", f"{here}.type")


# --- others ----------------------------------------------------------------------------------------------------------


def _frame_buffers(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    if sum(has_frame_buffer(gpu) for gpu in _devices(spec).get("gpus") or ()) > 1:
        yield Cause(INVALID, "configuring multiple displays with ramfb is not valid ", f"{path}.GPUs")


def has_display(gpu: Spec) -> bool:
    """Say whether a virtual GPU has a display."""
    display = get(gpu, "virtualGPUOptions", "display")
    return display is not None and display.get("enabled") is not False


def has_frame_buffer(gpu: Spec) -> bool:
    """Say whether the display of a virtual GPU has a frame buffer for the time until the guest has its driver."""
    if not has_display(gpu):
        return False
    frame_buffer = get(gpu, "virtualGPUOptions", "display", "ramFB")
    return frame_buffer is None or frame_buffer.get("enabled") is not False


def _host_devices(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    if _devices(spec).get("hostDevices") and not config.has_gate(HOST_DEVICES):
        message = "Host Devices feature gate is not enabled in kubevirt-config"
        yield Cause(INVALID, message, f"{path}.HostDevices")


def _sound(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    sound = _devices(spec).get("sound")
    if sound is None:
        return
    if sound.get("model") and sound["model"] not in _SOUND_MODELS:
        message = "Sound device type is not supported. Options: 'ich9' or 'ac97'"
        yield Cause(INVALID, message, f"{path}.Sound")
    if not sound["name"]:
        yield Cause(INVALID, "Sound device requires a name field.", f"{path}.Sound")


def _vsock(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    if _devices(spec).get("autoattachVSOCK") and not config.has_gate(VSOCK):
        message = f"{VSOCK} feature gate is not enabled in kubevirt-config"
        yield Cause(INVALID, message, f"{path}.domain.devices.autoattachVSOCK")


def _downward_metrics(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    if _devices(spec).get("downwardMetrics") is not None and not config.has_gate(DOWNWARD_METRICS):
        message = f"downwardMetrics virtio serial is not allowed: {DOWNWARD_METRICS} feature gate is not enabled"
        yield Cause(INVALID, message, f"{path}.domain.devices.downwardMetrics")


def _video(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    devices = _devices(spec)
    if devices.get("video") is not None and devices.get("autoattachGraphicsDevice") is False:
        message = "Video configuration is not allowed when autoattachGraphicsDevice is set to false"
        yield Cause(INVALID, message, f"{path}.video")


def _panic_devices(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    devices = _devices(spec).get("panicDevices") or ()
    here = f"{path}.domain.devices.panicDevices"
    architecture = spec.get("architecture") or config.architecture
    if devices and architecture == "s390x":
        message = f"custom panic devices are not supported on {architecture} architecture"
        yield Cause(INVALID, message, here)
    for index, device in enumerate(devices):
        model = device.get("model")
        if model is not None and model not in _PANIC_MODELS:
            yield Cause(INVALID, f"invalid PanicDeviceModel({model})", f"{here}[{index}].model")


def _watchdog_action(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    for model in ("i6300esb", "diag288"):
        action = get(_devices(spec), "watchdog", model, "action")
        yield from one_of(action, f"{path}.domain.devices.watchdog.{model}.action", _WATCHDOG_ACTIONS)


def watchdog_of_architecture(spec: Spec, path: str) -> Causes:
    """Tell of a watchdog that the machine's architecture doesn't have; to be asked once defaults are set."""
    watchdog = _devices(spec).get("watchdog")
    if watchdog is None:
        return
    models = {model for model in ("i6300esb", "diag288") if watchdog.get(model) is not None}
    here = f"{path}.domain.devices.watchdog"
    architecture = spec.get("architecture")
    if architecture == "amd64" and models != {"i6300esb"}:
        yield Cause(NOT_SUPPORTED, "amd64 only supports I6300ESB watchdog device", here)
    elif architecture == "s390x" and models != {"diag288"}:
        yield Cause(NOT_SUPPORTED, "s390x only supports Diag288 watchdog device", here)
    elif architecture == "arm64":
        yield Cause(NOT_SUPPORTED, "Arm64 not support Watchdog device", here)


def sound_of_architecture(spec: Spec, path: str) -> Causes:
    """Tell of a sound card that the machine's architecture doesn't have."""
    if spec.get("architecture") == "arm64" and _devices(spec).get("sound") is not None:
        yield Cause(NOT_SUPPORTED, "Arm64 not support sound device", f"{path}.domain.devices.sound")


def video_of_architecture(spec: Spec, path: str) -> Causes:
    """Tell of a graphics card that the machine's architecture doesn't have."""
    video = _devices(spec).get("video")
    architecture = spec.get("architecture") or ""
    if video is None or architecture not in _VIDEO_TYPES:
        return
    kind = video.get("type") or ""
    if kind not in _VIDEO_TYPES[architecture]:
        message = f"video model '{kind}' is not supported on {architecture} architecture"
        yield Cause(NOT_SUPPORTED, message, f"{path}.domain.devices.video.type")


#: Before the rules about disks.
CLAIMED: tuple[Rule, ...] = (_resource_claims,)
#: After what disks are mapped to.
FIRST: tuple[Rule, ...] = (_inputs,)

#: After the rules about disks and volumes; between these groups are rules about other things.
ASSIGNED: tuple[Rule, ...] = (_frame_buffers, _host_devices, _sound)
GATED: tuple[Rule, ...] = (_vsock, _downward_metrics)
LAST: tuple[Rule, ...] = (_video, _panic_devices)
FUTILE: tuple[Rule, ...] = (_watchdog_action,)
#: All of them that hold for more than new objects.
RULES: tuple[Rule, ...] = (*FIRST, *ASSIGNED, *GATED, *LAST)
