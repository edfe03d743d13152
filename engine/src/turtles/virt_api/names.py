# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of the objects virt-api writes or needs; its permissions refer to them too."""

from __future__ import annotations

#: The Secret of the authority and the serving certificate.
CERTIFICATES_SECRET = "kubevirt-virt-api-certs"  # noqa: S105
#: The Secret of the key that tokens for uploads are signed with.
UPLOAD_KEY_SECRET = "kubevirt-upload-token-key"  # noqa: S105
MUTATOR = "virt-api-mutator"
VALIDATOR = "virt-api-validator"
SERVICE = "virt-api"
#: Where the API server says which front proxies may make requests on behalf of users.
AUTHENTICATION_NAMESPACE = "kube-system"
AUTHENTICATION_CONFIGMAP = "extension-apiserver-authentication"
#: On everything the engine brings.
LABELS = {"app.kubernetes.io/part-of": "kubevirt"}
