# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An API server that plays KubeVirt, to judge plugins by what they do on the wire.

Its virtual machines come up and go down at once unless told otherwise (`api.delay`, `api.trouble`).
"""

from __future__ import annotations

import copy

from aiohttp import web
from fake_guest import Guest
from fakeapi import FakeApi, Refused, declared, own, status

# What tests store without saying its kind.
KINDS = {
    "virtualmachines": "VirtualMachine",
    "virtualmachineinstances": "VirtualMachineInstance",
    "virtualmachineinstancemigrations": "VirtualMachineInstanceMigration",
    "migrationpolicies": "MigrationPolicy",
    "virtualmachineinstancepresets": "VirtualMachineInstancePreset",
    "virtualmachineinstancereplicasets": "VirtualMachineInstanceReplicaSet",
    "virtualmachineclusterinstancetypes": "VirtualMachineClusterInstancetype",
    "virtualmachineclusterpreferences": "VirtualMachineClusterPreference",
    "virtualmachineinstancetypes": "VirtualMachineInstancetype",
    "virtualmachinepools": "VirtualMachinePool",
    "virtualmachineclones": "VirtualMachineClone",
    "virtualmachinerestores": "VirtualMachineRestore",
    "virtualmachinesnapshots": "VirtualMachineSnapshot",
    "virtualmachinepreferences": "VirtualMachinePreference",
    "namespaces": "Namespace",
    "nodes": "Node",
    "pods": "Pod",
    "events": "Event",
    "configmaps": "ConfigMap",
    "kubevirts": "KubeVirt",
    "daemonsets": "DaemonSet",
    "deployments": "Deployment",
}
# Of kinds that are in a group of their own.
VERSIONS = {
    "virtualmachinepools": "pool.kubevirt.io/v1beta1",
    "migrationpolicies": "migrations.kubevirt.io/v1alpha1",
    "virtualmachineclones": "clone.kubevirt.io/v1beta1",
    "virtualmachinerestores": "snapshot.kubevirt.io/v1beta1",
    "virtualmachinesnapshots": "snapshot.kubevirt.io/v1beta1",
}
WIDGETS = "/apis/example.com/v1"


def resources(namespaced, **kinds):
    """Answers discovery."""
    return {"resources": [{"name": name, "kind": kind, "namespaced": namespaced} for name, kind in kinds.items()]}


DISCOVERY = {
    "/version": {"major": "1", "minor": "31", "gitVersion": "v1.31.2"},
    "/apis": {"groups": [{"name": "policy", "versions": [{"groupVersion": "policy/v1", "version": "v1"}]}]},
    "/apis/policy/v1": resources(True, poddisruptionbudgets="PodDisruptionBudget"),
    "/apis/admissionregistration.k8s.io/v1": resources(
        False,
        mutatingwebhookconfigurations="MutatingWebhookConfiguration",
        validatingwebhookconfigurations="ValidatingWebhookConfiguration",
    ),
    WIDGETS: resources(True, widgets="Widget"),
}


def stored(path):
    """Each version of KubeVirt's kinds is another view of the same objects."""
    return path.replace("/kubevirt.io/v1alpha3/", "/kubevirt.io/v1/")


def strategy_of(vm):
    return vm["spec"].get("runStrategy") or ("Always" if vm["spec"].get("running") else "Halted")


