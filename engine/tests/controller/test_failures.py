# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cluster does to virtual machines, and what their users are told: phase, condition, word, event."""

import threading
import time
from collections.abc import Callable

import pytest
from fakeapi import FakeApi, status

from turtles.api import labels
from turtles.controller import remedies
from turtles.controller.main import VirtController
from turtles.kube import informer
from turtles.kube.client import ApiError, Forbidden, Invalid

VM = "/apis/kubevirt.io/v1/namespaces/ns/virtualmachines/testvm"
VMI = "/apis/kubevirt.io/v1/namespaces/ns/virtualmachineinstances/testvm"
VMIS, PODS = VMI.rpartition("/")[0], "/api/v1/namespaces/ns/pods"
QUOTA = "/api/v1/namespaces/ns/resourcequotas/q"
NODE = "/api/v1/nodes/n"


class World:
    """A cluster with one VM; the test plays everybody but virt-controller."""

    def __init__(self, api: FakeApi, controller: VirtController) -> None:
        self.api, self.controller = api, controller

    def create(self, strategy: str = "Always", **spec: object) -> None:
        self.api.put(
            VM,
            {
                "apiVersion": "kubevirt.io/v1",
                "kind": "VirtualMachine",
                "metadata": {"name": "testvm", "namespace": "ns"},
                "spec": {
                    "runStrategy": strategy,
                    "template": {"metadata": {}, "spec": {"domain": {"memory": {"guest": "64M"}}, **spec}},
                },
            },
        )

    def has_watched(self, seconds: float) -> None:
        """As if the controller had seen all changes for that long."""
        self.api.wait(self.controller.ready.is_set, 20)
        self.controller.caches.nodes.watching_since = time.monotonic() - seconds

    def pod(self, other_than: str | None = None) -> str:
        return self.api.wait(
            lambda: next(
                (path for path in list(self.api.objects) if path.startswith(PODS) and path != other_than), None
            )
        )

    def run(self, strategy: str = "Always", finalizers: list[str] | None = None, **spec: str) -> str:
        """Bring the VM up on node n; returns its Pod's path."""
        self.create(strategy, **spec)
        pod = self.pod()
        self.api.wait(lambda: self.phase() == "Scheduling")
        self.api.update(
            pod,
            {
                "metadata": {"finalizers": finalizers or []},
                "spec": {"nodeName": "n"},
                "status": {
                    "phase": "Running",
                    "conditions": [{"type": "ContainersReady", "status": "True"}],
                    "containerStatuses": [{"name": "compute", "state": {"running": {}}}],
                },
            },
        )
        self.api.wait(lambda: self.phase() == "Scheduled")
        self.api.update(VMI, {"status": {"phase": "Running", "phaseTransitionTimestamps": [{"phase": "Running"}]}})
        self.word("Running")
        return pod

    def delete_pod(self, pod: str) -> None:
        self.api.delete(pod)

    def phase(self) -> str | None:
        return (self.api.objects.get(VMI) or {}).get("status", {}).get("phase")

    def uid(self) -> str | None:
        return (self.api.objects.get(VMI) or {}).get("metadata", {}).get("uid")

    def word(self, word: str) -> None:
        self.api.wait(lambda: (self.api.objects[VM].get("status") or {}).get("printableStatus") == word)

    def condition(self, path: str, type_: str) -> dict:
        found = (self.api.objects.get(path) or {}).get("status", {}).get("conditions") or ()
        return next((each for each in found if each["type"] == type_), {})

    def told(self, reason: str, kind: str = "VirtualMachineInstance") -> str:
        """Wait for an event; returns its message."""

        def find() -> str | None:
            return next(
                (
                    each["message"]
                    for path, each in list(self.api.objects.items())
                    if "/events/" in path and (each["reason"], each["involvedObject"]["kind"]) == (reason, kind)
                ),
                None,
            )

        return self.api.wait(find)

    def node(self, *, ready: bool = True, heartbeat: str = "2020-01-01T00:00:00Z", taints: tuple = ()) -> None:
        self.api.put(
            NODE,
            {
                "apiVersion": "v1",
                "kind": "Node",
                "spec": {"taints": list(taints)},
                "metadata": {
                    "name": "n",
                    "labels": {labels.NODE_SCHEDULABLE: "true"},
                    "annotations": {labels.NODE_HEARTBEAT: heartbeat},
                },
                "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}]},
            },
        )


