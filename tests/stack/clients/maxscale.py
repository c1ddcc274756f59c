"""MariaDB Galera through MaxScale: as the scenario galera, and sessions that outlive their writer."""

from __future__ import annotations

import os
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pymysql

from tests.stack.clients import galera
from tests.stack.writing import CERTIFICATES


def given() -> str:
    """Return the package or archive that the user names."""
    return os.environ.get("C5C3_MAXSCALE_PACKAGE", "")


def missing() -> str:
    """Return why the scenario cannot run, or ""."""
    if not given():
        return (
            "no MaxScale is given: it is in no package registry that is reached here; set C5C3_MAXSCALE_PACKAGE to a .deb or .tar.gz. "
            "The rendered parameters are checked without it (tests/unit/test_maxscale_config.py)"
        )
    if "://" not in given() and not Path(given()).is_file():
        return f"C5C3_MAXSCALE_PACKAGE is {given()}, which is no file"
    return ""


# It tells its version, and nothing more: what cannot be seen before it is started.
DOES_NOT_START = b'#!/bin/sh\ncase "$*" in *--version*) echo MaxScale; exit 0;; esac\nexit 1\n'


def repacked(to: Path, starts: bool) -> str:
    """Write the archive that was given once more, so that it counts as another one; return its path."""
    with tarfile.open(given()) as old, tarfile.open(to, "w:gz", compresslevel=1) as new:
        for member in old:
            content = old.extractfile(member) if member.isfile() else None
            if not starts and content and member.name.endswith("/bin/maxscale"):
                member.size, content = len(DOES_NOT_START), BytesIO(DOES_NOT_START)
            new.addfile(member, content)
    return str(to)


class Client(galera.Client):
    moves = True
    proxy_daemon = "bin/maxscale --config="
    rolling = ("restart_galera", "restart_maxscale", "upgrade_maxscale", CERTIFICATES)

    def _another(self, name: str, starts: bool) -> dict[str, Any]:
        """What names another archive than the one that was given; nothing where that is none."""
        if not Path(given()).is_file() or not tarfile.is_tarfile(given()):
            return {}
        return {"maxscale_package": repacked(self.scenario.directory / f"{name}.tar.gz", starts)}

    def rolling_variables(self, name: str) -> dict[str, Any]:
        return self._another("newer", True) if name == "upgrade_maxscale" else {}

    def bad_upgrade(self) -> tuple[str, dict[str, Any], str] | None:
        bad = self._another("bad", False)
        return ("upgrade_maxscale", bad, "runs what it ran before, and no further one is touched") if bad else None

    @staticmethod
    def _name(connection: pymysql.Connection) -> str:
        with connection.cursor() as cursor:
            # reads go to any member, a locking one to the writer
            cursor.execute("SELECT @@wsrep_node_name FOR UPDATE")
            return cursor.fetchone()[0]
