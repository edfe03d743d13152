# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the modules share that are about exports."""

from __future__ import annotations

from . import _resources

KIND = "VirtualMachineExport"
GROUP = "export.kubevirt.io"
# Those that servers have, the newest first; KubeVirt has the first from 1.9 on.
VERSIONS = ("v1", "v1beta1")
# By option: kind and group of what is exported.
SOURCES = {
    "vm": ("VirtualMachine", "kubevirt.io"),
    "snapshot": ("VirtualMachineSnapshot", "snapshot.kubevirt.io"),
    "claim": ("PersistentVolumeClaim", None),
}


def resource_of(client):
    """Return the Resource of exports, in the newest version that the server has."""
    for version in VERSIONS[:-1]:
        api_version = "%s/%s" % (GROUP, version)
        if client.discover(api_version):
            return _resources.known(api_version, KIND)
    return _resources.known("%s/%s" % (GROUP, VERSIONS[-1]), KIND)
