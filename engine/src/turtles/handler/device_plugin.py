# SPDX-License-Identifier: GPL-3.0-or-later
"""Offers the node's devices to Pods through the kubelet's device plugin API.

A launcher isn't privileged, so the kubelet has to put /dev/kvm and its kin into the Pod; it asks a plugin per resource
which devices those are (Kubernetes documentation, "Device plugins"). Any number of guests may share such a device:
each plugin offers a number of stand-ins for the one file.

The kubelet knows a plugin for as long as it keeps the stream of ListAndWatch open, so the end of that stream, not
anything about the kubelet's socket, says that the plugin has to register again. A kubelet that restarts also removes
all sockets; that shows in the folder, which is watched.

In an upgrade two agents serve the same device side by side. Each has a socket name of its own, as Kubernetes demands of
plugins that overlap (kubernetes/kubernetes#135437 and the README of its pluginwatcher): the kubelet takes the name from
the registration, so neither can remove, replace or be taken for the other's socket. The name tells which of two is
newer; the older one leaves the kubelet to it for as long as it lives. Kubelets before that change disconnect the newer
one when the older one ends, which it sees by its stream.

gRPC is spoken with grpclib, which is pure Python: the kubelet calls a few times per Pod, and grpcio would cost every
node's agent 15 MB instead of 6. This module is imported only where there is a kubelet.
"""

import asyncio
import contextlib
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
#: Seconds in which a kubelet that took a registration opens its stream; the kubelet's own limit for connecting.
_WATCH_LIMIT = 10.0
#: Seconds that ending may take: connections are closed, sockets removed.
_STOP_LIMIT = 4.0


@dataclass(frozen=True)
class Offer:
    """An extended resource and the device file behind it: its path on the node, which is the one in the Pod too."""

    resource: str
    path: str

    @property
    def name(self) -> str:
        """The resource's name without its domain."""
        return self.resource.rpartition("/")[2]

    def devices(self) -> list[str]:
        """Return the names by which the kubelet knows what is offered: stand-ins for the one file."""
        return [f"{self.name}{number}" for number in range(MAX_DEVICES)]

    def allocation(self, devices: Sequence[str]) -> Any:
        """Return what a container gets that asked for some *devices*. However many those are, it is one file."""
        device = api.DeviceSpec(container_path=self.path, host_path=self.path, permissions="rw")
        return api.ContainerAllocateResponse(devices=[device])

    def socket(self, since: int) -> str:
        """Return a file name for the plugin's socket that no other has had.

        :param since: since when the plugin has been there, in microseconds since the machine started.
        """
        return f"kubevirt-{self.name}-{since:013x}{secrets.token_hex(2)}.sock"

    def since(self, socket: str) -> int | None:
        """Return since when the plugin with this socket has been there; None if it isn't one for this device."""
        match = re.fullmatch(rf"kubevirt-{re.escape(self.name)}-([0-9a-f]{{13}})[0-9a-f]{{4}}\.sock", socket)
        return int(match[1], 16) if match else None


