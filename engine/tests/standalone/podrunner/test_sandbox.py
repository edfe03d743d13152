# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hostile Pod can't do: real processes in a real sandbox."""

import dataclasses
import json
import os
import sys
import uuid
from pathlib import Path

import pytest

from turtles.standalone.podrunner import host_programs
from turtles.standalone.podrunner.execution import Execution
from turtles.standalone.podrunner.spec import NOFILE

pytestmark = pytest.mark.root

HOSTILE = "test/hostile:1"
#: Refused by the filter whatever capabilities a container has, or has not.
REFUSED = {
    "add_key",
    "bpf",
    "finit_module",
    "keyctl",
    "mount",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "request_key",
    "setns",
    "umount2",
    "unshare",
    "userfaultfd",
    "clone NEWUSER",
    "32-bit socketcall",
    "32-bit unshare",
}


@pytest.fixture
def config(config):
    """A node that runs the hostile program, and with few processes a Pod."""
    hostile = dataclasses.replace(config.preload[0], image=HOSTILE, entry_point="hostile:main", prepare=None)
    return dataclasses.replace(config, preload=(*config.preload, hostile), pod_pids_limit=40)


def attack(node, *args, name="pod1", **spec):
    """Run the hostile program in a Pod of its own and return what it says."""
    container = {"image": HOSTILE, **spec.pop("container", {})}
    node.pod(*args, name=name, container=container, **spec)
    return json.loads(node.log(node.phase("Succeeded", name)))


def as_root(**context):
    """Return a Pod's security context with root in it."""
    return {"runAsUser": 0, "runAsGroup": 0, **context}


def execute(node, pod, *argv, **fields):
    """Run a command in a container and return its exit code and output."""
    state = json.loads((node.config.pods_dir / pod["metadata"]["uid"] / "containers/main/state.json").read_text())
    values = {"uid": 107, "gid": 107, "env": {"PATH": "/usr/bin:/bin"}} | fields
    reading, writing = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    with node.zygote.execute(
        Execution(state["pid"], state["start"], list(argv), **values), [null, writing, writing]
    ) as connection:
        os.close(writing)
        os.close(null)
        connection.settimeout(60)
        assert json.loads(connection.recv(4096)) == {"started": True}
        with os.fdopen(reading, "rb") as output:
            text = output.read()
        return json.loads(connection.recv(4096))["exit"], text.decode()


PROFILES = {
    "of nobody": ({}, {}),
    "of the Pod": ({"seccompProfile": {"type": "RuntimeDefault"}}, {}),
    "of the container": ({"seccompProfile": {"type": "Unconfined"}}, {"seccompProfile": {"type": "RuntimeDefault"}}),
}


@pytest.mark.parametrize("user", [107, 0])
@pytest.mark.parametrize("profile", PROFILES)
def test_system_calls_of_a_hostile_pod(node, profile, user):
    pod, container = PROFILES[profile]
    context = {"runAsUser": user, "runAsGroup": user, **pod}
    seen = attack(node, "calls", securityContext=context, container={"securityContext": container})
    assert {name: seen[name] for name in REFUSED} == dict.fromkeys(REFUSED, "EPERM")
    assert (seen["clone3"], seen["io_uring_setup"]) == ("ENOSYS", "EPERM")
    assert (seen["AF_ALG"], seen["AF_VSOCK"]) == ("EAFNOSUPPORT", "EAFNOSUPPORT")
    assert seen["unshare -Urn"] not in ("0", "127")
    allowed = ("clone", "AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "32-bit getpid")
    assert {name: seen[name] for name in allowed} == dict.fromkeys(allowed, "OK")
    assert seen["Seccomp"] == "2"


def test_who_asks_for_no_filter_gets_none(node):
    seen = attack(node, "calls", securityContext={"runAsUser": 107, "seccompProfile": {"type": "Unconfined"}})
    assert seen["Seccomp"] == "0"
    assert seen["keyctl"] != "EPERM"


def test_a_capability_brings_its_system_calls(node):
    context = {"capabilities": {"add": ["SYS_ADMIN"]}}
    seen = attack(node, "calls", securityContext=as_root(), container={"securityContext": context})
    assert (seen["mount"], seen["clone NEWUSER"]) == ("OK", "OK")
    assert (seen["keyctl"], seen["io_uring_setup"], seen["finit_module"]) == ("EPERM", "EPERM", "EPERM")


def test_a_command_in_a_container_is_filtered_too(node):
    node.pod("serve")
    pod = node.phase("Running")
    program = Path(__file__).with_name("hostile.py")
    code, text = execute(node, pod, sys.executable, str(program), "calls")
    seen = json.loads(text)
    assert code == 0
    assert {name: seen[name] for name in REFUSED} == dict.fromkeys(REFUSED, "EPERM")
    assert seen["Seccomp"] == "2"
    traced = json.loads(execute(node, pod, sys.executable, str(program), "trace")[1])
    assert set(traced.values()) <= {"EPERM", "EACCES"}, traced
    _, text = execute(node, pod, "cat", "/proc/self/status", seccomp="Unconfined")
    assert "Seccomp:\t0" in text


def test_another_profile_is_refused(node):
    node.pod("serve", securityContext={"seccompProfile": {"type": "Localhost", "localhostProfile": "mine.json"}})
    pod = node.wait(lambda pod: pod["status"].get("containerStatuses"))
    waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting["reason"] == "CreateContainerError"
    for word in ("container main", "seccompProfile", "Localhost", "RuntimeDefault"):
        assert word in waiting["message"]


def test_a_list_of_what_is_seen_of_the_host(node):
    folders = (
        "/srv",
        "/opt",
        "/home",
        "/root",
        "/mnt",
        "/media",
        "/boot",
        "/var/log",
        "/var/lib",
        "/var/cache",
        "/var/mail",
        "/var/spool",
        "/tmp",
    )
    seen = attack(node, "look", *folders, container={"securityContext": {"capabilities": {"drop": ["ALL"]}}})
    shown = host_programs.visible_paths()
    assert set(seen["/"]) <= {
        "bin",
        "boot",
        "dev",
        "etc",
        "home",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "media",
        "mnt",
        "opt",
        "proc",
        "root",
        "run",
        "sbin",
        "srv",
        "sys",
        "tmp",
        "usr",
        "var",
        *(Path(path).parts[1] for path in shown),
    }
    for folder in folders:
        inside = {Path(path).parts[len(Path(folder).parts)] for path in shown if path.startswith(f"{folder}/")}
        assert set(seen[folder]) == inside, folder
    assert seen["own"] == [folder for folder in folders if folder != "/tmp"]
    written = {"hosts", "hostname", "resolv.conf", "passwd", "group", "mtab", "ssl"}
    listed = tuple(path for path in shown if path.startswith("/etc/"))
    assert [path for path in seen["etc"] if not host_programs.covered(path, listed)] == sorted(
        f"/etc/{name}" for name in written if name != "ssl" or Path("/etc/ssl").exists()
    )
    assert seen["masked"] == seen["firmware"] == seen["writable"] == []
    assert {line.rsplit(":", 1)[1] for line in seen["cgroup"].splitlines()} == {"/"}
    # And what is needed is there: the dynamic linker's cache, names, programs.
    assert (seen["localhost"], seen["qemu-img"]) == ("127.0.0.1", 0)


def test_more_of_the_host_by_configuration(node, tmp_path):
    (tmp_path / "shown").mkdir()
    for name in ("programs", "secrets"):
        (tmp_path / "shown" / name).mkdir()
        (tmp_path / "shown" / name / "file").touch()
    node.runner.stop()
    node.config = dataclasses.replace(
        node.config, visible_paths=(tmp_path / "shown",), masked_paths=(tmp_path / "shown/secrets",)
    )
    node.new_runner()
    folders = [str(tmp_path / "shown" / name) for name in ("", "programs", "secrets")]
    seen = attack(node, "look", *folders)
    assert [seen[folder] for folder in folders] == [["programs", "secrets"], ["file"], []]


def test_no_device_of_the_host_can_be_made(node):
    folders = ("/dev", "/dev/shm", "/dev/pts", "/tmp", "/run", "/var/tmp", "/data", "/memory")
    seen = attack(
        node,
        "disks",
        *folders,
        securityContext=as_root(),
        container={
            "securityContext": {"capabilities": {"add": ["MKNOD"]}},
            "volumeMounts": [{"name": "e", "mountPath": "/data"}, {"name": "m", "mountPath": "/memory"}],
        },
        volumes=[{"name": "e", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}}],
    )
    assert seen["opened"] == []


