# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineExport → Pod, Service and token: reads the caches, asks the plan, and writes what it says."""

from __future__ import annotations

import base64
import binascii
import contextlib
import logging
import secrets
import string
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from turtles import pki
from turtles.api import exports, labels
from turtles.api.kind import SUBRESOURCES_GROUP, SUBRESOURCES_VERSIONS, Missing
from turtles.api.kinds.instancetype.expansion import Unexpandable, expand
from turtles.api.objects import Object, get, is_deleted, own
from turtles.api.phases import is_final
from turtles.api.times import rfc3339
from turtles.controller.caches import BY_CLAIM, state_claims
from turtles.controller.claims import claim_names
from turtles.controller.export import manifests, pod, sources
from turtles.controller.export.plan import Observed, Plan, external_address, plan
from turtles.controller.export.pod import ExporterConfig, exporter_pod
from turtles.controller.export.sources import Situation, Source
from turtles.controller.identity import identity
from turtles.controller.shared import Shared
from turtles.controller.state_claims import current_claim
from turtles.kube.client import AlreadyExists, ApiError, NotFound
from turtles.kube.informer import Informer, Key, key_of
from turtles.kube.kubevirt import EXPORT, SNAPSHOT, SNAPSHOT_CONTENT
from turtles.kube.lookup import Lookup
from turtles.kube.manager import Controller, Trigger, each, owner_of
from turtles.kube.resources import APISERVICE, CONFIGMAP, INGRESS, POD, SECRET, SERVICE, VOLUMESNAPSHOT
from turtles.log import about

log = logging.getLogger(__name__)

#: virt-api's APIService, which says how it is reached and whose certificate it shows.
_API_SERVICE = f"{SUBRESOURCES_VERSIONS[0]}.{SUBRESOURCES_GROUP}"
#: How long the certificate of a server counts. It goes with its Pod.
_LIFETIME = timedelta(days=3650)
#: Letters of a token that is made, and how many (KubeVirt).
_LETTERS, _LENGTH = string.ascii_letters + string.digits, 20
#: Seconds until another look, where something of the name is on its way out.
_AGAIN = 1.0
#: Index of exports: what they are of, as ``kind/namespace/name``.
_BY_SOURCE = "source"


