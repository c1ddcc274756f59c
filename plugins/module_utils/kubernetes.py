# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A thin Kubernetes REST client on the standard library.

The ``kubernetes`` package costs 0.4 s to import and urllib3 0.1 s, on the way of a dead VM back to life; http.client
and ssl cost 7 ms on top of ansible, and a managed host needs no Python package for them.

Safe to use from several threads: each request takes a connection of its own from a pool.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

from ansible_collections.c5c3.ha.plugins.module_utils.errors import (
    ArgumentError,
    Conflict,
    Forbidden,
    Invalid,
    KubernetesError,
    NotFound,
    NotServed,
    Unauthorized,
    Unreachable,
)
from ansible_collections.c5c3.ha.plugins.module_utils.resources import Resource, shaped, shown

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
USER_AGENT = "c5c3.ha"
PAGE = 500
# Answers that may go away by themselves. 500 gets few tries only: a broken webhook does not heal by asking.
_TRANSIENT = (429, 500, 502, 503, 504)
_TRIES_500 = 4


class Config:
    """Where the API is and who we are. Secrets stay out of its repr.

    Make it with :meth:`load`; all paths are absolute or relative to the working directory.
    """

    def __init__(self) -> None:
        self.server = ""
        self.ca_file: str | None = None
        self.ca_data: str | None = None
        self.client_cert: str | bytes | None = None  # path, or PEM bytes
        self.client_key: str | bytes | None = None
        self.token: str | None = None
        self.token_file: str | None = None
        self.verify = True
        self.tls_server_name: str | None = None
        self.proxy: str | None = None
        self.source = ""

    def __repr__(self) -> str:
        return f"Config(server={self.server!r}, source={self.source!r})"

    @classmethod
    def load(cls, params: dict) -> Config:
        """Find out where the API is from module parameters (KUBERNETES_ARGS) and the environment.

        Order: explicit options, option kubeconfig, K8S_AUTH_KUBECONFIG or KUBECONFIG, the service account of a pod,
        ~/.kube/config. Explicit options also override single values of a kubeconfig.

        :raises ArgumentError: nothing found, or what was found cannot be used; the text says what to do.
        """
        config = cls()
        env_kubeconfig = os.environ.get("K8S_AUTH_KUBECONFIG") or os.environ.get("KUBECONFIG")
        home_kubeconfig = os.path.expanduser("~/.kube/config")
        if params.get("host"):
            config.source = "option host"
        elif params.get("kubeconfig"):
            config._from_kubeconfig([params["kubeconfig"]], params.get("context"), "option kubeconfig")
        elif env_kubeconfig:
            config._from_kubeconfig(env_kubeconfig.split(os.pathsep), params.get("context"), "KUBECONFIG")
        elif os.environ.get("KUBERNETES_SERVICE_HOST") and os.path.exists(f"{SERVICE_ACCOUNT}/token"):
            config._from_pod()
        elif os.path.exists(home_kubeconfig):
            config._from_kubeconfig([home_kubeconfig], params.get("context"), "~/.kube/config")
        else:
            raise ArgumentError(
                "no Kubernetes API given: set option kubeconfig (or KUBECONFIG), or host with api_key or token_file;"
                f" there is neither a service account at {SERVICE_ACCOUNT} nor {home_kubeconfig}"
            )
        config._override(params)
        config._check()
        return config

    def _from_pod(self) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        self.server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self.token_file, self.ca_file = f"{SERVICE_ACCOUNT}/token", f"{SERVICE_ACCOUNT}/ca.crt"
        self.source = "service account"

    def _override(self, params: dict) -> None:
        if params.get("host"):
            self.server = params["host"]
        if params.get("ca_cert"):
            self.ca_file, self.ca_data = params["ca_cert"], None
        if params.get("api_key"):
            self.token, self.token_file = params["api_key"], None
        elif params.get("token_file"):
            self.token, self.token_file = None, params["token_file"]
        if params.get("client_cert"):
            # The key may stand in the same file.
            self.client_cert, self.client_key = params["client_cert"], params.get("client_key") or params["client_cert"]
        elif params.get("client_key"):
            raise ArgumentError("client_key needs client_cert: give the certificate that belongs to the key")
        if params.get("validate_certs") is not None:
            self.verify = bool(params["validate_certs"])

    def _check(self) -> None:
        try:
            url = urlsplit(self.server)
            good = url.scheme in ("http", "https") and url.hostname and (url.port or True)
        except ValueError:
            good = False
        if not good or url.query or url.fragment or url.username is not None:
            raise ArgumentError(
                f"Kubernetes API address {shown(self.server)} ({self.source}) is not usable: give it as https://HOST:6443"
            )
        secret = self.token or self.token_file or self.client_cert
        if secret and url.scheme == "http" and url.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ArgumentError(
                f"Kubernetes API address {shown(self.server)} would send the credential in clear: use https://"
            )
        for path, what in (
            (self.ca_file, "ca_cert"),
            (self.client_cert, "client_cert"),
            (self.client_key, "client_key"),
            (self.token_file, "token_file"),
        ):
            if isinstance(path, str) and not os.access(path, os.R_OK):
                raise ArgumentError(
                    f"{what} {shown(path, 300)} ({self.source}) cannot be read: check that the file is there"
                )

    # -- kubeconfig --

    def _from_kubeconfig(self, paths: list[str], context: str | None, source: str) -> None:
        merged: dict = {"clusters": {}, "users": {}, "contexts": {}}
        current, read = None, []
        for path in paths:
            path = os.path.expanduser(path)
            # As kubectl does: a list of several may name files that are not there.
            if not path or (len(paths) > 1 and not os.path.exists(path)):
                continue
            content = _read_kubeconfig(path, source)
            read.append(path)
            current = current or content.get("current-context")
            for section, key in (("clusters", "cluster"), ("users", "user"), ("contexts", "context")):
                for item in content.get(section) or []:
                    merged[section].setdefault(item.get("name"), (item.get(key) or {}, os.path.dirname(path)))
        where = f"kubeconfig {', '.join(read) or os.pathsep.join(paths)} ({source})"
        if not read:
            raise ArgumentError(f"{where} is not there: give a file that exists")
        name = context or current
        if not name:
            raise ArgumentError(
                f"{where} has no current-context: set option context to one of {_names(merged['contexts'])}"
            )
        if name not in merged["contexts"]:
            raise ArgumentError(f"{where} has no context {shown(name)}: it has {_names(merged['contexts'])}")
        chosen = merged["contexts"][name][0]
        if chosen.get("cluster") not in merged["clusters"]:
            raise ArgumentError(
                f"{where} has no cluster {shown(chosen.get('cluster'))}, which context {shown(name)} names"
            )
        self.source = where
        self._use_cluster(*merged["clusters"][chosen["cluster"]])
        if chosen.get("user"):
            if chosen["user"] not in merged["users"]:
                raise ArgumentError(f"{where} has no user {shown(chosen['user'])}, which context {shown(name)} names")
            self._use_user(chosen["user"], *merged["users"][chosen["user"]])

    def _use_cluster(self, cluster: dict, folder: str) -> None:
        self.server = cluster.get("server") or ""
        self.verify = not cluster.get("insecure-skip-tls-verify", False)
        self.tls_server_name = cluster.get("tls-server-name")
        self.proxy = cluster.get("proxy-url")
        if cluster.get("certificate-authority-data"):
            self.ca_data = _base64(
                cluster["certificate-authority-data"], "certificate-authority-data", self.source
            ).decode("ascii", "replace")
        elif cluster.get("certificate-authority"):
            self.ca_file = os.path.join(folder, cluster["certificate-authority"])

    def _use_user(self, name: str, user: dict, folder: str) -> None:
        for key in ("exec", "auth-provider", "username"):
            if user.get(key):
                raise ArgumentError(
                    f"{self.source}: user {shown(name)} authenticates by {key}, which c5c3.ha does not do."
                    " Supported: client certificate, token, tokenFile. Make a kubeconfig for a service account"
                    " (kubectl create token), or set option api_key or token_file"
                )
        for key, attribute in (("client-certificate", "client_cert"), ("client-key", "client_key")):
            if user.get(f"{key}-data"):
                setattr(self, attribute, _base64(user[f"{key}-data"], f"{key}-data", self.source))
            elif user.get(key):
                setattr(self, attribute, os.path.join(folder, user[key]))
        # As client-go: the file wins, since it may be rotated.
        if user.get("tokenFile"):
            self.token_file = os.path.join(folder, user["tokenFile"])
        elif user.get("token"):
            self.token = user["token"]
        if (self.client_cert is None) != (self.client_key is None):
            raise ArgumentError(f"{self.source}: user {shown(name)} needs both client-certificate and client-key")


