"""The module service_info: what a service needs to run with what is on disk."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.c5c3.ha.plugins.module_utils import service_age
from ansible_collections.c5c3.ha.plugins.modules import galera_info, service_info

START = "Mon 2026-11-30 15:30:43.098781 UTC"
STARTED = 1796052643.098781
RELOADED = "Mon 2026-11-30 15:40:43.190426 UTC"
RUNS = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "UnitFileState": "enabled",
    "NeedDaemonReload": "no",
    "ExecMainStartTimestamp": START,
    "ActiveEnterTimestamp": START,
    "StateChangeTimestamp": START,
}
SHOWN = "\n".join(f"{name}={value}" for name, value in RUNS.items())


def test_a_time_of_systemd_is_read_to_the_microsecond() -> None:
    assert service_age.seconds(START) == pytest.approx(STARTED, abs=1e-6)
    assert service_age.seconds("") == 0.0


@pytest.mark.parametrize(
    ("told", "restart_for", "reload_for", "needs", "because"),
    [
        ({}, {"/conf": STARTED - 0.01}, {}, "nothing", ""),
        # within the same second
        ({}, {"/conf": STARTED + 0.2}, {}, "restart", "/conf was laid 0.2 s after the start"),
        ({}, {"/a": STARTED + 9, "/b": STARTED + 20, "/c": STARTED - 5}, {}, "restart", "/b was laid 20.0 s after the start"),
        ({"NeedDaemonReload": "yes"}, {}, {}, "restart", "its unit was changed after systemd read it"),
        ({}, {}, {"/tls": STARTED + 5}, "reload", "/tls was laid 5.0 s after it was read"),
        ({"StateChangeTimestamp": RELOADED}, {}, {"/tls": STARTED + 5}, "nothing", ""),
        # a reload does not read what only a start reads
        ({"StateChangeTimestamp": RELOADED}, {"/unit": STARTED + 5}, {}, "restart", "/unit was laid 5.0 s after the start"),
        ({}, {"/unit": STARTED + 1}, {"/tls": STARTED + 5}, "restart", "/unit was laid 1.0 s after the start"),
        ({"ActiveState": "reloading"}, {}, {}, "nothing", ""),
        ({"ActiveState": "inactive"}, {"/conf": STARTED + 9}, {}, "start", "it is inactive"),
        ({"ActiveState": "failed"}, {}, {}, "start", "it is failed"),
        ({"ActiveState": "activating"}, {}, {}, "start", "it is activating"),
        # no main process of its own
        ({"ExecMainStartTimestamp": ""}, {"/conf": STARTED - 1}, {}, "nothing", ""),
        ({"ExecMainStartTimestamp": ""}, {"/conf": STARTED + 1}, {}, "restart", "/conf was laid 1.0 s after the start"),
    ],
)  # fmt: skip
def test_what_it_needs_and_why(
    told: dict[str, str], restart_for: dict[str, float], reload_for: dict[str, float], needs: str, because: str
) -> None:
    found = service_age.judge({**RUNS, **told}, restart_for, reload_for)
    assert found == {"needs": needs, "because": because, "there": True, "enabled": True}


def test_a_unit_that_systemd_does_not_know_is_told_apart_from_one_that_is_stopped() -> None:
    """systemctl show answers for it, too, and ends with 0."""
    unknown = {"LoadState": "not-found", "ActiveState": "inactive", "NeedDaemonReload": "no"}
    found = service_age.judge(unknown, {"/conf": STARTED}, {})
    assert found == {"needs": "start", "because": "systemd knows no such unit", "there": False, "enabled": False}


@pytest.mark.parametrize(("state", "enabled"), [("enabled", True), ("static", True), ("disabled", False), ("", False)])
def test_whether_it_starts_with_the_host(state: str, enabled: bool) -> None:
    assert service_age.judge({**RUNS, "UnitFileState": state}, {}, {})["enabled"] is enabled


def test_a_file_counts_from_when_it_came_to_its_path(tmp_path: Path) -> None:
    """Neither an older modification time nor an older file behind a link hides the change; what is not there is left out."""
    before = time.time() - 0.1
    copied, old, link = tmp_path / "copied", tmp_path / "old", tmp_path / "link"
    for path in (copied, old):
        path.write_text("x")
        os.utime(path, (1, 1))
    link.symlink_to(old)
    times = service_age.laid([str(copied), str(link), str(tmp_path / "none")])
    assert set(times) == {str(copied), str(link)}
    assert all(when > before for when in times.values())
    # a link that leads elsewhere now is later than both files
    link.unlink()
    time.sleep(0.02)
    link.symlink_to(copied)
    assert service_age.laid([str(link)])[str(link)] > max(times.values())


def test_other_owners_and_modes_do_not_count_by_modification(tmp_path: Path) -> None:
    """As OVN's start script sets them for all certificates; a link that leads elsewhere does count."""
    path = tmp_path / "host.crt"
    path.write_text("x")
    os.utime(path, (1, 1))
    path.chmod(0o600)
    assert service_age.laid([str(path)], "modification") == {str(path): 1.0}
    link = tmp_path / "link"
    link.symlink_to(path)
    assert service_age.laid([str(link)], "modification")[str(link)] > time.time() - 60


class Ended(Exception):
    """The module's answer."""


def ask(monkeypatch: pytest.MonkeyPatch, answer: tuple[int, str, str], *names: str) -> dict[str, Any]:
    def end(_self: object, **told: Any) -> None:
        raise Ended(told)

    monkeypatch.setattr(service_info.AnsibleModule, "run_command", lambda _self, _argv: answer)
    monkeypatch.setattr(service_info.AnsibleModule, "exit_json", end)
    monkeypatch.setattr(service_info.AnsibleModule, "fail_json", end)
    with patch_module_args({"services": [{"name": name} for name in names]}), pytest.raises(Ended) as ended:
        service_info.main()
    return ended.value.args[0]


def test_each_of_several_services_gets_its_own_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = SHOWN.replace("=active", "=inactive")
    told = ask(monkeypatch, (0, f"{SHOWN}\n\n{stopped}\n", ""), "one", "two")
    assert {name: found["needs"] for name, found in told["services"].items()} == {"one": "nothing", "two": "start"}


@pytest.mark.parametrize("answer", [(1, "", "System has not been booted with systemd"), (0, "", "")])
def test_a_host_without_systemd_is_told(monkeypatch: pytest.MonkeyPatch, answer: tuple[int, str, str]) -> None:
    told = ask(monkeypatch, answer, "memcached")
    assert "systemd tells nothing of memcached" in told["msg"] and (answer[2] or "no answer") in told["msg"]


def test_a_galera_member_that_joins_for_minutes_has_read_its_configuration_at_its_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is laid while it takes a snapshot is newer than what it runs with, though it became active later."""
    start = time.time() - 60
    stamp = time.strftime("%a %Y-%m-%d %H:%M:%S.000000 UTC", time.gmtime(start))
    late = time.strftime("%a %Y-%m-%d %H:%M:%S.000000 UTC", time.gmtime(start + 90))
    told = {**RUNS, "MainPID": "7", "ExecMainStartTimestamp": stamp, "ActiveEnterTimestamp": late}
    monkeypatch.setattr(service_age, "show", lambda _module, _names: [told])
    config = tmp_path / "galera.cnf"
    config.write_text("x")

    class Module:
        params = {
            "datadir": str(tmp_path),
            "socket": str(tmp_path / "none"),
            "service": "mariadb",
            "config": [str(config)],
            "resolve": [],
            "recover": False,
            "wait": 0,
        }

    found = galera_info.node(Module())
    assert found["running"] and found["config_newer"]
