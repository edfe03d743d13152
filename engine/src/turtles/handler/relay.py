# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries bytes between libvirt's client library, in this process, and the libvirtd of a Pod, which isn't trusted.

libvirt can't be given a connection that was made and checked already: it connects by itself. So it connects to a
listener that lies in no folder, is there for one connection, and is reached by this process only; one thread passes on
what comes from there, for all Pods of the node. That makes it the place where

- a message that is too long or not of a kind that libvirtd sends is seen before libvirt makes room for it;
- a Pod that sends without end is not read for a while, so that libvirt's one event thread has time for the others;
- a connection is given up when a call on it takes too long: libvirt has no deadlines, but it notices a closed one.

What messages look like is in libvirt's documentation, "RPC protocol" (docs/kbase/internals/rpc.rst).
"""

import contextlib
import functools
import heapq
import itertools
import logging
import os
import select
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from turtles.handler.peer import closing
from turtles.handler.rate import Bucket

log = logging.getLogger(__name__)

#: Longest message that is taken from a Pod. The longest there is has a domain's XML in it, some 20 KiB. libvirt itself
#: takes 32 MiB.
MAX_MESSAGE = 512 * 1024
#: What a Pod may send at once and each second: messages and reads, bytes. A guest's start takes some 60 and 60 KiB.
_UNITS, _UNITS_RATE = 1024, 128
_BYTES, _BYTES_RATE = 4 * MAX_MESSAGE, MAX_MESSAGE // 2
#: How much is read at once.
_CHUNK = 65536

# Length (of itself, too), program, version, procedure, type, serial, status
_HEADER = struct.Struct(">IIIiIII")
_REMOTE, _QEMU, _KEEPALIVE = 0x20008086, 0x20008087, 0x6B656570
_CALL, _REPLY, _EVENT = 0, 1, 2
_OK, _ERROR = 0, 1
#: Procedures of the program "remote" that tell of what the agent has asked to be told: a domain's life, errors of its
#: disks, its guest agent; and that libvirtd's own connection to its hypervisor is closed.
_EVENTS = frozenset({318, 324, 348, 362})
#: Procedures of the program "remote" with which a client would identify itself: SASL (three) and polkit.
_AUTHENTICATION = frozenset({67, 68, 69, 70})


class _GiveUp(Exception):
    """The connection can't go on. The message completes "libvirtd …"."""


class _Flow:
    """One direction of a connection. Passes on whole messages only."""

    def __init__(self, check: Callable[[tuple[int, ...]], None], *, limited: bool) -> None:
        self._check = check
        self._units = Bucket(_UNITS, _UNITS_RATE) if limited else None
        self._bytes = Bucket(_BYTES, _BYTES_RATE) if limited else None
        self._partial = bytearray()
        self._length = 0  # of the message that is arriving, 0 while that isn't known
        self.pending = memoryview(b"")
        #: Until when nothing more is read.
        self.resume_at = 0.0

    def feed(self, data: bytes) -> None:
        """Take what was read.

        :raises _GiveUp: if it isn't fit to be passed on.
        """
        messages = 0
        self._partial += data
        begin, available = 0, len(self._partial)
        while True:
            if not self._length and available - begin >= _HEADER.size:
                header = _HEADER.unpack_from(self._partial, begin)
                self._check(header)
                self._length = header[0]
            if not self._length or available - begin < self._length:
                break
            begin += self._length
            self._length = 0
            messages += 1
        if begin:
            self.pending = memoryview(bytes(self._partial[:begin]))
            del self._partial[:begin]
        if self._units is not None and self._bytes is not None:
            pause = max(self._units.charge(1 + messages), self._bytes.charge(len(data)))
            if pause:
                self.resume_at = time.monotonic() + pause


