# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the parts of a declaration are where they belong, and of the type they must have. Pure functions.

Servers drop fields they don't know with a warning at best, and name no field where JSON has the wrong type. What is
wrong with the values themselves is for the server to say.
"""

from __future__ import annotations

from ._errors import KubeError
from ._values import described, type_name

_METADATA = frozenset(
    (
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "labels",
        "managedFields",
        "name",
        "namespace",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    )
)
_OBJECT = frozenset(("apiVersion", "kind", "metadata", "spec", "status"))
_MACHINE = frozenset(
    (
        "dataVolumeTemplates",
        "instancetype",
        "liveUpdateFeatures",
        "preference",
        "runStrategy",
        "running",
        "template",
        "updateVolumesStrategy",
    )
)
_INSTANCE = frozenset(
    (
        "accessCredentials",
        "affinity",
        "architecture",
        "dnsConfig",
        "dnsPolicy",
        "domain",
        "evictionStrategy",
        "hostname",
        "livenessProbe",
        "networks",
        "nodeSelector",
        "priorityClassName",
        "readinessProbe",
        "schedulerName",
        "startStrategy",
        "subdomain",
        "terminationGracePeriodSeconds",
        "tolerations",
        "topologySpreadConstraints",
        "volumes",
    )
)
_DOMAIN = frozenset(
    (
        "chassis",
        "clock",
        "cpu",
        "devices",
        "features",
        "firmware",
        "ioThreadsPolicy",
        "launchSecurity",
        "machine",
        "memory",
        "resources",
    )
)
_DEVICES = frozenset(
    (
        "autoattachGraphicsDevice",
        "autoattachInputDevice",
        "autoattachMemBalloon",
        "autoattachPodInterface",
        "autoattachSerialConsole",
        "autoattachVSOCK",
        "blockMultiQueue",
        "clientPassthrough",
        "disks",
        "downwardMetrics",
        "filesystems",
        "gpus",
        "hostDevices",
        "inputs",
        "interfaces",
        "logSerialConsole",
        "networkInterfaceMultiqueue",
        "panicDevices",
        "rng",
        "sound",
        "tpm",
        "useVirtioTransitional",
        "video",
        "watchdog",
    )
)
_INSTANCETYPE = frozenset(
    (
        "annotations",
        "cpu",
        "gpus",
        "hostDevices",
        "ioThreads",
        "ioThreadsPolicy",
        "launchSecurity",
        "memory",
        "nodeSelector",
        "schedulerName",
    )
)
_PREFERENCE = frozenset(
    (
        "annotations",
        "clock",
        "cpu",
        "devices",
        "features",
        "firmware",
        "launchSecurity",
        "machine",
        "preferSpreadSocketToCoreRatio",
        "preferredArchitecture",
        "preferredSubdomain",
        "preferredTerminationGracePeriodSeconds",
        "requirements",
        "volumes",
    )
)
_KUBEVIRT = frozenset(
    (
        "certificateRotateStrategy",
        "configuration",
        "customizeComponents",
        "imagePullPolicy",
        "imagePullSecrets",
        "imageRegistry",
        "imageTag",
        "infra",
        "monitorAccount",
        "monitorNamespace",
        "productComponent",
        "productName",
        "productVersion",
        "serviceMonitorNamespace",
        "uninstallStrategy",
        "workloadUpdateStrategy",
        "workloads",
    )
)
# Only those that users set often; what isn't named anywhere is left to the server.
_CONFIGURATION = frozenset(("developerConfiguration", "imagePullPolicy", "machineType", "migrations", "smbios"))
_DEVELOPER = frozenset(("cpuAllocationRatio", "featureGates", "logVerbosity", "memoryOvercommit", "useEmulation"))


def _instance_levels(spec):
    """Return path -> names of fields, for the spec of an instance at that path."""
    domain = (*spec, "domain")
    return {spec: _INSTANCE, domain: _DOMAIN, (*domain, "devices"): _DEVICES}


# kind -> path of a mapping -> the fields that belong there, outer mappings first.
_LEVELS = {
    "VirtualMachine": {
        (): _OBJECT,
        ("metadata",): _METADATA,
        ("spec",): _MACHINE,
        ("spec", "template"): frozenset(("metadata", "spec")),
        ("spec", "template", "metadata"): _METADATA,
        **_instance_levels(("spec", "template", "spec")),
    },
    "VirtualMachineInstance": {(): _OBJECT, ("metadata",): _METADATA, **_instance_levels(("spec",))},
    "VirtualMachineInstanceReplicaSet": {
        (): _OBJECT,
        ("metadata",): _METADATA,
        ("spec",): frozenset(("paused", "replicas", "selector", "template")),
        ("spec", "template"): frozenset(("metadata", "spec")),
        ("spec", "template", "metadata"): _METADATA,
        **_instance_levels(("spec", "template", "spec")),
    },
    "VirtualMachinePool": {
        (): _OBJECT,
        ("metadata",): _METADATA,
        ("spec",): frozenset(
            (
                "autohealing",
                "maxUnavailable",
                "nameGeneration",
                "paused",
                "replicas",
                "scaleInStrategy",
                "selector",
                "updateStrategy",
                "virtualMachineTemplate",
            )
        ),
        ("spec", "virtualMachineTemplate"): frozenset(("metadata", "spec")),
        ("spec", "virtualMachineTemplate", "metadata"): _METADATA,
        ("spec", "virtualMachineTemplate", "spec"): _MACHINE,
    },
    "VirtualMachineInstancePreset": {
        (): _OBJECT,
        ("metadata",): _METADATA,
        ("spec",): frozenset(("domain", "selector")),
        ("spec", "domain"): _DOMAIN,
    },
    **{
        kind: {(): _OBJECT, ("metadata",): _METADATA, ("spec",): fields}
        for fields, kinds in (
            (_INSTANCETYPE, ("VirtualMachineInstancetype", "VirtualMachineClusterInstancetype")),
            (_PREFERENCE, ("VirtualMachinePreference", "VirtualMachineClusterPreference")),
        )
        for kind in kinds
    },
    "KubeVirt": {
        (): _OBJECT,
        ("metadata",): _METADATA,
        ("spec",): _KUBEVIRT,
        ("spec", "configuration"): _CONFIGURATION,
        ("spec", "configuration", "developerConfiguration"): _DEVELOPER,
    },
}
# kind -> paths of mappings from text to text, besides those of any object.
_TEXTS = {
    "ConfigMap": (("data",), ("binaryData",)),
    "Secret": (("data",), ("stringData",)),
    "VirtualMachine": (("spec", "template", "spec", "nodeSelector"),),
    "VirtualMachineInstance": (("spec", "nodeSelector"),),
    "VirtualMachinePool": (
        ("spec", "virtualMachineTemplate", "metadata", "labels"),
        ("spec", "virtualMachineTemplate", "metadata", "annotations"),
    ),
}
_TEXTS_OF_ALL = (
    ("metadata", "labels"),
    ("metadata", "annotations"),
    ("spec", "template", "metadata", "labels"),
    ("spec", "template", "metadata", "annotations"),
    ("spec", "jobTemplate", "metadata", "labels"),
    ("spec", "jobTemplate", "metadata", "annotations"),
    ("spec", "selector", "matchLabels"),
    ("spec", "template", "spec", "nodeSelector"),
)


def check_shape(origin, obj, kind=None):
    """Check an object, or the part of one that an option declares.

    :param origin: what users call the source, for messages.
    :param kind: the object's kind if it doesn't say so itself.
    :raises KubeError: a field is where it doesn't belong, naming the place where it does; or it has the wrong type.
    """
    kind = kind or obj.get("kind")
    _check_names(origin, obj)
    for path, fields in _LEVELS.get(kind, {}).items():
        mapping = _at(obj, path)
        if mapping is None:
            continue
        if not isinstance(mapping, dict):
            raise KubeError("%s.%s: must be a mapping, but is %s" % (origin, ".".join(path), described(mapping)))
        for name, value in mapping.items():
            if name not in fields and value is not None:
                _check_place(origin, kind, path, name, value)
    for path in dict.fromkeys(_TEXTS_OF_ALL + _TEXTS.get(kind, ())):
        _check_texts(origin, path, _at(obj, path))


def check_spec_is_of_machine(spec):
    """Raise KubeError if the spec of a VirtualMachine has what belongs in the one of its template."""
    misplaced = sorted(name for name in spec if name in _INSTANCE and spec[name] is not None)
    if misplaced:
        raise KubeError(
            "option spec: is the spec of the VirtualMachine, but has %s of its template. Write "
            "{template: {spec: {%s: …}}}. (In kubevirt.core.kubevirt_vm, spec is the template's.)"
            % (" and ".join([", ".join(misplaced[:-1]), misplaced[-1]] if misplaced[1:] else misplaced), misplaced[0])
        )


def _at(obj, path):
    for name in path:
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj


def _check_place(origin, kind, path, name, value):
    homes = _homes(kind, path, name, value)
    if not homes:
        return
    here = ".".join((*path, name))
    raise KubeError(
        "%s: %s is in the wrong place; it belongs in %s. Move it there." % (origin, here, " or ".join(homes))
    )


def _homes(kind, path, name, value):
    """Return where a field belongs that doesn't belong below path, as users write it; [] if nowhere."""
    levels = _LEVELS[kind]
    if name in ("apiVersion", "kind"):
        # Common in mappings of other kinds; alone they do no harm.
        return []
    if name == "metadata":
        return (
            ["metadata", "spec.template.metadata"]
            if kind == "VirtualMachine" and path == ("spec",)
            else [".".join((*path[: _depth_of_template(path)], "metadata"))]
        )
    if name == "spec":
        return [".".join(_spec_home(kind, path, value))]
    if name in ("status", "name", "namespace", "generateName"):
        return [] if name == "status" or len(path) > 2 else ["metadata.%s" % name]
    if name in ("labels", "annotations"):
        above = path[: _depth_of_template(path)]
        return [".".join((*above, "metadata", name))]
    return [
        ".".join((*level, name))
        for level, fields in levels.items()
        if name in fields and level[-1:] != ("metadata",) and level != ()
    ]


