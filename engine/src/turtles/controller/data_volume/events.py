# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the events about a Pod, of which nobody keeps a cache: they are many, and seldom needed."""

from __future__ import annotations

from turtles.api.objects import Object
from turtles.controller.data_volume.waiting import messages
from turtles.kube.client import Client
from turtles.kube.resources import EVENT


def told_of(client: Client, pod: Object) -> list[str]:
    """Return what events say about volumes that a Pod can't have, the newest first."""
    metadata = pod["metadata"]
    selector = f"involvedObject.uid={metadata['uid']}"
    return messages(client.list(EVENT, metadata["namespace"], field_selector=selector)["items"])
