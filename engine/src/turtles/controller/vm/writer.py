# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes to VirtualMachines and their instances, which fail if they are not what was seen."""

import logging

from turtles.api.objects import Object
from turtles.kube.client import Client
from turtles.kube.informer import Informer
from turtles.kube.kubevirt import VM, VMI

log = logging.getLogger(__name__)


class Writer:
    """Writes, and lets the caches know what was stored."""

    def __init__(self, client: Client, vms: Informer, vmis: Informer) -> None:
        self._client, self._vms, self._vmis = client, vms, vmis

    def patch_vm(self, vm: Object, patch: Object, subresource: str | None = None) -> Object:
        """Change a VM that is still what it was."""
        metadata = vm["metadata"]
        guarded = {
            **patch,
            "metadata": {
                **patch.get("metadata", {}),
                "resourceVersion": metadata["resourceVersion"],
                "uid": metadata["uid"],
            },
        }
        stored = self._client.patch(VM, metadata["namespace"], metadata["name"], guarded, subresource=subresource)
        self._vms.observe(stored)
        return stored

    def patch_vmi(self, vmi: Object, patch: Object) -> Object:
        """Change a VMI that is still what it was."""
        metadata = vmi["metadata"]
        identity = {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]}
        guarded = {**patch, "metadata": {**patch.get("metadata", {}), **identity}}
        stored = self._client.patch(VMI, metadata["namespace"], metadata["name"], guarded)
        self._vmis.observe(stored)
        log.info("VMI changed", extra={"namespace": metadata["namespace"], "vm": metadata["name"], "change": patch})
        return stored
