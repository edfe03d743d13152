# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container is told, without one."""

import dataclasses
from pathlib import Path

import pytest

from turtles.standalone.podrunner import container, host_programs, zygote_client
from turtles.standalone.podrunner.config import ConfigError, parse
from turtles.standalone.podrunner.container import ContainerError

CONFIG = {
    "nodeName": "n",
    "kubeconfig": "/etc/t/kubeconfig",
    "rootDir": "/var/lib/t/kubelet",
    "runDir": "/run/t",
    "imagesDir": "/var/lib/t/images",
    "cniConfDir": "/etc/t/cni",
    "cniBinDir": "/usr/lib/cni",
}


def profile(kind):
    """A security context with a seccomp profile."""
    return {} if kind is None else {"securityContext": {"seccompProfile": {"type": kind}}}


@pytest.mark.parametrize(
    ("own", "of_pod", "effective"),
    [
        (None, None, "RuntimeDefault"),
        (None, "RuntimeDefault", "RuntimeDefault"),
        (None, "Unconfined", "Unconfined"),
        ("RuntimeDefault", "Unconfined", "RuntimeDefault"),
        ("Unconfined", "RuntimeDefault", "Unconfined"),
        ("RuntimeDefault", "Localhost", "RuntimeDefault"),
    ],
)
def test_the_containers_seccomp_profile_goes_before_the_pods(own, of_pod, effective):
    assert container.seccomp_profile({"name": "c"} | profile(own), profile(of_pod)) == effective


@pytest.mark.parametrize(("own", "of_pod"), [("Localhost", None), (None, "Localhost"), ("Localhost", "Unconfined")])
def test_profiles_of_the_node_are_refused(own, of_pod):
    with pytest.raises(ContainerError, match=r"container c: .*Localhost is not supported.*RuntimeDefault or Unconf"):
        container.seccomp_profile({"name": "c"} | profile(own), profile(of_pod))


@pytest.mark.parametrize(("given", "limit"), [(None, 4096), (100, 100), ("100", 100), (-1, None)])
def test_the_limit_of_processes(given, limit):
    config = parse(CONFIG if given is None else CONFIG | {"podPidsLimit": given})
    assert container.limits({"containers": []}, config).pids_limit == limit


@pytest.mark.parametrize("given", [0, -2, "many", None, True, 1.5j])
def test_an_odd_limit_of_processes_is_named(given):
    with pytest.raises(ConfigError, match="podPidsLimit"):
        parse(CONFIG | {"podPidsLimit": given})


@pytest.mark.parametrize("key", ["visiblePaths", "maskedPaths"])
def test_relative_paths_are_refused(key):
    with pytest.raises(ConfigError, match="srv/x"):
        parse(CONFIG | {key: ["srv/x"]})


def test_what_is_secret_is_hidden_below_what_is_shown():
    config = parse(CONFIG)
    shown, masks = container.host_view(config)
    assert masks == []
    assert not set(shown) & {"/", "/etc", "/var", "/opt", "/srv", "/root", "/home", "/tmp", "/run"}
    odd = dataclasses.replace(config, root_dir=Path("/usr/local/t/kubelet"), visible_paths=(Path("/etc/t"),))
    assert container.host_view(odd)[1] == ["/etc/t", "/usr/local/t/kubelet"]


def test_python_is_shown_wherever_it_is(tmp_path, monkeypatch):
    for name in ("real", "prefix/lib"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setattr(
        "sys.path",
        [
            "",
            "/",
            "/tmp",
            "/usr/lib/python3",
            "relative",
            str(tmp_path / "link"),
            str(tmp_path / "prefix/lib"),
            str(tmp_path / "prefix"),
        ],
    )
    monkeypatch.setattr("sys.prefix", "/usr")
    monkeypatch.setattr("sys.base_prefix", "/usr")
    assert set(host_programs.visible_paths()) - set(host_programs.HOST_PATHS) == {
        str(tmp_path / name) for name in ("link", "real", "prefix")
    }


def test_the_forking_process_knows_little_of_its_parent(monkeypatch):
    monkeypatch.setenv("PASSWORD", "x")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    known = zygote_client._environment()
    assert "PASSWORD" not in known
    assert known["PYTHONPATH"] == "/somewhere"


def resources(name, restart=None, **limits):
    """Return a container with limits."""
    return {"name": name, "resources": {"limits": limits}, **({"restartPolicy": restart} if restart else {})}


def test_a_pods_limits_are_those_of_what_runs_at_the_same_time():
    main = [resources("a", cpu="1", memory="10Mi"), resources("b", cpu="500m", memory="20Mi")]
    found = container.limits({"containers": main}, parse(CONFIG))
    assert (found.cpu_limit, found.memory_limit, found.cpu_request) == (1500, 30 << 20, 1500)
    init = [resources("i", cpu="2", memory="5Mi"), resources("s", "Always", cpu="1", memory="1Mi")]
    found = container.limits({"containers": main, "initContainers": init}, parse(CONFIG))
    assert (found.cpu_limit, found.memory_limit) == (2500, 31 << 20)
    found = container.limits({"containers": main, "initContainers": [resources("i", cpu="9")]}, parse(CONFIG))
    assert (found.cpu_limit, found.memory_limit) == (9000, None)
