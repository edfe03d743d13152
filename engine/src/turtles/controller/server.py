# SPDX-License-Identifier: GPL-3.0-or-later
"""What the API server and the nodes can do that decides about the shape of Pods."""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from turtles.api.configuration import ClusterConfiguration
from turtles.api.feature_gates import IMAGE_VOLUME
from turtles.kube.client import ApiError, Client

#: From this version of server and kubelet on image volumes (KEP-4639) are on in every cluster; before, they depend on
#: gates of the cluster's administrator, which can't be seen from outside.
IMAGE_VOLUMES_SINCE = (1, 35)
#: From which versions on container runtimes mount images; others don't. The Pod runner always does.
_RUNTIMES = {"containerd": (2, 1), "cri-o": (1, 33)}
_POD_RUNNER = "turtles"


def version_of(info: Mapping[str, Any]) -> tuple[int, int]:
    """Return (major, minor) of an answer to ``GET /version``; (0, 0) if it can't be read.

    Vendors write minor versions such as ``31+``.
    """
    numbers = [re.match(r"\d+", str(info.get(key) or "")) for key in ("major", "minor")]
    if not all(numbers):
        return 0, 0
    major, minor = (int(number[0]) for number in numbers if number)
    return major, minor


def mounts_images(node: Mapping[str, Any]) -> bool:
    """Return whether a node can mount images into Pods, by the versions of its kubelet and its container runtime."""
    info = (node.get("status") or {}).get("nodeInfo") or {}
    # such as containerd://2.1.4-k3s1
    found = re.match(r"([a-z-]+)://v?(\d+)\.(\d+)", str(info.get("containerRuntimeVersion") or ""))
    if not found:
        return False
    runtime, version = found[1], (int(found[2]), int(found[3]))
    if runtime == _POD_RUNNER:
        return True
    # such as v1.35.1-gke.100
    kubelet = re.match(r"v(\d+)\.(\d+)", str(info.get("kubeletVersion") or ""))
    if not kubelet or (int(kubelet[1]), int(kubelet[2])) < IMAGE_VOLUMES_SINCE:
        return False
    return runtime in _RUNTIMES and version >= _RUNTIMES[runtime]


def pulls_again(nodes: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a node may pull the images of a running Pod's volumes again and again.

    A kubelet does it for the pull policy Always, each time it looks at the Pod, which is about once a minute. It pulls
    a container's image once, when it makes the container. The Pod runner pulls either once.
    """
    runtimes = [((node.get("status") or {}).get("nodeInfo") or {}).get("containerRuntimeVersion") for node in nodes]
    return any(not str(runtime or "").startswith(f"{_POD_RUNNER}://") for runtime in runtimes)


def image_volumes(info: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]], cluster: ClusterConfiguration) -> bool:
    """Return whether container disks are to be image volumes. Containers of the image work everywhere.

    :param info: the server's answer to ``GET /version``.
    :param nodes: those that take machines. A Pod may come to any of them, so that all have to be able to do it; of one
        that doesn't exist yet nothing is known.
    :param cluster: its feature gate ``ImageVolume`` is on by default, which only says that the engine may use them.
        Naming it means that the cluster has them too (Kubernetes 1.31 to 1.34, where the cluster's administrator
        switched its own gate on); disabling it means containers.
    """
    if not cluster.has_gate(IMAGE_VOLUME):
        return False
    if IMAGE_VOLUME in cluster.named_gates:
        return True
    return version_of(info) >= IMAGE_VOLUMES_SINCE and bool(nodes) and all(map(mounts_images, nodes))


class Server:
    """The API server's version, asked for now and then: it is upgraded while controllers run."""

    #: Seconds for which an answer holds.
    HOLDS = 600.0

    def __init__(self, client: Client) -> None:
        self._client = client
        self._info: Mapping[str, Any] = {}
        self._until = 0.0

    def version(self) -> Mapping[str, Any]:
        """Return the answer to ``GET /version``.

        :raises ApiError: if there is none, and never was.
        """
        now = time.monotonic()
        if now >= self._until:
            try:
                self._info = self._client.request("GET", "/version")
            except ApiError:
                if not self._info:
                    raise
            else:
                self._until = now + self.HOLDS
        return self._info
