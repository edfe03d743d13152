# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the connection plugins share: how the API is reached."""

from __future__ import annotations

# Options of the plugins; modules call them the same, but for the server's address: a connection's host is the guest.
_API = {"api_host": "host"}
_API.update(
    (name, name)
    for name in ("kubeconfig", "context", "api_key", "validate_certs", "ca_cert", "client_cert", "client_key")
)


def api_options(connection):
    """Return the options of the doc fragment auth that a connection plugin has."""
    return {name: connection.get_option(option) for option, name in _API.items()}
