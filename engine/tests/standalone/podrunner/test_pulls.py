# SPDX-License-Identifier: GPL-3.0-or-later
"""Who waits for which pull, until when, and beside whom."""

import dataclasses
import functools
import re
import shutil
import threading
import time
from concurrent.futures import CancelledError

import pytest

from turtles.kube.resources import POD, SECRET
from turtles.standalone.podrunner import image_volumes
from turtles.standalone.podrunner.config import ConfigError, parse
from turtles.standalone.podrunner.confined import Attempt
from turtles.standalone.podrunner.credentials import logins_for, registry_of, repository_of
from turtles.standalone.podrunner.pulls import Pulls

from .entry_points import names
from .registries import Registry, digest_of, layer, programs, secret


class Work:
    """A pull that goes on until it is told to end, or cancelled."""

    def __init__(self):
        self.began, self.ended = threading.Event(), threading.Event()
        self.attempt = None
        self.times = 0

    def __call__(self, attempt):
        self.attempt = attempt
        self.times += 1
        self.began.set()
        while not self.ended.wait(0.005):
            if attempt.cancelled:
                raise RuntimeError("cancelled")
        return "sha256:0"

    def begins(self):
        """Say that it begins."""
        return self.began.wait(60)


@pytest.fixture
def pulls():
    """Three places, two a namespace."""
    pulls = Pulls(lambda: Attempt(60), 3, 2)
    yield pulls
    pulls.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "pull"]


def test_pods_share_a_pull_until_the_last_one_leaves(pulls):
    work, never = Work(), Work()
    first = pulls.join("image", "a", "default", work)
    assert pulls.join("image", "b", "other", never) is first
    assert work.begins()
    pulls.leave("a")
    assert not work.attempt.cancelled
    pulls.leave("b")
    with pytest.raises(RuntimeError, match="cancelled"):
        first.result(60)
    assert never.attempt is None
    # Whoever comes next gets another one.
    again = Work()
    second = pulls.join("image", "c", "default", again)
    assert again.begins()
    again.ended.set()
    assert second.result(60) == "sha256:0"


def test_a_namespace_has_some_places_only(pulls):
    evil = [Work() for _ in range(5)]
    futures = [pulls.join(number, f"evil{number}", "evil", work) for number, work in enumerate(evil)]
    honest, more = Work(), Work()
    pulls.join("honest", "h", "default", honest)
    assert honest.begins()
    assert [work.began.is_set() for work in evil] == [True, True, False, False, False]
    assert pulls.describe(2, "evil") == "waiting for its turn: 3 pulls are under way, 2 for this namespace"
    assert pulls.describe(0, "evil") == ""
    # All places are taken; the namespace with the fewest is next, whoever came first.
    pulls.join("more", "m", "third", more)
    assert not more.began.is_set()
    evil[0].ended.set()
    assert more.begins()
    honest.ended.set()
    assert evil[2].begins()
    pulls.leave("evil3")
    with pytest.raises(CancelledError):
        futures[3].result(0)


def test_a_shared_pull_counts_for_those_who_wait_for_it(pulls):
    shared, own = Work(), [Work() for _ in range(3)]
    pulls.join("shared", "a", "one", shared)
    pulls.join("shared", "b", "two", shared)
    assert shared.begins()
    for number in range(2):
        pulls.join(number, f"t{number}", "two", own[number])
        assert own[number].begins()
    pulls.leave("a")
    own[0].ended.set()
    # Now the shared one counts for the second namespace, which has no more than two places.
    pulls.join(2, "t2", "two", own[2])
    own[2].began.wait(0.05)
    assert not own[2].began.is_set()
    own[1].ended.set()
    assert own[2].begins()


@pytest.fixture
def leased():
    """Eight places, two a namespace, each for a moment if others need it."""
    pulls = Pulls(lambda: Attempt(60), 8, 2, lease=0.02)
    yield pulls
    pulls.stop()


