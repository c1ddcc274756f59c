"""RabbitMQ as an OpenStack service uses it: TLS, publisher confirms, a quorum queue, the next member when one is gone."""

from __future__ import annotations

import functools
import itertools
import json
import random
import ssl
import threading
from collections import Counter
from typing import Any

import pika

from tests.stack import hosts
from tests.stack.hosts import Host
from tests.stack.writing import CERTIFICATES, Service, Session

QUEUE = "faults"
USER, PASSWORD = "openstack", "not-a-secret-rabbit"
# Seconds that a confirm may take. A broker whose queue has just lost its leader holds a publish for up to ten seconds until it sends it
# again (rabbit_fifo_client's timer); a client that asks anew by then is served at once. pika's own check needs two or three times the
# heartbeat and five seconds more each.
PATIENCE = 4.0


class Publisher(Session):
    """One connection that publishes and waits for each confirm."""

    def __init__(self, connection: pika.BlockingConnection) -> None:
        self.connection = connection
        self.channel = connection.channel()
        self.channel.confirm_delivery()

    def write(self, key: str) -> None:
        loop = self.connection._impl
        silent = pika.exceptions.AMQPHeartbeatTimeout(f"no confirm within {PATIENCE:g} s")
        alarm = loop._adapter_call_later(PATIENCE, functools.partial(loop._terminate_stream, silent))
        try:
            # raises when it is refused or comes back
            self.channel.basic_publish("", QUEUE, key.encode(), pika.BasicProperties(delivery_mode=2), mandatory=True)
        finally:
            loop._adapter_remove_timeout(alarm)

    def close(self) -> None:
        self.connection.close()


class Client(Service):
    daemon = "beam.smp"
    limits = {"kill": 5, "freeze": 15, "host_kill": 5}
    faults = (*Service.faults, "recover")
    rolling = ("restart_rabbitmq", "upgrade_rabbitmq", CERTIFICATES)
    tls_ports = (5671, 25672)
    recovery = "recover_rabbitmq"

    def __init__(self, of: hosts.Scenario) -> None:
        super().__init__(of)
        self.turns = threading.local()

    def _connection(self, host: Host) -> pika.BlockingConnection:
        context = ssl.create_default_context(cafile=str(self.scenario.directory / "ca" / "ca.crt"))
        return pika.BlockingConnection(
            pika.ConnectionParameters(
                host.address,
                5671,
                credentials=pika.PlainCredentials(USER, PASSWORD),
                ssl_options=pika.SSLOptions(context, host.name),
                socket_timeout=2,
                stack_timeout=3,
                blocked_connection_timeout=10,
                heartbeat=5,
                # as the library under oslo.messaging does by default: a host without power is noticed without its farewell
                tcp_options={"TCP_USER_TIMEOUT": 1000},
            )
        )

    def connect(self) -> Publisher:
        """Each client goes through the list of members on its own, and from one that failed to the next."""
        turn = getattr(self.turns, "turn", None)
        if turn is None:
            order = list(self.scenario.hosts)
            random.shuffle(order)
            turn = self.turns.turn = itertools.cycle(order)
        return Publisher(self._connection(next(turn)))

    def _any(self) -> pika.BlockingConnection:
        """A connection to whichever member takes one."""
        problem: Exception | None = None
        for host in self.scenario.hosts:
            try:
                return self._connection(host)
            except Exception as error:
                problem = error
        raise hosts.HostError(f"no member of {self.scenario.name} takes a connection: {problem!r}")

    def prepare(self) -> None:
        connection = self._any()
        channel = connection.channel()
        channel.queue_delete(QUEUE)
        # no x-queue-type where the broker's default does it: that the default is quorum is part of the test
        arguments = {"x-queue-type": "quorum"} if self.scenario.distribution == "bookworm" else None
        channel.queue_declare(QUEUE, durable=True, arguments=arguments)
        connection.close()

    def found(self) -> Counter[str]:
        connection = self._any()
        channel = connection.channel()
        channel.basic_qos(prefetch_count=500)
        keys: Counter[str] = Counter()
        for method, _properties, body in channel.consume(QUEUE, inactivity_timeout=5):
            if method is None:
                break
            keys[body.decode()] += 1
            if sum(keys.values()) % 200 == 0:
                channel.basic_ack(method.delivery_tag, multiple=True)
        channel.cancel()
        connection.close()
        return keys

    def _queue(self) -> dict[str, object]:
        """The queue's leader and members, as any member that answers tells them."""
        for host in self.scenario.hosts:
            text = hosts.on(
                host,
                *"timeout 20 rabbitmqctl -q list_queues name type leader online members --formatter=json".split(),
                check=False,
            )
            if text.strip().startswith("["):
                for queue in json.loads(text):
                    if queue["name"] == QUEUE:
                        return queue
        raise hosts.HostError("no member tells of the queue")

    def recovery_variables(self, lost: Host) -> dict[str, Any]:
        return {"rabbitmq_recover_from": next(host.name for host in self.scenario.hosts if host != lost)}

    def victim(self) -> Host:
        queue = self._queue()
        assert queue["type"] == "quorum", f"{QUEUE} is a queue of type {queue['type']}"
        return self.scenario.host(str(queue["leader"]).split("@")[1])

    def unsettled(self) -> str:
        names = {f"rabbit@{host.name}" for host in self.scenario.hosts}
        for host in self.scenario.hosts:
            text = hosts.on(host, *"timeout 20 rabbitmqctl -q cluster_status --formatter=json".split(), check=False)
            if not text.strip().startswith("{"):
                return f"{host.name} does not answer"
            status = json.loads(text)
            if set(status["running_nodes"]) != names or status["partitions"]:
                return f"{host.name} sees {status['running_nodes']}, partitions {status['partitions']}"
        try:
            queue = self._queue()
        except hosts.HostError:
            return ""  # before the first fault there is none
        if set(queue["online"]) != names:
            return f"queue members online: {queue['online']}"
        return ""