@pytest.fixture
def world(api: FakeApi, start: Callable[..., VirtController]) -> World:
    world = World(api, start(image_volumes=False))
    world.has_watched(3600)
    return world


# The node


def test_a_silent_agent_on_a_node_that_lives_changes_nothing_for_guests(world: World) -> None:
    pod = world.run()
    world.node(ready=True)
    world.api.wait(lambda: world.api.objects[NODE]["metadata"]["labels"][labels.NODE_SCHEDULABLE] == "false")
    assert world.phase() == "Running"
    assert pod in world.api.objects


def test_a_lost_node_fails_its_guests_and_none_starts_twice(world: World) -> None:
    pod = world.run(finalizers=["test/kubelet"])  # nobody confirms the end of the Pod
    uid = world.uid()
    world.node(ready=False)
    world.api.wait(lambda: world.phase() == "Failed")
    assert world.api.objects[VMI]["status"]["reason"] == "NodeUnresponsive"
    assert "node.kubernetes.io/out-of-service" in world.told("NodeUnresponsive")
    assert world.told("NodeUnresponsive", "VirtualMachine")
    world.api.wait(lambda: world.api.objects[VMI]["metadata"].get("deletionTimestamp"))
    world.api.wait(lambda: world.api.objects[pod]["metadata"].get("deletionTimestamp"))
    assert world.uid() == uid, "the old guest may still run"
    world.api.update(pod, {"metadata": {"finalizers": []}})  # the node is back, or its Pods are collected
    world.api.wait(lambda: world.uid() not in (None, uid))


def test_a_node_whose_kubelet_falls_silent_later_is_looked_at_then(world: World) -> None:
    world.node(ready=True)
    world.run("Once")
    world.api.wait(lambda: world.api.objects[NODE]["metadata"]["labels"][labels.NODE_SCHEDULABLE] == "false")
    assert world.phase() == "Running"
    world.api.update(NODE, {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}})
    world.api.wait(lambda: world.phase() == "Failed")


