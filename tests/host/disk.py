# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The disk of a Debian machine: systemd, a kernel, an SSH server, a user with sudo. Made once, then cached.

Emulated, a machine would take half an hour to install packages and to compile libvirt's bindings. So the disk has the
distribution's packages that the roles install, and pip's cache has what they install with pip.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml

#: Debian's releases that the roles are tested on.
RELEASES = ("bookworm", "trixie")
#: The size the machine sees; the file takes what is in it.
SIZE = "16G"
#: Who connects over SSH; becomes root with sudo.
USER = "admin"
#: What an installation of Debian with an SSH server has. The generic kernel, since the cloud one lacks drivers.
_SYSTEM = (
    "ca-certificates",
    "dbus",
    "e2fsprogs",
    "iproute2",
    "libpam-systemd",
    "linux-image-amd64",
    "openssh-server",
    "python3",
    "sudo",
    "systemd-sysv",
)
_ROOT = Path(__file__).parents[2]
#: Roles, and their variables with the packages they install.
_ROLES = {
    "engine": "engine_build_packages",
    "handler": "handler_packages",
    "launcher": "launcher_packages",
}
#: What the role engine installs with pip.
_LOCKS = {
    "install": _ROOT / "engine/requirements-install.lock",
    "engine": _ROOT / "engine/requirements.lock",
}
#: Runs in the new root, after its packages are there.
_CUSTOMIZE = f"""
set -eu
echo turtles-host >/etc/hostname
printf '127.0.0.1 localhost\\n127.0.1.1 turtles-host\\n' >/etc/hosts
printf '/dev/vda / ext4 noatime 0 1\\n' >/etc/fstab
printf '[Match]\\nName=en* eth*\\n[Network]\\nDHCP=ipv4\\n' >/etc/systemd/network/lan.network
systemctl enable --quiet systemd-networkd.service
useradd --create-home --shell /bin/bash {USER}
printf '{USER} ALL=(ALL) NOPASSWD: ALL\\n' >/etc/sudoers.d/{USER}
install -d -m 700 -o {USER} -g {USER} /home/{USER}/.ssh
mv /authorized_keys /home/{USER}/.ssh/authorized_keys
chown {USER}:{USER} /home/{USER}/.ssh/authorized_keys
update-ca-certificates >/dev/null
# pip brings its own certificate authorities, which don't include those added to the machine.
printf '[global]\\ncert = /etc/ssl/certs/ca-certificates.crt\\n' >/etc/pip.conf
rm -f /etc/machine-id
echo uninitialized >/etc/machine-id
apt-get clean
python3 -m venv /tmp/venv
for lock in install engine; do
    HOME=/root /tmp/venv/bin/pip install --quiet --disable-pip-version-check --no-input \\
        --no-build-isolation --require-hashes --requirement /tmp/$lock.lock
done
rm -r /tmp/venv /tmp/*.lock
"""


@dataclass(frozen=True)
class Disk:
    """A disk with what QEMU needs to boot it.

    :param image: raw; not to be written to.
    :param key: the private SSH key that `USER` accepts.
    """

    image: Path
    kernel: Path
    initrd: Path
    key: Path


def cache_dir() -> Path:
    """Where disks are kept: below $XDG_CACHE_HOME."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "turtles-kubevirt" / "host"


def disk(release: str) -> Disk:
    """The disk of a release, built if it isn't there yet or was built in another way. Needs root and mmdebstrap."""
    sources = _sources(release)
    authorities = sorted(Path("/usr/local/share/ca-certificates").glob("**/*.crt"))
    files = [path.read_text() for path in (*authorities, *_LOCKS.values())]
    recipe = repr((SIZE, USER, _packages(), _CUSTOMIZE, sources, files))
    identity = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    folder = cache_dir() / f"{release}-{identity}"
    result = Disk(*(folder / name for name in ("disk.img", "vmlinuz", "initrd.img", "id_ed25519")))
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            for older in cache_dir().glob(f"{release}-*"):
                shutil.rmtree(older)
            scratch = folder.with_suffix(".part")
            scratch.mkdir()
            _build(scratch, release, sources, authorities)
            scratch.rename(folder)
    return result


def _packages() -> list[str]:
    """All packages on the disk."""
    packages = set(_SYSTEM)
    for role, variable in _ROLES.items():
        packages.update(yaml.safe_load((_ROOT / "roles" / role / "defaults/main.yml").read_text())[variable])
    return sorted(packages)


def _sources(release: str) -> str:
    """apt's sources for a release, from the archives that this machine uses."""
    lines = []
    for archive in ("Debian", "Debian-Security"):
        done = subprocess.run(
            ["apt-get", "indextargets", "--format=$(REPO_URI)", "Created-By: Packages", f"Label: {archive}"],
            check=True,
            capture_output=True,
            text=True,
        )
        if uris := done.stdout.split():
            suites = (release, f"{release}-updates") if archive == "Debian" else (f"{release}-security",)
            lines += [f"deb {uris[0]} {suite} main" for suite in suites]
    assert lines, "no Debian archive in this machine's /etc/apt"
    return "".join(f"{line}\n" for line in lines)


def _build(folder: Path, release: str, sources: str, authorities: list[Path]) -> None:
    key, root = folder / "id_ed25519", folder / "root"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (folder / "sources.list").write_text(sources)
    hooks = [f'copy-in "{path}" /usr/local/share/ca-certificates' for path in authorities]
    hooks += [f'upload "{path}" /tmp/{name}.lock' for name, path in _LOCKS.items()]
    hooks += [f'upload "{key}.pub" /authorized_keys', f'chroot "$1" sh -c {shlex.quote(_CUSTOMIZE)}']
    _run(
        *("mmdebstrap", "--mode=root", "--variant=minbase", "--quiet", f"--include={','.join(_packages())}"),
        *('--aptopt=APT::Install-Recommends "false"', *_proxy()),
        *(f"--customize-hook={hook}" for hook in hooks),
        *(release, root, folder / "sources.list"),
    )
    for name in ("vmlinuz", "initrd.img"):
        shutil.copy(_followed(root / name, root), folder / name)
    _run("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", root, folder / "disk.img", SIZE)
    shutil.rmtree(root)


def _followed(link: Path, root: Path) -> Path:
    """What a link at the top of another root leads to."""
    target = link.readlink()
    return root / (target.relative_to("/") if target.is_absolute() else target)


def _proxy() -> list[str]:
    """This machine's proxy for apt, if it has one."""
    done = subprocess.run(["apt-config", "dump", '--format=%F "%v";%n'], check=True, capture_output=True, text=True)
    return [f"--aptopt={line}" for line in done.stdout.splitlines() if line.startswith(("Acquire::http::Proxy",))]


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
