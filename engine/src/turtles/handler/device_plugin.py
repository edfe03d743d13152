# SPDX-License-Identifier: GPL-3.0-or-later
"""Offers the node's devices to Pods through the kubelet's device plugin API.

A launcher isn't privileged, so the kubelet has to put /dev/kvm and its kin into the Pod; it asks a plugin per resource
which devices those are (Kubernetes documentation, "Device plugins"). Any number of guests may share such a device:
each plugin offers a number of stand-ins for the one file.

The kubelet forgets all plugins when it restarts and removes their sockets. That shows in the folder, which is watched.

gRPC is spoken with grpclib, which is pure Python: the kubelet calls a few times per Pod, and grpcio would cost every
node's agent 15 MB instead of 6. This module is imported only where there is a kubelet.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.server import Server, Stream

from turtles.api import labels
from turtles.handler import device_plugin_api as api
from turtles.handler.watcher import Watcher

log = logging.getLogger(__name__)

#: How many guests may use a device at once (KubeVirt's ``--max-devices``).
MAX_DEVICES = 1000
KUBELET_SOCKET = "kubelet.sock"
#: Seconds after which a kubelet that refused or didn't answer is asked again.
_RETRY = 5.0
_CALL_TIMEOUT = 10.0
#: Seconds that ending may take: connections are closed, sockets removed.
_STOP_LIMIT = 4.0


@dataclass(frozen=True)
class Offer:
    """An extended resource and the device file behind it: its path on the node, which is the one in the Pod too."""

    resource: str
    path: str

    @property
    def socket(self) -> str:
        """File name of the plugin's socket."""
        return f"kubevirt-{self.resource.rpartition('/')[2]}.sock"


#: What every node with these devices offers. /dev/kvm is no proof that KVM works: see :mod:`turtles.probe.kvm`.
TUN = Offer(labels.DEVICE_TUN, "/dev/net/tun")
VHOST_NET = Offer(labels.DEVICE_VHOST_NET, "/dev/vhost-net")
KVM = Offer(labels.DEVICE_KVM, "/dev/kvm")


