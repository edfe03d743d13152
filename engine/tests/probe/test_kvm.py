# SPDX-License-Identifier: GPL-3.0-or-later
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from turtles.probe import kvm

SOURCE = files("turtles.probe").joinpath("probe.S")
needs_qemu = pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="needs QEMU")


@needs_qemu
def test_emulation_gets_through() -> None:
    """The positive control: a processor that works passes."""
    result = kvm.probe("tcg", limit=20)
    assert result.ok, result
    assert result.stages == kvm.ALL_STAGES


@needs_qemu
def test_a_stuck_guest_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "_JUMP_TO_START", bytes.fromhex("ebfe"))  # jmp to itself
    result = kvm.probe("tcg", limit=0.5)
    assert not result.ok
    assert result.seconds < 3
    assert "stuck" in result.message


@needs_qemu
def test_an_unusable_accelerator() -> None:
    result = kvm.probe("xen", limit=5)
    assert not result.ok
    assert result.message


def test_no_emulator() -> None:
    result = kvm.probe("tcg", emulator="/nonexistent/qemu")
    assert not result.ok
    assert "/nonexistent/qemu" in result.message


def test_image() -> None:
    image = kvm.rom_image(b"\x90")
    assert len(image) == 65536
    assert image[0xFFF0:0xFFF5] == bytes.fromhex("ea000000f0")


@pytest.mark.skipif(not all(map(shutil.which, ("as", "ld", "objcopy"))), reason="needs binutils")
def test_the_binary_is_what_the_source_says(tmp_path: Path) -> None:
    steps = [
        ["as", "--64", str(SOURCE), "-o", "probe.o"],
        ["ld", "-Ttext=0xf0000", "-e", "start", "probe.o", "-o", "probe.elf"],
        ["objcopy", "-O", "binary", "-j", ".text", "probe.elf", "probe.bin"],
    ]
    for step in steps:
        subprocess.run(step, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "probe.bin").read_bytes() == files("turtles.probe").joinpath("probe.bin").read_bytes()
