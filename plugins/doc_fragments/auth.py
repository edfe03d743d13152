# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options for the API's address and credentials, for modules and the inventory plugin."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment."""

    DOCUMENTATION = r"""
options:
  kubeconfig:
    description:
      - Path of a kubeconfig file, or its content as a dictionary.
      - Without it the environment variables E(K8S_AUTH_KUBECONFIG) and E(KUBECONFIG), the file C(~/.kube/config), and
        inside a Pod its service account are used, in this order.
      - Not read where O(host) is given with credentials (O(api_key), O(username) and O(password), or O(client_cert) and
        O(client_key)). With O(host) alone, it provides the credentials.
    type: raw
  context:
    description: Context of the kubeconfig. Defaults to its current context. E(K8S_AUTH_CONTEXT).
    type: str
  host:
    description: URL of the API server. E(K8S_AUTH_HOST).
    type: str
  api_key:
    description: Bearer token. E(K8S_AUTH_API_KEY).
    type: str
  username:
    description: User name for HTTP basic authentication, if a proxy in front of the API needs it. E(K8S_AUTH_USERNAME).
    type: str
  password:
    description: Password for HTTP basic authentication. E(K8S_AUTH_PASSWORD).
    type: str
  validate_certs:
    description: Whether the server's certificate must be valid. E(K8S_AUTH_VERIFY_SSL).
    type: bool
    aliases: [verify_ssl]
  ca_cert:
    description: File with the certificate of the authority that signed the server's. E(K8S_AUTH_SSL_CA_CERT).
    type: path
    aliases: [ssl_ca_cert]
  client_cert:
    description: File with a client certificate. E(K8S_AUTH_CERT_FILE).
    type: path
    aliases: [cert_file]
  client_key:
    description: File with the key of the client certificate. E(K8S_AUTH_KEY_FILE).
    type: path
    aliases: [key_file]
  proxy:
    description: URL of an HTTP proxy. E(K8S_AUTH_PROXY).
    type: str
  no_proxy:
    description: Hosts, domains and networks reached without the proxy, separated by commas. E(K8S_AUTH_NO_PROXY).
    type: str
  proxy_headers:
    description: Headers to send to the proxy.
    type: dict
    suboptions:
      basic_auth:
        description: User and password, separated by a colon. E(K8S_AUTH_PROXY_HEADERS_BASIC_AUTH).
        type: str
      proxy_basic_auth:
        description: User and password for the proxy, separated by a colon. E(K8S_AUTH_PROXY_HEADERS_PROXY_BASIC_AUTH).
        type: str
      user_agent:
        description: The user agent to send. E(K8S_AUTH_PROXY_HEADERS_USER_AGENT).
        type: str
  persist_config:
    description: Whether renewed tokens are written back to the kubeconfig. E(K8S_AUTH_PERSIST_CONFIG).
    type: bool
  impersonate_user:
    description: User to act as. E(K8S_AUTH_IMPERSONATE_USER).
    type: str
  impersonate_groups:
    description: Groups to act as. E(K8S_AUTH_IMPERSONATE_GROUPS).
    type: list
    elements: str
notes:
  - Values of tokens, passwords and keys, those inside a kubeconfig dictionary included, are never shown.
"""