class DevicePlugins:
    """Serves plugins for some offers on a thread of its own, and keeps them registered."""

    def __init__(self, folder: Path, offers: Sequence[Offer], watcher: Watcher, *, root: Path = Path("/")) -> None:
        """Make it.

        :param folder: the kubelet's ``device-plugins``.
        :param root: below which the node's /dev is seen.
        """
        self._folder, self._offers, self._watcher, self._root = folder, offers, watcher, root
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._plugins = [_Plugin(offer, self._device(offer)) for offer in offers]
        self._thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self._run()), name="devices", daemon=True)

    def start(self) -> None:
        """Start serving; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving. The kubelet keeps what it has allocated, and offers nothing more until somebody registers."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._loop.call_soon_threadsafe(self._changed.set)
        self._thread.join(_STOP_LIMIT)

    def _device(self, offer: Offer) -> Path:
        return self._root / offer.path.lstrip("/")

    def _notice(self) -> None:
        self._loop.call_soon_threadsafe(self._changed.set)

    def _watch(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._watcher.folder(self._folder, self._notice, removals=True)
        for folder in {self._device(offer).parent for offer in self._offers}:
            with contextlib.suppress(OSError):  # /dev/net need not exist
                self._watcher.folder(folder, self._notice, removals=True)

    async def _run(self) -> None:
        while not self._ended.is_set():
            self._changed.clear()
            again = None
            try:
                self._watch()
                for plugin in self._plugins:
                    await plugin.update(self._folder)
            except (OSError, GRPCError, StreamTerminatedError, TimeoutError) as error:
                # A kubelet that is just starting; nothing unusual.
                log.info("devices can't be registered with the kubelet yet: %s", error,
                         extra={"folder": str(self._folder), "retry_in": _RETRY})
                again = _RETRY
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), again)
        for plugin in self._plugins:
            await plugin.close()


class _Plugin:
    """The server for one offer."""

    def __init__(self, offer: Offer, device: Path) -> None:
        self._offer, self._device = offer, device
        self._healthy = False
        self._health_changed = asyncio.Condition()
        self._server: Server | None = None
        self._socket: tuple[Path, tuple[int, ...] | None] | None = None
        self._registered: tuple[int, ...] | None = None

    async def update(self, folder: Path) -> None:
        """Bring health, socket and registration up to date.

        :raises OSError, GRPCError, StreamTerminatedError, TimeoutError: if there is no kubelet to register with.
        """
        healthy = self._device.exists()
        if healthy != self._healthy:
            async with self._health_changed:
                self._healthy = healthy
                self._health_changed.notify_all()
            if self._registered is not None:
                log.warning("device came back" if healthy else "device vanished", extra={"path": str(self._device)})
        if not healthy and self._registered is None:
            return  # what the node never had isn't offered
        own, kubelet = folder / self._offer.socket, folder / KUBELET_SOCKET
        if self._server is not None and not own.exists():
            await self.close()
        identity = _identity(kubelet)
        if self._server is None:
            own.unlink(missing_ok=True)
            server = Server([self])
            await server.start(path=str(own))
            own.chmod(0o600)
            self._socket = own, _identity(own)
            self._server, self._registered = server, None
        if identity is not None and identity != self._registered:
            await self._register(kubelet)
            self._registered = identity

    async def close(self) -> None:
        """Stop serving, and remove the socket unless it is another handler's already, which took over."""
        server, self._server, self._registered = self._server, None, None
        if server is not None:
            server.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(server.wait_closed(), 1)
        if self._socket is not None:
            path, identity = self._socket
            if _identity(path) == identity:
                path.unlink(missing_ok=True)
            self._socket = None

    async def _register(self, kubelet: Path) -> None:
        request = api.RegisterRequest(
            version=api.VERSION,
            endpoint=self._offer.socket,
            resource_name=self._offer.resource,
            options=api.DevicePluginOptions(),
        )
        channel = Channel(path=str(kubelet))
        try:
            method = UnaryUnaryMethod(channel, "/v1beta1.Registration/Register", api.RegisterRequest, api.Empty)
            await method(request, timeout=_CALL_TIMEOUT)
        finally:
            channel.close()
        log.info("device registered", extra={"resource": self._offer.resource, "path": self._offer.path})

    # The API; grpclib finds the methods by this

    def __mapping__(self) -> dict[str, Handler]:
        unary, stream = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        methods: tuple[tuple[str, Callable[[Any], Any], Cardinality, Any, Any], ...] = (
            ("GetDevicePluginOptions", self._options, unary, api.Empty, api.DevicePluginOptions),
            ("ListAndWatch", self._list_and_watch, stream, api.Empty, api.ListAndWatchResponse),
            ("Allocate", self._allocate, unary, api.AllocateRequest, api.AllocateResponse),
        )
        return {f"/v1beta1.DevicePlugin/{name}": Handler(call, kind, ask, answer)
                for name, call, kind, ask, answer in methods}

    async def _options(self, stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        await stream.send_message(api.DevicePluginOptions())

    async def _list_and_watch(self, stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        name = self._offer.resource.rpartition("/")[2]
        while True:
            healthy = self._healthy
            health = api.HEALTHY if healthy else api.UNHEALTHY
            devices = [api.Device(ID=f"{name}{number}", health=health) for number in range(MAX_DEVICES)]
            await stream.send_message(api.ListAndWatchResponse(devices=devices))
            async with self._health_changed:
                await self._health_changed.wait_for(lambda seen=healthy: self._healthy != seen)  # type: ignore[misc]

    async def _allocate(self, stream: Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        # However many stand-ins were asked for, it is one file.
        device = api.DeviceSpec(container_path=self._offer.path, host_path=self._offer.path, permissions="rw")
        containers = request.container_requests if request is not None else ()
        answers = [api.ContainerAllocateResponse(devices=[device]) for _ in containers]
        await stream.send_message(api.AllocateResponse(container_responses=answers))


def _identity(path: Path) -> tuple[int, ...] | None:
    """Return what tells a file from another one that takes its place; None if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_ctime_ns
