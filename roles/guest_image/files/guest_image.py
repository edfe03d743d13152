#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a guest's disk and pack it as a containerDisk image (an OCI archive).

    guest_image.py tiny   --output tiny.tar [--agent] [--kernel-release trixie] [--cache FOLDER]
    guest_image.py debian --output debian.tar [--release bookworm] [--mirror URL] [--packages a,b]
    guest_image.py file   --output app.tar --disk app.qcow2

``tiny`` is Debian's kernel with busybox and dropbear: it boots from a BIOS disk on any bus, takes a NoCloud seed and
answers to SSH in seconds. Its kernel doesn't depend on this machine's release. ``debian`` is a minimal Debian with
cloud-init, OpenSSH and the QEMU guest agent.
``file`` packs a disk that exists. No daemon, no loop device and no mount is used; the only network is apt's.

An archive is made again only when its inputs changed: versions of the packages, options, these programs, the disk.
Progress goes to stderr, the result as one JSON object to stdout: changed, archive, reference, digest, seconds.
"""

import argparse
import gzip
import hashlib
import json
import lzma
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import container_disk

HERE = Path(__file__).resolve().parent
MIB = 1 << 20
SECTOR = 512
PARTITIONS_START = MIB
FAT_TYPE, LINUX_TYPE = 0x0E, 0x83
SIGNATURE_MAGIC, SIGNATURE_HEADER = b"~Module signature appended~\n", 12

# The "cloud" flavour has no USB and no emulated NICs, and in Debian 12 no AHCI either.
KERNEL_META_PACKAGE = "linux-image-amd64"
TINY_PACKAGES = ("busybox-static", "dropbear-bin", "libc6", "syslinux-common")
AGENT_PACKAGE = "qemu-guest-agent"
TINY_BOOT_SIZE = 24 * MIB
TINY_ROOT_SIZE = 96 * MIB
#: Seconds after which another release's package lists are fetched again.
LISTS_KEPT = 86400
# What it takes to mount a disk on any bus that KubeVirt's API has: virtio, sata, scsi, usb.
BOOT_DRIVERS = ("virtio_pci", "virtio_blk", "virtio_scsi", "ahci", "xhci_pci", "usb_storage", "uas", "sd_mod", "ext4")
# What ext4 asks for by the name of the algorithm. It is a module up to Linux 6.13.
CHECKSUMS = "crc32c_generic"
# What is loaded from the disk: the API's NIC models (rtl8139 is 8139cp; igb needs QEMU 8), other devices, file systems.
ROOT_DRIVERS = (
    *("virtio_net", "e1000", "e1000e", "igb", "8139cp", "ne2k_pci", "pcnet32"),
    *("virtio_rng", "virtio_balloon", "virtio_console", "virtio_input", "i6300esb", "usbhid", "hid_generic"),
    *("button", "evdev", "sr_mod", "isofs", "virtiofs", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "nls_utf8"),
)
# Under emulation half of the boot is the kernel's own. Nothing here needs self-tests, a random number generator made of
# jitter, certificates for modules, or locks turned into those of one processor. The self-tests also need more memory
# than anything else in this guest. usb_storage would wait a second before it looks at a disk.
KERNEL_COMMAND_LINE = (
    "console=tty0 console=ttyS0,115200 quiet net.ifnames=0 panic=5 nokaslr cryptomgr.notests noreplace-smp "
    "initcall_blacklist=jent_mod_init,load_system_certificate_list usb_storage.delay_use=0"
)

INITTAB = """\
::sysinit:/bin/rc
::respawn:/bin/power-button
ttyS0::respawn:/bin/getty -L 115200 ttyS0 vt100
::ctrlaltdel:/bin/shutdown -r
"""
# root without a password is for the serial console; dropbear refuses empty passwords.
TINY_FILES = {
    "etc/inittab": INITTAB,
    "etc/passwd": "root::0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\ntty:x:5:\n",
    "etc/shells": "/bin/sh\n",
    "etc/hostname": "tiny\n",
    "etc/os-release": 'ID=tiny\nNAME="tiny"\nPRETTY_NAME="tiny guest (Debian kernel, busybox)"\nID_LIKE=debian\n',
}
TINY_DIRECTORIES = ("dev", "proc", "sys", "run", "tmp", "mnt", "seed", "etc/dropbear", "var/log", "var/lib")

DEBIAN_PACKAGES = (
    *(KERNEL_META_PACKAGE, "initramfs-tools", "systemd-sysv", "udev", "dbus", "netplan.io", "cloud-init"),
    *("openssh-server", "qemu-guest-agent", "cloud-guest-utils", "e2fsprogs", "iproute2", "iputils-ping", "sudo"),
    *("ca-certificates", "zstd"),
)
# Two fifths of the kernel's modules are for hardware that no virtual machine has.
DEBIAN_WITHOUT = (
    *("drivers/gpu/drm/amd", "drivers/gpu/drm/i915", "drivers/gpu/drm/nouveau", "drivers/gpu/drm/radeon"),
    *("drivers/iio", "drivers/infiniband", "drivers/media", "drivers/net/wireless", "drivers/staging", "sound"),
)
DEBIAN_BOOT_SIZE = 96 * MIB


class BuildError(Exception):
    """The image can't be made; the message says why and what to do."""


