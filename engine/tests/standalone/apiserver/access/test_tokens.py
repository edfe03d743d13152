# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens of service accounts: requests, authentication, reviews, Secrets, discovery of the issuer."""

import base64
import json
import time
from collections.abc import Iterator

import jwt
import pytest

from ..conftest import Server

ACCOUNTS = "/api/v1/namespaces/tokens/serviceaccounts"
PODS = "/api/v1/namespaces/tokens/pods"
SECRETS = "/api/v1/namespaces/tokens/secrets"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
ISSUER = "https://kubernetes.default.svc"


@pytest.fixture
def account(server: Server) -> Iterator[str]:
    server.call("POST", "/api/v1/namespaces", {"metadata": {"name": "tokens"}})
    assert server.call("POST", ACCOUNTS, {"metadata": {"name": "robot"}})[0] == 201
    yield "robot"
    server.call("DELETE", f"{ACCOUNTS}/robot")


def request(server: Server, account: str, **spec: object) -> tuple[int, dict]:
    return server.call("POST", f"{ACCOUNTS}/{account}/token", {"spec": spec})


def who(server: Server, token: str) -> tuple[int, dict]:
    code, answer = server.call("POST", WHO, {}, token=token)
    return code, answer["status"]["userInfo"] if code == 201 else {}


def review(server: Server, token: str, *audiences: str) -> dict:
    body = {"spec": {"token": token, **({"audiences": list(audiences)} if audiences else {})}}
    return server.call("POST", REVIEWS, body)[1]["status"]


def make_pod(server: Server, name: str = "bound", account: str = "robot") -> dict:
    container = {"name": "a", "image": "b"}
    body = {"metadata": {"name": name}, "spec": {"containers": [container], "serviceAccountName": account}}
    code, pod = server.call("POST", PODS, body)
    assert code == 201, pod
    return pod


def test_token_is_its_accounts(server: Server, account: str) -> None:
    code, answer = request(server, account, expirationSeconds=900)
    assert code == 201, answer
    assert answer["spec"]["audiences"] == [ISSUER]
    token = answer["status"]["token"]
    code, user = who(server, token)
    uid = server.call("GET", f"{ACCOUNTS}/robot")[1]["metadata"]["uid"]
    assert (code, user["username"], user["uid"]) == (201, "system:serviceaccount:tokens:robot", uid)
    assert user["groups"] == ["system:serviceaccounts", "system:serviceaccounts:tokens", "system:authenticated"]
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 900
    assert claims["kubernetes.io"]["serviceaccount"] == {"name": "robot", "uid": uid}
    assert server.call("GET", PODS, token=token)[0] == 403


def test_token_is_verifiable_by_others(server: Server, account: str) -> None:
    token = request(server, account, audiences=["vault"])[1]["status"]["token"]
    configuration = server.call("GET", "/.well-known/openid-configuration", token=who_may(server, account))[1]
    assert configuration["issuer"] == ISSUER
    code, headers, raw = server.raw("GET", "/openid/v1/jwks")
    assert (code, headers["Content-Type"].partition(";")[0]) == (200, "application/jwk-set+json")
    keys = jwt.PyJWKSet.from_dict(json.loads(raw))
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, audience="vault", issuer=ISSUER)
    assert claims["sub"] == "system:serviceaccount:tokens:robot"


def who_may(server: Server, account: str) -> str:
    return request(server, account)[1]["status"]["token"]


def test_token_of_another_audience(server: Server, account: str) -> None:
    token = request(server, account, audiences=["vault", "other"])[1]["status"]["token"]
    assert who(server, token)[0] == 401
    assert "authenticated" not in review(server, token)
    found = review(server, token, "vault", "third")
    assert (found["authenticated"], found["audiences"]) == (True, ["vault"])
    assert "error" in review(server, token, "third")


@pytest.mark.parametrize(("seconds", "text"), [(599, "less than 10 minutes"), (2**32 + 1, "larger than 2^32 seconds")])
def test_token_for_an_odd_time(server: Server, account: str, seconds: int, text: str) -> None:
    code, answer = request(server, account, expirationSeconds=seconds)
    assert (code, answer["reason"]) == (422, "Invalid")
    assert f"spec.expirationSeconds: Invalid value: {seconds}: may not specify a duration {text}" in answer["message"]


def test_token_of_nobody(server: Server, account: str) -> None:
    code, answer = request(server, "nobody")
    assert (code, answer["message"]) == (404, 'serviceaccounts "nobody" not found')


