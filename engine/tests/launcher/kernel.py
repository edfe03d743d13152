# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest of nothing but a kernel and an initrd: says on its console what processors and memory it has."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

#: What it loads, in this order.
_MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_mem")
_INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
for module in {modules}; do [ ! -e /$module.ko ] || /bin/busybox insmod /$module.ko; done
while true; do
  for cpu in /sys/devices/system/cpu/cpu*/online; do
    [ "$(/bin/busybox cat $cpu)" = 1 ] || echo 1 > $cpu
  done
  echo online_movable > /sys/devices/system/memory/auto_online_blocks
  echo "guest: efi=$([ -d /sys/firmware/efi ] && echo yes || echo no)" \\
    "processors=$(/bin/busybox grep -c ^processor /proc/cpuinfo)" \\
    "mebibytes=$(($(/bin/busybox sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo) / 1024))" \\
    "arguments=$(/bin/busybox cat /proc/cmdline)" > /dev/console
  /bin/busybox sleep 1
done
"""


@dataclass(frozen=True)
class Kernel:
    kernel: Path
    initrd: Path


def fetch(cache: Path) -> Path | None:
    """Return a folder with the kernel of this machine's Debian, unpacked; None if it can't be had."""
    depends = subprocess.run(
        ["apt-cache", "depends", "linux-image-amd64"], capture_output=True, text=True, check=False
    ).stdout
    package = next((line.split()[-1] for line in depends.splitlines() if "Depends: linux-image" in line), "")
    found = cache / package
    if not package or found.exists():
        return found if package else None
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        options = ["-q=2", "-o", "APT::Sandbox::User=root"]
        if subprocess.run(["apt-get", "download", *options, package], cwd=folder, check=False).returncode:
            return None
        (archive,) = Path(folder).glob("*.deb")
        draft = Path(folder) / "unpacked"
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as tar:
            draft.mkdir()
            patterns = ["./boot/vmlinuz*", "*/kernel/drivers/virtio/*"]
            subprocess.run(["tar", "-x", "-C", draft, "--wildcards", *patterns], stdin=tar.stdout, check=True)
        draft.rename(found)
    return found


def make(unpacked: Path, folder: Path) -> Kernel:
    """Return a kernel and its initrd; of *unpacked* by :func:`fetch`."""
    tree = folder / "initrd-tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "dev").mkdir()
    os.mknod(tree / "dev/console", 0o20600, os.makedev(5, 1))
    shutil.copy(shutil.which("busybox") or "/bin/busybox", tree / "bin/busybox")
    for module in _MODULES:
        for file in unpacked.rglob(f"{module}.ko*"):
            if file.suffix == ".xz":
                (tree / f"{module}.ko").write_bytes(subprocess.check_output(["xz", "-dc", file]))
            else:
                shutil.copy(file, tree / f"{module}.ko")
    init = tree / "init"
    init.write_text(_INIT.format(modules=" ".join(_MODULES)))
    init.chmod(0o755)
    initrd = folder / "initrd.img"
    files = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    # busybox's cpio: the distribution's may be missing.
    command = ["busybox", "cpio", "-o", "-H", "newc"]
    initrd.write_bytes(
        subprocess.run(command, cwd=tree, input=files.encode(), stdout=subprocess.PIPE, check=True).stdout
    )
    (kernel,) = (unpacked / "boot").glob("vmlinuz*")
    return Kernel(kernel, initrd)
