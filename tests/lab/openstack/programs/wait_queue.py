"""Wait until RabbitMQ has a consumer on a queue. Usage: wait_queue.py QUEUE SECONDS; reads the transport URL on stdin.

nova-compute pings the conductor once and then waits ten seconds: started just after the conductor it is up at once.
"""

import sys
import time
from urllib.parse import urlsplit

import amqp

queue, end = sys.argv[1], time.monotonic() + float(sys.argv[2])
url = urlsplit(sys.stdin.readline().strip())
while True:
    try:
        with amqp.Connection(f"{url.hostname}:{url.port}", url.username, url.password, connect_timeout=5) as connection:
            while True:
                channel = connection.channel()
                if channel.queue_declare(queue, passive=True).consumer_count:
                    sys.exit(0)
                channel.close()
                time.sleep(0.05)
    except (OSError, amqp.exceptions.AMQPError) as error:
        if time.monotonic() > end:
            sys.exit(f"nobody reads the queue {queue}: {error}")
        time.sleep(0.1)
    if time.monotonic() > end:
        sys.exit(f"nobody reads the queue {queue}")
