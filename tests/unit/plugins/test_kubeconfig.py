# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Connections without the Kubernetes library: the same as with it, where they are plain, and none where they aren't."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ansible_collections.turtles.kubevirt.plugins.module_utils import _client, _errors, _kubeconfig


@pytest.fixture
def kubeconfig(api, tmp_path):
    """Writes a kubeconfig with further members of its cluster and user; gives its path."""

    def write(cluster=None, user=None, **members):
        config = {**api.credentials(), **members}
        config["clusters"][0]["cluster"].update(cluster or {})
        if user:
            config["users"][0]["user"].update(user)
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        return str(tmp_path / "kubeconfig")

    return write


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in _kubeconfig._PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def read(path, **options):
    return _kubeconfig.plain_configuration({"kubeconfig": path, **options}, True)


def test_a_plain_kubeconfig_gives_the_librarys_connection(api, kubeconfig):
    # A member that changes nothing, but is left to the library.
    for extensions in ([], [{"name": "x", "extension": {}}]):
        path = kubeconfig({"extensions": extensions} if extensions else None)
        client = _client.Client({"kubeconfig": path})
        assert isinstance(client._configuration, _kubeconfig.PlainConfiguration) == (not extensions)
        assert (client.host, client.origin) == (api.url, f"kubeconfig {path}")
        assert client.get("/api/v1/namespaces/default")["metadata"]["name"] == "default"


def test_options_win_over_the_kubeconfig(api, kubeconfig):
    client = _client.Client({"kubeconfig": kubeconfig(), "api_key": "wrong"})
    with pytest.raises(_errors.KubeError, match="doesn't accept the credentials of the option api_key"):
        client.get("/api/v1/namespaces/default")


@pytest.mark.parametrize(
    "members",
    [
        {"user": {"exec": {"command": "login"}}},
        {"user": {"tokenFile": "token"}},
        {"cluster": {"proxy-url": "http://proxy.example.com"}},
        {"cluster": {"server": None}},
        {"cluster": {"certificate-authority-data": "no base64"}},
        {"contexts": []},
        {"users": [{"name": "u", "user": "none"}]},
        {"current-context": "other"},
    ],
)
def test_whatever_is_not_plain_is_left_to_the_library(kubeconfig, members):
    assert read(kubeconfig(**members)) is None


def test_proxies_and_several_files_are_left_to_the_library(kubeconfig, monkeypatch):
    path = kubeconfig()
    assert read(path)
    assert read(path, proxy="http://proxy.example.com") is None
    assert read(f"{path}:{path}") is None
    assert read("nowhere") is None
    monkeypatch.setenv("https_proxy", "http://proxy.example.com")
    assert read(path) is None


def test_files_are_next_to_the_kubeconfig(kubeconfig, tmp_path):
    data = base64.b64encode(b"authority").decode()
    cluster = {"certificate-authority-data": data, "insecure-skip-tls-verify": True}
    found = read(kubeconfig(cluster, {"client-certificate": "crt", "client-key": "/etc/key", "username": "me"}))
    assert (found.ca_data, found.verify_ssl, found.username) == (b"authority", False, "me")
    assert (found.cert_file, found.key_file) == (str(tmp_path / "crt"), "/etc/key")


def test_certificates_that_are_none_are_named(kubeconfig):
    cluster = {
        "server": "https://127.0.0.1:9",
        "certificate-authority-data": base64.b64encode(b"-----BEGIN").decode(),
    }
    path = kubeconfig(cluster)
    with pytest.raises(_errors.KubeError, match=f"The certificates of kubeconfig {path} can't be used: "):
        _client.Client({"kubeconfig": path})


def test_the_library_is_not_loaded(api, kubeconfig, collections):
    script = (
        "import sys\n"
        "from ansible_collections.turtles.kubevirt.plugins.module_utils._client import Client\n"
        "client = Client({'kubeconfig': sys.argv[1]})\n"
        "assert client.list('/api/v1/namespaces')[0]\n"
        "assert 'kubernetes' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script, kubeconfig()], check=True, cwd=collections, env={})


@pytest.fixture
def behind_tls(tmp_path):
    """A server that wants a client certificate; gives its address, certificate and key, which are the client's, too."""
    key, certificate = tmp_path / "key.pem", tmp_path / "crt.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=127.0.0.1"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"path": self.path}).encode())

        def log_message(self, *_arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}", certificate.read_bytes(), key.read_bytes()
    server.shutdown()
    server.server_close()


def test_certificates_of_a_kubeconfig(kubeconfig, behind_tls):
    url, certificate, key = behind_tls
    data = {name: base64.b64encode(value).decode() for name, value in (("crt", certificate), ("key", key))}
    user = {"client-certificate-data": data["crt"], "client-key-data": data["key"]}
    cluster = {"server": url, "certificate-authority-data": data["crt"]}
    assert _client.Client({"kubeconfig": kubeconfig(cluster, user)}).get("/x") == {"path": "/x"}
    files = {"client-certificate": "crt.pem", "client-key": "key.pem"}
    cluster = {"server": url, "insecure-skip-tls-verify": True}
    assert _client.Client({"kubeconfig": kubeconfig(cluster, files)}).get("/x") == {"path": "/x"}
    cluster = {"server": url, "certificate-authority": "crt.pem"}
    with pytest.raises(_errors.KubeError, match="can't be reached"):
        _client.Client({"kubeconfig": kubeconfig(cluster)}).get("/x")
    with pytest.raises(_errors.KubeError, match=r"CERTIFICATE_VERIFY_FAILED.*Set ca_cert to the authority"):
        _client.Client({"kubeconfig": kubeconfig({"server": url}, files)}).get("/x")


