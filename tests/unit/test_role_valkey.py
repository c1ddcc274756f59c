"""The role valkey's scripts: which of two survivors has the other's data, and when a server that was the primary may start as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jinja2
import pytest

FILES = Path(__file__).parents[2] / "roles" / "valkey" / "files"
SCRIPT = FILES / "reach.py"


def written(first: int, last: int) -> bytes:
    return b"".join(b"*3\r\n$3\r\nSET\r\n$7\r\nkey%04d\r\n$1\r\n1\r\n" % number for number in range(first, last))


def log(folder: Path, **files: bytes) -> Path:
    folder.mkdir()
    for number, text in files.items():
        (folder / f"appendonly.aof.{number[1:]}.incr.aof").write_bytes(text)
    return folder


def run(folder: Path, **env: str) -> str:
    argv = [sys.executable, str(SCRIPT), str(folder)]
    return subprocess.run(argv, env={**os.environ, **env}, capture_output=True, text=True, check=True).stdout.strip()


def reached(tmp_path: Path, **folders: Path) -> dict[str, list[str]]:
    tails = json.dumps({host: run(folder) for host, folder in folders.items()})
    return {host: json.loads(run(folder, TAILS=tails)) for host, folder in folders.items()}


def test_the_one_that_lacks_writes_is_told(tmp_path: Path) -> None:
    behind, ahead = log(tmp_path / "a", n1=written(0, 90)), log(tmp_path / "b", n1=written(0, 100))
    assert reached(tmp_path, a=behind, b=ahead) == {"a": ["a"], "b": ["a", "b"]}


def test_logs_that_began_at_different_times_are_compared_by_their_ends(tmp_path: Path) -> None:
    # a's newest file began at its last rewrite; ten sorts after nine
    late = log(tmp_path / "a", n9=written(0, 50), n10=written(50, 100))
    early = log(tmp_path / "b", n1=written(0, 100))
    assert reached(tmp_path, a=late, b=early) == {"a": ["a", "b"], "b": ["a", "b"]}


def test_a_write_that_was_cut_off_is_less_than_the_whole(tmp_path: Path) -> None:
    cut, whole = log(tmp_path / "a", n1=written(0, 100)[:-9]), log(tmp_path / "b", n1=written(0, 100))
    assert reached(tmp_path, a=cut, b=whole) == {"a": ["a"], "b": ["a", "b"]}


def test_nobody_can_tell_without_writes(tmp_path: Path) -> None:
    empty, full = log(tmp_path / "a", n1=b""), log(tmp_path / "b", n1=written(0, 100))
    assert reached(tmp_path, a=empty, b=full) == {"a": [], "b": ["b"]}


SETTINGS = """\
NAME=c5c3
ADDRESS=10.0.0.1
OTHERS="10.0.0.2 10.0.0.3"
PORT=6379
SENTINEL_PORT=26379
QUORUM=2
PATIENCE=2
CLI="sh {folder}/cli"
"""
# stands for valkey-cli -h HOST ...: what the host's server or Sentinel answers lies in a file
CLI = 'case "$*" in *INFO*) cat {folder}/info.$2 ;; *) cat {folder}/told.$2 ;; esac\n'


class Server:
    """The host 10.0.0.1 with its files, and what others answer."""

    def __init__(self, folder: Path, conf: str = "port 6379\n") -> None:
        self.folder, self.conf = folder, folder / "valkey.conf"
        self.conf.write_text(conf)
        (folder / "settings.conf").write_text("primaryauth secret\n")
        (folder / "sentinel.conf").write_text('requirepass "secret"\n')
        (folder / "start.env").write_text(SETTINGS.format(folder=folder))
        (folder / "cli").write_text(CLI.format(folder=folder))
        (folder / "appendonlydir").mkdir()

    def told(self, *primaries: str) -> None:
        for number, primary in enumerate(primaries, 1):
            (self.folder / f"told.10.0.0.{number}").write_text(f"{primary}\n6379\n")

    def replica(self, number: int, priority: int) -> None:
        (self.folder / f"info.10.0.0.{number}").write_text(f"role:slave\r\nslave_priority:{priority}\r\n")

    def start(self, limit: float = 20) -> float:
        """Run what runs before the server's start; return the seconds it took."""
        text = (FILES / "before-start.sh").read_text()
        for there in ("/usr/local/lib/c5c3-valkey", "/etc/valkey", "/var/lib/valkey"):
            text = text.replace(there, str(self.folder))
        began = time.monotonic()
        subprocess.run(["bash", "-c", text], check=True, timeout=limit, capture_output=True)
        return time.monotonic() - began


def test_a_primary_that_nobody_replaces_starts_as_one(tmp_path: Path) -> None:
    server = Server(tmp_path)  # after the power failed everywhere: no Sentinel answers
    server.start()
    assert server.conf.read_text() == "port 6379\n"


def test_a_primary_follows_whom_the_sentinels_chose(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.told("10.0.0.1", "10.0.0.3", "10.0.0.3")
    server.start()
    assert server.conf.read_text() == "port 6379\nreplicaof 10.0.0.3 6379\nreplica-priority 0\n"


def test_a_primary_waits_while_another_could_be_chosen(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.told(*["10.0.0.1"] * 3)
    server.replica(2, 100)
    assert server.start() > 1  # the patience of two seconds, whole ones counted
    assert server.conf.read_text() == "port 6379\n"


def test_a_primary_does_not_wait_for_replicas_that_cannot_be_chosen(tmp_path: Path) -> None:
    server = Server(tmp_path)
    (tmp_path / "start.env").write_text(SETTINGS.format(folder=tmp_path).replace("PATIENCE=2", "PATIENCE=600"))
    server.told(*["10.0.0.1"] * 3)
    server.replica(2, 0)
    server.replica(3, 0)
    server.start()
    assert server.conf.read_text() == "port 6379\n"


def test_a_primary_without_its_data_does_not_start_as_one(tmp_path: Path) -> None:
    server = Server(tmp_path)
    (tmp_path / "appendonlydir").rmdir()
    with pytest.raises(subprocess.TimeoutExpired):
        server.start(limit=4)


def test_a_replica_starts_at_once_and_cannot_be_chosen(tmp_path: Path) -> None:
    server = Server(tmp_path, "port 6379\nreplicaof 10.0.0.2 6379\nreplica-priority 100\n")
    server.told(*["10.0.0.2"] * 3)
    server.start()
    assert server.conf.read_text() == "port 6379\nreplicaof 10.0.0.2 6379\nreplica-priority 0\n"


@pytest.mark.parametrize("unit", ["valkey-server", "valkey-sentinel"])
def test_each_line_of_a_units_settings_stands_for_itself(unit):
    """Both run at Nice -10; what runs before and after the start is the server's alone."""
    template = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True).from_string(
        (FILES.parent / "templates" / "unit.conf.j2").read_text()
    )
    lines = template.render(unit=unit, valkey_start_patience=60).splitlines()
    assert "Nice=-10" in lines
    assert [line for line in lines if "#" in line and not line.startswith("#")] == []
    assert (
        ("TimeoutStartSec=150" in lines)
        == (unit == "valkey-server")
        == any(line.startswith("ExecStart") for line in lines)
    )
