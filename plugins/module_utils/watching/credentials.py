# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to reach the Kubernetes API, and how to notice that the answer has changed on disk.

Order: option host > option kubeconfig > K8S_AUTH_KUBECONFIG > KUBECONFIG > service account of the pod > ~/.kube/config;
whatever other option is given replaces what was found there.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Mapping

from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError, HaError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import shown
from ansible_collections.c5c3.ha.plugins.module_utils.watching import client_library
from ansible_collections.c5c3.ha.plugins.module_utils.watching.options import Auth

logger = logging.getLogger(__name__)

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def _stamp(path: str | None) -> tuple | None:
    """Return what changes when a file is replaced or written; None when it is not there."""
    if path is None:
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ino, status.st_size)


class TokenFile:
    """A bearer token in a file that somebody else replaces now and then."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._stamp: tuple | None = None
        self._token = ""

    def read(self) -> str:
        """Return the present token; the last good one while the file is missing or empty.

        :raises HaError: when there has been none yet.
        """
        stamp = _stamp(self.path)
        if stamp is not None and stamp != self._stamp:
            try:
                with open(self.path, encoding="utf-8") as file:
                    token = file.read().strip()
            except (OSError, UnicodeDecodeError) as error:
                token, reason = "", str(error)
            else:
                reason = "it is empty"
            if token and token.isprintable() and " " not in token:
                self._stamp, self._token = stamp, token
                return token
            if token:
                reason = "it holds more than one token"
        else:
            reason = "there is no such file"
        if not self._token:
            raise ArgumentError(
                f"token_file {shown(self.path, 300)} gives no token ({reason}): write a bearer token into it"
            )
        return self._token


class Credentials:
    """Finds host, certificates and token; `load` again when they may have changed.

    :param auth: the options given.
    :param environ: environment variables.
    """

    def __init__(  # pylint: disable=dangerous-default-value # the environment itself, as it is when asked
        self, auth: Auth, environ: Mapping[str, str] = os.environ, service_account: str = SERVICE_ACCOUNT
    ) -> None:
        self._auth = auth
        self._environ = environ
        self._service_account = service_account
        self._library = client_library.load()
        self._files: dict[str, tuple | None] = {}
        self._token_file: TokenFile | None = None
        self._loader = None
        self._configuration = None
        self.origin = ""

    async def load(self):
        """Read everything anew and return (RESTClientObject, host URL). The caller closes the client.

        :raises HaError: when a file is missing or is not what it should be.
        """
        # Certificates that are written inside a kubeconfig must be files for a moment: in a folder of our own.
        folder = tempfile.mkdtemp(prefix="c5c3-ha-")
        try:
            configuration = await self._find(folder)
            self._override(configuration)
            self._files = {
                path: _stamp(path)
                for path in (*self._files, configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
                if path and not path.startswith(folder + os.sep)
            }
            try:
                rest = self._library.RESTClientObject(configuration)
            except OSError as error:  # ssl.SSLError is one
                raise ArgumentError(
                    f"TLS files for {configuration.host} from {self.origin} cannot be used ({error}):"
                    " check CA, client certificate and key"
                ) from error
        finally:
            self._forget_files_in(folder)
            shutil.rmtree(folder, ignore_errors=True)
        self._configuration = configuration
        return rest, configuration.host.rstrip("/")

    def changed(self) -> bool:
        """Tell whether a kubeconfig or certificate file has been replaced since `load`."""
        return any(_stamp(path) != stamp for path, stamp in self._files.items())

    async def authorization(self) -> str | None:
        """Return the value of the Authorization header for a request that goes out now."""
        if self._token_file is not None:
            return f"Bearer {self._token_file.read()}"
        # A token of which nobody said when it ends is asked for again by `load`, after a 401.
        if hasattr(self._loader, "exec_plugin_expiry"):
            await self._loader.load_from_exec_plugin()  # runs it only when its token is about to expire
            if getattr(self._loader, "token", None):
                return self._loader.token.strip()
        value = self._configuration.api_key.get("BearerToken")
        return value.strip() if value else None

    async def _find(self, folder: str):
        configuration = self._library.Configuration()
        # Go's clients accept certificates without key identifiers, and so do Pythons before 3.13.
        configuration.disable_strict_ssl_verification = True
        self._files, self._token_file, self._loader = {}, None, None
        auth = self._auth
        if auth.host is not None:
            self.origin = "option host"
            configuration.host = auth.host.rstrip("/")
        elif auth.kubeconfig is not None:
            await self._from_kubeconfig(configuration, auth.kubeconfig, "kubeconfig", folder)
        elif self._environ.get("K8S_AUTH_KUBECONFIG"):
            await self._from_kubeconfig(
                configuration, self._environ["K8S_AUTH_KUBECONFIG"], "K8S_AUTH_KUBECONFIG", folder
            )
        elif self._environ.get("KUBECONFIG"):
            await self._from_kubeconfig(configuration, self._environ["KUBECONFIG"], "KUBECONFIG", folder)
        elif self._environ.get("KUBERNETES_SERVICE_HOST") and os.path.isfile(f"{self._service_account}/token"):
            self._from_service_account(configuration)
        else:
            default = os.path.expanduser("~/.kube/config")
            if not os.path.isfile(default):
                raise ArgumentError(
                    "No way to the Kubernetes API is given: set kubeconfig or host, or KUBECONFIG in the environment"
                    f" (not in a pod, and there is no {default})"
                )
            await self._from_kubeconfig(configuration, default, "kubeconfig", folder)
        return configuration

    def _from_service_account(self, configuration) -> None:
        self.origin = "the pod's service account"
        host, port = self._environ["KUBERNETES_SERVICE_HOST"], self._environ.get("KUBERNETES_SERVICE_PORT") or "443"
        configuration.host = f"https://{f'[{host}]' if ':' in host else host}:{port}"
        configuration.ssl_ca_cert = f"{self._service_account}/ca.crt"
        self._token_file = TokenFile(f"{self._service_account}/token")
        self._token_file.read()

    async def _from_kubeconfig(self, configuration, paths: str, name: str, folder: str) -> None:
        self.origin = f"{name} {paths}"
        found = [path for path in paths.split(os.pathsep) if path and os.path.isfile(os.path.expanduser(path))]
        if not found:
            raise ArgumentError(f"{name} {shown(paths, 300)} is wrong: there is no such file; correct the path")
        kube_config = self._library.kube_config
        try:
            merger = kube_config.KubeConfigMerger(os.pathsep.join(found))
            loader = kube_config.KubeConfigLoader(
                config_dict=merger.config,
                active_context=self._auth.context,
                config_base_path=None,
                temp_file_path=folder,
            )
            user = getattr(loader, "_user", None)
            token_file = user.safe_get("tokenFile") if user is not None else None
            if token_file and user.safe_get("token") is None:
                base = os.path.dirname(os.path.abspath(getattr(user, "path", None) or found[0]))
                self._token_file = TokenFile(os.path.join(base, token_file))
                self._token_file.read()
        except HaError:
            raise
        except Exception as error:  # a kubeconfig of any shape makes their reader raise nearly anything
            raise self._unusable(name, paths, error) from error
        try:
            await loader.load_and_set(configuration)
        except Exception as error:
            if user is None or not ("exec" in user or "auth-provider" in user):
                raise self._unusable(name, paths, error) from error
            raise HaError(
                f"The login helper of {name} {shown(paths, 300)} failed ({error}): run it by hand as this user"
            ) from error
        self._loader = loader
        self._files = {os.path.abspath(os.path.expanduser(path)): None for path in found}

    def _unusable(self, name: str, paths: str, error: Exception) -> ArgumentError:
        context = self._auth.context
        if context is not None and context in str(error):
            return ArgumentError(
                f"context {shown(context)} is wrong: {name} {shown(paths, 300)} has none of that name;"
                " kubectl config get-contexts lists them"
            )
        detail = str(error) or type(error).__name__
        return ArgumentError(
            f"{name} {shown(paths, 300)} cannot be used ({shown(detail, 200)}): check it with kubectl config view"
        )

    def _override(self, configuration) -> None:
        auth = self._auth
        if auth.ca_cert is not None:
            configuration.ssl_ca_cert = auth.ca_cert
        if auth.client_cert is not None:
            configuration.cert_file, configuration.key_file = auth.client_cert, auth.client_key
        if auth.validate_certs is not None:
            configuration.verify_ssl = auth.validate_certs
        if auth.token_file is not None:
            self._loader, self._token_file = None, TokenFile(auth.token_file)
            self._token_file.read()
        elif auth.api_key is not None:
            self._loader, self._token_file = None, None
            configuration.api_key["BearerToken"] = f"Bearer {auth.api_key.strip()}"

    def _forget_files_in(self, folder: str) -> None:
        """Their reader remembers by content which files it wrote; ours are gone in a moment."""
        remembered = getattr(self._library.kube_config, "_temp_files", None)
        if isinstance(remembered, dict):
            for content in [key for key, path in remembered.items() if path.startswith(folder + os.sep)]:
                del remembered[content]
