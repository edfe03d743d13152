# SPDX-License-Identifier: GPL-3.0-or-later
"""The images of Pods' containers and volumes: which are there, which are being pulled, and which could not be."""

import time
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from pathlib import Path

from turtles.api.objects import Object
from turtles.standalone.files import read_json, write_json
from turtles.standalone.podrunner.config import Config
from turtles.standalone.podrunner.credentials import Login, logins_for
from turtles.standalone.podrunner.image_config import ImageConfig
from turtles.standalone.podrunner.image_reference import ImageError, default_policy
from turtles.standalone.podrunner.images import ImageStore
from turtles.standalone.podrunner.poddir import PodDir
from turtles.standalone.podrunner.pulls import Pulls
from turtles.standalone.podrunner.waiting import Waiting

#: First and longest pause after a failed pull, seconds.
_BACKOFF = (10.0, 300.0)


@dataclass
class _Progress:
    """What is known of a Pod's pulls, by volume or container; can be lost."""

    #: What is pulled, and the pull.
    pulls: dict[str, tuple[Hashable, Future[str]]] = field(default_factory=dict)
    #: How often it failed, when (monotonic) it may be tried again, and why it failed.
    failures: dict[str, tuple[int, float, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Image:
    """An image that is here: its digest, its files, and what it says about its containers."""

    digest: str
    content: Path
    config: ImageConfig


class ImageVolumes:
    """Provides images of Pods.

    :param fetch: returns a Secret of a Pod's namespace, by kind and name.
    :param pulled: called with the uid of a Pod of which a pull has ended.
    :param tell: creates an event about a Pod: type, reason and message.
    """

    def __init__(
        self,
        config: Config,
        store: ImageStore,
        fetch: Callable[[Object, str, str], Object | None],
        pulled: Callable[[str], None],
        tell: Callable[[Object, str, str, str], None],
    ) -> None:
        self._pods_dir, self._store, self._fetch, self._pulled = config.pods_dir, store, fetch, pulled
        self._tell = tell
        self._pulls = Pulls(store.attempt, config.max_parallel_image_pulls, config.max_image_pulls_per_namespace)
        self._progress: dict[str, _Progress] = {}

    def provide(self, pod: Object, directory: PodDir) -> dict[str, Path]:
        """Return the content directories of a Pod's image volumes; start the pulls that are missing.

        :raises Waiting: a pull is in progress, or failed.
        """
        kept = read_json(directory.path / "images.json") or {}
        wanted = {
            volume["name"]: volume["image"]
            for volume in pod["spec"].get("volumes") or []
            if volume.get("image") is not None
        }
        for name, image in wanted.items():
            if name in kept and self._store.kept.path(kept[name]).is_dir():
                continue
            kept[name] = self._digest(pod, name, image, directory.uid)
            write_json(directory.path / "images.json", kept)
        return {name: self._store.kept.path(kept[name]) for name in wanted}

    def of_container(self, pod: Object, container: Object, attempt: int, directory: PodDir) -> Image:
        """Return the image of a start of a container; start pulling it if it is missing.

        :raises Waiting: a pull is in progress, or failed.
        """
        kept = read_json(directory.path / "images.json") or {}
        # No volume has such a name. With the policy Always each start looks for a newer image.
        prefix = f"container:{container['name']}:"
        key, reference = f"{prefix}{attempt}", container["image"]
        if key not in kept or not self._store.kept.path(kept[key]).is_dir():
            wanted = {"reference": reference, "pullPolicy": container.get("imagePullPolicy")}
            digest = self._digest(pod, prefix, wanted, directory.uid)
            if self._store.kept.config(digest) is None:
                if wanted["pullPolicy"] == "Never":
                    raise ImageError(
                        "ErrImageNeverPull",
                        f"image {reference} was pulled by an earlier version, which kept nothing of what it says about "
                        "its containers, and its pull policy is Never: use it once with IfNotPresent",
                    )
                digest = self._digest(pod, prefix, {**wanted, "pullPolicy": "Always"}, directory.uid)
            kept = {name: known for name, known in kept.items() if not name.startswith(prefix)} | {key: digest}
            write_json(directory.path / "images.json", kept)
        config = self._store.kept.config(kept[key])
        if config is None:
            raise ImageError("ErrImagePull", f"image {reference} was removed from this node; it will be pulled again")
        return Image(kept[key], self._store.kept.path(kept[key]), config)

    @staticmethod
    def digest_of_container(name: str, directory: PodDir) -> str:
        """Return the digest of the image of a container's last start, "" if there was none."""
        kept = read_json(directory.path / "images.json") or {}
        return next((str(known) for key, known in kept.items() if key.startswith(f"container:{name}:")), "")

    def stop_signal(self, name: str, directory: PodDir) -> str:
        """Return the signal that asks a container to end according to its image, "" if that doesn't say."""
        digest = self.digest_of_container(name, directory)
        try:
            config = self._store.kept.config(digest) if digest else None
        except ImageError:
            config = None
        return config.stop_signal if config is not None else ""

    def in_use(self) -> set[str]:
        """Return the digests of images of the Pods on this node."""
        digests: set[str] = set()
        for directory in self._pods_dir.iterdir():
            digests.update((read_json(directory / "images.json") or {}).values())
        return digests

    def cancel(self, uid: str) -> None:
        """Stop waiting for a Pod's pulls: it isn't going to start any more containers."""
        self._pulls.leave(uid)
        if uid in self._progress:
            self._progress[uid].pulls.clear()

    def forget(self, uid: str) -> None:
        """Forget a Pod."""
        self._progress.pop(uid, None)

    def stop(self) -> None:
        """Cancel all pulls."""
        self._pulls.stop()

    def _digest(self, pod: Object, name: str, image: Object, uid: str) -> str:
        progress = self._progress.setdefault(uid, _Progress())
        reference = image.get("reference") or ""
        policy = image.get("pullPolicy") or default_policy(reference)
        logins = self._logins(pod, reference)
        under_way = progress.pulls.get(name)
        digest = None
        if under_way is None or not under_way[1].done():
            digest = self._store.present(reference, policy, logins)
        if digest is not None:
            if under_way is not None:
                # Another Pod's pull was faster.
                del progress.pulls[name]
                self._leave(uid, under_way[0], progress)
            self._tell(pod, "Normal", "Pulled", f'Container image "{reference}" already present on machine')
            return digest
        count, until, message = progress.failures.get(name, (0, 0.0, ""))
        if time.monotonic() < until:
            raise Waiting(
                "ImagePullBackOff", f"Back-off pulling image {reference!r}: {message}", until - time.monotonic()
            )
        if under_way is None:
            namespace = pod["metadata"]["namespace"]
            key: Hashable = (reference, policy, tuple(logins))
            pull = self._pulls.join(
                key, uid, namespace, lambda attempt: self._store.ensure(reference, policy, logins, attempt)
            )
            progress.pulls[name] = under_way = (key, pull)
            pull.add_done_callback(lambda _: self._pulled(uid))
            self._tell(pod, "Normal", "Pulling", f'Pulling image "{reference}"')
        key, pull = under_way
        if not pull.done():
            waits = self._pulls.describe(key, pod["metadata"]["namespace"])
            raise Waiting("ContainerCreating", f"pulling image {reference}" + (f": {waits}" if waits else ""))
        del progress.pulls[name]
        try:
            digest = pull.result()
            progress.failures.pop(name, None)
            self._tell(pod, "Normal", "Pulled", f'Successfully pulled image "{reference}"')
            return digest
        except CancelledError as error:
            raise Waiting("ContainerCreating", f"pulling image {reference}", 0.0) from error
        except ImageError as error:
            pause = min(_BACKOFF[1], _BACKOFF[0] * 2 ** min(count, 10))
            progress.failures[name] = (count + 1, time.monotonic() + pause, str(error))
            raise Waiting(error.reason, str(error), pause) from error

    def _leave(self, uid: str, key: Hashable, progress: _Progress) -> None:
        # Two volumes of a Pod may wait for the same pull.
        if all(other != key for other, _ in progress.pulls.values()):
            self._pulls.leave(uid, key)

    def _logins(self, pod: Object, reference: str) -> list[Login]:
        """Return the credentials for an image in a Pod's pull secrets; missing ones are ignored, as in Kubernetes."""
        secrets = [
            self._fetch(pod, "Secret", entry["name"])
            for entry in pod["spec"].get("imagePullSecrets") or []
            if entry.get("name")
        ]
        return logins_for(reference, [secret for secret in secrets if secret is not None])
