"""Valkey as a careful client uses it: the primary asked of the Sentinels, TLS, and a write done when a replica has it too."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import valkey
from valkey.sentinel import Sentinel

from tests.stack.hosts import Host, Scenario
from tests.stack.writing import CERTIFICATES, Service, Session

NAME, PASSWORD = "c5c3", "NotASecretNotASecretValkey"


class Writes(Session):
    """One connection to the primary; WAIT tells that a replica has the write."""

    def __init__(self, connection: valkey.Valkey) -> None:
        self.connection = connection

    def write(self, key: str) -> None:
        pipeline = self.connection.pipeline(transaction=False)
        pipeline.set(key, "1")
        pipeline.wait(1, 500)
        _stored, replicas = pipeline.execute()
        if replicas < 1:
            raise TimeoutError("no replica has it within half a second")

    def close(self) -> None:
        self.connection.close()


class Client(Service):
    daemon = "valkey-server"
    limits = {"kill": 3, "freeze": 5, "host_kill": 5}
    faults = (*Service.faults, "recover")
    rolling = ("restart_valkey", "upgrade_valkey", CERTIFICATES)
    tls_ports = (6379, 26379)
    recovery = "recover_valkey"

    def __init__(self, of: Scenario) -> None:
        super().__init__(of)
        self.asks = threading.local()

    def _settings(self) -> dict[str, object]:
        return {
            "password": PASSWORD,
            "ssl": True,
            "ssl_ca_certs": str(self.scenario.directory / "ca" / "ca.crt"),
            "ssl_check_hostname": False,
            # of each read, and of the TLS handshake with a host that hangs: both may come one after the other before the next is asked
            "socket_timeout": 1.0,
            "socket_connect_timeout": 0.5,
            "retry_on_timeout": False,
        }

    def _primary(self) -> valkey.Valkey:
        """Ask the Sentinels, whichever answers; connect to whom they name."""
        # kept, one for each thread, and each time another Sentinel is asked first: one that is cut off from the others still names the
        # primary that is cut off with it
        asked = getattr(self.asks, "sentinel", None)
        if asked is None:
            asked = Sentinel(
                [(host.address, 26379) for host in self.scenario.hosts],
                sentinel_kwargs={**self._settings(), "socket_timeout": 0.5},
            )
            self.asks.sentinel = asked
        asked.sentinels.append(asked.sentinels.pop(0))
        address, port = asked.discover_master(NAME)
        return valkey.Valkey(host=address, port=port, **self._settings())

    def connect(self) -> Writes:
        return Writes(self._primary())

    def prepare(self) -> None:
        primary = self._primary()
        primary.flushall()
        primary.close()

    def found(self) -> Counter[str]:
        primary = self._primary()
        keys = Counter(key.decode() for key in primary.scan_iter(count=1000))
        return Counter(dict.fromkeys(keys, 1))

    def recovery_variables(self, lost: Host) -> dict[str, Any]:
        return {"valkey_recover_from": "newest"}

    def failovers(self) -> int:
        """The epoch of the primary's place grows by one with each failover."""
        epochs = []
        for host in self.scenario.hosts:
            sentinel = valkey.Valkey(host=host.address, port=26379, **self._settings())
            epochs.append(int(sentinel.sentinel_master(NAME)["config-epoch"]))
            sentinel.close()
        return max(epochs)

    def victim(self) -> Host:
        primary = self._primary()
        address = primary.connection_pool.connection_kwargs["host"]
        primary.close()
        return next(host for host in self.scenario.hosts if host.address == address)

    def unsettled(self) -> str:
        others = len(self.scenario.hosts) - 1
        primaries = set()
        for host in self.scenario.hosts:
            try:
                sentinel = valkey.Valkey(host=host.address, port=26379, **self._settings())
                seen = sentinel.sentinel_master(NAME)
                tilted = sentinel.info("sentinel")["sentinel_tilt"]
                sentinel.close()
                server = valkey.Valkey(host=host.address, port=6379, **self._settings())
                state = server.info("replication")
                server.close()
            except (valkey.ValkeyError, OSError) as error:
                return f"{host.name}: {error!r}"
            if tilted:  # one that hung does not trust its clock for half a minute, and does not vote
                return f"the Sentinel of {host.name} is in tilt"
            primaries.add(seen["ip"])
            if seen["flags"] != "master" or seen["num-slaves"] != others or seen["num-other-sentinels"] != others:
                return f"{host.name} sees {seen['ip']} ({seen['flags']}), {seen['num-slaves']} replicas, {seen['num-other-sentinels']} Sentinels"
            if state["role"] == "slave" and state["master_link_status"] != "up":
                return f"{host.name} has no link to {state['master_host']}"
            if (state["role"] == "master") != (host.address == seen["ip"]):
                return f"{host.name} is {state['role']}, its Sentinel says {seen['ip']}"
            if state["role"] == "master" and state["connected_slaves"] != others:
                return f"the primary {host.name} has {state['connected_slaves']} replicas"
        return "" if len(primaries) == 1 else f"primaries {primaries}"
