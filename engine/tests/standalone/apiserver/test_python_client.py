# SPDX-License-Identifier: GPL-3.0-or-later
"""The official Python client as controllers and scripts use it: informers, watches, dynamic objects, election."""

import queue
import threading
from collections.abc import Iterator

import kubernetes
import pytest
from kubernetes.dynamic import DynamicClient, exceptions
from kubernetes.informer import ADDED, DELETED, MODIFIED, SharedInformer
from kubernetes.leaderelection.electionconfig import Config
from kubernetes.leaderelection.leaderelection import LeaderElection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

from .conftest import Server, widget


def connect(server: Server) -> kubernetes.client.ApiClient:
    configuration = kubernetes.client.Configuration()
    return kubernetes.config.new_client_from_config(
        str(server.config / "admin.kubeconfig"), client_configuration=configuration
    )


@pytest.fixture
def api(server: Server) -> Iterator[kubernetes.client.ApiClient]:
    with connect(server) as client:
        yield client


def config_map(name: str, value: str = "1", **labels: str) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"a": value}}


def test_a_shared_informer_lives_through_a_restart_of_the_server(stopped: Server) -> None:
    stopped.start()
    seen: queue.Queue[tuple[str, str, str]] = queue.Queue()
    with connect(stopped) as client:
        core = kubernetes.client.CoreV1Api(client)
        core.create_namespaced_config_map("default", config_map("there", seen="yes"))
        informer = SharedInformer(core.list_namespaced_config_map, namespace="default", label_selector="seen=yes")
        for kind in (ADDED, MODIFIED, DELETED):
            informer.add_event_handler(kind, lambda one, kind=kind: seen.put((kind, one.metadata.name, one.data["a"])))
        informer.start()
        try:
            assert seen.get(timeout=30) == (ADDED, "there", "1")
            core.create_namespaced_config_map("default", config_map("new", seen="yes"))
            core.create_namespaced_config_map("default", config_map("unseen", seen="no"))
            assert seen.get(timeout=30) == (ADDED, "new", "1")
            core.patch_namespaced_config_map("new", "default", {"data": {"a": "2"}})
            assert seen.get(timeout=30) == (MODIFIED, "new", "2")
            stopped.stop()
            stopped.start()
            core.patch_namespaced_config_map("new", "default", {"data": {"a": "3"}})
            # It goes on where it was: what it knew is not new to it.
            assert seen.get(timeout=60) == (MODIFIED, "new", "3")
            core.delete_namespaced_config_map("there", "default")
            assert seen.get(timeout=30) == (DELETED, "there", "1")
            assert informer.cache.list_keys() == ["default/new"]
        finally:
            ended = threading.Thread(target=informer.stop)
            ended.start()
            # The informer reads from the server until something comes.
            core.patch_namespaced_config_map("new", "default", {"data": {"a": "end"}})
            ended.join(30)
        assert not ended.is_alive()


def test_a_watch_resumes_and_expires(server: Server, api: kubernetes.client.ApiClient) -> None:
    core = kubernetes.client.CoreV1Api(api)
    start = core.list_namespaced_config_map("default").metadata.resource_version
    for number in range(4):
        core.create_namespaced_config_map("default", config_map(f"resumed-{number}", seen="resumed"))

    def watch(version: str, wanted: int) -> tuple[list[str], str]:
        one, found = kubernetes.watch.Watch(), []
        for event in one.stream(
            core.list_namespaced_config_map,
            "default",
            label_selector="seen=resumed",
            resource_version=version,
            timeout_seconds=20,
        ):
            found.append(event["object"].metadata.name)
            if len(found) == wanted:
                one.stop()
        return found, one.resource_version

    first, version = watch(start, 2)
    rest, _ = watch(version, 2)
    assert first + rest == [f"resumed-{number}" for number in range(4)]
    core.delete_collection_namespaced_config_map("default", label_selector="seen=resumed")
    # A resourceVersion that the server has never given away: not served as if nothing had happened.
    with pytest.raises(kubernetes.client.ApiException) as caught:
        core.list_namespaced_config_map("default", resource_version="99999999", resource_version_match="Exact")
    assert caught.value.status in (410, 504)