class ExportController:
    """Reconciles VirtualMachineExports."""

    def __init__(self, shared: Shared, image: str, namespace: str) -> None:
        """Make the controller.

        :param image: of export servers.
        :param namespace: the engine's, with the Ingress that leads to virt-api if there is one.
        """
        manager, caches = shared.manager, shared.caches
        self._client, self._recorder, self._image = shared.client, shared.recorder, image
        self._writer = shared.writer
        self._configuration = shared.configuration
        self._vms, self._vmis, self._claims = caches.vms, caches.vmis, caches.pvcs
        self._data_volumes = caches.data_volumes
        self._exports = manager.informer(EXPORT)
        self._exports.add_index(_BY_SOURCE, _source)
        selector = f"{labels.APP}={exports.APP}"
        self._pods = manager.informer(POD, label_selector=selector)
        self._services = manager.informer(SERVICE, label_selector=selector)
        self._snapshots, self._contents = manager.informer(SNAPSHOT), manager.informer(SNAPSHOT_CONTENT)
        self._volume_snapshots = manager.informer(VOLUMESNAPSHOT, optional=True)
        self._api_services = manager.informer(APISERVICE, field_selector=f"metadata.name={_API_SERVICE}")
        self._ingresses = manager.informer(INGRESS, namespace=namespace, optional=True)
        self._find = Lookup(shared.client)

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (
            each(self._exports),
            owner_of(self._pods, exports.KIND),
            owner_of(self._services, exports.KIND),
            owner_of(self._claims, exports.KIND),
            Trigger(self._claims, self._of_claim),
            Trigger(self._vms, self._of(exports.MACHINE)),
            Trigger(self._vmis, self._of_instance),
            Trigger(self._snapshots, self._of(exports.SNAPSHOT)),
            Trigger(self._volume_snapshots, self._of_volume_snapshot),
            Trigger(self._api_services, lambda old, new: self._all()),
            Trigger(self._ingresses, lambda old, new: self._all()),
        )
        reads: tuple[Informer, ...] = (self._data_volumes, self._contents)
        return Controller("export", self.reconcile, triggers, reads=reads, essential=False)

    def _all(self) -> list[Key]:
        return [key_of(export) for export in self._exports.list()]

    def _of(self, kind: str) -> Callable[[Object | None, Object | None], list[Key]]:
        def keys(old: Object | None, new: Object | None) -> list[Key]:
            return self._named(kind, *key_of(new or old or {}))

        return keys

    def _named(self, kind: str, namespace: str, name: str) -> list[Key]:
        return [key_of(export) for export in self._exports.by_index(_BY_SOURCE, f"{kind}/{namespace}/{name}")]

    def _of_claim(self, old: Object | None, new: Object | None) -> list[Key]:
        namespace, name = key_of(new or old or {})
        machines = [key_of(vm)[1] for vm in self._vms.by_index(BY_CLAIM, f"{namespace}/{name}")]
        keys = self._named(exports.CLAIM, namespace, name)
        return keys + [key for machine in machines for key in self._named(exports.MACHINE, namespace, machine)]

    def _of_instance(self, old: Object | None, new: Object | None) -> list[Key]:
        """Return which exports to look at when an instance came, went or got a volume: those of what it has."""
        vmi = new or old or {}
        namespace, name = key_of(vmi)
        keys = self._named(exports.MACHINE, namespace, name)
        return keys + [
            key for claim in claim_names(vmi["spec"]) for key in self._named(exports.CLAIM, namespace, claim)
        ]

    def _of_volume_snapshot(self, old: Object | None, new: Object | None) -> list[Key]:
        namespace, name = key_of(new or old or {})
        waiting = [export for export in self._exports.list(namespace) if _kind(export) == exports.SNAPSHOT]
        return [key_of(export) for export in waiting if name in self._snapshots_of(export)]

    def _snapshots_of(self, export: Object) -> list[str]:
        snapshot = self._snapshots.get(export["metadata"]["namespace"], export["spec"]["source"]["name"])
        return [backup["volumeSnapshotName"] for backup in sources.backups_of(self._content(snapshot))]

    def _content(self, snapshot: Object | None) -> Object | None:
        name = get(snapshot, "status", "virtualMachineSnapshotContentName")
        return self._contents.get(snapshot["metadata"]["namespace"], name) if snapshot is not None and name else None

    def reconcile(self, key: Key) -> float | None:
        """Bring one export closer to being ready; returns seconds after which to look again."""
        export = self._exports.get(*key)
        if export is None or is_deleted(export):
            return None
        situation = self._situation(export)
        source = sources.of(export, situation)
        observed = self._observe(export)
        decided = plan(export, source, observed, datetime.now(UTC))
        if decided.delete_export:
            log.info("the export has expired", extra=about("export", export))
            self._writer.delete(self._exports, export)
            return None
        try:
            again = self._carry_out(export, source, observed, decided)
        except ApiError as error:
            if error.status == 403:
                # Such as a quota that is exceeded
                self._recorder.event(export, "Warning", "FailedExport", error.message)
            raise
        export = self._store(export, decided.status)
        if decided.event is not None:
            self._recorder.event(export, *decided.event)
        return again or decided.wait

    def _situation(self, export: Object) -> Situation:
        namespace, name, kind = export["metadata"]["namespace"], export["spec"]["source"]["name"], _kind(export)
        vm = self._vms.get(namespace, name) if kind == exports.MACHINE else None
        snapshot = self._snapshots.get(namespace, name) if kind == exports.SNAPSHOT else None
        content = self._content(snapshot)
        state_claim = "" if vm is None else current_claim(vm, state_claims(self._claims, namespace, name))
        if kind == exports.CLAIM:
            names = [name]
        elif vm is not None:
            names = sources.claims_of(vm, state_claim)
        else:
            names = [sources.restored_name(export, backup) for backup in sources.backups_of(content)]
        snapshots = [backup["volumeSnapshotName"] for backup in sources.backups_of(content)]
        return Situation(
            _known(self._claims, namespace, names),
            _known(self._data_volumes, namespace, names),
            {} if kind == exports.SNAPSHOT else self._users(export, names),
            frozenset(claim for claim in names if self._is_disk(namespace, claim)),
            vm,
            self._vmis.get(namespace, name) if vm is not None else None,
            snapshot,
            content,
            _known(self._volume_snapshots, namespace, snapshots),
            state_claim,
        )

    def _is_disk(self, namespace: str, claim: str) -> bool:
        return any(claim in sources.disks_of(vm) for vm in self._vms.by_index(BY_CLAIM, f"{namespace}/{claim}"))

    def _users(self, export: Object, names: Iterable[str]) -> dict[str, list[str]]:
        """Return who has claims, by claim."""
        namespace = export["metadata"]["namespace"]
        users: dict[str, list[str]] = {}
        for claim in names:
            instances = self._vmis.by_index(BY_CLAIM, f"{namespace}/{claim}")
            users[claim] = [
                f"VirtualMachineInstance {vmi['metadata']['name']}" for vmi in instances if not is_final(vmi)
            ]
        if any(users.values()) or own(export, self._pods.get(namespace, exports.name_of(export))) is not None:
            return users
        # Before its own Pod begins to read: Pods of anybody, which no cache has
        for other in self._client.list(POD, namespace)["items"]:
            if is_final(other) or own(export, other) is not None:
                continue
            for volume in other["spec"].get("volumes") or ():
                claim = get(volume, "persistentVolumeClaim", "claimName")
                if claim in users:
                    users[claim].append(f"Pod {other['metadata']['name']}")
        return users

    def _observe(self, export: Object) -> Observed:
        namespace, name = export["metadata"]["namespace"], exports.name_of(export)
        pods, services = self._pods.get(namespace, name), self._services.get(namespace, name)
        others = [
            f"{obj['kind']} {name}"
            for obj in (pods, services)
            if obj is not None and own(export, obj) is None and not is_deleted(obj)
        ]
        return Observed(own(export, pods), next(iter(others), ""), *self._external())

    def _external(self) -> tuple[str, str]:
        """Return where users reach virt-api, and the authorities of its certificate there; empty if nobody knows."""
        api_service = self._api_services.get("", _API_SERVICE)
        bundle = get(api_service, "spec", "caBundle") or ""
        try:
            authorities = base64.b64decode(bundle, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            authorities = ""
        if address := (get(api_service, "metadata", "annotations") or {}).get(exports.ADDRESS):
            return str(address), authorities
        for ingress in sorted(self._ingresses.list(), key=key_of):
            if host := exports.host_of(ingress):
                # One that ends TLS has a certificate of its own, which clients trust as they do others'
                return f"https://{host}", "" if get(ingress, "spec", "tls") else authorities
        return "", ""

    def _carry_out(self, export: Object, source: Source, observed: Observed, decided: Plan) -> float | None:
        self._provide(export)
        for claim in decided.create_claims:
            self._writer.add(self._claims, claim)
        if decided.delete_pod and observed.pod is not None:
            self._writer.delete(self._pods, observed.pod)
        if decided.create_pod:
            config = ExporterConfig(self._image, self._configuration())
            secret = f"{exports.name_of(export)[:50].rstrip('-')}-{secrets.token_hex(4)}"
            expiry = exports.expires_at(export) or datetime.now(UTC) + exports.ttl(export)
            with_manifests = source.machine is not None
            wanted = exporter_pod(export, source.volumes, config, secret, rfc3339(expiry), manifests=with_manifests)
            made = self._writer.add(self._pods, wanted)
            if made is None:
                return _AGAIN
            log.info("export server created", extra=about("export", export))
            self._identify(export, source, observed, made)
        elif decided.identify and observed.pod is not None:
            self._identify(export, source, observed, observed.pod)
        return None

    def _provide(self, export: Object) -> None:
        """Create the Service, and the token if the export names none."""
        metadata = export["metadata"]
        place = f"{metadata['namespace']}/{exports.name_of(export)}"
        if self._services.get(metadata["namespace"], exports.name_of(export)) is None:
            made = self._writer.add(self._services, pod.service(export))
            if made is not None:
                self._recorder.event(export, "Normal", "ServiceCreated", f"Created service {place}")
        if get(export, "status", "tokenSecretRef") is not None or export["spec"].get("tokenSecretRef"):
            return
        value = "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
        with contextlib.suppress(AlreadyExists):
            self._client.create(SECRET, pod.token(export, value))
            name = f"{metadata['namespace']}/{exports.token_secret(export)}"
            self._recorder.event(export, "Normal", "SecretCreated", f"Created default secret {name}")

    def _identify(self, export: Object, source: Source, observed: Observed, made: Object) -> None:
        """Give a Pod certificate and manifests, without which it doesn't start; note the certificate last."""
        pair = pki.issue(None, exports.APP, pod.server_names(export), datetime.now(UTC), _LIFETIME)
        try:
            secret = identity(made, pair.certificate_pem, pair.key_pem, {labels.APP: exports.APP})
            self._client.create(SECRET, secret)
        except AlreadyExists:
            # One of which the certificate wasn't noted, and its Secret can't be read: again with another one
            self._writer.delete(self._pods, made)
            return
        if pod.has_manifests(made) and source.machine is not None:
            lists = self._manifests(export, source, observed, pair.certificate_pem)
            self._client.create(CONFIGMAP, manifests.config_map(made, lists))
        patch = {"metadata": {"annotations": {exports.CERTIFICATE: pair.certificate_pem}}}
        self._writer.patch(self._pods, made, patch, unchanged=False)

    def _manifests(self, export: Object, source: Source, observed: Observed, certificate: str) -> Mapping[str, Object]:
        namespace, vm = export["metadata"]["namespace"], source.machine or {}
        try:
            vm = expand(
                {**vm, "metadata": {**vm["metadata"], "namespace": namespace}}, self._find, self._configuration()
            )
        except (Missing, Unexpandable) as error:
            # As it is: the instance type may be there where it is created again
            log.warning("can't expand an exported machine's instance type: %s", error, extra=about("export", export))
        claims = {
            volume.name: claim["spec"]
            for volume in source.volumes
            if (claim := self._claims.get(namespace, volume.claim)) is not None
        }
        places = {exports.INTERNAL: (pod.address(export), certificate)}
        if observed.address:
            places[exports.EXTERNAL] = external_address(export, observed.address), observed.authorities
        return {
            link: manifests.objects(export, vm, source.volumes, claims, address, authorities)
            for link, (address, authorities) in places.items()
        }

    def _store(self, export: Object, status: Object) -> Object:
        try:
            return self._writer.store_status(self._exports, export, status)
        except NotFound:
            return export


def _kind(export: Object) -> str:
    return str(export["spec"]["source"]["kind"])


def _source(export: Object) -> list[str]:
    return [f"{_kind(export)}/{export['metadata']['namespace']}/{export['spec']['source']['name']}"]


def _known(informer: Informer, namespace: str, names: Iterable[str]) -> dict[str, Object]:
    return {name: obj for name in names if (obj := informer.get(namespace, name)) is not None}
