# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Virtual machines as the inventory sees them: what it keeps of an object, and the variables and groups it makes of it.

A machine is a VirtualMachine, its VirtualMachineInstance, or both. Pure functions on plain data.
"""

from __future__ import annotations

import re
from collections import namedtuple
from fnmatch import fnmatchcase

Machine = namedtuple("Machine", "namespace name vm vmi")

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
#: What can be grouped by, besides the namespace.
GROUPS = ("namespace", "node", "label", "instancetype", "preference", "state", "os")
_OF_METADATA = ("name", "namespace", "uid", "labels", "annotations", "resource_version")
#: Host variables that are made of what is always kept of an object.
LIGHT = frozenset(
    (
        *("cluster_name", "object_type", "state", "uid", "labels", "annotations", "resource_version"),
        *("vm_%s" % name for name in _OF_METADATA),
        *("vmi_%s" % name for name in _OF_METADATA),
        *("vmi_phase", "vmi_node_name", "vm_printable_status"),
    )
)
#: Host variables that are set unless an option says otherwise.
DEFAULT_VARIABLES = (
    "cluster_name",
    "object_type",
    "state",
    "uid",
    "labels",
    "annotations",
    "vm_name",
    "vm_namespace",
    "vmi_name",
    "vmi_namespace",
    "vmi_node_name",
    "vmi_phase",
)
#: Those of kubevirt.core besides: all but the specs, which it doesn't have.
ALL_BUT_SPECS = ("vm_*", "vmi_*", "!vm_spec", "!vmi_spec")

_METADATA = ("name", "namespace", "uid", "labels", "annotations", "resourceVersion", "deletionTimestamp")
_STATUS = ("phase", "nodeName", "printableStatus", "created")
# Annotations of an instance, by which KubeVirt records what it was made from.
_INSTANCETYPE = ("kubevirt.io/cluster-instancetype-name", "kubevirt.io/instancetype-name")
_PREFERENCE = ("kubevirt.io/cluster-preference-name", "kubevirt.io/preference-name")
_OS = "vm.kubevirt.io/os"
# Some variables that only a VirtualMachine has, to try patterns on.
_OF_MACHINES = ("vm_labels", "vm_annotations", "vm_uid", "vm_spec", "vm_printable_status", "vm_conditions")
_BOUNDARY = re.compile(r"([a-z])(?=[A-Z])|([A-Z])(?=[A-Z][a-z])")


# -- what is kept of an object -----------------------------------------------------------------------------------------


def whole(obj):
    """Return an object without what nobody needs as a variable: it is most of its size."""
    metadata = obj.get("metadata") or {}
    metadata.pop("managedFields", None)
    (metadata.get("annotations") or {}).pop(LAST_APPLIED, None)
    return _extended(obj, obj)


def light(obj):
    """Return what hosts, their addresses, groups and the variables LIGHT need of an object."""
    metadata, status = obj.get("metadata") or {}, obj.get("status") or {}
    kept = {
        "metadata": {name: metadata[name] for name in _METADATA if metadata.get(name)},
        "status": {name: status[name] for name in _STATUS if status.get(name)},
    }
    kept["metadata"].get("annotations", {}).pop(LAST_APPLIED, None)
    if status.get("interfaces"):
        kept["status"]["interfaces"] = [
            {name: interface[name] for name in ("name", "ipAddress", "ipAddresses") if interface.get(name)}
            for interface in status["interfaces"]
        ]
    system = (status.get("guestOSInfo") or {}).get("id")
    if system:
        kept["status"]["guestOSInfo"] = {"id": system}
    if _is_paused(status):
        kept["status"]["conditions"] = [{"type": "Paused", "status": "True"}]
    return _extended(obj, kept)


def _extended(obj, kept):
    """Add what is found deep inside of an object: owner, instance type, preference, names of networks and ports."""
    owners = (obj.get("metadata") or {}).get("ownerReferences") or []
    owner = next((entry.get("name") for entry in owners if entry.get("kind") == "VirtualMachine"), None)
    if owner:
        kept["owner"] = owner
    spec = obj.get("spec") or {}
    for member in ("instancetype", "preference"):
        if (spec.get(member) or {}).get("name"):
            kept[member] = spec[member]["name"]
    networks = [entry["name"] for entry in spec.get("networks") or [] if entry.get("name")]
    if networks and networks != ["default"]:
        kept["networks"] = networks
    interfaces = ((spec.get("domain") or {}).get("devices") or {}).get("interfaces") or []
    ports = {
        port["name"]: port.get("port")
        for interface in interfaces
        for port in interface.get("ports") or []
        if port.get("name")
    }
    if ports:
        kept["ports"] = ports
    return kept


def is_sound(obj):
    """Return whether an object has what all objects have."""
    metadata = obj.get("metadata") if isinstance(obj, dict) else None
    return bool(isinstance(metadata, dict) and metadata.get("name") and metadata.get("namespace"))


def joined(vms, vmis):
    """Return the machines, VirtualMachines with their instances first."""
    instances = {(vmi["metadata"]["namespace"], vmi["metadata"]["name"]): vmi for vmi in vmis if is_sound(vmi)}
    machines = []
    for vm in vms:
        if is_sound(vm):
            key = vm["metadata"]["namespace"], vm["metadata"]["name"]
            machines.append(Machine(*key, vm, instances.pop(key, None)))
    machines += [Machine(*key, None, vmi) for key, vmi in instances.items()]
    return machines


# -- what a machine is -------------------------------------------------------------------------------------------------


def is_running(machine):
    """Return whether a machine runs and isn't being shut down."""
    vmi = machine.vmi or {}
    return (vmi.get("status") or {}).get("phase") == "Running" and not vmi["metadata"].get("deletionTimestamp")


