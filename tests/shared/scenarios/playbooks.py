# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Users' playbooks: the same files everywhere, told by K8S_AUTH_KUBECONFIG or the kubeconfig's place where that is."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes.client.exceptions import ApiException

from engine import Engine
from playbooks import playbook, recap

ROOT = Path(__file__).parents[3]


@pytest.fixture
def shop(cluster: Engine) -> Iterator[None]:
    """The namespace of the examples is gone in the end, whatever happens."""
    yield
    remove(cluster, "shop", "web", "db")


@pytest.fixture
def flavors(cluster: Engine) -> Iterator[None]:
    """So is that of the flavors."""
    yield
    remove(cluster, "flavors", "small-machine", "large-machine")


@pytest.fixture
def sizes(cluster: Engine) -> Iterator[None]:
    """And that of the sizes."""
    yield
    remove(cluster, "sizes", "small-machine", "large-machine")


@pytest.fixture
def office(cluster: Engine) -> Iterator[None]:
    """So is that of the pool, whose machines go with it."""
    yield
    remove(cluster, "office", "desk-0", "desk-1")


def remove(cluster: Engine, namespace: str, *names: str) -> None:
    """Remove a namespace, if it is still there, and wait for the end of its machines."""
    try:
        cluster.core.delete_namespace(namespace)
    except ApiException as error:
        if error.status != 404:
            raise
    for name in names:
        cluster.wait_gone(namespace, name)


@pytest.mark.usefixtures("shop")
def test_the_life_of_machines_in_a_playbook(cluster: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K8S_AUTH_KUBECONFIG", str(cluster.kubeconfig))
    where = ("-e", f"image={cluster.image}", "-e", f"ssh_key={cluster.key}")
    output = playbook(str(ROOT / "docs/examples/shop.yml"), *where, folder=tmp_path).stdout
    assert (recap(output)["changed"], recap(output)["failed"]) == (8, 0), output


@pytest.mark.usefixtures("flavors")
def test_flavors_by_presets(cluster: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K8S_AUTH_KUBECONFIG", str(cluster.kubeconfig))
    image = ("-e", f"image={cluster.image}")
    output = playbook(str(ROOT / "docs/examples/flavors.yml"), *image, folder=tmp_path).stdout
    assert (recap(output)["changed"], recap(output)["failed"]) == (5, 0), output
    for shown in (
        "small-machine: 128Mi, 1 cores, time of Europe/Berlin",
        "large-machine: 160Mi, 2 cores, time of America/New_York",
    ):
        assert shown in output


@pytest.mark.usefixtures("sizes")
def test_sizes_by_instance_types(cluster: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K8S_AUTH_KUBECONFIG", str(cluster.kubeconfig))
    image = ("-e", f"image={cluster.image}")
    output = playbook(str(ROOT / "docs/examples/sizes.yml"), *image, folder=tmp_path).stdout
    assert (recap(output)["changed"], recap(output)["failed"]) == (8, 0), output
    for shown in ("small-machine: 128Mi, 1 cores", "large-machine: 128Mi, 2 cores"):
        assert shown in output


@pytest.mark.usefixtures("office")
def test_a_pool_of_desktops(cluster: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K8S_AUTH_KUBECONFIG", str(cluster.kubeconfig))
    image = ("-e", f"image={cluster.image}")
    for changed in (2, 0):
        output = playbook(str(ROOT / "docs/examples/pool.yml"), *image, folder=tmp_path).stdout
        assert (recap(output)["changed"], recap(output)["failed"]) == (changed, 0), output
        assert "2 of 2 desktops are ready" in output


@pytest.mark.usefixtures("shop")
def test_the_playbook_of_the_readme(cluster: Engine, tmp_path: Path) -> None:
    (text,) = re.findall(
        r"^```yaml\n(- name: A virtual machine from a playbook\n.*?)^```$",
        (ROOT / "README.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    (tmp_path / "web.yml").write_text(text)
    # what the quickstart hands over
    (tmp_path / ".quickstart").mkdir()
    shutil.copy(cluster.kubeconfig, tmp_path / ".quickstart/kubeconfig")
    for suffix in ("", ".pub"):
        shutil.copy(f"{cluster.key}{suffix}", tmp_path / f".quickstart/id_ed25519{suffix}")
    for changed in (2, 0):
        output = playbook("web.yml", "-e", f"image={cluster.image}", folder=tmp_path).stdout
        assert recap(output)["changed"] == changed
    address = cluster.wait_running("shop", "web")["status"]["interfaces"][0]["ipAddress"]
    assert f"web answers at {address}" in output
    assert cluster.ssh(address, "hostname") == "web"
