# SPDX-License-Identifier: GPL-3.0-or-later
"""kubectl exec, attach and port-forward, over each of the protocols that clients speak."""

import contextlib
import fcntl
import os
import pty
import re
import select
import socket
import ssl
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest
from apiserver.conftest import any_kubectl, new_kubectl
from kubernetes import client, config
from kubernetes.stream import portforward, stream

from streams.conftest import CORE

#: What makes kubectl speak SPDY, as releases before 1.31 do, and WebSocket.
PROTOCOLS = {"websocket": "true", "spdy": "false"}


@pytest.fixture(params=sorted(PROTOCOLS))
def run(request, rig):
    """Runs kubectl with one of the protocols."""
    value = PROTOCOLS[request.param]
    environment = {
        **os.environ,
        "KUBECONFIG": str(rig.config / "admin.kubeconfig"),
        "HOME": str(rig.root),
        "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": value,
        "KUBECTL_PORT_FORWARD_WEBSOCKETS": value,
    }

    def call(*arguments, data="", **options):
        return subprocess.run(
            ["kubectl", *arguments], input=data, capture_output=True, text=True, env=environment, timeout=120, **options
        )

    call.environment = environment
    return call


@any_kubectl
def test_a_command_runs_as_the_container(run):
    done = run("exec", "server", "--", "sh", "-c", "id -u; echo $COLOR; hostname; cat /proc/1/comm; echo bad >&2")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "107\nblue\nserver\nentry\n"
    assert done.stderr == "bad\n"
    seen = run("exec", "server", "--", "cat", "/proc/self/status").stdout
    fields = dict(line.split(":\t", 1) for line in seen.splitlines() if ":\t" in line)
    assert [int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")] == [0, 0, 0, 0]
    assert fields["NoNewPrivs"] == "1"
    assert fields["Uid"].split() == ["107"] * 4


@pytest.mark.parametrize(
    "odd",
    [{"Sec-WebSocket-Key": "x"}, {"Sec-WebSocket-Key": "²"}, {"Sec-WebSocket-Version": "12"}, {"Connection": "x"}],
)
def test_a_handshake_that_is_none_is_the_clients_mistake(rig, odd):
    headers = {
        **{"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"},
        "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
        "Sec-WebSocket-Protocol": "v5.channel.k8s.io",
    }
    code, answer = rig.call("GET", f"{CORE}/pods/server/exec?command=true&stdout=1", headers={**headers, **odd})
    assert (code, answer["kind"], answer["reason"]) == (400, "Status", "BadRequest"), answer


@any_kubectl
def test_exit_codes_and_errors(run):
    done = run("exec", "server", "--", "sh", "-c", "exit 42")
    assert (done.returncode, done.stderr) == (42, "command terminated with exit code 42\n")
    assert run("exec", "server", "--", "sh", "-c", "kill -9 $$").returncode == 137
    done = run("exec", "server", "--", "no-such-program")
    assert done.returncode == 1
    assert 'exec: "no-such-program": executable file not found in $PATH' in done.stderr
    assert 'pods "nobody" not found' in run("exec", "nobody", "--", "true").stderr
    assert "container other is not valid for pod server" in run("exec", "server", "-c", "other", "--", "true").stderr


@any_kubectl
def test_input_reaches_the_command_and_ends(run):
    text = "".join(f"{number} some words to make it long\n" for number in range(40000))
    done = run("exec", "-i", "server", "--", "sha256sum", data=text)
    expected = subprocess.run(["sha256sum"], input=text, capture_output=True, text=True, check=True).stdout
    assert (done.stdout, done.returncode) == (expected, 0)
    assert run("exec", "-i", "server", "--", "cat", data=text).stdout == text


@any_kubectl
def test_a_terminal(run):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
    process = subprocess.Popen(
        [
            "kubectl",
            "exec",
            "-it",
            "server",
            "--",
            "sh",
            "-c",
            # The size comes on a channel of its own, whenever it comes.
            'tty; while [ "$(stty size)" = "0 0" ]; do sleep 0.1; done; stty size; read word; echo got $word; exit 5',
        ],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=run.environment,
        start_new_session=True,
    )
    os.close(slave)
    seen, typed = b"", False
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 1)[0]:
            continue
        try:
            data = os.read(master, 4096)
        except OSError:
            break
        seen += data
        if b"33 77" in seen and not typed:
            typed = True
            os.write(master, b"magic\n")
    os.close(master)
    assert process.wait(60) == 5, seen
    assert b"/dev/pts/0" in seen
    assert b"33 77" in seen
    assert b"got magic" in seen


@any_kubectl
def test_an_attachment_sees_what_is_said_from_now_on(rig, run):
    name = f"attached-{run.environment['KUBECTL_REMOTE_COMMAND_WEBSOCKETS']}"
    rig.pod(name, "count", "60")
    rig.phase(name, "Running")
    done = run("attach", name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "line 59"


def forwarded(run, port):
    """Start kubectl port-forward; return the process, and the port it listens on."""
    process = subprocess.Popen(
        ["kubectl", "port-forward", "server", f":{port}"],
        stdout=subprocess.PIPE,
        text=True,
        env=run.environment,
        stderr=subprocess.STDOUT,
    )
    return process, int(re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())[1])


@any_kubectl
def test_ports(run):
    process, port = forwarded(run, 8080)
    try:
        payload = os.urandom(2_000_000)
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
                answer = b""
                sent = 0
                while len(answer) < len(payload) + 6:
                    reading, writing, _ = select.select([sock], [sock] if sent < len(payload) else [], [], 60)
                    if writing:
                        sent += sock.send(payload[sent : sent + 65536])
                    if reading:
                        chunk = sock.recv(65536)
                        assert chunk
                        answer += chunk
                assert answer == b"hello " + payload
    finally:
        process.terminate()
        process.wait(60)


