# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a host's power switch from its Hypervisor and the Secret that it names."""

from __future__ import annotations

import base64
import binascii
import os

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import fencing_rules as rules
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.fencing_rules import FenceTarget, FencingError
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError, Forbidden
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import SERVICE_ACCOUNT, Client
from ansible_collections.c5c3.ha.plugins.module_utils.resources import Resource, shown

SECRETS = Resource("", "v1", "secrets", "Secret", True)
DEFAULT_NAMESPACE = "c5c3-ha"


def read_target(client: Client, hypervisor: dict, namespace: str = "") -> FenceTarget:
    """Return the power switch of a host.

    :param hypervisor: the Hypervisor resource.
    :param namespace: the only namespace whose Secrets are read; empty means the operator's own, outside a pod c5c3-ha.
    :raises FencingError: NotConfigured, NoFencing or InvalidTarget.
    :raises KubernetesError: the API server did not answer.
    """
    host = hypervisor["metadata"]["name"]
    fencing = (hypervisor.get("spec") or {}).get("fencing")
    rules.checked_agent(host, fencing)
    reference = fencing.get("secretRef")
    # Anything but a dict is as good as none.
    known = reference if isinstance(reference, dict) and reference.get("name") else None
    secret = _read_secret(client, host, known, namespace or _own_namespace()) if known else None
    return rules.make_target(host, fencing, secret)


def _read_secret(client: Client, host: str, reference: dict, namespace: str) -> dict[str, bytes]:
    name, theirs = reference.get("name") or "", reference.get("namespace") or namespace
    if theirs != namespace:
        # Who may write a Hypervisor must not make the operator send somebody else's Secret to an address of his own.
        raise FencingError(
            rules.INVALID_TARGET,
            f"Hypervisor {host}: spec.fencing.secretRef.namespace {shown(theirs)} is not {namespace}: the operator reads"
            " Secrets there only. Put the Secret there, or set hypervisor_operator_fencing_namespace",
        )
    what = f"Secret {shown(name)} of spec.fencing.secretRef in namespace {namespace}"
    try:
        secret = client.get(SECRETS, name, namespace)
    except ArgumentError as error:
        raise FencingError(rules.INVALID_TARGET, f"Hypervisor {host}: spec.fencing.secretRef: {error}") from None
    except Forbidden:
        raise FencingError(
            rules.NOT_CONFIGURED,
            f"Hypervisor {host}: the operator may not read {what}: allow get there with a Role, as"
            " c5c3.ha.hypervisor_operator does for hypervisor_operator_fencing_namespace",
        ) from None
    if secret is None:
        raise FencingError(
            rules.NOT_CONFIGURED,
            f"Hypervisor {host}: there is no {what}: create it with the keys username and password",
        )
    try:
        return {key: base64.b64decode(value, validate=True) for key, value in (secret.get("data") or {}).items()}
    except (binascii.Error, ValueError, TypeError):
        raise FencingError(rules.INVALID_TARGET, f"Hypervisor {host}: {what} is not base64") from None


def _own_namespace() -> str:
    try:
        with open(os.path.join(SERVICE_ACCOUNT, "namespace"), encoding="ascii") as file:
            return file.read().strip() or DEFAULT_NAMESPACE
    except (OSError, UnicodeDecodeError):
        return DEFAULT_NAMESPACE
