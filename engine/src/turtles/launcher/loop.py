# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's event loop, in which a launcher does everything, with handlers that are plain functions."""

import os
import signal
from collections.abc import Callable, Iterable

import libvirt


def initialize() -> None:
    """Set up the loop; to be called before the first connection to libvirt."""
    libvirt.virEventRegisterDefaultImpl()


def step() -> None:
    """Wait for the next event and handle it."""
    libvirt.virEventRunDefaultImpl()


def on_readable(descriptor: int, call: Callable[[], None]) -> Callable[[], None]:
    """Call a function whenever a descriptor is readable; return what stops that."""
    watch = libvirt.virEventAddHandle(descriptor, libvirt.VIR_EVENT_HANDLE_READABLE, lambda *_: call(), None)
    return lambda: libvirt.virEventRemoveHandle(watch)


def every(seconds: float, call: Callable[[], None]) -> Callable[[], None]:
    """Call a function repeatedly; return what stops that."""
    timer = libvirt.virEventAddTimeout(_milliseconds(seconds), lambda *_: call(), None)
    return lambda: libvirt.virEventRemoveTimeout(timer)


def after(seconds: float, call: Callable[[], None]) -> None:
    """Call a function once."""

    def fire(timer: int, opaque: object) -> None:
        libvirt.virEventRemoveTimeout(timer)
        call()

    libvirt.virEventAddTimeout(_milliseconds(seconds), fire, None)


def on_signals(numbers: Iterable[int], call: Callable[[], None]) -> None:
    """Call a function after each of these signals."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in numbers:
        # Without a handler the kernel ignores it for process 1; the work is done where the pipe is read.
        signal.signal(number, lambda *_: None)

    def read() -> None:
        os.read(reader, 64)
        call()

    on_readable(reader, read)


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))
