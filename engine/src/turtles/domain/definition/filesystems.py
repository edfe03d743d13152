# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories that the guest shares with its Pod by virtiofs."""

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from turtles.domain import paths
from turtles.domain.definition.elements import add_alias, devices_of

#: Requests that wait for the server at a time, as many as KubeVirt lets wait.
_QUEUE = "1024"


def add_filesystems(root: Element, devices: Element, spec: Mapping[str, Any]) -> None:
    """Add the filesystems. Their servers are processes that see the guest's memory, which therefore is shared."""
    filesystems = devices_of(spec).get("filesystems") or ()
    for filesystem in filesystems:
        name = filesystem["name"]
        element = SubElement(devices, "filesystem", type="mount")
        SubElement(element, "driver", type="virtiofs", queue=_QUEUE)
        SubElement(element, "source", socket=str(paths.filesystem_socket(name)))
        SubElement(element, "target", dir=name)
        add_alias(element, name)
    if filesystems:
        _share_memory(root)


def _share_memory(root: Element) -> None:
    backing = root.find("memoryBacking")
    if backing is None:
        backing = SubElement(root, "memoryBacking")
    if backing.find("hugepages") is None and backing.find("source") is None:
        SubElement(backing, "source", type="memfd")
    if backing.find("access") is None:
        SubElement(backing, "access", mode="shared")
