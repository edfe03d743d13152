# SPDX-License-Identifier: GPL-3.0-or-later
"""Finalizers of VirtualMachines and their instances, in KubeVirt's present and former spelling. Pure."""

from collections.abc import Mapping
from typing import Any

from turtles.api import labels

#: The one a VM's controller takes off, from the VM and from its VMI.
VM_FINALIZERS = (labels.VM_FINALIZER, labels.VM_FINALIZER_OLD)
#: The one a VMI's controller takes off.
VMI_FINALIZERS = (labels.VMI_FINALIZER, labels.VMI_FINALIZER_OLD)


def with_finalizer(metadata: Mapping[str, Any], present: str, old: str) -> list[str] | None:
    """Return the finalizers with ``present`` in them and the ``old`` spelling gone; None when they are so already."""
    before = list(metadata.get("finalizers") or ())
    after = [name for name in before if name != old]
    if present not in after:
        after.append(present)
    return after if after != before else None
