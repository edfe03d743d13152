# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the test cluster tells programs of Kubernetes, by their version."""

from __future__ import annotations

import pytest
from kubernetes_cluster import ClusterError, Settings, versions

#: Options that later versions have in their configuration, or not at all.
MOVED = ["--container-runtime-endpoint", "--image-service-endpoint", "--pod-infra-container-image"]
RUNTIME = {"socket": "unix:///run/containerd/containerd.sock"}


@pytest.mark.parametrize(
    ("version", "controllers", "kubelet", "fields"),
    [
        (
            (1, 20),
            ["--port"],
            ["--container-runtime", *MOVED],
            [],
        ),
        ((1, 24), [], MOVED, []),
        ((1, 27), [], [], ["containerRuntimeEndpoint"]),
        ((1, 35), [], [], ["containerRuntimeEndpoint", "failCgroupV1"]),
        ((1, 36), [], [], ["containerRuntimeEndpoint", "failCgroupV1"]),
    ],
)
def test_options_by_version(version, controllers, kubelet, fields):
    def names(options):
        return [option.partition("=")[0] for option in options]

    assert names(versions.controllers(version)) == controllers
    assert names(versions.kubelet(version, pause="pause", **RUNTIME)) == kubelet
    assert list(versions.kubelet_configuration(version, **RUNTIME)) == fields


@pytest.fixture
def program(tmp_path):
    """Make a program that prints a text."""

    def make(text):
        path = tmp_path / "kubelet"
        path.write_text(f"#!/bin/sh\necho '{text}'\n")
        path.chmod(0o755)
        return path

    return make


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Kubernetes v1.20.2", (1, 20)),
        ("Kubernetes v1.36.2", (1, 36)),
        ("Kubernetes v1.36.0-alpha.3.12+abcdef", (1, 36)),
        ("Kubernetes v1.9.11", (1, 9)),
    ],
)
def test_the_version_is_the_programs_own(program, text, version):
    assert versions.version_of(program(text)) == version


def test_a_program_of_something_else(program):
    with pytest.raises(ClusterError, match="names no version of Kubernetes: something else"):
        versions.version_of(program("something else"))


def test_a_program_that_is_missing(tmp_path):
    with pytest.raises(ClusterError, match="kubelet --version: "):
        versions.version_of(tmp_path / "kubelet")


def test_programs_of_ones_own_come_first(program, tmp_path, monkeypatch):
    monkeypatch.setenv("TURTLES_KUBERNETES_CACHE", str(tmp_path / "cache"))
    own = program("Kubernetes v1.36.2")
    settings = Settings(programs=tmp_path, state_dir=tmp_path / "state")
    assert settings.program("kubelet") == own
    assert settings.program("kube-proxy") == tmp_path / "cache/bin/kube-proxy"
    assert Settings().program("kubelet") == tmp_path / "cache/bin/kubelet"


def test_programs_are_an_absolute_folder(tmp_path):
    for wrong in (tmp_path / "missing", tmp_path.relative_to("/")):
        with pytest.raises(ClusterError, match="not an absolute path of a folder"):
            Settings(programs=wrong)
