# SPDX-License-Identifier: GPL-3.0-or-later
"""What an OCI runtime is told about a container, and who it runs as: no process is started."""

import base64
import json

import pytest

from turtles.image_manifest import ManifestError
from turtles.standalone.podrunner import image_config, oci, ordinary, users
from turtles.standalone.podrunner.container import ContainerError
from turtles.standalone.podrunner.image_config import ImageConfig
from turtles.standalone.podrunner.spec import Mount
from turtles.standalone.podrunner.users import User


def config(process=None, **fields):
    """Return the config.json of a container."""
    process = process or oci.Process(["/bin/true"], {"A": "b=c"}, capabilities=["CHOWN"])
    return oci.config_of(oci.Container(process, "pod1", fields.pop("netns", "/run/netns/x"), **fields))


def mount(found, target):
    """Return the mount at a target."""
    (entry,) = [entry for entry in found["mounts"] if entry["destination"] == target]
    return entry


def test_a_container_that_asks_for_nothing():
    found = config()
    assert found["root"] == {"path": "rootfs", "readonly": False}
    assert found["process"]["noNewPrivileges"]
    assert found["process"]["env"] == ["A=b=c"]
    assert found["linux"]["namespaces"] == [
        {"type": "pid"},
        {"type": "ipc"},
        {"type": "uts"},
        {"type": "mount"},
        {"type": "cgroup"},
        {"type": "network", "path": "/run/netns/x"},
    ]
    assert {"/proc/kcore", "/proc/keys", "/sys/firmware"} <= set(found["linux"]["maskedPaths"])
    assert "/proc/sys" in found["linux"]["readonlyPaths"]
    assert "ro" in mount(found, "/dev")["options"]
    assert all(
        "nodev" in entry["options"] for entry in found["mounts"] if entry["destination"] not in ("/dev", "/dev/pts")
    )
    assert found["annotations"] == {}
    assert found["linux"]["devices"] == []


def test_the_machines_network_is_no_namespace():
    assert "network" not in [entry["type"] for entry in config(netns=None)["linux"]["namespaces"]]


@pytest.mark.parametrize(("uid", "effective"), [(0, ["CAP_CHOWN"]), (1000, [])])
def test_capabilities_of_an_ordinary_user_are_not_effective(uid, effective):
    found = config(oci.Process(["x"], {}, uid=uid, capabilities=["CHOWN"]))["process"]["capabilities"]
    assert found["bounding"] == ["CAP_CHOWN"]
    assert (found["effective"], found["permitted"], found["ambient"], found["inheritable"]) == (
        effective,
        effective,
        [],
        [],
    )


def test_mounts_come_after_what_they_are_in():
    found = config(
        mounts=[
            Mount("/v/inner", "/data/inner"),
            Mount("/v/outer", "/data", read_only=True, recursive=True),
            Mount("/v/shm", "/dev/shm"),
            Mount("/v/image", "/image", no_exec=True),
        ]
    )
    targets = [entry["destination"] for entry in found["mounts"]]
    assert targets.index("/data") < targets.index("/data/inner")
    assert targets.index("/dev") < targets.index("/dev/shm")
    assert mount(found, "/dev/shm")["type"] == "bind"
    assert {"rbind", "ro", "rro", "rnodev", "rnosuid"} <= set(mount(found, "/data")["options"])
    assert {"bind", "rw", "nosuid", "nodev"} <= set(mount(found, "/data/inner")["options"])
    assert "noexec" in mount(found, "/image")["options"]


def test_what_runs_later_is_like_the_first_process():
    process = oci.Process(["x"], {"A": "=b"}, "/w", 1, 2, [3], ["CHOWN"], nofile=7)
    found = config(process, seccomp=b"filter")
    assert oci.process_of(found) == oci.Process(["x"], {"A": "=b"}, "/w", 1, 2, [3], ["CHOWN"])
    assert oci.is_filtered(found)
    assert base64.b64decode(found["annotations"]["run.oci.seccomp_bpf_data"]) == b"filter"
    assert not oci.is_filtered(config())


def test_devices_belong_to_the_user():
    (device,) = config(oci.Process(["x"], {}, uid=5, gid=6), devices={"/dev/kvm": (10 << 8 | 232, False)})["linux"][
        "devices"
    ]
    assert device == {
        "path": "/dev/kvm",
        "type": "c",
        "major": 10,
        "minor": 232,
        "fileMode": 0o660,
        "uid": 5,
        "gid": 6,
    }


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ({}, ["entry", "cmd"]),
        ({"args": ["own"]}, ["entry", "own"]),
        ({"command": ["other"]}, ["other"]),
        ({"command": ["other"], "args": ["own"]}, ["other", "own"]),
    ],
)
def test_commands(container, expected):
    image = ImageConfig(entrypoint=("entry",), cmd=("cmd",))
    assert ordinary.command_of({"name": "c"} | container, image) == expected


