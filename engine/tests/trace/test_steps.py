# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of logs become the steps of one machine, a table and a picture."""

import json
import xml.etree.ElementTree as ET

from turtles.trace import steps as trace
from turtles.trace.main import table
from turtles.trace.picture import draw

NAMES = "{http://www.w3.org/2000/svg}"


def line(seconds: float, component: str, msg: str, **facts: object) -> str:
    stamp = f"2026-03-01T12:00:{seconds:06.3f}+00:00"
    return json.dumps({"timestamp": stamp, "level": "info", "component": component, "msg": msg, **facts})


WEB = {"namespace": "shop", "vmi": "web"}
POD = {"namespace": "shop", "pod": "virt-launcher-web-1a2b3"}
LINES = [
    # In no order, as logs of several components are.
    line(3.5, "virt-handler", "guest started", vmi="shop/web", uid="u", start_ms=310),
    line(2.0, "virt-controller", "VMI created", namespace="shop", vm="web", uid="u"),
    line(2.1, "virt-controller", "Pod created", **WEB, pod=POD["pod"]),
    line(2.2, "podrunner", "Pod arrived", **POD),
    line(1.0, "virt-controller", "VMI created", namespace="shop", vm="web", uid="before"),
    line(1.2, "virt-handler", "guest ended", vmi="shop/web", phase="Succeeded"),
    # Of others
    line(2.0, "virt-controller", "VMI created", namespace="shop", vm="web-2"),
    line(2.0, "virt-controller", "VMI created", namespace="office", vm="web"),
    line(2.3, "podrunner", "Pod arrived", namespace="shop", pod="virt-launcher-web-2-1a2b3"),
    line(2.3, "podrunner", "Pod arrived", namespace="office", pod=POD["pod"]),
    # Not of this form
    "web: a line that is no JSON",
    '["web"]',
    '{"namespace": "shop", "vmi": "web", "msg": "no time"}',
    '{"namespace": "shop", "vmi": "web", "msg": "no time", "timestamp": 7}',
]


def test_the_steps_of_a_machine_in_the_order_of_time() -> None:
    steps = trace.steps_of("shop", "web", LINES)
    assert [step.message for step in steps] == [
        "VMI created",
        "guest ended",
        "VMI created",
        "Pod created",
        "Pod arrived",
        "guest started",
    ]
    assert steps[-1].facts == {"start_ms": 310}
    assert round(steps[-1].time - steps[2].time, 3) == 1.5


def test_the_latest_start() -> None:
    steps = trace.latest_start(trace.steps_of("shop", "web", LINES))
    assert [step.message for step in steps] == ["VMI created", "Pod created", "Pod arrived", "guest started"]
    # An instance that no VirtualMachine made begins with its Pod.
    alone = [text for text in LINES if "VMI created" not in text]
    assert trace.latest_start(trace.steps_of("shop", "web", alone))[0].message == "Pod created"
    assert trace.latest_start(trace.steps_of("shop", "other", LINES)) == []


def test_the_table_has_the_times_since_the_first_step_and_the_one_before() -> None:
    rows = table(trace.latest_start(trace.steps_of("shop", "web", LINES))).splitlines()
    assert rows[0].split() == ["seconds", "step", "component", "what"]
    assert rows[-1].split() == ["1.500", "1.300", "virt-handler", "guest", "started", "start_ms=310"]


def test_the_picture_has_a_mark_for_each_step() -> None:
    steps = trace.latest_start(trace.steps_of("shop", "web", LINES))
    root = ET.fromstring(draw("shop/<web>", steps))
    marks = root.findall(f"{NAMES}circle")
    assert len(marks) == len(steps)
    places = [float(mark.get("cx", "")) for mark in marks]
    assert places == sorted(places)
    texts = [text.text for text in root.findall(f"{NAMES}text")]
    assert "shop/<web>" in texts
    assert "1.500 guest started start_ms=310" in texts
    # One step has no length.
    ET.fromstring(draw("shop/web", steps[:1]))