def test_token_bound_to_a_pod_ends_with_it(server: Server, account: str) -> None:
    pod = make_pod(server)
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "bound", "uid": pod["metadata"]["uid"]}
    token = request(server, account, boundObjectRef=reference)[1]["status"]["token"]
    code, user = who(server, token)
    assert code == 201
    assert user["extra"]["authentication.kubernetes.io/pod-name"] == ["bound"]
    assert user["extra"]["authentication.kubernetes.io/pod-uid"] == [pod["metadata"]["uid"]]
    server.call("DELETE", f"{PODS}/bound")
    assert who(server, token)[0] == 401
    make_pod(server)
    assert who(server, token)[0] == 401, "another Pod of the same name"
    code, answer = request(server, account, boundObjectRef=reference)
    assert (code, answer["reason"]) == (409, "Conflict")
    assert "does not match the UID in record" in answer["message"]
    server.call("DELETE", f"{PODS}/bound")
    code, answer = request(server, account, boundObjectRef=reference)
    assert (code, answer["message"]) == (404, 'pods "bound" not found')


def test_token_bound_to_what_it_cannot_be(server: Server, account: str) -> None:
    make_pod(server, account="default")
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "bound"}
    code, answer = request(server, account, boundObjectRef=reference)
    assert code == 400
    assert 'cannot bind token for serviceaccount "robot" to pod running with different' in answer["message"]
    server.call("DELETE", f"{PODS}/bound")
    code, answer = request(server, account, boundObjectRef={"kind": "ConfigMap", "apiVersion": "v1", "name": "x"})
    assert (code, answer["message"]) == (400, "cannot bind token to object of type /v1, Kind=ConfigMap")
    for kind in (["Pod"], {}, None):
        assert request(server, account, boundObjectRef={"kind": kind, "apiVersion": "v1", "name": "x"})[0] == 400


def test_token_of_an_account_made_anew(server: Server, account: str) -> None:
    token = request(server, account)[1]["status"]["token"]
    assert who(server, token)[0] == 201
    server.call("DELETE", f"{ACCOUNTS}/robot")
    assert who(server, token)[0] == 401
    server.call("POST", ACCOUNTS, {"metadata": {"name": "robot"}})
    assert who(server, token)[0] == 401


def test_tokens_of_others_are_none(server: Server, account: str) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    token = request(server, account)[1]["status"]["token"]
    claims = jwt.decode(token, options={"verify_signature": False})
    stranger = ec.generate_private_key(ec.SECP256R1())
    header = jwt.get_unverified_header(token)
    assert who(server, jwt.encode(claims, stranger, "ES256", {"kid": header["kid"]}))[0] == 401
    assert who(server, jwt.encode(claims, "", "none"))[0] == 401
    assert who(server, jwt.encode(claims, "x" * 32, "HS256"))[0] == 401
    head, body, signature = token.split(".")
    assert who(server, f"{head}.{body}x.{signature}")[0] == 401
    key = (server.config / "pki/sa.key").read_bytes()
    for change in ({"exp": int(time.time()) - 1}, {"nbf": int(time.time()) + 3600}, {"iss": "https://elsewhere"}):
        assert who(server, jwt.encode({**claims, **change}, key, "ES256"))[0] == 401, change
    assert who(server, jwt.encode(claims, key, "ES256"))[0] == 201


def test_token_in_a_secret(server: Server, account: str) -> None:
    annotations = {"kubernetes.io/service-account.name": "robot"}
    body = {"metadata": {"name": "kept", "annotations": annotations}, "type": "kubernetes.io/service-account-token"}
    assert server.call("POST", SECRETS, body)[0] == 201
    data = server.until(lambda: server.call("GET", f"{SECRETS}/kept")[1].get("data"))
    assert base64.b64decode(data["namespace"]) == b"tokens"
    assert base64.b64decode(data["ca.crt"]) == (server.config / "pki/ca.crt").read_bytes()
    token = base64.b64decode(data["token"]).decode()
    assert who(server, token)[1]["username"] == "system:serviceaccount:tokens:robot"
    server.call("DELETE", f"{ACCOUNTS}/robot")
    server.until(lambda: server.call("GET", f"{SECRETS}/kept")[0] == 404)
    assert who(server, token)[0] == 401


def test_authority_is_published_in_every_namespace(server: Server, account: str) -> None:
    path = "/api/v1/namespaces/tokens/configmaps/kube-root-ca.crt"
    authority = (server.config / "pki/ca.crt").read_text()

    def published() -> bool:
        return server.call("GET", path)[1].get("data") == {"ca.crt": authority}

    server.until(published)
    server.call("DELETE", path)
    server.until(published)
    server.call("PATCH", path, {"data": {"ca.crt": "x"}}, "application/merge-patch+json")
    server.until(published)
