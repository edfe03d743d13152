# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to exist before the engine's components start: namespace, CRDs, service accounts and their permissions.

The permissions are those of `turtles.virt_api.rights`. On a cluster, Deployments, the DaemonSet and what goes with them
are part of it (`turtles.virt_api.workloads`).

This module and those it imports need nothing but PyYAML: the roles run it where the engine isn't installed, as::

    PYTHONPATH=turtles-….whl python3 -m turtles.virt_api.manifests NAMESPACE VALUES.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from turtles.api import crd
from turtles.api.objects import Object
from turtles.virt_api import names, rights, workloads
from turtles.virt_api.workloads import Values


def objects(namespace: str = "kubevirt", cluster: Values | None = None) -> list[Object]:
    """Return everything, in the order in which it is to be created.

    `cluster`: also what runs the components on a Kubernetes cluster; without it they are services of a machine.
    """
    # The node agent is privileged, which Pod Security admission may forbid where nobody says otherwise
    labels = {**names.LABELS, "pod-security.kubernetes.io/enforce": "privileged"}
    manifests: list[Object] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}},
        *crd.crds(),
    ]
    for component in ("virt-api", "virt-controller", "virt-handler"):
        metadata = {"name": component, "namespace": namespace, "labels": dict(names.LABELS)}
        manifests.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    manifests += rights.objects(namespace, on_cluster=cluster is not None)
    if cluster is not None:
        manifests += workloads.objects(cluster, namespace)
    return manifests


def render(namespace: str = "kubevirt", cluster: Values | None = None) -> str:
    """Return everything as YAML documents; the same text for the same version of the engine."""
    return yaml.dump_all(
        objects(namespace, cluster),
        Dumper=_Dumper,
        sort_keys=False,
        explicit_start=True,
        default_flow_style=False,
        allow_unicode=True,
        width=120,
    )


def read_values(file: str) -> Values:
    """Read the values of a cluster from a JSON file, or from standard input if it is called ``-``.

    Raises OSError, or ValueError with what is wrong.
    """
    text = sys.stdin.read() if file == "-" else Path(file).read_text()
    return Values.from_json(json.loads(text))


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes repeated parts out, where YAML would refer to the first; not everybody reads that."""

    def ignore_aliases(self, data: Any) -> bool:
        """Refer to nothing."""
        return True


if __name__ == "__main__":
    try:
        sys.stdout.write(render(sys.argv[1], read_values(sys.argv[2])))
    except (OSError, ValueError) as error:
        sys.exit(f"{sys.argv[2]}: {error}")
