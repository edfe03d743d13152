# SPDX-License-Identifier: GPL-3.0-or-later
"""The Pod of one of the engine's own programs that works for an object: an importer, an export server. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from turtles.api.configuration import ClusterConfiguration
from turtles.api.objects import Object
from turtles.controller.pod.config import METRICS_PORT, pod_security, security


def worker_spec(
    name: str,
    program: str,
    image: str,
    cluster: ClusterConfiguration,
    *,
    requests: Mapping[str, str],
    limits: Mapping[str, str],
    ports: Sequence[Object] = (),
    grace_period: int,
) -> Object:
    """Return the spec of a Pod with one container, which has neither arguments nor volumes so far.

    :param name: of the container. :param program: path of its command.
    :param cluster: what the KubeVirt object says.
    :param ports: of the container, beside that of its metrics. :param grace_period: seconds it has to end.
    """
    container: Object = {
        "name": name,
        "image": image,
        "imagePullPolicy": cluster.image_pull_policy or "IfNotPresent",
        "command": [program],
        "args": [],
        "ports": [*ports, {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}],
        "resources": {"requests": dict(requests), "limits": dict(limits)},
        "securityContext": security(readOnlyRootFilesystem=True),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [],
    }
    spec: Object = {
        "restartPolicy": "OnFailure",
        "terminationGracePeriodSeconds": grace_period,
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": pod_security(),
        "containers": [container],
        "volumes": [],
    }
    if cluster.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in cluster.image_pull_secrets]
    return spec


def set_arguments(container: Object, arguments: Sequence[str]) -> None:
    """Set a container's arguments, as they are: a Pod's name variables by $(NAME)."""
    container["args"] = [word.replace("$", "$$") for word in arguments]
