# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether two specs of VirtualMachineInstances describe the same machine."""

from __future__ import annotations

from typing import Any

from turtles.api.configuration import ClusterConfiguration
from turtles.api.kind import Context
from turtles.api.kinds.vmi.defaults import default
from turtles.api.kinds.vmi.schema import VMI_SPEC
from turtles.api.rules import Spec

# Fills in what is the same in every installation, and nothing that a user could have written: what the configuration
# would choose may have changed since an instance was started.
_NO_CHOICES = Context(
    ClusterConfiguration(
        architecture="",
        machine_type="",
        cpu_model="",
        default_network_interface="",
        eviction_strategy="",
        live_update=False,
    )
)


def is_same_template(one: Spec, other: Spec) -> bool:
    """Tell whether two `spec.template.spec` make the same instance, however they are written.

    `96Mi` is `100663296`, and a field that isn't given is as good as its default.
    """
    return one == other or is_same_instance(_completed(one), _completed(other))


def is_same_instance(one: Spec, other: Spec) -> bool:
    """Tell whether two specs of instances, with their defaults set, are the same, however they are written."""
    return bool(VMI_SPEC.canonical(one) == VMI_SPEC.canonical(other))


def _completed(template: Spec) -> Any:
    return default({"metadata": {"name": "compared"}, "spec": template}, _NO_CHOICES)["spec"]
