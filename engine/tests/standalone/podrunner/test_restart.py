# SPDX-License-Identifier: GPL-3.0-or-later
"""When containers start again, when probes count, and how containers are asked to end: decisions without processes."""

import signal

import pytest

from turtles.standalone.podrunner import restart
from turtles.standalone.podrunner.probes import Settings, Verdict, port_of, settings_of, unsupported
from turtles.standalone.podrunner.stopping import signal_of


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 0, False),
        ("Never", 1, False),
    ],
)
def test_policies(policy, code, again):
    assert restart.restarts(policy, code) is again


def test_pauses_double_up_to_five_minutes():
    delay, pauses = 0.0, []
    for _ in range(8):
        pauses.append(restart.pause(delay, 1))
        delay = restart.following(delay, 1)
    assert pauses == [0, 10, 20, 40, 80, 160, 300, 300]


def test_who_ran_long_is_forgiven():
    assert restart.pause(300, 601) == 0
    assert restart.following(300, 601) == 10
    assert restart.pause(300, 599) == 300


def test_messages_are_the_kubelets():
    pod = {"metadata": {"name": "web", "namespace": "default", "uid": "u"}}
    assert restart.describe(pod, "main", 10) == "back-off 10s restarting failed container=main pod=web_default(u)"
    assert restart.describe(pod, "main", 160) == "back-off 2m40s restarting failed container=main pod=web_default(u)"
    assert restart.describe(pod, "main", 300) == "back-off 5m0s restarting failed container=main pod=web_default(u)"
    assert restart.event(pod, "main") == "Back-off restarting failed container main in pod web_default(u)"


def test_defaults_of_probes():
    assert settings_of({}) == Settings(0, 10, 1, 1, 3)
    assert settings_of({"periodSeconds": 5, "failureThreshold": 1}).failures == 1


def test_answers_count_in_a_row():
    verdict = Verdict(Settings(0, 1, 1, successes=2, failures=3), good=True)
    assert [verdict.take(answer) for answer in (False, False, True, False, False, False)] == [False] * 5 + [True]
    assert not verdict.good
    assert [verdict.take(answer) for answer in (True, False, True, True)] == [False, False, False, True]
    assert verdict.good


@pytest.mark.parametrize(("port", "number"), [(80, 80), ("web", 8080), ("81", 81), ("none", None)])
def test_ports_by_name(port, number):
    assert port_of({"ports": [{"name": "web", "containerPort": 8080}]}, port) == number


def test_actions_that_are_not_possible():
    assert unsupported({"livenessProbe": {"grpc": {"port": 1}, "periodSeconds": 1}}) == ["livenessProbe.grpc"]
    assert unsupported({"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}) == []


@pytest.mark.parametrize(
    ("own", "of_image", "number"),
    [
        ("", "", signal.SIGTERM),
        ("", "SIGQUIT", signal.SIGQUIT),
        ("", "INT", signal.SIGINT),
        ("", "3", signal.SIGQUIT),
        ("SIGUSR1", "SIGQUIT", signal.SIGUSR1),
        ("", "SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("", "nonsense", signal.SIGTERM),
        ("", "999999999999", signal.SIGTERM),
        ("", "SIGRTMIN+99", signal.SIGTERM),
    ],
)
def test_the_signal_that_asks_to_end(own, of_image, number):
    assert signal_of({"lifecycle": {"stopSignal": own}}, of_image) == number
