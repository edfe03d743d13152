# SPDX-License-Identifier: GPL-3.0-or-later
import base64
import ssl
import tempfile
import threading
import time
from pathlib import Path

import pytest
import yaml
from fakeapi import FakeApi, status
from urllib3.util import parse_url

from turtles.kube import client as kube
from turtles.kube import kubeconfig
from turtles.kube.client import Client
from turtles.kube.resources import CONFIGMAP, NODE, POD, Resource

MAPS = "/api/v1/namespaces/ns/configmaps"


def config_map(name: str, **data: str) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "ns"}, "data": data}


@pytest.mark.parametrize(
    ("resource", "arguments", "path"),
    [
        (POD, (), "/api/v1/pods"),
        (POD, ("ns",), "/api/v1/namespaces/ns/pods"),
        (POD, ("ns", "a", "status"), "/api/v1/namespaces/ns/pods/a/status"),
        (NODE, (None, "n"), "/api/v1/nodes/n"),
        (NODE, ("ignored", "n"), "/api/v1/nodes/n"),
        (Resource("a.io", "v2", "B", "bs", True), ("ns", "x/y"), "/apis/a.io/v2/namespaces/ns/bs/x%2Fy"),
    ],
)
def test_paths(resource: Resource, arguments: tuple, path: str) -> None:
    assert resource.path(*arguments) == path


def test_paths_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="namespace"):
        POD.path(None, "a")
    with pytest.raises(ValueError, match="name"):
        POD.path("ns", None, "status")


@pytest.mark.parametrize(("name", "segment"), [("..", "%2E%2E"), (".", "%2E"), ("../a", "..%2Fa"), ("a.b", "a.b")])
def test_a_name_leads_nowhere_else(name: str, segment: str) -> None:
    path = POD.path("ns", name)
    assert path == f"/api/v1/namespaces/ns/pods/{segment}"
    assert parse_url(f"http://server{path}").path == path, "what sends it doesn't resolve it either"


def test_objects(client: Client) -> None:
    made = client.create(CONFIGMAP, config_map("a", x="1"))
    assert client.get(CONFIGMAP, "ns", "a") == made
    patched = client.patch(CONFIGMAP, "ns", "a", {"data": {"x": None, "y": "2"}})
    assert patched["data"] == {"y": "2"}
    patched = client.patch(
        CONFIGMAP,
        "ns",
        "a",
        [{"op": "test", "path": "/data/y", "value": "2"}, {"op": "replace", "path": "/data/y", "value": "3"}],
        kind=kube.JSON,
    )
    patched["data"]["y"] = "4"
    assert client.replace(CONFIGMAP, patched)["data"] == {"y": "4"}
    listed = client.list(CONFIGMAP, "ns")
    assert [item["metadata"]["name"] for item in listed["items"]] == ["a"]
    client.delete(CONFIGMAP, "ns", "a", uid=made["metadata"]["uid"])
    assert client.list(CONFIGMAP)["items"] == []


def test_errors(api: FakeApi, client: Client) -> None:
    made = client.create(CONFIGMAP, config_map("a"))
    with pytest.raises(kube.AlreadyExists):
        client.create(CONFIGMAP, config_map("a"))
    with pytest.raises(kube.NotFound, match="not found"):
        client.get(CONFIGMAP, "ns", "b")
    with pytest.raises(kube.Conflict):
        client.patch(CONFIGMAP, "ns", "a", {"metadata": {"resourceVersion": "1"}})
    with pytest.raises(kube.Conflict):
        client.delete(CONFIGMAP, "ns", "a", uid="other")
    with pytest.raises(kube.Invalid):
        client.patch(CONFIGMAP, "ns", "a", [{"op": "test", "path": "/kind", "value": "x"}], kind=kube.JSON)
    api.intercept = lambda method, path: status(403, "Forbidden", "exceeded quota: q")
    with pytest.raises(kube.Forbidden, match="exceeded quota") as caught:
        client.get(CONFIGMAP, "ns", made["metadata"]["name"])
    assert (caught.value.status, caught.value.reason) == (403, "Forbidden")


@pytest.mark.parametrize("code", [429, 503])
def test_overload_is_waited_for(api: FakeApi, client: Client, code: int) -> None:
    api.put(f"{MAPS}/a", config_map("a"))
    refusals = [status(code, "TooManyRequests", "later") for _ in range(2)]
    api.intercept = lambda method, path: refusals.pop() if refusals else None
    assert client.get(CONFIGMAP, "ns", "a")["metadata"]["name"] == "a"
    assert len(api.requests) == 3


def test_a_write_is_not_repeated_when_its_outcome_is_unknown(api: FakeApi, client: Client) -> None:
    api.intercept = lambda method, path: status(503, "ServiceUnavailable", "something behind me failed")
    with pytest.raises(kube.Unavailable):
        client.create(CONFIGMAP, config_map("a"))
    assert len(api.requests) == 1


def test_a_restart_of_the_server_is_survived(api: FakeApi, client: Client) -> None:
    api.put(f"{MAPS}/a", config_map("a"))
    client.get(CONFIGMAP, "ns", "a")
    api.stop()
    timer = threading.Timer(0.5, api.start)
    timer.start()
    # A write too: a refused connection cannot have reached anybody.
    client.patch(CONFIGMAP, "ns", "a", {"data": {"x": "1"}})
    timer.join()


def test_a_server_that_stays_away_is_reported(api: FakeApi, tmp_path: Path) -> None:
    client = Client.from_kubeconfig(api.kubeconfig(tmp_path), retry_for=0.2)
    api.stop()
    with pytest.raises(kube.Unavailable, match="refused"):
        client.get(CONFIGMAP, "ns", "a")
    api.start()


def test_a_wrong_token(api: FakeApi, tmp_path: Path) -> None:
    path = api.kubeconfig(tmp_path)
    path.write_text(path.read_text().replace(api.token, "guess"))
    with pytest.raises(kube.Unauthorized):
        Client.from_kubeconfig(path).get(NODE, None, "n")


def test_an_unusable_kubeconfig(tmp_path: Path) -> None:
    for text in (None, "", "contexts: ["):
        path = tmp_path / "config"
        if text is not None:
            path.write_text(text)
        with pytest.raises(kubeconfig.ConfigError, match="config"):
            Client.from_kubeconfig(path)


def test_no_file_is_needed_later(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = api.kubeconfig(tmp_path)
    content = yaml.safe_load(path.read_text())
    authority = ssl.DER_cert_to_PEM_cert(b"x").encode()
    content["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    content["clusters"][0]["cluster"]["certificate-authority-data"] = base64.b64encode(authority).decode()
    path.write_text(yaml.safe_dump(content))
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    client = Client.from_kubeconfig(path)
    assert client._api.configuration.ca_cert_data == authority.decode()
    assert not list(folder.iterdir())


def test_a_get_is_cheap(api: FakeApi, client: Client) -> None:
    api.put(f"{MAPS}/a", config_map("a"))
    client.get(CONFIGMAP, "ns", "a")
    times = []
    for _ in range(50):
        started = time.thread_time()
        client.get(CONFIGMAP, "ns", "a")
        times.append(time.thread_time() - started)
    assert sorted(times)[25] < 0.005  # seconds of processor time of the caller
