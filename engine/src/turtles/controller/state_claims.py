# SPDX-License-Identifier: GPL-3.0-or-later
"""Which claim has what a machine keeps beside its disks: a persistent TPM, variables of EFI. Pure.

The label of a claim says whose state it has, because a machine that is restored gets another claim (KubeVirt).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from turtles.api.objects import Object, controller_of, get, is_deleted
from turtles.api.snapshots import LAST_RESTORE, restored_for
from turtles.domain.definition import keeps_efi_variables

#: Label of a claim: the machine whose state it has.
LABEL = "persistent-state-for"
_LONGEST = 63


def is_wanted(spec: Mapping[str, Any]) -> bool:
    """Say whether a VMI's *spec* has something that outlives the machine."""
    return keeps_tpm(spec) or keeps_efi_variables(spec)


def has_tpm(spec: Mapping[str, Any]) -> bool:
    """Say whether the guest has a TPM."""
    tpm = get(spec, "domain", "devices", "tpm")
    return tpm is not None and tpm.get("enabled") is not False


def keeps_tpm(spec: Mapping[str, Any]) -> bool:
    """Say whether the state of the guest's TPM outlives the machine."""
    return has_tpm(spec) and bool(get(spec, "domain", "devices", "tpm", "persistent"))


def claim_name(machine: Object) -> str:
    """Return the name of the claim that is made for a VM or VMI, which is also the name of the volume in snapshots."""
    return f"persistent-state-for-{machine['metadata']['name']}"


def label_value(name: str) -> str:
    """Return the value of the label for a machine of this name. Long names may share one."""
    return name[:_LONGEST].rstrip("-.")


def is_of(machine: Object, pvc: Object) -> bool:
    """Say whether a claim that is labelled for a VM or VMI belongs to it, or to the VM of an instance."""
    owners = {machine["metadata"]["uid"], (controller_of(machine) or {}).get("uid")}
    return not is_deleted(pvc) and any(
        each.get("uid") in owners for each in pvc["metadata"].get("ownerReferences") or ()
    )


def current_claim(machine: Object, labelled: Iterable[Object], vm: Object | None = None) -> str:
    """Return the name of the claim with the state of a VM or VMI, whether or not there is one.

    The claim of the machine's last restore counts from the moment on in which the machine is written.

    :param labelled: the claims of its namespace that are labelled for it.
    :param vm: the VM of an instance.
    """
    restore = get(vm or machine, "metadata", "annotations", LAST_RESTORE)

    def rank(pvc: Object) -> tuple[bool, str]:
        return _is_restored(pvc, restore), str(pvc["metadata"].get("creationTimestamp") or "")

    own = [pvc for pvc in labelled if is_of(machine, pvc) or (_is_restored(pvc, restore) and not is_deleted(pvc))]
    return str(max(own, key=rank)["metadata"]["name"]) if own else claim_name(machine)


def _is_restored(pvc: Object, restore: str | None) -> bool:
    return restore is not None and restored_for(pvc) == restore


def is_in_backup(vm: Object, backup: Object) -> bool:
    """Say whether a volume in the content of a snapshot is what a machine keeps beside its disks.

    :param vm: the machine, as the content has it.
    """
    name = claim_name(vm)
    volumes = vm["spec"]["template"]["spec"].get("volumes") or ()
    return bool(backup["volumeName"] == name) and all(volume["name"] != name for volume in volumes)
