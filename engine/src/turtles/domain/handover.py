# SPDX-License-Identifier: GPL-3.0-or-later
"""What a launcher gets from the node agent: the part of its VMI that it needs, and its interfaces. Pure functions.

The launcher has no access to the API, and a VMI may hold secrets (inline cloud-init data), which don't belong in the
Pod's spec. The node agent, which reads the VMI from the API anyway, writes it to a file in one of the Pod's own
folders, :data:`turtles.domain.paths.DELIVERED_VMI`. How interfaces are connected that are plugged in, or have IPv6
addresses, it is told at a socket, :data:`turtles.domain.paths.INTERFACES_SOCKET`: it gives the guest their addresses.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from turtles.api import labels
from turtles.api.objects import annotations_of
from turtles.domain.network import InterfacePlan, Port

_IDENTITY = ("namespace", "name", "uid")


class HandoverError(ValueError):
    """What was delivered isn't the expected VMI. The message quotes none of its content."""


def launcher_view(vmi: Mapping[str, Any]) -> bytes:
    """Return what the launcher needs of a VMI, as JSON: who it is and whose, its spec, and the claims' sizes.

    Labels and annotations (up to 256 KiB) are left out, but for the configuration of Ignition.
    """
    metadata = {key: vmi["metadata"][key] for key in _IDENTITY}
    if owners := vmi["metadata"].get("ownerReferences"):
        metadata["ownerReferences"] = owners
    ignition = annotations_of(vmi).get(labels.IGNITION)
    if ignition:
        metadata["annotations"] = {labels.IGNITION: ignition}
    view: dict[str, Any] = {"metadata": metadata, "spec": vmi["spec"]}
    if volumes := (vmi.get("status") or {}).get("volumeStatus"):
        view["status"] = {"volumeStatus": volumes}
    return json.dumps(view, separators=(",", ":")).encode()


def read_view(data: bytes, namespace: str, name: str, uid: str) -> dict[str, Any]:
    """Return the VMI that :func:`launcher_view` encoded.

    :raises HandoverError: if it isn't one, or another than the one with this identity.
    """
    try:
        vmi: dict[str, Any] = json.loads(data)
        identity = [vmi["metadata"][key] for key in _IDENTITY]
        vmi["spec"].get("domain")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HandoverError(f"no VirtualMachineInstance ({type(error).__name__}: {error})") from error
    if identity != [namespace, name, uid]:
        raise HandoverError(f"{identity[0]}/{identity[1]} ({identity[2]}) instead of {namespace}/{name} ({uid})")
    return vmi


def interfaces_view(plans: Sequence[InterfacePlan]) -> bytes:
    """Return how a guest's interfaces are connected, as JSON."""
    return json.dumps([asdict(plan) for plan in plans], separators=(",", ":")).encode()


def read_interfaces(data: bytes) -> list[InterfacePlan]:
    """Return the interfaces that :func:`interfaces_view` encoded.

    :raises HandoverError: if these aren't any.
    """
    try:
        return [_plan(each) for each in json.loads(data)]
    except (ValueError, TypeError, KeyError) as error:
        raise HandoverError(f"no interfaces ({type(error).__name__}: {error})") from error


def _plan(values: Mapping[str, Any]) -> InterfacePlan:
    # JSON has no tuples.
    return InterfacePlan(
        **{
            **values,
            "ports": tuple(Port(**port) for port in values["ports"]),
            "addresses": tuple(values["addresses"]),
            "routes": tuple((destination, gateway) for destination, gateway in values["routes"]),
        }
    )
