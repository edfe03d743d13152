# SPDX-License-Identifier: GPL-3.0-or-later
"""The device plugins with a kubelet that is played, over real sockets."""

import asyncio
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.server import Server

from turtles.handler import device_plugin
from turtles.handler import device_plugin_api as api
from turtles.handler.device_plugin import KVM, TUN, DevicePlugins
from turtles.handler.watcher import Watcher


class Kubelet:
    """The kubelet's side: takes registrations, then watches the plugin's devices and asks for some."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registered: list[Any] = []
        self.health: dict[str, tuple[int, str]] = {}
        #: By resource, which registration the health is from: its endpoint, and its number, counted from 0.
        self.source: dict[str, tuple[str, int]] = {}
        self.changed = threading.Condition()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.server: Server | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def __mapping__(self) -> dict[str, Handler]:
        return {
            "/v1beta1.Registration/Register": Handler(
                self._register, Cardinality.UNARY_UNARY, api.RegisterRequest, api.Empty
            )
        }

    async def _register(self, stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(api.Empty())
        with self.changed:
            self.registered.append(request)
            number = len(self.registered) - 1
            self.changed.notify_all()
        task = asyncio.ensure_future(self._watch(request, number))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _watch(self, request: Any, number: int) -> None:
        resource, source = request.resource_name, (request.endpoint, number)
        channel = Channel(path=str(self.folder / request.endpoint))
        method = UnaryStreamMethod(channel, "/v1beta1.DevicePlugin/ListAndWatch", api.Empty, api.ListAndWatchResponse)
        try:
            async with method.open() as stream:
                await stream.send_message(api.Empty(), end=True)
                async for answer in stream:
                    with self.changed:
                        self.source[resource] = source
                        self.health[resource] = (len(answer.devices), answer.devices[0].health)
                        self.changed.notify_all()
        except (OSError, Exception):  # the plugin ended
            pass
        finally:
            channel.close()
            with self.changed:
                if self.source.get(resource) == source:
                    del self.source[resource], self.health[resource]
                    self.changed.notify_all()

    def _forget(self) -> None:
        for task in self.tasks:
            task.cancel()

    def forget(self) -> None:
        """Close all connections to plugins."""
        self.loop.call_soon_threadsafe(self._forget)

    def start(self) -> None:
        """Start as a kubelet does: with an empty folder."""

        async def serve() -> None:
            for path in self.folder.iterdir():
                path.unlink(missing_ok=True)
            self.server = Server([self])
            await self.server.start(path=str(self.folder / "kubelet.sock"))

        self.run(serve())

    def stop(self) -> None:
        async def end() -> None:
            self._forget()
            self.server.close()
            await self.server.wait_closed()

        self.run(end())
        (self.folder / "kubelet.sock").unlink(missing_ok=True)

    def watches(self, number: int) -> bool:
        """Say whether it has the health of /dev/net/tun by that registration, counted from 0, or a later one.

        A plugin may register once more: with a kubelet that comes back just before it removes the sockets.
        """
        source = self.source.get(TUN.resource)
        return source is not None and source[1] >= number

    def sockets(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.name != "kubelet.sock")

    def allocate(self, *containers: list[str]) -> Any:
        async def ask() -> Any:
            channel = Channel(path=str(self.folder / self.source[TUN.resource][0]))
            try:
                method = UnaryUnaryMethod(
                    channel, "/v1beta1.DevicePlugin/Allocate", api.AllocateRequest, api.AllocateResponse
                )
                return await method(
                    api.AllocateRequest(container_requests=[{"devices_ids": ids} for ids in containers]), timeout=60
                )
            finally:
                channel.close()

        return self.run(ask())

    def wait(self, condition: Callable[[], Any]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, 30), (self.registered, self.source, self.health)


@pytest.fixture
def kubelet() -> Iterator[Kubelet]:
    # A socket's address has 107 bytes, which pytest's own folders can exceed.
    with tempfile.TemporaryDirectory() as folder:
        kubelet = Kubelet(Path(folder))
        kubelet.start()
        yield kubelet
        kubelet.stop()
        kubelet.loop.call_soon_threadsafe(kubelet.loop.stop)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    (tmp_path / "dev/net").mkdir(parents=True)
    (tmp_path / "dev/net/tun").touch()
    return tmp_path


@pytest.fixture(scope="module")
def watcher() -> Watcher:
    """One for all agents: a user may have 128 of the kernel's (fs.inotify.max_user_instances)."""
    return Watcher()


@pytest.fixture
def agent(kubelet: Kubelet, node: Path, watcher: Watcher) -> Iterator[Callable[..., DevicePlugins]]:
    """Start agents for some devices; they end with the test at the latest."""
    agents: list[DevicePlugins] = []

    def start(*offers: device_plugin.Offer) -> DevicePlugins:
        agents.append(DevicePlugins(kubelet.folder, offers or (TUN,), watcher, root=node))
        agents[-1].start()
        return agents[-1]

    yield start
    for agent in agents:
        if agent._thread.is_alive():
            agent.stop()


Agent = Callable[..., DevicePlugins]


def test_what_is_there_is_registered_and_allocated(kubelet: Kubelet, agent: Agent) -> None:
    agent(TUN, KVM)
    kubelet.wait(lambda: kubelet.health.get("devices.kubevirt.io/tun") == (1000, "Healthy"))
    [request] = kubelet.registered
    assert (request.version, [request.endpoint]) == ("v1beta1", kubelet.sockets())
    assert request.endpoint.startswith("kubevirt-tun-")
    assert (kubelet.folder / request.endpoint).stat().st_mode & 0o777 == 0o600
    answer = kubelet.allocate(["tun1"], ["tun2", "tun3"])
    for container in answer.container_responses:
        [device] = container.devices
        assert (device.host_path, device.container_path, device.permissions) == ("/dev/net/tun", "/dev/net/tun", "rw")
    assert len(answer.container_responses) == 2


