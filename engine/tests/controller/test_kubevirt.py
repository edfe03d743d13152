# SPDX-License-Identifier: GPL-3.0-or-later
"""The KubeVirt object: its status, its deletion, and that a change of it reaches launcher Pods."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from aiohttp import web
from fakeapi import FakeApi, status

from turtles import __version__
from turtles.api import labels
from turtles.controller.kubevirt.health import API_SERVICE, Component, daemonset, deployment, node_agents
from turtles.controller.kubevirt.placement import PULL_SECRETS, arranged
from turtles.controller.kubevirt.plan import FINALIZER, plan
from turtles.controller.main import VirtController
from turtles.virt_api.workloads import Values, objects

NOW = "2026-01-02T03:04:05Z"
#: What every component demands of its nodes.
NODES = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
KUBEVIRT = "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts/kubevirt"
SERVICE = f"/apis/apiregistration.k8s.io/v1/apiservices/{API_SERVICE}"
NODE = "/api/v1/nodes/n"
GOOD, BAD = Component("a", True, True), Component("b", False, False, "b: nothing of it runs")
#: What holds from the first look on.
MADE = {"Created": "True", "Synchronized": "True"}
HALF = Component("c", True, False, "c: 1 of 2")


def make_kubevirt(deleted: bool = False, spec: dict | None = None, **status: object) -> dict:
    metadata = {"name": "kubevirt", "namespace": "kubevirt", "uid": "u", "generation": 3, "finalizers": [FINALIZER]}
    if deleted:
        metadata["deletionTimestamp"] = NOW
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "KubeVirt",
        "metadata": metadata,
        "spec": spec or {},
        "status": status,
    }


def judged(kubevirt: dict) -> dict[str, str]:
    return {found["type"]: found["status"] for found in kubevirt["status"]["conditions"]}


def test_it_is_deploying_until_everything_runs() -> None:
    found = plan(make_kubevirt(), [GOOD, BAD], 0, "reg/launcher:1", NOW).kubevirt
    assert found["status"]["phase"] == "Deploying"
    assert judged(found) == {"Available": "False", "Progressing": "True", "Degraded": "False", **MADE}
    assert "b: nothing of it runs" in found["status"]["conditions"][0]["message"]
    assert "observedKubeVirtVersion" not in found["status"]
    found = plan(found, [GOOD, GOOD], 0, "reg/launcher:1", NOW).kubevirt
    assert found["status"]["phase"] == "Deployed"
    assert judged(found) == {"Available": "True", "Progressing": "False", "Degraded": "False", **MADE}
    assert found["status"]["observedKubeVirtVersion"] == f"v{__version__}"
    assert found["status"]["observedKubeVirtRegistry"] == "reg"
    assert found["status"]["observedGeneration"] == 3
    assert plan(found, [GOOD, GOOD], 0, "reg/launcher:1", "2027-01-01T00:00:00Z").kubevirt == found


@pytest.mark.parametrize(("component", "available"), [(HALF, "True"), (BAD, "False")])
def test_a_part_that_breaks_degrades_it(component: Component, available: str) -> None:
    deployed = plan(make_kubevirt(), [GOOD], 0, "i", NOW).kubevirt
    found = plan(deployed, [GOOD, component], 0, "i", NOW).kubevirt
    assert found["status"]["phase"] == "Deployed"
    assert judged(found) == {"Available": available, "Progressing": "True", "Degraded": "True", **MADE}
    assert {each["message"] for each in found["status"]["conditions"]} >= {component.message}


def test_what_was_refused_is_told_until_it_is_taken_back() -> None:
    deployed = plan(make_kubevirt(), [GOOD], 0, "i", NOW).kubevirt
    refused = plan(deployed, [GOOD], 0, "i", NOW, ["virt-api can't be changed: no such label", "nor can b"]).kubevirt
    found = {each["type"]: each for each in refused["status"]["conditions"]}
    assert (found["Synchronized"]["status"], found["Synchronized"]["reason"]) == ("False", "DeploymentFailed")
    assert found["Synchronized"]["message"] == "virt-api can't be changed: no such label; nor can b"
    assert found["Degraded"]["message"] == found["Synchronized"]["message"]
    assert found["Available"]["status"] == "True", "what runs goes on"
    again = plan(refused, [GOOD], 0, "i", NOW).kubevirt
    assert judged(again) == {"Available": "True", "Progressing": "False", "Degraded": "False", **MADE}


def test_deletion_waits_for_the_machines() -> None:
    blocked = plan(make_kubevirt(deleted=True), [GOOD], 2, "i", NOW)
    assert not blocked.remove_machines
    assert blocked.kubevirt["status"]["phase"] == "Deleting"
    assert blocked.kubevirt["metadata"]["finalizers"] == [FINALIZER]
    assert "2 virtual machines" in blocked.kubevirt["status"]["conditions"][0]["message"]
    removing = make_kubevirt(deleted=True, spec={"uninstallStrategy": "RemoveWorkloads"})
    assert plan(removing, [GOOD], 2, "i", NOW).remove_machines
    done = plan(removing, [GOOD], 0, "i", NOW)
    assert (done.kubevirt["status"]["phase"], done.kubevirt["metadata"]["finalizers"]) == ("Deleted", [])
    assert not done.remove_machines


def test_a_deployment_is_complete_when_only_new_replicas_run() -> None:
    obj = {
        "metadata": {"name": "virt-api", "generation": 2},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2},
    }
    assert deployment(obj).complete
    for change in ({"replicas": 3}, {"updatedReplicas": 1}, {"availableReplicas": 1}, {"observedGeneration": 1}):
        found = deployment({**obj, "status": {**obj["status"], **change}})
        assert (found.working, found.complete) == (True, False), change
    assert not deployment({**obj, "status": {}}).working


def test_a_daemonset_is_complete_when_every_node_has_it() -> None:
    obj = {
        "metadata": {"name": "virt-handler", "generation": 1},
        "status": {
            "observedGeneration": 1,
            "desiredNumberScheduled": 2,
            "updatedNumberScheduled": 2,
            "numberAvailable": 2,
        },
    }
    assert daemonset(obj).complete
    assert not daemonset({**obj, "status": {**obj["status"], "numberAvailable": 1}}).complete
    nowhere = daemonset({**obj, "status": {"observedGeneration": 1, "desiredNumberScheduled": 0}})
    assert not nowhere.complete
    assert "no node fits" in nowhere.message


def test_heartbeats_tell_of_node_agents() -> None:
    silences = {"a": 5.0, "b": 3600.0, "c": None}
    fresh, stale, never = ({"metadata": {"name": name}} for name in silences)

    def judged(*nodes: dict) -> Component:
        return node_agents(nodes, lambda node: silences[node["metadata"]["name"]])

    assert judged(fresh, never).complete
    half = judged(fresh, stale)
    assert (half.working, half.complete) == (True, False)
    assert "b" in half.message
    assert not judged(never).working


def workload(name: str, **spec: object) -> dict:
    containers = [{"name": name, "image": "engine:1", "imagePullPolicy": "IfNotPresent"}]
    pod = {"serviceAccountName": name, "containers": containers, "initContainers": [{"name": "probe"}]}
    pod |= {"nodeSelector": {"kubernetes.io/os": "linux", "old": "yes"}}
    return {"metadata": {"name": name, "namespace": "kubevirt"}, "spec": {**spec, "template": {"spec": pod}}}


def test_components_are_placed_as_the_object_says_beside_what_they_are_by_themselves() -> None:
    near = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": {"topologyKey": "x"}}]}
    infra = {
        "replicas": 3,
        "nodePlacement": {
            "nodeSelector": {"role": "infra", "kubernetes.io/os": "plan9"},
            "tolerations": [{"key": "infra"}],
            "affinity": {"podAntiAffinity": near, "nodeAffinity": {"a": 1}},
        },
    }
    before = workload("virt-api", replicas=2)
    found = arranged(before, {"infra": infra, "workloads": {"nodePlacement": {"nodeSelector": {"no": "no"}}}})
    pod = found["spec"]["template"]["spec"]
    assert found["spec"]["replicas"] == 3
    assert pod["nodeSelector"] == {"role": "infra", **NODES}
    assert pod["tolerations"] == [{"key": "CriticalAddonsOnly", "operator": "Exists"}, {"key": "infra"}]
    own, asked = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert own["podAffinityTerm"]["labelSelector"] == {"matchLabels": {"kubevirt.io": "virt-api"}}
    assert asked == near["preferredDuringSchedulingIgnoredDuringExecution"][0]
    assert pod["affinity"]["nodeAffinity"] == {"a": 1}
    assert pod["serviceAccountName"] == "virt-api"
    assert before == workload("virt-api", replicas=2)
    # and back
    again = arranged(found, {})
    assert again["spec"]["replicas"] == 2
    assert again["spec"]["template"]["spec"]["nodeSelector"] == NODES


def test_the_node_agent_goes_where_workloads_go_with_the_pull_policy_of_all() -> None:
    spec = {
        "infra": {"replicas": 3},
        "imagePullPolicy": "Always",
        "workloads": {"nodePlacement": {"nodeSelector": {"kvm": "yes"}}},
    }
    found = arranged(workload("virt-handler"), spec)
    pod = found["spec"]["template"]["spec"]
    assert "replicas" not in found["spec"]
    assert "affinity" not in pod
    assert pod["nodeSelector"] == {"kvm": "yes", **NODES}
    assert {container["imagePullPolicy"] for container in pod["initContainers"] + pod["containers"]} == {"Always"}


def test_the_node_agent_is_attached_to_the_network_of_migrations() -> None:
    def asked(network: str) -> dict:
        return {"configuration": {"migrations": {"network": network}}}

    key = "k8s.v1.cni.cncf.io/networks"
    plain = arranged(workload("virt-handler"), {})
    assert key not in str(plain)
    found = arranged(plain, asked("fast"))
    assert found["spec"]["template"]["metadata"]["annotations"] == {key: "fast@migration0"}
    assert arranged(found, asked("fast")) == found
    found["spec"]["template"]["metadata"]["annotations"][key] = "own/other, fast@migration0"
    found = arranged(found, asked("faster"))
    assert found["spec"]["template"]["metadata"]["annotations"] == {key: "own/other,faster@migration0"}
    assert arranged(found, {})["spec"]["template"]["metadata"]["annotations"] == {key: "own/other"}
    assert arranged(arranged(plain, asked("fast")), {}) == plain
    for name in ("virt-api", "virt-controller"):
        assert arranged(workload(name, replicas=2), asked("fast")) == arranged(workload(name, replicas=2), {})


def secrets_of(workload: dict) -> list[str]:
    return [each["name"] for each in workload["spec"]["template"]["spec"].get("imagePullSecrets") or ()]


def test_pull_secrets_come_and_go_and_those_of_the_installation_stay() -> None:
    def asked(*names: str) -> dict:
        return {"imagePullSecrets": [{"name": name} for name in names]}

    plain = arranged(workload("virt-handler"), {})
    assert "imagePullSecrets" not in plain["spec"]["template"]["spec"]
    installed = workload("virt-handler")
    installed["metadata"]["annotations"] = {"a": "b"}
    installed["spec"]["template"]["spec"]["imagePullSecrets"] = [{"name": "own"}]
    found = arranged(installed, asked("mine", "own", "mine"))
    assert secrets_of(found) == ["own", "mine"]
    assert arranged(found, asked("own", "mine")) == found
    # the roles come again and put theirs at the end
    later = arranged(found, asked("mine"))
    later["spec"]["template"]["spec"]["imagePullSecrets"].append({"name": "new"})
    later = arranged(later, asked("mine", "other"))
    assert secrets_of(later) == ["own", "mine", "new", "other"]
    assert later["metadata"]["annotations"] == {"a": "b", PULL_SECRETS: "mine,other"}
    # and back
    back = arranged(later, {})
    assert secrets_of(back) == ["own", "new"]
    assert back["metadata"]["annotations"] == {"a": "b"}
    again = arranged(arranged(plain, asked("mine")), {})
    assert again == plain


def test_what_the_roles_render_is_what_the_object_says() -> None:
    infra = {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]}
    values = Values(
        "engine:1",
        "launcher:1",
        replicas=3,
        infra=infra,
        workloads={"nodeSelector": {"c": "d"}},
        image_pull_secrets=["pull"],
    )
    spec = {
        "infra": {"replicas": 3, "nodePlacement": infra},
        "workloads": {"nodePlacement": values.workloads},
        "imagePullSecrets": [{"name": "pull"}],
    }
    rendered = [each for each in objects(values, "kubevirt") if each["kind"] in ("Deployment", "DaemonSet")]
    assert len(rendered) == 3
    for each in rendered:
        assert arranged(each, spec) == each


def bring_up(api: FakeApi) -> None:
    """Play virt-api and a node agent."""
    api.put(
        SERVICE,
        {"metadata": {"name": API_SERVICE}, "status": {"conditions": [{"type": "Available", "status": "True"}]}},
    )
    beat = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    api.put(NODE, {"metadata": {"name": "n", "annotations": {labels.NODE_HEARTBEAT: beat}}})


def new_object(**spec: object) -> dict:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "KubeVirt",
        "metadata": {"name": "kubevirt", "namespace": "kubevirt"},
        "spec": spec,
    }


def test_without_deployments_the_registrations_count(api: FakeApi, controller: VirtController) -> None:
    api.put(KUBEVIRT, new_object())
    api.wait(lambda: (api.objects[KUBEVIRT].get("status") or {}).get("phase") == "Deploying")
    bring_up(api)
    api.wait(lambda: api.objects[KUBEVIRT]["status"]["phase"] == "Deployed")
    assert FINALIZER in api.objects[KUBEVIRT]["metadata"]["finalizers"]
    api.update(SERVICE, {"status": {"conditions": [{"type": "Available", "status": "False", "message": "away"}]}})
    api.wait(lambda: judged(api.objects[KUBEVIRT])["Available"] == "False")


def test_deployments_follow_the_object(api: FakeApi, start: Callable[..., VirtController]) -> None:
    served = {"resources": [{"name": "deployments"}, {"name": "daemonsets"}]}
    refused: list[str] = []

    def intercept(method: str, path: str) -> web.Response | None:
        if path == "/apis/apps/v1":
            return web.json_response(served)
        return status(422, "Invalid", "no such label") if (method, path) == ("PUT", *refused) else None

    api.intercept = intercept
    deployment = "/apis/apps/v1/namespaces/kubevirt/deployments/virt-api"
    api.put(deployment, workload("virt-api", replicas=2))
    api.put(KUBEVIRT, new_object(infra={"replicas": 3}))
    start()
    api.wait(lambda: api.objects[deployment]["spec"]["replicas"] == 3)
    api.update(KUBEVIRT, {"spec": {"infra": {"replicas": 1}, "imagePullSecrets": [{"name": "mine"}]}})
    api.wait(lambda: api.objects[deployment]["spec"]["replicas"] == 1)
    assert secrets_of(api.objects[deployment]) == ["mine"]
    api.update(KUBEVIRT, {"spec": {"imagePullSecrets": None}})
    api.wait(lambda: not secrets_of(api.objects[deployment]))
    refused.append(deployment)
    api.update(KUBEVIRT, {"spec": {"infra": {"nodePlacement": {"nodeSelector": {"?": "?"}}}}})
    api.wait(lambda: "to match spec.infra of the KubeVirt object" in str(api.objects[KUBEVIRT].get("status")))
    assert judged(api.objects[KUBEVIRT])["Synchronized"] == "False"
    refused.clear()
    api.update(KUBEVIRT, {"spec": {"infra": None}})
    api.wait(lambda: api.objects[deployment]["spec"]["replicas"] == 2)
    api.wait(lambda: judged(api.objects[KUBEVIRT])["Synchronized"] == "True")


def test_deletion_takes_machines_along_if_told_so(api: FakeApi, controller: VirtController) -> None:
    bring_up(api)
    api.put(KUBEVIRT, new_object(uninstallStrategy="RemoveWorkloads"))
    api.wait(lambda: (api.objects[KUBEVIRT].get("status") or {}).get("phase") == "Deployed")
    machine = "/apis/kubevirt.io/v1/namespaces/ns/virtualmachines/testvm"
    api.put(
        machine,
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachine",
            "metadata": {"name": "testvm", "namespace": "ns"},
            "spec": {"runStrategy": "Halted", "template": {"spec": {"domain": {}}}},
        },
    )
    api.wait(lambda: labels.VM_FINALIZER in (api.objects[machine]["metadata"].get("finalizers") or ()))
    api.delete(KUBEVIRT)
    api.wait(lambda: machine not in api.objects and KUBEVIRT not in api.objects)


def test_a_change_reaches_the_next_pod(api: FakeApi, controller: VirtController) -> None:
    api.put(KUBEVIRT, new_object())
    developer = {"useEmulation": False, "cpuAllocationRatio": 2, "memoryOvercommit": 200, "nodeSelectors": {"a": "b"}}
    chosen = {"developerConfiguration": developer, "imagePullPolicy": "Always", "defaultRuntimeClass": "kata"}
    api.update(KUBEVIRT, {"spec": {"configuration": chosen}})
    api.wait(lambda: controller.configuration.current.cpu_allocation_ratio == 2)
    api.put(
        "/apis/kubevirt.io/v1/namespaces/ns/virtualmachineinstances/testvm",
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {"name": "testvm", "namespace": "ns"},
            "spec": {"domain": {"memory": {"guest": "64Mi"}}},
        },
    )
    path = api.wait(lambda: next((name for name in list(api.objects) if "/namespaces/ns/pods/" in name), None))
    spec = api.objects[path]["spec"]
    container = spec["containers"][0]
    assert container["resources"]["requests"]["cpu"] == "500m"
    assert container["resources"]["limits"]["devices.kubevirt.io/kvm"] == "1"
    assert container["imagePullPolicy"] == "Always"
    assert spec["nodeSelector"]["a"] == "b"
    assert spec["runtimeClassName"] == "kata"


def test_what_is_missing_is_told_once_and_its_return_too(api: FakeApi, controller: VirtController) -> None:
    def told() -> list[tuple[str, str]]:
        return [
            (each["type"], each["reason"])
            for path, each in list(api.objects.items())
            if "/events/" in path and each["involvedObject"]["kind"] == "KubeVirt"
        ]

    def service(status: str, message: str = "") -> None:
        conditions = [{"type": "Available", "status": status, "message": message}]
        api.update(SERVICE, {"status": {"conditions": conditions}})

    def degraded(status: str, words: str = "") -> bool:
        conditions = (api.objects[KUBEVIRT].get("status") or {}).get("conditions") or ()
        return any(
            (each["type"], each["status"]) == ("Degraded", status) and words in each["message"] for each in conditions
        )

    api.put(
        NODE,
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "n", "annotations": {labels.NODE_HEARTBEAT: "2099-01-01T00:00:00Z"}},
        },
    )
    api.put(
        SERVICE, {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": API_SERVICE}}
    )
    service("True")
    api.put(
        KUBEVIRT,
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": "KubeVirt",
            "spec": {},
            "metadata": {"name": "kubevirt", "namespace": "kubevirt"},
        },
    )
    # Not degraded it is from the first look on, when the service may not be there yet
    api.wait(lambda: degraded("False", "All components are ready."))
    assert told() == []
    service("False", "no endpoints")
    api.wait(lambda: degraded("True", "no endpoints"))
    service("False", "no answer")
    api.wait(lambda: degraded("True", "no answer"))
    service("True")
    api.wait(lambda: degraded("False"))
    api.wait(lambda: told() == [("Warning", "ComponentsNotReady"), ("Normal", "AllComponentsReady")])