@any_kubectl
def test_a_port_that_nobody_listens_on(run):
    process, port = forwarded(run, 9)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as sock, contextlib.suppress(ConnectionError):
            assert sock.recv(10) == b""
    finally:
        process.terminate()
        said = process.communicate(timeout=60)[0]
    assert "failed to connect to localhost:9 inside" in said


@pytest.fixture
def core(rig):
    """The official client."""
    return client.CoreV1Api(config.new_client_from_config(str(rig.config / "admin.kubeconfig")))


def test_the_python_client(core):
    assert (
        stream(
            core.connect_get_namespaced_pod_exec,
            "server",
            "default",
            command=["id", "-u"],
            stdout=True,
            stderr=True,
            stdin=False,
            tty=False,
        )
        == "107\n"
    )
    session = stream(
        core.connect_get_namespaced_pod_exec,
        "server",
        "default",
        stdin=True,
        stdout=True,
        stderr=True,
        command=["sh", "-c", "read a; echo $a; echo no >&2; exit 7"],
        _preload_content=False,
    )
    session.write_stdin("yes\n")
    session.run_forever(timeout=60)
    assert (session.read_stdout(), session.read_stderr(), session.returncode) == ("yes\n", "no\n", 7)


def test_ports_with_the_python_client(core):
    forward = portforward(core.connect_get_namespaced_pod_portforward, "server", "default", ports="8080")
    sock = forward.socket(8080)
    sock.setblocking(True)
    sock.settimeout(30)
    sock.sendall(b"world")
    answer = b""
    while len(answer) < 11:
        answer += sock.recv(100)
    assert answer == b"hello world"
    forward.close()


def test_who_may(rig):
    for subresource in ("exec?command=id&stdout=1", "attach?stdout=1", "portforward"):
        for method in ("GET", "POST"):
            path = f"{CORE}/pods/server/{subresource}"
            code, body = rig.call(method, path, token=rig.token("virt-controller"))
            assert (code, body["reason"]) == (403, "Forbidden")
            assert rig.call(method, path)[1]["message"] == "Upgrade request required"
    rules = [{"apiGroups": [""], "resources": ["pods/exec", "pods"], "verbs": ["get"]}]
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "reader"},
        "rules": rules,
    }
    base = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    assert rig.call("POST", f"{base}/roles", role)[0] == 201
    binding = {
        "apiVersion": role["apiVersion"],
        "kind": "RoleBinding",
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "reader"}],
    }
    assert rig.call("POST", f"{base}/rolebindings", binding)[0] == 201
    # A WebSocket begins with GET; who may only get may not execute.
    code, body = rig.call("GET", f"{CORE}/pods/server/exec?command=id&stdout=1", headers={"Impersonate-User": "reader"})
    assert (code, body["reason"]) == (403, "Forbidden")
    assert 'cannot create resource "pods/exec"' in body["message"]
    assert rig.call("GET", f"{CORE}/pods/server/exec?stdout=1")[0] == 400


def test_only_root_may_ask_the_node(rig):
    path = rig.root / "run/node.sock"
    assert path.stat().st_mode & 0o777 == 0o600


def upgraded(rig, path, header):
    """Return a connection after its upgrade to SPDY."""
    raw = socket.create_connection(("127.0.0.1", rig.port), timeout=60)
    sock = rig.tls.wrap_socket(raw, server_hostname="localhost")
    sock.sendall(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {rig.token()}\r\nConnection: Upgrade\r\n"
        f"Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {header}\r\nContent-Length: 0\r\n\r\n".encode()
    )
    return sock, sock.recv(4096).decode()


def test_nonsense_ends_the_connection_only(rig):
    path = f"{CORE}/pods/server/portforward"
    for garbage in (
        b"\x80\x03\x00\x01\x00\xff\xff\xff",
        b"\x80\x03\x00\x01\x00\x00\x00\x02ab",
        b"\x80\x03\x00\x01\x00\x00\x00\x20" + b"\0\0\0\x01" + os.urandom(28),
        os.urandom(500),
    ):
        sock, head = upgraded(rig, path, "portforward.k8s.io")
        assert head.startswith("HTTP/1.1 101"), head
        with sock, contextlib.suppress(ssl.SSLError, ConnectionError, TimeoutError):
            sock.sendall(garbage)
            sock.settimeout(1)
            sock.recv(100)
    _, head = upgraded(rig, path, "v9.unknown")
    assert head.startswith("HTTP/1.1 403"), head
    assert rig.call("GET", "/readyz")[0] == 200


@new_kubectl
def test_sessions_leave_nothing_behind(rig, run):
    def descriptors():
        return {pid: len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in (rig.process.pid, rig.runner.pid)}

    run("exec", "server", "--", "true")
    before = descriptors()
    for _ in range(5):
        run("exec", "-i", "server", "--", "cat", data="x")
    rig.until(lambda: all(descriptors()[pid] <= count + 2 for pid, count in before.items()), 30)
    process = subprocess.Popen(
        ["kubectl", "exec", "-i", "server", "--", "cat"], stdin=subprocess.PIPE, env=run.environment
    )
    rig.until(lambda: run("exec", "server", "--", "sh", "-c", "cat /proc/[0-9]*/comm").stdout.count("cat\n") == 1, 30)
    process.kill()
    process.communicate()
    # The command sees the end of its input when its client is gone.
    rig.until(lambda: run("exec", "server", "--", "sh", "-c", "cat /proc/[0-9]*/comm").stdout.count("cat\n") == 0, 30)
