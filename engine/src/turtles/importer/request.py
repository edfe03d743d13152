# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of an HTTP server, and how: headers, credentials, and whom TLS trusts."""

import base64
import re
import ssl
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import urllib3

from turtles.importer.errors import ImportRefused

#: Keys of a Secret with credentials (CDI: secretRef).
_USER, _PASSWORD = "accessKeyId", "secretKey"
_MAX_REDIRECTS = 10
#: Seconds to connect, and between two bytes.
_TIMEOUT = urllib3.Timeout(connect=15, read=30)


@dataclass(frozen=True)
class Request:
    """A file on a server.

    :param headers: further headers.
    :param secret_headers: those that nobody but this server may see, credentials included.
    :param authorities: folder with the authorities in PEM that its certificate is verified by; None: the system's.
    :param verify: whether it is verified at all.
    :param sign: gives further secret headers, for an address at this moment.
    """

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    secret_headers: dict[str, str] = field(default_factory=dict, repr=False)
    authorities: Path | None = None
    verify: bool = True
    sign: Callable[[str], dict[str, str]] | None = field(default=None, repr=False)

    def pool(self) -> urllib3.PoolManager:
        """Return what connections are made with.

        :raises ImportRefused: the authorities can't be used.
        """
        context = ssl.create_default_context()
        if not self.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        elif self.authorities is not None:
            try:
                context.load_verify_locations(cadata=_pem(self.authorities))
            except (OSError, ssl.SSLError, ValueError) as error:
                raise ImportRefused(f"the CA certificates of certConfigMap can't be used: {error}") from error
        if proxy := _proxy(self.url):
            return urllib3.ProxyManager(proxy, num_pools=2, ssl_context=context, timeout=_TIMEOUT)
        return urllib3.PoolManager(num_pools=2, ssl_context=context, timeout=_TIMEOUT)

    def open(self, pool: urllib3.PoolManager, extra: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """Send the request, follow redirects, and return the response, whose body hasn't been read.

        Another server to which a redirect leads gets none of the secret headers.

        :param extra: headers of this one request.
        """
        secret = self.secret_headers | (self.sign(self.url) if self.sign is not None else {})
        redirects = urllib3.Retry(
            total=None,
            connect=0,
            read=0,
            other=0,
            status=0,
            redirect=_MAX_REDIRECTS,
            remove_headers_on_redirect=[*secret, *self.headers, "Cookie"],
        )
        headers = {"Accept-Encoding": "identity", "User-Agent": "virt-importer", **self.headers, **secret}
        return pool.request(
            "GET",
            self.url,
            headers={**headers, **extra},
            retries=redirects,
            preload_content=False,
            decode_content=False,
        )


def _proxy(url: str) -> str | None:
    """Return the proxy through which the environment says a server is reached; None if it says nothing."""
    parts = urlsplit(url)
    if not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _pem(path: Path) -> str:
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    return "\n".join(file.read_text() for file in files)


def login(folder: Path) -> tuple[str, str]:
    """Return the user and the password in a Secret that is mounted at a folder.

    :raises ImportRefused: it has none.
    """
    try:
        user, password = ((folder / key).read_text() for key in (_USER, _PASSWORD))
    except (OSError, UnicodeError) as error:
        raise ImportRefused(f"the Secret of secretRef needs the keys {_USER} and {_PASSWORD}") from error
    return user, password


def credentials(folder: Path) -> dict[str, str]:
    """Return the header for the user and the password in a Secret that is mounted at a folder.

    :raises ImportRefused: it has none.
    """
    text = ":".join(login(folder)).encode()
    return {"Authorization": f"Basic {base64.b64encode(text).decode()}"}


def headers(lines: list[str]) -> dict[str, str]:
    """Return headers from lines such as ``Name: value``.

    :raises ImportRefused: a line isn't one. The message doesn't repeat it: it may be secret.
    """
    result = {}
    for line in lines:
        name, colon, value = line.strip().partition(":")
        if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or re.search(r"[\r\n\0]", value):
            raise ImportRefused("an additional header doesn't have the form 'Name: value'")
        result[name] = value.strip()
    return result


def secret_headers(folders: list[Path]) -> dict[str, str]:
    """Return the headers that the values of Secrets are, which are mounted at folders."""
    lines: list[str] = []
    for folder in folders:
        files = sorted(file for file in folder.iterdir() if file.is_file())
        lines += [line for file in files for line in file.read_text().splitlines() if line.strip()]
    return headers(lines)