def say(message: str) -> None:
    """Progress for people."""
    print(f"guest_image: {message}", file=sys.stderr, flush=True)


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a program; its output, or a BuildError with what it said."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BuildError(f"the program {words[0]} is missing: install the role's packages") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise BuildError(f"{' '.join(words[:4])} failed with status {done.returncode}: {said}")
    return done.stdout


# -- packages ---------------------------------------------------------------------------------------------------


def parse_kernel_package(show: str) -> str:
    """The kernel package, as "name=version", that ``apt-cache show`` of the meta package depends on."""
    match = re.search(r"^Depends:.*?\b(linux-image-\d\S*)(?: \(= (\S+?)\))?(?:,|$)", show, re.MULTILINE)
    version = re.search(r"^Version: (\S+)", show, re.MULTILINE)
    if not match or not version:
        raise BuildError(f"apt knows no kernel behind {KERNEL_META_PACKAGE}: run apt-get update, check the sources")
    return f"{match[1]}={match[2] or version[1]}"


class Apt:
    """apt with this machine's sources.

    :param configuration: a file that makes it look elsewhere.
    """

    def __init__(self, configuration: Path | None = None) -> None:
        self._env = {**os.environ, **({"APT_CONFIG": str(configuration)} if configuration else {})}

    def run(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        """Run apt-get or apt-cache; its output."""
        return run(program, *arguments, cwd=cwd, env=self._env)

    def kernel(self) -> str:
        """Name and version of the newest kernel it can download, as "name=version"."""
        return parse_kernel_package(self.run("apt-cache", "show", "--no-all-versions", KERNEL_META_PACKAGE))

    def unpack(self, package: str, directory: Path) -> None:
        """Download a package and unpack it into the directory; nothing is installed."""
        with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
            # apt drops privileges for downloads; a folder that only root may enter draws a warning.
            Path(scratch).chmod(0o755)
            self.run("apt-get", "download", "-q", package, cwd=Path(scratch))
            (archive,) = Path(scratch).glob("*.deb")
            directory.mkdir(parents=True, exist_ok=True)
            run("dpkg-deb", "-x", archive, directory)


def release_sources(targets: str, release: str) -> str:
    """apt sources of another Debian release, from the mirrors that this machine's sources have for its own.

    :param targets: a line ``URI|suite|codename|component|keyring`` per index of binary packages, from ``apt-get
        indextargets``. The codename is of the form release, release-updates or release-security.
    :raises BuildError: if there is no Debian mirror among them.
    """
    lines: list[str] = []
    for target in targets.split():
        uri, codename, component, keyring = target.split("|")
        _own, dash, part = codename.partition("-")
        if component != "main" or part not in ("", "updates", "security"):
            continue
        # apt leaves a field that isn't there as it was asked for.
        options = f" [signed-by={keyring}]" if keyring.startswith("/") else ""
        line = f"deb{options} {uri} {release}{dash}{part} main"
        if line not in lines:
            lines.append(line)
    if not lines:
        raise BuildError("no Debian mirror is among the sources of apt on this machine")
    return "".join(f"{line}\n" for line in lines)


def kernel_of_release(release: str, folder: Path) -> tuple[Apt, str]:
    """apt for another Debian release, and its kernel. Its package lists are in the folder, apart from the machine's.

    :raises BuildError: if the release can't be had from this machine's mirrors.
    """
    fields = ("REPO_URI", "CODENAME", "COMPONENT", "SIGNED_BY")
    targets = run(
        *("apt-get", "indextargets", "--format", "|".join(f"$({field})" for field in fields)),
        *("Created-By: Packages", "Origin: Debian"),
    )
    folder = folder.absolute() / release
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    sources, configuration, newest = folder / "sources.list", folder / "apt.conf", folder / "kernel"
    wanted = release_sources(targets, release)
    configuration.write_text(
        f'Dir::Etc::sourcelist "{sources}";\n'
        'Dir::Etc::sourceparts "/dev/null";\n'
        f'Dir::State::lists "{folder}/lists";\n'
        f'Dir::Cache "{folder}";\n'
        'Dir::State::status "/dev/null";\n'
        'Acquire::Languages "none";\n'
        'APT::Sandbox::User "root";\n'
        # Those of e.g. apt-file, appstream and command-not-found would be fetched too.
        'Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";\n'
    )
    apt = Apt(configuration)
    # apt takes seconds to read its lists, so its answer is kept with them.
    known = newest.exists() and sources.exists() and sources.read_text() == wanted
    if not known or time.time() - newest.stat().st_mtime > LISTS_KEPT:
        sources.write_text(wanted)
        try:
            apt.run("apt-get", "update", "-q=2", "--error-on=any")
            newest.write_text(apt.kernel())
        except BuildError as error:
            if not known:
                newest.unlink(missing_ok=True)
                raise
            say(f"package lists of {release} couldn't be refreshed: {error}")
    return apt, newest.read_text()


def guest_kernel(release: str, cache: Path) -> tuple[Apt, str]:
    """Where the guest's kernel comes from, and its name and version.

    :param release: the Debian release to take it from; this machine's own if empty, or if it can't be had.
    """
    if release:
        try:
            return kernel_of_release(release, cache)
        except BuildError as error:
            say(f"no kernel of {release}, so this machine's release provides it: {error}")
    return Apt(), Apt().kernel()


def candidate(package: str) -> str:
    """The version apt would install."""
    match = re.search(r"^\s*Candidate: (\S+)", run("apt-cache", "policy", package), re.MULTILINE)
    if not match or match[1] == "(none)":
        raise BuildError(f"apt knows no package {package}: run apt-get update, check the sources")
    return match[1]


def installed_versions(packages: Iterable[str]) -> list[str]:
    """Versions of installed packages, as "name=version"."""
    return sorted(run("dpkg-query", "-W", "-f", "${Package}=${Version}\n", *packages).split())


# -- kernel modules ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Module:
    """A kernel module: its code, the names of modules it depends on, the devices and features it is known for."""

    code: bytes
    depends: tuple[str, ...]
    aliases: tuple[str, ...]


def without_signature(code: bytes) -> bytes:
    """Remove the signature appended to a module (Linux, include/linux/module_signature.h).

    An emulated guest would spend a second on checking them; without Secure Boot a kernel loads modules that have none.
    """
    if not code.endswith(SIGNATURE_MAGIC):
        return code
    length = int.from_bytes(code[-len(SIGNATURE_MAGIC) - 4 : -len(SIGNATURE_MAGIC)], "big")
    return code[: -len(SIGNATURE_MAGIC) - SIGNATURE_HEADER - length]


def read_module(path: Path) -> Module:
    """Read a module's file, whatever it is compressed with, and its .modinfo section."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        data = lzma.decompress(data)
    elif path.suffix == ".gz":
        data = gzip.decompress(data)
    elif path.suffix != ".ko":
        raise BuildError(f"the kernel module {path.name} is compressed as {path.suffix}; .xz, .gz or none is expected")
    depends = [name for found in re.findall(rb"\0depends=([^\0]*)", data) for name in found.decode().split(",") if name]
    aliases = [alias.decode(errors="replace") for alias in re.findall(rb"\0alias=([^\0]+)", data)]
    return Module(without_signature(data), tuple(depends), tuple(dict.fromkeys(aliases)))


class Modules:
    """The modules of an unpacked kernel package, by name. Names have underscores where files may have hyphens.

    :raises BuildError: if it isn't a kernel package as we know it.
    """

    def __init__(self, root: Path) -> None:
        # Debian 12 has them in /lib, Debian 13 in /usr/lib and compressed.
        folders = [*root.glob("lib/modules/*/kernel"), *root.glob("usr/lib/modules/*/kernel")]
        if len(folders) != 1:
            raise BuildError(f"the kernel package has {len(folders)} folders lib/modules/*/kernel; one was expected")
        self.version = folders[0].parent.name
        self._files = {
            path.name.partition(".ko")[0].replace("-", "_"): path
            for path in folders[0].rglob("*")
            if re.search(r"\.ko(\.\w+)?$", path.name)
        }
        builtin = folders[0].parent / "modules.builtin"
        lines = builtin.read_text().split() if builtin.exists() else []
        self._builtin = {Path(line).stem.replace("-", "_") for line in lines}
        self._read: dict[str, Module] = {}

    def __getitem__(self, name: str) -> Module:
        """Return a module that has a file."""
        if name not in self._read:
            self._read[name] = read_module(self._files[name])
        return self._read[name]

    def with_dependencies(self, wanted: Iterable[str]) -> list[str]:
        """Return the wanted modules and what they depend on, dependencies first, without those that are built in.

        :raises BuildError: if the kernel doesn't have one of them: without its driver a guest may not find its disk.
        """
        order: list[str] = []

        def visit(name: str) -> None:
            name = name.replace("-", "_")
            if name in self._builtin or name in order or (name == CHECKSUMS and name not in self._files):
                return
            if name not in self._files:
                raise BuildError(f"the kernel {self.version} has no driver {name}, neither built in nor as a module")
            for dependency in self[name].depends:
                visit(dependency)
            order.append(name)

        for name in wanted:
            visit(name)
        return order


# -- trees, initramfs, disks --------------------------------------------------------------------------------------


def libraries(binary: Path) -> list[Path]:
    """Shared libraries (and the loader) a program needs on this machine."""
    output = run("ldd", binary)
    if missing := re.findall(r"(\S+) => not found", output):
        raise BuildError(f"{binary.name} needs libraries this machine doesn't have: {', '.join(missing)}")
    return [Path(path) for path in re.findall(r"(/\S+\.so\S*) \(", output)]


def add_program(root: Path, binary: Path) -> None:
    """Put a program into a usr-merged tree, with its libraries."""
    shutil.copy(binary, root / "bin" / binary.name)
    for library in libraries(binary):
        # The loader's path is part of the program, so each library keeps the path it is known by.
        relative = Path(*library.parts[1:])
        if relative.parts[0] == "usr":
            relative = relative.relative_to("usr")
        target = root / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy(library.resolve(), target)


def add_busybox(root: Path) -> None:
    """Put busybox and a link for each of its commands into bin."""
    busybox = Path(shutil.which("busybox") or "/bin/busybox")
    (root / "bin").mkdir(parents=True, exist_ok=True)
    shutil.copy(busybox, root / "bin/busybox")
    for applet in run(busybox, "--list").split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")


def add_modules(root: Path, names: list[str], modules: Modules) -> None:
    """Put modules into lib/modules, with what modprobe needs to know which device and which module needs which."""
    directory = root / "lib/modules" / modules.version
    directory.mkdir(parents=True, exist_ok=True)
    dependencies, aliases = [], []
    for name in names:
        (directory / f"{name}.ko").write_bytes(modules[name].code)
        # All that has to be there before, the last to be loaded first, as depmod writes it.
        needed = [n for n in reversed(modules.with_dependencies([name])) if n != name]
        dependencies.append(" ".join([f"{name}.ko:", *(f"{n}.ko" for n in needed)]))
        aliases.extend(f"alias {alias} {name}" for alias in modules[name].aliases)
    for file, lines in (("modules.dep", dependencies), ("modules.alias", aliases)):
        (directory / file).write_text("".join(f"{line}\n" for line in lines))


def cpio(root: Path) -> bytes:
    """A tree as a "newc" cpio archive, all owned by root, sorted, without times: what the kernel unpacks at boot."""
    parts: list[bytes] = []

    def add(inode: int, name: str, mode: int, data: bytes) -> None:
        encoded = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % value for value in fields) + encoded
        parts.extend((header, bytes(-len(header) % 4), data, bytes(-len(data) % 4)))

    for inode, path in enumerate(sorted(root.rglob("*")), start=1):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            data = str(path.readlink()).encode()
        else:
            data = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        add(inode, path.relative_to(root).as_posix(), status.st_mode, data)
    add(0, "TRAILER!!!", 0, b"")
    return b"".join(parts)


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


# -- guests -------------------------------------------------------------------------------------------------------


@dataclass
class Recipe:
    """How one kind of image is made: what it depends on, and what makes its disk in a scratch folder."""

    disk_name: str
    inputs: list[str]
    make: Callable[[Path], Path]


def tiny_recipe(arguments: argparse.Namespace) -> Recipe:
    """The tiny guest. Inputs are the versions of everything that goes into it."""
    apt, kernel = guest_kernel(arguments.kernel_release, arguments.cache)
    inputs = [kernel, *installed_versions(TINY_PACKAGES)]
    if arguments.agent:
        inputs.append(f"{AGENT_PACKAGE}={candidate(AGENT_PACKAGE)}")

    def make(scratch: Path) -> Path:
        say(f"kernel {kernel}")
        package = scratch / "kernel"
        apt.unpack(kernel, package)
        (image,) = package.glob("boot/vmlinuz-*")
        modules = Modules(package)

        say("initramfs")
        initramfs = scratch / "initramfs"
        for name in ("dev", "proc", "sys", "mnt"):
            (initramfs / name).mkdir(parents=True)
        add_busybox(initramfs)
        # The kernel calls /sbin/modprobe for what it asks for by name.
        (initramfs / "sbin").symlink_to("bin")
        add_modules(initramfs, modules.with_dependencies([*BOOT_DRIVERS, CHECKSUMS]), modules)
        _install(HERE / "tiny.sh", initramfs / "init")
        initrd = scratch / "initrd.gz"
        initrd.write_bytes(gzip.compress(cpio(initramfs), compresslevel=6, mtime=0))

        say("root filesystem")
        root = scratch / "root"
        for name in TINY_DIRECTORIES:
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "root/.ssh").mkdir(parents=True, mode=0o700)
        (root / "root").chmod(0o700)
        add_busybox(root)
        for link, target in (("sbin", "bin"), ("usr/bin", "../bin"), ("usr/sbin", "../bin"), ("usr/lib", "../lib")):
            (root / link).parent.mkdir(exist_ok=True)
            (root / link).symlink_to(target)
        for name, content in TINY_FILES.items():
            (root / name).write_text(content)
        _install(HERE / "tiny.sh", root / "bin/rc")
        for name in ("dhcp", "power-button", "shutdown"):
            (root / "bin" / name).unlink(missing_ok=True)
            (root / "bin" / name).symlink_to("rc")
        programs = [_program("dropbear"), _program("dropbearkey")]
        if arguments.agent:
            say("guest agent")
            Apt().unpack(AGENT_PACKAGE, scratch / "agent")
            programs.append(scratch / "agent/usr/sbin/qemu-ga")
        for program in programs:
            add_program(root, program)
        add_modules(root, modules.with_dependencies([*BOOT_DRIVERS, CHECKSUMS, *ROOT_DRIVERS]), modules)

        say("disk")
        configuration = scratch / "syslinux.cfg"
        configuration.write_text(boot_configuration("/vmlinuz", "/initrd.gz", KERNEL_COMMAND_LINE))
        raw = scratch / "disk.raw"
        boot = {"vmlinuz": image, "initrd.gz": initrd, "syslinux.cfg": configuration}
        make_disk(raw, boot, root, "tiny-root", TINY_BOOT_SIZE, TINY_ROOT_SIZE)
        return _convert(raw, scratch / "disk.qcow2")

    return Recipe("tiny.qcow2", inputs, make)


def debian_recipe(arguments: argparse.Namespace) -> Recipe:
    """A minimal Debian with cloud-init. Made again when the release, its packages' list or the kernel changes."""
    packages = sorted({*DEBIAN_PACKAGES, *filter(None, arguments.packages.split(","))})
    size = arguments.size_mib * MIB
    inputs = [arguments.release, arguments.mirror, str(arguments.size_mib), Apt().kernel(), *packages]

    def make(scratch: Path) -> Path:
        root = scratch / "root"
        say(f"mmdebstrap {arguments.release}: {len(packages)} packages and their dependencies, one or two minutes")
        run(
            *("mmdebstrap", "--variant=minbase", f"--include={','.join(packages)}"),
            *_debian_hooks(),
            *(arguments.release, root, *filter(None, [arguments.mirror])),
        )
        say("disk")
        (image,) = root.glob("boot/vmlinuz-*")
        (initrd,) = root.glob("boot/initrd.img-*")
        configuration = scratch / "syslinux.cfg"
        command_line = "root=LABEL=debian-root ro console=tty0 console=ttyS0,115200 net.ifnames=0"
        configuration.write_text(boot_configuration("/vmlinuz", "/initrd.img", command_line))
        raw = scratch / "disk.raw"
        boot = {"vmlinuz": image, "initrd.img": initrd, "syslinux.cfg": configuration}
        make_disk(raw, boot, root, "debian-root", DEBIAN_BOOT_SIZE, size)
        return _convert(raw, scratch / "disk.qcow2")

    return Recipe("debian.qcow2", inputs, make)


def _debian_hooks() -> Iterator[str]:
    drivers = (f"*/lib/modules/*/kernel/{folder}/*" for folder in DEBIAN_WITHOUT)
    for path in ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", *drivers):
        yield f"--dpkgopt=path-exclude={path}"
    yield "--aptopt=APT::Install-Recommends false"
    yield "--aptopt=Acquire::Languages none"
    # The initramfs holds what a virtual machine's disk needs, not what this machine's has.
    yield '--essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d"'
    yield '--essential-hook=echo MODULES=list >"$1/etc/initramfs-tools/conf.d/modules"'
    modules = " ".join((*BOOT_DRIVERS, "sr_mod", "isofs"))
    yield f'--customize-hook=printf "%s\\n" {modules} >"$1/etc/initramfs-tools/modules"'
    yield '--customize-hook=chroot "$1" update-initramfs -u'
    yield '--customize-hook=echo "LABEL=debian-root / ext4 defaults,noatime 0 1" >"$1/etc/fstab"'
    # Without a locale that exists cloud-init ends in the status "error".
    yield (
        "--customize-hook=printf '%s\\n' 'datasource_list: [NoCloud, ConfigDrive, None]' 'locale: C.UTF-8' "
        '>"$1/etc/cloud/cloud.cfg.d/90_turtles.cfg"'
    )
    yield '--customize-hook=chroot "$1" systemctl enable systemd-networkd'
    yield '--customize-hook=: >"$1/etc/machine-id"; rm -f "$1"/etc/ssh/ssh_host_*'


def file_recipe(arguments: argparse.Namespace) -> Recipe:
    """A disk that exists, as it is. A backing file would be missing in the image, so there must be none."""
    disk: Path = arguments.disk
    if not disk.is_file():
        raise BuildError(f"{disk}: no such file")
    with disk.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()

    def make(scratch: Path) -> Path:
        del scratch
        facts = json.loads(run("qemu-img", "info", "--output=json", disk))
        if facts["format"] not in {"qcow2", "raw"}:
            raise BuildError(f"{disk} is {facts['format']}: convert it with qemu-img convert -O qcow2 first")
        if "backing-filename" in facts:
            backing = facts["backing-filename"]
            raise BuildError(f"{disk} has the backing file {backing}: flatten it with qemu-img convert")
        return disk

    return Recipe(disk.name, [digest], make)


def _program(name: str) -> Path:
    path = shutil.which(name)
    if not path:
        raise BuildError(f"the program {name} is missing: install the role's packages")
    return Path(path)


def _install(source: Path, target: Path) -> None:
    shutil.copy(source, target)
    target.chmod(0o755)


def _convert(raw: Path, qcow2: Path) -> Path:
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
    raw.unlink()
    return qcow2


# -- command line -------------------------------------------------------------------------------------------------


def fingerprint(recipe: Recipe, kind: str) -> str:
    """What stands for all inputs of an image, the programs that make it included."""
    digest = hashlib.sha256()
    for program in [*sorted(HERE.glob("*.py")), HERE / "tiny.sh"]:
        digest.update(hashlib.sha256(program.read_bytes()).digest())
    digest.update("\n".join([kind, recipe.disk_name, *recipe.inputs]).encode())
    return digest.hexdigest()


def build(arguments: argparse.Namespace) -> dict[str, object]:
    """Make the image unless the archive holds it already; see the module's text for the result."""
    started = time.monotonic()
    archive: Path = arguments.output.absolute()
    recipe: Recipe = arguments.recipe(arguments)
    inputs = fingerprint(recipe, arguments.kind)
    changed = container_disk.read_inputs(archive) != inputs
    digest = ""
    if changed and not arguments.check:
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=archive.parent, prefix=f".{archive.stem}-") as scratch:
            Path(scratch).chmod(0o755)
            disk = recipe.make(Path(scratch))
            say("packing")
            digest = container_disk.pack(disk, archive, recipe.disk_name, inputs)
        say(f"{archive} done in {time.monotonic() - started:.1f} s")
    elif not changed:
        digest = container_disk.read_digest(archive)
    return {
        "changed": changed,
        "archive": str(archive),
        "reference": f"oci-archive:{archive}",
        "digest": digest,
        "seconds": round(time.monotonic() - started, 1),
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description="Make a guest image and pack it as a containerDisk image.")
    kinds = result.add_subparsers(dest="kind", required=True)
    for name, recipe in (("tiny", tiny_recipe), ("debian", debian_recipe), ("file", file_recipe)):
        kind = kinds.add_parser(name)
        kind.set_defaults(recipe=recipe)
        kind.add_argument("--output", type=Path, required=True, help="the OCI archive to write")
        kind.add_argument("--check", action="store_true", help="only say whether the image would be made")
        if name == "tiny":
            kind.add_argument("--agent", action="store_true", help="with the QEMU guest agent")
            kind.add_argument(
                "--kernel-release",
                default="trixie",
                help="Debian release to take the kernel from, by this machine's mirrors; this machine's own if empty "
                "or if there is no such release (default: %(default)s)",
            )
            kind.add_argument(
                "--cache",
                type=Path,
                default=Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "turtles-guest-image",
                help="where that release's package lists are kept (default: %(default)s)",
            )
        elif name == "debian":
            kind.add_argument("--release", default="bookworm")
            kind.add_argument("--mirror", default="", help="default: the machine's own apt sources")
            kind.add_argument("--packages", default="", help="more packages, separated by commas")
            kind.add_argument("--size-mib", type=int, default=2048, help="size of the root filesystem")
        else:
            kind.add_argument("--disk", type=Path, required=True, help="a qcow2 or raw disk")
    return result


def main(argv: list[str] | None = None) -> int:
    """Entry point; 0, or 1 with the reason on stderr."""
    # mke2fs and others are not on the PATH that Debian gives to users, nor to those who become root with su.
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    try:
        print(json.dumps(build(parser().parse_args(argv))))
    except (BuildError, OSError) as error:
        print(f"guest_image: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