def test_a_restarted_kubelet_gets_them_again(kubelet: Kubelet, agent: Agent) -> None:
    agent()
    kubelet.wait(lambda: kubelet.watches(0))
    kubelet.stop()
    kubelet.start()
    kubelet.wait(lambda: kubelet.watches(1))
    assert kubelet.allocate(["tun1"]).container_responses


def test_a_kubelet_that_forgets_them_gets_them_again(kubelet: Kubelet, agent: Agent) -> None:
    """Its socket can look the same: the same one, or one that got the same inode within the same tick of the clock."""
    agent()
    for number in range(4):
        kubelet.wait(lambda number=number: kubelet.watches(number))
        kubelet.forget()


def test_a_kubelet_that_never_watches_is_told_again(
    kubelet: Kubelet,
    agent: Agent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device_plugin, "_WATCH_LIMIT", 0.05)
    watch, kubelet._watch = kubelet._watch, lambda *_: asyncio.sleep(0)  # type: ignore[method-assign]
    agent()
    kubelet.wait(lambda: len(kubelet.registered) > 2)
    kubelet._watch = watch  # type: ignore[method-assign]
    kubelet.wait(lambda: kubelet.health)


def test_a_plugin_before_its_kubelet(kubelet: Kubelet, agent: Agent) -> None:
    kubelet.stop()
    plugins = agent()
    kubelet.start()
    kubelet.wait(lambda: kubelet.registered)
    plugins.stop()
    assert kubelet.sockets() == []


def test_health_follows_the_device(kubelet: Kubelet, agent: Agent, node: Path) -> None:
    agent(TUN, KVM)
    kubelet.wait(lambda: kubelet.health.get("devices.kubevirt.io/tun") == (1000, "Healthy"))
    (node / "dev/net/tun").unlink()
    kubelet.wait(lambda: kubelet.health["devices.kubevirt.io/tun"] == (1000, "Unhealthy"))
    (node / "dev/net/tun").touch()
    kubelet.wait(lambda: kubelet.health["devices.kubevirt.io/tun"] == (1000, "Healthy"))
    assert len(kubelet.registered) == 1
    # One that wasn't there at first is offered when it appears.
    (node / "dev/kvm").touch()
    kubelet.wait(lambda: kubelet.health.get("devices.kubevirt.io/kvm") == (1000, "Healthy"))


@pytest.mark.parametrize("confuses", [False, True], ids=["kubelet-1.36", "kubelet-1.35"])
def test_two_versions_side_by_side(kubelet: Kubelet, agent: Agent, confuses: bool) -> None:
    """In an upgrade the next agent starts before the one before it has ended.

    :param confuses: when one plugin ends, the kubelet disconnects the last one that registered for the same resource.
    """
    before, number = agent(), 0
    kubelet.wait(lambda: kubelet.watches(0))
    for _ in range(10):
        first = kubelet.sockets()
        after = agent()
        number += 1
        kubelet.wait(lambda number=number: kubelet.watches(number))
        second = kubelet.registered[number].endpoint
        assert second not in first
        before.stop()
        if confuses:
            kubelet.forget()
            number += 1
        kubelet.wait(lambda number=number: kubelet.watches(number))
        assert (kubelet.registered[number].endpoint, kubelet.sockets()) == (second, [second])
        assert kubelet.allocate(["tun1"]).container_responses
        before = after
    before.stop()
    assert kubelet.sockets() == []
    assert len(kubelet.registered) == number + 1


def test_the_older_of_two_stands_back_until_the_newer_has_gone(kubelet: Kubelet, agent: Agent) -> None:
    """A kubelet that forgets both gets the newer; a version that was a mistake leaves the node to the one before."""
    agent()
    kubelet.wait(lambda: kubelet.watches(0))
    after = agent()
    kubelet.wait(lambda: kubelet.watches(1))
    kubelet.forget()
    kubelet.wait(lambda: kubelet.watches(2))
    assert kubelet.registered[2].endpoint == kubelet.registered[1].endpoint
    after.stop()
    kubelet.wait(lambda: kubelet.watches(3))
    assert [kubelet.registered[3].endpoint] == kubelet.sockets() == [kubelet.registered[0].endpoint]


def test_a_killed_agent_leaves_neither_its_socket_nor_its_place(kubelet: Kubelet, agent: Agent, node: Path) -> None:
    others = ["kubevirt-tun.sock", "kubevirt-tun-mine.sock", "nvidia-gpu.sock"]
    for name in others:
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(kubelet.folder / name))
    before = agent()
    kubelet.wait(lambda: kubelet.watches(0))
    program = f"""
import threading
from pathlib import Path
from turtles.handler.device_plugin import TUN, DevicePlugins
from turtles.handler.watcher import Watcher
DevicePlugins(Path({str(kubelet.folder)!r}), (TUN,), Watcher(), root=Path({str(node)!r})).start()
threading.Event().wait()
"""
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        try:
            kubelet.wait(lambda: kubelet.watches(1))
        finally:
            process.send_signal(signal.SIGKILL)
    kubelet.wait(lambda: kubelet.watches(2))
    own = kubelet.registered[0].endpoint
    assert kubelet.registered[2].endpoint == own
    assert kubelet.sockets() == sorted([own, *others])
    before.stop()
    assert kubelet.sockets() == sorted(others)
