# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a declaration changes in a live object. Pure functions on plain data.

A declaration names only what its author cares about. It is laid over the live object, so that what the server added
(defaults, status, other people's labels) stays and isn't taken for a difference. Lists of named things (disks,
volumes, interfaces, networks, containers…) are matched by name; null removes a key.
"""

from __future__ import annotations

import copy

# Members of which an object may have only one (KubeVirt API: DiskDevice, VolumeSource, InterfaceBindingMethod,
# NetworkSource). Setting one takes the place of the other.
_DISK = frozenset(("disk", "cdrom", "lun", "floppy"))
_VOLUME = frozenset(
    (
        "cloudInitConfigDrive",
        "cloudInitNoCloud",
        "configMap",
        "containerDisk",
        "containerPath",
        "dataVolume",
        "downwardAPI",
        "downwardMetrics",
        "emptyDisk",
        "ephemeral",
        "hostDisk",
        "memoryDump",
        "persistentVolumeClaim",
        "secret",
        "serviceAccount",
        "sysprep",
    )
)
_BINDING = frozenset(("binding", "bridge", "macvtap", "masquerade", "passt", "passtBinding", "slirp", "sriov"))
_NETWORK = frozenset(("multus", "pod", "resourceClaim"))
_CLOUD_INIT = (
    frozenset(("userData", "userDataBase64", "secretRef")),
    frozenset(("networkData", "networkDataBase64", "networkDataSecretRef")),
)
# key that holds the object (or the list of objects) -> its exclusive groups
ONE_OF = {
    "bootloader": (frozenset(("bios", "efi")),),
    "cloudInitConfigDrive": _CLOUD_INIT,
    "cloudInitNoCloud": _CLOUD_INIT,
    "disks": (_DISK,),
    "interfaces": (_BINDING,),
    "networks": (_NETWORK,),
    "volumes": (_VOLUME,),
}

_SERVER_METADATA = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid")


def overlay(live, desired, key=None, exact=frozenset()):
    """Return live with desired laid over it; neither is changed.

    :param key: the name under which both are.
    :param exact: keys whose values replace the live ones whole: in schemas of CRDs, a property that is gone must go.
    """
    if isinstance(desired, dict):
        base = live if isinstance(live, dict) else {}
        if key in exact:
            return copy.deepcopy(live) if _prune(live) == _prune(desired) else _without_nulls(desired)
        result = dict(base)
        for group in ONE_OF.get(key, ()):
            if any(desired.get(member) is not None for member in group):
                for member in group - set(desired):
                    result.pop(member, None)
        for name, value in desired.items():
            if value is None:
                result.pop(name, None)
            else:
                result[name] = overlay(base.get(name), value, name, exact)
        return result
    if isinstance(desired, list):
        return _overlay_list(live if isinstance(live, list) else [], desired, key, exact)
    return desired


def _overlay_list(live, desired, key, exact):
    live_names, names = _names(live), _names(desired)
    if names is not None and live_names is not None:
        return [
            overlay(live[live_names[d["name"]]] if d["name"] in live_names else None, d, key, exact) for d in desired
        ]
    if len(live) == len(desired):
        return [overlay(old, new, key, exact) for old, new in zip(live, desired)]
    return [overlay(None, new, key, exact) for new in desired]


def _names(items):
    """Return name -> index if every item is a dict with a name of its own, else None. An empty list fits too."""
    index = {}
    for position, item in enumerate(items):
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str) or name in index:
            return None
        index[name] = position
    return index


def _without_nulls(value):
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nulls(v) for v in value]
    return value


def _prune(value):
    """Return value without empty members, which API servers drop when they store a schema (Go's omitempty)."""
    if isinstance(value, dict):
        pruned = {k: _prune(v) for k, v in value.items()}
        return {k: v for k, v in pruned.items() if v is not None and v is not False and v != "" and v != [] and v != {}}
    if isinstance(value, list):
        return [_prune(v) for v in value]
    return value


def merge_patch(old, new):
    """Return the JSON merge patch (RFC 7386) that turns old into new; {} if nothing differs."""
    patch = {}
    for key in old:
        if key not in new:
            patch[key] = None
    for key, value in new.items():
        if key not in old:
            patch[key] = value
        elif isinstance(value, dict) and isinstance(old[key], dict):
            inner = merge_patch(old[key], value)
            if inner:
                patch[key] = inner
        elif not same(old[key], value):
            patch[key] = value
    return patch


def same(a, b):
    """Return whether two values are equal in JSON: 1 and 1.0 are, 1 and true aren't."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return a == b


def combine(*declarations):
    """Return one declaration of several. Later ones win; named list items are merged and new ones appended."""
    result = {}
    for declaration in declarations:
        result = _combine(result, declaration)
    return result


def _combine(base, extra, key=None):
    if isinstance(base, dict) and isinstance(extra, dict):
        result = dict(base)
        for group in ONE_OF.get(key, ()):
            if any(extra.get(member) is not None for member in group):
                for member in group - set(extra):
                    result.pop(member, None)
        for name, value in extra.items():
            result[name] = _combine(base[name], value, name) if name in base else value
        return result
    if isinstance(base, list) and isinstance(extra, list):
        names, extra_names = _names(base), _names(extra)
        if names is not None and extra_names is not None:
            merged = [_combine(i, extra[extra_names[i["name"]]], key) if i["name"] in extra_names else i for i in base]
            return merged + [i for i in extra if i["name"] not in names]
    return extra


def for_diff(obj):
    """Return an object as a diff shows it: without status and what only the server writes; {} for None."""
    if obj is None:
        return {}
    shown = {key: value for key, value in obj.items() if key != "status"}
    metadata = {k: v for k, v in (obj.get("metadata") or {}).items() if k not in _SERVER_METADATA}
    shown["metadata"] = metadata
    return shown
