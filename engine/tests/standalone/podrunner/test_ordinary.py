# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers of ordinary images for real: crun, its namespaces, cgroups and statuses."""

import json
import os
import re
import shutil
import subprocess
import tarfile
import urllib.request
from pathlib import Path

import pytest

from turtles.kube.resources import CONFIGMAP, POD, SECRET
from turtles.standalone.podrunner.mount_points import mount_points
from turtles.standalone.podrunner.poddir import PodDir

from .busybox import layout
from .entry_points import names
from .layers import member

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("crun") is None, reason="needs crun"),
]


@pytest.fixture
def image(node):
    """The image with busybox."""
    return layout(node.config.allowed_image_dirs[0] / "busybox")


@pytest.fixture
def run(node, image):
    """Creates a Pod with one container that runs a script."""

    def create(script, name="pod1", container=(), **spec):
        spec = {"securityContext": {}, "terminationGracePeriodSeconds": 1, **spec}
        own = {"image": image, "command": ["/bin/sh", "-c", script], **dict(container)}
        return node.pod(name=name, container=own, **spec)

    return create


def status_of(pod):
    """Return the status of a Pod's only container."""
    return pod["status"]["containerStatuses"][0]


def state_of(pod):
    """Return the state of a Pod's only container."""
    return status_of(pod)["state"]


def test_what_a_container_sees(node, run):
    node.client.add(SECRET, {"metadata": {"name": "s", "namespace": "default"}, "data": {"key": "dmFsdWU="}})
    node.client.add(CONFIGMAP, {"metadata": {"name": "c", "namespace": "default"}, "data": {"word": "text"}})
    run(
        "id; pwd; echo env $BOTH $POD_IP $word $PATH $HOME; cat /secret/key; echo; cat /proc/self/mountinfo; ps; ls /; "
        "cat /etc/hosts /etc/hostname; grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; ls /sys/class/net /dev; "
        "stat -c 'tmp %a' /tmp; echo written > /data/file; echo out >&2; exit 3",
        container={
            "workingDir": "/tmp",
            "envFrom": [{"configMapRef": {"name": "c"}}],
            "env": [
                {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "BOTH", "value": "$(SECRET)-$$-$(POD_IP)"},
            ],
            "volumeMounts": [{"name": "s", "mountPath": "/secret"}, {"name": "e", "mountPath": "/data"}],
        },
        volumes=[{"name": "s", "secret": {"secretName": "s"}}, {"name": "e", "emptyDir": {}}],
    )
    pod = node.phase("Failed")
    assert [event[1] for event in node.recorder.events] == ["Pulling", "Pulled", "Started"]
    said = node.log(pod)
    address = pod["status"]["podIP"]
    assert "uid=0(root) gid=0(root)" in said
    assert "\n/tmp\n" in said
    assert f"env value-$-{address} {address} text /usr/local/sbin" in said
    assert "\nvalue\n" in said
    assert re.search(r"\n +1 root .*/bin/sh", said)
    assert f"{address}\tpod1" in said
    assert "NoNewPrivs:\t1" in said
    assert "Seccomp:\t2" in said
    assert "tmp 1777" in said
    (bounding,) = re.findall(r"CapBnd:\t(\w+)", said)
    # containerd's, without CAP_MKNOD
    assert int(bounding, 16) == 0xA80425FB & ~(1 << 27)
    assert "eth0" in said
    mounts = [line.split() for line in said.splitlines() if re.match(r"\d+ \d+ \d+:\d+ ", line)]
    options = {words[4]: set(words[5].split(",")) for words in mounts}
    assert {"nosuid", "nodev", "rw"} <= options["/"]
    assert {"nosuid", "nodev", "ro"} <= options["/secret"]
    assert {"nosuid", "nodev", "rw"} <= options["/data"]
    assert "ro" in options["/dev"]
    assert "ro" in options["/sys"]
    assert state_of(pod)["terminated"] | {"startedAt": "", "finishedAt": ""} == {
        "exitCode": 3,
        "reason": "Error",
        "startedAt": "",
        "finishedAt": "",
        "containerID": status_of(pod)["containerID"],
    }
    assert status_of(pod)["imageID"].startswith("sha256:")


