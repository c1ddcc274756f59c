"""Tell how far this server's log of writes reaches, beside other servers'.

Replicas log the same bytes in the same order, and each of them has only the beginning of what the primary had. One whose log contains the last
bytes of another's has all that the other has. Prints the last bytes of the log in the folder that is the argument, as base64; with the
environment's TAILS, which maps hosts to such ends, prints as JSON the hosts whose data is all here.
"""

import base64
import glob
import json
import os
import sys

# long enough to be found once; the part that is searched is what a lagging replica may lack
END, SEARCHED = 512, 256 << 20


def last(size: int) -> bytes:
    """Return the last bytes of the newest file of the log; none when there is no log."""
    files = glob.glob(os.path.join(sys.argv[1], "*.incr.aof"))
    if not files:
        return b""
    with open(max(files, key=lambda name: int(name.split(".")[-3])), "rb") as log:
        log.seek(max(0, os.path.getsize(log.name) - size))
        return log.read()


def main() -> None:
    if "TAILS" not in os.environ:
        print(base64.b64encode(last(END)).decode())
        return
    here = last(SEARCHED)
    ends = {host: base64.b64decode(end) for host, end in json.loads(os.environ["TAILS"]).items()}
    # of an end as short as one write nobody can tell where it belongs
    print(json.dumps(sorted(host for host, end in ends.items() if len(end) >= 64 and end in here)))


main()
