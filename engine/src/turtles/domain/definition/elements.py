# SPDX-License-Identifier: GPL-3.0-or-later
"""What all parts of a definition share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from turtles.api.configuration import DEFAULT, ClusterConfiguration


@dataclass(frozen=True)
class Host:
    """What the node offers a domain.

    ``kvm``: hardware virtualisation can be used. ``no_direct_io``: volumes on a file system that can't bypass the page
    cache. ``cluster``: what the installation chooses for all of its machines. ``processors``: those of the node that
    the Pod may run on. ``numa``: the NUMA node of each.
    """

    kvm: bool
    emulator: str = "/usr/bin/qemu-system-x86_64"
    no_direct_io: frozenset[str] = field(default_factory=frozenset)
    cluster: ClusterConfiguration = DEFAULT
    processors: tuple[int, ...] = ()
    numa: Mapping[int, int] = field(default_factory=dict)


def devices_of(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the devices in a VMI's *spec*."""
    return (spec.get("domain") or {}).get("devices") or {}


def add_text(parent: Element, tag: str, text: str, **attributes: str) -> Element:
    """Add an element with this text, and return it."""
    element = SubElement(parent, tag, attributes)
    element.text = text
    return element
