"""Programs that hang and controllers that misbehave: everything ends in time, and secrets stay where they belong."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils import fencing
from ansible_collections.c5c3.ha.plugins.module_utils.decisions import fencing_rules as rules
from ansible_collections.c5c3.ha.plugins.module_utils.errors import Forbidden
from ansible_collections.c5c3.ha.plugins.module_utils.fencing import ipmi, process, redfish, target
from tests.lab.certificates import Authority

UUID = "a1234567-89ab-cdef-a123-456789abcde1"
OTHER = "b1234567-89ab-cdef-a123-456789abcde1"
PASSWORD = "s3cr3t-pass"


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def script(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return [str(path)]


# --- programs ---------------------------------------------------------------------------------------------------------


def test_a_program_that_ends(tmp_path):
    answer = process.run(script(tmp_path, "cat; echo oops >&2; exit 2"), "a=b\n", 30)
    assert (answer.code, answer.stdout, answer.stderr) == (2, "a=b\n", "oops\n")


def test_a_program_that_reads_nothing(tmp_path):
    assert process.run(script(tmp_path, "exec <&-; exit 3"), "x" * 1_000_000, 30).code == 3


def test_a_program_that_hangs_dies_with_its_children(tmp_path):
    lines = f"sleep 1000 & echo $! >{tmp_path}/child; echo half; echo $$ >{tmp_path}/own; wait"
    start = time.monotonic()
    answer = process.run(script(tmp_path, lines), "", 1.0)
    assert answer.code is None and answer.stdout == "half\n"
    assert time.monotonic() - start < 1 + 2 * process._DEATH
    pids = [int((tmp_path / name).read_text()) for name in ("child", "own")]
    deadline = time.monotonic() + 10
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, pids
        time.sleep(0.01)


def test_a_program_whose_caller_is_killed_ends_too(tmp_path):
    """A hanging "off" must not reach the host minutes later."""
    path = script(tmp_path, f"echo $$ >{tmp_path}/own; exec sleep 1000")[0]
    caller = os.fork()
    if caller == 0:
        process.run([path], "", 1.0)
        os._exit(0)
    deadline = time.monotonic() + 30
    while not (tmp_path / "own").exists() or not (tmp_path / "own").read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(caller, 9)
    os.waitpid(caller, 0)
    pid = int((tmp_path / "own").read_text())
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_program_gets_an_environment_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("OS_PASSWORD", PASSWORD)
    answer = process.run(script(tmp_path, "env"), "", 30, {"REQUESTS_CA_BUNDLE": "/x"})
    names = {line.partition("=")[0] for line in answer.stdout.splitlines()} - {"PWD", "SHLVL", "_", "OLDPWD"}
    assert names == {"PATH", "LC_ALL", "LANG", "HOME", "REQUESTS_CA_BUNDLE"}


def test_a_program_that_prints_anything(tmp_path):
    assert process.run(script(tmp_path, r"printf '\377\376'"), "", 30).stdout == "\ufffd\ufffd"


def test_a_program_that_cannot_be_started(tmp_path, monkeypatch):
    monkeypatch.setattr(process.shutil, "which", lambda *_a, **_k: None)
    with pytest.raises(rules.FencingError, match="cannot be started") as caught:
        process.run([str(tmp_path / "gone")], "", 5)
    assert caught.value.reason == rules.AGENT_FAILED


def test_find(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "fence_redfish").write_text("")
    (tmp_path / "fence_redfish").chmod(0o755)
    assert process.find("fence_redfish") == str(tmp_path / "fence_redfish")
    with pytest.raises(rules.FencingError, match="install fence-agents") as caught:
        process.find("fence_no_such_agent")
    assert caught.value.reason == rules.AGENT_MISSING


def test_the_wrapper_hands_the_password_over_by_a_file_in_memory(tmp_path, monkeypatch):
    """As fence_ipmilan calls it; the other end stands for ipmitool and tells what it got."""
    tool = script(
        tmp_path, 'for a; do echo "<$a>"; [ "$last" = -f ] && echo "password $(cat "$a")"; last=$a; done; env'
    )[0]
    monkeypatch.setattr(process, "find", lambda _program: tool)
    bmc = rules.FenceTarget("cmp01", "fence_ipmilan", "h", UUID, "fencer", PASSWORD)
    with ipmi.password_file(bmc) as password, ipmi.wrapper(password) as wrapper:
        assert PASSWORD not in Path(wrapper).read_text()
        assert Path(wrapper).stat().st_mode & 0o077 == 0
        arguments = ["-I", "lanplus", "-U", "a b'$(id)\"", "-P", ipmi.NOTHING, "", "-L", "x", "chassis", "power", "off"]
        out = process.run([wrapper, *arguments], "", 30).stdout
    assert f"password {PASSWORD}\n" in out
    got = [line[1:-1] for line in out.splitlines() if line.startswith("<")]
    # In the place of -P, and everything else as it was.
    assert got == [*arguments[:4], "-f", password, *arguments[6:]]
    assert out.count(PASSWORD) == 1
    assert not Path(wrapper).exists() and not Path(password).exists()


@pytest.mark.parametrize(
    ("output", "code", "reason"),
    [
        (f"System GUID  : {UUID}", 0, None),
        (f"System GUID  : {OTHER}", 0, rules.WRONG_SYSTEM),
        ("System GUID  : none", 0, rules.AGENT_FAILED),
        (f"System GUID  : {UUID}", 1, rules.AGENT_FAILED),
        ("> RAKP 2 HMAC is invalid", 1, rules.AUTHENTICATION_FAILED),
        (f"Error: Unable to establish IPMI v2 / RMCP+ session {PASSWORD}", 1, rules.UNREACHABLE),
    ],
)
def test_guid(tmp_path, monkeypatch, output, code, reason):
    tool = script(tmp_path, f"echo '{output}'; exit {code}")[0]
    monkeypatch.setattr(process, "find", lambda _program: tool)
    bmc = rules.FenceTarget("cmp01", "fence_ipmilan", "h", UUID, "fencer", PASSWORD)
    if reason is None:
        ipmi.check_guid(bmc, "/nowhere", 30)
        return
    with pytest.raises(rules.FencingError) as caught:
        ipmi.check_guid(bmc, "/nowhere", 30)
    assert caught.value.reason == reason and PASSWORD not in str(caught.value)


# --- Redfish ----------------------------------------------------------------------------------------------------------


class Chassis:
    """A Redfish controller on this machine that answers as it is told.

    :ivar pages: path to JSON, to (status, bytes), or to a callable that gets the handler.
    """

    def __init__(self, folder: Path) -> None:
        self.pages: dict[str, object] = {}
        self.asked: list[str] = []
        authority = Authority(folder)
        authority.issue("bmc", "bmc", hosts=["127.0.0.1"])
        self.ca = (folder / "ca.crt").read_text()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "bmc.crt", folder / "bmc.key")
        chassis = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                chassis.asked.append(self.path)
                user = base64.b64encode(f"fencer:{PASSWORD}".encode()).decode()
                page = chassis.pages.get(self.path, (404, b"{}"))
                if self.headers["Authorization"] != f"Basic {user}":
                    page = (401, b'{"error": {}}')
                if callable(page):
                    page(self)
                    return
                status, data = page if isinstance(page, tuple) else (200, json.dumps(page).encode())
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_args: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_args: object) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def target(self, **changes: object) -> rules.FenceTarget:
        values = {
            "host": "cmp01",
            "agent": "fence_redfish",
            "address": "127.0.0.1",
            "system_id": UUID,
            "username": "fencer",
            "password": PASSWORD,
            "port": self.server.server_address[1],
            "ca": self.ca,
        }
        return rules.FenceTarget(**{**values, **changes})

    def systems(self, *systems: dict) -> None:
        """One page with these systems, named 1, 2, ..."""
        members = []
        for number, system in enumerate(systems, 1):
            path = f"/redfish/v1/Systems/{number}"
            members.append({"@odata.id": path})
            self.pages[path] = {"Id": str(number), **system}
        self.pages["/redfish/v1/Systems"] = {"Members": members}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Chassis:
    chassis = Chassis(tmp_path_factory.mktemp("tls"))
    yield chassis
    chassis.server.shutdown()


@pytest.fixture
def chassis(server) -> Chassis:
    server.pages.clear()
    server.asked.clear()
    return server


def fails(chassis: Chassis, reason: str, seconds: float = 30.0, **changes: object) -> str:
    start = time.monotonic()
    with pytest.raises(rules.FencingError) as caught:
        redfish.find_system(chassis.target(**changes), seconds)
    assert caught.value.reason == reason, caught.value
    assert time.monotonic() - start < seconds + 3
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


def test_one_of_two_systems(chassis):
    chassis.systems({"UUID": OTHER, "PowerState": "Off"}, {"UUID": UUID, "PowerState": "On"})
    assert redfish.find_system(chassis.target(), 30) == ("/redfish/v1/Systems/2", "On")
    chassis.asked.clear()
    assert redfish.find_system(chassis.target(), 30, "/redfish/v1/Systems/2") == ("/redfish/v1/Systems/2", "On")
    assert chassis.asked == ["/redfish/v1/Systems/2"]
    message = fails(chassis, rules.WRONG_SYSTEM, system_id="c" * 32)
    assert UUID in message and OTHER in message


def test_a_system_that_was_exchanged_meanwhile(chassis):
    chassis.systems({"UUID": OTHER})
    with pytest.raises(rules.FencingError) as caught:
        redfish.find_system(chassis.target(), 30, "/redfish/v1/Systems/1")
    assert caught.value.reason == rules.WRONG_SYSTEM


def test_two_systems_with_one_uuid(chassis):
    chassis.systems({"UUID": UUID}, {"UUID": UUID})
    fails(chassis, rules.WRONG_SYSTEM)


def test_pages_of_systems(chassis):
    chassis.systems({"UUID": OTHER}, {"UUID": UUID, "PowerState": "Off"})
    second = {"Members": [{"@odata.id": "/redfish/v1/Systems/2"}]}
    chassis.pages["/redfish/v1/Systems"] = {
        "Members": [{"@odata.id": "/redfish/v1/Systems/1"}],
        "Members@odata.nextLink": "/redfish/v1/Systems?$skip=1",
    }
    chassis.pages["/redfish/v1/Systems?$skip=1"] = second
    assert redfish.find_system(chassis.target(), 30) == ("/redfish/v1/Systems/2", "Off")


@pytest.mark.parametrize("pages", [{"Members": [{"@odata.id": "/redfish/v1/Systems/1"}]}, {"Members": []}])
def test_pages_without_end(chassis, pages):
    chassis.systems({"UUID": OTHER})
    chassis.pages["/redfish/v1/Systems"] = {**pages, "Members@odata.nextLink": "/redfish/v1/Systems"}
    fails(chassis, rules.WRONG_SYSTEM, 60)
    assert len(chassis.asked) < 1000


@pytest.mark.parametrize(
    "page",
    [
        {},
        {"Members": None},
        {"Members": "x"},
        {"Members": [1, None, [], {"@odata.id": 5}, {"@odata.id": "http://elsewhere/redfish/v1/Systems/1"}]},
        {"Members": [{"@odata.id": "/redfish/v1/Systems/gone"}]},
        (404, b"{}"),
    ],
)
def test_no_such_system(chassis, page):
    chassis.pages["/redfish/v1/Systems"] = page
    fails(chassis, rules.WRONG_SYSTEM)


@pytest.mark.parametrize("page", [(200, b"<html>"), (200, b"[]"), (500, b"{}"), (503, b""), (302, b""), (200, b"\xff")])
def test_answers_that_are_none(chassis, page):
    chassis.pages["/redfish/v1/Systems"] = page
    fails(chassis, rules.AGENT_FAILED)


@pytest.mark.parametrize("system", [{"UUID": None}, {"UUID": [UUID]}, {"UUID": {"a": UUID}}, {"UUID": 5}, {}])
def test_systems_without_a_usable_uuid(chassis, system):
    chassis.systems(system)
    fails(chassis, rules.WRONG_SYSTEM)


def test_wrong_password(chassis):
    message = fails(chassis, rules.AUTHENTICATION_FAILED, password="other")
    assert "fencer" in message and "other" not in message


def test_certificate(chassis, tmp_path):
    assert "ca.crt" in fails(chassis, rules.UNREACHABLE, ca="")
    Authority(tmp_path)
    fails(chassis, rules.UNREACHABLE, ca=(tmp_path / "ca.crt").read_text())
    fails(chassis, rules.INVALID_TARGET, ca="-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    chassis.systems({"UUID": UUID, "PowerState": "On"})
    insecure = chassis.target(ca="", parameters=(("ssl_insecure", "1"),))
    assert redfish.find_system(insecure, 30)[1] == "On"


def test_a_controller_that_never_answers(chassis):
    gate = threading.Event()
    chassis.pages["/redfish/v1/Systems"] = lambda _handler: gate.wait(60)
    assert "does not answer" in fails(chassis, rules.UNREACHABLE, 0.5)
    gate.set()


def test_a_controller_that_sends_a_byte_now_and_then(chassis):
    """No socket ever runs into its time-out."""
    gate = threading.Event()

    def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        with contextlib.suppress(OSError):
            while not gate.wait(0.05):
                handler.wfile.write(b" ")

    chassis.pages["/redfish/v1/Systems"] = drip
    assert "does not answer" in fails(chassis, rules.UNREACHABLE, 1.0)
    gate.set()


def test_a_controller_that_sends_without_end(chassis):
    def flood(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(1 << 40))
        handler.end_headers()
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(b" " * 65536)

    chassis.pages["/redfish/v1/Systems"] = flood
    fails(chassis, rules.AGENT_FAILED, 30)


def test_a_port_that_takes_connections_and_no_more():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        bmc = rules.FenceTarget("cmp01", "fence_redfish", "127.0.0.1", UUID, "u", PASSWORD, silent.getsockname()[1])
        with pytest.raises(rules.FencingError) as caught:
            redfish.find_system(bmc, 0.5)
    assert caught.value.reason == rules.UNREACHABLE


# --- the Secret -------------------------------------------------------------------------------------------------------


class Api:
    """One Secret in one namespace."""

    def __init__(self, data: object) -> None:
        self.data = data
        self.asked: list[tuple] = []

    def get(self, resource, name, namespace):
        resource.path(name, namespace)  # as the real one checks names
        self.asked.append((resource.plural, name, namespace))
        if isinstance(self.data, Exception):
            raise self.data
        return {"data": self.data} if (name, namespace) == ("bmc", "ns") else None


def hypervisor(**changes: object) -> dict:
    spec = {"agent": "fence_redfish", "address": "h", "systemId": UUID, "secretRef": {"name": "bmc"}, **changes}
    return {"metadata": {"name": "cmp01"}, "spec": {"fencing": spec}}


def encoded(**data: str) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}


GOOD = encoded(username="fencer", password=PASSWORD)


def test_read_target():
    api = Api(GOOD)
    assert fencing.read_target(api, hypervisor(), "ns").password == PASSWORD
    assert fencing.read_target(api, hypervisor(secretRef={"name": "bmc", "namespace": "ns"}), "ns").username == "fencer"
    assert set(api.asked) == {("secrets", "bmc", "ns")}


@pytest.mark.parametrize(
    ("data", "changes", "reason"),
    [
        (GOOD, {"secretRef": {"name": "other"}}, rules.NOT_CONFIGURED),
        (GOOD, {"secretRef": {}}, rules.NOT_CONFIGURED),
        (GOOD, {"secretRef": None}, rules.NOT_CONFIGURED),
        (GOOD, {"secretRef": {"name": "bmc", "namespace": "kube-system"}}, rules.INVALID_TARGET),
        (GOOD, {"agent": "fence_dummy"}, rules.INVALID_TARGET),
        (None, {}, rules.NOT_CONFIGURED),
        ({}, {}, rules.NOT_CONFIGURED),
        ({"username": "%", "password": "%"}, {}, rules.INVALID_TARGET),
        ({"username": 5}, {}, rules.INVALID_TARGET),
        (Forbidden("cannot get secrets", 403), {}, rules.NOT_CONFIGURED),
    ],
)
def test_targets_that_cannot_be_read(data, changes, reason):
    api = Api(data)
    with pytest.raises(rules.FencingError, match="cmp01") as caught:
        fencing.read_target(api, hypervisor(**changes), "ns")
    assert caught.value.reason == reason
    # Nobody's Secret elsewhere is even asked for.
    assert {namespace for _plural, _name, namespace in api.asked} <= {"ns"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("agent", "address", "systemId", "secretRef", "parameters")
REFERENCES = st.fixed_dictionaries({}, optional={"name": JSON, "namespace": JSON})


@given(st.dictionaries(st.sampled_from(FIELDS), JSON | REFERENCES, max_size=3))
def test_a_spec_of_anything_is_told_by_its_reason(changes):
    """Whoever may write a Hypervisor may write this: nothing but a reason in one line comes of it."""
    try:
        made = fencing.read_target(Api(GOOD), hypervisor(**changes), "ns")
    except rules.FencingError as error:
        assert error.reason in rules.PERMANENT and str(error).isprintable()
        assert PASSWORD not in str(error)
    else:
        lines = rules.agent_lines(made, "off", {})
        assert len(lines.splitlines()) == 4 + len(made.parameters) + bool(made.port) - (
            "power_wait" in dict(made.parameters)
        )


def test_the_namespace_of_the_pod_is_the_usual_one(tmp_path, monkeypatch):
    api = Api(GOOD)
    monkeypatch.setattr(target, "SERVICE_ACCOUNT", str(tmp_path))
    with pytest.raises(rules.FencingError):
        fencing.read_target(api, hypervisor())
    (tmp_path / "namespace").write_text("ns\n")
    assert fencing.read_target(api, hypervisor()).host == "cmp01"
    assert [namespace for _plural, _name, namespace in api.asked] == ["c5c3-ha", "ns"]
