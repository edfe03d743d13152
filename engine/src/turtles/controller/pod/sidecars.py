# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers of hook sidecars in a launcher Pod (KubeVirt user guide, "Hook sidecar container"). Pure."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from turtles.api.hook_sidecars import HookSidecar
from turtles.api.objects import Object
from turtles.controller.pod.config import LauncherConfig, pull_policy, security
from turtles.controller.pod.resources import is_guaranteed
from turtles.domain import paths
from turtles.domain.sidecars import of as sidecars_of

#: How names of the containers begin.
NAME_PREFIX = "hook-sidecar-"
#: The program of sidecars without an image of their own, and the version it speaks if none is asked for.
_SHIM, _SHIM_ARGS = "/usr/bin/virt-sidecar-shim", ("--version", "v1alpha3")
#: Executable for everybody.
_EXECUTABLE = 0o755


def add_hook_sidecars(vmi: Mapping[str, Any], config: LauncherConfig, pod_spec: Object) -> None:
    """Add the containers that a VMI asks for, and its network binding plugins; tell the launcher to call them.

    :param vmi: as admission has let it pass.
    """
    sidecars = sidecars_of(vmi, config.cluster.bindings)
    if not sidecars:
        return
    compute = pod_spec["containers"][0]
    compute["command"] += ["--hook-sidecars", str(len(sidecars))]
    sockets = {"name": paths.HOOKS_VOLUME, "mountPath": str(paths.HOOKS_DIR)}
    compute["volumeMounts"].append(sockets)
    pod_spec["volumes"].append({"name": paths.HOOKS_VOLUME, "emptyDir": {}})
    for index, sidecar in enumerate(sidecars):
        _add(sidecar, f"{NAME_PREFIX}{index}", sockets, config, pod_spec)


def _add(sidecar: HookSidecar, name: str, sockets: Object, config: LauncherConfig, pod_spec: Object) -> None:
    compute = pod_spec["containers"][0]
    container: Object = {
        "name": name,
        "image": sidecar.image or config.image,
        "env": [{"name": "CONTAINER_NAME", "value": name}],
        "resources": _resources(compute, config, own=sidecar.image is None),
        "securityContext": security(),
        "volumeMounts": [sockets],
    }
    command, args = sidecar.command, sidecar.args
    if sidecar.image is None:
        command, args = (_SHIM,), args or _SHIM_ARGS
    policy = sidecar.pull_policy or (pull_policy(config) if sidecar.image is None else None)
    for key, value in (("imagePullPolicy", policy), ("command", list(command)), ("args", list(args))):
        if value:
            container[key] = value
    if (hook := sidecar.config_map) is not None:
        volume = f"{name}-files"
        pod_spec["volumes"].append({"name": volume, "configMap": {"name": hook.name, "defaultMode": _EXECUTABLE}})
        path = PurePosixPath(hook.path)
        if sidecar.image is None:
            # Where the program of the engine looks for it; nothing can be put among the files of its image.
            path = paths.HOOK_PROGRAMS_DIR / path.name
        container["volumeMounts"].append(
            {"name": volume, "mountPath": str(path), "subPath": hook.key, "readOnly": True}
        )
    if (claim := sidecar.claim) is not None:
        volume = f"{name}-claim"
        pod_spec["volumes"].append({"name": volume, "persistentVolumeClaim": {"claimName": claim.name}})
        container["volumeMounts"].append({"name": volume, "mountPath": claim.path})
        if claim.compute_path is not None:
            compute["volumeMounts"].append({"name": volume, "mountPath": claim.compute_path})
    pod_spec["containers"].append(container)


def _resources(compute: Object, config: LauncherConfig, *, own: bool) -> Object:
    """Return what a sidecar gets: nothing is limited but where a quota or the class of service demands it.

    :param own: it runs the engine's program. That is limited wherever the machine is: some nodes limit only a Pod as a
        whole, and only where each of its containers is limited.
    """
    if is_guaranteed(compute["resources"]):
        limits = {"cpu": "200m", "memory": "64M"}  # KubeVirt's
        return {"requests": limits, "limits": limits}
    demanded = config.limited | (compute["resources"]["limits"].keys() if own else frozenset())
    limits = {name: value for name, value in (("cpu", "200m"), ("memory", "64M")) if name in demanded}
    return {"requests": limits, "limits": limits} if limits else {}
