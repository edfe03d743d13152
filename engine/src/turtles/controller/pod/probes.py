# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes of a launcher Pod: those of its VMI, carried out on the guest. Pure.

The kubelet connects to ports itself: under both bindings the Pod's address leads to the guest. For what only the
guest's agent can do, it runs virt-probe in the Pod (KubeVirt user guide, "Liveness and Readiness Probes").
"""

from collections.abc import Mapping
from typing import Any

from turtles.api.objects import Object
from turtles.domain import paths

KINDS = ("livenessProbe", "readinessProbe")
#: Seconds that libvirt and the guest's domain need to be there, before the first probe.
_START = 10
#: Seconds that virt-probe itself may take in addition to the guest.
_DETOUR = 1
_SETTINGS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")


def probes(vmi: Object) -> dict[str, Object]:
    """Return the probes of the launcher's container."""
    spec = vmi["spec"]
    return {kind: _probe(vmi["metadata"], spec[kind]) for kind in KINDS if spec.get(kind) is not None}


def _probe(metadata: Mapping[str, Any], probe: Mapping[str, Any]) -> Object:
    settings = {key: probe[key] for key in _SETTINGS if probe.get(key) is not None}
    settings["initialDelaySeconds"] = settings.get("initialDelaySeconds", 0) + _START
    for handler in ("httpGet", "tcpSocket"):
        if probe.get(handler) is not None:
            return {handler: probe[handler], **settings}
    seconds = settings.get("timeoutSeconds") or 1
    settings["timeoutSeconds"] = seconds + _DETOUR
    domain = paths.domain_name(metadata["namespace"], metadata["name"])
    command = ["virt-probe", "--domainName", domain, "--timeoutSeconds", str(seconds)]
    if probe.get("guestAgentPing") is not None:
        command.append("--guestAgentPing")
    else:
        program, *arguments = (probe.get("exec") or {}).get("command") or [""]
        command += ["--command", program, "--", *arguments]
    return {"exec": {"command": command}, **settings}
