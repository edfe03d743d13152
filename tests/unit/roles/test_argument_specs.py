# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Ansible refuses of the roles' variables before the first task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

ROLES = Path(__file__).parents[3] / "roles"


def judge(**variables: Any) -> str:
    """What is said of variables that roles share."""
    specs = yaml.safe_load((ROLES / "turtles/meta/argument_specs.yml").read_text())["argument_specs"]
    return " ".join(ArgumentSpecValidator(specs["main"]["options"]).validate(variables).error_messages)


@pytest.mark.parametrize("variable", ["kubevirt_infra", "kubevirt_workloads"])
@pytest.mark.parametrize(
    ("placement", "words"),
    [
        ({"nodeSelector": ["ssd"]}, "'nodeSelector' is of type"),
        ({"tolerations": {"operator": "Exists"}}, "'tolerations' is of type"),
        ({"tolerations": ["gpu"]}, "Elements value for option 'tolerations'"),
        ({"affinity": []}, "'affinity' is of type"),
        ({"hostNetwork": True}, "hostNetwork. Supported parameters include: affinity, nodeSelector, tolerations"),
    ],
)
def test_a_placement_of_the_wrong_shape_is_named(variable: str, placement: dict[str, Any], words: str) -> None:
    said = judge(**{variable: placement})
    assert variable in said
    assert words in said


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"virt-api": "200Mi"}, "'virt-api' is of type"),
        ({"virt-api": {"memory": "200Mi"}}, "kubevirt_resources.virt-api.memory"),
        ({"virt-operator": {}}, "kubevirt_resources.virt-operator"),
    ],
)
def test_resources_of_the_wrong_shape_are_named(resources: dict[str, Any], words: str) -> None:
    said = judge(kubevirt_resources=resources)
    assert words in said


def test_what_pods_have_is_taken() -> None:
    terms = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]}
    placement = {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}},
    }
    resources = {"virt-handler": {"requests": {"memory": "200Mi"}, "limits": {"cpu": 1}}, "virt-api": {}}
    assert judge(kubevirt_infra=placement, kubevirt_workloads=placement, kubevirt_resources=resources) == ""
    assert judge(kubevirt_infra={}, kubevirt_workloads={}, kubevirt_resources={}) == ""
