# SPDX-License-Identifier: GPL-3.0-or-later
"""What components and users may do: roles and their bindings.

Every rule names its resources and verbs one by one. The names of the roles for users are KubeVirt's.
"""

from __future__ import annotations

from collections.abc import Sequence

from turtles.api import choices, uploads
from turtles.api.kind import GROUP, READ, SUBRESOURCES_GROUP, SUBRESOURCES_VERSIONS
from turtles.api.kinds import KINDS, read_by_others
from turtles.api.kinds.cdi_config import CDI_CONFIG
from turtles.api.kinds.cdi_config import NAME as CDI_CONFIG_NAME
from turtles.api.kinds.clone import CLONE
from turtles.api.kinds.data_import_cron import DATA_IMPORT_CRON
from turtles.api.kinds.data_source import DATA_SOURCE
from turtles.api.kinds.data_volume import DATA_VOLUME
from turtles.api.kinds.export import EXPORT
from turtles.api.kinds.migration_policy import MIGRATION_POLICY
from turtles.api.kinds.pool import POOL
from turtles.api.kinds.snapshot import CONTENT, RESTORE, SNAPSHOT
from turtles.api.kinds.storage_profile import STORAGE_PROFILE
from turtles.api.objects import Object
from turtles.virt_api import discovery, names

_RBAC = "rbac.authorization.k8s.io"
#: Users' roles that become part of those of Kubernetes.
_AGGREGATED = ("admin", "edit", "view")
#: KubeVirt's role of those who may see the instance types and preferences of the cluster.
_CHOICES = f"{choices.GROUP}:view"
#: What there is to do with the subresource scale.
_SCALE_VERBS = ("get", "update", "patch")
_LABELS = names.LABELS


def objects(namespace: str, *, on_cluster: bool) -> list[Object]:
    """Return all roles and bindings, in the order in which they are to be created.

    :param namespace: the components' own.
    :param on_cluster: the components are workloads of a cluster, and not services of a machine.
    """
    return [
        *_component("virt-api", namespace, _virt_api()),
        *_component("virt-controller", namespace, _virt_controller()),
        *_component("virt-handler", namespace, _virt_handler(with_capacity=not on_cluster)),
        *_local("virt-api", namespace, _virt_api_local(with_service=not on_cluster)),
        *_local("virt-controller", namespace, _virt_controller_local(with_workloads=on_cluster)),
        *_local("virt-handler", namespace, [_rule(GROUP, ["kubevirts"], READ)]),
        _local_binding(
            _metadata("kubevirt-virt-api-auth-reader", names.AUTHENTICATION_NAMESPACE),
            "extension-apiserver-authentication-reader",
            _subject("virt-api", namespace),
        ),
        *_users(),
    ]


def _rule(group: str, resources: list[str], verbs: Sequence[str], names: list[str] | None = None) -> Object:
    rule: Object = {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}
    if names:
        rule["resourceNames"] = list(names)
    return rule


#: Users' roles that may copy the disks of a namespace to others.
_COPIES_DISKS = ("admin", "edit")


def _own(group: str, resource: str, names: list[str]) -> list[Object]:
    """Return the rules for objects a component makes itself: creation can't be limited to names."""
    return [_rule(group, [resource], ["create"]), _rule(group, [resource], [*READ, "update"], names)]


def _definition(verbs: Sequence[str]) -> Object:
    """Return the rule for what says whether upstream's CDI does what there is to do for DataVolumes."""
    return _rule("apiextensions.k8s.io", ["customresourcedefinitions"], verbs, [DATA_VOLUME.crd_name])


def _virt_api() -> list[Object]:
    versions = [f"{version}.{group}" for group, versions in discovery.GROUPS.items() for version in versions]
    admission = "admissionregistration.k8s.io"
    return [
        *_own(admission, "mutatingwebhookconfigurations", [names.MUTATOR]),
        *_own(admission, "validatingwebhookconfigurations", [names.VALIDATOR]),
        *_own("apiregistration.k8s.io", "apiservices", versions),
        # Where uploads are sent
        *_own(CDI_CONFIG.group, CDI_CONFIG.plural, [CDI_CONFIG_NAME]),
        _rule("authorization.k8s.io", ["subjectaccessreviews"], ["create"]),
        # list: whether there are any when a KubeVirt object is deleted
        _rule(GROUP, ["virtualmachines"], ["get", "list", "patch"]),
        _rule(GROUP, ["virtualmachines/status"], ["patch"]),
        _rule(GROUP, ["virtualmachineinstances"], ["get", "list", "patch"]),
        *(_rule(kind.group, [kind.plural], READ) for kind in read_by_others()),
        # What a machine is to have from an instance type and a preference, or had when it was first started
        *_instancetypes(),
        _rule(GROUP, ["virtualmachineinstancemigrations"], ["create"]),
        # Whether what is to be restored can be
        _rule(SNAPSHOT.group, [SNAPSHOT.plural], ["get"]),
        _rule("apps", ["controllerrevisions"], ["get"]),
        # What says by its labels what suits a disk
        _rule("", ["persistentvolumeclaims"], ["get"]),
        _rule("snapshot.storage.k8s.io", ["volumesnapshots"], ["get"]),
        # Where exports are served
        _rule(EXPORT.group, [EXPORT.plural], ["get"]),
        # What a disk is to be a copy of
        _rule(DATA_SOURCE.group, [DATA_SOURCE.plural, DATA_VOLUME.plural], ["get"]),
        _definition(["get"]),
        # Whose machine an eviction is about, and to tell its user
        _rule("", ["pods"], ["get"]),
        # Where their virt-handler is
        _rule("", ["nodes"], ["get"]),
        _rule("", ["events"], ["create", "patch"]),
    ]


