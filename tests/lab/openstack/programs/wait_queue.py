"""Wait until RabbitMQ has a consumer on each queue. Usage: wait_queue.py QUEUE[,QUEUE...] SECONDS; the transport URL on stdin.

nova-compute pings the conductor once and then waits ten seconds: started just after the conductor it is up at once.
"""

import sys
import time
from urllib.parse import urlsplit

import amqp

queues, end = sys.argv[1].split(","), time.monotonic() + float(sys.argv[2])
url = urlsplit(sys.stdin.readline().strip())
while True:
    try:
        with amqp.Connection(f"{url.hostname}:{url.port}", url.username, url.password, connect_timeout=5) as connection:
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
