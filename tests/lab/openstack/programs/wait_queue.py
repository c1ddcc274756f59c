"""Wait until RabbitMQ has a consumer on each queue. Usage: wait_queue.py QUEUE[,QUEUE...] SECONDS [CA]; the members on stdin,
USER:PASSWORD@HOST:PORT[,...], which are tried in turn; over TLS with the authority's certificate CA.

nova-compute pings the conductor once and then waits ten seconds: started just after the conductor it is up at once.
"""

import itertools
import sys
import time
from urllib.parse import urlsplit

import amqp

queues, end = sys.argv[1].split(","), time.monotonic() + float(sys.argv[2])
tls = {"ca_certs": sys.argv[3]} if len(sys.argv) > 3 else False
members = [urlsplit(f"//{member}") for member in sys.stdin.readline().strip().split(",")]
for url in itertools.cycle(members):
    try:
        with amqp.Connection(
            f"{url.hostname}:{url.port}", url.username, url.password, ssl=tls, connect_timeout=5
        ) as connection:
            while queues:
                channel = connection.channel()
                if channel.queue_declare(queues[0], passive=True).consumer_count:
                    del queues[0]
                else:
                    time.sleep(0.05)
                channel.close()
                if time.monotonic() > end:
                    sys.exit(f"nobody reads the queue {queues[0]}")
            sys.exit(0)
    except (OSError, amqp.exceptions.AMQPError) as error:
        if time.monotonic() > end:
            sys.exit(f"nobody reads the queue {queues[0]}: {error}")
        time.sleep(0.1)
