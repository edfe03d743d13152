# SPDX-License-Identifier: GPL-3.0-or-later
"""Which PersistentVolume and PersistentVolumeClaim belong together: both have to say so.

A claim's spec.volumeName is its owner's to write, so it proves nothing: any tenant may name any volume. A volume is no
tenant's, and its spec.claimRef has the claim's uid from the binding on: a claim of the same name that was made again is
another one (Kubernetes' persistent volume controller and kubelet check the same).
"""

from turtles.api.objects import Object


def reference_to(claim: Object) -> Object:
    """Return the claimRef of a volume that is bound to a claim."""
    metadata = claim["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }


def is_bound_to(volume: Object, claim: Object) -> bool:
    """Say whether a volume names just this claim."""
    reference = volume["spec"].get("claimRef") or {}
    return all(reference.get(key) == claim["metadata"][key] for key in ("namespace", "name", "uid"))


def is_kept_from(volume: Object, claim: Object) -> bool:
    """Say whether a volume names another claim, or this name before it was made again."""
    reference = volume["spec"].get("claimRef")
    if not reference:
        return False
    metadata = claim["metadata"]
    return (
        any(reference.get(key) != metadata[key] for key in ("namespace", "name"))
        or (reference.get("uid") or metadata["uid"]) != metadata["uid"]
    )


def holder(volume: Object, claim: Object) -> str:
    """Say in words which claim a volume belongs to, for the owner of another one.

    Another namespace's names are none of that owner's business.
    """
    reference = volume["spec"].get("claimRef") or {}
    metadata = claim["metadata"]
    if not reference:
        return "no claim yet"
    if reference.get("namespace") != metadata["namespace"]:
        return "a claim of another namespace"
    name = f"claim {reference.get('namespace')}/{reference.get('name')}"
    return f"an earlier {name}, which was deleted" if reference.get("name") == metadata["name"] else name
