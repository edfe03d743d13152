# SPDX-License-Identifier: GPL-3.0-or-later
"""Claim → upload server: reads the caches, asks the plan, and writes what it says.

A claim is a DataVolume's, or a user's own with CDI's annotation, as `virtctl image-upload pvc` creates it.
"""

from __future__ import annotations

import base64
import binascii
import logging
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from turtles import pki
from turtles.api import cdi, uploads
from turtles.api.import_settings import ImportSettings
from turtles.api.kinds.cdi_config import NAME as CDI_CONFIG_NAME
from turtles.api.objects import Object, annotations_of, controller_of, get, is_deleted, own
from turtles.controller.data_volume.claim import scratch_name
from turtles.controller.data_volume.pod import ImporterConfig
from turtles.controller.data_volume.progress import ask
from turtles.controller.data_volume.upload.plan import Observed, Plan, is_outdated, is_target, plan
from turtles.controller.data_volume.upload.pod import name_of, scratch_claim, upload_pod
from turtles.controller.definition import Definition
from turtles.controller.identity import identity
from turtles.controller.shared import Shared
from turtles.kube.client import AlreadyExists, ApiError
from turtles.kube.informer import Key, key_of
from turtles.kube.kubevirt import CDI_CONFIG, DATA_VOLUME
from turtles.kube.manager import Controller, Trigger, each, owner_of
from turtles.kube.resources import APISERVICE, POD, PVC, SECRET, STORAGECLASS
from turtles.log import about

log = logging.getLogger(__name__)

#: How long the certificate of an upload server counts. It goes with its Pod.
_LIFETIME = timedelta(days=3650)
#: Seconds until another look, where a Pod of the name is on its way out.
_AGAIN = 1.0


class UploadController:
    """Reconciles claims that are filled by uploads."""

    def __init__(self, shared: Shared, image: str) -> None:
        """Make the controller.

        :param image: of importers.
        """
        manager = shared.manager
        self._client, self._writer, self._image = shared.client, shared.writer, image
        self._configuration, self._definition = shared.configuration, Definition(manager)
        self._claims, self._data_volumes = shared.caches.pvcs, shared.caches.data_volumes
        self._pods = manager.informer(POD, label_selector=f"{cdi.COMPONENT}={uploads.COMPONENT}")
        self._classes = manager.informer(STORAGECLASS)
        self._configs = manager.informer(CDI_CONFIG, optional=True)
        self._services = manager.informer(APISERVICE, field_selector=f"metadata.name={uploads.API_SERVICE}")

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (
            each(self._claims),
            self._definition.decides_on(self._claims),
            owner_of(self._pods, PVC.kind),
            owner_of(self._claims, PVC.kind),
            Trigger(self._services, lambda old, new: self._targets()),
        )
        reads = (self._classes, self._data_volumes, self._configs)
        return Controller("upload", self.reconcile, triggers, reads=reads)

    def _targets(self) -> list[Key]:
        return [key_of(claim) for claim in self._claims.list() if is_target(claim)]

    def reconcile(self, key: Key) -> float | None:
        """Bring one claim closer to its content; returns seconds after which to look again."""
        claim = self._claims.get(*key)
        if claim is None or not is_target(claim) or not self._definition.is_ours():
            return None
        observed = self._observe(claim)
        decided = plan(claim, observed)
        try:
            again = self._carry_out(claim, decided, observed)
        except ApiError as error:
            if error.status == 403:
                # Such as a quota that is exceeded
                failed = {cdi.FAILURE_REASON: cdi.ERROR, cdi.FAILURE_MESSAGE: error.message}
                self._note(claim, failed)
            raise
        return again or decided.wait

    def _observe(self, claim: Object) -> Observed:
        namespace = claim["metadata"]["namespace"]
        pods = self._pods.get(namespace, name_of(claim))
        scratches = self._claims.get(namespace, scratch_name(claim))
        pod, scratch = own(claim, pods), own(claim, scratches)
        others = [obj for obj, own in ((scratches, scratch), (pods, pod)) if obj is not None and own is None]
        in_the_way = next((obj["metadata"]["name"] for obj in others if not is_deleted(obj)), "")
        authorities = self._authorities()
        is_busy = pod is not None and is_outdated(pod, authorities) and ask(pod) is not None
        return Observed(pod, scratch, in_the_way, self._classes.list(), authorities, is_busy)

    def _authorities(self) -> str:
        """Return virt-api's authorities, by which an upload server knows it."""
        bundle = get(self._services.get("", uploads.API_SERVICE), "spec", "caBundle") or ""
        try:
            return base64.b64decode(bundle, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return ""

    def _carry_out(self, claim: Object, decided: Plan, observed: Observed) -> float | None:
        if decided.delete_pod and observed.pod is not None:
            self._writer.delete(self._pods, observed.pod)
        if decided.delete_scratch and observed.scratch is not None:
            self._writer.delete(self._claims, observed.scratch)
        if decided.create_pod:
            settings = ImportSettings.of(self._configs.get(None, CDI_CONFIG_NAME))
            scratch = scratch_claim(claim, settings)
            if observed.scratch is None and self._writer.add(self._claims, scratch) is None:
                return _AGAIN
            config = ImporterConfig(self._image, self._configuration(), settings)
            secret = f"{name_of(claim)}-{secrets.token_hex(4)}"
            wanted = upload_pod(claim, self._data_volume(claim), config, secret, observed.authorities)
            pod = self._writer.add(self._pods, wanted)
            if pod is None:
                return _AGAIN
            log.info("upload server created", extra=about("claim", claim))
            self._identify(pod, observed.authorities)
        elif decided.identify and observed.pod is not None:
            self._identify(observed.pod, observed.authorities)
        self._note(claim, decided.note)
        return None

    def _data_volume(self, claim: Object) -> Object | None:
        owner = controller_of(claim)
        if owner is None or owner.get("kind") != DATA_VOLUME.kind:
            return None
        return self._data_volumes.get(claim["metadata"]["namespace"], owner["name"])

    def _identify(self, pod: Object, authorities: str) -> None:
        """Give a Pod the certificate of its server; tell virt-api of it last."""
        metadata = pod["metadata"]
        pair = pki.issue(None, uploads.COMPONENT, [metadata["name"]], datetime.now(UTC), _LIFETIME)
        try:
            labels = {cdi.APP: cdi.APP_IMPORTER}
            self._client.create(SECRET, identity(pod, pair.certificate_pem, pair.key_pem, labels, authorities))
        except AlreadyExists:
            # One of which the certificate wasn't noted, and its Secret can't be read: again with another one
            self._writer.delete(self._pods, pod)
            return
        patch = {"metadata": {"annotations": {uploads.CERTIFICATE: pair.certificate_pem}}}
        self._writer.patch(self._pods, pod, patch, unchanged=False)

    def _note(self, claim: Object, note: Mapping[str, str]) -> None:
        before = annotations_of(claim)
        new = {key: value for key, value in note.items() if before.get(key) != value}
        if new:
            self._writer.patch(self._claims, claim, {"metadata": {"annotations": new}}, unchanged=False)