def test_namespaces_with_all_the_places_give_one_to_another(leased):
    evil = [Work() for _ in range(12)]
    futures = [leased.join(n, f"evil{n}", f"evil{n % 4}", work) for n, work in enumerate(evil)]
    assert all(work.begins() for work in evil[:8])
    honest = [Work() for _ in range(2)]
    for number, work in enumerate(honest):
        leased.join(f"honest{number}", "h", "default", work)
    assert honest[0].begins()
    # One gave way, not one of the older half, and those who wait for it needn't know. The honest namespace has got
    # what the others have: it waits for its second place, although leases are over.
    honest[1].began.wait(0.1)
    assert [work.attempt.cancelled for work in evil[:4]] == [False] * 4
    (loser,) = [n for n in range(4, 8) if evil[n].attempt.cancelled]
    assert not futures[loser].done()
    assert leased.describe(loser, f"evil{loser % 4}").startswith("waiting for its turn: 8 pulls are under way, 1 for")
    assert not honest[1].began.is_set()
    assert [work.times for work in evil[8:]] == [0] * 4
    # It begins again: there are places when its namespace's other pull ends, and one more.
    for number in (loser - 4, loser + 4, *(n for n in range(4) if n != loser - 4)):
        evil[number].ended.set()
    evil[loser].ended.set()
    assert futures[loser].result(60) == "sha256:0"
    assert evil[loser].times == 2


def test_namespaces_take_turns_when_there_are_more_than_places(leased):
    """However many hostile pulls were there before, and however often they come again."""
    evil = [Work() for _ in range(60)]
    for number, work in enumerate(evil):
        leased.join(number, f"evil{number}", f"evil{number % 20}", work)
    for number in range(3):
        honest = Work()
        future = leased.join(f"honest{number}", f"h{number}", "default", honest)
        assert honest.begins()
        honest.ended.set()
        assert future.result(60) == "sha256:0"
    # The older half goes on to its end.
    assert [work.attempt.cancelled for work in evil[:4]] == [False] * 4


def test_a_pull_that_gave_way_can_be_given_up(leased):
    evil = [Work() for _ in range(8)]
    futures = [leased.join(n, f"evil{n}", f"evil{n % 4}", work) for n, work in enumerate(evil)]
    honest = Work()
    leased.join("honest", "h", "default", honest)
    assert honest.begins()
    (loser,) = [n for n in range(8) if evil[n].attempt.cancelled]
    leased.leave(f"evil{loser}")
    assert futures[loser].cancelled()


def test_a_single_place_is_kept_to_the_end():
    pulls = Pulls(lambda: Attempt(60), 1, 1, lease=0.0)
    first, second = Work(), Work()
    pulls.join(1, "a", "one", first)
    pulls.join(2, "b", "two", second)
    assert not second.began.wait(0.05)
    first.ended.set()
    assert second.begins()
    pulls.stop()
    assert first.times == 1


def test_stop_ends_all(pulls):
    running, waiting = [Work() for _ in range(2)], Work()
    for number, work in enumerate(running):
        pulls.join(number, str(number), "default", work)
    queued = pulls.join("queued", "q", "default", waiting)
    pulls.stop()
    assert all(work.attempt.cancelled for work in running)
    assert queued.cancelled()
    assert pulls.join("late", "l", "default", waiting).done() is False
    assert waiting.attempt is None


# --- Pods -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def private(tmp_path):
    """A registry that wants credentials."""
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry")
    (tmp_path / "registry").mkdir()
    registry = Registry(tmp_path / "registry", True)
    yield registry
    registry.stop()


@pytest.fixture
def config(config, request):
    """A configuration that takes the tests' registries without TLS."""
    addresses = [
        request.getfixturevalue(name).address for name in ("hostile", "private") if name in request.fixturenames
    ]
    return dataclasses.replace(config, insecure_registries=tuple(addresses), max_parallel_image_pulls=4)


def image_volume(reference, **more):
    """Return a Pod's volumes with one image."""
    return {"volumes": [{"name": "disk", "image": {"reference": reference, **more}}]}


FAILED = "^(ErrImagePull|ImagePullBackOff): "


def message(pod):
    """Return what a Pod's container waits for, as "reason: message"."""
    waiting = pod["status"]["containerStatuses"][0]["state"].get("waiting") or {}
    return f"{waiting.get('reason')}: {waiting.get('message')}"


