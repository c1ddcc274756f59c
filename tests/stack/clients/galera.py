"""MariaDB Galera as an OpenStack service uses it: through the proxies, over TLS, each write committed before the next."""

from __future__ import annotations

import itertools
import ssl
import threading
from collections import Counter

import pymysql

from tests.stack import hosts
from tests.stack.hosts import Host
from tests.stack.writing import CERTIFICATES, Service, Session

USER, PASSWORD, DATABASE = "nova", "not-a-secret-nova", "nova"
PROXY_PORT, MEMBER_PORT = 3307, 3306


class Writing(Session):
    """One connection in autocommit mode."""

    def __init__(self, connection: pymysql.Connection) -> None:
        self.connection = connection

    def write(self, key: str) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("INSERT INTO faults (name) VALUES (%s)", (key,))

    def close(self) -> None:
        self.connection.close()


class Client(Service):
    daemon = "/usr/sbin/mariadbd"
    limits = {"kill": 2.5, "freeze": 3, "host_kill": 3}
    # strayed: one proxy alone does not reach the writer; stalled: another member hangs while the writer's host dies
    faults = (*Service.faults, "strayed", "stalled", "recover")
    rolling = ("restart_galera", "upgrade_galera", "restart_galera_proxy", "upgrade_galera_proxy", CERTIFICATES)
    tls_ports = (4567,)
    recovery = "recover_galera"
    # what the writer has acknowledged the others hold in memory for some milliseconds: its disk must be there again
    recovers_without = False
    # the proxy cuts what cannot go on, long before the client's 10 s
    silence = "timed out"
    proxy_daemon = "/usr/sbin/haproxy -Ws -f /etc/galera-proxy/"
    # a proxy that moves a client to the new writer without a new connection
    moves = False

    def __init__(self, of: hosts.Scenario) -> None:
        super().__init__(of)
        self.members = [host for host in of.hosts if "galera" in host.groups]
        self.proxies = [host for host in of.hosts if host not in self.members]
        # half of the clients come through each proxy
        self.turn = itertools.cycle(self.proxies)
        # one after the other, as the clients found them
        self.writers: list[str] = []
        # the member behind each client's connection, by thread
        self.behind: dict[int, str] = {}
        self.lock = threading.Lock()

    def _connection(self, address: str, port: int) -> pymysql.Connection:
        context = ssl.create_default_context(cafile=str(self.scenario.directory / "ca" / "ca.crt"))
        # the name in the certificate is a member's, the address a proxy's
        context.check_hostname = False
        return pymysql.connect(
            host=address,
            port=port,
            user=USER,
            password=PASSWORD,
            database=DATABASE,
            ssl=context,
            autocommit=True,
            connect_timeout=3,
            read_timeout=10,
            write_timeout=10,
        )

    def connect(self) -> Writing:
        connection = self._connection(next(self.turn).address, PROXY_PORT)
        writer = self._name(connection)
        with self.lock:
            self.behind[threading.get_ident()] = writer
            if self.writers[-1:] != [writer]:
                self.writers.append(writer)
        return Writing(connection)

    def prepare(self) -> None:
        with self._connection(self.proxies[0].address, PROXY_PORT) as connection, connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS faults")
            cursor.execute("CREATE TABLE faults (id BIGINT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(64), KEY (name))")

    def found(self) -> Counter[str]:
        """Every member must hold the same: what one of them lacks is not there."""
        common: Counter[str] | None = None
        for member in self.members:
            with self._connection(member.address, MEMBER_PORT) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT name FROM faults")
                keys = Counter(row[0] for row in cursor.fetchall())
            if common is not None and keys != common:
                raise hosts.HostError(f"{member.name} holds {keys.total()} rows, the others {common.total()}")
            common = keys
        return common or Counter()

    def writer(self, proxy: Host) -> str:
        """The member behind a proxy."""
        with self._connection(proxy.address, PROXY_PORT) as connection:
            return self._name(connection)

    @staticmethod
    def _name(connection: pymysql.Connection) -> str:
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@wsrep_node_name")
            return cursor.fetchone()[0]

    def victim(self) -> Host:
        return self.scenario.host(self.writer(self.proxies[0]))

    def daemon_of(self, host: Host) -> str:
        return self.proxy_daemon if host in self.proxies else self.daemon

    def cripple(self) -> None:
        """Without the last view on disk pc.recovery cannot find the others again."""
        for member in self.members:
            hosts.on(member, "rm", "-f", "/var/lib/mysql/gvwstate.dat")

    def failovers(self) -> int:
        """How often a client found another writer than the one before it did."""
        return max(0, len(self.writers) - 1)

    def unsettled(self) -> str:
        for member in self.members:
            try:
                with self._connection(member.address, MEMBER_PORT) as connection, connection.cursor() as cursor:
                    cursor.execute("SHOW STATUS LIKE 'wsrep\\_%'")
                    status = dict(cursor.fetchall())
            except Exception as error:
                return f"{member.name}: {error}"
            told = (status["wsrep_cluster_status"], status["wsrep_local_state_comment"], status["wsrep_cluster_size"])
            if told != ("Primary", "Synced", str(len(self.members))):
                return f"{member.name} is {told}"
        try:
            writers = {proxy.name: self.writer(proxy) for proxy in self.proxies}
        except Exception as error:
            return f"proxy: {error}"
        with self.lock:
            old = set() if self.moves else set(self.behind.values())
        if len(old | set(writers.values())) > 1:
            return f"two writers: new clients come to {writers}, those that are connected write to {sorted(old)}"
        return ""
