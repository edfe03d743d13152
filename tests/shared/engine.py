# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What tests do with an installed engine, wherever it runs: through the API with the official client, and over SSH."""

from __future__ import annotations

import base64
import contextlib
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import urllib3
import websocket
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.watch import Watch

Object = dict[str, Any]

GROUP = "kubevirt.io"


def virtual_machine(
    name: str,
    image: str,
    *,
    public_key: str,
    binding: str = "masquerade",
    run_strategy: str = "Always",
    memory: str = "128Mi",
    grace_period: int = 30,
    user_data: str = "",
    labels: dict[str, str] | None = None,
) -> Object:
    """A VirtualMachine with a container disk, a cloud-init seed that lets `public_key` in, and one NIC."""
    seed = f"#cloud-config\nssh_authorized_keys:\n  - {public_key}\n{user_data}"
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": name},
        "spec": {
            "runStrategy": run_strategy,
            "template": {
                "metadata": {"labels": {"kubevirt.io/domain": name, **(labels or {})}},
                "spec": {
                    "terminationGracePeriodSeconds": grace_period,
                    "domain": {
                        "memory": {"guest": memory},
                        "devices": {
                            "disks": [
                                {"name": "root", "disk": {"bus": "virtio"}},
                                {"name": "seed", "disk": {"bus": "virtio"}},
                            ],
                            "interfaces": [{"name": "default", binding: {}}],
                        },
                    },
                    "networks": [{"name": "default", "pod": {}}],
                    "volumes": [
                        {"name": "root", "containerDisk": {"image": image}},
                        {
                            "name": "seed",
                            "cloudInitNoCloud": {"userDataBase64": base64.b64encode(seed.encode()).decode()},
                        },
                    ],
                },
            },
        },
    }


def condition(obj: Object, kind: str) -> Object:
    """The condition of that type, or an empty dict."""
    return next((c for c in obj.get("status", {}).get("conditions", []) if c["type"] == kind), {})


