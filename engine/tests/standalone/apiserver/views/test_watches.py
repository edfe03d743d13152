# SPDX-License-Identifier: GPL-3.0-or-later
"""Watches that a kube-apiserver can't judge in a corpus: many of them at once, and versions whose history is gone."""

import asyncio
import json
import time

import aiohttp

from ..conftest import Server

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"
WATCHERS, WRITES = 300, 40


async def test_hundreds_of_watchers_miss_nothing_and_see_nothing_twice(server: Server) -> None:
    """Half of them from the version of a list, half with a selector that objects leave and come back to."""
    start = server.call("GET", CONFIG_MAPS)[1]["metadata"]["resourceVersion"]
    base = f"https://127.0.0.1:{server.port}{CONFIG_MAPS}"
    selectors = ("many", "many%3Dodd")

    async def watch(session: aiohttp.ClientSession, selector: str) -> list[tuple[str, str, str]]:
        query = f"watch=1&timeoutSeconds=300&resourceVersion={start}&labelSelector={selector}"
        seen = []
        async with session.get(f"{base}?{query}") as answer:
            assert answer.status == 200
            async for line in answer.content:
                event = json.loads(line)
                obj = event["object"]
                if obj["metadata"]["name"] == "many-end":
                    return seen
                seen.append((event["type"], obj["metadata"]["name"], obj["metadata"]["resourceVersion"]))
        raise AssertionError("the server ended the watch")

    connector = aiohttp.TCPConnector(limit=0, ssl=server.tls)
    headers = {"Authorization": f"Bearer {server.token()}"}
    timeout = aiohttp.ClientTimeout(total=240)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:

        async def write(method: str, path: str, body: dict | None = None, kind: str = "application/json") -> None:
            async with session.request(method, f"{base}{path}", json=body, headers={"Content-Type": kind}) as answer:
                assert answer.status in (200, 201), await answer.text()

        watches = [asyncio.ensure_future(watch(session, selectors[number % 2])) for number in range(WATCHERS)]
        await write("POST", "", {"metadata": {"name": "many-0", "labels": {"many": "even"}}})
        for number in range(1, WRITES):
            # The client that writes doesn't wait for those that watch: some begin in the middle.
            labels = {"many": "odd" if number % 3 else "even"}
            await write("PATCH", "/many-0", {"metadata": {"labels": labels}, "data": {"n": str(number)}}, MERGE)
        await write("DELETE", "/many-0")
        await write("POST", "", {"metadata": {"name": "many-end", "labels": {"many": "odd"}}})
        found = await asyncio.gather(*watches)
        await write("DELETE", "/many-end")
    every, chosen = found[0], found[1]
    assert [one[0] for one in every] == ["ADDED", *["MODIFIED"] * (WRITES - 1), "DELETED"]
    assert len({one[2] for one in every}) == len(every)
    # Even, odd, odd, even, …: it comes, is changed, leaves.
    assert [one[0] for one in chosen][:6] == ["ADDED", "MODIFIED", "DELETED"] * 2
    for number, one in enumerate(found):
        assert one == (every, chosen)[number % 2], f"watcher {number}"


def test_a_version_whose_history_is_gone(stopped: Server) -> None:
    server = stopped.start("--history-seconds", "1")
    for number in range(3):
        server.call("POST", CONFIG_MAPS, {"metadata": {"name": f"old-{number}", "labels": {"old": ""}}})
    path = f"{CONFIG_MAPS}?labelSelector=old"
    first = server.call("GET", f"{path}&limit=1")[1]["metadata"]

    def expired() -> list[dict]:
        # What is forgotten is looked for when something is written.
        server.call("PATCH", f"{CONFIG_MAPS}/old-0", {"data": {"at": str(time.monotonic())}}, MERGE)
        events = server.watch(f"{path}&resourceVersion={first['resourceVersion']}")
        return events if events and events[0]["type"] == "ERROR" else []

    (event,) = server.until(expired, 120)
    status = event["object"]
    assert (status["kind"], status["code"], status["reason"]) == ("Status", 410, "Expired")
    assert status["message"].startswith(f"too old resource version: {first['resourceVersion']} (")
    code, status = server.call("GET", f"{path}&limit=1&continue={first['continue']}")
    assert (code, status["reason"]) == (410, "Expired")
    exact = f"{path}&resourceVersion={first['resourceVersion']}&resourceVersionMatch=Exact"
    assert server.call("GET", exact)[0] == 410
    # A client lists again, and goes on from there.
    listed = server.call("GET", path)[1]
    assert len(listed["items"]) == 3
    server.call("DELETE", f"{CONFIG_MAPS}/old-1")
    (event,) = server.watch(f"{path}&resourceVersion={listed['metadata']['resourceVersion']}")
    assert (event["type"], event["object"]["metadata"]["name"]) == ("DELETED", "old-1")
