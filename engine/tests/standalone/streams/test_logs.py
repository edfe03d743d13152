# SPDX-License-Identifier: GPL-3.0-or-later
"""kubectl logs."""

import json
import os
import re
import signal
import socket

from apiserver.conftest import any_kubectl

from streams.conftest import CORE


def refused(rig, query, pod="server"):
    """Return code and message."""
    code, body = rig.call("GET", f"{CORE}/pods/{pod}/log?{query}")
    return code, body["message"]


def test_a_log_has_both_streams_and_ends_as_the_container_did(rig):
    rig.pod("talker", "echo", "one", "two")
    rig.phase("talker", "Failed")
    assert sorted(rig.said("talker").splitlines()) == ["complaint", "one two"]
    assert rig.said("talker", "stream=Stderr") == "complaint\n"
    line = rig.said("talker", "timestamps=true&stream=Stdout")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z one two\n", line)
    _, pod = rig.call("GET", f"{CORE}/pods/talker")
    assert "complaint" in pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"]


def test_parts_of_a_log(rig):
    rig.pod("counter", "count", "20")
    rig.phase("counter", "Succeeded")
    assert rig.said("counter", "tailLines=2") == "line 18\nline 19\n"
    assert rig.said("counter", "tailLines=0") == ""
    assert rig.said("counter", "limitBytes=8") == "line 0\nl"
    stamped = rig.said("counter", "timestamps=true").splitlines()
    since = stamped[15].split()[0]
    assert rig.said("counter", f"sinceTime={since}") == "".join(f"line {n}\n" for n in range(15, 20))
    assert rig.said("counter", "sinceTime=2999-01-01T00:00:00%2B02:00") == ""
    assert rig.said("counter", "sinceSeconds=3600&tailLines=1") == "line 19\n"


def test_following_ends_with_the_container(rig):
    rig.pod("following", "count", "30")
    rig.phase("following", "Running", "Succeeded")
    assert rig.said("following", "follow=true") == "".join(f"line {n}\n" for n in range(30))


def test_a_follower_that_goes_is_forgotten(rig):
    """Even when the container says nothing, so that nothing is written to whom nobody is."""

    def lasting():
        text = rig.raw("GET", "/metrics")[2].decode()
        return int(re.search(r"^apiserver_longrunning_requests (\d+)", text, re.M)[1])

    before = lasting()
    with (
        socket.create_connection(("127.0.0.1", rig.port)) as plain,
        rig.tls.wrap_socket(plain, server_hostname="127.0.0.1") as client,
    ):
        head = f"GET {CORE}/pods/server/log?follow=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {rig.token()}"
        client.sendall(f"{head}\r\n\r\n".encode())
        assert b"200 OK" in client.recv(1000)
        assert lasting() == before + 1
    rig.until(lambda: lasting() == before, 60)


def test_a_talkative_container_cant_fill_the_disk(rig):
    uid = rig.pod("flood", "flood", "250000")["metadata"]["uid"]
    rig.phase("flood", "Succeeded")
    directory = rig.root / "kubelet/pods" / uid / "containers/main"
    size = sum(path.stat().st_size for path in directory.glob("log*"))
    assert 10 << 20 < size < 21 << 20
    text = rig.said("flood")
    numbers = [int(line.split()[0]) for line in text.splitlines()]
    assert numbers == list(range(numbers[0], 250000))


def test_the_log_of_the_start_before(rig):
    rig.pod("again", "echo", "words", restart="Always")

    def restarted():
        statuses = rig.call("GET", f"{CORE}/pods/again")[1]["status"].get("containerStatuses") or [{}]
        return statuses[0].get("restartCount", 0) > 0 and statuses[0].get("lastState", {}).get("terminated")

    assert refused(rig, "previous=true", "again")[0] == 400 or restarted()
    rig.until(restarted, 60)
    assert "words" in rig.said("again", "previous=true")
    rig.call("DELETE", f"{CORE}/pods/again")


def test_what_cant_be_is_said_as_a_cluster_says_it(rig):
    assert refused(rig, "container=other") == (400, "container other is not valid for pod server")
    code, message = refused(rig, "previous=true")
    assert (code, message) == (400, 'previous terminated container "main" in pod "server" not found')
    code, message = refused(rig, "tailLines=-1")
    assert code == 422
    assert "tailLines: Invalid value: -1: must be greater than or equal to 0" in message
    code, message = refused(rig, "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z")
    assert code == 422
    assert "at most one of `sinceTime` or `sinceSeconds` may be specified" in message
    assert refused(rig, "sinceTime=yesterday")[0] == 400
    assert refused(rig, "", "nobody")[0] == 404
    rig.pod("two", image="test/unknown:1", imagePullPolicy="Never")
    rig.until(lambda: rig.call("GET", f"{CORE}/pods/two")[1]["status"].get("containerStatuses"), 30)
    code, message = refused(rig, "", "two")
    assert (code, message) == (400, 'container "main" in pod "two" is waiting to start: ErrImageNeverPull')
    code, body = rig.call("GET", f"{CORE}/pods/server/log", token=rig.token("virt-controller"))
    assert (code, body["reason"]) == (403, "Forbidden")


@any_kubectl
def test_kubectl_logs(rig):
    assert rig.kubectl("logs", "server").startswith("serving 107\n")
    rig.pod("watched", "count", "40")
    rig.phase("watched", "Running")
    assert rig.kubectl("logs", "-f", "watched", "--tail=-1").endswith("line 39\n")


def test_killed_processes_cost_no_line(rig):
    uid = rig.pod("survivor", "count until told")["metadata"]["uid"]
    rig.phase("survivor", "Running")
    rig.until(lambda: "line 9" in rig.said("survivor"), 30)
    state = json.loads((rig.root / "kubelet/pods" / uid / "containers/main/state.json").read_text())
    os.kill(state["parent"]["pid"], signal.SIGKILL)
    rig.runner.kill()
    rig.runner.wait(60)
    (rig.root / "run/node.sock").unlink()
    rig.start_runner()
    rig.until(lambda: len(rig.said("survivor").splitlines()) > 30, 60)
    os.kill(state["pid"], signal.SIGTERM)
    rig.phase("survivor", "Succeeded", "Failed")
    *lines, last = rig.said("survivor").splitlines()
    # What the killed process had taken and not yet written may be gone: a line or two, never more.
    assert int(last.removesuffix(" lines")) - len(lines) <= 2
