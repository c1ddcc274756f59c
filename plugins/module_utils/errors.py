# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of c5c3.ha: every message names the offending value and says what to do next."""

from __future__ import annotations


class HaError(Exception):
    """Base of all errors that a step, source or client of c5c3.ha raises on purpose.

    The text is meant for an operator: modules and action plugins show it without a traceback.
    """


class ArgumentError(HaError):
    """An argument is wrong; nothing was read or changed yet."""


class KubernetesError(HaError):
    """The Kubernetes API refused a request, or could not be reached.

    :ivar status: HTTP status code, or 0 when no answer came.
    :ivar reason: the API's machine-readable reason, such as ``AlreadyExists``, or an empty string.
    :ivar causes: list of ``{"field", "reason", "message"}`` that the API named, possibly empty.
    """

    def __init__(self, message: str, status: int = 0, reason: str = "", causes: list[dict] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.causes = causes or []


class Conflict(KubernetesError):
    """409: the object exists already, or a uid or resourceVersion precondition does not hold. Read again, decide anew."""


class NotFound(KubernetesError):
    """404: the object is not there (or its namespace, for a create)."""


class NotServed(NotFound):
    """404 for the whole resource type: the CustomResourceDefinition is not installed, or its version is not served."""


class Unauthorized(KubernetesError):
    """401: the API does not know who we are."""


class Forbidden(KubernetesError):
    """403: RBAC or an admission policy does not allow the request."""


class Invalid(KubernetesError):
    """400 or 422: the API server's schema or validation rules refuse the object."""


class Unreachable(KubernetesError):
    """No usable answer within the time allowed."""


class LibvirtError(HaError):
    """libvirt refused a call, or did not answer in time.

    :ivar code: libvirt's error number (VIR_ERR_*), or 0.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code