def _instancetypes() -> list[Object]:
    return [_rule(choices.GROUP, [kind.plural for kind in KINDS if kind.group == choices.GROUP], ["get"])]


def _virt_api_local(with_service: bool) -> list[Object]:
    rules = [
        *_own("", "secrets", [names.CERTIFICATES_SECRET, names.UPLOAD_KEY_SECRET]),
        _rule(GROUP, ["kubevirts"], READ),
    ]
    if with_service:
        rules += [
            *_own("", "services", [names.SERVICE]),
            *_own("", "endpoints", [names.SERVICE]),
            # Endpoints that somebody else manages may be written only with this (OpenShift)
            _rule("", ["endpoints/restricted"], ["create"]),
        ]
    else:
        # Whether replicas of another version are still there
        rules.append(_rule("apps", ["deployments"], READ, ["virt-api"]))
        # The names by which exports are reached from outside
        rules.append(_rule("networking.k8s.io", ["ingresses"], READ))
    return rules


def _virt_controller() -> list[Object]:
    return [
        # delete: machines go with a KubeVirt object whose uninstallStrategy is RemoveWorkloads
        # create: those of pools
        _rule(GROUP, ["virtualmachines"], [*READ, "create", "patch", "delete"]),
        _rule(GROUP, ["virtualmachines/status"], ["patch"]),
        # create: those of machines that have to leave their node; delete: all but the last few of a machine
        _rule(GROUP, ["virtualmachineinstancemigrations"], [*READ, "create", "patch", "delete"]),
        _rule(GROUP, ["virtualmachineinstancemigrations/status"], ["patch"]),
        _rule(MIGRATION_POLICY.group, [MIGRATION_POLICY.plural], READ),
        # Their labels, which policies select
        _rule("", ["namespaces"], READ),
        _rule(GROUP, ["virtualmachineinstancereplicasets"], READ),
        _rule(GROUP, ["virtualmachineinstancereplicasets/status"], ["patch"]),
        _rule(POOL.group, [POOL.plural], [*READ, "patch"]),
        _rule(POOL.group, [f"{POOL.plural}/status"], ["patch"]),
        _rule(POOL.group, [f"{POOL.plural}/finalizers"], ["update"]),
        # To own what blocks their deletion
        _rule(
            GROUP,
            [
                "virtualmachines/finalizers",
                "virtualmachineinstances/finalizers",
                "virtualmachineinstancereplicasets/finalizers",
            ],
            ["update"],
        ),
        _rule(GROUP, ["virtualmachineinstances"], [*READ, "create", "patch", "delete"]),
        *_snapshots(),
        *_exports(),
        _rule("", ["pods"], [*READ, "create", "patch", "delete"]),
        _rule("", ["pods/status"], ["patch"]),
        # Of machines that are to get the launcher of a new version and can't be migrated
        _rule("", ["pods/eviction"], ["create"]),
        _rule("", ["nodes"], [*READ, "patch"]),
        # create: with what outlives machines beside their disks, is restored, or is a DataVolume's; patch: claims that
        # outlive the machines of a pool, and how an import ended; delete: what an import stored meanwhile, and those
        # whose place a restored one takes
        _rule("", ["persistentvolumeclaims"], [*READ, "create", "patch", "delete"]),
        # create: those of machines' templates; and, as delete, those that copy disks for other namespaces
        _rule(DATA_VOLUME.group, [DATA_VOLUME.plural], [*READ, "create", "delete"]),
        # To copy disks for those who may, which it asks for first
        _rule(DATA_VOLUME.group, [f"{DATA_VOLUME.plural}/source"], ["create"]),
        _rule("authorization.k8s.io", ["subjectaccessreviews"], ["create"]),
        # create, patch: those that lead to the imports of DataImportCrons
        _rule(DATA_SOURCE.group, [DATA_SOURCE.plural], [*READ, "create", "patch"]),
        _rule(DATA_SOURCE.group, [f"{DATA_SOURCE.plural}/status"], ["patch"]),
        _rule(DATA_IMPORT_CRON.group, [DATA_IMPORT_CRON.plural], [*READ, "patch"]),
        _rule(DATA_IMPORT_CRON.group, [f"{DATA_IMPORT_CRON.plural}/status"], ["patch"]),
        _rule(DATA_IMPORT_CRON.group, [f"{DATA_IMPORT_CRON.plural}/finalizers"], ["update"]),
        _rule(CDI_CONFIG.group, [CDI_CONFIG.plural], ["list", "watch"]),
        _rule(CDI_CONFIG.group, [CDI_CONFIG.plural], ["get", "patch"], [CDI_CONFIG_NAME]),
        # create: one for each StorageClass
        _rule(STORAGE_PROFILE.group, [STORAGE_PROFILE.plural], [*READ, "create"]),
        _rule(STORAGE_PROFILE.group, [f"{STORAGE_PROFILE.plural}/status"], ["patch"]),
        # Hand copies over to the namespace that they are for
        _rule("", ["persistentvolumes"], ["get", "patch"]),
        _rule(DATA_VOLUME.group, [f"{DATA_VOLUME.plural}/status"], ["patch"]),
        _rule(DATA_VOLUME.group, [f"{DATA_VOLUME.plural}/finalizers"], ["update"]),
        # The identities of upload and export servers and tokens of exports, which can't be read again, nor changed
        _rule("", ["secrets"], ["create"]),
        _rule("storage.k8s.io", ["storageclasses"], READ),
        _definition(READ),
        _rule("", ["resourcequotas"], READ),
        # Which resource of the nodes the network of an SR-IOV interface is.
        _rule("k8s.cni.cncf.io", ["network-attachment-definitions"], ["get"]),
        _rule("", ["events"], ["create", "patch"]),
        _rule("policy", ["poddisruptionbudgets"], [*READ, "create"]),
        _rule("apps", ["controllerrevisions"], [*READ, "create", "patch", "delete"]),
        *_instancetypes(),
        _rule(
            "apiregistration.k8s.io",
            ["apiservices"],
            READ,
            # The second: by whom upload servers know virt-api
            [f"{SUBRESOURCES_VERSIONS[0]}.{SUBRESOURCES_GROUP}", uploads.API_SERVICE],
        ),
    ]


