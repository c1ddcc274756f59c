"""Memcached as oslo.cache uses it through pymemcache: keys hashed over the one list of servers, TLS, a dead server left out."""

from __future__ import annotations

import ssl
import threading
from collections import Counter

from pymemcache.client.hash import HashClient

from tests.stack.hosts import Host, Scenario
from tests.stack.writing import CERTIFICATES, Service, Session


class Sets(Session):
    """One client of all servers."""

    def __init__(self, client: HashClient) -> None:
        self.client = client

    def write(self, key: str) -> None:
        if not self.client.set(key, b"1", noreply=False):
            raise OSError("not stored")

    def close(self) -> None:
        """The client stays: it knows which server is dead."""


class Client(Service):
    daemon = "/usr/bin/memcached"
    keeps = False  # a cache: what a dead server held is made anew
    faults = ("kill", "freeze", "host_kill", "all_killed", "wipe")
    rolling = ("upgrade_memcached", CERTIFICATES)
    tls_ports = (11211,)

    def __init__(self, of: Scenario) -> None:
        super().__init__(of)
        self.kept = threading.local()

    def _client(self, of: list[Host]) -> HashClient:
        # our own authority is trusted; hosts are named by address, which pymemcache hands to TLS as the name
        context = ssl.create_default_context(cafile=str(self.scenario.directory / "ca" / "ca.crt"))
        return HashClient(
            [(host.address, 11211) for host in of],
            connect_timeout=0.5,
            timeout=1,
            retry_attempts=1,
            retry_timeout=1,
            dead_timeout=5,
            tls_context=context,
        )

    def connect(self) -> Sets:
        """Each writer has one client for good, as oslo.cache has: a new one would ask the dead server with every third key again."""
        if not hasattr(self.kept, "client"):
            self.kept.client = self._client(list(self.scenario.hosts))
        return Sets(self.kept.client)

    def prepare(self) -> None:
        client = self._client(list(self.scenario.hosts))
        client.flush_all()
        client.close()

    def found(self) -> Counter[str]:
        client = self._client(list(self.scenario.hosts))
        keys = [f"check-{number}" for number in range(20)]
        there = client.get_many(keys)
        client.close()
        return Counter(dict.fromkeys(there, 1))

    def victim(self) -> Host:
        return self.scenario.hosts[0]

    def unsettled(self) -> str:
        for host in self.scenario.hosts:
            try:
                client = self._client([host])
                client.set("settled", b"1", noreply=False)
                if client.get("settled") != b"1":
                    return f"{host.name} does not keep a key"
                client.close()
            except Exception as error:
                return f"{host.name}: {error!r}"
        return ""
