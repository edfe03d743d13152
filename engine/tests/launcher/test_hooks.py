# SPDX-License-Identifier: GPL-3.0-or-later
"""Hook sidecars: real ones that are asked by real processes, and some that are not what they should be."""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from turtles.launcher import cloudinit, hook_api, hooks
from turtles.launcher.errors import LaunchError

from .conftest import make_vmi, wait_for

DOMAIN = "<domain type='qemu'><name>default_testvm</name></domain>"
MESSAGES = hook_api.MESSAGES


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's own folder: its paths are too long for a Unix socket.
    path = Path(tempfile.mkdtemp(prefix="hooks-"))
    yield path
    shutil.rmtree(path)


def ask(folder: Path, sidecars: int, *, deadline: float = 20, patience: float = 10, **request: Any) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "turtles.launcher.hook_client", str(deadline), str(patience), folder],
        input=json.dumps({"sidecars": sidecars, "vmi": make_vmi(), **request}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def define(folder: Path, sidecars: int = 1, **options: Any) -> dict[str, Any]:
    return ask(folder, sidecars, call="OnDefineDomain", domain=DOMAIN, **options)


class Sidecar:
    """A sidecar in a thread of this process.

    :param answers: result of each hook point, from its parameters.
    """

    def __init__(
        self,
        path: Path,
        answers: dict[str, Callable[[Any], Any]],
        *,
        version: str = "v1alpha3",
        priority: int = 0,
        name: str = "test",
    ) -> None:
        self.called: list[str] = []
        info = hook_api.InfoResult(
            name=name,
            versions=[version],
            hookPoints=[hook_api.HookPoint(name=point, priority=priority) for point in answers],
        )
        served = {hook_api.INFO_METHOD: self._handler("Info", lambda _: info, hook_api.InfoParams, hook_api.InfoResult)}
        for point, answer in answers.items():
            served[hook_api.method(version, point)] = self._handler(point, answer, *MESSAGES[point])
        self._loop = asyncio.new_event_loop()
        mapping = type("Service", (), {"__mapping__": lambda _: served})()
        self._thread = threading.Thread(target=self._run, args=(mapping, path))
        self._thread.start()
        wait_for(path.exists, "the socket")

    def _handler(self, point: str, answer: Callable[[Any], Any], params: Any, result: Any) -> Handler:
        async def handle(stream: Any) -> None:
            self.called.append(point)
            await stream.send_message(answer(await stream.recv_message()))

        return Handler(handle, Cardinality.UNARY_UNARY, params, result)

    def _run(self, service: Any, path: Path) -> None:
        async def serve() -> None:
            server = Server([service])
            await server.start(path=str(path))
            self._ended = asyncio.Event()
            await self._ended.wait()
            server.close()
            await server.wait_closed()

        self._loop.run_until_complete(serve())
        self._loop.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()


@pytest.fixture
def sidecar(folder: Path) -> Iterator[Callable[..., Sidecar]]:
    made: list[Sidecar] = []

    def make(*args: Any, socket_name: str = "a.sock", **options: Any) -> Sidecar:
        path = folder / socket_name
        path.parent.mkdir(exist_ok=True)
        made.append(Sidecar(path, *args, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def adds(word: str) -> dict[str, Callable[[Any], Any]]:
    def change(params: Any) -> Any:
        assert json.loads(params.vmi)["metadata"]["name"] == "testvm"
        changed = params.domainXML.decode().replace("</domain>", f"<{word}/></domain>")
        return MESSAGES["OnDefineDomain"][1](domainXML=changed.encode())

    return {"OnDefineDomain": change}


@pytest.mark.parametrize("version", hook_api.VERSIONS)
def test_a_sidecar_changes_the_domain(folder, sidecar, version):
    sidecar(adds("sound"), version=version)
    assert define(folder) == {"domain": DOMAIN.replace("</domain>", "<sound/></domain>")}


def test_they_are_called_by_priority_each_with_what_the_one_before_made(folder, sidecar):
    sidecar(adds("b"), priority=1, socket_name="1.sock", name="x")
    sidecar(adds("c"), priority=1, socket_name="0.sock", name="y")
    sidecar(adds("a"), priority=7, socket_name="deeper/3.sock", name="z")
    (folder / "note").write_text("no socket")
    (folder / "link.sock").symlink_to("1.sock")
    assert define(folder, 3)["domain"].endswith("<a/><b/><c/></domain>")


def test_a_sidecar_that_has_nothing_to_do_with_domains(folder, sidecar):
    quiet = sidecar({})
    assert define(folder) == {"domain": DOMAIN}
    assert quiet.called == ["Info"]


def test_cloud_init_data_goes_through_sidecars(folder, sidecar):
    def change(params: Any) -> Any:
        data = json.loads(params.cloudInitData)
        assert json.loads(params.cloudInitNoCloudSource) == {"userData": "#!x", "networkData": ""}
        return MESSAGES["PreCloudInitIso"][1](cloudInitData=json.dumps({**data, "UserData": "#!y"}).encode())

    def older(params: Any) -> Any:
        source = {"userData": json.loads(params.cloudInitNoCloudSource)["userData"] + "z"}
        return MESSAGES["PreCloudInitIso"][1](cloudInitNoCloudSource=json.dumps(source).encode())

    sidecar({"PreCloudInitIso": change}, priority=2, socket_name="a.sock")
    sidecar({"PreCloudInitIso": older}, version="v1alpha2", socket_name="b.sock")
    called = hooks.Hooks(2, folder=folder)
    volume = {"name": "seed", "cloudInitNoCloud": {"userData": "#!x"}}
    files = cloudinit.seed_files(volume, make_vmi(), hook=lambda data: called.pre_cloud_init_iso(make_vmi(), data))
    assert files["user-data"] == b"#!yz"
    assert json.loads(files["meta-data"])["local-hostname"] == "testvm"


def test_data_that_is_no_text_can_not_go_through_sidecars():
    volume = {"name": "seed", "cloudInitNoCloud": {"userDataBase64": "//79"}}
    with pytest.raises(LaunchError, match="volume 'seed': its data isn't text, which hook sidecars require"):
        cloudinit.seed_files(volume, make_vmi(), hook=lambda data: data)


def test_farewell_reaches_those_that_want_it(folder, sidecar):
    one = sidecar({"Shutdown": lambda _: MESSAGES["Shutdown"][1]()})
    hooks.Hooks(1, folder=folder).shut_down()
    assert one.called == ["Info", "Shutdown"]


def test_a_sidecar_that_never_comes(folder, sidecar):
    sidecar({})
    assert define(folder, 3, patience=0.2)["error"].startswith("2 of 3 hook sidecars did not open a socket in")


def fails(_: Any) -> Any:
    raise GRPCError(Status.INTERNAL, "out of paper")


def hangs(_: Any) -> Any:
    threading.Event().wait(2)
    return MESSAGES["OnDefineDomain"][1]()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (fails, "OnDefineDomain failed: INTERNAL: out of paper"),
        (hangs, "OnDefineDomain failed: it did not answer in time"),
        (lambda _: MESSAGES["OnDefineDomain"][1](), "it returned no domain"),
        (lambda _: MESSAGES["OnDefineDomain"][1](domainXML=b"\xff"), "its domain is not UTF-8"),
    ],
)
def test_a_sidecar_that_fails(folder, sidecar, answer, words):
    sidecar({"OnDefineDomain": answer})
    error = define(folder, deadline=1)["error"]
    assert error.startswith("hook sidecar 'test' (a.sock): ")
    assert words in error


def test_a_sidecar_of_another_version(folder, sidecar):
    sidecar({"Shutdown": fails}, version="v9")
    assert "it has the versions v9 of the hook API, but only v1alpha3, v1alpha2" in define(folder)["error"]


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\0" * 4096, None])
def test_something_that_speaks_no_grpc(folder, data):
    """It closes the connection, sends what it likes, or says nothing at all."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "a.sock"))
    listener.listen()
    kept = []

    def serve() -> None:
        connection, _ = listener.accept()
        kept.append(connection)
        if data is not None:
            connection.sendall(data)
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    error = define(folder)["error"]
    thread.join()
    listener.close()
    for connection in kept:
        connection.close()
    assert error.startswith("hook sidecar 'a.sock' (a.sock): it does not report its hook points: ")


@pytest.fixture
def shim(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    program = folder / "bin" / "onDefineDomain"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        '[ "$1" = --vmi ] && [ "$3" = --domain ] || exit 3\n'
        'case "$2" in *fail*) exit 4;; esac\n'
        "echo \"$4\" | sed 's,</domain>,<shim/></domain>,'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    code = (
        "import sys; from pathlib import Path; from turtles.launcher.hook_shim import main;"
        "sys.exit(main(['--version', 'v1alpha3'], Path(sys.argv[1])))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, folder], stderr=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_the_program_of_sidecars_without_an_image(folder, shim):
    assert define(folder)["domain"].strip().endswith("<shim/></domain>")
    error = define(folder, vmi=make_vmi(hostname="fail"))["error"]
    assert "INTERNAL: onDefineDomain failed with exit code 4" in error
    hooks.Hooks(1, folder=folder).shut_down()
    assert shim.wait(60) == 0
    assert not list(folder.glob("*.sock"))