class Engine(ABC):
    """An installed engine.

    :param kubeconfig: an administrator's kubeconfig.
    :param image: reference of the guest's container disk.
    :param key: private SSH key that the guests of the tests let in.
    :param proxy: command that connects to %h, %p for SSH, where guests can't be reached from here.
    :param patience: what the time that things may take is multiplied with.
    """

    def __init__(self, *, kubeconfig: Path, image: str, key: Path, proxy: str = "", patience: float = 1) -> None:
        self.kubeconfig, self.image, self.key, self.proxy, self.patience = kubeconfig, image, key, proxy, patience
        api = config.new_client_from_config(str(kubeconfig))
        self.custom, self.core = client.CustomObjectsApi(api), client.CoreV1Api(api)

    def seconds(self, timeout: float) -> int:
        """How long what is quick on an idle machine may take here."""
        return int(timeout * self.patience)

    def claim(self, namespace: str, name: str, size: str) -> None:
        """Make a PersistentVolumeClaim that a volume will be found for."""
        body = {
            "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
        }
        self.core.create_namespaced_persistent_volume_claim(namespace, body)

    @abstractmethod
    def pod_processes(self, namespace: str, vmi: str, word: str) -> list[int]:
        """Pids of the processes in a VMI's launcher Pod whose command line holds the word."""

    @abstractmethod
    def publish(self, archive: Path) -> str:
        """Put an OCI archive with one image, tagged latest, where Pods may have images from; its reference."""

    @property
    def public_key(self) -> str:
        """The public half of `key`, one line."""
        return self.key.with_suffix(".pub").read_text().strip()

    def virtual_machine(self, name: str, **options: Any) -> Object:
        """A VirtualMachine from this engine's guest image; options as :func:`virtual_machine`'s."""
        return virtual_machine(name, options.pop("image", self.image), public_key=self.public_key, **options)

    def launcher(self, namespace: str, vmi: str) -> client.V1Pod:
        """The launcher Pod of a VMI; one that a guest has left by a migration isn't."""
        pods = self.core.list_namespaced_pod(namespace, label_selector=f"vmi.kubevirt.io/id={vmi}").items
        left = [pod for pod in pods if pod.status.phase == "Succeeded"]
        return next(pod for pod in pods if not pod.metadata.deletion_timestamp and (pod not in left or pods == left))

    def create(self, namespace: str, obj: Object) -> Object:
        """Create a VM or VMI through the API; ApiException where it refuses."""
        version, plural = obj["apiVersion"].split("/")[1], obj["kind"].lower() + "s"
        return self.custom.create_namespaced_custom_object(GROUP, version, namespace, plural, obj)

    def create_with_gate(self, namespace: str, obj: Object) -> Object:
        """Create a VM or VMI once virt-api has read that a feature gate is on."""
        deadline = time.monotonic() + 10
        while True:
            try:
                return self.create(namespace, obj)
            except ApiException as error:
                if "feature gate is not enabled" not in str(error.body) or time.monotonic() > deadline:
                    raise

    def get(self, namespace: str, plural: str, name: str) -> Object | None:
        """The object, or None."""
        try:
            return self.custom.get_namespaced_custom_object(GROUP, "v1", namespace, plural, name)
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def patch(self, namespace: str, name: str, body: Object) -> Object:
        """Merge-patch a VirtualMachine."""
        return self.custom.patch_namespaced_custom_object(GROUP, "v1", namespace, "virtualmachines", name, body)

    def delete(self, namespace: str, name: str, plural: str = "virtualmachines", **options: Any) -> None:
        """Delete a VirtualMachine or VirtualMachineInstance."""
        self.custom.delete_namespaced_custom_object(GROUP, "v1", namespace, plural, name, **options)

    def subresource(
        self, namespace: str, name: str, action: str, body: Object | None = None, *, plural: str = "virtualmachines"
    ) -> None:
        """PUT a subresource of a VirtualMachine, or of an object of another kind: start, stop, restart."""
        api = self.custom.api_client
        path = self.subresource_path(namespace, plural, name, action)
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        api.update_params_for_auth(headers, [], ["BearerToken"], path, "PUT", body)
        answer = api.call_api("PUT", api.configuration.host + path, header_params=headers, body=body or {})
        answer.read()
        if answer.status >= 400:
            raise ApiException(http_resp=answer)

    def ask(
        self, namespace: str, name: str, what: str, *, method: str = "GET", plural: str = "virtualmachineinstances"
    ) -> tuple[int, bytes]:
        """Status and body of a request for a subresource, without a body and its Content-Type, as virtctl makes it."""
        api = self.custom.api_client
        headers: dict[str, str] = {"Accept": "application/json, */*"}
        api.update_params_for_auth(headers, [], ["BearerToken"], "", method, None)
        url = api.configuration.host + self.subresource_path(namespace, plural, name, what)
        answer = api.rest_client.pool_manager.request(method, url, headers=headers, timeout=self.seconds(120))
        return answer.status, answer.data

    def connect(
        self, namespace: str, name: str, what: str, *, plural: str = "virtualmachineinstances"
    ) -> websocket.WebSocket:
        """A WebSocket to a subresource, as virtctl makes it; websocket.WebSocketBadStatusException if it is refused."""
        configuration = self.custom.api_client.configuration
        headers: dict[str, str] = {}
        self.custom.api_client.update_params_for_auth(headers, [], ["BearerToken"], "", "GET", None)
        return websocket.create_connection(
            configuration.host.replace("https", "wss", 1) + self.subresource_path(namespace, plural, name, what),
            header=[f"{key}: {value}" for key, value in headers.items()],
            subprotocols=["plain.kubevirt.io"],
            timeout=self.seconds(60),
            sslopt={
                "ca_certs": configuration.ssl_ca_cert,
                "certfile": configuration.cert_file,
                "keyfile": configuration.key_file,
                "check_hostname": False,
            },
        )

    @staticmethod
    def subresource_path(namespace: str, plural: str, name: str, what: str) -> str:
        """The path of a subresource."""
        return f"/apis/subresources.{GROUP}/v1/namespaces/{namespace}/{plural}/{name}/{what}"

    def events(self, namespace: str) -> list[str]:
        """`reason object: message` of the namespace's Events, oldest first."""
        return [
            f"{e.type} {e.reason} {e.involved_object.kind}/{e.involved_object.name}: {e.message}"
            for e in self.core.list_namespaced_event(namespace).items
        ]

    def wait_event(self, namespace: str, name: str, words: list[str], *, timeout: float) -> None:
        """Until a Warning about the VM, its VMI or its Pod says all the words, in its reason or its message."""
        wait = self.seconds(timeout)
        for event in Watch().stream(self.core.list_namespaced_event, namespace, timeout_seconds=wait):
            told = event["object"]
            about = told.involved_object.name
            ours = about == name or about.startswith(f"virt-launcher-{name}-")
            text = f"{told.reason} {told.message}"
            if ours and told.type == "Warning" and all(word in text for word in words):
                return
        raise AssertionError(f"no event about {name} says {words}:\n" + "\n".join(self.events(namespace)))

    def wait(
        self,
        namespace: str,
        plural: str,
        name: str,
        done: Callable[[Object | None], Any],
        *,
        timeout: float,
        what: str,
        group: str = GROUP,
        version: str = "v1",
    ) -> Object | None:
        """Watch one object until `done` is true of it (None: it is not there).

        An API server that goes away meanwhile is awaited like anything else.

        :raises AssertionError: after `timeout` seconds, with what was seen last and the namespace's Events.
        """
        timeout *= self.patience
        deadline = time.monotonic() + timeout
        seen: Object | None = None
        while (left := deadline - time.monotonic()) > 0:
            try:
                listed = self.custom.list_namespaced_custom_object(
                    group, version, namespace, plural, field_selector=f"metadata.name={name}", _request_timeout=5
                )
                seen = next(iter(listed["items"]), None)
                if done(seen):
                    return seen
                for event in Watch().stream(
                    self.custom.list_namespaced_custom_object,
                    group,
                    version,
                    namespace,
                    plural,
                    field_selector=f"metadata.name={name}",
                    resource_version=listed["metadata"]["resourceVersion"],
                    timeout_seconds=max(1, int(min(left, 30))),
                    _request_timeout=min(left, 30) + 2,
                ):
                    seen = None if event["type"] == "DELETED" else event["object"]
                    if done(seen):
                        return seen
            except (urllib3.exceptions.HTTPError, ApiException, OSError):
                time.sleep(0.1)  # the API server is being restarted: there is nothing to watch yet
        state = seen and seen.get("status")
        with contextlib.suppress(Exception):
            state = f"{state}\nevents:\n" + "\n".join(self.events(namespace))
        raise AssertionError(f"{plural}/{name} in {namespace}: no {what} within {timeout} s; last seen: {state}")

    def wait_running(self, namespace: str, name: str, *, timeout: float = 60, not_uid: str = "") -> Object:
        """The VMI once it is Running with an address; with `not_uid`, another than that one."""
        vmi = self.wait(
            namespace,
            "virtualmachineinstances",
            name,
            lambda o: (
                o
                and o["metadata"]["uid"] != not_uid
                and o.get("status", {}).get("phase") == "Running"
                and o["status"].get("interfaces", [{}])[0].get("ipAddress")
            ),
            timeout=timeout,
            what="running VMI" + (f" other than {not_uid}" if not_uid else ""),
        )
        assert vmi is not None
        return vmi

    def wait_status(self, namespace: str, name: str, status: str, *, timeout: float = 60) -> Object:
        """The VM once its printableStatus is that."""
        vm = self.wait(
            namespace,
            "virtualmachines",
            name,
            lambda o: o and o.get("status", {}).get("printableStatus") == status,
            timeout=timeout,
            what=f"printableStatus {status}",
        )
        assert vm is not None
        return vm

    def wait_phase(
        self, namespace: str, name: str, phase: str, *, timeout: float = 60, reason: str = "", not_uid: str = ""
    ) -> Object:
        """The VMI once it is in that phase, and has that `status.reason` if one is given."""
        vmi = self.wait(
            namespace,
            "virtualmachineinstances",
            name,
            lambda o: (
                o
                and o["metadata"]["uid"] != not_uid
                and o.get("status", {}).get("phase") == phase
                and (not reason or o["status"].get("reason") == reason)
            ),
            timeout=timeout,
            what=f"phase {phase} {reason}".strip(),
        )
        assert vmi is not None
        return vmi

    def wait_stopped(self, namespace: str, name: str, *, timeout: float = 60) -> Object:
        """The VM once it is stopped and its VMI is gone."""
        vm = self.wait(
            namespace,
            "virtualmachines",
            name,
            lambda o: (
                o
                and o.get("status", {}).get("printableStatus") == "Stopped"
                and condition(o, "Ready").get("reason") == "VMINotExists"
            ),
            timeout=timeout,
            what="end of the VMI",
        )
        assert vm is not None
        return vm

    def wait_gone(self, namespace: str, name: str, plural: str = "virtualmachines", *, timeout: float = 60) -> None:
        """Until the object is no more."""
        self.wait(namespace, plural, name, lambda o: o is None, timeout=timeout, what="deletion")

    def _ssh(self, address: str, command: str, timeout: float) -> subprocess.CompletedProcess[str]:
        proxy = [f"ProxyCommand={self.proxy}"] if self.proxy else []
        options = (
            *proxy,
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "BatchMode=yes",
            # A guest that is reset never answers to the connections it had.
            f"ServerAliveInterval={self.seconds(5)}",
        )
        return subprocess.run(
            [
                # Includes the exchange of keys.
                *("ssh", "-i", str(self.key), "-o", f"ConnectTimeout={self.seconds(2)}"),
                *(word for option in options for word in ("-o", option)),
                *(f"root@{address}", command),
            ],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def ssh(self, address: str, command: str, *, timeout: float = 60) -> str:
        """Run a command as root in the guest, waiting for its SSH server up to `timeout` seconds; its output."""
        timeout *= self.patience
        deadline = time.monotonic() + timeout
        while (done := self._ssh(address, command, timeout + 10)).returncode == 255:
            assert time.monotonic() < deadline, f"no SSH to {address} within {timeout} s: {done.stderr}"
            time.sleep(0.2)  # a port that opens in the guest can't be watched from outside
        return done.stdout.strip()

    def boot_id(self, address: str) -> str:
        """The guest kernel's boot id: the same only as long as the guest has not rebooted."""
        return self.ssh(address, "cat /proc/sys/kernel/random/boot_id")

    def power_off(self, address: str) -> None:
        """Shut the guest down from inside."""
        self.ssh(address, "true")
        with contextlib.suppress(subprocess.TimeoutExpired):  # nobody is left to end the connection
            self._ssh(address, "poweroff -f", 2)