def pods(node, namespace):
    """Return a namespace's Pods whose containers have a status."""
    objects = [obj for key, obj in list(node.client.objects.items()) if key[:2] == ("pods", namespace)]
    return [pod for pod in objects if pod["status"].get("containerStatuses")]


def waits(node, word, name="pod1", namespace="default"):
    """Wait until a Pod's container waits for something (a pattern)."""
    return node.wait(
        lambda pod: pod["status"].get("containerStatuses") and re.search(word, message(pod)), name, namespace=namespace
    )


def nothing_under_way(node, tmp_path):
    """Wait until no pull is left."""
    deadline = time.monotonic() + 5
    while programs(str(tmp_path / "images")) or names(tmp_path / "images/tmp"):
        assert time.monotonic() < deadline, names(tmp_path / "images/tmp")
        time.sleep(0.01)


@pytest.mark.root
def test_deleting_a_pod_cancels_its_pull(node, hostile, tmp_path):
    node.pod("exit", "0", **image_volume(hostile.endless("slow", 1 << 30, 0.02, b"x")))
    waits(node, "ContainerCreating: pulling image")
    hostile.wait_asked("/blobs/" + digest_of(b"slow"))
    node.client.delete(POD, "default", "pod1", grace_period=30)
    node.wait(lambda pod: pod is None)
    nothing_under_way(node, tmp_path)


@pytest.mark.root
def test_a_stopped_podrunner_leaves_no_pull(node, hostile, tmp_path):
    reference = hostile.endless("slow", 1 << 30, 0.02, b"x")
    node.pod("exit", "0", **image_volume(reference))
    hostile.wait_asked("/blobs/" + digest_of(b"slow"))
    node.runner.stop()
    assert programs(str(tmp_path / "images")) == []
    assert names(tmp_path / "images/tmp") == []
    # The next one begins again.
    hostile.blobs[digest_of(b"slow")] = b"no layer"
    node.new_runner()
    waits(node, FAILED)


@pytest.mark.root
def test_a_pull_goes_on_for_another_pod(node, hostile):
    go, blob = threading.Event(), layer(name=b"content")

    def send(handler):
        go.wait(60)
        hostile.blobs[digest_of(blob)] = blob
        hostile.answer(handler)

    reference = hostile.add("slow", blob)
    hostile.blobs[digest_of(blob)] = send
    for name in ("pod1", "pod2"):
        node.pod("exit", "0", name=name, **image_volume(reference))
        waits(node, "pulling image", name)
    hostile.wait_asked(digest_of(blob))
    node.client.delete(POD, "default", "pod1", grace_period=30)
    node.wait(lambda pod: pod is None)
    go.set()
    node.phase("Succeeded", "pod2")
    assert len([path for path in hostile.asked if digest_of(blob) in path]) == 2  # asked, and answered above


@pytest.mark.root
def test_hostile_pulls_beside_an_honest_one(node, hostile, tmp_path):
    for number in range(5):
        reference = hostile.endless(f"evil{number}", 1 << 30, 0.02, b"x")
        node.pod("exit", "0", name=f"evil{number}", namespace="evil", **image_volume(reference))
    # Two have places, whichever came first.
    node.wait(lambda _: sum("waiting for its turn: " in message(pod) for pod in pods(node, "evil")) == 3)
    node.pod("exit", "0", **image_volume(hostile.add("honest", layer(name=b"content"))))
    node.phase("Succeeded")
    for number in range(5):
        node.client.delete(POD, "evil", f"evil{number}", grace_period=0)
    nothing_under_way(node, tmp_path)


@pytest.mark.root
def test_hostile_pulls_of_several_namespaces_beside_an_honest_one(node, hostile, tmp_path, monkeypatch):
    monkeypatch.setattr(image_volumes, "Pulls", functools.partial(Pulls, lease=0.5))
    node.runner.stop()
    node.new_runner()
    for number in range(4):
        reference = hostile.endless(f"evil{number}", 1 << 30, 0.02, b"x")
        node.pod("exit", "0", name=f"evil{number}", namespace=f"evil{number // 2}", **image_volume(reference))
        hostile.wait_asked("/blobs/" + digest_of(f"evil{number}".encode()))
    node.pod("exit", "0", **image_volume(hostile.add("honest", layer(name=b"content"))))
    node.phase("Succeeded")
    for number in range(4):
        node.client.delete(POD, f"evil{number // 2}", f"evil{number}", grace_period=0)
    nothing_under_way(node, tmp_path)


