# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options of the connection plugins: which guest, and how the API is reached."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment."""

    DOCUMENTATION = r"""
options:
  vm:
    description: Name of the virtual machine's running instance.
    type: str
    required: true
    vars:
      - name: ansible_kubevirt_vm
      - name: vmi_name
  namespace:
    description: Its namespace.
    type: str
    default: default
    vars:
      - name: ansible_kubevirt_namespace
      - name: vmi_namespace
  kubeconfig:
    description: Path of a kubeconfig file. Defaults as with the modules.
    type: path
    env:
      - name: K8S_AUTH_KUBECONFIG
    vars:
      - name: ansible_kubevirt_kubeconfig
  context:
    description: Context of the kubeconfig. Defaults to its current context.
    type: str
    env:
      - name: K8S_AUTH_CONTEXT
    vars:
      - name: ansible_kubevirt_context
  api_host:
    description: URL of the API server.
    type: str
    env:
      - name: K8S_AUTH_HOST
    vars:
      - name: ansible_kubevirt_host
  api_key:
    description: Bearer token.
    type: str
    env:
      - name: K8S_AUTH_API_KEY
    vars:
      - name: ansible_kubevirt_api_key
  validate_certs:
    description: Whether the server's certificate must be valid.
    type: bool
    env:
      - name: K8S_AUTH_VERIFY_SSL
    vars:
      - name: ansible_kubevirt_validate_certs
  ca_cert:
    description: File with the certificate of the authority that signed the server's.
    type: path
    env:
      - name: K8S_AUTH_SSL_CA_CERT
    vars:
      - name: ansible_kubevirt_ca_cert
  client_cert:
    description: File with a client certificate.
    type: path
    env:
      - name: K8S_AUTH_CERT_FILE
    vars:
      - name: ansible_kubevirt_client_cert
  client_key:
    description: File with the key of the client certificate.
    type: path
    env:
      - name: K8S_AUTH_KEY_FILE
    vars:
      - name: ansible_kubevirt_client_key
notes:
  - The inventory plugin sets the variables of this plugin where its option C(connection) names it. Tokens and passwords
    aren't among them; give these in the environment.
"""
