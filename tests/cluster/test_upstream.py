# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Upstream's KubeVirt by the same playbooks: a manifest like its operator's, and the test plays the operator."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client
from kubernetes_cluster import Cluster

from playbooks import playbook

GROUP, VERSION, PLURAL = "kubevirt.io", "v1", "kubevirts"
FREE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def definition(kind: str, plural: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"spec": FREE, "status": FREE}}
    version = {"name": VERSION, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [{**version, "subresources": {"status": {}}}],
        },
    }


OPERATOR = [
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kubevirt"}},
    definition("KubeVirt", PLURAL),
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "kubevirt-operator", "namespace": "kubevirt"}},
]


class Upstream:
    """The playbooks with upstream's manifests, and what the operator would write."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.api = client.CustomObjectsApi(cluster.client())
        self._folder = folder
        self._kubeconfig = cluster.kubeconfig
        self._manifest = folder / "kubevirt-operator.yaml"
        self._manifest.write_text(yaml.safe_dump_all(OPERATOR))

    def playbook(self, name: str, *options: str, check: bool = True, **variables: Any) -> str:
        given = {
            "kubeconfig": str(self._kubeconfig),
            "kubevirt_engine": "upstream",
            "kubevirt_upstream_manifests": [str(self._manifest)],
            "kubevirt_configuration": {"developerConfiguration": {"useEmulation": True}},
            **variables,
        }
        done = playbook(f"turtles.kubevirt.{name}", "-e", json.dumps(given), *options, folder=self._folder, check=check)
        return str(done.stdout)

    def operate(self, until: threading.Event) -> None:
        """Say that everything is available as soon as the object is there."""
        available = [
            {"type": "Available", "status": "True"},
            {"type": "Progressing", "status": "False"},
            {"type": "Degraded", "status": "False"},
        ]
        while not until.wait(0.2):
            try:
                for found in self.api.list_namespaced_custom_object(GROUP, VERSION, "kubevirt", PLURAL)["items"]:
                    if not found.get("status"):
                        status = {"phase": "Deployed", "conditions": available}
                        self.api.patch_namespaced_custom_object_status(
                            GROUP, VERSION, "kubevirt", PLURAL, found["metadata"]["name"], {"status": status}
                        )
            except client.ApiException as error:
                if error.status not in (404, 409):
                    raise


@pytest.fixture
def upstream(control_plane: Cluster, tmp_path: Path) -> Iterator[Upstream]:
    found = Upstream(control_plane, tmp_path)
    yield found
    found.playbook("teardown", kubevirt_remove_workloads=True)


def test_the_playbooks_serve_upstream_as_well(upstream: Upstream) -> None:
    failed = upstream.playbook("deploy", check=False, kubevirt_timeout=3)
    assert "KubeVirt kubevirt/kubevirt isn't available within 3 seconds" in failed
    ended = threading.Event()
    operator = threading.Thread(target=upstream.operate, args=(ended,))
    operator.start()
    try:
        upstream.playbook("deploy", kubevirt_timeout=60)
    finally:
        ended.set()
        operator.join()
    kubevirt = upstream.api.get_namespaced_custom_object(GROUP, VERSION, "kubevirt", PLURAL, "kubevirt")
    assert kubevirt["spec"]["configuration"]["developerConfiguration"]["useEmulation"] is True
    assert "changed=0 " in upstream.playbook("upgrade")
    assert "changed=0 " in upstream.playbook("deploy", "--check")
    upstream.playbook("teardown")
    assert "changed=0 " in upstream.playbook("teardown")


@pytest.mark.parametrize(("there", "other"), [("virt-operator", "turtles"), ("virt-controller", "upstream")])
def test_another_ones_installation_is_not_touched(
    control_plane: Cluster, upstream: Upstream, there: str, other: str
) -> None:
    core, apps = client.CoreV1Api(control_plane.client()), client.AppsV1Api(control_plane.client())
    if all(found.metadata.name != "kubevirt" for found in core.list_namespace().items):
        core.create_namespace({"metadata": {"name": "kubevirt"}})
    labels = {"app": there}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "none"}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    apps.create_namespaced_deployment("kubevirt", {"metadata": {"name": there}, "spec": spec})
    try:
        for action in ("deploy", "teardown"):
            said = " ".join(upstream.playbook(action, check=False, kubevirt_engine=other).split())
            assert f"and kubevirt_engine is {other}. Set kubevirt_engine=" in said
        assert apps.read_namespaced_deployment(there, "kubevirt").metadata.generation == 1
    finally:
        apps.delete_namespaced_deployment(there, "kubevirt")


def test_without_manifests_it_says_what_is_missing(upstream: Upstream) -> None:
    said = upstream.playbook("deploy", check=False, kubevirt_upstream_manifests=[])
    assert "kubevirt_upstream_manifests must name upstream's operator manifest" in " ".join(said.split())
