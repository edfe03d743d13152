# SPDX-License-Identifier: GPL-3.0-or-later
"""The quick way through a schema says yes only where the slow one finds nothing."""

import copy
import random
from typing import Any

from turtles.api import crd
from turtles.api.kinds.vmi import VMI
from turtles.standalone.apiserver.schema import quick
from turtles.standalone.apiserver.schema import validation as schema

from ..conftest import WIDGET_SCHEMA
from ..test_fuzz import SEED, bend

VMI_SCHEMA = crd.crd(VMI)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
ODD_SCHEMA = {
    "type": "object",
    "properties": {
        "port": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        "names": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string", "default": "x"}},
        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "count": {"type": "integer", "minimum": 1, "nullable": True},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
        "pod": {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"spec": {"type": "object"}}},
        "open": {"type": "object", "additionalProperties": True},
    },
}
SAMPLES: list[tuple[dict, dict]] = [
    (WIDGET_SCHEMA, {"spec": {"size": "small", "replicas": 2, "parts": [{"name": "a"}, {"name": "b"}]},
                     "status": {"x": [1]}}),
    (ODD_SCHEMA, {"port": 1, "names": ["a", "b"], "any": {"x": {"y": 1}}, "count": 2, "labels": {"a": "b"}, "mode": "b",
                  "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}}, "open": {"a": 1}}),
    (VMI_SCHEMA, {"spec": {"domain": {"cpu": {"cores": 2}, "memory": {"guest": "2Gi"},
                                      "devices": {"disks": [{"name": "a", "disk": {"bus": "virtio"}}, {"name": "b"}],
                                                  "interfaces": [{"name": "default", "masquerade": {}}]}},
                           "networks": [{"name": "default", "pod": {}}],
                           "volumes": [{"name": "a", "cloudInitNoCloud": {"userData": "x"}}]}}),
]  # fmt: skip


def test_the_usual_case_is_quick() -> None:
    for one, value in SAMPLES[::2]:
        node = quick.compiled(one)
        complete = copy.deepcopy(value)
        schema.default(complete, one)
        assert (node.valid(complete), node.clean(complete), node.complete(complete)) == (True, True, True)


def test_quick_and_slow_agree() -> None:
    dice = random.Random(SEED)
    counts = {"valid": 0, "invalid": 0, "pruned": 0, "defaulted": 0}
    for _ in range(6000):
        one, sample = dice.choice(SAMPLES)
        value: Any = copy.deepcopy(sample)
        if dice.random() < 0.8:
            value = bend(dice, value)
        if not isinstance(value, dict):
            continue
        node = quick.compiled(one)
        valid = not schema.validate(value, one)
        assert node.valid(value) == valid, f"seed {SEED}: {value}"
        counts["valid" if valid else "invalid"] += 1
        pruned = copy.deepcopy(value)
        dropped = schema.prune(pruned, one, root=False)
        assert not (dropped and node.clean(value)), f"seed {SEED}: {dropped} of {value}"
        counts["pruned"] += bool(dropped)
        done = copy.deepcopy(value)
        schema.default(done, one)
        assert done == value or not node.complete(value), f"seed {SEED}: {value}"
        counts["defaulted"] += done != value
    assert min(counts.values()) > 20, counts