def kind_of(machine):
    """Return vm if there is a VirtualMachine, else vmi."""
    return "vm" if machine.vm or machine.vmi.get("owner") else "vmi"


def state_of(machine):
    """Return the state of a machine in a word, as a VirtualMachine's printableStatus has it."""
    if not machine.vmi:
        return (machine.vm.get("status") or {}).get("printableStatus") or "Stopped"
    if machine.vmi["metadata"].get("deletionTimestamp"):
        return "Stopping"
    status = machine.vmi.get("status") or {}
    return "Paused" if _is_paused(status) else status.get("phase") or "Pending"


def _is_paused(status):
    return any(
        entry.get("type") == "Paused" and entry.get("status") == "True" for entry in status.get("conditions") or ()
    )


def system_of(machine):
    """Return the operating system: as the guest agent reports it, else as preference or annotation announce it."""
    reported = (((machine.vmi or {}).get("status") or {}).get("guestOSInfo") or {}).get("id")
    return reported or _matched(machine, "preference", (*_PREFERENCE, _OS))


def is_windows(machine):
    """Return whether a machine's operating system is Windows."""
    return (system_of(machine) or "").startswith(("mswindows", "windows"))


def networks_of(machine):
    """Return the names of a machine's networks, those it only reports included."""
    vmi = machine.vmi or {}
    reported = (vmi.get("status") or {}).get("interfaces") or []
    return [*vmi.get("networks", ()), *(entry["name"] for entry in reported if entry.get("name"))]


def _annotated(machine, names):
    for obj in (machine.vmi, machine.vm):
        annotations = ((obj or {}).get("metadata") or {}).get("annotations") or {}
        for name in names:
            if annotations.get(name):
                return annotations[name]
    return None


def _matched(machine, member, names):
    """Return the name of an instance type or preference: an instance has it in an annotation, a machine in its spec."""
    return _annotated(machine, names) or (machine.vm or {}).get(member)


