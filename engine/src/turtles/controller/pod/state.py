# SPDX-License-Identifier: GPL-3.0-or-later
"""The claim with what outlives a machine beside its disks: a persistent TPM, variables of EFI. Pure.

It belongs to the VirtualMachine, so that each of its instances has the same; to an instance that has none, else
(KubeVirt user guide, "Persistent TPM and UEFI state").
"""

from turtles.api.configuration import ClusterConfiguration
from turtles.api.objects import Object, controller_of, owner_reference
from turtles.controller.state_claims import LABEL, claim_name, is_wanted, label_value
from turtles.domain import paths

_VOLUME = "vm-state"
_SIZE = "10Mi"


def claim(vmi: Object, cluster: ClusterConfiguration) -> Object | None:
    """Return the claim that a VMI is to have; None if it needs none."""
    if not is_wanted(vmi["spec"]):
        return None
    owner = controller_of(vmi)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": claim_name(vmi),
            "namespace": vmi["metadata"]["namespace"],
            "labels": {LABEL: label_value(vmi["metadata"]["name"])},
            "ownerReferences": [dict(owner) if owner and owner["kind"] == "VirtualMachine" else owner_reference(vmi)],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": _SIZE}},
            "storageClassName": cluster.state_storage_class,
        },
    }


def add_state(vmi: Object, pod_spec: Object, name: str | None) -> None:
    """Mount the claim in the launcher's container, if there is one.

    :param name: of the claim, if it isn't the one that was made for the machine.
    """
    if not is_wanted(vmi["spec"]):
        return
    pod_spec["volumes"].append({"name": _VOLUME, "persistentVolumeClaim": {"claimName": name or claim_name(vmi)}})
    pod_spec["containers"][0]["volumeMounts"].append({"name": _VOLUME, "mountPath": str(paths.STATE_DIR)})
