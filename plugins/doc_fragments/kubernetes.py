# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of all modules that talk to Kubernetes; paired with module_utils/args.py KUBERNETES_ARGS."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment c5c3.ha.kubernetes."""

    DOCUMENTATION = r"""
options:
  kubeconfig:
    description:
      - Path of a kubeconfig file.
      - Where neither this nor O(host) is given, the environment variables E(K8S_AUTH_KUBECONFIG) and E(KUBECONFIG),
        the service account of the pod this runs in, and C(~/.kube/config) are tried, in this order.
      - Users with a client certificate, a token or a token file work. Users with an exec plugin, an auth provider or a
        password do not.
    type: path
  context:
    description:
      - Context of the kubeconfig; its current one when left out.
    type: str
  host:
    description:
      - Address of the API server, such as V(https://192.0.2.10:6443). No kubeconfig is read then.
    type: str
  api_key:
    description:
      - Bearer token.
      - Prefer O(token_file), which may be rotated.
    type: str
  token_file:
    description:
      - Path of a file with a bearer token; read again whenever it changes.
    type: path
  ca_cert:
    description:
      - Path of the certificate authority (PEM) that signed the API server's certificate.
    type: path
  client_cert:
    description:
      - Path of a client certificate (PEM).
    type: path
  client_key:
    description:
      - Path of the key (PEM, without a passphrase) of O(client_cert); may be left out where that file holds both.
    type: path
  validate_certs:
    description:
      - Whether the API server's certificate is checked.
      - The kubeconfig's C(insecure-skip-tls-verify) decides when left out, and checking is the default.
    type: bool
  api_group:
    description:
      - API group of the resources Hypervisor, Eviction and Migration.
      - Use V(kvm.cloud.sap) where CobaltCore's own operator has defined them.
    type: str
    default: hypervisor.c5c3.io
  request_timeout:
    description:
      - Time limit of one request to the API server in seconds, with all its retries.
    type: float
    default: 30.0
"""
