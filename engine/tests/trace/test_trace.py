# SPDX-License-Identifier: GPL-3.0-or-later
"""The command, against Pods of a cluster. The end-to-end tests run it on a machine with an engine."""

import json
from pathlib import Path

import pytest
from aiohttp import web
from fakeapi import FakeApi

from turtles.trace.main import main

PODS = "/api/v1/namespaces/{}/pods/{}"


class Logs(FakeApi):
    """Serves logs of containers."""

    def __init__(self) -> None:
        super().__init__()
        self.logs: dict[str, str] = {}

    def intercept(self, method: str, path: str) -> web.Response | None:
        if not path.endswith("/log"):
            return None
        text = self.logs.get(path)
        return web.Response(text=text) if text is not None else web.json_response({"kind": "Status"}, status=400)

    def pod(self, namespace: str, name: str, app: str, domain: str, container: str, lines: list[str] | None) -> None:
        metadata = {"name": name, "labels": {"kubevirt.io": app}, "annotations": {"kubevirt.io/domain": domain}}
        self.put(PODS.format(namespace, name), {"metadata": metadata, "spec": {"containers": [{"name": container}]}})
        if lines is not None:
            self.logs[f"{PODS.format(namespace, name)}/log"] = "".join(f"{line}\n" for line in lines)


def entry(seconds: int, component: str, msg: str, **facts: str) -> str:
    stamp = f"2026-03-01T12:00:{seconds:02}.000+00:00"
    return json.dumps({"timestamp": stamp, "component": component, "msg": msg, **facts})


@pytest.fixture
def api() -> FakeApi:
    server = Logs()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def engine(api: Logs) -> Logs:
    own = {"namespace": "shop", "vmi": "web"}
    controller = [entry(1, "virt-controller", "Pod created", **own, pod="virt-launcher-web-1")]
    api.pod("kubevirt", "virt-controller-1", "virt-controller", "", "virt-controller", controller)
    api.pod("kubevirt", "virt-handler-1", "virt-handler", "", "virt-handler", [entry(4, "virt-handler", "up", **own)])
    # Has no log yet
    api.pod("kubevirt", "virt-handler-2", "virt-handler", "", "virt-handler", None)
    api.pod("shop", "virt-launcher-web-1", "virt-launcher", "web", "compute", [entry(2, "virt-launcher", "on", **own)])
    api.pod("shop", "virt-launcher-db-1", "virt-launcher", "db", "compute", [entry(2, "virt-launcher", "no", **own)])
    return api


def test_steps_of_a_machine_in_a_cluster(engine: Logs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--kubeconfig", str(engine.kubeconfig(tmp_path)), "-n", "shop", "web"]
    assert main([*options, "--json"]) == 0
    steps = json.loads(capsys.readouterr().out)
    assert [(step["seconds"], step["component"], step["message"]) for step in steps] == [
        (0.0, "virt-controller", "Pod created"),
        (1.0, "virt-launcher", "on"),
        (3.0, "virt-handler", "up"),
    ]
    picture = tmp_path / "web.svg"
    assert main([*options, "--picture", str(picture)]) == 0
    assert "virt-handler       up" in capsys.readouterr().out
    assert picture.read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["gone"], 1, "no start is logged for shop/gone: check the name and --namespace"),
        (["web", "--engine-namespace", "other"], 2, "namespace other has no Pods of the engine"),
        (["web", "--instance", "none-of-it"], 2, "there are no logs in /var/log/none-of-it"),
    ],
)
def test_what_is_not_found(
    engine: Logs, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, words: str
) -> None:
    assert main(["--kubeconfig", str(engine.kubeconfig(tmp_path)), "-n", "shop", *options]) == code
    assert words in capsys.readouterr().err


def test_an_instance_that_is_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--instance", "none-of-it", "web"]) == 2
    assert "/etc/none-of-it/admin.kubeconfig does not exist" in capsys.readouterr().err