class Link:
    """A connection between libvirt's client and a Pod's libvirtd.

    ``uri`` is what libvirt opens, once.
    """

    def __init__(self, relay: "Relay", pod: socket.socket) -> None:
        self._relay = relay
        self.pod = pod
        self.client: socket.socket | None = None
        self.listener, self._inode = _listen()
        self.uri = f"qemu+unix:///session?socket=/proc/self/fd/{self._inode}"
        self.answers = _Flow(self._check_answer, limited=True)
        self.calls = _Flow(self._check_call, limited=False)
        #: Procedures of the calls that have no answer yet, by program and serial number.
        self._waiting: dict[tuple[int, int], int] = {}
        self.masks: dict[int, int] = {}
        #: Why it was given up. Completes "libvirtd …".
        self.lost: str | None = None
        #: Whether the connection is open, and events may be passed on.
        self.takes_events = False

    def cut(self, why: str) -> None:
        """Give up the connection; calls that wait on it fail."""
        self._relay.cut(self, why)

    @contextlib.contextmanager
    def within(self, seconds: float, what: str) -> Iterator[None]:
        """Give up the connection unless the body ends in time.

        :param what: is waited for.
        """
        deadline = self._relay.arm(self, seconds, what)
        try:
            yield
        finally:
            deadline.over = True

    def _check_call(self, header: tuple[int, ...]) -> None:
        _, program, _, procedure, kind, serial, _ = header
        if kind == _CALL:
            if program == _REMOTE and procedure in _AUTHENTICATION:
                raise _GiveUp("asks for credentials, which isn't supported")
            self._waiting[program, serial] = procedure

    def _check_answer(self, header: tuple[int, ...]) -> None:
        length, program, version, procedure, kind, serial, status = header
        if length > MAX_MESSAGE:
            raise _GiveUp(f"sent a message of {length} bytes; the limit is {MAX_MESSAGE}")
        if version == 1 and length >= _HEADER.size:
            if program == _KEEPALIVE and kind == _EVENT:
                return
            if kind == _REPLY and status in (_OK, _ERROR) and self._waiting.pop((program, serial), None) == procedure:
                return
            # While libvirt opens a connection it can't take an event: it would crash.
            if kind == _EVENT and program == _REMOTE and procedure in _EVENTS and self.takes_events:
                return
        raise _GiveUp(
            f"sent an unexpected message (program {program:#x}, procedure {procedure}, type {kind}, {length} bytes)"
        )

    def opened(self) -> None:
        """libvirt has connected, or won't any more: it isn't listened for it."""
        inode, self._inode = self._inode, -1
        if inode >= 0:
            os.close(inode)


@dataclass(order=True)
class _Deadline:
    due: float
    number: int
    link: Link = field(compare=False)
    why: str = field(compare=False)
    over: bool = field(default=False, compare=False)