CONTEXTS = {
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:9"}}],
    "users": [{"name": "u", "user": {"token": "secret"}}],
    "contexts": [
        {"name": name, "context": {"cluster": "c", "user": "u", "namespace": name}} for name in ("lab", "shop")
    ],
    "current-context": "lab",
}


@pytest.mark.parametrize("extensions", [[], [{"name": "x", "extension": {}}]], ids=["plain", "library"])
@pytest.mark.parametrize("form", ["file", "mapping", "JSON"])
@pytest.mark.parametrize(("context", "namespace"), [(None, "lab"), ("shop", "shop")])
def test_the_namespace_of_the_context_counts(tmp_path, form, extensions, context, namespace):
    given = {**CONTEXTS, "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:9"}}]}
    if extensions:
        given["clusters"][0]["cluster"]["extensions"] = extensions
    if form == "file":
        (tmp_path / "kubeconfig").write_text(json.dumps(given))
    kubeconfig = {"file": str(tmp_path / "kubeconfig"), "mapping": given, "JSON": json.dumps(given)}[form]
    assert _client.Client({"kubeconfig": kubeconfig, "context": context}).default_namespace == namespace


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        (json.dumps(CONTEXTS), {"context": "nope"}, r"context: kubeconfig PATH has no context nope. It has lab, shop."),
        ("not: [a\n", {}, r"kubeconfig PATH isn't YAML: while parsing a flow sequence in "),
        ("", {}, r"kubeconfig PATH can't be used: .*is empty"),
        ("a: b\n", {}, r"kubeconfig PATH can't be used: .*current-context"),
        ("a: " + "[" * 5000 + "]" * 5000, {}, r"kubeconfig PATH can't be read: it is nested too deeply"),
        (
            "",
            {"host": "https://a", "api_key": "x", "proxy": "proxy.example:3128"},
            r"the option proxy: the proxy 'proxy.example:3128' doesn't begin with http:// \(or https://\).",
        ),
        (
            "",
            {"host": "127.0.0.1:6443", "api_key": "x"},
            r"the option host: the address '127.0.0.1:6443' does",
        ),
        (
            "",
            {"host": "ftp://a", "api_key": "x"},
            r"the option host: the address 'ftp://a' doesn't begin with https://",
        ),
        ("", {"host": "https://a", "api_key": "x", "ca_cert": "PATH"}, r"certificate authority PATH: .* Give ca_cert"),
        (
            "",
            {"host": "https://a", "client_cert": "PATH", "client_key": "PATH"},
            r"The certificates of the option host can't be used: client certificate PATH: .* Give client_cert and",
        ),
    ],
)
def test_mistakes_are_named(tmp_path, text, options, words):
    path = str(tmp_path / "kubeconfig")
    (tmp_path / "kubeconfig").write_text(text)
    options = {name: value.replace("PATH", path) for name, value in {"kubeconfig": "PATH", **options}.items()}
    with pytest.raises(_errors.KubeError, match=words.replace("PATH", path)):
        _client.Client(options)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("no-such-program", "No such file or directory: 'no-such-program'"),
        ("false", "exec: process returned 1"),
        ("true", "exec: failed to decode process output"),
    ],
)
def test_a_program_that_gives_no_credentials_is_named(kubeconfig, command, words, capfd):
    """The library logs it, and goes on as nobody."""
    given = {"apiVersion": "client.authentication.k8s.io/v1", "command": command, "interactiveMode": "Never"}
    path = kubeconfig()
    config = json.loads(Path(path).read_text())
    config["users"][0]["user"] = {"exec": given}
    Path(path).write_text(json.dumps(config))
    with pytest.raises(_errors.KubeError) as caught:
        _client.Client({"kubeconfig": path})
    assert str(caught.value).startswith(f"kubeconfig {path} gives no credentials: ")
    assert words in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"api_key": "secret\nsecond"}, "token (from the option host): the value has a line break"),
        (
            {"api_key": "x", "impersonate_user": "a\nb"},
            "impersonate_user (from the option host): the value 'a\\nb' has",
        ),
        (
            {"api_key": "x", "impersonate_groups": ["a\r"]},
            "impersonate_groups (from the option host): the value 'a\\r'",
        ),
    ],
)
def test_what_fits_into_no_header_is_named(api, options, words):
    with pytest.raises(_errors.KubeError) as caught:
        _client.Client({"host": api.url, **options}).get("/x")
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_tokens_line_break_at_its_end_does_not_matter(api):
    token = api.credentials()["users"][0]["user"]["token"]
    assert _client.Client({"host": api.url, "api_key": token + "\n"}).get("/version")


def test_a_server_without_tls_is_told(api):
    with pytest.raises(_errors.KubeError, match="What listens there doesn't speak TLS: check the port"):
        _client.Client({"host": api.url.replace("http:", "https:"), "api_key": "x", "validate_certs": False}).get("/x")


@pytest.mark.filterwarnings("error")
def test_who_does_not_verify_is_not_told_so_for_each_request(kubeconfig, behind_tls):
    url, _certificate, _key = behind_tls
    user = {"client-certificate": "crt.pem", "client-key": "key.pem"}
    file = kubeconfig({"server": url, "insecure-skip-tls-verify": True}, user)
    for options in ({}, {"validate_certs": False}):
        assert _client.Client({"kubeconfig": file, **options}).get("/x") == {"path": "/x"}
