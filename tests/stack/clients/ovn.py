"""OVN's northbound database as Neutron uses it: OVSDB over TLS, always the leader, the next member when it is gone."""

from __future__ import annotations

import functools
import itertools
import json
import random
import socket
import ssl
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.stack import hosts
from tests.stack.hosts import Host
from tests.stack.writing import CERTIFICATES, Service, Session

DATABASE = "OVN_Northbound"
PREFIX = "faults_"
# what a client waits for an answer: as long as the leader's silence lets the others elect one
PATIENCE = 1.5
# what it waits for a connection, as OVS's own client does at first
CONNECTING = 1.0
# a server that did not answer is asked last for so many seconds, and then waited for no longer than that
SILENT, LOOK = 2.0, 0.3


class Connection(Session):
    """OVSDB's JSON-RPC (RFC 7047), as far as a transaction needs it."""

    def __init__(self, host: Host, context: ssl.SSLContext, connecting: float, patience: float) -> None:
        raw = socket.create_connection((host.address, 6641), connecting)
        self.host = host
        self.socket = context.wrap_socket(raw, server_hostname=host.name)
        self.socket.settimeout(patience)
        self.decoder = json.JSONDecoder()
        self.unread = ""
        self.numbers = itertools.count()
        # called when the server owes an answer for too long
        self.silence: Callable[[], object] = lambda: None

    def ask(self, method: str, *params: Any) -> Any:
        number = next(self.numbers)
        self._send({"method": method, "params": list(params), "id": number})
        while True:
            message = self._receive()
            if message.get("method") == "echo":  # the server's inactivity probe
                self._send({"result": message["params"], "error": None, "id": message["id"]})
            elif message.get("id") == number:
                if message.get("error"):
                    raise hosts.HostError(f"{method}: {message['error']}")
                return message["result"]

    def transact(self, database: str, *operations: dict[str, Any]) -> list[dict[str, Any]]:
        answers = self.ask("transact", database, *operations)
        for answer in answers:
            if answer and answer.get("error"):
                raise hosts.HostError(f"{answer['error']}: {answer.get('details', '')}")
        return answers

    def leads(self) -> bool:
        """Whether this server is the leader, in its own words."""
        where = [["name", "==", DATABASE]]
        (answer,) = self.transact(
            "_Server", {"op": "select", "table": "Database", "where": where, "columns": ["leader", "connected"]}
        )
        return all(row["leader"] and row["connected"] for row in answer["rows"]) and bool(answer["rows"])

    def write(self, key: str) -> None:
        try:
            self.transact(
                DATABASE, {"op": "insert", "table": "Address_Set", "row": {"name": PREFIX + key.replace("-", "_")}}
            )
        except TimeoutError:
            self.silence()
            raise

    def close(self) -> None:
        self.socket.close()

    def _send(self, message: dict[str, Any]) -> None:
        self.socket.sendall(json.dumps(message).encode())

    def _receive(self) -> dict[str, Any]:
        while True:
            text = self.unread.lstrip()
            try:
                message, end = self.decoder.raw_decode(text)
                self.unread = text[end:]
                return message
            except ValueError:
                data = self.socket.recv(1 << 20)
                if not data:
                    raise ConnectionError("the server closed the connection") from None
                self.unread += data.decode()


class Client(Service):
    daemon = "ovsdb-server.*ovnnb_db"
    limits = {"kill": 2, "freeze": 3, "host_kill": 3}
    faults = (*Service.faults, "recover")
    rolling = ("restart_ovn", "upgrade_ovn", CERTIFICATES)
    tls_ports = (6641, 6642, 6643, 6644)
    recovery = "recover_ovn"

    def __init__(self, of: hosts.Scenario) -> None:
        super().__init__(of)
        # until when each is asked last
        self.silent: dict[str, float] = {}

    # read at the first connection: an object is also made to learn the faults, before there are hosts
    @functools.cached_property
    def context(self) -> ssl.SSLContext:
        """The servers ask for a certificate of their authority: this client borrows a host's."""
        context = ssl.create_default_context(cafile=str(self.scenario.directory / "ca" / "ca.crt"))
        folder = self.scenario.directory / "client"
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / "host.pem"
        path.touch(mode=0o600)
        path.write_text(hosts.on(self.scenario.hosts[0], "cat", "/etc/ovn/tls/host.key", "/etc/ovn/tls/host.crt"))
        context.load_cert_chain(path)
        return context

    def _leader(self, connecting: float = CONNECTING, patience: float = PATIENCE) -> Connection:
        problem: Exception | None = None
        order = list(self.scenario.hosts)
        random.shuffle(order)
        for host in sorted(order, key=self._was_silent):
            connection = None
            try:
                limit = min(connecting, LOOK) if self._was_silent(host) and patience == PATIENCE else connecting
                connection = Connection(host, self.context, limit, patience)
                if connection.leads():
                    return connection
            except (OSError, ValueError, hosts.HostError) as error:
                problem = error
                if isinstance(error, TimeoutError):
                    self._fell_silent(host)
            if connection:
                connection.close()
        raise hosts.HostError(f"no member of {self.scenario.name} leads: {problem!r}")

    def _was_silent(self, host: Host) -> bool:
        return self.silent.get(host.name, 0.0) > time.monotonic()

    def connect(self) -> Connection:
        connection = self._leader()
        connection.silence = functools.partial(self._fell_silent, connection.host)
        return connection

    def _fell_silent(self, host: Host) -> None:
        self.silent[host.name] = time.monotonic() + SILENT

    def prepare(self) -> None:
        connection = self._leader(10, 10)
        connection.transact(
            DATABASE, {"op": "delete", "table": "Address_Set", "where": [["name", "!=", str(uuid.uuid4())]]}
        )
        connection.close()

    def found(self) -> Counter[str]:
        connection = self._leader(20, 20)
        (answer,) = connection.transact(
            DATABASE, {"op": "select", "table": "Address_Set", "where": [], "columns": ["name"]}
        )
        connection.close()
        return Counter(row["name"].removeprefix(PREFIX).replace("_", "-") for row in answer["rows"])

    def elections(self) -> int:
        """A leader hands over by itself whenever it writes a snapshot, in 0.1 s; only an election after a timeout is a failover."""
        ask = "grep -c 'timeout expired, starting election' /var/log/ovn/ovsdb-server-nb.log || true"
        return sum(int(hosts.on(host, "sh", "-c", ask)) for host in self.scenario.hosts)

    def victim(self) -> Host:
        connection = self._leader(10, 10)
        address = connection.socket.getpeername()[0]
        connection.close()
        return next(host for host in self.scenario.hosts if host.address == address)

    def unsettled(self) -> str:
        for host in self.scenario.hosts:
            for key, name in (("nb", "OVN_Northbound"), ("sb", "OVN_Southbound")):
                control = f"/run/ovn/ovn{key}_db.ctl"
                text = hosts.on(host, "timeout", "5", "ovs-appctl", "-t", control, "cluster/status", name, check=False)
                if "Status: cluster member" not in text or "Leader: unknown" in text:
                    return f"{name} on {host.name} is no member, or knows no leader"
        return ""
