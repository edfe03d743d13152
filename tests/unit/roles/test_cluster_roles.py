# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""In which order the roles controller and handler write to a cluster, and what they refuse."""

from __future__ import annotations

import copy
import json
import threading
from pathlib import Path
from typing import Any

import pytest

ROLES = ["turtles.kubevirt.controller", "turtles.kubevirt.handler"]
#: What virt-api writes by itself.
REGISTERED = [
    ("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations", "virt-api-mutator"),
    ("admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", "virt-api-validator"),
    ("apiregistration.k8s.io/v1", "apiservices", "v1.subresources.kubevirt.io"),
    ("apiregistration.k8s.io/v1", "apiservices", "v1alpha3.subresources.kubevirt.io"),
    ("apiregistration.k8s.io/v1", "apiservices", "v1beta1.upload.cdi.kubevirt.io"),
]
#: Seconds until workloads are renewed. Longer than Ansible takes from one task to the next.
LATER = 2.0
COMPONENTS = ["deployments/virt-api", "deployments/virt-controller", "daemonsets/virt-handler"]


@pytest.fixture(autouse=True)
def _cluster(api):
    """What controllers of a cluster and of KubeVirt would do, a moment later than what they do it to."""
    api.put("namespaces", {"metadata": {"name": "kube-system"}})
    write = api._write

    def written(path, obj):
        stored = write(path, obj)
        status = status_of(path.split("/")[-2], stored)
        if stored.get("status") != status:
            settled = {**copy.deepcopy(stored), "status": status}
            later = LATER if "image" in status else 0.1
            threading.Timer(later, api.atomic, (lambda: write(path, settled),)).start()
        return stored

    api._write = written


def status_of(plural: str, obj: dict[str, Any]) -> Any:
    def conditions(*kinds: str) -> dict[str, Any]:
        return {"conditions": [{"type": kind, "status": "True"} for kind in kinds]}

    if plural == "customresourcedefinitions":
        return conditions("Established")
    if plural == "kubevirts":
        return conditions("Available")
    if plural == "deployments":
        count = obj["spec"]["replicas"]
        return {"replicas": count, "updatedReplicas": count, "availableReplicas": count, **observed(obj)}
    if plural == "daemonsets":
        return {"desiredNumberScheduled": 1, "updatedNumberScheduled": 1, "numberAvailable": 1, **observed(obj)}
    return obj.get("status")


def observed(workload: dict[str, Any]) -> dict[str, Any]:
    return {"observedGeneration": workload["metadata"]["generation"], "image": image_of(workload)}


def image_of(workload: dict[str, Any]) -> str:
    return workload["spec"]["template"]["spec"]["containers"][0]["image"]


@pytest.fixture
def play(server, run_play, tmp_path: Path):
    """Runs both roles; what ansible-playbook printed."""

    def run(*options: str, failing: bool = False, **variables: Any) -> str:
        user = {"token": server.api.token}
        kubeconfig = {
            "clusters": [{"name": "c", "cluster": {"server": server.url}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
        given = {
            "kubeconfig": str(tmp_path / "kubeconfig"),
            "engine_wheel_cache": str(tmp_path / "wheels"),
            "engine_image_references": {"engine": "reg/engine:1", "launcher": "reg/launcher:1"},
            "kubevirt_timeout": 20,
            **variables,
        }
        return run_play({"roles": ROLES}, *options, failing=failing, **given)

    return run


@pytest.fixture
def written(api):
    """Objects in the order in which they were written since the last call: plural and name, each once."""
    seen = 0

    def since() -> list[str]:
        nonlocal seen
        requests, seen = api.requests[seen:], len(api.requests)
        found = ["/".join(path.split("/")[-2:]) for method, path, query in requests if method != "GET"]
        return list(dict.fromkeys(found))

    return since


def test_an_engine_that_is_there_is_renewed_in_the_order_of_kubevirt(api, play, written) -> None:
    states: list[list[str]] = []
    play()
    first = [each for each in written() if each in COMPONENTS]
    assert first == ["deployments/virt-controller", "deployments/virt-api", "daemonsets/virt-handler"]
    write = api._write

    def record(path, obj):
        component = "/".join(path.split("/")[-2:])
        if component in COMPONENTS and "status" in obj:
            # Which of the others are complete in the new version when this one is written
            workloads = {each: next(o for path, o in api.objects.items() if path.endswith(each)) for each in COMPONENTS}
            ready = [each for each, workload in workloads.items() if workload["status"]["image"] == "reg/engine:2"]
            if image_of(obj) == "reg/engine:2" and obj["status"]["image"] != "reg/engine:2":
                states.append([obj["metadata"]["name"], *ready])
        return write(path, obj)

    api._write = record
    play(engine_image_references={"engine": "reg/engine:2", "launcher": "reg/launcher:2"})
    assert states == [
        ["virt-handler"],
        ["virt-controller", "daemonsets/virt-handler"],
        ["virt-api", "deployments/virt-controller", "daemonsets/virt-handler"],
    ]


@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_kubevirt_in_another_namespace_is_left_alone(api, play, state: str) -> None:
    metadata = {"name": "hyperconverged", "namespace": "openshift-cnv"}
    api.put("kubevirts", {"apiVersion": "kubevirt.io/v1", "metadata": metadata, "status": {}})
    output = play(turtles_state=state, kubevirt_remove_workloads=True, failing=True)
    assert "The cluster has a KubeVirt in the namespace openshift-cnv (KubeVirt openshift-cnv/hyper" in output
    assert "set kubevirt_namespace=openshift-cnv" in output
    assert not api.written()


def test_nothing_is_asked_of_virt_api_any_more_when_its_removal_begins(api, play, written, tmp_path: Path) -> None:
    play()
    for version, plural, name in REGISTERED:
        api.put(plural, {"apiVersion": version, "metadata": {"name": name}})
    written()
    play(
        turtles_state="absent",
        kubevirt_image_nodes=["localhost"],
        engine_image_list_command=["printf", "localhost/turtles/turtles-engine:1\\nsomebodys:1\\n"],
        engine_image_label_command=["sh", "-c", f'echo "$@" >>{tmp_path}/labelled', "-"],
    )
    assert (tmp_path / "labelled").read_text() == "localhost/turtles/turtles-engine:1 io.cri-containerd.pinned=\n"
    order = written()
    # virt-api would be refused what it needs, if it lost its rights while it runs.
    virt_api, right = order.index("deployments/virt-api"), order.index("clusterrolebindings/kubevirt-virt-api")
    others = min(order.index(each) for each in COMPONENTS if each != "deployments/virt-api")
    for _version, plural, name in REGISTERED:
        assert virt_api < right < order.index(f"{plural}/{name}") < others
    assert order.index("kubevirts/kubevirt") < virt_api
    assert order[-1] == "namespaces/kubevirt"


def test_check_mode_of_a_first_installation_writes_nothing(api, play) -> None:
    output = play("--check", "--diff")
    written = [(method, path) for method, path, query in api.written() if query.get("dryRun") != "All"]
    assert written == []
    assert "DaemonSet kubevirt/virt-handler" in output
    assert not api.get("daemonsets", "kubevirt", "virt-handler")
