# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories that the guest shares with its Pod by virtiofs."""

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from turtles.domain import paths
from turtles.domain.definition.elements import add_alias, devices_of, share_memory

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
        share_memory(root)
