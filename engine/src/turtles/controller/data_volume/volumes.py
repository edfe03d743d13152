# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads PersistentVolumes, of which nobody keeps a cache, and hands them over from one claim to another."""

from __future__ import annotations

from turtles.api.objects import Object, get
from turtles.controller.data_volume import transfer
from turtles.kube.client import Client, NotFound
from turtles.kube.resources import PV


def volume_of(client: Client, claim: Object | None) -> Object | None:
    """Return the volume that a claim names; None if there is none."""
    name = get(claim, "spec", "volumeName")
    if not name:
        return None
    try:
        return client.get(PV, None, name)
    except NotFound:
        return None


def give(client: Client, volume: Object, target: Object) -> None:
    """Hand a volume over from the claim that has it to another one, unless anybody has changed it since."""
    metadata = volume["metadata"]
    guard = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
    reference = {"resourceVersion": None, **transfer.reference_to(target)}
    client.patch(PV, None, metadata["name"], {"metadata": guard, "spec": {"claimRef": reference}})