def test_what_the_image_says(node):
    reference = layout(
        node.config.allowed_image_dirs[0] / "own",
        User="app",
        Env=["WORD=of image", "OTHER=kept"],
        Entrypoint=["/bin/sh", "-c"],
        Cmd=["id; pwd; echo $WORD $OTHER $HOME; grep CapEff /proc/self/status"],
        WorkingDir="/var/not/there",
    )
    node.pod(
        container={"image": reference, "command": [], "env": [{"name": "WORD", "value": "of Pod"}]}, securityContext={}
    )
    pod = node.phase("Succeeded")
    assert node.log(pod).splitlines() == [
        "uid=1000(app) gid=1001(app) groups=1002(more)",
        "/var/not/there",
        "of Pod kept /home/app",
        "CapEff:\t0000000000000000",
    ]
    assert state_of(pod)["terminated"]["reason"] == "Completed"


@pytest.mark.parametrize(
    ("user", "context", "message"),
    [
        ("", {"runAsNonRoot": True}, "container has runAsNonRoot and image will run as root"),
        ("app", {"runAsNonRoot": True}, "image has non-numeric user (app), cannot verify user is non-root"),
        ("", {"runAsNonRoot": True, "runAsUser": 0}, "container's runAsUser breaks non-root policy"),
        ("nobody-there", {}, "no user 'nobody-there' in the image's /etc/passwd"),
        ("", {"privileged": True}, "securityContext.privileged is not supported"),
        ("", {"procMount": "Unmasked"}, "securityContext.procMount Unmasked is not supported"),
    ],
)
def test_identities_that_are_refused(node, user, context, message):
    reference = layout(node.config.allowed_image_dirs[0] / "own", User=user)
    node.pod(container={"image": reference, "securityContext": context}, securityContext={})
    pod = node.wait(lambda pod: message in json.dumps(pod["status"]))
    assert state_of(pod)["waiting"]["reason"] in ("CreateContainerConfigError", "CreateContainerError")


def test_folders_of_the_machine_are_refused(node, run):
    run(
        "true",
        container={"volumeMounts": [{"name": "h", "mountPath": "/host"}]},
        volumes=[{"name": "h", "hostPath": {"path": "/"}}],
    )
    pod = node.wait(lambda pod: "hostPath" in str(pod["status"]))
    assert state_of(pod)["waiting"] == {
        "reason": "CreateContainerConfigError",
        "message": "container main: volumeMounts /host of a hostPath volume is not supported in standalone mode",
    }


@pytest.mark.parametrize(
    ("container", "volume", "place"),
    [
        ({"volumeMounts": [{"name": "x", "mountPath": "/x", "subPath": "a\0"}]}, {"emptyDir": {}},
         "spec.containers[0].volumeMounts[0].subPath"),
        ({}, {"downwardAPI": {"items": [{"path": "\0", "fieldRef": {"fieldPath": "metadata.name"}}]}},
         "spec.volumes[0].downwardAPI.items[0].path"),
        ({"env": [{"name": "A", "value": "\0"}]}, {"emptyDir": {}}, "spec.containers[0].env[0].value"),
        ({"args": ["\0"]}, {"emptyDir": {}}, "spec.containers[0].args[0]"),
    ],
)  # fmt: skip
def test_a_text_that_no_program_can_have_is_named(node, run, container, volume, place):
    run("true", container=container, volumes=[{"name": "x", **volume}])
    pod = node.wait(lambda pod: "NUL" in str(pod["status"]))
    waiting = state_of(pod)["waiting"]
    assert waiting["reason"] == "CreateContainerConfigError"
    assert waiting["message"].startswith(f"{place} has a NUL character")


def test_devices_of_the_machine_are_out_of_reach(node, run):
    """Also for a container that may make device files, in every place that it can write to."""
    run(
        "for folder in / /tmp /dev /dev/shm /data; do mknod $folder/disk c 1 5; "
        "head -c 1 $folder/disk > /dev/null && echo read $folder; done; true",
        container={
            "securityContext": {"capabilities": {"add": ["MKNOD"]}},
            "volumeMounts": [{"name": "e", "mountPath": "/data"}],
        },
        volumes=[{"name": "e", "emptyDir": {"medium": "Memory"}}],
    )
    pod = node.phase("Succeeded")
    assert "read" not in node.log(pod)
    assert "Read-only file system" in node.log(pod)


