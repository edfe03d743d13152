# SPDX-License-Identifier: GPL-3.0-or-later
"""The container ``guest-console-log``, whose log is what the guest writes to its serial console. Pure.

Name and limit of memory are KubeVirt's. Its limit of CPU, 15 thousandths, would hold up the container's start for
seconds (see :func:`turtles.controller.pod.volumes.add_container_disks`); and it requests what it was measured to use.
"""

from collections.abc import Mapping
from typing import Any

from turtles.api.configuration import ClusterConfiguration
from turtles.api.objects import Object
from turtles.controller.pod.config import LauncherConfig, pull_policy, security
from turtles.controller.pod.resources import is_guaranteed
from turtles.domain import paths

_NAME = "guest-console-log"


def is_wanted(spec: Mapping[str, Any], cluster: ClusterConfiguration) -> bool:
    """Say whether the serial console of a VMI with this *spec* is logged."""
    devices = (spec.get("domain") or {}).get("devices") or {}
    if devices.get("autoattachSerialConsole") is False:
        return False
    wanted = devices.get("logSerialConsole")
    return cluster.log_serial_console if wanted is None else bool(wanted)


def add_console_log(spec: Mapping[str, Any], config: LauncherConfig, pod_spec: Object) -> None:
    """Add the container, and tell the launcher to serve it, if the serial console is logged."""
    if not is_wanted(spec, config.cluster):
        return
    compute = pod_spec["containers"][0]
    compute["command"].append("--log-serial-console")
    requests, limits = {"cpu": "5m", "memory": "4M"}, {"memory": "60M"}
    if is_guaranteed(compute["resources"]):
        # The Pod's class of service is to be what the VMI asks for.
        requests = limits = {"cpu": "100m", "memory": "60M"}
    elif "cpu" in config.limited or "cpu" in compute["resources"]["limits"]:
        # A Pod is limited as a whole only where each of its containers is.
        limits["cpu"] = "100m"
    pod_spec["containers"].append(
        {
            "name": _NAME,
            "image": config.image,
            "imagePullPolicy": pull_policy(config),
            "command": ["/usr/bin/virt-tail"],
            "args": [str(paths.SERIAL_LOG_PIPE)],
            "resources": {"requests": requests, "limits": limits},
            "securityContext": security(readOnlyRootFilesystem=True),
            "volumeMounts": [
                {"name": paths.EMPTY_DIRS[paths.SOCKETS_DIR], "mountPath": str(paths.SOCKETS_DIR), "readOnly": True}
            ],
        }
    )
