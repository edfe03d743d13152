# SPDX-License-Identifier: GPL-3.0-or-later
"""PersistentVolumes that are directories of this machine, for claims of the StorageClass ``local-path``.

Does what Kubernetes' persistent volume controller, its protection controllers and a provisioner do on a cluster, as far
as one machine needs it: default class, binding to existing volumes, WaitForFirstConsumer, growing, reclaiming,
snapshots, clones.
"""
