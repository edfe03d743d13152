# SPDX-License-Identifier: GPL-3.0-or-later
"""Does KVM really run a guest on this node?

A /dev/kvm that opens, and even one that satisfies libvirt, may hang a guest (nested virtualisation, containers). So a
guest is run: a ROM of a few hundred bytes (``probe.S``) that uses paging, exceptions and interrupts and then ends QEMU
with a certain status.
"""

import os
import subprocess
import time
from dataclasses import dataclass
from importlib.resources import files

#: Seconds after which a guest that hasn't finished counts as stuck. Emulation needs a tenth of that.
LIMIT = 3.0
#: What isa-debug-exit makes of the value the ROM writes: (0x2a << 1) | 1.
_SUCCESS = 85
#: The stages a guest reports when it gets to the end, see ``probe.S``.
ALL_STAGES = "RPLITC"
_ROM_SIZE = 0x10000
_RESET_VECTOR = 0xFFF0
_JUMP_TO_START = bytes.fromhex("ea000000f0")  # jmp f000:0000


@dataclass(frozen=True)
class Result:
    """Outcome of a probe: whether the guest finished, which stages it reached, how long it took, what went wrong."""

    ok: bool
    stages: str
    seconds: float
    message: str


def rom_image(code: bytes) -> bytes:
    """Return the 64 KiB boot ROM made of the assembled *code*."""
    image = bytearray(b"\xf4" * _ROM_SIZE)  # hlt
    image[: len(code)] = code
    image[_RESET_VECTOR : _RESET_VECTOR + len(_JUMP_TO_START)] = _JUMP_TO_START
    return bytes(image)


def probe(accelerator: str = "kvm", *, emulator: str = "qemu-system-x86_64", limit: float = LIMIT) -> Result:
    """Run the ROM under an accelerator ("kvm" or "tcg") for at most *limit* seconds."""
    started = time.monotonic()
    rom = os.memfd_create("probe-rom")
    console_read, console_write = os.pipe()
    try:
        os.write(rom, rom_image(files("turtles.probe").joinpath("probe.bin").read_bytes()))
        command = (
            f"{emulator} -nodefaults -accel {accelerator} -machine pc -m 16 -display none -no-reboot "
            f"-bios /dev/fd/{rom} -device isa-debug-exit,iobase=0x501,iosize=4 "
            f"-chardev file,id=stages,path=/dev/fd/{console_write} -device isa-debugcon,iobase=0x402,chardev=stages"
        )
        try:
            done = subprocess.run(
                command.split(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(rom, console_write),
                timeout=limit,
                check=False,
            )
            status, message = done.returncode, done.stderr.decode(errors="replace").strip()[-500:]
        except subprocess.TimeoutExpired:
            status, message = None, f"the guest was stuck after {limit:g} s"
        except OSError as error:
            status, message = None, f"{emulator}: {error.strerror}"
        os.set_blocking(console_read, False)
        try:
            stages = os.read(console_read, 64).decode(errors="replace")
        except BlockingIOError:
            stages = ""
    finally:
        for descriptor in (rom, console_read, console_write):
            os.close(descriptor)
    ok = status == _SUCCESS and stages == ALL_STAGES
    return Result(ok, stages, time.monotonic() - started, "" if ok else message or f"QEMU ended with status {status}")
