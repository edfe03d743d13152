# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which client a task gets."""

from __future__ import annotations

import os
import types

import pytest
from ansible_collections.turtles.kubevirt.plugins.module_utils import _client as client
from ansible_collections.turtles.kubevirt.plugins.module_utils import _resources


@pytest.fixture(autouse=True)
def clients(monkeypatch):
    monkeypatch.setattr(client, "_CLIENTS", {})
    monkeypatch.setattr(client, "Client", lambda auth: types.SimpleNamespace(auth=auth))


@pytest.mark.parametrize("names", [["one"], ["one", "missing", "other"]])
def test_the_same_one_until_a_kubeconfig_changes(tmp_path, monkeypatch, names):
    """However little about the file does: as programs write it that copy with times."""
    paths = [tmp_path / name for name in names]
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, paths)))

    def write(content):
        for path in paths:
            if path.name != "missing":
                path.write_text(content)
                os.utime(path, (0, 0))
        return paths[-1].stat().st_ctime

    written = write("a")
    monkeypatch.setattr(client.time, "time", lambda: written)
    assert client.get_client({}) is not client.get_client({}), "written just now, and maybe again"
    monkeypatch.setattr(client.time, "time", lambda: written + 10)
    first = client.get_client({})
    assert client.get_client({}) is first
    written = write("b")
    assert client.get_client({}) is not first


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/api/v1/namespaces/shop", "Namespace shop"),
        ("/api/v1/namespaces/shop/services/web", "Service shop/web"),
        ("/apis/kubevirt.io/v1/virtualmachines", "VirtualMachine"),
        ("/apis/kubevirt.io/v1/namespaces/shop/virtualmachines", "VirtualMachine in namespace shop"),
        ("/apis/subresources.kubevirt.io/v1/namespaces/a/virtualmachines/b/start", "VirtualMachine a/b, start"),
        ("/apis/example.com/v1/widgets/a%3Ab", "widgets a:b"),
        ("/version", "/version"),
    ],
)
def test_what_a_request_is_about(path, name):
    assert _resources.name_in(path) == name