@pytest.mark.parametrize(
    ("link", "found"),
    [
        # Both are meant within the image, where the first one is.
        ("/../../../tmp", "Completed"),
        ("{victim}", "StartError"),
    ],
)
def test_an_images_links_lead_nowhere(node, tmp_path, link, found):
    """Volumes and files of the podrunner are mounted within the image, whatever the image has in their place."""
    victim = tmp_path / "victim"
    victim.mkdir()
    link = link.format(victim=victim)
    reference = layout(
        node.config.allowed_image_dirs[0] / "hostile",
        member("etc/hostname", kind=tarfile.SYMTYPE, link=f"{link}/hostname"),
        member("data", kind=tarfile.SYMTYPE, link=link),
        member("log", kind=tarfile.SYMTYPE, link=f"../../../../../..{link}"),
    )
    node.pod(
        container={
            "image": reference,
            "command": ["/bin/sh", "-c", "echo x > /data/sub/file; echo said > /log/message"],
            "terminationMessagePath": "/log/message",
            "volumeMounts": [{"name": "e", "mountPath": "/data/sub"}],
        },
        securityContext={},
        volumes=[{"name": "e", "emptyDir": {}}],
    )
    pod = node.wait(lambda pod: "terminated" in str(pod["status"]))
    ended = state_of(pod)["terminated"]
    assert ended["reason"] == found
    assert found != "Completed" or ended["message"] == "said"
    assert names(victim) == []
    assert not Path("/tmp/hostname").exists()


def test_a_part_of_a_volume_is_not_another_pods_link(node, run):
    run(
        "echo $PART; cat /part/file",
        container={
            "env": [{"name": "PART", "value": "a/b"}],
            "volumeMounts": [{"name": "e", "mountPath": "/part", "subPathExpr": "$(PART)"}],
        },
        initContainers=[
            {
                "name": "first",
                "image": f"oci:{node.config.allowed_image_dirs[0] / 'busybox'}",
                "command": ["/bin/sh", "-c", "mkdir -p /all/a/b; echo found > /all/a/b/file"],
                "volumeMounts": [{"name": "e", "mountPath": "/all"}],
            }
        ],
        volumes=[{"name": "e", "emptyDir": {}}],
    )
    pod = node.phase("Succeeded")
    assert "found" in node.log(pod)
    assert pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"


