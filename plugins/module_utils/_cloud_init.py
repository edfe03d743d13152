# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""User data for cloud-init, and public keys in it. Pure functions.

What a text is, its beginning says, in any case and after any white space (cloud-init, "User-data formats").
"""

from __future__ import annotations

import base64
import binascii
import re

from . import _yaml
from ._errors import KubeError
from ._values import described, plain, type_name

CLOUD_CONFIG = "#cloud-config"
_IS_CLOUD_CONFIG = re.compile(r"#cloud-config(\s|\Z)", re.IGNORECASE)
# Beginnings of the other formats, lower case, the longer ones first.
_FORMATS = (
    ("#cloud-config-archive", "a cloud-config archive"),
    ("#cloud-config-jsonp", "a JSON patch of cloud-config"),
    ("#cloud-boothook", "a boothook"),
    ("#include-once", "a list of URLs to include"),
    ("#include", "a list of URLs to include"),
    ("#part-handler", "a part handler"),
    ("#upstart-job", "an Upstart job"),
    ("## template:", "a template"),
    ("#!", "a script"),
    ("content-type:", "a MIME message"),
    ("mime-version:", "a MIME message"),
    ("from ", "a MIME message"),
)
_GZIP = b"\x1f\x8b"
# sshd(8), "AUTHORIZED_KEYS FILE FORMAT": options, if any, the key's type, the key in base64, a comment.
_PUBLIC_KEY = re.compile(
    r"(^|\s)(ssh-(rsa|dss|ed25519|ed448)|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com"
    r"|[a-z0-9-]+-cert-v01@openssh\.com)\s+[A-Za-z0-9+/]+={0,3}(\s|\Z)"
)
_LOOKUP = "{{ lookup('ansible.builtin.file', '%s') }}"


def is_empty(data):
    """Return whether user or network data is as good as not given: text without a word."""
    return data is None or (isinstance(data, str) and not data.strip())


def as_text(option, data, header):
    """Return data as text; mappings become YAML under the header. None where there is none.

    :raises KubeError: it is neither text nor a mapping.
    """
    if is_empty(data):
        return None
    if isinstance(data, str):
        return plain(data)
    if not isinstance(data, dict):
        raise KubeError("%s must be text or a mapping, but is %s" % (option, described(data)))
    return header + _yaml.dump(plain(data))


def with_normal_keys(option, data):
    """Return user data; in a mapping, ssh_authorized_keys is a list of public keys.

    :raises KubeError: there is something else in it.
    """
    if not isinstance(data, dict) or data.get("ssh_authorized_keys") is None:
        return data
    return {**data, "ssh_authorized_keys": _keys_of("%s.ssh_authorized_keys" % option, data["ssh_authorized_keys"])}


def with_keys(option, data, keys):
    """Return user data (a mapping, cloud-config text or none) as a mapping, with the public keys added.

    :raises KubeError: keys can't be added to it, or aren't public keys.
    """
    if is_empty(data):
        data = {}
    elif isinstance(data, str):
        data = _parsed(option, data)
    if not isinstance(data, dict):
        raise KubeError("%s must be text or a mapping, but is %s" % (option, described(data)))
    data = with_normal_keys(option, data)
    present = data.get("ssh_authorized_keys") or []
    added = [key for key in dict.fromkeys(_keys_of("ssh_keys", keys)) if key not in present]
    return {**data, "ssh_authorized_keys": present + added}


def _parsed(option, text):
    """Return cloud-config text as a mapping."""
    if not _IS_CLOUD_CONFIG.match(text.lstrip()):
        raise KubeError(
            "ssh_keys can be added to %s only if that is cloud-config (a mapping, or text whose first line is %s), but "
            "it is %s. Put the keys into it, and leave out ssh_keys." % (option, CLOUD_CONFIG, _format_of(text))
        )
    content = _yaml.load(text, option)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise KubeError("%s: cloud-config must be a mapping, but is %s" % (option, described(content)))
    return content


def _format_of(text):
    beginning = text.lstrip().lower()
    for start, name in _FORMATS:
        if beginning.startswith(start):
            return "%s (begins with %s)" % (name, start.strip())
    decoded = _decoded(text)
    if decoded is not None and decoded.startswith(_GZIP):
        return "compressed and in base64"
    if decoded is not None and decoded.lstrip().startswith((b"#", b"Content-Type:", b"MIME-Version:")):
        return "in base64; give it as it was before, for instance by the filter b64decode"
    return "text that begins with %r" % plain(text.strip().splitlines()[0][:40])


def _decoded(text):
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def _keys_of(option, value):
    """Return public keys, given as a list or as text with a key per line, as a list.

    :raises KubeError: naming what isn't one.
    """
    keys = []
    single = isinstance(value, str)
    if not single and not isinstance(value, (list, tuple)):
        raise KubeError("%s: must be a list of public keys, but is %s" % (option, described(value)))
    for number, entry in enumerate([value] if single else value):
        where = option if single else "%s[%d]" % (option, number)
        if not isinstance(entry, str):
            # Not shown: it may be anything.
            raise KubeError("%s: must be a public key as text, but is of type %s" % (where, type_name(entry)))
        # The text of a file authorized_keys has several, and comments.
        lines = [line.strip() for line in plain(entry).splitlines()]
        written = [line for line in lines if line and not line.startswith("#")]
        if not written and not single:
            raise KubeError("%s: is empty. Give the text of a public key, or leave it out." % where)
        for line in written:
            _check_key(where, line)
        keys += written
    return keys


def _check_key(where, key):
    if _PUBLIC_KEY.search(key):
        return
    if "PRIVATE KEY" in key:
        raise KubeError("%s: is a private key. Give the public key, the content of the file that ends in .pub." % where)
    if key.startswith(("/", "~", "./", "../", "$")) or re.match(r"[^\s]+\.pub\Z", key):
        remedy = 'It looks like a path. Give the content of the file: "%s"' % (_LOOKUP % key)
    else:
        remedy = 'Give the content of a file such as id_ed25519.pub, for instance by "%s"' % (
            _LOOKUP % "~/.ssh/id_ed25519.pub"
        )
    raise KubeError("%s: %r isn't a public key. %s" % (where, key[:80], remedy))
