# SPDX-License-Identifier: GPL-3.0-or-later
"""KubeVirt's kinds as the client addresses them."""

from turtles.api import populators
from turtles.api.kind import Kind
from turtles.api.kinds import KINDS
from turtles.kube.resources import Resource


def resource(kind: Kind) -> Resource:
    """Return the resource of a kind's storage version."""
    return Resource(kind.group, kind.version, kind.kind, kind.plural, kind.namespaced)


#: Resources of all kinds, by kind.
RESOURCES = {kind.kind: resource(kind) for kind in KINDS}

VM = RESOURCES["VirtualMachine"]
VMI = RESOURCES["VirtualMachineInstance"]
REPLICASET = RESOURCES["VirtualMachineInstanceReplicaSet"]
POOL = RESOURCES["VirtualMachinePool"]
MIGRATION = RESOURCES["VirtualMachineInstanceMigration"]
MIGRATION_POLICY = RESOURCES["MigrationPolicy"]
KUBEVIRT = RESOURCES["KubeVirt"]
DATA_VOLUME = RESOURCES["DataVolume"]
DATA_SOURCE = RESOURCES["DataSource"]
DATA_IMPORT_CRON = RESOURCES["DataImportCron"]
STORAGE_PROFILE = RESOURCES["StorageProfile"]
CDI = RESOURCES["CDI"]
CDI_CONFIG = RESOURCES["CDIConfig"]
POPULATORS = tuple(RESOURCES[kind] for kind in populators.KINDS)
SNAPSHOT = RESOURCES["VirtualMachineSnapshot"]
SNAPSHOT_CONTENT = RESOURCES["VirtualMachineSnapshotContent"]
RESTORE = RESOURCES["VirtualMachineRestore"]
CLONE = RESOURCES["VirtualMachineClone"]
EXPORT = RESOURCES["VirtualMachineExport"]
