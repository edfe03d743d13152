# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A small API server over real HTTP: enough of Kubernetes and KubeVirt to judge plugins by what they do on the wire.

Its virtual machines come up and go down at once unless told otherwise (`api.delay`, `api.trouble`).
"""

from __future__ import annotations

import copy
import json
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

WEBHOOKS = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
CLUSTER_WIDE = {"namespaces", "nodes", "customresourcedefinitions", "clusterroles", *WEBHOOKS}
DISCOVERED = {"policy/v1": ("poddisruptionbudgets",), "admissionregistration.k8s.io/v1": WEBHOOKS}
KINDS = {
    "virtualmachines": "VirtualMachine",
    "virtualmachineinstances": "VirtualMachineInstance",
    "namespaces": "Namespace",
    "nodes": "Node",
    "pods": "Pod",
    "events": "Event",
    "configmaps": "ConfigMap",
    "secrets": "Secret",
    "customresourcedefinitions": "CustomResourceDefinition",
    "widgets": "Widget",
    "kubevirts": "KubeVirt",
    "deployments": "Deployment",
    "daemonsets": "DaemonSet",
    "serviceaccounts": "ServiceAccount",
    "services": "Service",
    "roles": "Role",
    "rolebindings": "RoleBinding",
    "clusterroles": "ClusterRole",
    "clusterrolebindings": "ClusterRoleBinding",
    "priorityclasses": "PriorityClass",
    "poddisruptionbudgets": "PodDisruptionBudget",
    "mutatingwebhookconfigurations": "MutatingWebhookConfiguration",
    "validatingwebhookconfigurations": "ValidatingWebhookConfiguration",
    "apiservices": "APIService",
}


def merge(target, patch):
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def leaves(value, path=()):
    """The paths of what isn't a dictionary, with the values there."""
    if not isinstance(value, dict):
        return {path: value}
    return {found: leaf for key, each in value.items() for found, leaf in leaves(each, (*path, key)).items()}


def fields_v1(paths):
    """Paths as metadata.managedFields has them."""
    result = {}
    for path in paths:
        node = result
        for key in path:
            node = node.setdefault("f:%s" % key, {})
    return result


def owned(entry):
    """The paths of an entry of metadata.managedFields."""
    return {tuple(key.removeprefix("f:") for key in path) for path in _ends(entry["fieldsV1"])}


def _ends(node, path=()):
    if not node:
        yield path
    for key, value in node.items():
        yield from _ends(value, (*path, key))


def declared(obj):
    """What an object says of itself, without what only identifies it."""
    body = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "status")}
    metadata = {key: obj["metadata"][key] for key in ("labels", "annotations") if key in obj["metadata"]}
    return leaves({**body, "metadata": metadata} if metadata else {k: v for k, v in body.items() if k != "metadata"})


def own(obj, manager, operation, paths):
    """Gives a manager fields of an object: those it had by patches and these, or just these if it applies."""
    entries = obj["metadata"].setdefault("managedFields", [])
    mine = [e for e in entries if (e["manager"], e["operation"]) == (manager, operation)]
    paths = set(paths).union(*(owned(e) for e in mine)) if operation == "Update" else set(paths)
    entries[:] = [e for e in entries if e not in mine]
    if paths:
        entries.append({"manager": manager, "operation": operation, "fieldsV1": fields_v1(paths)})


def apply(found, body, manager, force):
    """Server-side apply (KEP-555); lists are taken as atomic."""
    wanted = declared(body)
    after = copy.deepcopy(found or {**body, "metadata": {**body["metadata"]}})
    entries = after["metadata"].setdefault("managedFields", [])
    there = declared(after)
    mine = {"manager": manager, "operation": "Apply"}.items()
    others = [entry for entry in entries if not mine <= entry.items()]
    causes = [
        {
            "reason": "FieldManagerConflict",
            "field": ".%s" % ".".join(path),
            "message": 'conflict with "%s" using v1' % entry["manager"],
        }
        for entry in others
        for path in owned(entry) & wanted.keys()
        if there.get(path) != wanted[path] and entry["manager"] != manager
    ]
    if causes and not force:
        raise Refused(409, "Conflict", "Apply failed with %d conflict" % len(causes), causes=causes)
    before = set().union(*(owned(entry) for entry in entries if mine <= entry.items()))
    for path in before - wanted.keys() - set().union(*map(owned, others)):
        _set(after, path, None)
    for path, value in wanted.items():
        _set(after, path, value)
    own(after, manager, "Apply", wanted)
    return after