class KubeVirt(FakeApi):
    """The state, and what tests may turn."""

    def __init__(self):
        super().__init__()
        self.forbidden = lambda method, path: False
        # Called with method, resource and object; gives a Refused or None.
        self.refuse = None
        self.delay = 0.0
        self.warning = ""
        self.trouble = None
        # Logs of Pods, by their names.
        self.logs = {}
        # Names of images that can't be pulled. With a set, instances keep their template, as KubeVirt does it.
        self.missing_images = None
        self.conflicts = 0
        # The guest that commands in launchers' Pods reach.
        self.guest_agent = Guest()
        # What guests answer, by subresource of their instance; and all that was asked of them.
        self.guests = {}
        self.asked = []
        # What the status says of volumes that are added, in addition or instead.
        self.volume = {}
        # Options of the subresource that is being called.
        self.options = {}
        # Bodies of the calls of subresources and of deletions, as (last part of the path, body).
        self.bodies = []

    # For tests, which name objects by resource, namespace and name

    def put(self, plural, obj, event=None):
        """Stores an object, or removes it if the event says so."""
        version = "kubevirt.io/v1" if plural.startswith("virtual") else "v1"
        version = VERSIONS.get(plural, version)
        obj = {"apiVersion": version, "kind": KINDS.get(plural), **copy.deepcopy(obj)}
        path = "/apis/%(apiVersion)s" % obj if "/" in obj["apiVersion"] else "/api/v1"
        if obj["metadata"].get("namespace"):
            path += "/namespaces/%(namespace)s" % obj["metadata"]
        path = stored("%s/%s/%s" % (path, plural, obj["metadata"]["name"]))
        if event == "DELETED":
            return self.remove(path)
        if plural in ("daemonsets", "deployments"):
            obj.setdefault("status", {})["observedGeneration"] = 1
        return copy.deepcopy(self.atomic(lambda: self._write(path, obj)))

    def get(self, plural, namespace, name):
        """A stored object, or None."""
        end = "%s/%s/%s" % ("/namespaces/%s" % namespace if namespace else "", plural, name)
        return self.atomic(lambda: copy.deepcopy(next((o for p, o in self.objects.items() if p.endswith(end)), None)))

    def written(self):
        """The requests that weren't reads, as (method, path, query)."""
        return [request for request in self.requests if request[0] != "GET"]

    def instance(
        self, namespace, name, labels=None, address="10.244.0.7", node="node1", spec=None, annotations=None, **status
    ):
        """A running instance."""
        interfaces = [{"name": "default", "ipAddress": address}]
        return self.put(
            "virtualmachineinstances",
            {
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "labels": labels or {},
                    "annotations": {"note": "{{ 1 }}", **(annotations or {})},
                    "finalizers": ["foregroundDeleteVirtualMachine"],
                },
                "spec": spec or {"domain": {}},
                "status": {
                    "phase": "Running",
                    "nodeName": node,
                    "interfaces": interfaces,
                    "conditions": [{"type": "Ready", "status": "True"}],
                    **status,
                },
            },
        )

    def launcher(self, namespace, name, uid):
        """The launcher's Pod of an instance."""
        containers = [{"name": "compute"}, {"name": "guest-console-log"}]
        labels = {"kubevirt.io/created-by": uid, "vmi.kubevirt.io/id": name}
        metadata = {"name": "launcher", "namespace": namespace, "labels": labels}
        spec = {"nodeName": "node1", "containers": containers}
        return self.put("pods", {"metadata": metadata, "spec": spec, "status": {"phase": "Running"}})

    # Requests

    def _noted(self, request):
        return request.method, request.path, dict(request.query)

    @staticmethod
    def _split(path):
        return FakeApi._split(stored(path))

    async def _handle(self, request):
        response = await super()._handle(request)
        if self.warning and not response.prepared:
            response.headers["Warning"] = '299 - "%s"' % self.warning
        return response

    async def _answer(self, request):
        if request.path.endswith("/exec") and not self.forbidden("EXEC", request.path):
            return await self.guest_agent.serve(request)
        if request.query.get("watch") and self.forbidden("WATCH", request.path):
            return status(403, "Forbidden", "user cannot watch %s" % request.path)
        body = await request.json() if request.method in ("PUT", "DELETE") and request.can_read_body else {}
        self.bodies.append((request.path.rsplit("/", 1)[1], body))
        self.options = body if request.method == "PUT" else {}
        return await super()._answer(request)

    def intercept(self, method, path):
        if self.forbidden(method, path):
            return status(403, "Forbidden", "user cannot %s %s" % (method, path))
        parts = path.split("/")
        if parts[-1] == "log":
            return web.Response(text=self.logs.get(parts[-2], ""))
        if path in DISCOVERY and (
            path != WIDGETS or self.get("customresourcedefinitions", None, "widgets.example.com")
        ):
            return web.json_response(DISCOVERY[path])
        if len(parts) == 4 and parts[1] == "apis":
            return status(404, "NotFound", "404 page not found")
        if parts[2].startswith("subresources.") and parts[6] == "virtualmachineinstances":
            return self.guest(parts[5], parts[7], "/".join(parts[8:]))
        if parts[2].startswith("subresources."):
            self.subresource(parts[5], parts[7], parts[8])
            return web.Response(status=202)
        if method == "PATCH" and self.conflicts:
            self.conflicts -= 1
            self.update(path, {"metadata": {"annotations": {"written": str(self.conflicts)}}})
        return None

    def admit(self, method, path, obj):
        plural, within = path.split("/")[-2], path.partition("/namespaces/")[2]
        namespace = within.split("/")[0] if "/" in within else None
        if path not in self.objects and namespace and not self.get("namespaces", None, namespace):
            raise Refused(404, "NotFound", 'namespaces "%s" not found' % namespace, name=namespace, kind="namespaces")
        if method == "POST":
            own(obj, "turtles.kubevirt", "Update", declared(obj))
        refusal = self.refuse and self.refuse(method, plural, obj)
        if isinstance(refusal, Refused):
            raise refusal
        if plural == "virtualmachines":
            template = obj["spec"].setdefault("template", {}).setdefault("spec", {})
            domain = template.setdefault("domain", {})
            domain.setdefault("machine", {"type": "q35"})
            for disk in domain.get("devices", {}).get("disks", []):
                if "disk" in disk:
                    disk["disk"].setdefault("bus", "virtio")
        elif plural == "customresourcedefinitions":
            obj["status"] = {"conditions": [{"type": "Established", "status": "True"}]}

    def admitted(self, path):
        if "/virtualmachines/" in path:
            _collection, namespace, _plural, name = path.rsplit("/", 3)
            self.reconcile(namespace, name)

    def _erase(self, path):
        super()._erase(path)
        instance = path.replace("/virtualmachines/", "/virtualmachineinstances/")
        if instance != path and instance in self.objects:
            super()._erase(instance)

    # The behaviour of KubeVirt

    def reconcile(self, namespace, name):
        """Brings the instance of a VirtualMachine in line with it, after the delay."""
        if self.delay:
            self._loop.call_soon_threadsafe(self._loop.call_later, self.delay, self._reconcile, namespace, name)
        else:
            self.atomic(lambda: self._reconcile(namespace, name))

    def _reconcile(self, namespace, name):
        vm, vmi = (self.get(plural, namespace, name) for plural in ("virtualmachines", "virtualmachineinstances"))
        if vm is None:
            return
        wanted = strategy_of(vm) in ("Always", "Once") or bool(vm.get("asked"))
        ready = {"type": "Ready", "status": "True"}
        if not wanted:
            if vmi:
                self.put("virtualmachineinstances", vmi, "DELETED")
            ready.update(status="False", reason="VMINotExists")
            vm["status"] = {"printableStatus": "Stopped", "conditions": [ready]}
        elif self.missing_images is not None:
            vm["status"] = self._started(vm)
        elif self.trouble:
            ready.update(status="False", reason="GuestNotRunning", message="not running")
            vm["status"] = {"printableStatus": self.trouble, "conditions": [ready]}
        else:
            if not vmi:
                self.instance(namespace, name, labels=vm["spec"]["template"].get("metadata", {}).get("labels"))
            vm["status"] = {"printableStatus": "Running", "ready": True, "created": True, "conditions": [ready]}
        vm["status"]["desiredGeneration"] = vm["metadata"]["generation"]
        self.put("virtualmachines", vm)

    def _started(self, vm):
        """The status of a machine that runs, or whose instance waits for an image. An instance is never replaced."""
        namespace, name, generation = (vm["metadata"][key] for key in ("namespace", "name", "generation"))
        vmi = self.get("virtualmachineinstances", namespace, name)
        if vmi is None:
            template = copy.deepcopy(vm["spec"]["template"]["spec"])
            images = {volume.get("containerDisk", {}).get("image") for volume in template.get("volumes") or []}
            pulled = not images & self.missing_images
            why = {"type": "Synchronized", "status": "False", "reason": "ImagePullBackOff", "message": "%s" % images}
            vmi = self.instance(
                namespace,
                name,
                phase="Running" if pulled else "Scheduling",
                conditions=[] if pulled else [why],
                spec=template,
                annotations={"kubevirt.io/vm-generation": str(generation)},
            )
        started = int(vmi["metadata"]["annotations"]["kubevirt.io/vm-generation"])
        runs = vmi["status"]["phase"] == "Running"
        conditions = [{"type": "Ready", "status": str(runs)}]
        if vmi["spec"] != vm["spec"]["template"]["spec"]:
            conditions.append({"type": "RestartRequired", "status": "True"})
        return {
            "printableStatus": "Running" if runs else "ImagePullBackOff",
            "desiredGeneration": generation,
            "observedGeneration": started,
            "conditions": conditions + vmi["status"]["conditions"],
        }

    def guest(self, namespace, name, action):
        """Subresources of an instance, as virt-api answers them."""
        self.asked.append(action)
        vmi = self.get("virtualmachineinstances", namespace, name)
        if vmi is None:
            raise Refused(404, "NotFound", 'virtualmachineinstance.kubevirt.io "%s" not found' % name, name=name)
        answer = self.guests.get(action)
        if isinstance(answer, Refused):
            raise answer
        if action in ("addvolume", "removevolume"):
            self.change_volume("virtualmachineinstances", namespace, name)
            return web.Response(status=202)
        if isinstance(answer, bytes):
            return web.Response(body=answer, content_type="image/png")
        if answer is not None:
            return web.json_response(answer)
        if action in ("pause", "unpause"):
            paused = any(entry["type"] == "Paused" for entry in vmi["status"].get("conditions", []))
            if paused is (action == "pause"):
                said = "VMI is already paused" if paused else "VMI is not paused"
                raise Refused(409, "Conflict", said)
            self.pause(namespace, name, action == "pause")
        return web.Response(status=200)

    def pause(self, namespace, name, paused):
        """Instance and machine say whether the guest is paused."""
        for plural in ("virtualmachineinstances", "virtualmachines"):
            obj = self.get(plural, namespace, name)
            others = [
                entry for entry in obj["status"].get("conditions", []) if entry["type"] not in ("Paused", "Ready")
            ]
            ready = {"type": "Ready", "status": str(not paused)}
            obj["status"]["conditions"] = [*others, ready, *([{"type": "Paused", "status": "True"}] if paused else [])]
            self.put(plural, obj)

    def change_volume(self, plural, namespace, name):
        """addvolume and removevolume of a machine or an instance; a running instance follows its machine."""
        options = self.options
        if options.get("dryRun"):
            return
        for kind in (plural, "virtualmachineinstances"):
            obj = self.get(kind, namespace, name)
            if obj is None:
                continue
            spec = obj["spec"]["template"]["spec"] if kind == "virtualmachines" else obj["spec"]
            disks = spec.setdefault("domain", {}).setdefault("devices", {}).setdefault("disks", [])
            for entries in (disks, spec.setdefault("volumes", [])):
                entries[:] = [entry for entry in entries if entry["name"] != options["name"]]
            if options.get("volumeSource"):
                disks.append({**options["disk"], "name": options["name"]})
                spec["volumes"].append({"name": options["name"], **options["volumeSource"]})
            if kind == "virtualmachineinstances":
                others = [e for e in obj["status"].get("volumeStatus") or [] if e["name"] != options["name"]]
                entry = {"name": options["name"], "phase": "Ready", "target": "sda", **self.volume}
                obj["status"]["volumeStatus"] = [*others, *([entry] if options.get("volumeSource") else [])]
            self.put(kind, obj)

    def subresource(self, namespace, name, action):
        """start, stop, restart, addvolume and removevolume as virt-api answers them."""
        vm = self.get("virtualmachines", namespace, name)
        if vm is None:
            raise Refused(404, "NotFound", "virtualmachine %s not found" % name, name=name)
        if action in ("addvolume", "removevolume"):
            return self.change_volume("virtualmachines", namespace, name)
        strategy = strategy_of(vm)
        vmi = self.get("virtualmachineinstances", namespace, name)
        older = vm["spec"].get("running") is not None
        if action == "start":
            if vmi:
                raise Refused(409, "Conflict", "VM is already running")
            if strategy == "Halted":
                vm["spec"].update({"running": True} if older else {"runStrategy": "Always"})
            vm["asked"] = strategy in ("Manual", "RerunOnFailure")
        elif action == "stop":
            if strategy == "Halted" or not vmi:
                raise Refused(409, "Conflict", "VM is not running")
            if strategy == "Always":
                vm["spec"].update({"running": False} if older else {"runStrategy": "Halted"})
            vm["asked"] = False
        elif action == "restart":
            if not vmi:
                raise Refused(409, "Conflict", "VM is not running: Halted")
            self.put("virtualmachineinstances", vmi, "DELETED")
        self.put("virtualmachines", vm)
        self.reconcile(namespace, name)
        if action == "start" and self.options.get("paused"):
            self.pause(namespace, name, True)
