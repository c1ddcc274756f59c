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
from typing import Any

from tests.stack import hosts
from tests.stack.hosts import Host
from tests.stack.writing import Service, Session

DATABASE = "OVN_Northbound"
PREFIX = "faults_"
# what a client waits for an answer: as long as the leader's silence lets the others elect one
PATIENCE = 1.5
# seconds for which a server that did not answer is not asked again, unless all are silent
BACKOFF = 2.0


class Connection(Session):
    """OVSDB's JSON-RPC (RFC 7047), as far as a transaction needs it."""

    def __init__(self, address: str, name: str, context: ssl.SSLContext, patience: float = PATIENCE) -> None:
        raw = socket.create_connection((address, 6641), patience)
        self.socket = context.wrap_socket(raw, server_hostname=name)
        self.socket.settimeout(patience)
        self.decoder = json.JSONDecoder()
        self.unread = ""
        self.numbers = itertools.count()

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
        self.transact(
            DATABASE, {"op": "insert", "table": "Address_Set", "row": {"name": PREFIX + key.replace("-", "_")}}
        )

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
    rolling = ("restart_ovn", "upgrade_ovn")
    recovery = "recover_ovn"

    def __init__(self, of: hosts.Scenario) -> None:
        super().__init__(of)
        # until when each is not asked
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

    def _leader(self, patience: float = PATIENCE) -> Connection:
        problem: Exception | None = None
        order = list(self.scenario.hosts)
        random.shuffle(order)
        # as OVS's own client does, one that was silent is left in peace for a while: its silence costs PATIENCE each time
        order = [host for host in order if self.silent.get(host.name, 0.0) < time.monotonic()] or order
        for host in order:
            connection = None
            try:
                connection = Connection(host.address, host.name, self.context, patience)
                if connection.leads():
                    return connection
            except (OSError, ValueError, hosts.HostError) as error:
                problem = error
                if isinstance(error, TimeoutError):
                    self.silent[host.name] = time.monotonic() + BACKOFF
            if connection:
                connection.close()
        raise hosts.HostError(f"no member of {self.scenario.name} leads: {problem!r}")

    def connect(self) -> Connection:
        return self._leader()

    def prepare(self) -> None:
        connection = self._leader(10)
        connection.transact(
            DATABASE, {"op": "delete", "table": "Address_Set", "where": [["name", "!=", str(uuid.uuid4())]]}
        )
        connection.close()

    def found(self) -> Counter[str]:
        connection = self._leader(20)
        (answer,) = connection.transact(
            DATABASE, {"op": "select", "table": "Address_Set", "where": [], "columns": ["name"]}
        )
        connection.close()
        return Counter(row["name"].removeprefix(PREFIX).replace("_", "-") for row in answer["rows"])

    def victim(self) -> Host:
        connection = self._leader(10)
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
