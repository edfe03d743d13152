# SPDX-License-Identifier: GPL-3.0-or-later
"""The identity of a server in a Pod: certificate and key in a Secret that goes with the Pod. Pure.

The certificate is also in an annotation of the Pod, by which virt-api knows the server.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from turtles.api.objects import Object, owner_reference

_IDENTITY = "identity"


def mount_identity(spec: Object, secret: str) -> None:
    """Have the first container of a Pod's spec, in place, read its identity from a Secret.

    :param secret: its name; it needn't exist so far.
    """
    spec["containers"][0]["volumeMounts"].append({"name": _IDENTITY, "mountPath": "/identity", "readOnly": True})
    spec["volumes"].append({"name": _IDENTITY, "secret": {"secretName": secret}})


def secret_of(pod: Object) -> str:
    """Return the name of the Secret with a Pod's identity."""
    volume = next(each for each in pod["spec"]["volumes"] if each["name"] == _IDENTITY)
    return str(volume["secret"]["secretName"])


def identity(pod: Object, certificate: str, key: str, labels: Mapping[str, str], authorities: str = "") -> Object:
    """Return the Secret with a Pod's identity.

    :param certificate: with its key, in PEM. :param labels: of the Secret.
    :param authorities: those of the client that the server serves, if it doesn't serve everyone.
    """
    data = {"tls.crt": certificate, "tls.key": key, **({"ca.crt": authorities} if authorities else {})}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": secret_of(pod),
            "namespace": pod["metadata"]["namespace"],
            "labels": dict(labels),
            "ownerReferences": [owner_reference({**pod, "apiVersion": "v1", "kind": "Pod"})],
        },
        "type": "kubernetes.io/tls",
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in data.items()},
    }
