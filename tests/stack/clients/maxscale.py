"""MariaDB Galera through MaxScale: as the scenario galera, and sessions that outlive their writer."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import tempfile
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


def archive(to: Path, starts: bool) -> None:
    """Write the archive that was given once more, so that it counts as another one."""
    with tarfile.open(given()) as old, tarfile.open(to, "w:gz", compresslevel=1) as new:
        for member in old:
            content = old.extractfile(member) if member.isfile() else None
            if not starts and content and member.name.endswith("/bin/maxscale"):
                member.size, content = len(DOES_NOT_START), BytesIO(DOES_NOT_START)
            new.addfile(member, content)


def package(to: Path, starts: bool) -> None:
    """Write the package that was given once more, with a newer version; newest is the one that does not start."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        subprocess.run(["dpkg-deb", "--raw-extract", given(), root], check=True)
        control = root / "DEBIAN" / "control"
        text = re.sub(r"(?m)^(Version: .*)$", r"\1+1newer" if starts else r"\1+2bad", control.read_text())
        control.write_text(text)
        if not starts:
            (root / "usr" / "bin" / "maxscale").write_bytes(DOES_NOT_START)
        subprocess.run(["dpkg-deb", "--build", "--root-owner-group", "-Zgzip", "-z1", root, to], check=True)


class Client(galera.Client):
    moves = True
    # of a package or of an archive
    proxy_daemon = "bin/maxscale"
    rolling = ("restart_galera", "restart_maxscale", "upgrade_maxscale", CERTIFICATES)

    def _another(self, name: str, starts: bool) -> dict[str, Any]:
        """What names another archive or package than the one that was given; nothing where that is no file."""
        if not Path(given()).is_file():
            return {}
        write, suffix = (archive, "tar.gz") if tarfile.is_tarfile(given()) else (package, "deb")
        to = self.scenario.directory / f"{name}.{suffix}"
        write(to, starts)
        return {"maxscale_package": str(to)}

    def rolling_variables(self, name: str) -> dict[str, Any]:
        return self._another("newer", True) if name == "upgrade_maxscale" else {}

    def bad_upgrade(self) -> tuple[str, dict[str, Any], str] | None:
        bad = self._another("bad", False)
        return ("upgrade_maxscale", bad, "no further one is touched") if bad else None

    @staticmethod
    def _name(connection: pymysql.Connection) -> str:
        with connection.cursor() as cursor:
            # reads go to any member, a locking one to the writer
            cursor.execute("SELECT @@wsrep_node_name FOR UPDATE")
            return cursor.fetchone()[0]