#: What every node with these devices offers. /dev/kvm is no proof that KVM works: see :mod:`turtles.probe.kvm`.
TUN = Offer(labels.DEVICE_TUN, "/dev/net/tun")
VHOST_NET = Offer(labels.DEVICE_VHOST_NET, "/dev/vhost-net")
VHOST_VSOCK = Offer(labels.DEVICE_VHOST_VSOCK, "/dev/vhost-vsock")
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
        self._plugins = [_Plugin(offer, self._device(offer), self._changed.set) for offer in offers]
        self._thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self._run()), name="devices", daemon=True
        )

    def start(self) -> None:
        """Start serving, and return immediately."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving. The kubelet keeps what it has allocated, and offers nothing more until a plugin registers."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._loop.call_soon_threadsafe(self._changed.set)
        self._thread.join(_STOP_LIMIT)
        self._watcher.forget_folder(self._notice)

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
                waits = [await plugin.update(self._folder) for plugin in self._plugins]
                again = min((wait for wait in waits if wait is not None), default=None)
            except (OSError, GRPCError, StreamTerminatedError, TimeoutError) as error:
                # A kubelet that is just starting; nothing unusual.
                log.info(
                    "can't register devices with the kubelet yet: %s",
                    error,
                    extra={"folder": str(self._folder), "retry_in": _RETRY},
                )
                again = _RETRY
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), again)
        await asyncio.gather(*(plugin.close() for plugin in self._plugins))


class _Plugin:
    """The server for one offer."""

    def __init__(self, offer: Offer, device: Path, notice: Callable[[], None]) -> None:
        """Make it.

        :param notice: called when :meth:`update` has something to do.
        """
        self._offer, self._device, self._notice = offer, device, notice
        self._since = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
        self._healthy = False
        self._health_changed = asyncio.Condition()
        self._server: Server | None = None
        self._socket: Path | None = None
        #: Counts registrations; a stream belongs to the one that was the last when it was opened.
        self._registration = 0
        self._watched = False
        #: When the registration counts as failed unless the kubelet watches; None if there is none that holds.
        self._deadline: float | None = None
        #: What ends when a newer plugin for the same device does, by its socket.
        self._newer: dict[Path, asyncio.Task[None]] = {}

    async def update(self, folder: Path) -> float | None:
        """Update health, socket and registration.

        :return: seconds after which to look again even if nothing happens.
        :raises OSError, GRPCError, StreamTerminatedError, TimeoutError: if there is no kubelet to register with.
        """
        healthy = self._device.exists()
        if healthy != self._healthy:
            async with self._health_changed:
                self._healthy = healthy
                self._health_changed.notify_all()
            if self._server is not None:
                log.warning("device came back" if healthy else "device vanished", extra={"path": str(self._device)})
        if not healthy and self._server is None:
            return None  # what the node never had isn't offered
        if self._socket is not None and not self._socket.exists():
            await self._stop_serving()
        if self._socket is None:
            await self._serve(folder)
        await self._look_around(folder)
        if self._newer:
            # Comes back from this when the newer one has gone, whatever the kubelet made of that.
            self._deadline = None
            return None
        now = asyncio.get_running_loop().time()
        if self._deadline is None or (not self._watched and self._deadline <= now):
            self._deadline = None
            kubelet = folder / KUBELET_SOCKET
            if not kubelet.exists():
                return None
            await self._register(kubelet)
        return None if self._watched or self._deadline is None else max(0.0, self._deadline - now)

    async def close(self) -> None:
        """Stop serving and remove the socket, which is no other agent's."""
        folder = self._socket.parent if self._socket is not None else None
        await self._stop_serving()
        if folder is not None:
            with contextlib.suppress(OSError):
                await self._look_around(folder)
        for task in self._newer.values():
            task.cancel()
        await asyncio.gather(*self._newer.values(), return_exceptions=True)

    async def _serve(self, folder: Path) -> None:
        path = folder / self._offer.socket(self._since)
        listener = _listener(path)
        server = Server([self])
        try:
            # Not as a path: asyncio has ideas of its own about whose file that is (since Python 3.13).
            await server.start(sock=listener)
        except BaseException:
            listener.close()
            path.unlink(missing_ok=True)
            raise
        self._server, self._socket, self._deadline = server, path, None

    async def _stop_serving(self) -> None:
        server, self._server, self._deadline = self._server, None, None
        path, self._socket = self._socket, None
        if path is not None:
            path.unlink(missing_ok=True)
        if server is not None:
            server.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(server.wait_closed(), 1)

    async def _look_around(self, folder: Path) -> None:
        """Find newer plugins for the same device, and remove sockets that killed agents left.

        :raises OSError: if the folder can't be read.
        """
        for path, task in list(self._newer.items()):
            if task.done() or not path.exists():
                task.cancel()
                del self._newer[path]
        for path, since in self._others(folder):
            if path in self._newer:
                continue
            try:
                reader, writer = await asyncio.open_unix_connection(str(path))
            except ConnectionRefusedError:
                # Nobody listens, and nobody will: names aren't used again, and sockets appear when they listen.
                path.unlink(missing_ok=True)
                if since > self._since:
                    self._deadline = None  # the kubelet may have taken it
                continue
            except FileNotFoundError:
                continue
            if since > self._since:
                self._newer[path] = asyncio.create_task(self._follow(reader, writer))
            else:
                writer.close()

    def _others(self, folder: Path) -> Iterator[tuple[Path, int]]:
        for path in sorted(folder.iterdir()):
            since = self._offer.since(path.name)
            if since is not None and path != self._socket:
                yield path, since

    async def _follow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Wait until the other side ends."""
        try:
            with contextlib.suppress(OSError):
                while await reader.read(4096):
                    pass
        finally:
            writer.close()
            self._notice()

    async def _register(self, kubelet: Path) -> None:
        assert self._socket is not None
        request = api.RegisterRequest(
            version=api.VERSION,
            endpoint=self._socket.name,
            resource_name=self._offer.resource,
            options=api.DevicePluginOptions(),
        )
        # From here on the kubelet may watch, and stop to.
        self._registration += 1
        self._watched, self._deadline = False, asyncio.get_running_loop().time() + _WATCH_LIMIT
        channel = Channel(path=str(kubelet))
        try:
            method = UnaryUnaryMethod(channel, "/v1beta1.Registration/Register", api.RegisterRequest, api.Empty)
            await method(request, timeout=_CALL_TIMEOUT)
        except BaseException:
            self._deadline = None
            raise
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
        return {
            f"/v1beta1.DevicePlugin/{name}": Handler(call, kind, ask, answer)
            for name, call, kind, ask, answer in methods
        }

    async def _options(self, stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        await stream.send_message(api.DevicePluginOptions())

    async def _list_and_watch(self, stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        registration = self._registration
        self._watched = True
        try:
            while True:
                healthy = self._healthy
                health = api.HEALTHY if healthy else api.UNHEALTHY
                devices = [api.Device(ID=name, health=health) for name in self._offer.devices()]
                await stream.send_message(api.ListAndWatchResponse(devices=devices))
                async with self._health_changed:
                    await self._health_changed.wait_for(lambda seen=healthy: self._healthy != seen)  # type: ignore[misc]
        finally:
            # The end of a stream that a later registration replaced says nothing.
            if registration == self._registration:
                self._watched, self._deadline = False, None
                self._notice()

    async def _allocate(self, stream: Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        containers = request.container_requests if request is not None else ()
        answers = [self._offer.allocation(container.devices_ids) for container in containers]
        await stream.send_message(api.AllocateResponse(container_responses=answers))


def _listener(path: Path) -> socket.socket:
    """Return a socket that listens at a path; it appears there when it does, for root alone.

    :raises OSError: it can't be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # An address has 107 bytes; kubelets have folders of any length.
        unseen = Path(f"/proc/self/fd/{folder}/.{path.name}")
        listener.bind(str(unseen))
        try:
            unseen.chmod(0o600)
            listener.listen()
            unseen.rename(path)
        except BaseException:
            unseen.unlink(missing_ok=True)
            raise
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(folder)
    return listener
