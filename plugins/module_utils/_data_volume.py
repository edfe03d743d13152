# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What all modules say of DataVolumes: their claim, and when it is bound."""

from __future__ import annotations

API_VERSION = "cdi.kubevirt.io/v1beta1"
BIND_IMMEDIATELY = "cdi.kubevirt.io/storage.bind.immediate.requested"
# Options for the claim, and the fields of spec.storage that they are.
_FIELDS = {"storage_class": "storageClassName", "access_modes": "accessModes", "volume_mode": "volumeMode"}
ARGUMENTS = {
    "size": {"type": "str"},
    "storage_class": {"type": "str"},
    "access_modes": {"type": "list", "elements": "str"},
    "volume_mode": {"type": "str", "choices": ["Filesystem", "Block"]},
}


def storage_of(params):
    """Return spec.storage of a module's parameters; None if none of ARGUMENTS is given."""
    storage = {field: params[option] for option, field in _FIELDS.items() if params[option] is not None}
    if params["size"] is not None:
        storage["resources"] = {"requests": {"storage": params["size"]}}
    return storage or None
