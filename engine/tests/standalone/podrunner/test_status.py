# SPDX-License-Identifier: GPL-3.0-or-later
"""Phases, conditions, quality of service, quantities, configuration, files of a Pod."""

import pytest

from turtles.standalone.podrunner import status
from turtles.standalone.podrunner.cgroup import cpu_shares, cpu_weight
from turtles.standalone.podrunner.config import ConfigError, normalize_reference, parse
from turtles.standalone.podrunner.privileges import capability_set

RUNNING, WAITING = {"running": {}}, {"waiting": {}}
OK, BAD = {"terminated": {"exitCode": 0}}, {"terminated": {"exitCode": 1}}


@pytest.mark.parametrize(
    ("policy", "states", "init", "phase"),
    [
        ("Never", [RUNNING], [], "Running"),
        ("Never", [WAITING], [], "Pending"),
        ("Never", [OK], [], "Succeeded"),
        ("Never", [BAD], [], "Failed"),
        ("Never", [OK, BAD], [], "Failed"),
        ("Never", [OK, RUNNING], [], "Running"),
        ("Always", [OK], [], "Running"),
        ("OnFailure", [OK], [], "Succeeded"),
        ("OnFailure", [BAD], [], "Running"),
        ("Never", [WAITING], [RUNNING], "Pending"),
        ("Never", [WAITING], [BAD], "Failed"),
        ("Never", [WAITING], [OK], "Pending"),
    ],
)
def test_phase(policy, states, init, phase):
    assert (
        status.phase(
            {"restartPolicy": policy},
            {str(n): s for n, s in enumerate(states)},
            {str(n): s for n, s in enumerate(init)},
        )
        == phase
    )


def test_gates_and_foreign_conditions():
    pod = {
        "metadata": {"generation": 3},
        "spec": {"readinessGates": [{"conditionType": "x/y"}]},
        "status": {
            "conditions": [
                {"type": "other", "status": "True"},
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "then"},
            ]
        },
    }
    ready = [{"name": "a", "ready": True}]

    def of(kind):
        return next(entry for entry in status.conditions(pod, "Running", ready, True, "now") if entry["type"] == kind)

    assert of("ContainersReady")["status"] == "True"
    assert (of("Ready")["status"], of("Ready")["reason"]) == ("False", "ReadinessGatesNotReady")
    assert of("other") == {"type": "other", "status": "True"}
    assert of("Ready")["observedGeneration"] == of("PodScheduled")["observedGeneration"] == 3
    assert of("PodScheduled")["lastTransitionTime"] == "then"
    pod["status"]["conditions"].append({"type": "x/y", "status": "True"})
    assert of("Ready")["status"] == "True"


@pytest.mark.parametrize(
    ("resources", "result"),
    [
        ({}, "BestEffort"),
        ({"requests": {"memory": "1Gi"}}, "Burstable"),
        ({"limits": {"memory": "1Gi", "cpu": "1"}}, "Guaranteed"),
        ({"limits": {"memory": "1Gi", "cpu": "1"}, "requests": {"cpu": "500m"}}, "Burstable"),
        ({"limits": {"example.org/x": "1"}}, "BestEffort"),
    ],
)
def test_quality_of_service(resources, result):
    assert status.qos_class({"containers": [{"name": "a", "resources": resources}]}) == result


def test_cgroup_numbers():
    assert (cpu_shares(1000), cpu_shares(0)) == (1024, 2)
    assert (cpu_weight(1000), cpu_weight(0)) == (39, 1)


def test_capabilities():
    assert capability_set(["NET_BIND_SERVICE"], ["ALL"]) == ["NET_BIND_SERVICE"]
    assert "MKNOD" not in capability_set([], ["CAP_MKNOD"])
    with pytest.raises(ValueError, match="no capability NONSENSE"):
        capability_set(["NONSENSE"], [])


def test_configuration_errors_name_the_key():
    full = {
        "nodeName": "n",
        "kubeconfig": "/k",
        "rootDir": "/r",
        "runDir": "/run/x",
        "imagesDir": "/i",
        "cniConfDir": "/c",
        "cniBinDir": "/b",
    }
    assert parse(full).pods_dir.as_posix() == "/r/pods"
    for change, message in (
        ({"rootDir": None}, "lacks: rootDir"),
        ({"odd": 1}, "unknown keys: odd"),
        ({"rootDir": "relative"}, "absolute"),
        ({"preload": [{"image": "x"}]}, "preload"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse(full | change)
    assert normalize_reference("docker.io/library/a") == normalize_reference("a:latest") == "a:latest"
