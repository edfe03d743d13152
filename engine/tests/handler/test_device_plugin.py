# SPDX-License-Identifier: GPL-3.0-or-later
"""The device plugins with a kubelet that is played, over real sockets."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.server import Server

from turtles.handler import device_plugin_api as api
from turtles.handler.device_plugin import KVM, TUN, DevicePlugins
from turtles.handler.watcher import Watcher


class Kubelet:
    """The kubelet's side: takes registrations, then watches the plugin's devices and asks for some."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registered: list[Any] = []
        self.health: dict[str, tuple[int, str]] = {}
        self.changed = threading.Condition()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.server: Server | None = None
        self.tasks: list[asyncio.Task[None]] = []

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def __mapping__(self) -> dict[str, Handler]:
        return {"/v1beta1.Registration/Register": Handler(
            self._register, Cardinality.UNARY_UNARY, api.RegisterRequest, api.Empty)}

    async def _register(self, stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(api.Empty())
        self.tasks.append(asyncio.ensure_future(self._watch(request)))
        with self.changed:
            self.registered.append(request)
            self.changed.notify_all()

    async def _watch(self, request: Any) -> None:
        channel = Channel(path=str(self.folder / request.endpoint))
        method = UnaryStreamMethod(channel, "/v1beta1.DevicePlugin/ListAndWatch", api.Empty, api.ListAndWatchResponse)
        try:
            async with method.open() as stream:
                await stream.send_message(api.Empty(), end=True)
                async for answer in stream:
                    with self.changed:
                        self.health[request.resource_name] = (len(answer.devices), answer.devices[0].health)
                        self.changed.notify_all()
        except (OSError, Exception):  # the plugin ended
            pass
        finally:
            channel.close()

    def start(self) -> None:
        """Start as a kubelet does: with an empty folder."""
        async def serve() -> None:
            for path in self.folder.iterdir():
                path.unlink()
            self.server = Server([self])
            await self.server.start(path=str(self.folder / "kubelet.sock"))

        self.run(serve())

    def stop(self) -> None:
        async def end() -> None:
            for task in self.tasks:
                task.cancel()
            self.server.close()
            await self.server.wait_closed()

        self.run(end())
        (self.folder / "kubelet.sock").unlink(missing_ok=True)

    def allocate(self, *containers: list[str]) -> Any:
        async def ask() -> Any:
            channel = Channel(path=str(self.folder / "kubevirt-tun.sock"))
            try:
                method = UnaryUnaryMethod(
                    channel, "/v1beta1.DevicePlugin/Allocate", api.AllocateRequest, api.AllocateResponse)
                return await method(api.AllocateRequest(
                    container_requests=[{"devices_ids": ids} for ids in containers]), timeout=5)
            finally:
                channel.close()

        return self.run(ask())

    def wait(self, condition: Callable[[], Any]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, 15), (self.registered, self.health)


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[Kubelet]:
    folder = tmp_path / "p"
    folder.mkdir()
    kubelet = Kubelet(folder)
    kubelet.start()
    yield kubelet
    kubelet.stop()
    kubelet.loop.call_soon_threadsafe(kubelet.loop.stop)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    (tmp_path / "dev/net").mkdir(parents=True)
    (tmp_path / "dev/net/tun").touch()
    return tmp_path


@pytest.fixture
def plugins(kubelet: Kubelet, node: Path) -> Iterator[DevicePlugins]:
    plugins = DevicePlugins(kubelet.folder, (TUN, KVM), Watcher(), root=node)
    plugins.start()
    yield plugins
    plugins.stop()


def test_what_is_there_is_registered_and_allocated(kubelet: Kubelet, plugins: DevicePlugins) -> None:
    kubelet.wait(lambda: kubelet.health.get("devices.kubevirt.io/tun") == (1000, "Healthy"))
    [request] = kubelet.registered
    assert (request.version, request.endpoint) == ("v1beta1", "kubevirt-tun.sock")
    answer = kubelet.allocate(["tun1"], ["tun2", "tun3"])
    for container in answer.container_responses:
        [device] = container.devices
        assert (device.host_path, device.container_path, device.permissions) == ("/dev/net/tun", "/dev/net/tun", "rw")
    assert len(answer.container_responses) == 2


def test_a_restarted_kubelet_gets_them_again(kubelet: Kubelet, plugins: DevicePlugins) -> None:
    kubelet.wait(lambda: len(kubelet.registered) == 1)
    kubelet.stop()
    kubelet.start()
    kubelet.wait(lambda: len(kubelet.registered) == 2)
    assert kubelet.allocate(["tun1"]).container_responses


def test_a_plugin_before_its_kubelet(kubelet: Kubelet, node: Path) -> None:
    kubelet.stop()
    plugins = DevicePlugins(kubelet.folder, (TUN,), Watcher(), root=node)
    plugins.start()
    kubelet.start()
    kubelet.wait(lambda: kubelet.registered)
    plugins.stop()
    assert not (kubelet.folder / "kubevirt-tun.sock").exists()


def test_health_follows_the_device(kubelet: Kubelet, plugins: DevicePlugins, node: Path) -> None:
    kubelet.wait(lambda: kubelet.health.get("devices.kubevirt.io/tun") == (1000, "Healthy"))
    (node / "dev/net/tun").unlink()
    kubelet.wait(lambda: kubelet.health["devices.kubevirt.io/tun"] == (1000, "Unhealthy"))
    (node / "dev/net/tun").touch()
    kubelet.wait(lambda: kubelet.health["devices.kubevirt.io/tun"] == (1000, "Healthy"))
    assert len(kubelet.registered) == 1
    # One that wasn't there at first is offered when it appears.
    (node / "dev/kvm").touch()
    kubelet.wait(lambda: kubelet.health.get("devices.kubevirt.io/kvm") == (1000, "Healthy"))


def test_two_versions_side_by_side(kubelet: Kubelet, node: Path) -> None:
    """In an upgrade the next agent starts before the one before it has ended."""
    before, after = (DevicePlugins(kubelet.folder, (TUN,), Watcher(), root=node) for _ in range(2))
    before.start()
    kubelet.wait(lambda: len(kubelet.registered) == 1)
    after.start()
    kubelet.wait(lambda: len(kubelet.registered) == 2)
    before.stop()
    kubelet.wait(lambda: kubelet.health.get("devices.kubevirt.io/tun") == (1000, "Healthy"))
    assert kubelet.allocate(["tun1"]).container_responses
    after.stop()