class Relay:
    """Carries the bytes of any number of connections on a thread of its own."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._lock = threading.Lock()
        self._links: dict[int, Link] = {}
        self._ending: list[Link] = []
        self._deadlines: list[_Deadline] = []
        self._numbers = itertools.count()
        #: Links whose Pod isn't read for a while. The thread's own.
        self._throttled: set[Link] = set()
        #: Until when the thread sleeps if nothing happens.
        self._sleeps_until = float("inf")
        threading.Thread(target=self._run, name="relay", daemon=True).start()

    def link(self, pod: socket.socket) -> Link:
        """Return a link to a connection, which is the relay's from now on."""
        pod.setblocking(False)
        link = Link(self, pod)
        with self._lock:
            self._links[link.listener.fileno()] = link
            self._epoll.register(link.listener, select.EPOLLIN)
        return link

    def cut(self, link: Link, why: str) -> None:
        """Give up a connection, whatever waits on it. The first reason counts."""
        with self._lock:
            if link.lost is not None:
                return
            link.lost = why
            self._ending.append(link)
        os.eventfd_write(self._wake, 1)

    def arm(self, link: Link, seconds: float, what: str) -> _Deadline:
        """Give up a link after a while unless the deadline is marked as over."""
        due = time.monotonic() + seconds
        deadline = _Deadline(due, next(self._numbers), link, f"did not answer within {seconds:g} s ({what})")
        with self._lock:
            heapq.heappush(self._deadlines, deadline)
            early = due < self._sleeps_until
        if early:
            os.eventfd_write(self._wake, 1)
        return deadline

    def __len__(self) -> int:
        """Return how many connections there are."""
        with self._lock:
            return len({id(link) for link in self._links.values()})

    # The thread

    def _run(self) -> None:
        while True:
            try:
                for descriptor, events in self._epoll.poll(self._prepare()):
                    if descriptor == self._wake:
                        with contextlib.suppress(BlockingIOError):
                            os.eventfd_read(self._wake)
                    else:
                        self._serve(descriptor, events)
                self._expire()
            except Exception:
                log.exception("relaying failed")

    def _prepare(self) -> float | None:
        """Close what has ended; return how long to sleep."""
        now = time.monotonic()
        with self._lock:
            ending, self._ending = self._ending, []
            while self._deadlines and self._deadlines[0].over:
                heapq.heappop(self._deadlines)
            due = self._deadlines[0].due if self._deadlines else float("inf")
        for link in ending:
            self._close(link)
        for link in list(self._throttled):
            if link.answers.resume_at <= now:
                self._throttled.discard(link)
                link.answers.resume_at = 0.0
                self._listen_again(link)
            else:
                due = min(due, link.answers.resume_at)
        with self._lock:
            # What came while the lock wasn't held has woken the thread
            self._sleeps_until = due
            if self._ending or (self._deadlines and self._deadlines[0].due < due):
                return 0.0
        return None if due == float("inf") else max(0.0, due - now)

    def _expire(self) -> None:
        now = time.monotonic()
        with self._lock:
            expired = []
            while self._deadlines and (self._deadlines[0].due <= now or self._deadlines[0].over):
                expired.append(heapq.heappop(self._deadlines))
        for deadline in expired:
            if not deadline.over:
                deadline.link.cut(deadline.why)

    def _serve(self, descriptor: int, events: int) -> None:
        with self._lock:
            link = self._links.get(descriptor)
        if link is None or link.lost is not None:
            return
        try:
            if link.client is None:
                self._accept(link)
            elif descriptor == link.pod.fileno():
                self._carry(link, events, link.pod, link.client, link.answers, link.calls)
            else:
                self._carry(link, events, link.client, link.pod, link.calls, link.answers)
            self._listen_again(link)
        except _GiveUp as error:
            link.cut(str(error))
        except OSError as error:
            link.cut(f"closed the connection ({error.strerror})")
        except Exception as error:
            log.exception("relaying failed")
            link.cut(f"failed to be relayed: {error!r}")

    def _accept(self, link: Link) -> None:
        client, _ = link.listener.accept()
        pid, _, _ = struct.unpack("iII", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if pid != os.getpid():
            client.close()
            return
        client.setblocking(False)
        link.client = client
        with self._lock:
            self._links.pop(link.listener.fileno())
            self._epoll.unregister(link.listener)
            link.listener.close()
            for end in (client, link.pod):
                self._links[end.fileno()] = link
                link.masks[end.fileno()] = select.EPOLLIN
                self._epoll.register(end, select.EPOLLIN)

    @staticmethod
    def _carry(
        link: Link, events: int, end: socket.socket, other: socket.socket, incoming: _Flow, outgoing: _Flow
    ) -> None:
        """Serve one end: write what waits for it, then read from it and write to the other one."""
        if events & select.EPOLLOUT:
            _write(end, outgoing)
        readable = not incoming.pending and not incoming.resume_at
        if events & select.EPOLLIN and readable:
            try:
                data = end.recv(_CHUNK)
            except BlockingIOError:
                return
            if not data:
                raise _GiveUp("closed the connection" if end is link.pod else "is no longer needed")
            incoming.feed(data)
            _write(other, incoming)
        elif events & (select.EPOLLHUP | select.EPOLLERR):
            raise _GiveUp("closed the connection")

    def _listen_again(self, link: Link) -> None:
        """Wait for what can go on."""
        if link.client is None or link.lost is not None:
            return
        if link.answers.resume_at:
            self._throttled.add(link)
        for end, incoming, outgoing in (
            (link.pod, link.answers, link.calls),
            (link.client, link.calls, link.answers),
        ):
            mask = select.EPOLLOUT if outgoing.pending else 0
            if not incoming.pending and not incoming.resume_at:
                mask |= select.EPOLLIN
            descriptor = end.fileno()
            if link.masks[descriptor] != mask:
                link.masks[descriptor] = mask
                self._epoll.modify(descriptor, mask)

    def _close(self, link: Link) -> None:
        self._throttled.discard(link)
        with self._lock:
            for end in (link.listener, link.client, link.pod):
                if end is None or end.fileno() < 0:
                    continue
                if self._links.pop(end.fileno(), None) is not None:
                    self._epoll.unregister(end)
                end.close()


@functools.cache
def shared() -> Relay:
    """Return the process's relay."""
    return Relay()


def _write(end: socket.socket, flow: _Flow) -> None:
    while flow.pending:
        try:
            flow.pending = flow.pending[end.send(flow.pending) :]
        except BlockingIOError:
            return


def _listen() -> tuple[socket.socket, int]:
    """Return a listener, and a descriptor of its inode, which has no name: only /proc/self/fd leads there."""
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.socket(socket.AF_UNIX))
        with (
            tempfile.TemporaryDirectory(prefix="turtles-") as folder,
            closing(os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as directory,
        ):
            listener.bind(f"/proc/self/fd/{directory}/s")  # the folder's own path may be too long
            inode = os.open("s", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            opened.callback(os.close, inode)
        listener.listen(1)
        listener.setblocking(False)
        opened.pop_all()
    return listener, inode
