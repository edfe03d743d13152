# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A folder with what kubeadm needs to make a cluster without network: programs, and images of the control plane."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from .build import VERSION, Say, build
from .errors import ClusterError
from .images import Layer, write_image
from .packages import Apt

PROGRAMS = ("kubeadm", "kubelet", "kubectl")
#: What is the same in Kubernetes' image of that name: one program, linked statically.
_STATIC = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
_LIBRARY = "libc6"
#: kube-proxy runs iptables and conntrack.
_IPTABLES = [
    *(_LIBRARY, "conntrack", "iptables", "libip4tc2", "libip6tc2", "libmnl0", "libnetfilter-conntrack3"),
    *("libnfnetlink0", "libnftnl11", "libxtables12"),
]
#: kubeadm wants to have it, and asks it no more than this. Debian has none.
_CRICTL = """#!/bin/sh
# Stands in for crictl, with what kubeadm asks of it: crictl -r SOCKET COMMAND IMAGE
case "$3" in
inspecti) ctr --namespace k8s.io images list --quiet "name==$4" | grep --quiet . ;;
*) ;;
esac
"""


def programs(cache: Path, folder: Path, say: Say = print) -> None:
    """Fill a folder with programs, and with images in its folder `images`; CoreDNS isn't among them."""
    build(cache, say, tools=True)
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        shutil.copy(cache / "bin" / name, folder / name)
    (folder / "crictl").write_text(_CRICTL)
    (folder / "crictl").chmod(0o755)
    write_images(cache, images)


def write_images(cache: Path, images: Path) -> None:
    """Write the images that kubeadm asks for, and busybox for Pods. The control plane has a folder of its own."""
    names = _names(cache / "bin/kubeadm")
    control_plane = images / "control-plane"
    control_plane.mkdir(exist_ok=True)
    for archive in ("pause", "busybox"):
        shutil.copy(cache / "images" / f"{archive}.tar", images)
    for name in _STATIC:
        with Layer() as layer:
            layer.program(f"usr/local/bin/{name}", (cache / "bin" / name).read_bytes())
        write_image(control_plane / f"{name}.tar", names[name], layer.content, {})
    with tempfile.TemporaryDirectory(dir=cache, prefix="kubeadm-") as scratch:
        apt = Apt(Path(scratch) / "apt")
        apt.unpack([_LIBRARY], Path(scratch) / "etcd")
        apt.unpack(_IPTABLES, Path(scratch) / "kube-proxy")
        with Layer() as layer:
            layer.tree(_slim(Path(scratch) / "etcd"))
            layer.program("usr/local/bin/etcd", (cache / "root/usr/bin/etcd").read_bytes())
        write_image(control_plane / "etcd.tar", names["etcd"], layer.content, {})
        with Layer() as layer:
            layer.tree(_slim(Path(scratch) / "kube-proxy"))
            for program in ("iptables", "ip6tables"):
                for suffix in ("", "-save", "-restore"):
                    layer.link(f"usr/sbin/{program}{suffix}", "xtables-nft-multi")
            layer.program("usr/local/bin/kube-proxy", (cache / "bin/kube-proxy").read_bytes())
            layer.folder("run")
        write_image(images / "kube-proxy.tar", names["kube-proxy"], layer.content, {})


def _slim(root: Path) -> Path:
    """Remove what programs don't read."""
    for folder in ("usr/share", "usr/lib/x86_64-linux-gnu/gconv"):
        shutil.rmtree(root / folder, ignore_errors=True)
    return root


def _names(kubeadm: Path) -> dict[str, str]:
    """The images that kubeadm asks for, by the last part of their names."""
    command = [kubeadm, "config", "images", "list", "--kubernetes-version", VERSION]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"kubeadm names no images: {done.stderr}")
    return {line.rpartition("/")[2].partition(":")[0]: line for line in done.stdout.split()}