def _set(obj, path, value):
    for key in path[:-1]:
        obj = obj.setdefault(key, {})
    if value is None:
        obj.pop(path[-1], None)
    else:
        obj[path[-1]] = value


class Refused(Exception):
    """An answer with an error status."""

    def __init__(self, code, reason, message, **details):
        super().__init__(message)
        self.code = code
        self.body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
        self.body.update(message=message, details=details)


class Api:
    """The state, and what tests may turn."""

    def __init__(self):
        self.lock = threading.Condition(threading.RLock())
        self.objects = {}
        self.log = []
        self.version = 100
        self.requests = []
        self.token = "very-secret-token"
        self.forbidden = lambda method, path: False
        self.refuse = lambda method, plural, obj: None
        self.delay = 0.0
        self.warning = ""
        self.trouble = None
        # Names of images that can't be pulled. With a set, generations are counted and instances keep their template,
        # as KubeVirt does it.
        self.missing_images = None
        self.page = None
        self.conflicts = 0
        self.put("namespaces", {"metadata": {"name": "default"}})

    def put(self, plural, obj, event=None):
        """Stores an object and tells the watchers."""
        with self.lock:
            obj = copy.deepcopy(obj)
            obj.setdefault("apiVersion", "kubevirt.io/v1" if plural.startswith("virtual") else "v1")
            obj.setdefault("kind", KINDS.get(plural, "Thing"))
            metadata = obj["metadata"]
            key = (plural, metadata.get("namespace"), metadata["name"])
            self.version += 1
            metadata["resourceVersion"] = str(self.version)
            metadata.setdefault("uid", str(uuid.uuid4()))
            before = self.objects.get(key)
            if plural == "virtualmachines" and self.missing_images is not None:
                changed = before is None or before["spec"] != obj["spec"]
                metadata["generation"] = (before or {"metadata": {}})["metadata"].get("generation", 0) + changed
            kind = event or ("MODIFIED" if key in self.objects else "ADDED")
            if kind == "DELETED":
                self.objects.pop(key, None)
            else:
                self.objects[key] = obj
            self.log.append((self.version, kind, plural, copy.deepcopy(obj)))
            self.lock.notify_all()
            return copy.deepcopy(obj)

    def get(self, plural, namespace, name):
        """A stored object, or None."""
        with self.lock:
            return copy.deepcopy(self.objects.get((plural, namespace, name)))

    def written(self):
        """The requests that weren't reads, as (method, path, query)."""
        return [request for request in self.requests if request[0] != "GET"]

    # -- the behaviour of KubeVirt ----------------------------------------------------------------------------------

    def reconcile(self, namespace, name):
        """Brings the instance of a VirtualMachine in line with it, after the delay."""
        threading.Timer(self.delay, self._reconcile, (namespace, name)).start() if self.delay else self._reconcile(
            namespace, name
        )

    def _reconcile(self, namespace, name):
        with self.lock:
            vm = self.get("virtualmachines", namespace, name)
            if vm is None:
                return
            spec = vm["spec"]
            strategy = spec.get("runStrategy") or ("Always" if spec.get("running") else "Halted")
            wanted = strategy in ("Always", "Once") or bool(vm.get("asked"))
            if wanted and self.missing_images is not None:
                vm["status"] = self._started(vm)
            elif wanted and self.trouble:
                vm["status"] = {
                    "printableStatus": self.trouble,
                    "conditions": [
                        {"type": "Ready", "status": "False", "reason": "GuestNotRunning", "message": "not running"}
                    ],
                }
            elif wanted:
                if not self.get("virtualmachineinstances", namespace, name):
                    self.instance(namespace, name, labels=spec["template"].get("metadata", {}).get("labels"))
                vm["status"] = {
                    "printableStatus": "Running",
                    "ready": True,
                    "created": True,
                    "conditions": [{"type": "Ready", "status": "True"}],
                }
            else:
                vmi = self.get("virtualmachineinstances", namespace, name)
                if vmi:
                    self.put("virtualmachineinstances", vmi, "DELETED")
                vm["status"] = {
                    "printableStatus": "Stopped",
                    "conditions": [{"type": "Ready", "status": "False", "reason": "VMINotExists"}],
                }
            if vm.get("status") != (self.get("virtualmachines", namespace, name) or {}).get("status"):
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

    def instance(
        self, namespace, name, labels=None, address="10.244.0.7", node="node1", spec=None, annotations=None, **status
    ):
        """A running instance."""
        return self.put(
            "virtualmachineinstances",
            {
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "labels": labels or {},
                    "annotations": {"note": "{{ 1 }}", **(annotations or {})},
                },
                "spec": spec or {"domain": {}},
                "status": {
                    "phase": "Running",
                    "nodeName": node,
                    "interfaces": [{"name": "default", "ipAddress": address}],
                    **status,
                },
            },
        )

    def subresource(self, namespace, name, action):
        """start, stop and restart as virt-api answers them."""
        vm = self.get("virtualmachines", namespace, name)
        if vm is None:
            raise Refused(404, "NotFound", "virtualmachine %s not found" % name, name=name)
        strategy = vm["spec"].get("runStrategy") or ("Always" if vm["spec"].get("running") else "Halted")
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