def _names(section: dict) -> str:
    return ", ".join(shown(name) for name in section) or "none"


def _base64(text: str, what: str, source: str) -> bytes:
    import base64
    import binascii

    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise ArgumentError(f"{source}: {what} is not base64") from None


def _read_kubeconfig(path: str, source: str) -> dict:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"kubeconfig {shown(path, 300)} ({source}) cannot be read: {error}") from None
    try:
        import yaml
    except ImportError:
        yaml = None
    try:
        if yaml is None:
            content = json.loads(text)
        else:
            content = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except ValueError:
        raise ArgumentError(
            f"kubeconfig {shown(path, 300)} ({source}) is YAML, and this Python has no yaml: install PyYAML on this host,"
            " or give the kubeconfig as JSON"
        ) from None
    except yaml.YAMLError as error:
        # The mark without the text beside it, which may be a secret.
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        raise ArgumentError(
            f"kubeconfig {shown(path, 300)} ({source}) is not YAML" + ("" if line is None else f" (line {line + 1})")
        ) from None
    if not isinstance(content, dict) or any(
        not isinstance(item, dict)
        for section in ("clusters", "users", "contexts")
        for item in (content.get(section) or [] if isinstance(content.get(section) or [], list) else [None])
    ):
        raise ArgumentError(
            f"kubeconfig {shown(path, 300)} ({source}) is no kubeconfig: it has no lists clusters, users, contexts"
        )
    return content


