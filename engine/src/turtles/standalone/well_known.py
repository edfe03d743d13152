# SPDX-License-Identifier: GPL-3.0-or-later
"""Labels, annotations, finalizers and taints of Kubernetes ("Well-Known Labels, Annotations and Taints") that several
parts of standalone mode use."""

from __future__ import annotations

#: Labels of nodes.
HOSTNAME, ARCH, OS = "kubernetes.io/hostname", "kubernetes.io/arch", "kubernetes.io/os"
BETA_ARCH, BETA_OS = "beta.kubernetes.io/arch", "beta.kubernetes.io/os"
#: Taint of nodes that aren't Ready.
NOT_READY = "node.kubernetes.io/not-ready"
#: Label of an EndpointSlice: its Service. Label of Endpoints: nobody mirrors them to EndpointSlices.
SERVICE_NAME, SKIP_MIRROR = "kubernetes.io/service-name", "endpointslice.kubernetes.io/skip-mirror"
#: Annotation of Pods that a node runs from its own files.
MIRROR = "kubernetes.io/config.mirror"
#: Type of Secrets with tokens of service accounts, and their annotation with the account's name.
SERVICE_ACCOUNT_TOKEN = "kubernetes.io/service-account-token"  # noqa: S105
SERVICE_ACCOUNT_NAME = "kubernetes.io/service-account.name"
#: Finalizers of PersistentVolumes and PersistentVolumeClaims.
PV_PROTECTION, PVC_PROTECTION = "kubernetes.io/pv-protection", "kubernetes.io/pvc-protection"
#: Annotation of the StorageClass that serves claims which name none.
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
#: Annotation of a claim: the node of its first Pod.
SELECTED_NODE = "volume.kubernetes.io/selected-node"
