# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells when a file appears in a folder (or goes) and when a process ends, on one thread, without polling."""

import contextlib
import ctypes
import logging
import os
import select
import struct
import threading
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

_IN_MOVED_FROM, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE = 0x40, 0x80, 0x100, 0x200
_IN_MASK_ADD, _IN_ONESHOT = 0x20000000, 0x80000000
_IN_NONBLOCK, _IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_LIBC = ctypes.CDLL(None, use_errno=True)


class Watcher:
    """Calls back, on its own thread, when a watched folder gets (or loses) an entry or a watched process ends."""

    def __init__(self) -> None:
        self._inotify = _LIBC.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        if self._inotify < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._lock = threading.Lock()
        self._folders: dict[int, set[Callable[[], None]]] = {}
        #: Watches of folders that the kernel ends with the first event.
        self._once: set[int] = set()
        self._processes: dict[int, Callable[[], None]] = {}
        self._epoll = select.epoll()
        self._epoll.register(self._inotify, select.EPOLLIN)
        #: Written to when the thread is to end.
        self._closing = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._closing, select.EPOLLIN)
        threading.Thread(target=self._run, name="watcher", daemon=True).start()

    def folder(self, path: Path, callback: Callable[[], None], *, removals: bool = False, once: bool = False) -> None:
        """Call *callback* whenever an entry appears in the folder; the same callback is kept once.

        :param removals: also when one disappears.
        :param once: only the next time: for an untrusted folder that may be filled without end.
        :raises OSError: if the folder can't be watched, above all because it doesn't exist.
        """
        with self._lock:
            mask = _IN_CREATE | _IN_MOVED_TO | (_IN_DELETE | _IN_MOVED_FROM if removals else 0)
            mask |= _IN_ONESHOT if once else _IN_MASK_ADD
            watch = _LIBC.inotify_add_watch(self._inotify, os.fsencode(path), ctypes.c_uint32(mask))
            if watch < 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), str(path))
            self._folders.setdefault(watch, set()).add(callback)
            if once:
                self._once.add(watch)

    def process(self, pid: int, callback: Callable[[], None]) -> int:
        """Call *callback* once when the process ends; return the descriptor that :meth:`forget_process` takes.

        :raises ProcessLookupError: if there is no such process.
        """
        descriptor = os.pidfd_open(pid)
        with self._lock:
            self._processes[descriptor] = callback
        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLONESHOT)
        return descriptor

    def forget_process(self, descriptor: int) -> None:
        """Stop watching a process."""
        with self._lock:
            if self._processes.pop(descriptor, None) is None:
                return
        with contextlib.suppress(OSError):
            self._epoll.unregister(descriptor)
        os.close(descriptor)

    def forget_folder(self, callback: Callable[[], None]) -> None:
        """Stop calling *callback* for any folder."""
        with self._lock:
            for watch, callbacks in list(self._folders.items()):
                callbacks.discard(callback)
                if not callbacks:
                    del self._folders[watch]
                    self._once.discard(watch)
                    # The folder may be gone, and its watch with it.
                    _LIBC.inotify_rm_watch(self._inotify, watch)

    def close(self) -> None:
        """Stop watching; it can't be used afterwards. A user has few inotify instances."""
        with self._lock:
            if self._inotify >= 0:
                os.eventfd_write(self._closing, 1)

    def _run(self) -> None:
        while True:
            for descriptor, _ in self._epoll.poll():
                if descriptor == self._closing:
                    return self._release()
                with self._lock:
                    if descriptor == self._inotify:
                        callbacks = self._called_for(self._read())
                    else:
                        callback = self._processes.get(descriptor)
                        callbacks = [callback] if callback else []
                for callback in callbacks:
                    try:
                        callback()
                    except Exception:
                        log.exception("callback failed")

    def _release(self) -> None:
        with self._lock:
            for each in (self._inotify, self._closing, *self._processes):
                os.close(each)
            self._inotify = -1
            self._folders.clear()
            self._processes.clear()
            self._epoll.close()

    def _called_for(self, watches: set[int]) -> list[Callable[[], None]]:
        if -1 in watches:  # the kernel had no room for all events: nobody knows whose are missing
            watches |= set(self._folders)
        callbacks = [callback for watch in watches for callback in self._folders.get(watch, ())]
        for watch in watches & self._once:
            self._once.discard(watch)
            self._folders.pop(watch, None)
            # There may have been no event of it
            _LIBC.inotify_rm_watch(self._inotify, watch)
        return callbacks

    def _read(self) -> set[int]:
        """Return the watches that something happened to; -1 stands for all."""
        watches = set()
        with contextlib.suppress(BlockingIOError):
            data, offset = os.read(self._inotify, 65536), 0
            while offset < len(data):
                watch, _, _, length = struct.unpack_from("iIII", data, offset)
                watches.add(watch)
                offset += 16 + length
        return watches