def groups_of(machine, dimensions):
    """Yield the names of a machine's groups, before characters that groups can't have are replaced.

    :param dimensions: of GROUPS, those to group by. The namespace is up to the caller.
    """
    if "node" in dimensions:
        node = ((machine.vmi or {}).get("status") or {}).get("nodeName")
        if node:
            yield "node_%s" % node
    if "label" in dimensions:
        labels = {}
        for obj in (machine.vm, machine.vmi):
            labels.update(((obj or {}).get("metadata") or {}).get("labels") or {})
        for key, value in sorted(labels.items()):
            yield "label_%s_%s" % (key, value)
    for dimension, names in (("instancetype", _INSTANCETYPE), ("preference", _PREFERENCE)):
        name = _matched(machine, dimension, names) if dimension in dimensions else None
        if name:
            yield "%s_%s" % (dimension, name)
    if "state" in dimensions:
        yield "state_%s" % state_of(machine).lower()
    system = system_of(machine) if "os" in dimensions else None
    if system:
        yield "os_%s" % system


# -- variables ---------------------------------------------------------------------------------------------------------


def variable_name(member):
    """Return the name that a member of an object has in a variable's name: guestOSInfo is guest_os_info."""
    return _BOUNDARY.sub(r"\1\2_", member).lower()


class Selection:
    """Which variables are wanted, by names and patterns. An exclamation mark excludes; the last that fits decides."""

    def __init__(self, patterns):
        self.patterns = list(patterns)
        self._known = {}

    def __contains__(self, name):
        known = self._known.get(name)
        if known is None:
            known = False
            for pattern in self.patterns:
                if fnmatchcase(name, pattern.removeprefix("!")):
                    known = not pattern.startswith("!")
            self._known[name] = known
        return known

    def is_light(self):
        """Return whether what light() keeps has all of it."""
        return all(pattern.startswith("!") or pattern in LIGHT for pattern in self.patterns)

    def needs_machines(self):
        """Return whether VirtualMachines have to be read for it; the variables that are the default can do without."""
        return any(
            pattern.startswith("vm_") or any(fnmatchcase(name, pattern) for name in _OF_MACHINES)
            for pattern in self.patterns
            if pattern not in DEFAULT_VARIABLES and not pattern.startswith("!")
        )


def variables_of(machine, cluster, wanted):
    """Return those host variables of a machine that are wanted, without its address.

    :param wanted: a container of names.
    """
    main = machine.vmi or machine.vm
    metadata = main["metadata"]
    variables = {
        "cluster_name": cluster,
        "object_type": kind_of(machine),
        "state": state_of(machine),
        "uid": metadata.get("uid"),
        "labels": metadata.get("labels") or {},
        "annotations": metadata.get("annotations") or {},
        "resource_version": metadata.get("resourceVersion"),
    }
    variables = {name: value for name, value in variables.items() if name in wanted}
    for prefix, obj in (("vm_", machine.vm), ("vmi_", machine.vmi)):
        if not obj:
            continue
        metadata = obj["metadata"]
        for member in ("name", "namespace", "uid", "labels", "annotations", "resourceVersion"):
            name = prefix + variable_name(member)
            if name in wanted and metadata.get(member):
                variables[name] = metadata[member]
        if prefix + "spec" in wanted and "spec" in obj:
            variables[prefix + "spec"] = obj["spec"] or {}
        for member, value in (obj.get("status") or {}).items():
            name = _names.get(member) or _names.setdefault(member, variable_name(member))
            if prefix + name in wanted:
                variables[prefix + name] = value
    return variables


_names = {}


def annotated_variables(machine, prefix):
    """Return the variables that annotations with a prefix make, and the names of those refused.

    Names that Ansible gives a meaning are refused: who may annotate a machine mustn't choose how it is connected to.
    """
    variables, refused = {}, []
    for obj in (machine.vm, machine.vmi):
        for key, value in (((obj or {}).get("metadata") or {}).get("annotations") or {}).items():
            if not key.startswith(prefix) or key == prefix:
                continue
            name = re.sub(r"\W", "_", key[len(prefix) :])
            if name.startswith("ansible_") or not name.isidentifier():
                refused.append(key)
            else:
                variables[name] = value
    return variables, refused