def _snapshots() -> list[Object]:
    """Return virt-controller's rules for snapshots of machines, and for those of volumes that they consist of."""
    storage = "snapshot.storage.k8s.io"
    return [
        # create, delete: those that clones are made by
        _rule(SNAPSHOT.group, [SNAPSHOT.plural, RESTORE.plural], [*READ, "create", "patch", "delete"]),
        _rule(CLONE.group, [CLONE.plural], READ),
        _rule(CLONE.group, [f"{CLONE.plural}/status"], ["patch"]),
        _rule(SNAPSHOT.group, [CONTENT.plural], [*READ, "create", "delete"]),
        _rule(SNAPSHOT.group, [f"{kind.plural}/status" for kind in (SNAPSHOT, CONTENT, RESTORE)], ["patch"]),
        # To own what blocks its deletion
        _rule(SNAPSHOT.group, [f"{CONTENT.plural}/finalizers"], ["update"]),
        _rule(CLONE.group, [f"{CLONE.plural}/finalizers"], ["update"]),
        _rule(storage, ["volumesnapshots"], [*READ, "create"]),
        _rule(storage, ["volumesnapshotclasses"], READ),
        _rule(SUBRESOURCES_GROUP, ["virtualmachineinstances/freeze", "virtualmachineinstances/unfreeze"], ["update"]),
    ]


def _exports() -> list[Object]:
    """Return virt-controller's rules for exports, and for what they consist of."""
    return [
        # delete: those whose time is over
        _rule(EXPORT.group, [EXPORT.plural], [*READ, "delete"]),
        _rule(EXPORT.group, [f"{EXPORT.plural}/status"], ["patch"]),
        # To own what blocks its deletion
        _rule(EXPORT.group, [f"{EXPORT.plural}/finalizers"], ["update"]),
        _rule("", ["services"], [*READ, "create"]),
        # Objects that make an exported machine again, for the export's server
        _rule("", ["configmaps"], ["create"]),
    ]


