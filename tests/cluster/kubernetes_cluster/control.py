# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler."""

from __future__ import annotations

import ssl
import urllib.request
from pathlib import Path

import yaml

from . import versions
from .errors import wait_for
from .machine import Machine
from .pki import Authority, key_pair
from .settings import Settings
from .versions import version_of

API_PORT = 6443
_PKI = "/etc/kubernetes"
#: On the control machine: what service accounts asked of the API, a JSON object a line.
AUDIT_LOG = "/var/log/kubernetes-audit.log"
_ETCD = "http://127.0.0.1:2379"


class ControlPlane:
    """The control machine's part of Kubernetes; certificates are in its /etc/kubernetes."""

    def __init__(self, settings: Settings, machine: Machine) -> None:
        self._settings = settings
        self._machine = machine
        self.pki = machine.etc / "kubernetes"
        self.server = f"https://{settings.control_address}:{API_PORT}"

    def certify(self) -> Authority:
        """Make all certificates of the control plane; what they come from."""
        self.pki.mkdir(mode=0o700)
        authority = Authority(self.pki, "ca")
        service = "kubernetes.default.svc"
        names = ("localhost", "kubernetes", "kubernetes.default", service, f"{service}.cluster.local")
        addresses = ("127.0.0.1", self._settings.control_address, str(self._settings.services[1]))
        authority.issue("apiserver", "kube-apiserver", hosts=(*names, *addresses))
        authority.issue("kubelet-client", "kube-apiserver-kubelet-client", group="system:masters")
        authority.issue("admin", "admin", group="system:masters")
        Authority(self.pki, "front-proxy-ca").issue("front-proxy", "front-proxy-client")
        for component in ("controller-manager", "scheduler"):
            authority.issue(component, f"system:kube-{component}")
            authority.kubeconfig(self.pki / f"{component}.kubeconfig", self.server, component)
        policy = {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
        }
        (self.pki / "audit.yaml").write_text(yaml.safe_dump(policy))
        key_pair(self.pki, "service-accounts")
        authority.kubeconfig(self._settings.directory / "kubeconfig", self.server, "admin")
        return authority

    def start_etcd(self) -> None:
        """etcd; whether it works is seen by the API server."""
        etcd, peers = _ETCD, "http://127.0.0.1:2380"
        self._machine.start(
            "etcd",
            *("etcd", "--name=etcd", "--data-dir=/var/lib/etcd", "--log-level=warn", "--snapshot-count=10000"),
            *(f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}"),
            *(f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}"),
            *(f"--initial-cluster=etcd={peers}", "--auto-compaction-retention=1"),
        )

    def start_api_server(self) -> None:
        """kube-apiserver, until it is ready."""
        settings, machine, pki = self._settings, self._machine, _PKI
        process = machine.start(
            "kube-apiserver",
            "kube-apiserver",
            f"--etcd-servers={_ETCD}",
            f"--bind-address={settings.control_address}",
            f"--advertise-address={settings.control_address}",
            f"--secure-port={API_PORT}",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--client-ca-file={pki}/ca.crt",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--service-cluster-ip-range={settings.services}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki}/service-accounts.pub",
            f"--service-account-signing-key-file={pki}/service-accounts.key",
            f"--kubelet-client-certificate={pki}/kubelet-client.crt",
            f"--kubelet-client-key={pki}/kubelet-client.key",
            f"--kubelet-certificate-authority={pki}/ca.crt",
            "--kubelet-preferred-address-types=InternalIP",
            f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={pki}/front-proxy.crt",
            f"--proxy-client-key-file={pki}/front-proxy.key",
            # there is no kube-proxy on the control machine: webhooks and aggregated APIs are called at their Pods
            "--enable-aggregator-routing=true",
            "--profiling=false",
            f"--audit-policy-file={pki}/audit.yaml",
            f"--audit-log-path={AUDIT_LOG}",
        )
        wait_for(
            f"kube-apiserver at {self.server}",
            self.ready,
            timeout=180,
            logs=[machine.log("etcd"), machine.log("kube-apiserver")],
            processes=[process],
        )

    def ready(self) -> bool:
        """Whether the API server says that it is ready."""
        trust = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
        with urllib.request.urlopen(f"{self.server}/readyz", timeout=5, context=trust) as answer:
            return bool(answer.read() == b"ok")

    def start_controllers(self) -> None:
        """kube-controller-manager and kube-scheduler."""
        pki = _PKI

        def identity(name: str) -> list[str]:
            options = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
            return [f"--{option}={pki}/{name}.kubeconfig" for option in options]

        common = ("--bind-address=127.0.0.1", "--leader-elect=false", "--profiling=false")
        self._machine.start(
            "kube-controller-manager",
            "kube-controller-manager",
            *identity("controller-manager"),
            *common,
            *versions.controllers(version_of(self._settings.program("kube-controller-manager"))),
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={pki}/service-accounts.key",
            f"--root-ca-file={pki}/ca.crt",
            f"--cluster-signing-cert-file={pki}/ca.crt",
            f"--cluster-signing-key-file={pki}/ca.key",
            f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
            "--allocate-node-cidrs=false",
            "--kube-api-qps=100",
            "--kube-api-burst=200",
        )
        self._machine.start(
            "kube-scheduler",
            "kube-scheduler",
            *identity("scheduler"),
            *common,
            *versions.controllers(version_of(self._settings.program("kube-scheduler"))),
        )

    @property
    def logs(self) -> list[Path]:
        """Logs of what makes Pods come into being."""
        return [self._machine.log(f"kube-{name}") for name in ("apiserver", "controller-manager", "scheduler")]