@pytest.mark.root
def test_a_cached_private_image_is_not_another_tenants(node, private):
    reference = private.push("team/private", layer(name=b"private"))
    node.client.add(SECRET, secret("login", private.address, namespace="alice"))
    node.client.add(SECRET, secret("login", private.address, "bob", "guessed", "bob", "another"))
    login = {"imagePullSecrets": [{"name": "login"}, {"name": "missing"}]}
    node.pod("exit", "0", namespace="alice", **login, **image_volume(reference))
    node.wait(lambda pod: pod["status"].get("phase") == "Succeeded", namespace="alice")
    node.pod("exit", "0", name="none", namespace="bob", **image_volume(reference))
    node.pod("exit", "0", name="wrong", namespace="bob", **login, **image_volume(reference))
    node.pod("exit", "0", name="never", namespace="bob", **login, **image_volume(reference, pullPolicy="Never"))
    waits(node, FAILED, "none", "bob")
    waits(node, FAILED, "wrong", "bob")
    waits(node, "ErrImageNeverPull: ", "never", "bob")
    # With the registry gone its owner still has it, from a podrunner that has just started.
    private.stop()
    node.runner.stop()
    node.new_runner()
    node.pod("exit", "0", name="again", namespace="alice", **login, **image_volume(reference))
    node.wait(lambda pod: pod["status"].get("phase") == "Succeeded", "again", namespace="alice")


# --- configuration and credentials ------------------------------------------------------------------------------------


def test_limits_are_configured():
    data = dict.fromkeys(("nodeName", "kubeconfig", "rootDir", "runDir", "imagesDir", "cniConfDir", "cniBinDir"), "/x")
    config = parse(data | {"maxImageBytes": 1 << 20, "imagePullTimeoutSeconds": "5", "maxParallelImagePulls": 2})
    assert (config.max_image_bytes, config.image_pull_timeout, config.max_parallel_image_pulls) == (1 << 20, 5, 2)
    for value in (0, -1, "many", True, 1.5, 1 << 63):
        with pytest.raises(ConfigError, match="of at least 1 as maxImageApparentBytes, not"):
            parse(data | {"maxImageApparentBytes": value})


@pytest.mark.parametrize(
    ("reference", "registry", "repository"),
    [
        ("nginx", "docker.io", "docker.io/library/nginx"),
        ("a/b:1", "docker.io", "docker.io/a/b"),
        ("index.docker.io/a/b", "docker.io", "docker.io/a/b"),
        ("localhost/a", "localhost", "localhost/a"),
        ("127.0.0.1:5000/a:1", "127.0.0.1:5000", "127.0.0.1:5000/a"),
        ("r.example.org:5000/a/b:1@sha256:" + "0" * 64, "r.example.org:5000", "r.example.org:5000/a/b"),
    ],
)
def test_names_of_images(reference, registry, repository):
    assert registry_of(reference) == registry
    assert repository_of(reference) == repository


@pytest.mark.parametrize(
    ("key", "fits"),
    [
        ("r.example.org", True),
        ("https://r.example.org/v2/", True),
        ("*.example.org", True),
        ("*.org", False),
        ("r.example.org/team", True),
        ("r.example.org/tea", False),
        ("r.example.org/team/a", True),
        ("r.example.org/team/b", False),
        ("r.example.org:5000", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_which_logins_are_for_an_image(key, fits):
    assert bool(logins_for("r.example.org/team/a:1", [secret("s", key)])) == fits


def test_the_narrowest_login_is_first():
    secrets = [secret(name, name) for name in ("*.example.org", "r.example.org", "r.example.org/team")]
    found = logins_for("r.example.org/team/a:1", [*secrets, {"metadata": {"name": "x"}, "data": {"a": "b"}}])
    assert [login.name for login in found] == ["r.example.org/team", "r.example.org", "*.example.org"]
    assert "auth" not in repr(found)