# --- TLS ----------------------------------------------------------------------------------------------------------


def _ssl_context(config: Config) -> ssl.SSLContext:
    try:
        if config.ca_data or config.ca_file:
            context = ssl.create_default_context(cafile=config.ca_file, cadata=config.ca_data)
        else:
            context = ssl.create_default_context()
    except (ssl.SSLError, ValueError, OSError) as error:
        raise ArgumentError(
            f"the certificate authority {shown(config.ca_file or 'certificate-authority-data')} ({config.source})"
            f" cannot be used: {error}"
        ) from None
    # Cluster CAs made by older kubeadm and by hand lack extensions that Python 3.13 asks for by default.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.client_cert is not None:
        try:
            if isinstance(config.client_cert, str) and isinstance(config.client_key, str):
                context.load_cert_chain(config.client_cert, config.client_key, password=_no_passphrase)
            else:
                _load_from_memory(context, _content(config.client_cert) + b"\n" + _content(config.client_key))
        except (ssl.SSLError, OSError, ValueError) as error:
            raise ArgumentError(
                f"the client certificate and key ({config.source}) cannot be used: {error}."
                " Both must be PEM, belong together, and the key must have no passphrase"
            ) from None
    return context


def _no_passphrase() -> str:
    # Without this OpenSSL would ask on the terminal, and a daemon would wait for ever.
    raise ValueError("the key has a passphrase")


def _content(value: str | bytes | None) -> bytes:
    if isinstance(value, bytes):
        return value
    with open(value or "", "rb") as file:
        return file.read()


def _load_from_memory(context: ssl.SSLContext, pem: bytes) -> None:
    """Load certificate and key, which ssl takes from files only, without a file in any folder where that goes."""
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        descriptor = os.memfd_create("client-certificate")
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(pem)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_no_passphrase)
        finally:
            os.close(descriptor)
        return
    import tempfile

    with tempfile.TemporaryDirectory(prefix="c5c3-ha-") as folder:  # mode 0700
        path = os.path.join(folder, "client.pem")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
        context.load_cert_chain(path, password=_no_passphrase)


# --- client -------------------------------------------------------------------------------------------------------


