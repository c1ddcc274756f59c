"""The Kubernetes client: where it finds the API, what it asks again, what it never says; against a scripted server."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils import kubernetes
from ansible_collections.c5c3.ha.plugins.module_utils.errors import (
    ArgumentError,
    Conflict,
    Forbidden,
    HaError,
    Invalid,
    KubernetesError,
    NotFound,
    NotServed,
    Unauthorized,
    Unreachable,
)
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client, Config
from ansible_collections.c5c3.ha.plugins.module_utils.resources import evictions, migrations

UUID = "7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d"
EVICTIONS = evictions()
OBJECT = {"kind": "Eviction", "metadata": {"name": UUID, "managedFields": [{"manager": "x"}]}}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    for name in ("KUBECONFIG", "K8S_AUTH_KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(kubernetes, "SERVICE_ACCOUNT", str(tmp_path / "account"))


class Server:
    """Answers requests from a script; the last entry stands for all that follow.

    An entry is a status, or (status, body), or (status, body, headers), or a function of the request.
    """

    def __init__(self) -> None:
        self.script: list = [(200, OBJECT)]
        self.requests: list[dict] = []
        self.connections = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                outer.connections += 1
                super().setup()

            def log_message(self, *_arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                url = urlsplit(self.path)
                request = {
                    "method": self.command,
                    "path": url.path,
                    "query": {key: value[0] for key, value in parse_qs(url.query).items()},
                    "body": json.loads(self.rfile.read(length)) if length else None,
                    "headers": dict(self.headers),
                }
                outer.requests.append(request)
                entry = outer.script.pop(0) if len(outer.script) > 1 else outer.script[0]
                if callable(entry):
                    entry = entry(request)
                if entry == "drop":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, body, headers = (*((entry,) if isinstance(entry, int) else entry), None, None)[:3]
                data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
                self.send_response(status)
                for key, value in (headers or {}).items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_PATCH = do_DELETE = do_GET

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def client(self, **params) -> Client:
        return Client.from_params({"host": self.url, "request_timeout": 5.0, **params}, "c5c3-ha-agent")


@pytest.fixture
def server():
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def status(code: int, reason: str = "", message: str = "said", **details) -> tuple:
    return code, {"kind": "Status", "reason": reason, "message": message, "details": details}


# --- requests -------------------------------------------------------------------------------------------------------


def test_requests_as_the_api_wants_them(server):
    client = server.client(api_key="t0ken")
    assert client.get(EVICTIONS, UUID) == {"kind": "Eviction", "metadata": {"name": UUID}}, "without managedFields"
    client.create(EVICTIONS, EVICTIONS.body(UUID, spec={}), dry_run=True, strict=True)
    client.patch(EVICTIONS, UUID, {"status": {}}, subresource="status")
    assert client.delete(migrations(), UUID, "ha", uid="u", resource_version="7", dry_run=True) is True
    get, post, patch, delete = server.requests
    assert (get["method"], get["path"]) == ("GET", f"/apis/hypervisor.c5c3.io/v1/evictions/{UUID}")
    assert get["headers"]["Authorization"] == "Bearer t0ken"
    assert (post["method"], post["path"]) == ("POST", "/apis/hypervisor.c5c3.io/v1/evictions")
    assert post["query"] == {"fieldManager": "c5c3-ha-agent", "fieldValidation": "Strict", "dryRun": "All"}
    assert post["headers"]["Content-Type"] == "application/json"
    assert (patch["method"], patch["path"][-7:]) == ("PATCH", "/status")
    assert patch["query"] == {"fieldManager": "c5c3-ha-agent", "fieldValidation": "Warn"}
    assert patch["headers"]["Content-Type"] == "application/merge-patch+json"
    assert delete["path"] == f"/apis/hypervisor.c5c3.io/v1alpha1/namespaces/ha/migrations/{UUID}"
    assert delete["body"]["preconditions"] == {"uid": "u", "resourceVersion": "7"}
    assert delete["body"]["dryRun"] == ["All"]
    assert server.connections == 1, "one connection serves all"


def test_a_path_in_the_address_is_kept(server):
    Client.from_params({"host": server.url + "/k8s/clusters/c1/"}, "m").get(EVICTIONS, UUID)
    assert server.requests[0]["path"].startswith("/k8s/clusters/c1/apis/")


@pytest.mark.parametrize("name", ["../x", "a/b", "A", "", "a?dryRun=All"])
def test_a_bad_name_never_reaches_the_server(server, name):
    client = server.client()
    for call in (
        lambda: client.get(EVICTIONS, name),
        lambda: client.create(EVICTIONS, {"metadata": {"name": name}}),
        lambda: client.patch(EVICTIONS, name, {}),
        lambda: client.delete(EVICTIONS, name),
    ):
        with pytest.raises(ArgumentError):
            call()
    assert server.requests == []


def test_a_manager_that_cobaltcore_takes_for_a_hand():
    with pytest.raises(ValueError, match="kubectl"):
        Client(Config(), "kubectl-c5c3")


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_time_limit_that_is_none(timeout):
    with pytest.raises(ArgumentError, match="request_timeout"):
        Client(Config(), "m", timeout)


def test_warnings_are_kept_once(server):
    warning = {"Warning": '299 - "unknown field \\"spec.x\\""'}
    server.script = [(200, OBJECT, warning)]
    client = server.client()
    client.get(EVICTIONS, UUID)
    client.get(EVICTIONS, UUID)
    assert client.warnings == ['unknown field "spec.x"']


def test_lists_come_page_by_page(server):
    def page(names: str, token: str | None = None) -> tuple:
        return 200, {"items": [{"metadata": {"name": name}} for name in names], "metadata": {"continue": token}}

    server.script = [page("ab", "T1"), page("c", "T2"), page("d")]
    listed = server.client().list(EVICTIONS, label_selector="a=b,c", field_selector="spec.hypervisor=cmp01")
    assert [item["metadata"]["name"] for item in listed] == list("abcd")
    assert listed[0]["kind"] == "Eviction"
    queries = [request["query"] for request in server.requests]
    assert [query.get("continue") for query in queries] == [None, "T1", "T2"]
    assert all(query["labelSelector"] == "a=b,c" for query in queries)


def test_a_list_whose_snapshot_expired_begins_again(server):
    server.script = [
        (200, {"items": [{"metadata": {"name": "a"}}], "metadata": {"continue": "T1"}}),
        status(410, "Expired"),
        (200, {"items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}], "metadata": {}}),
    ]
    assert [item["metadata"]["name"] for item in server.client().list(EVICTIONS)] == ["a", "b"]
    assert "limit" not in server.requests[-1]["query"]


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (status(409, "AlreadyExists", name=UUID), Conflict, "said"),
        (status(409, "Conflict", name=UUID), Conflict, "said"),
        (status(403, "Forbidden", "User x cannot create y"), Forbidden, "ClusterRoleBinding"),
        (status(403, "Forbidden", "only its own node"), Forbidden, "only its own node"),
        (status(401, "Unauthorized"), Unauthorized, "renew it"),
        (status(422, "Invalid", causes=[{"field": "spec.x"}]), Invalid, "said"),
        (status(400, "BadRequest"), Invalid, "said"),
        (status(404, "NotFound", kind="namespaces", name="nowhere"), NotFound, "said"),
        ((404, b"404 page not found\n"), NotServed, "c5c3.ha.crds"),
        ((302, b""), KubernetesError, "redirects"),
        ((200, b"<html>"), KubernetesError, "did not answer as a Kubernetes API"),
        ((200, b"[]"), KubernetesError, "did not answer as a Kubernetes API"),
        (status(405), KubernetesError, "said"),
    ],
)
def test_refusals_are_told_in_their_kind_at_once(server, answer, kind, words):
    server.script = [answer]
    with pytest.raises(kind) as caught:
        server.client(api_key="geheim").create(EVICTIONS, EVICTIONS.body(UUID))
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert UUID in str(caught.value)
    assert "geheim" not in str(caught.value)
    assert len(server.requests) == 1
    assert isinstance(caught.value, HaError)


def test_absent_is_none_and_a_missing_definition_is_not(server):
    server.script = [status(404, "NotFound", name=UUID)]
    assert server.client().get(EVICTIONS, UUID) is None
    assert server.client().delete(EVICTIONS, UUID) is False
    server.script = [(404, b"404 page not found\n")]
    for call in (server.client().get, server.client().delete):
        with pytest.raises(NotServed):
            call(EVICTIONS, UUID)


def test_causes_and_status_are_kept(server):
    server.script = [status(422, "Invalid", causes=[{"field": "spec.x", "message": "no"}])]
    with pytest.raises(Invalid) as caught:
        server.client().create(EVICTIONS, EVICTIONS.body(UUID))
    assert (caught.value.status, caught.value.reason) == (422, "Invalid")
    assert caught.value.causes == [{"field": "spec.x", "message": "no"}]


# --- asking again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again(server, code):
    server.script = [code, code, (200, OBJECT)]
    assert server.client().get(EVICTIONS, UUID)["metadata"]["name"] == UUID
    assert len(server.requests) == 3


def test_retry_after_is_heeded(server):
    server.script = [(429, {}, {"Retry-After": "1"}), (200, OBJECT)]
    start = time.monotonic()
    server.client().get(EVICTIONS, UUID)
    assert time.monotonic() - start >= 1


def test_retry_after_beyond_the_limit_is_not_waited_for(server):
    server.script = [(429, {"message": "slow down"}, {"Retry-After": "30"})]
    start = time.monotonic()
    with pytest.raises(KubernetesError, match="slow down"):
        server.client(request_timeout=2).get(EVICTIONS, UUID)
    assert time.monotonic() - start < 1


def test_an_internal_error_is_asked_a_few_times_only(server):
    server.script = [status(500, "InternalError", "webhook is broken")]
    with pytest.raises(KubernetesError, match="webhook is broken"):
        server.client(request_timeout=30).get(EVICTIONS, UUID)
    assert len(server.requests) == 4


def test_a_dropped_answer_is_asked_again(server):
    server.script = ["drop", "drop", (200, OBJECT)]
    assert server.client().get(EVICTIONS, UUID)
    assert len(server.requests) == 3


def test_an_idle_connection_that_the_server_closed_costs_no_wait(server, monkeypatch):
    client = server.client()
    client.get(EVICTIONS, UUID)
    server.script = ["drop", (200, OBJECT)]
    monkeypatch.setattr(kubernetes.time, "sleep", lambda seconds: pytest.fail(f"waited {seconds} s"))
    client.get(EVICTIONS, UUID)
    assert len(server.requests) == 3


def test_a_delete_whose_answer_was_lost_counts_as_done(server):
    server.script = ["drop", status(404, "NotFound", name=UUID)]
    assert server.client().delete(EVICTIONS, UUID) is True


def test_a_create_whose_answer_was_lost_ends_as_a_conflict(server):
    server.script = ["drop", status(409, "AlreadyExists", name=UUID)]
    with pytest.raises(Conflict):
        server.client().create(EVICTIONS, EVICTIONS.body(UUID))


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(Unreachable, match=rf"no answer from http://127.0.0.1:{port} within 0.5 s \(ConnectionRefused"):
        Client.from_params({"host": f"http://127.0.0.1:{port}", "request_timeout": 0.5}, "m").get(EVICTIONS, UUID)
    assert time.monotonic() - start < 1


def test_a_server_that_says_nothing():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(Unreachable, match="TimeoutError"):
            Client.from_params({"host": url, "request_timeout": 1.0}, "m").get(EVICTIONS, UUID)
        assert 0.3 <= time.monotonic() - start < 1.5


def test_many_threads(server):
    client = server.client()
    threads = [threading.Thread(target=client.get, args=(EVICTIONS, UUID)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 20


# --- tokens ---------------------------------------------------------------------------------------------------------


def test_a_token_file_is_read_again_when_it_changes(server, tmp_path):
    token = tmp_path / "token"
    token.write_text("one\n")
    client = server.client(token_file=str(token))
    client.get(EVICTIONS, UUID)
    new = tmp_path / "new"
    new.write_text("two")
    new.replace(token)
    client.get(EVICTIONS, UUID)
    assert [request["headers"]["Authorization"] for request in server.requests] == ["Bearer one", "Bearer two"]


def test_a_token_that_expired_between_two_looks_is_read_once_more(server, tmp_path):
    token = tmp_path / "token"
    token.write_text("one")

    def unauthorized(_request: dict) -> int:
        stamp = token.stat()
        token.write_text("two")
        os.utime(token, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # a change that the time does not show
        return 401

    server.script = [unauthorized, (200, OBJECT)]
    server.client(token_file=str(token)).get(EVICTIONS, UUID)
    assert server.requests[-1]["headers"]["Authorization"] == "Bearer two"


def test_a_token_file_that_vanished(server, tmp_path):
    token = tmp_path / "token"
    token.write_text("one")
    client = server.client(token_file=str(token))
    token.unlink()
    with pytest.raises(ArgumentError, match="token_file"):
        client.get(EVICTIONS, UUID)


def test_a_credential_is_not_sent_in_clear():
    with pytest.raises(ArgumentError, match="in clear"):
        Config.load({"host": "http://192.0.2.1:8080", "api_key": "geheim"})
    assert "geheim" not in repr(Config.load({"host": "https://192.0.2.1", "api_key": "geheim"}))


# --- where the API is -----------------------------------------------------------------------------------------------


def kubeconfig(path, user=None, cluster=None, **more):
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u"}},
            {"name": "two", "context": {"cluster": "d", "user": "u"}},
            {"name": "lost", "context": {"cluster": "nowhere", "user": "u"}},
        ],
        "clusters": [
            {"name": "c", "cluster": {"server": "https://c:6443", **(cluster or {})}},
            {"name": "d", "cluster": {"server": "https://d:6443"}},
        ],
        "users": [{"name": "u", "user": {"token": "t0ken"} if user is None else user}],
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return str(path)


def test_the_order_of_places(monkeypatch, tmp_path):
    with pytest.raises(ArgumentError, match="no Kubernetes API given"):
        Config.load({})
    kubeconfig(tmp_path / "home/.kube/config", cluster={"server": "https://home:6443"})
    assert Config.load({}).server == "https://home:6443"
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("t")
    (account / "ca.crt").write_text("c")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    pod = Config.load({})
    assert (pod.server, pod.token_file, pod.ca_file) == (
        "https://[fd00::1]:443",
        f"{account}/token",
        f"{account}/ca.crt",
    )
    monkeypatch.setenv("KUBECONFIG", kubeconfig(tmp_path / "k", cluster={"server": "https://env:6443"}))
    assert Config.load({}).server == "https://env:6443"
    monkeypatch.setenv("K8S_AUTH_KUBECONFIG", kubeconfig(tmp_path / "a", cluster={"server": "https://auth:6443"}))
    assert Config.load({}).server == "https://auth:6443"
    option = kubeconfig(tmp_path / "o", cluster={"server": "https://option:6443"})
    assert Config.load({"kubeconfig": option}).server == "https://option:6443"
    explicit = Config.load({"kubeconfig": option, "host": "https://host:6443"})
    assert (explicit.server, explicit.token) == ("https://host:6443", None)


def test_contexts(tmp_path):
    path = kubeconfig(tmp_path / "k")
    assert Config.load({"kubeconfig": path}).token == "t0ken"
    assert Config.load({"kubeconfig": path, "context": "two"}).server == "https://d:6443"
    with pytest.raises(ArgumentError, match="no context 'three': it has 'one', 'two', 'lost'"):
        Config.load({"kubeconfig": path, "context": "three"})
    with pytest.raises(ArgumentError, match="no cluster 'nowhere'"):
        Config.load({"kubeconfig": path, "context": "lost"})
    with pytest.raises(ArgumentError, match="current-context"):
        Config.load({"kubeconfig": kubeconfig(tmp_path / "n", **{"current-context": ""})})


def test_several_files_the_first_wins(monkeypatch, tmp_path):
    first = kubeconfig(tmp_path / "1", cluster={"server": "https://first:6443"})
    second = kubeconfig(tmp_path / "2", cluster={"server": "https://second:6443"})
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(["", str(tmp_path / "none"), first, second]))
    assert Config.load({}).server == "https://first:6443"


def test_paths_are_relative_to_the_file_and_options_override(tmp_path):
    for name in ("ca", "crt", "key", "other"):
        (tmp_path / name).write_text("x")
    path = kubeconfig(
        tmp_path / "k", {"client-certificate": "crt", "client-key": "key"}, {"certificate-authority": "ca"}
    )
    config = Config.load({"kubeconfig": path})
    assert (config.ca_file, config.client_cert) == (str(tmp_path / "ca"), str(tmp_path / "crt"))
    config = Config.load(
        {"kubeconfig": path, "ca_cert": str(tmp_path / "other"), "validate_certs": False, "api_key": "k"}
    )
    assert (config.ca_file, config.verify, config.token) == (str(tmp_path / "other"), False, "k")


def test_insecure_skip_tls_verify(tmp_path):
    path = kubeconfig(tmp_path / "k", cluster={"insecure-skip-tls-verify": True})
    assert Config.load({"kubeconfig": path}).verify is False
    assert Config.load({"kubeconfig": path, "validate_certs": True}).verify is True


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"exec": {"command": "aws"}}, "authenticates by exec"),
        ({"auth-provider": {"name": "gcp"}}, "authenticates by auth-provider"),
        ({"username": "a", "password": "geheim"}, "authenticates by username"),
        ({"client-certificate-data": "%%%", "client-key-data": ""}, "client-certificate-data is not base64"),
        ({"client-certificate-data": base64.b64encode(b"x").decode()}, "needs both"),
        ({"client-certificate": "nowhere", "client-key": "nowhere"}, "client_cert"),
        ({"tokenFile": "/nowhere/token"}, "token_file '/nowhere/token'"),
    ],
)
def test_users_that_do_not_serve_say_why_and_what_does(tmp_path, user, words):
    with pytest.raises(ArgumentError) as caught:
        Config.load({"kubeconfig": kubeconfig(tmp_path / "k", user)})
    assert words in str(caught.value)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "no kubeconfig"),
        (b"[1]", "no kubeconfig"),
        (b"clusters: [1]", "no kubeconfig"),
        (b"users: {a: b}", "no kubeconfig"),
        (b"token: geheim\n  bad: [", "is not YAML"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_files_that_are_no_kubeconfig(tmp_path, text, words):
    path = tmp_path / "k"
    path.write_bytes(text)
    with pytest.raises(ArgumentError) as caught:
        Config.load({"kubeconfig": str(path)})
    assert words in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_a_kubeconfig_that_is_not_there(tmp_path):
    with pytest.raises(ArgumentError, match="cannot be read"):
        Config.load({"kubeconfig": str(tmp_path / "none")})


@pytest.mark.parametrize(
    "address",
    [
        "",
        "host",
        "ftp://h",
        "https://",
        "https://h:port",
        "https://u:p@h",
        "https://h?x=1",
        "https://h#x",
        "https://[::1",
    ],
)
def test_addresses_that_do_not_serve(address):
    config = Config()
    config.server = address
    with pytest.raises(ArgumentError, match="not usable"):
        config._check()


def test_a_key_without_its_certificate():
    with pytest.raises(ArgumentError, match="client_key needs client_cert"):
        Config.load({"host": "https://h", "client_key": "/k"})


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A certificate authority, a server's and a client's certificate."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *new, "-subj", "/CN=ca", "-days", "2", "-keyout", "ca.key", "-out", "ca.crt")
    for name, alternative in (("server", "DNS:api.example.com"), ("client", "DNS:client")):
        (folder / "ext").write_text(f"subjectAltName={alternative}")
        openssl("req", *new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-extfile", "ext", "-out", f"{name}.crt"),
        )
    return folder


@pytest.fixture
def tls_server(server, certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    context.load_verify_locations(certificates / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    return server


def data(path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def test_client_certificates_inside_the_kubeconfig_leave_no_file(tls_server, certificates, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    user = {
        "client-certificate-data": data(certificates / "client.crt"),
        "client-key-data": data(certificates / "client.key"),
    }
    cluster = {
        "server": f"https://127.0.0.1:{tls_server.http.server_port}",
        "certificate-authority-data": data(certificates / "ca.crt"),
        "tls-server-name": "api.example.com",
    }
    path = kubeconfig(tmp_path / "kube/config", user, cluster)
    for without_memfd in (False, True):
        if without_memfd:
            monkeypatch.delattr(os, "memfd_create", raising=False)
        with Client.from_params({"kubeconfig": path}, "m") as client:
            assert client.get(EVICTIONS, UUID)
        assert [entry.name for entry in tmp_path.iterdir() if entry.name not in ("kube", "home")] == []


def test_a_name_that_the_certificate_has_not(tls_server, certificates):
    params = {
        "host": f"https://127.0.0.1:{tls_server.http.server_port}",
        "ca_cert": str(certificates / "ca.crt"),
        "client_cert": str(certificates / "client.crt"),
        "client_key": str(certificates / "client.key"),
    }
    with pytest.raises(Unreachable, match="not trusted .*127.0.0.1"):
        Client.from_params(params, "m").get(EVICTIONS, UUID)
    assert Client.from_params({**params, "validate_certs": False}, "m").get(EVICTIONS, UUID)


@pytest.mark.parametrize(
    ("cert", "key"), [("client.crt", "server.key"), ("client.key", "client.key"), ("client.crt", "locked.key")]
)
def test_certificates_and_keys_that_do_not_fit(certificates, cert, key):
    command = ["openssl", "ec", "-aes256", "-passout", "pass:x", "-in", "client.key", "-out", "locked.key"]
    subprocess.run(command, cwd=certificates, check=True, capture_output=True)
    params = {
        "host": "https://127.0.0.1:1",
        "client_cert": str(certificates / cert),
        "client_key": str(certificates / key),
    }
    with pytest.raises(ArgumentError, match="no passphrase"):
        Client.from_params(params, "m").get(EVICTIONS, UUID)


def test_a_certificate_authority_that_is_none(certificates):
    with pytest.raises(ArgumentError, match="certificate authority"):
        Client.from_params({"host": "https://127.0.0.1:1", "ca_cert": str(certificates / "ca.key")}, "m").get(
            EVICTIONS, UUID
        )
