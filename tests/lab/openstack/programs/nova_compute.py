"""nova-compute whose drivers are also looked up in the lab's folder `virt` (compute_driver = ha_fake.HaFakeDriver).

Nova 34 hangs for ever, and stays up for its API, when it finds its connection to libvirtd closed: libvirt then calls
the close callback in the thread that holds the lock of the connection, which takes that lock again (_get_connection and
_connection_closed in nova/virt/libvirt/host.py). A minute without its broker is enough, since libvirt's events wait in
the thread that keeps the connection alive. Here the lock may be taken again, as a bugfix of Nova would have it; SIGUSR1
brings the hang about.
"""

import signal
import sys
import threading
from pathlib import Path

import nova.virt
from nova.cmd.compute import main
from nova.virt.libvirt import host

locks = []


class Host(host.Host):
    """Nova's connection to libvirtd with a lock that its holder may take again."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._wrapped_conn_lock = threading.RLock()
        locks.append(self._wrapped_conn_lock)


def hang(*_):
    """Take the locks in a thread that never gives them back."""

    def keep():
        for lock in locks:
            lock.acquire()
        threading.Event().wait()

    threading.Thread(target=keep, daemon=True).start()


host.Host = Host
signal.signal(signal.SIGUSR1, hang)
nova.virt.__path__.append(str(Path(__file__).parents[1] / "virt"))
sys.argv[0] = "nova-compute"
sys.exit(main())
