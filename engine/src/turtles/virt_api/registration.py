# SPDX-License-Identifier: GPL-3.0-or-later
"""How virt-api registers itself with the API server, and stays registered.

It writes its webhook configurations and APIServices, and writes them again when they are changed or the
certificate's authority changes. With a URL of its own (no Service in front of it) the webhooks name the URL, and
Service and Endpoints that the APIServices point to are written too.

While a Deployment is rolled out, replicas of two builds run side by side. Each would have its own list registered, and
a path that only the new one serves would be asked of the old one. So what another build has registered stays, but for
the authorities, until all replicas are of one build: then the build of the replica that looks counts.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import threading
from collections.abc import Callable
from datetime import datetime
from urllib.parse import urlsplit

from turtles.api import cdi, exports, uploads
from turtles.api.configuration import ClusterConfiguration, Rotation
from turtles.api.kind import Kind
from turtles.api.kinds import KINDS
from turtles.api.kinds.cdi_config import CDI_CONFIG
from turtles.api.kinds.cdi_config import NAME as CDI_CONFIG_NAME
from turtles.api.kinds.data_volume import DATA_VOLUME
from turtles.api.objects import Object, get, is_deleted
from turtles.kube.client import AlreadyExists, ApiError, Client, NotFound
from turtles.kube.informer import Informer
from turtles.kube.kubevirt import RESOURCES
from turtles.kube.resources import (
    APISERVICE,
    CRD,
    DEPLOYMENT,
    INGRESS,
    MUTATINGWEBHOOK,
    POD,
    SECRET,
    VALIDATINGWEBHOOK,
    Resource,
)
from turtles.virt_api import certificates, discovery
from turtles.virt_api.certificates import Certificates
from turtles.virt_api.names import CERTIFICATES_SECRET, MUTATOR, VALIDATOR
from turtles.virt_api.names import SERVICE as SERVICE_NAME
from turtles.virt_api.registered import (
    apiservices,
    build_of,
    contains,
    endpoints,
    signed,
    trusting,
    upload_proxy,
    webhooks,
)

log = logging.getLogger(__name__)


#: Seconds between two looks at certificates and objects if nothing seems to change.
_INTERVAL = 60.0
#: Seconds that API servers get to learn of a new authority before anything of it is shown to them. Each reads webhook
#: configurations and APIServices with watches of its own, at its own pace.
_SPREAD = 10.0
#: Seconds after which a failure is tried again.
_RETRY = 1.0


def serving_names(namespace: str, url: str | None = None, bind: str = "") -> list[str]:
    """Return the names and addresses the serving certificate is for."""
    names = {"localhost", "127.0.0.1"}
    for name in (SERVICE_NAME, uploads.PROXY_SERVICE, exports.PROXY_SERVICE):
        service = f"{name}.{namespace}"
        names |= {name, service, f"{service}.svc", f"{service}.svc.cluster.local"}
    if url and (host := urlsplit(url).hostname):
        names.add(host)
    with contextlib.suppress(ValueError):
        if bind and not ipaddress.ip_address(bind).is_unspecified:
            names.add(bind)
    return sorted(names)


class Registration:
    """Maintains certificates and registration, on a thread of its own.

    `loaded` is called with the certificates to serve with: once before the first registration, and whenever they have
    been replaced. With a new authority that is `spread` seconds after it has been registered, if what is served with
    until then is still trusted. `tell` records an event: object, type, reason, message. `pod` is the Pod of the
    Deployment virt-api that this is; without one there is no other replica.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        loaded: Callable[[Certificates], None],
        url: str | None = None,
        bind: str = "",
        spread: float = _SPREAD,
        tell: Callable[[Object, str, str, str], None] = lambda obj, type_, reason, message: None,
        pod: str | None = None,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._loaded = loaded
        self._url = url
        self._spread = spread
        self._tell = tell
        self._pod = pod
        self._names = serving_names(namespace, url, bind)
        self._rotation = Rotation()
        self._certificates: Certificates | None = None
        #: By kind and name: what was last written, and what the API server made of it. One of an earlier version of
        #: Kubernetes drops fields that it doesn't know, such as matchConditions before 1.27.
        self._written: dict[tuple[str, str], tuple[Object, Object]] = {}
        self._wake = threading.Event()
        self._stopped = threading.Event()
        #: Set once everything has been registered, by this build or another one.
        self.done = threading.Event()
        self._informers = [
            self._informer(SECRET, namespace, CERTIFICATES_SECRET),
            self._informer(MUTATINGWEBHOOK, None, MUTATOR),
            self._informer(VALIDATINGWEBHOOK, None, VALIDATOR),
            *(self._informer(APISERVICE, None, obj["metadata"]["name"]) for _, obj in apiservices("", namespace)),
        ]
        if pod:
            # When it is rolled out, what the build of before registered is replaced
            self._informers.append(self._informer(DEPLOYMENT, namespace, SERVICE_NAME))
        #: What leads to virt-api from outside of a cluster.
        self._ingresses = Informer(client, INGRESS, namespace=namespace, optional=True)
        self._ingresses.add_handler(lambda old, new: self._wake.set())
        if pod:
            self._informers.append(self._ingresses)
        self._thread = threading.Thread(target=self._run, name="registration", daemon=True)

    def configure(self, configuration: ClusterConfiguration) -> None:
        """Apply the lifetimes of certificates in the KubeVirt object, from now on."""
        if configuration.rotation != self._rotation:
            self._rotation = configuration.rotation
            self._wake.set()

    def prepare(self) -> None:
        """Load certificates to serve with.

        :raises turtles.kube.client.ApiError: the API server can't be reached.
        """
        self._certificates = self._ensure()
        self._loaded(self._certificates)

    def start(self) -> None:
        """Register, and stay registered."""
        for informer in self._informers:
            informer.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop checking; everything stays registered."""
        self._stopped.set()
        self._wake.set()
        for informer in self._informers:
            informer.stop()

    def sync(self) -> None:
        """Update certificates and registered objects.

        :raises turtles.kube.client.ApiError: that isn't possible now.
        """
        issued, kinds = self._ensure(), self._kinds()
        for resource, obj in self._wanted(issued.bundle, kinds):
            self._put(resource, signed(obj), issued.bundle)
        # Last: until here clients might not have known a new authority
        if issued != self._certificates:
            if self._certificates and certificates.overlap(self._certificates, issued):
                self._stopped.wait(self._spread)
            self._loaded(issued)
            self._certificates = issued
        self.done.set()
        if DATA_VOLUME in kinds:
            # virt-api is asked about this one, and the Service leads to it only once it is ready
            resource, obj = upload_proxy(issued.bundle, self._upload_url())
            self._put(resource, signed(obj), issued.bundle)

    def _wanted(self, bundle: str, kinds: list[Kind]) -> list[tuple[Resource, Object]]:
        is_ours = DATA_VOLUME in kinds
        groups = {name: versions for name, versions in discovery.GROUPS.items() if is_ours or name != uploads.GROUP}
        wanted = webhooks(bundle, self._namespace, self._url, kinds)
        wanted += apiservices(bundle, self._namespace, groups, self._url)
        return wanted + (endpoints(self._namespace, self._url) if self._url else [])

    def _upload_url(self) -> str | None:
        """Return where uploads are sent, if anybody says: first of all an administrator."""
        config = self._client.find(RESOURCES[CDI_CONFIG.kind], None, CDI_CONFIG_NAME)
        return get(config, "spec", "uploadProxyURLOverride") or self._url

    def _kinds(self) -> list[Kind]:
        """Return the kinds that this engine serves: not those of CDI where upstream's has defined them."""
        definition = self._client.find(CRD, None, DATA_VOLUME.crd_name)
        return [kind for kind in KINDS if kind.group != cdi.GROUP or definition is None or cdi.is_ours(definition)]

    def _ensure(self) -> Certificates:
        def expired(secret: Object, end: datetime) -> None:
            message = (
                f"the certificates of virt-api expired at {end:%Y-%m-%dT%H:%M:%SZ} and have been replaced. In the "
                "meantime virtual machines could not be changed, but running ones were not affected. virt-api replaces "
                "its certificates in time while it is running; if it was, check the clocks of its nodes"
            )
            self._tell({**secret, "apiVersion": "v1", "kind": "Secret"}, "Warning", "CertificatesExpired", message)

        # An Ingress that passes TLS through, for uploads or exports, leads to this certificate by a name of its own
        hosts = [urlsplit(self._upload_url() or "").hostname, *map(exports.host_of, self._ingresses.list())]
        names = sorted({*self._names, *filter(None, hosts)})
        return certificates.ensure(self._client, self._namespace, names, rotation=self._rotation, expired=expired)

    def _informer(self, resource: Resource, namespace: str | None, name: str) -> Informer:
        informer = Informer(self._client, resource, namespace=namespace, field_selector=f"metadata.name={name}")
        informer.add_handler(lambda old, new: self._wake.set())
        return informer

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wake.clear()
            try:
                self.sync()
                pause = _INTERVAL
            except (ApiError, OSError) as error:
                log.warning("can't register with the API server yet: %s", error)
                pause = _RETRY
            except Exception:
                log.exception("registration failed")
                pause = _RETRY
            self._wake.wait(pause)

    def _put(self, resource: Resource, wanted: Object, bundle: str) -> None:
        metadata = wanted["metadata"]
        namespace, name = metadata.get("namespace"), metadata["name"]
        try:
            stored = self._client.get(resource, namespace, name)
        except NotFound:
            # Another replica may be quicker; it writes the same. The definition of CDIConfig may come later
            with contextlib.suppress(AlreadyExists, *([NotFound] if resource.group == cdi.GROUP else [])):
                self._remember(resource, wanted, self._client.create(resource, wanted))
                log.info("registered", extra={"kind": resource.kind, "object": name})
            return
        written, made = self._written.get((resource.kind, name), (None, wanted))
        if contains(stored, made if written == wanted else wanted):
            return
        if build_of(stored) != build_of(wanted) and not self._is_rolled_out():
            if (kept := trusting(stored, bundle)) != stored:
                self._client.replace(resource, kept)
                log.info("registered authorities", extra={"kind": resource.kind, "object": name})
            return
        parts = {key: value for key, value in wanted.items() if key not in ("apiVersion", "kind", "metadata")}
        own = {key: {**(stored["metadata"].get(key) or {}), **metadata[key]} for key in ("labels", "annotations")}
        for key, value in parts.items():
            # The API server's own settings (a Service's address) stay
            if isinstance(value, dict) and isinstance(stored.get(key), dict):
                parts[key] = {**stored[key], **value}
        obj = {**stored, "metadata": {**stored["metadata"], **own}, **parts}
        self._remember(resource, wanted, self._client.replace(resource, obj))
        log.info("registered again", extra={"kind": resource.kind, "object": name})

    def _is_rolled_out(self) -> bool:
        """Say whether all replicas are of one build, this one."""
        if not self._pod:
            return True
        deployment = self._client.find(DEPLOYMENT, self._namespace, SERVICE_NAME)
        if deployment is None:
            return True
        status = deployment.get("status") or {}
        current = (status.get("observedGeneration") or 0) >= (deployment["metadata"].get("generation") or 0)
        if not current or (status.get("replicas") or 0) != (status.get("updatedReplicas") or 0):
            return False
        # One that is being deleted isn't counted any more, and still runs for a while
        pod = self._client.find(POD, self._namespace, self._pod)
        return pod is not None and not is_deleted(pod)

    def _remember(self, resource: Resource, wanted: Object, made: Object) -> None:
        own = {key: made.get(key) for key in wanted if key != "metadata"}
        own["metadata"] = {key: wanted["metadata"][key] for key in ("labels", "annotations")}
        self._written[resource.kind, wanted["metadata"]["name"]] = (wanted, own)
