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
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import container_disk
from building import BuildError, run, say
from debian_packages import KERNEL_META_PACKAGE, Apt, candidate, guest_kernel, installed_versions
from disks import MIB, boot_configuration, convert, make_disk
from kernel_modules import CHECKSUMS, Modules
from trees import add_busybox, add_modules, add_program, cpio, install, installed_program

HERE = Path(__file__).resolve().parent
TINY_PACKAGES = ("busybox-static", "dropbear-bin", "libc6", "syslinux-common")
AGENT_PACKAGE = "qemu-guest-agent"
TINY_BOOT_SIZE = 24 * MIB
TINY_ROOT_SIZE = 96 * MIB
# What it takes to mount a disk on any bus that KubeVirt's API has: virtio, sata, scsi, usb.
BOOT_DRIVERS = ("virtio_pci", "virtio_blk", "virtio_scsi", "ahci", "xhci_pci", "usb_storage", "uas", "sd_mod", "ext4")
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
        install(HERE / "tiny.sh", initramfs / "init")
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
        install(HERE / "tiny.sh", root / "bin/rc")
        for name in ("dhcp", "power-button", "shutdown"):
            (root / "bin" / name).unlink(missing_ok=True)
            (root / "bin" / name).symlink_to("rc")
        programs = [installed_program("dropbear"), installed_program("dropbearkey")]
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
        return convert(raw, scratch / "disk.qcow2")

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
        return convert(raw, scratch / "disk.qcow2")

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
