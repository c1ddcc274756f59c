"""Database, message bus and cache of the lab's Nova on hosts outside of the lab: what those who run a site have.

>>> lab = Lab(seed=80, hosts=2, parts=("nova",)); lab.nova.outside = Outside(...); lab.up()
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from .hosts import LabError

if TYPE_CHECKING:
    from .nova import Nova

INTERFACE = "outside"
# Hypervisors go out by the control namespace's address, so that nobody outside needs a way back to them.
_MASQUERADE = f"""table ip c5c3_outside {{
    chain postrouting {{ type nat hook postrouting priority 100; oifname "{INTERFACE}" masquerade; }}
}}
"""


@dataclass(frozen=True)
class Outside:
    """Where they are and how they are reached.

    :ivar bridge: the bridge of their network, in the machine's own namespace.
    :ivar address: a free IPv4 address of that network with its prefix length, for the lab's control namespace.
    :ivar database: ``USER:PASSWORD@HOST:PORT`` of MariaDB; the user has all rights on empty databases of OpenStack's names.
    :ivar message: ``USER:PASSWORD@HOST:PORT`` of each RabbitMQ member, over TLS.
    :ivar memcached: ``HOST:PORT`` of each memcached, over TLS.
    :ivar authority: the certificate of the authority of all of them.
    """

    bridge: str
    address: str
    database: str
    message: Sequence[str]
    memcached: Sequence[str]
    authority: Path

    # roles/rabbitmq, "What clients must set"
    host_setup: ClassVar[str] = "echo 1 >/proc/sys/net/ipv4/tcp_syn_retries"

    def attach(self, nova: Nova) -> None:
        """Connect the control namespace, which is on, with their network.

        :raises LabError: when the machine refuses, with its words.
        """
        control, link = nova.control, f"c5c3-out{nova.lab.seed}"
        # of a lab that ended a moment ago: its network is taken down a little later
        subprocess.run(["ip", "link", "delete", link], check=False, capture_output=True)
        try:
            subprocess.run(
                ["ip", "link", "add", link, "type", "veth", "peer", "name", INTERFACE, "netns", str(control.pid)],
                check=True,
                capture_output=True,
                text=True,
            )
            subprocess.run(["ip", "link", "set", link, "master", self.bridge, "up"], check=True, capture_output=True)
            for words in (f"addr add {self.address} dev {INTERFACE}", f"link set {INTERFACE} up"):
                control.network_exec(["ip", *words.split()], check=True, capture_output=True)
            control.network_exec(["sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True, capture_output=True)
            control.network_exec(["sh", "-c", self.host_setup], check=True, capture_output=True)
            control.network_exec(["nft", "-f", "-"], input=_MASQUERADE, text=True, check=True, capture_output=True)
        except subprocess.CalledProcessError as error:
            raise LabError(f"cannot connect the lab with {self.bridge}: {error.stderr}") from error
        # below the lab's folder every part of it can read it
        shutil.copyfile(self.authority, self.ca(nova))

    @staticmethod
    def ca(nova: Nova) -> Path:
        """The authority's certificate where the parts of OpenStack find it."""
        return nova.directory / "etc" / "outside-ca.crt"

    def sql(self, nova: Nova, statements: str) -> str:
        """What the MariaDB outside answers, as ``mariadb --batch`` prints it.

        :raises LabError: when it refuses, with its words.
        """
        account, _at, place = self.database.rpartition("@")
        user, password = account.split(":", 1)
        host, port = place.split(":")
        client = ["mariadb", "--no-defaults", f"--host={host}", f"--port={port}", f"--user={user}", "--batch"]
        done = nova.control.network_exec(
            [*client, f"--ssl-ca={self.ca(nova)}"],
            input=statements,
            capture_output=True,
            text=True,
            env={**os.environ, "MYSQL_PWD": password},
        )
        if done.returncode:
            raise LabError(f"the MariaDB at {place} refuses: {done.stderr.strip()[:500]}")
        return done.stdout

    def move_in(self, nova: Nova, databases: Sequence[str]) -> None:
        """Copy the lab's databases from its own MariaDB, which runs; Nova's cell then names the ones outside.

        :raises LabError: when the MariaDB outside refuses, with its words.
        """
        words = ["mariadb-dump", "--no-defaults", f"--socket={nova.directory}/run/mysql.sock", "--user=root"]
        words += ["--single-transaction", "--skip-lock-tables", "--skip-add-locks", "--databases"]
        dump = subprocess.run(
            [*words, *databases],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        self.sql(nova, dump + nova.render("cell.sql"))