def test_the_dynamic_client(server: Server, api: kubernetes.client.ApiClient) -> None:
    dynamic = DynamicClient(api)
    widgets = dynamic.resources.get(api_version="example.io/v1", kind="Widget")
    assert (widgets.name, widgets.namespaced, sorted(widgets.subresources)) == ("widgets", True, ["scale", "status"])
    made = widgets.create(widget("dynamic", parts=[{"name": "a"}]), namespace="default")
    assert made.spec.replicas == 1
    listed = widgets.get(namespace="default", label_selector="app=dynamic")
    assert [one.metadata.name for one in listed.items] == ["dynamic"]
    with pytest.raises(exceptions.ConflictError):
        widgets.create(widget("dynamic"), namespace="default")
    body = {"apiVersion": "example.io/v1", "kind": "Widget", "metadata": {"name": "dynamic"}, "spec": {"replicas": 5}}
    patched = widgets.patch(body, namespace="default", content_type="application/merge-patch+json")
    assert (patched.spec.replicas, patched.spec.size) == (5, "small")
    body["spec"]["replicas"] = 6
    with pytest.raises(exceptions.ConflictError) as caught:
        widgets.server_side_apply(body, namespace="default", field_manager="dynamic")
    assert ".spec.replicas" in str(caught.value.body)
    applied = widgets.server_side_apply(body, namespace="default", field_manager="dynamic", force_conflicts=True)
    assert applied.spec.replicas == 6
    stale = {**made.to_dict(), "spec": {"size": "large"}}
    with pytest.raises(exceptions.ConflictError):
        widgets.replace(stale, namespace="default")
    scale = widgets.scale.get(name="dynamic", namespace="default")
    assert scale.spec.replicas == 6
    with pytest.raises(exceptions.DynamicApiError) as refused:
        widgets.patch(body, namespace="default", content_type="application/strategic-merge-patch+json")
    assert refused.value.status == 415
    found = {one.group_version for one in dynamic.resources.search(kind="Widget")}
    assert found == {"example.io/v1", "example.io/v1alpha3"}
    widgets.delete(name="dynamic", namespace="default")
    with pytest.raises(exceptions.NotFoundError):
        widgets.get(name="dynamic", namespace="default")


def test_one_of_two_leads_and_the_other_takes_over(server: Server) -> None:
    # The client's locks take the default configuration only.
    kubernetes.config.load_kube_config(str(server.config / "admin.kubeconfig"))

    def candidate(name: str) -> LeaderElection:
        return LeaderElection(
            Config(
                LeaseLock("elected", "default", name),
                lease_duration=3,
                renew_deadline=2,
                retry_period=1,
                onstarted_leading=lambda: None,
                onstopped_leading=lambda: None,
            )
        )

    try:
        first = candidate("first")
        # One attempt each: the first has the Lease, so the second hasn't.
        assert first.try_acquire_or_renew()
        second = candidate("second")
        assert not second.try_acquire_or_renew()
        assert first.try_acquire_or_renew()
        lease = server.call("GET", "/apis/coordination.k8s.io/v1/namespaces/default/leases/elected")[1]
        assert lease["spec"]["holderIdentity"] == "first"
        # The first is silent from here on.
        server.until(second.try_acquire_or_renew, 30)
        assert not first.try_acquire_or_renew()
        lease = server.call("GET", "/apis/coordination.k8s.io/v1/namespaces/default/leases/elected")[1]
        assert lease["spec"]["holderIdentity"] == "second"
    finally:
        kubernetes.client.Configuration.set_default(None)
        server.call("DELETE", "/apis/coordination.k8s.io/v1/namespaces/default/leases/elected")
