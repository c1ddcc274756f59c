"""MariaDB Galera through MaxScale: as the scenario galera, and sessions that outlive their writer."""

from __future__ import annotations

import os
from pathlib import Path

import pymysql

from tests.stack.clients import galera
from tests.stack.writing import CERTIFICATES


def missing() -> str:
    """Return why the scenario cannot run, or ""."""
    given = os.environ.get("C5C3_MAXSCALE_PACKAGE", "")
    if not given:
        return (
            "no MaxScale is given: it is in no package registry that is reached here; set C5C3_MAXSCALE_PACKAGE to a .deb or .tar.gz. "
            "The rendered parameters are checked without it (tests/unit/test_maxscale_config.py)"
        )
    if "://" not in given and not Path(given).is_file():
        return f"C5C3_MAXSCALE_PACKAGE is {given}, which is no file"
    return ""


class Client(galera.Client):
    moves = True
    proxy_daemon = "bin/maxscale --config="
    rolling = ("restart_galera", "restart_maxscale", "upgrade_maxscale", CERTIFICATES)

    @staticmethod
    def _name(connection: pymysql.Connection) -> str:
        with connection.cursor() as cursor:
            # reads go to any member, a locking one to the writer
            cursor.execute("SELECT @@wsrep_node_name FOR UPDATE")
            return cursor.fetchone()[0]