class Handler(BaseHTTPRequestHandler):
    """Kubernetes' wire protocol."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *arguments):
        """Tests look at api.requests."""

    def _run(self):
        api = self.server.api
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        api.requests.append((self.command, parts.path, query))
        try:
            if self.headers.get("Authorization") != "Bearer %s" % api.token:
                raise Refused(401, "Unauthorized", "Unauthorized")
            if api.forbidden(self.command, parts.path):
                raise Refused(403, "Forbidden", "user cannot %s %s" % (self.command, parts.path))
            self._serve(api, parts.path.strip("/").split("/"), query, body)
        except Refused as exc:
            self._answer(exc.code, exc.body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _run

    def _answer(self, code, body):
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.server.api.warning:
            self.send_header("Warning", '299 - "%s"' % self.server.api.warning)
        self.end_headers()
        self.wfile.write(data)

    def _serve(self, api, parts, query, body):
        if parts == ["version"]:
            return self._answer(200, {"major": "1", "minor": "31", "gitVersion": "v1.31.2"})
        if parts == ["apis"]:
            versions = [{"groupVersion": "policy/v1", "version": "v1"}]
            return self._answer(200, {"kind": "APIGroupList", "groups": [{"name": "policy", "versions": versions}]})
        size = 2 if parts[0] == "api" else 3
        group, rest = "/".join(parts[1:size]), parts[size:]
        if not rest:
            return self._discovery(api, group)
        namespace = None
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        plural, name = rest[0], rest[1] if len(rest) > 1 else None
        if plural not in KINDS:
            raise Refused(404, "NotFound", "404 page not found")
        if group.startswith("subresources."):
            api.subresource(namespace, name, rest[2])
            return self._answer(202, None)
        if self.command == "GET" and name is None:
            return (
                self._watch(api, plural, namespace, query)
                if query.get("watch")
                else self._list(api, group, plural, namespace, query)
            )
        found = api.get(plural, namespace, name) if name else None
        kind_of_patch = self.headers.get("Content-Type")
        applies = kind_of_patch == "application/apply-patch+yaml"
        if self.command != "POST" and found is None and not applies:
            raise Refused(404, "NotFound", '%s "%s" not found' % (plural, name), name=name, kind=plural)
        if self.command == "GET":
            return self._answer(200, found)
        dry = query.get("dryRun") == "All"
        if self.command == "DELETE":
            api.put(plural, found, "DELETED")
            vmi = api.get("virtualmachineinstances", namespace, name) if plural == "virtualmachines" else None
            if vmi:
                api.put("virtualmachineinstances", vmi, "DELETED")
            return self._answer(200, {"kind": "Status", "status": "Success"})
        if self.command == "POST":
            name = body["metadata"].get("name") or body["metadata"]["generateName"] + "x1"
            body["metadata"]["name"] = name
            if namespace and not api.get("namespaces", None, namespace):
                raise Refused(
                    404, "NotFound", 'namespaces "%s" not found' % namespace, name=namespace, kind="namespaces"
                )
            if api.get(plural, namespace, name):
                raise Refused(409, "AlreadyExists", "already exists")
            after = body
            own(after, "turtles.kubevirt", "Update", declared(after))
        elif applies:
            if namespace and not api.get("namespaces", None, namespace):
                raise Refused(
                    404, "NotFound", 'namespaces "%s" not found' % namespace, name=namespace, kind="namespaces"
                )
            after = apply(found, body, query["fieldManager"], query.get("force") == "true")
        elif kind_of_patch == "application/json-patch+json":
            values = {step["path"]: step["value"] for step in body}
            if values.pop("/metadata/resourceVersion") != found["metadata"]["resourceVersion"]:
                raise Refused(409, "Conflict", "the object has been modified")
            after = copy.deepcopy(found)
            after["metadata"]["managedFields"] = values["/metadata/managedFields"]
        else:
            version = (body.get("metadata") or {}).get("resourceVersion")
            if api.conflicts:
                api.conflicts -= 1
                api.put(plural, found)
            current = api.get(plural, namespace, name)["metadata"]["resourceVersion"]
            if version and version != current:
                raise Refused(409, "Conflict", "the object has been modified")
            after = merge(found, body)
        refusal = api.refuse(self.command, plural, after)
        if refusal:
            raise refusal
        self._default(plural, after)
        if dry:
            return self._answer(200, after)
        if found == after:
            return self._answer(200, found)
        stored = api.put(plural, after)
        self._answer(201 if self.command == "POST" else 200, stored)
        if plural == "virtualmachines":
            api.reconcile(namespace, name)
        return None

    @staticmethod
    def _default(plural, obj):
        if plural == "virtualmachines":
            template = obj["spec"].setdefault("template", {}).setdefault("spec", {})
            domain = template.setdefault("domain", {})
            domain.setdefault("machine", {"type": "q35"})
            for disk in domain.get("devices", {}).get("disks", []):
                if "disk" in disk:
                    disk["disk"].setdefault("bus", "virtio")

    def _discovery(self, api, group):
        if group == "example.com/v1" and api.get("customresourcedefinitions", None, "widgets.example.com"):
            resources = [{"name": "widgets", "kind": "Widget", "namespaced": True}]
            return self._answer(200, {"kind": "APIResourceList", "groupVersion": group, "resources": resources})
        if group in DISCOVERED:
            resources = [{"name": p, "kind": KINDS[p], "namespaced": p not in CLUSTER_WIDE} for p in DISCOVERED[group]]
            return self._answer(200, {"kind": "APIResourceList", "groupVersion": group, "resources": resources})
        raise Refused(404, "NotFound", "404 page not found")

    @staticmethod
    def _matches(obj, namespace, query):
        metadata = obj["metadata"]
        if namespace and metadata.get("namespace") != namespace:
            return False
        for term in filter(None, (query.get("fieldSelector") or "").split(",")):
            field, value = term.split("=")
            value_of = {"metadata.name": metadata["name"], "metadata.namespace": metadata.get("namespace")}
            if field == "type":
                value_of["type"] = obj.get("type")
            if value_of[field] != value:
                return False
        labels = metadata.get("labels") or {}
        return all(
            labels.get(term.partition("=")[0]) == term.partition("=")[2] if "=" in term else term in labels
            for term in filter(None, (query.get("labelSelector") or "").split(","))
        )

    def _list(self, api, group, plural, namespace, query):
        with api.lock:
            found = [o for (p, _n, _m), o in sorted(api.objects.items(), key=str) if p == plural]
            found = [copy.deepcopy(o) for o in found if self._matches(o, namespace, query)]
            version = api.version
        metadata = {"resourceVersion": str(version)}
        if api.page:
            start = int(query.get("continue") or 0)
            if start + api.page < len(found):
                metadata["continue"] = str(start + api.page)
            found = found[start : start + api.page]
        for item in found:
            item.pop("kind")
            item.pop("apiVersion")
        self._answer(200, {"kind": KINDS[plural] + "List", "apiVersion": group, "metadata": metadata, "items": found})

    def _watch(self, api, plural, namespace, query):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        seen = int(query["resourceVersion"])
        until = time.monotonic() + int(query.get("timeoutSeconds") or 60)
        try:
            while time.monotonic() < until and not self.server.closing:
                with api.lock:
                    events = [
                        e for e in api.log if e[0] > seen and e[2] == plural and self._matches(e[3], namespace, query)
                    ]
                    if not events:
                        api.lock.wait(0.2)
                for version, kind, _plural, obj in events:
                    seen = version
                    line = json.dumps({"type": kind, "object": obj}).encode() + b"\n"
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True


class Server(ThreadingHTTPServer):
    """Serves an Api on a free port of the loopback address."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.api = Api()
        self.closing = False

    @property
    def url(self):
        """Where it listens."""
        return "http://127.0.0.1:%d" % self.server_address[1]
