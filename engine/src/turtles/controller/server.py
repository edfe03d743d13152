# SPDX-License-Identifier: GPL-3.0-or-later
"""What the API server can do that decides about the shape of Pods."""

import re
import time
from collections.abc import Mapping
from typing import Any

from turtles.api.configuration import IMAGE_VOLUME, ClusterConfiguration
from turtles.kube.client import ApiError, Client

#: From this version on image volumes (KEP-4639) are on in every cluster; before, they depend on a gate of the cluster's
#: administrator, which nobody else can see.
IMAGE_VOLUMES_SINCE = (1, 35)


def version_of(info: Mapping[str, Any]) -> tuple[int, int]:
    """Return (major, minor) of an answer to ``GET /version``; (0, 0) if it can't be read.

    Vendors write minor versions such as ``31+``.
    """
    numbers = [re.match(r"\d+", str(info.get(key) or "")) for key in ("major", "minor")]
    if not all(numbers):
        return 0, 0
    major, minor = (int(number[0]) for number in numbers if number)
    return major, minor


def image_volumes(info: Mapping[str, Any], cluster: ClusterConfiguration) -> bool:
    """Return whether container disks are to be image volumes.

    :param info: the server's answer to ``GET /version``.
    :param cluster: its feature gate ``ImageVolume`` is on by default, which only says that the engine may use them.
        Whoever names it says that the cluster has them too (Kubernetes 1.31 to 1.34, where the cluster's administrator
        switched its own gate on); whoever disables it wants containers.
    """
    if not cluster.has_gate(IMAGE_VOLUME):
        return False
    return IMAGE_VOLUME in cluster.named_gates or version_of(info) >= IMAGE_VOLUMES_SINCE


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
