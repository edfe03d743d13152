# SPDX-License-Identifier: GPL-3.0-or-later
"""Watchdog, input devices, probes."""

from __future__ import annotations

from turtles.api.objects import Object

_PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}


def default_devices(spec: Object, domain: Object) -> None:
    """Set what watchdog and input devices are, where that is left open."""
    devices = domain["devices"]
    watchdog = devices.get("watchdog")
    if watchdog is not None:
        _default_watchdog(watchdog, spec["architecture"])
    for device in devices.get("inputs") or ():
        device["type"] = device["type"] or "tablet"
        device["bus"] = device.get("bus") or "usb"


def _default_watchdog(watchdog: Object, architecture: str) -> None:
    model = "diag288" if architecture == "s390x" else "i6300esb"
    watchdog[model] = watchdog.get(model) or {}
    for each in ("diag288", "i6300esb"):
        if watchdog.get(each) is not None and not watchdog[each].get("action"):
            watchdog[each].pop("action", None)  # the schema's default is what an absent one has


def default_probes(spec: Object) -> None:
    """Set how often probes are made, and how many decide."""
    for name in ("readinessProbe", "livenessProbe"):
        probe = spec.get(name)
        if probe is None:
            continue
        for field, default in _PROBE.items():
            if (probe.get(field) or 0) < 1:
                probe[field] = default


def attach_input_device(spec: Object) -> None:
    """Add a tablet where the template of a VirtualMachine wants one and declares none.

    Its bus is left to a preference, or else to admission.
    """
    devices = (spec.get("domain") or {}).get("devices") or {}
    if devices.get("autoattachInputDevice") and not devices.get("inputs"):
        devices["inputs"] = [{"name": "default-0", "type": "tablet"}]