def test_nodes_are_not_lost_because_the_api_server_was_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats that nobody could write look as old as those of a node that is off."""
    monkeypatch.setattr(informer, "_BLINK", 0.1)
    world.run("Once")
    before = world.controller.caches.nodes.watching_since
    world.api.stop()
    time.sleep(0.3)
    world.api.start()
    world.api.wait(lambda: world.controller.caches.nodes.watching_since > before)
    world.node(ready=False)
    asked = len(world.api.requests)
    time.sleep(0.3)
    assert ("PATCH", NODE) not in world.api.requests[asked:]
    assert world.phase() == "Running"
    # those that stay silent are
    world.has_watched(91)
    world.node(ready=True)
    world.node(ready=False)
    world.api.wait(lambda: world.phase() == "Failed")


@pytest.mark.parametrize("how", ["deleted", "tainted"])
def test_a_node_that_is_off_for_certain_gives_its_guests_free(world: World, how: str) -> None:
    world.node(heartbeat="2099-01-01T00:00:00Z")
    world.run()
    uid = world.uid()
    if how == "deleted":
        world.api.remove(NODE)
    else:
        world.node(ready=False, taints=({"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"},))
    world.api.wait(lambda: world.uid() not in (None, uid))
    assert "gone or out of service" in world.told("NodeUnresponsive")


# The Pod


def test_a_deleted_pod_is_told_and_the_guest_starts_elsewhere(world: World) -> None:
    pod = world.run(finalizers=["test/kubelet"])
    uid = world.uid()
    world.delete_pod(pod)
    message = world.told("LauncherPodDeleted")
    assert "drain" in message
    assert message.endswith("Always start a new instance; others have to be started again")
    world.api.wait(lambda: world.condition(VMI, "Ready").get("reason") == "PodTerminating")
    world.api.update(VMI, {"status": {"phase": "Succeeded"}})  # the node agent: the guest shut down
    world.api.update(pod, {"metadata": {"finalizers": []}})
    world.api.wait(lambda: world.uid() not in (None, uid))
    told = [
        each
        for path, each in world.api.objects.items()
        if "/events/" in path and each["reason"] == "LauncherPodDeleted"
    ]
    assert [each.get("count", 1) for each in told] == [1]


def test_the_words_of_who_evicts_are_passed_on(world: World) -> None:
    pod = world.run(finalizers=["test/kubelet"])
    conditions = world.api.objects[pod]["status"]["conditions"]
    world.api.update(
        pod,
        {
            "status": {
                "conditions": [*conditions, {"type": "DisruptionTarget", "status": "True", "message": "preempted by x"}]
            }
        },
    )
    world.delete_pod(pod)
    assert "preempted by x" in world.told("LauncherPodDeleted")


def test_an_evicted_pod(world: World) -> None:
    pod = world.run()
    uid = world.uid()
    world.api.update(
        pod,
        {
            "status": {
                "phase": "Failed",
                "reason": "Evicted",
                "containerStatuses": None,
                "message": "The node was low on resource: memory.",
            }
        },
    )
    # The node agent may be first to notice; what it can't know is told nevertheless.
    world.api.update(VMI, {"status": {"phase": "Failed"}})
    assert "The node was low on resource: memory.; free resources on the node" in world.told("LauncherEvicted")
    world.api.wait(lambda: world.uid() not in (None, uid))


def test_a_pod_that_its_kubelet_refuses(world: World) -> None:
    pod = world.run()
    world.api.update(
        pod,
        {
            "status": {
                "phase": "Failed",
                "reason": "OutOfmemory",
                "containerStatuses": None,
                "message": "Node didn't have enough resource: memory",
            }
        },
    )
    world.api.update(VMI, {"status": {"phase": "Failed"}})
    assert "(OutOfmemory): Node didn't have enough resource: memory; check that" in world.told("LauncherStopped")


def test_a_pod_at_its_memory_limit(world: World) -> None:
    pod = world.run("RerunOnFailure")
    uid = world.uid()
    world.api.update(
        pod,
        {
            "status": {
                "phase": "Failed",
                "containerStatuses": [
                    {
                        "name": "compute",
                        "state": {
                            "terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": "2020-01-01T00:00:00Z"}
                        },
                    }
                ],
            }
        },
    )
    assert "resources.limits.memory" in world.told("Failed", "VirtualMachine")
    world.api.wait(lambda: world.uid() not in (None, uid))


def test_a_launcher_that_ended_counts_though_a_sidecar_goes_on(world: World) -> None:
    pod = world.run("Once")
    world.api.update(
        pod,
        {
            "status": {
                "containerStatuses": [
                    {"name": "mesh", "state": {"running": {}}},
                    {
                        "name": "compute",
                        "state": {
                            "terminated": {"exitCode": 1, "message": "lost", "finishedAt": "2020-01-01T00:00:00Z"}
                        },
                    },
                ]
            }
        },
    )
    world.api.wait(lambda: world.phase() == "Failed")
    world.api.wait(lambda: pod not in world.api.objects)
    assert "lost" in world.told("Failed")


def test_a_pod_that_vanished(world: World) -> None:
    pod = world.run("Once")
    world.api.remove(pod)
    world.api.wait(lambda: world.phase() == "Failed")
    for kind in ("VirtualMachineInstance", "VirtualMachine"):
        told = world.told("Failed", kind)
        assert told.startswith("the virt-launcher Pod is gone; VirtualMachines with runStrategy Always")
        assert told.endswith("have to be started again")
    assert world.condition(VMI, "Synchronized")["message"] == "the virt-launcher Pod is gone"
    world.word("Stopped")


@pytest.mark.parametrize("where", ["initContainerStatuses", "containerStatuses"])
@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff"])
def test_an_image_that_cannot_be_had(world: World, where: str, reason: str) -> None:
    world.create()
    pod = world.pod()
    world.api.update(
        pod,
        {
            "status": {
                "phase": "Pending",
                where: [
                    {"name": "volumeroot", "state": {"waiting": {"reason": reason, "message": "reg/x: not found"}}}
                ],
            }
        },
    )
    world.word(reason)
    assert world.condition(VMI, "Synchronized")["message"] == "reg/x: not found"
    assert world.told(reason).startswith("reg/x: not found; check that the image exists")
    world.api.update(pod, {"status": {where: [{"name": "volumeroot", "state": {"running": {}}}]}})
    world.word("Starting")


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("InvalidImageName", "correct the image's name"),
        ("ErrImageNeverPull", "choose another imagePullPolicy"),
        ("CreateContainerConfigError", "kubectl describe pod"),
    ],
)
def test_a_container_that_cannot_start(world: World, reason: str, remedy: str) -> None:
    world.create()
    world.api.update(
        world.pod(),
        {
            "status": {
                "phase": "Pending",
                "containerStatuses": [{"name": "compute", "state": {"waiting": {"reason": reason, "message": "no"}}}],
            }
        },
    )
    told = world.told(reason)
    assert told.startswith("no; ")
    assert remedy in told


def test_a_claim_that_is_not_there(world: World) -> None:
    world.create(volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}])
    world.word("ErrorPvcNotFound")
    words = "PVC ns/data does not exist, waiting for it to appear"
    assert world.told("FailedPvcNotFound") == f"{words}; create it, or correct the volume's claimName"
    assert world.condition(VMI, "Synchronized")["message"] == words


def test_a_remedy_is_there_however_much_there_is_to_say() -> None:
    told = remedies.advised("x" * 2000, remedies.POD_IN_THE_WAY)
    assert len(told) == 1024
    assert told.endswith(f"; {remedies.POD_IN_THE_WAY}")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (Forbidden(403, "Forbidden", 'pods "x" is forbidden: violates PodSecurity'), "check what refuses it"),
        (
            Invalid(422, "Invalid", 'admission webhook "v.kubevirt.io" denied the request: no memory'),
            "correct the machine",
        ),
        (
            Invalid(
                422, "Invalid", 'Pod "x" is invalid: metadata.annotations: Too long: may not be more than 262144 bytes'
            ),
            "shorten the machine's annotations",
        ),
        (
            ApiError(500, "InternalError", 'failed calling webhook "policy.example.org"'),
            "the server of this webhook is running",
        ),
    ],
)
def test_what_is_refused_for_other_reasons(error: ApiError, remedy: str) -> None:
    assert remedy in remedies.of_refusal(error)


def test_a_pod_of_the_node_s_label(world: World) -> None:
    pod = world.run()
    world.api.wait(lambda: world.api.objects[pod]["metadata"]["labels"].get(labels.NODE_NAME) == "n")


# The API


def refuse(method: str, path: str, code: int, reason: str, message: str):
    def intercept(asked_method: str, asked_path: str):
        return status(code, reason, message) if (asked_method, asked_path) == (method, path) else None

    return intercept


def test_a_webhook_that_is_down(world: World) -> None:
    words = 'Internal error occurred: failed calling webhook "virtualmachineinstances-mutator.kubevirt.io"'
    world.api.intercept = refuse("POST", VMIS, 500, "InternalError", words)
    world.create()
    world.api.wait(lambda: words in world.condition(VM, "Failure").get("message", ""))
    assert world.condition(VM, "Failure")["reason"] == "FailedCreate"
    told = world.told("FailedCreate", "VirtualMachine")
    assert told.endswith(f"{words}; check that virt-api is running; the engine keeps trying")
    assert world.condition(VM, "Failure")["message"] == words
    world.word("Stopped")
    world.api.intercept = lambda method, path: None
    world.pod()
    world.api.wait(lambda: not world.condition(VM, "Failure"))


def test_a_quota_that_is_used_up(world: World) -> None:
    world.api.intercept = refuse("POST", PODS, 403, "Forbidden", "exceeded quota: pods, requested: memory=1Gi")
    world.create()
    world.api.wait(lambda: "exceeded quota" in world.condition(VMI, "Synchronized").get("message", ""))
    assert world.condition(VMI, "Synchronized")["reason"] == "FailedCreate"
    told = world.told("FailedCreate")
    assert "requested: memory=1Gi; raise the quota, or stop machines" in told
    assert world.condition(VMI, "Synchronized")["message"].endswith("requested: memory=1Gi")
    assert world.phase() == "Pending"
    world.word("Starting")
    world.api.intercept = lambda method, path: None
    world.pod()
    world.api.wait(lambda: not world.condition(VMI, "Synchronized"))


def test_a_quota_that_is_raised_starts_who_waited(world: World) -> None:
    world.api.intercept = refuse("POST", PODS, 403, "Forbidden", "exceeded quota: q")
    world.api.put(
        QUOTA,
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "q", "namespace": "ns"},
            "spec": {"hard": {"pods": "0"}},
        },
    )
    world.create()
    posts = ("POST", PODS)
    # the pauses between two tries have become long: the next one is of 2.56 s
    world.api.wait(lambda: world.api.requests.count(posts) >= 10, 20)
    world.api.intercept = lambda method, path: None
    before = time.monotonic()
    world.api.update(QUOTA, {"spec": {"hard": {"pods": "1", "limits.memory": "1Gi"}}})
    pod = world.pod()
    assert time.monotonic() - before < 2.5
    assert "memory" in world.api.objects[pod]["spec"]["containers"][0]["resources"]["limits"]


@pytest.mark.parametrize(
    ("strategy", "kept"), [("None", False), ("LiveMigrateIfPossible", False), ("LiveMigrate", True), ("External", True)]
)
def test_who_must_stay_has_a_disruption_budget(world: World, strategy: str, kept: bool) -> None:
    def budgets() -> list[str]:
        return [path for path in world.api.objects if "/poddisruptionbudgets/" in path]

    pod = world.run(evictionStrategy=strategy)
    if not kept:
        assert not budgets()
        return
    (name,) = world.api.wait(budgets)
    found = world.api.objects[name]
    assert found["metadata"]["ownerReferences"][0]["uid"] == world.uid()
    selected = found["spec"]["selector"]["matchLabels"].items()
    assert selected <= world.api.objects[pod]["metadata"]["labels"].items()
    assert found["spec"]["minAvailable"] == 1
    world.api.remove(name)
    assert world.api.wait(budgets) == [name], "somebody's mistake"


@pytest.mark.parametrize(("code", "reason"), [(401, "Unauthorized"), (503, "ServiceUnavailable")])
def test_credentials_that_expired_and_a_server_that_is_away(world: World, code: int, reason: str) -> None:
    """As long as it lasts nothing happens to what runs; afterwards everything goes on."""
    pod = world.run()
    uid = world.uid()
    world.api.intercept = lambda method, path: status(code, reason, "no")
    world.api.update(VM, {"metadata": {"annotations": {"touched": "1"}}})
    threading.Event().wait(0.3)
    assert world.phase() == "Running"
    assert pod in world.api.objects
    world.api.intercept = lambda method, path: None
    world.api.update(VMI, {"status": {"phase": "Succeeded"}})
    world.api.wait(lambda: world.uid() not in (None, uid), 30)
