# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets with SSH keys and passwords for the guest, in its Pod. Pure."""

from collections.abc import Mapping
from typing import Any

from turtles.api.objects import Object
from turtles.domain import credentials


def add_access_credentials(spec: Mapping[str, Any], pod_spec: Object) -> None:
    """Mount the Secrets of a VMI's *spec* in the launcher's container."""
    for index, secret in enumerate(credentials.secrets(spec)):
        name = f"access-credentials-{index}"
        pod_spec["volumes"].append({"name": name, "secret": {"secretName": secret}})
        pod_spec["containers"][0]["volumeMounts"].append(
            {"name": name, "mountPath": str(credentials.secret_dir(secret)), "readOnly": True}
        )