def test_memory_that_is_used_up(node, run):
    run("x=a; while true; do x=$x$x; done", container={"resources": {"limits": {"memory": "32Mi", "cpu": "1"}}})
    pod = node.phase("Failed")
    ended = state_of(pod)["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


def test_a_program_that_is_not_there(node, run):
    run("", container={"command": ["/not/there"]})
    pod = node.phase("Failed")
    ended = state_of(pod)["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("StartError", 128)
    assert "/not/there" in ended["message"]


def test_crash_loop(node, run):
    run("echo try; exit 7", restartPolicy="Always")
    pod = node.wait(lambda pod: "CrashLoopBackOff" in str(pod["status"]))
    status = status_of(pod)
    assert status["restartCount"] == 1
    assert status["state"]["waiting"] == {
        "reason": "CrashLoopBackOff",
        "message": f"back-off 10s restarting failed container=main pod=pod1_default({pod['metadata']['uid']})",
    }
    assert status["lastState"]["terminated"]["exitCode"] == 7
    assert not status["ready"]
    assert pod["status"]["phase"] == "Running"
    assert node.log(pod) == "try\n"
    assert any(event[1] == "BackOff" for event in node.recorder.events)
    pod = node.wait(lambda pod: status_of(pod)["restartCount"] == 2 and "waiting" in state_of(pod))
    assert "back-off 20s" in state_of(pod)["waiting"]["message"]


def test_restart_on_failure_until_success(node, run):
    run(
        "[ -e /data/second ] && exit 0; echo x > /data/second; exit 1",
        restartPolicy="OnFailure",
        container={"volumeMounts": [{"name": "e", "mountPath": "/data"}]},
        volumes=[{"name": "e", "emptyDir": {}}],
    )
    pod = node.phase("Succeeded")
    assert status_of(pod)["restartCount"] == 1
    assert status_of(pod)["lastState"]["terminated"]["exitCode"] == 1


def test_probes(node, run):
    run(
        "echo x > /tmp/alive; httpd -p 80; while true; do sleep 1; done",
        restartPolicy="Always",
        container={
            "ports": [{"name": "web", "containerPort": 80}],
            "startupProbe": {"exec": {"command": ["cat", "/tmp/alive"]}, "periodSeconds": 1},
            "readinessProbe": {"httpGet": {"port": "web", "path": "/page"}, "periodSeconds": 1, "failureThreshold": 1},
            "livenessProbe": {"exec": {"command": ["cat", "/tmp/alive"]}, "periodSeconds": 1, "failureThreshold": 1},
        },
    )
    pod = node.wait(lambda pod: "statuscode: 404" in str(node.recorder.events))
    pod = node.wait(lambda pod: status_of(pod)["started"])
    assert not status_of(pod)["ready"]
    execute(node, pod, "sh", "-c", "echo x > /page")
    pod = node.wait(lambda pod: status_of(pod)["ready"])
    execute(node, pod, "sh", "-c", "rm /tmp/alive || mv /tmp/alive /tmp/dead")
    pod = node.wait(lambda pod: status_of(pod)["restartCount"] == 1)
    said = [event[2] for event in node.recorder.events]
    assert "Container main failed liveness probe, will be restarted" in said
    assert [text for text in said if text.startswith("Liveness probe failed: cat: can't open")]


def execute(node, pod, *command):
    """Run a command in a Pod's container and return how it ended."""
    own = PodDir(node.config.pods_dir, pod["metadata"]["uid"])
    container = pod["spec"]["containers"][0]
    observed = own.observe("main", node.zygote)
    commands = node.runner.commands
    return commands.run(commands.execution(pod, container, own, observed, list(command)), 10)


def test_commands_have_the_containers_privileges(node, run):
    run(
        "sleep 1000",
        container={
            "env": [{"name": "WORD", "value": "known"}],
            "securityContext": {"runAsUser": 1000},
            "workingDir": "/tmp",
        },
    )
    pod = node.phase("Running")
    code, said = execute(
        node, pod, "sh", "-c", "id; pwd; echo $WORD; grep -E 'CapEff|CapBnd|Seccomp:' /proc/self/status; exit 4"
    )
    assert code == 4
    assert said.splitlines()[:3] == ["uid=1000(app) gid=1001(app) groups=1002(more)", "/tmp", "known"]
    assert "CapEff:\t0000000000000000" in said
    assert "Seccomp:\t2" in said
    assert execute(node, pod, "not-there")[0] != 0
    node.client.delete(POD, "default", "pod1", grace_period=0)
    node.wait(lambda pod: pod is None)


def test_a_podrunner_that_is_killed_changes_nothing(node, run):
    run("while true; do echo tick; sleep 0.1; done")
    pod = node.phase("Running")
    state = node.config.pods_dir / pod["metadata"]["uid"] / "containers/main/state.json"
    before = json.loads(state.read_text())
    node.runner.stop()
    node.new_runner()
    pod = node.phase("Running")
    assert json.loads(state.read_text()) == before
    assert status_of(pod)["restartCount"] == 0
    os.kill(before["pid"], 9)
    pod = node.phase("Failed")
    assert state_of(pod)["terminated"]["exitCode"] == 137


def test_hooks_and_signals(node, run):
    run(
        "trap 'echo asked; exit 0' USR1; echo ready; while true; do sleep 0.05; done",
        container={
            "lifecycle": {
                "stopSignal": "SIGUSR1",
                "postStart": {"exec": {"command": ["sh", "-c", "echo started > /proc/1/fd/1"]}},
                "preStop": {"exec": {"command": ["sh", "-c", "echo stopping > /proc/1/fd/1"]}},
            }
        },
    )
    pod = node.wait(lambda pod: pod["status"].get("containerStatuses") and status_of(pod)["ready"])
    node.wait(lambda _: {"ready", "started"} <= set(node.log(pod).split()))
    own = node.config.pods_dir / pod["metadata"]["uid"] / "containers/main"
    kept = own.parent.parent.parent.parent / "kept.log"
    os.link(own / "log", kept)
    node.client.delete(POD, "default", "pod1", grace_period=20)
    node.wait(lambda pod: pod is None)
    words = [line.split(" ", 3)[3] for line in kept.read_text().splitlines()]
    assert words[-2:] == ["stopping", "asked"]
    final = [body for _, _, body in node.client.patches if "status" in body][-1]
    assert final["status"]["phase"] == "Succeeded"


def test_a_pod_serves_and_nothing_of_it_is_left(node, run):
    run(
        "echo welcome > /tmp/index.html; exec httpd -f -p 80 -h /tmp",
        container={"readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1}},
    )
    pod = node.wait(lambda pod: pod["status"].get("containerStatuses") and status_of(pod)["ready"])
    with urllib.request.urlopen(f"http://{pod['status']['podIP']}/", timeout=60) as answer:
        assert answer.read() == b"welcome\n"
    node.client.delete(POD, "default", "pod1", grace_period=0)
    node.wait(lambda _: names(node.config.pods_dir) == [])
    assert names(node.config.run_dir / "bundles") == []
    assert names(node.config.run_dir / "crun") == []
    assert [point for point in mount_points() if point.startswith(str(node.config.root_dir.parent))] == []
    groups = subprocess.run(
        ["find", "/sys/fs/cgroup", "-path", f"*{node.config.cgroup_parent}/*", "-type", "d"],
        capture_output=True,
        text=True,
    )
    assert groups.stdout == ""


def key_of(pod):
    """Return what the forking process calls the first start of a Pod's container."""
    return f"{pod['metadata']['uid']}/main/0"


def test_standard_input_ends_with_the_first_who_is_attached(node, run):
    run("cat; echo end", container={"stdin": True, "stdinOnce": True})
    pod = node.phase("Running")
    for words in (b"", b"told\n"):
        streams = node.zygote.attach(key_of(pod), stdin=bool(words), once=True)
        assert list(streams) == (["stdin"] if words else [])
        for fd in streams.values():
            os.write(fd, words)
            os.close(fd)
    assert node.log(node.phase("Succeeded")) == "told\nend\n"


def test_terminal(node, run):
    run("", container={"command": ["/bin/sh"], "stdin": True, "tty": True})
    pod = node.phase("Running")
    for _ in range(100):
        # Those who are gone again don't count.
        for fd in node.zygote.attach(key_of(pod), stdin=True, once=False).values():
            os.close(fd)
    streams = node.zygote.attach(key_of(pod), stdin=True, once=False)
    assert sorted(streams) == ["stdout", "terminal"]
    os.write(streams["terminal"], b"echo $TERM $((40 + 2)); exit 5\n")
    pod = node.phase("Failed")
    assert state_of(pod)["terminated"]["exitCode"] == 5
    shown = os.read(streams["stdout"], 4096)
    assert b"xterm 42\r\n" in shown
    assert "xterm 42" in node.log(pod)
    for fd in streams.values():
        os.close(fd)


def test_an_ordinary_user_may_open_its_output_again(node, run):
    run("echo again > /dev/stdout; echo error > /proc/self/fd/2", container={"securityContext": {"runAsUser": 1000}})
    assert sorted(node.log(node.phase("Succeeded")).split()) == ["again", "error"]


def test_a_sidecar_starts_first_and_ends_last(node, run):
    run(
        "while ! [ -e /data/serving ]; do :; done; echo served",
        container={"volumeMounts": [{"name": "e", "mountPath": "/data"}]},
        volumes=[{"name": "e", "emptyDir": {}}],
        terminationGracePeriodSeconds=20,
        initContainers=[
            {
                "name": "side",
                "image": f"oci:{node.config.allowed_image_dirs[0] / 'busybox'}",
                "restartPolicy": "Always",
                "command": ["/bin/sh", "-c", "trap 'exit 9' TERM; echo x > /data/serving; while :; do sleep 0.1; done"],
                "startupProbe": {"exec": {"command": ["cat", "/data/serving"]}, "periodSeconds": 1},
                "volumeMounts": [{"name": "e", "mountPath": "/data"}],
            }
        ],
    )
    pod = node.phase("Succeeded")
    assert node.log(pod) == "served\n"
    ended = node.config.pods_dir / pod["metadata"]["uid"] / "containers/side/exit.json"
    node.wait(lambda _: ended.exists())
    assert json.loads(ended.read_text())["exitCode"] == 9


def test_what_is_referred_to_may_come_later(node, run):
    run("echo $WORD", container={"envFrom": [{"configMapRef": {"name": "c"}}]})
    pod = node.wait(lambda pod: "CreateContainerConfigError" in str(pod["status"]))
    assert state_of(pod)["waiting"]["message"] == "ConfigMap 'c' not found"
    node.client.add(CONFIGMAP, {"metadata": {"name": "c", "namespace": "default"}, "data": {"WORD": "text"}})
    assert node.log(node.phase("Succeeded")) == "text\n"


def test_one_container_does_not_wait_for_anothers_image(node, image):
    node.pod(
        container={"image": image, "command": ["/bin/sh", "-c", "echo said; sleep 1000"]},
        securityContext={},
    )
    pod = node.client.get(POD, "default", "pod1")
    other = {"name": "other", "image": f"{image}-none", "command": ["/bin/true"]}
    node.client.delete(POD, "default", "pod1", grace_period=0)
    node.client.add(
        POD,
        {
            **{key: value for key, value in pod.items() if key != "metadata"},
            "metadata": {"name": "two", "namespace": "default"},
            "spec": pod["spec"] | {"containers": [other, *pod["spec"]["containers"]]},
            "status": {},
        },
    )
    pod = node.phase("Running", name="two")
    pod = node.wait(lambda pod: "ImagePullBackOff" in str(pod["status"]), name="two")
    states = {entry["name"]: list(entry["state"]) for entry in pod["status"]["containerStatuses"]}
    assert states == {"other": ["waiting"], "main": ["running"]}


def test_set_id_bits_and_device_files_of_an_image_do_nothing(node):
    reference = layout(
        node.config.allowed_image_dirs[0] / "hostile",
        member("bin/su", Path("/bin/busybox").read_bytes(), mode=0o6755),
        member("disk", kind=tarfile.BLKTYPE),
    )
    script = "stat -c %a /bin/su; /bin/su id -u; stat /disk; grep NoNewPrivs /proc/self/status"
    node.pod(
        container={"image": reference, "command": ["/bin/sh", "-c", script], "securityContext": {"runAsUser": 1000}},
        securityContext={},
    )
    said = node.log(node.phase("Succeeded"))
    assert "755\n" in said
    assert "6755" not in said
    assert "\n0\n" not in said
    assert "can't stat '/disk'" in said
    assert "NoNewPrivs:\t1" in said


def test_a_small_container_starts(node, run):
    """What starts it isn't counted."""
    run("echo said", container={"resources": {"limits": {"memory": "6Mi"}}})
    assert node.log(node.phase("Succeeded")) == "said\n"


def test_a_forking_process_that_is_killed_ends_no_container(node, run):
    run("while ! [ -e /tmp/end ]; do sleep 0.05; done; exit 6", restartPolicy="OnFailure")
    pod = node.phase("Running")
    os.kill(node.zygote.status()["pid"], 9)
    node.zygote.ensure()
    assert execute(node, pod, "sh", "-c", "echo $$ > /tmp/end") == (0, "")
    pod = node.wait(lambda pod: status_of(pod)["restartCount"] == 1)
    last = status_of(pod)["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (137, "ContainerStatusUnknown")


def test_kernel_parameters_of_the_pod(node, run):
    parameter = "net.ipv4.ip_unprivileged_port_start"
    run(
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
        securityContext={"sysctls": [{"name": parameter, "value": "80"}]},
    )
    assert node.log(node.phase("Succeeded")) == "80\n"