def test_a_fork_bomb_hits_its_own_pod_only(node):
    pod = node.pod("forks", container={"image": HOSTILE})
    node.wait(lambda _: "count" in said(node, pod))
    bomb = json.loads(node.log(pod))
    assert bomb == {"count": 40, "errno": "EAGAIN"}
    limits = [path.read_text().strip() for path in groups(node, pod)]
    assert limits == ["40"]
    # Others go on, with the same user, and so does whoever wants to look into it.
    assert attack(node, "calls", name="pod2")["clone"] == "OK"
    assert execute(node, pod, "cat", "/proc/self/stat")[0] == 0
    entered = [str(path.with_name("cgroup.procs")) for path in groups(node, pod)]
    code, _ = execute(node, pod, sys.executable, "-c", "import os; os.fork()", cgroup_procs=entered)
    assert code != 0


def said(node, pod):
    """Return a container's log, empty while there is none."""
    try:
        return node.log(pod)
    except FileNotFoundError:
        return ""


def groups(node, pod):
    """Return the files pids.max of a Pod's control groups."""
    parent, uid = node.config.cgroup_parent, pod["metadata"]["uid"]
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup" in line]
    return [path for mount in mounts if (path := Path(mount, parent, uid, "pids.max")).exists()]


def test_secrets_of_other_pods_are_not_inherited(node):
    def secret():
        return [{"name": "SECRET", "value": f"TOKEN-{uuid.uuid4().hex}"}]

    node.pod("serve", name="pod1", container={"env": secret()})
    pod = node.phase("Running")
    execute(node, pod, "true", env={"PATH": "/usr/bin:/bin", "SECRET": secret()[0]["value"]})
    own = secret()
    seen = attack(node, "remains", name="pod2", securityContext=as_root(), container={"env": own})
    assert seen == {"found": [own[0]["value"]], "environ": ""}


def test_a_command_dies_before_the_forking_process(node):
    """As for the container: who has no memory left must not take it from the parent of all containers."""
    pod = node.pod("serve")
    node.phase("Running")
    state = json.loads((node.config.pods_dir / pod["metadata"]["uid"] / "containers/main/state.json").read_text())
    _, text = execute(node, pod, "cat", "/proc/self/oom_score_adj")
    assert text == Path(f"/proc/{state['pid']}/oom_score_adj").read_text() == "1000\n"


def test_limits_of_a_container(node):
    node.pod("serve")
    pod = node.phase("Running")
    state = json.loads((node.config.pods_dir / pod["metadata"]["uid"] / "containers/main/state.json").read_text())
    limits = {
        line[:25].strip(): line[25:].split()[:2]
        for line in Path(f"/proc/{state['pid']}/limits").read_text().splitlines()
    }
    assert limits["Max core file size"] == ["0", "0"]
    assert int(limits["Max open files"][1]) <= NOFILE