def _depth_of_template(path):
    """Return how many names of path lead to the object, or to the template, whose metadata is meant."""
    return 2 if path[:2] == ("spec", "template") else 0


def _spec_home(kind, path, value):
    """Return the path of the spec that a spec somewhere else is meant for."""
    inner = ("spec", "template", "spec")
    if kind != "VirtualMachine":
        return ("spec",)
    if path[:2] == ("spec", "template"):
        return inner
    machine = isinstance(value, dict) and bool(_MACHINE & set(value))
    instance = isinstance(value, dict) and bool((_INSTANCE | _DOMAIN) & set(value))
    if path == ("metadata",) and not instance:
        return ("spec",)
    return ("spec",) if machine else inner


def _check_names(origin, obj):
    """Check that names of fields are text: YAML takes 1, 1.0, on and yes for something else."""
    pending = [((), obj)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, list):
            pending += [((*path, str(number)), inner) for number, inner in enumerate(value)]
        if not isinstance(value, dict):
            continue
        for name, inner in value.items():
            if not isinstance(name, str):
                raise KubeError(
                    "%s: the name %s is a %s, but must be text. Write it in quotes."
                    % (".".join((origin, *path)), _as_json(name), type_name(name))
                )
            pending.append(((*path, name), inner))


def _check_texts(origin, path, mapping):
    where = ".".join((origin, *path))
    if mapping is None:
        return
    if not isinstance(mapping, dict):
        raise KubeError("%s: must be a mapping, but is %s" % (where, described(mapping)))
    for name, value in mapping.items():
        if value is not None and not isinstance(value, str):
            remedy = "" if isinstance(value, (dict, list)) else ' Write it in quotes: "%s".' % _as_json(value)
            # Values of Secrets are not for the log.
            shown = "a %s" % type_name(value) if path[0] in ("data", "stringData") else described(value)
            remedy = " Write it in quotes." if path[0] in ("data", "stringData") and remedy else remedy
            raise KubeError("%s.%s: must be text, but is %s.%s" % (where, name, shown, remedy))


def _as_json(value):
    return str(value).lower() if isinstance(value, bool) else str(value)