def _virt_controller_local(with_workloads: bool) -> list[Object]:
    rules = [
        _rule("coordination.k8s.io", ["leases"], ["create"]),
        _rule("coordination.k8s.io", ["leases"], ["get", "update"], ["virt-controller"]),
        _rule(GROUP, ["kubevirts"], [*READ, "patch"]),
        _rule(GROUP, ["kubevirts/status"], ["patch"]),
        # What runs of the engine
        _rule("apps", ["deployments", "daemonsets"], READ),
        # Whether exports are reached from outside
        _rule("networking.k8s.io", ["ingresses"], READ),
    ]
    if with_workloads:
        # Where they run, and how many, the KubeVirt object says
        rules += [
            _rule("apps", ["deployments"], ["update"], ["virt-api", "virt-controller"]),
            _rule("apps", ["daemonsets"], ["update"], ["virt-handler"]),
        ]
    return rules


def _virt_handler(with_capacity: bool) -> list[Object]:
    rules = [
        _rule(GROUP, ["virtualmachineinstances"], [*READ, "patch"]),
        _rule("", ["nodes"], ["get", "patch"]),
        _rule("", ["events"], ["create", "patch"]),
        # Whose certificate virt-api has
        _rule("apiregistration.k8s.io", ["apiservices"], READ, [f"{SUBRESOURCES_VERSIONS[0]}.{SUBRESOURCES_GROUP}"]),
    ]
    if with_capacity:
        # How many may use KVM; where there is a kubelet it hears of that from the device plugin
        rules.append(_rule("", ["nodes/status"], ["patch"]))
    return rules


def _users() -> list[Object]:
    rights = _rights()
    # Everyone may ask for the version, as virtctl does first of all, and with what it looks into disks
    rights["default"].insert(0, _rule(SUBRESOURCES_GROUP, ["version", "guestfs"], ["get", "list"]))
    everyone = {"apiGroup": _RBAC, "kind": "Group", "name": "system:authenticated"}
    return [
        *(
            _role(
                f"kubevirt.io:{role}",
                rules,
                {f"{_RBAC}/aggregate-to-{role}": "true"} if role in _AGGREGATED else None,
            )
            for role, rules in rights.items()
        ),
        _binding("kubevirt.io:default", [everyone]),
        # Those without a namespace are for everyone to choose from
        _role(_CHOICES, [_rule(choices.GROUP, _choices(), READ)]),
        _binding(_CHOICES, [everyone]),
    ]


def _choices() -> list[str]:
    return [kind.plural for kind in KINDS if kind.group == choices.GROUP and not kind.namespaced]


def _rights() -> dict[str, list[Object]]:
    """Return the rules of each user role: subresources first, and kinds with the same verbs in one rule."""
    resources: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    operations = {**discovery.SUBRESOURCES, **discovery.NAMESPACE_OPERATIONS}
    for name, (_, subresource) in sorted(operations.items()):
        for role in subresource.roles:
            resources.setdefault((role, SUBRESOURCES_GROUP, (subresource.verb,)), []).append(name)
    for role in ("admin", "edit"):
        resources[(role, uploads.GROUP, ("create",))] = [uploads.PLURAL]
    for kind in KINDS:
        for role, verbs in kind.rights.items():
            resources.setdefault((role, kind.group, tuple(verbs)), []).append(kind.plural)
            if kind.scale:
                of_scale = tuple(verb for verb in verbs if verb in _SCALE_VERBS)
                resources.setdefault((role, kind.group, of_scale), []).append(f"{kind.plural}/scale")
    for role in _COPIES_DISKS:
        resources.setdefault((role, DATA_VOLUME.group, ("create",)), []).append(f"{DATA_VOLUME.plural}/source")
    found: dict[str, list[Object]] = {role: [] for role in (*_AGGREGATED, "default")}
    for (role, group, verbs), plurals in resources.items():
        found.setdefault(role, []).append(_rule(group, plurals, verbs))
    return found


def _component(name: str, namespace: str, rules: list[Object]) -> list[Object]:
    return [_role(f"kubevirt-{name}", rules), _binding(f"kubevirt-{name}", [_subject(name, namespace)])]


def _local(name: str, namespace: str, rules: list[Object]) -> list[Object]:
    metadata = _metadata(f"kubevirt-{name}", namespace)
    return [
        {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        _local_binding(metadata, f"kubevirt-{name}", _subject(name, namespace)),
    ]


def _local_binding(metadata: Object, role: str, subject: Object) -> Object:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": role},
        "subjects": [subject],
    }


def _role(name: str, rules: list[Object], labels: dict[str, str] | None = None) -> Object:
    metadata = {"name": name, "labels": {**_LABELS, **(labels or {})}}
    return {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": rules}


def _binding(name: str, subjects: list[Object]) -> Object:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name, "labels": dict(_LABELS)},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": name},
        "subjects": subjects,
    }


def _subject(name: str, namespace: str) -> Object:
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}


def _metadata(name: str, namespace: str) -> Object:
    return {"name": name, "namespace": namespace, "labels": dict(_LABELS)}
