# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A node: containerd with CNI plugins, kubelet, kube-proxy. All paths on it are Kubernetes' usual ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml

from . import versions
from .control import API_PORT
from .errors import wait_for
from .images import PAUSE
from .machine import Machine
from .pki import Authority
from .registry import Registry
from .settings import Settings
from .versions import version_of

#: Where the kubelets keep Pods: its default.
KUBELET_DIR = Path("/var/lib/kubelet")
_SOCKET = "/run/containerd/containerd.sock"
_RUNTIME = f"unix://{_SOCKET}"
_ETC = "/etc/kubernetes"


class NodeAgents:
    """What runs on the node with that number, on `machine`."""

    def __init__(self, settings: Settings, machine: Machine, number: int) -> None:
        self._settings = settings
        self._machine = machine
        self._number = number
        self.address = settings.node_address(number)

    def configure(self, authority: Authority, registry: Registry) -> None:
        """Write everything into the machine's /etc."""
        name, etc = self._machine.name, self._machine.etc
        server = f"https://{self._settings.control_address}:{API_PORT}"
        folder = etc / "kubernetes"
        folder.mkdir(mode=0o700)
        (folder / "manifests").mkdir()
        authority.issue(f"{name}-kubelet", f"system:node:{name}", "system:nodes", (name, self.address))
        authority.issue(f"{name}-kube-proxy", "system:kube-proxy")
        for agent in ("kubelet", "kube-proxy"):
            authority.kubeconfig(folder / f"{agent}.kubeconfig", server, f"{name}-{agent}")
        shutil.copy(authority.certificate, folder)
        for kind in ("crt", "key"):
            shutil.copy(authority.directory / f"{name}-kubelet.{kind}", folder / f"kubelet.{kind}")
        (folder / "kubelet.yaml").write_text(yaml.safe_dump(self._kubelet()))
        (etc / "containerd").mkdir()
        (etc / "containerd" / "config.toml").write_text(_CONTAINERD)
        for address in (registry.address, registry.private):
            hosts = etc / "containerd" / "certs.d" / address
            hosts.mkdir(parents=True)
            (hosts / "ca.crt").write_bytes((registry.certificates / "ca.crt").read_bytes())
            (hosts / "hosts.toml").write_text(
                f'server = "https://{address}"\n[host."https://{address}"]\n  ca = "{_path(etc, hosts)}/ca.crt"\n'
            )
        (etc / "cni" / "net.d").mkdir(parents=True)
        (etc / "cni" / "net.d" / "10-bridge.conflist").write_text(json.dumps(self._cni(), indent=2))

    def _kubelet(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "readOnlyPort": 0,
            "healthzBindAddress": "127.0.0.1",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{_ETC}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{_ETC}/kubelet.crt",
            "tlsPrivateKeyFile": f"{_ETC}/kubelet.key",
            "cgroupDriver": "cgroupfs",
            "failSwapOn": False,
            "clusterDomain": "cluster.local",
            "staticPodPath": f"{_ETC}/manifests",
            # the disk is the host's: how full that is, is no matter of tests
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {
                "memory.available": "50Mi",
                "nodefs.available": "1%",
                "nodefs.inodesFree": "1%",
                "imagefs.available": "1%",
            },
            "serializeImagePulls": False,
            **versions.kubelet_configuration(self._kubelet_version(), socket=_RUNTIME),
        }

    def _kubelet_version(self) -> versions.Version:
        return version_of(self._settings.program("kubelet"))

    def _cni(self) -> dict[str, object]:
        ipam = {
            "type": "host-local",
            "ranges": [[{"subnet": self._settings.pod_network(self._number)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        # no masquerading: every machine of the cluster, and the host, has a route to every Pod
        bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": ipam}
        ports = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]}

    def start(self) -> None:
        """Start everything; containerd is ready when this returns, the node may not be."""
        machine, name = self._machine, self._machine.name
        # translates what goes from Pod to Pod on one bridge, too, as kube-proxy needs it
        machine.run("sh", "-c", "echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables")
        self.start_containerd()
        for image in ("pause", "busybox"):
            machine.run("ctr", "--namespace=k8s.io", "images", "import", f"/opt/kubernetes/images/{image}.tar")
        self.start_kubelet()
        machine.start(
            "kube-proxy",
            "kube-proxy",
            f"--kubeconfig={_ETC}/kube-proxy.kubeconfig",
            f"--hostname-override={name}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={self._settings.pods}",
            # 0 leaves the kernel's
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
            "--healthz-bind-address=127.0.0.1:10256",
            "--metrics-bind-address=127.0.0.1:10249",
        )

    def start_containerd(self) -> None:
        """containerd, until it answers."""
        machine = self._machine
        process = machine.start("containerd", "containerd")
        wait_for(
            f"containerd on {machine.name}",
            lambda: machine.run("ctr", "version", timeout=10),
            timeout=90,
            logs=[machine.log("containerd")],
            processes=[process],
        )

    def start_kubelet(self) -> None:
        """The kubelet."""
        self._machine.start(
            "kubelet",
            "kubelet",
            f"--config={_ETC}/kubelet.yaml",
            f"--kubeconfig={_ETC}/kubelet.kubeconfig",
            f"--hostname-override={self._machine.name}",
            f"--node-ip={self.address}",
            f"--root-dir={KUBELET_DIR}",
            *versions.kubelet(self._kubelet_version(), socket=_RUNTIME, pause=PAUSE),
        )


def _path(etc: Path, inside: Path) -> Path:
    return Path("/etc") / inside.relative_to(etc)


# restrict_oom_score_adj: without CAP_SYS_RESOURCE, as in many virtual machines and containers, runc can't lower it.
_CONTAINERD = f"""\
version = 2
disabled_plugins = [
  "io.containerd.internal.v1.tracing",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  disable_hugetlb_controller = true
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
"""
