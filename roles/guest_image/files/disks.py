# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that a BIOS boots: a FAT partition with SYSLINUX, and an ext4 partition."""

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from building import run

MIB = 1 << 20
SECTOR = 512
PARTITIONS_START = MIB
FAT_TYPE, LINUX_TYPE = 0x0E, 0x83


@dataclass(frozen=True)
class Partition:
    """A primary partition; positions in bytes."""

    start: int
    size: int
    kind: int
    bootable: bool = False


def master_boot_record(code: bytes, partitions: Iterable[Partition]) -> bytes:
    """The first sector of a BIOS disk. Addresses are LBA only; the CHS fields say "too big"."""
    entries = [
        struct.pack(
            "<B3sB3sII",
            0x80 if partition.bootable else 0,
            b"\xfe\xff\xff",
            partition.kind,
            b"\xfe\xff\xff",
            partition.start // SECTOR,
            partition.size // SECTOR,
        )
        for partition in partitions
    ]
    if len(code) > 440 or len(entries) > 4:
        raise ValueError("a master boot record holds 440 bytes of code and four partitions")
    return code.ljust(446, b"\0") + b"".join(entries).ljust(64, b"\0") + b"\x55\xaa"


def make_disk(raw: Path, boot: dict[str, Path], root: Path, label: str, boot_size: int, root_size: int) -> None:
    """A raw BIOS disk: a FAT partition with SYSLINUX and the boot files, an ext4 partition with the tree."""
    boot_partition = Partition(PARTITIONS_START, boot_size, FAT_TYPE, bootable=True)
    root_partition = Partition(PARTITIONS_START + boot_size, root_size, LINUX_TYPE)
    code = Path("/usr/lib/syslinux/mbr/mbr.bin").read_bytes()
    with raw.open("wb") as disk:
        disk.write(master_boot_record(code, (boot_partition, root_partition)))
        disk.truncate(PARTITIONS_START + boot_size + root_size)
    fat = f"{raw}@@{boot_partition.start}"
    quiet = {**os.environ, "MTOOLS_SKIP_CHECK": "1"}
    heads, sectors = 64, 32
    run(
        *("mformat", "-i", fat, "-T", str(boot_size // SECTOR), "-h", str(heads), "-s", str(sectors)),
        *("-H", str(boot_partition.start // SECTOR), "-N", "74757274", "-v", "BOOT", "::"),
        env=quiet,
    )
    for name, path in boot.items():
        run("mcopy", "-i", fat, path, f"::{name}", env=quiet)
    run("syslinux", "--install", "--offset", str(boot_partition.start), raw, env=quiet)
    run(
        *("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-L", label, "-d", root),
        *("-J", "size=4", "-E", f"offset={root_partition.start},root_owner=0:0,lazy_itable_init=1"),
        *(raw, f"{root_size // 1024}k"),
    )


def boot_configuration(kernel: str, initrd: str, command_line: str) -> str:
    """syslinux.cfg that boots at once."""
    entry = f"LABEL linux\n LINUX {kernel}\n INITRD {initrd}\n APPEND {command_line}\n"
    return f"DEFAULT linux\nPROMPT 0\n{entry}"


def convert(raw: Path, qcow2: Path) -> Path:
    """Replace a raw disk by one in the format qcow2."""
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
    raw.unlink()
    return qcow2