def test_no_command_at_all():
    with pytest.raises(ContainerError, match="container c: no command specified"):
        ordinary.command_of({"name": "c"}, ImageConfig())


@pytest.fixture
def content(tmp_path):
    """Files of an image."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:\napp:x:7:8::/srv:/bin/sh\nbad:x:no:8::/:\n")
    (tmp_path / "etc/group").write_text("app:x:8:\nmore:x:9:app,other\n")
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("", User(0, 0, (), "/root")),
        ("app", User(7, 8, (9,), "/srv")),
        ("7", User(7, 8, (9,), "/srv")),
        ("7:9", User(7, 9, (), "/srv")),
        ("app:more", User(7, 9, (), "/srv")),
        ("1234", User(1234, 0)),
        ("1234:5", User(1234, 5)),
    ],
)
def test_users_of_an_image(content, wanted, expected):
    assert users.lookup(content, wanted) == expected


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("nobody", "no user 'nobody' in the image's /etc/passwd"),
        ("app:none", "no group 'none' in the image's /etc/group"),
        ("bad", "has 'no' as a number"),
        ("99999999999", "no user '99999999999'"),
    ],
)
def test_users_that_are_not_there(content, wanted, message):
    with pytest.raises(users.UserError, match=message):
        users.lookup(content, wanted)


def test_an_images_passwd_is_read_within_the_image(content, tmp_path):
    (content / "etc/passwd").unlink()
    (content / "etc/passwd").symlink_to("/etc/passwd")
    with pytest.raises(users.UserError):
        users.lookup(content, "daemon")
    (content / "etc/passwd").unlink()
    (content / "etc/passwd").symlink_to("/etc/group")
    assert users.lookup(content, "0") == User(0, 0)


def pod(**context):
    """Return a Pod with a security context."""
    metadata = {"name": "p", "namespace": "n", "uid": "u"}
    return {"metadata": metadata, "spec": {"securityContext": context, "containers": []}}


def test_identity_of_pod_and_container(content):
    spec = pod(runAsUser=7, fsGroup=20, supplementalGroups=[30])
    assert ordinary.user_of(spec, {"name": "c"}, ImageConfig(user="root"), content) == User(7, 8, (9, 20, 30), "/srv")
    own = {"name": "c", "securityContext": {"runAsUser": 1, "runAsGroup": 2}}
    assert ordinary.user_of(spec, own, ImageConfig(), content) == User(1, 2, (20, 30))
    strict = pod(runAsUser=7, supplementalGroupsPolicy="Strict")
    assert ordinary.user_of(strict, {"name": "c"}, ImageConfig(), content).groups == ()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"nonsense", "is not JSON"),
        (b'{"config": 3}', "its config is not an object"),
        (b'{"config": {"User": 3}}', "its User is not text"),
        (b'{"config": {"Env": [3]}}', "its Env is not a list of texts"),
        (b'{"config": {"Cmd": "text"}}', "its Cmd is not a list of texts"),
        (b'{"config": {"Cmd": ["a\\u0000b"]}}', "its Cmd is not a list of texts"),
    ],
)
def test_configurations_that_are_none(raw, message):
    with pytest.raises(ManifestError, match=message):
        image_config.parse(raw)


def test_a_configuration_is_kept():
    raw = json.dumps({"config": {"User": "u", "Env": ["A=b"], "Cmd": ["c"], "StopSignal": "SIGQUIT"}}).encode()
    found = image_config.parse(raw)
    assert found == ImageConfig("u", ("A=b",), (), ("c",), "", "SIGQUIT")
    assert image_config.restored(json.loads(json.dumps(found.data()))) == found
    assert image_config.parse(b"{}") == ImageConfig()


@pytest.mark.parametrize(
    ("spec", "container", "message"),
    [
        ({"hostUsers": False}, {}, "hostUsers: false"),
        ({"runtimeClassName": "gvisor"}, {}, "runtimeClassName"),
        ({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}, {}, "appArmorProfile"),
        ({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}, {}, "sysctls kernel.msgmax"),
        (
            {"hostNetwork": True, "securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1"}]}},
            {},
            "sysctls net.ipv4.tcp_rmem",
        ),
        ({}, {"livenessProbe": {"grpc": {"port": 1}}}, "livenessProbe.grpc"),
        ({}, {"readinessProbe": {"httpGet": {"port": 1, "host": "x"}}}, "a host other than the Pod"),
        ({}, {"volumeMounts": [{"name": "v", "mountPath": "/proc/x"}]}, "a place in /proc or /sys"),
        ({}, {"volumeMounts": [{"name": "v", "mountPath": "/x", "mountPropagation": "Bidirectional"}]}, "Propagation"),
    ],
)
def test_what_is_not_possible_is_named(spec, container, message):
    with pytest.raises(ContainerError, match=f"^container c: .*{message}.*not supported in standalone mode$"):
        ordinary.check({"name": "c"} | container, spec)