class Client:
    """Requests to one Kubernetes API server.

    :ivar warnings: what the API server warned about (deprecated versions, fields that it dropped), each once.

    All methods raise subclasses of KubernetesError; names are checked before they go into a path (ArgumentError).
    """

    def __init__(self, config: Config, field_manager: str, request_timeout: float = 30.0) -> None:
        """:param request_timeout: seconds for one call, all its retries included."""
        if field_manager.startswith("kubectl"):
            raise ValueError("CobaltCore marks what a manager named kubectl* touched as tainted by hand")
        if not request_timeout > 0:  # pylint: disable=unnecessary-negation # not-a-number is refused too
            raise ArgumentError(f"request_timeout {shown(request_timeout)} must be more than 0 seconds")
        self.config = config
        self.field_manager = field_manager
        self.request_timeout = float(request_timeout)
        self.warnings: list[str] = []
        self._url = urlsplit(config.server)
        self._prefix = self._url.path.rstrip("/")
        self._context: ssl.SSLContext | None = None
        self._idle: list[http.client.HTTPConnection] = []
        self._token_state: tuple | None = None
        self._token = config.token

    @classmethod
    def from_params(cls, params: dict, field_manager: str) -> Client:
        """Make a client from module parameters (KUBERNETES_ARGS). Connects at the first request only."""
        return cls(Config.load(params), field_manager, params.get("request_timeout") or 30.0)

    def close(self) -> None:
        """Close idle connections."""
        while self._idle:
            self._idle.pop().close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- verbs --

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> dict | None:
        """Return one object, or None when it is not there.

        :raises NotServed: the resource type itself is not there.
        """
        try:
            return shaped(self.request("GET", resource.path(name, namespace), what=f"get {resource.full_name} {name}"))
        except NotServed:
            raise
        except NotFound:
            return None

    def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        project: Callable[[dict], Any] | None = None,
    ) -> list:
        """Return all objects that match, read page by page.

        :param project: what to keep of an object; of thousands only one page is in memory as a whole then.
        """
        query = {"limit": str(PAGE)}
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        items: list = []
        path, what = resource.path(namespace=namespace), f"list {resource.full_name}"
        while True:
            try:
                page = self.request("GET", path, query, what=what)
            except KubernetesError as error:
                if error.status == 410 and "continue" in query:
                    # The snapshot behind the pages is gone: begin again, in one page.
                    items = []
                    query = {key: value for key, value in query.items() if key not in ("continue", "limit")}
                    continue
                raise
            for item in page.get("items") or []:
                # A list leaves these out of its items.
                item = shaped({"apiVersion": resource.api_version, "kind": resource.kind, **item})
                items.append(project(item) if project else item)
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return items
            query["continue"] = token

    def create(
        self,
        resource: Resource,
        body: dict,
        namespace: str | None = None,
        dry_run: bool = False,
        strict: bool = False,
    ) -> dict:
        """Create an object and return it as the API server stored it.

        :param dry_run: let the API server check all, and store nothing.
        :param strict: refuse fields that the served schema does not know (Invalid), instead of dropping them.
        :raises Conflict: it is there already (perhaps by an earlier try of this very call whose answer was lost).
        """
        query = self._write_query(dry_run, strict)
        name = (body.get("metadata") or {}).get("name") or ""
        resource.path(name, namespace)  # checks the name
        what = f"create {resource.full_name} {name}"
        return self.request("POST", resource.path(namespace=namespace), query, body, what=what)

    def patch(
        self,
        resource: Resource,
        name: str,
        body: dict,
        namespace: str | None = None,
        subresource: str | None = None,
        dry_run: bool = False,
        strict: bool = False,
    ) -> dict:
        """Merge-patch an object (RFC 7386: null removes, lists are replaced whole) and return it.

        ``metadata.resourceVersion`` in `body` is a precondition.

        :param subresource: such as ``status``.
        :raises Conflict: the precondition does not hold.
        :raises NotFound: the object is not there.
        """
        path = resource.path(name, namespace, subresource)
        what = f"patch {resource.full_name} {name}" + (f" ({subresource})" if subresource else "")
        query = self._write_query(dry_run, strict)
        return self.request("PATCH", path, query, body, content_type="application/merge-patch+json", what=what)

    def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        dry_run: bool = False,
    ) -> bool:
        """Delete an object; False when it was not there.

        :raises Conflict: `uid` or `resource_version` is not the object's.
        """
        preconditions = {key: value for key, value in (("uid", uid), ("resourceVersion", resource_version)) if value}
        body: dict = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if preconditions:
            body["preconditions"] = preconditions
        if dry_run:
            body["dryRun"] = ["All"]
        attempts: list[str] = []
        try:
            what = f"delete {resource.full_name} {name}"
            self.request("DELETE", resource.path(name, namespace), None, body, what=what, attempts=attempts)
            return True
        except NotServed:
            raise
        except NotFound:
            # An earlier try may have done it and its answer was lost.
            return bool(attempts)

    def _write_query(self, dry_run: bool, strict: bool) -> dict:
        query = {"fieldManager": self.field_manager, "fieldValidation": "Strict" if strict else "Warn"}
        if dry_run:
            query["dryRun"] = "All"
        return query

    # -- transport --

    def request(
        self,
        method: str,
        path: str,
        query: dict | None = None,
        body: dict | None = None,
        content_type: str = "application/json",
        what: str = "",
        attempts: list[str] | None = None,
    ) -> dict:
        """Send one request, again where that can help, and return the JSON answer.

        :param what: the request in words, for errors.
        :param attempts: gets the reason of each try after which the server may have acted though no answer came.
        """
        what = what or f"{method} {path}"
        target = self._prefix + path + ("?" + urlencode(query) if query else "")
        payload = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        deadline = time.monotonic() + self.request_timeout
        pause, count_500, renewed = 0.05, 0, False
        while True:
            wait: float | None = None
            try:
                token = self._read_token()
                status, headers, data = self._exchange(method, target, payload, content_type, token, deadline)
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, ssl.SSLError) and not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
                    raise self._tls_error(error, what) from None
                if attempts is not None and not isinstance(error, (ConnectionRefusedError, socket.gaierror)):
                    attempts.append(str(error))
                problem = f"{type(error).__name__}: {error}"
                failure: KubernetesError = Unreachable(
                    f"cannot {what}: no answer from {self.config.server} within {self.request_timeout:g} s ({problem})."
                    f" Check that the API server runs and is reachable from here; address from {self.config.source}"
                )
                stale = getattr(error, "c5c3_reused", False)
                if stale:
                    # The server closed an idle connection, which says nothing about a new one.
                    continue
            else:
                for text in headers.get_all("Warning") or []:
                    self._warn(text)
                if status < 300:
                    return _without_managers(_json(data, self.config, what))
                failure = _failure(status, data, what, self.config)
                if status == 401 and self.config.token_file and not renewed:
                    renewed, self._token_state = True, None
                    if self._read_token() != token:
                        continue
                if status not in _TRANSIENT:
                    raise failure
                if status == 500:
                    count_500 += 1
                    if count_500 >= _TRIES_500:
                        raise failure
                elif attempts is not None and status in (502, 504):
                    attempts.append(str(status))
                wait = _seconds(headers.get("Retry-After"))
            import random

            delay = max(pause * random.uniform(0.8, 1.2), wait or 0.0)
            if time.monotonic() + delay >= deadline:
                raise failure
            time.sleep(delay)
            pause = min(pause * 2, 1.0)

    def _exchange(
        self, method: str, target: str, payload: bytes | None, content_type: str, token: str | None, deadline: float
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        # A server that hangs, or a path that swallows packets, must leave time for another try.
        timeout = max(min(left, self.request_timeout / 3), 0.1)
        headers = {"Accept": "application/json", "User-Agent": USER_AGENT}
        if payload is not None:
            headers["Content-Type"] = content_type
        if token:
            headers["Authorization"] = "Bearer " + token
        try:
            connection, reused = self._idle.pop(), True
        except IndexError:
            connection, reused = self._connection(), False
        try:
            connection.timeout = timeout
            if connection.sock is not None:
                connection.sock.settimeout(timeout)
            connection.request(method, target, payload, headers)
            response = connection.getresponse()
            data = response.read()
        except BaseException as error:
            connection.close()
            if reused and isinstance(error, (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)):
                error.c5c3_reused = True  # type: ignore[union-attr]
            raise
        if response.will_close:
            connection.close()
        else:
            self._idle.append(connection)
        return response.status, response.headers, data

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "http":
            return http.client.HTTPConnection(host, port or 80)
        if self._context is None:
            self._context = _ssl_context(self.config)
        context = self._context
        if self.config.proxy:
            proxy = urlsplit(self.config.proxy)
            if proxy.scheme != "http" or not proxy.hostname:
                raise ArgumentError(
                    f"{self.config.source}: proxy-url {shown(self.config.proxy)} must be http://HOST:PORT"
                )
            connection = _HTTPSConnection(proxy.hostname, proxy.port or 8080, context=context)
            connection.set_tunnel(host, port or 443)
        else:
            connection = _HTTPSConnection(host, port or 443, context=context)
        connection.name_to_check = self.config.tls_server_name
        return connection

    def _read_token(self) -> str | None:
        path = self.config.token_file
        if not path:
            return self._token
        try:
            status = os.stat(path)  # follows the links that kubelet swaps
            state = (status.st_mtime_ns, status.st_ino, status.st_size)
            if state != self._token_state:
                with open(path, encoding="ascii") as file:
                    self._token = file.read().strip()
                self._token_state = state
        except (OSError, UnicodeDecodeError) as error:
            raise ArgumentError(f"token_file {shown(path, 300)} cannot be read: {type(error).__name__}") from None
        return self._token

    def _tls_error(self, error: ssl.SSLError, what: str) -> KubernetesError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return Unreachable(
                f"cannot {what}: the certificate of {self.config.server} is not trusted ({error.verify_message})."
                f" Set ca_cert to the cluster's certificate authority; the present one is from {self.config.source}"
            )
        return Unreachable(
            f"cannot {what}: TLS with {self.config.server} failed ({error.reason or error})."
            f" Check the address and the client certificate from {self.config.source}"
        )

    def _warn(self, header: str) -> None:
        # 299 - "text": RFC 7234, section 5.5.
        start, end = header.find('"'), header.rfind('"')
        text = header[start + 1 : end].replace('\\"', '"').replace("\\\\", "\\") if 0 <= start < end else header
        if text not in self.warnings:
            self.warnings.append(text)


class _HTTPSConnection(http.client.HTTPSConnection):
    """Checks the certificate against tls-server-name where a kubeconfig has one."""

    name_to_check: str | None = None

    def connect(self) -> None:
        if not self.name_to_check:
            super().connect()
            return
        http.client.HTTPConnection.connect(self)
        self.sock = self._context.wrap_socket(self.sock, server_hostname=self.name_to_check)


def _seconds(text: str | None) -> float | None:
    try:
        return min(max(float(text or ""), 0.0), 60.0)
    except ValueError:
        return None


def _json(data: bytes, config: Config, what: str) -> dict:
    try:
        answer = json.loads(data)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise KubernetesError(
            f"cannot {what}: {config.server} did not answer as a Kubernetes API ({config.source}): check the address"
        )
    return answer


def _without_managers(answer: dict) -> dict:
    """Leave out metadata.managedFields, which is longer than all the rest and of no use to a step."""
    for item in (answer, *(answer.get("items") or ())):
        if isinstance(item.get("metadata"), dict):
            item["metadata"].pop("managedFields", None)
    return answer


def _failure(status: int, data: bytes, what: str, config: Config) -> KubernetesError:
    """Turn an HTTP error into ours, with the API's own words and what to do."""
    try:
        answer = json.loads(data)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        answer = {}
    details = answer.get("details") or {}
    reason = answer.get("reason") or ""
    causes = details.get("causes") or []
    said = answer.get("message") or shown(data[:200].decode("utf-8", "replace").strip(), 200)
    text = f"cannot {what}: {said}"
    if status == 404:
        if details.get("name"):
            return NotFound(text, status, reason, causes)
        return NotServed(
            f"{text}. {config.server} does not serve this resource (or its namespace is not there): check api_group,"
            " and install the definitions with the role c5c3.ha.crds",
            status,
            reason,
            causes,
        )
    if status == 401:
        text += f". The credential from {config.source} is missing, wrong or expired: renew it"
        return Unauthorized(text, status, reason, causes)
    if status == 403:
        if " cannot " in said:
            text += ". Grant that verb with a ClusterRole and a ClusterRoleBinding"
        return Forbidden(text, status, reason, causes)
    if status == 409:
        return Conflict(text, status, reason, causes)
    if status in (400, 422):
        return Invalid(text, status, reason, causes)
    if 300 <= status < 400:
        text = f"cannot {what}: {config.server} redirects, as no Kubernetes API does: check the address"
    return KubernetesError(text, status, reason, causes)
