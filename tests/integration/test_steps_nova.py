"""The steps that talk to Nova, on a real one with real hypervisors: server_migration, compute_service, and Nova's own words
that the decisions of evict rest on."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import stopped_by_user
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError, HaError
from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova
from ansible_collections.c5c3.ha.plugins.module_utils.steps import compute_service, server_migration
from tests.lab import wait_until

UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def auth(lab_nova):
    return {"cloud": "lab", "clouds_file": str(lab_nova.clouds_yaml)}


@pytest.fixture
def run(auth):
    """Run a step with its defaults, as a playbook would."""

    def run_step(step, check_mode=False, **given):
        spec = step.ARGUMENTS["argument_spec"]
        params = {name: option.get("default") for name, option in spec.items()}
        return step.run({**params, **auth, **given}, check_mode)

    return run_step


@pytest.fixture
def server(lab_nova):
    """A counting server on cmp01; deleted at the end."""
    uuid = lab_nova.boot("steps", host="cmp01").id
    wait_until(lambda: lab_nova.lab.oracle.counters(uuid), 30, "the guest counts", 0.1)
    yield uuid
    lab_nova.delete(uuid)


@pytest.fixture(autouse=True)
def services_as_before(lab_nova, run):
    yield
    lab_nova.lab.heal()
    for host in lab_nova.lab.hosts:
        run(compute_service, host=host, state="enabled", forced_down=False, timeout=120.0)
        lab_nova.wait_service(host, "up", 120)


def test_live_migration_and_again_and_back(lab_nova, run, server):
    boots = lab_nova.lab.oracle.counters(server).boots
    told = run(server_migration, check_mode=True, server=server, method="live", source="cmp01", target="cmp02")
    assert told["changed"] and told["diff"]["after"]["host"] == "cmp02"
    assert lab_nova.connection().compute.get_server(server).compute_host == "cmp01", "check mode moved it"
    result = run(server_migration, server=server, method="live", source="cmp01", target="cmp02")
    assert (result["changed"], result["server"]["host"], result["server"]["status"]) == (True, "cmp02", "ACTIVE")
    assert run(server_migration, server=server, method="live", source="cmp01", target="cmp02")["changed"] is False
    assert run(server_migration, server=server, method="live", source="cmp01")["changed"] is False
    assert lab_nova.lab.oracle.counters(server).boots == boots


def test_cold_migration_and_confirm(lab_nova, run, server):
    lab_nova.connection().compute.stop_server(server)
    lab_nova.wait_server(server, "SHUTOFF")
    with pytest.raises(HaError, match="use method=cold"):
        run(server_migration, server=server, method="live", source="cmp01")
    moved = run(server_migration, server=server, method="cold", source="cmp01")
    assert moved["server"]["status"] == "VERIFY_RESIZE" and moved["server"]["host"] != "cmp01"
    assert run(server_migration, server=server, method="confirm")["server"]["status"] == "SHUTOFF"
    assert run(server_migration, server=server, method="confirm")["changed"] is False


def test_a_live_migration_that_hangs_is_aborted(lab_nova, run, server, auth):
    """Its target's nova-compute stops while the target is being prepared."""
    nova, lab = Nova.from_params({**auth, "api_timeout": 30.0}), lab_nova.lab
    boots = lab.oracle.counters(server).boots

    def record():
        return next(iter(nova.migrations(server=server)), None)

    def seen(last: int) -> bool:
        one = record()
        return one is not None and one.id > last and one.status not in ("accepted", "queued")

    here, there = "cmp01", "cmp02"
    for _attempt in range(6):
        last = one.id if (one := record()) else 0
        nova.live_migrate(server, there)
        wait_until(lambda last=last: seen(last), 60, "it has begun", 0.02)
        lab.freeze(f"{there}/nova-compute")
        if record().status == "preparing":
            break
        lab.thaw(f"{there}/nova-compute")  # quicker than we were: once more, the other way
        lab_nova.wait_server(server)
        here = nova.server(server).host
        there = "cmp02" if here == "cmp01" else "cmp01"
    else:
        pytest.fail("a live migration was never seen while it was being prepared")
    told = run(server_migration, check_mode=True, server=server, method="abort")
    assert told["changed"] and record().status == "preparing", "check mode aborted it"
    assert run(server_migration, server=server, method="abort", wait=False)["changed"]
    lab.thaw(f"{there}/nova-compute")
    wait_until(lambda: not record().unfinished, 90, "the migration is over", 0.2)
    lab_nova.wait_server(server)
    assert nova.server(server).host == here
    assert record().status == "cancelled"
    assert run(server_migration, server=server, method="abort")["changed"] is False
    assert lab.oracle.counters(server).boots == boots


def test_a_target_that_is_full_or_unknown_is_told_with_novas_reason(lab_nova, run, server):
    with pytest.raises(HaError, match="cmp77|No valid host|not found|could not be found"):
        run(server_migration, server=server, method="live", target="cmp77")
    assert lab_nova.connection().compute.get_server(server).status == "ACTIVE"


def test_evacuation_only_of_a_host_that_is_said_and_seen_to_be_down(lab_nova, run, server):
    with pytest.raises(ArgumentError, match="host_is_off=true"):
        run(server_migration, server=server, method="evacuate", source="cmp01")
    with pytest.raises(HaError, match="nova-compute of cmp01 is up"):
        run(server_migration, server=server, method="evacuate", source="cmp01", host_is_off=True)
    boots = lab_nova.lab.oracle.counters(server).boots
    lab_nova.lab.kill("cmp01")
    done = run(compute_service, host="cmp01", state="disabled", disabled_reason="c5c3.ha: test", forced_down=True)
    assert (done["service"]["state"], done["service"]["forced_down"]) == ("down", True)
    with pytest.raises(HaError, match="nothing migrates from there"):
        run(server_migration, server=server, method="live", source="cmp01")
    result = run(server_migration, server=server, method="evacuate", source="cmp01", host_is_off=True)
    # Below microversion 2.95 a running server arrives running.
    assert result["server"]["status"] == "ACTIVE" and result["server"]["host"] in ("cmp02", "cmp03")
    wait_until(lambda: lab_nova.lab.oracle.counters(server).boots == boots + 1, 30, "it boots elsewhere", 0.1)


def test_service_is_disabled_once_and_only_ours_is_enabled(lab_nova, run):
    told = run(compute_service, check_mode=True, host="cmp02", state="disabled", disabled_reason="mine")
    assert told["changed"] and told["service"]["status"] == "disabled"
    assert run(compute_service, host="cmp02", state="enabled")["changed"] is False, "check mode changed it"
    disabled = {"host": "cmp02", "state": "disabled", "disabled_reason": "mine: upgrade"}
    assert run(compute_service, **disabled)["service"]["disabled_reason"] == "mine: upgrade"
    assert run(compute_service, **disabled)["changed"] is False
    kept = run(compute_service, host="cmp02", state="enabled", only_if_reason="c5c3.ha: Eviction")
    assert kept["changed"] is False and kept["service"]["status"] == "disabled"
    assert run(compute_service, host="cmp02", state="enabled", only_if_reason="mine")["changed"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"server": "web"}, "'web' is not a UUID"),
        ({"server": UNKNOWN}, UNKNOWN),
        ({"server": UNKNOWN, "source": None}, "needs source"),
        ({"server": UNKNOWN, "target": "cmp01"}, "both 'cmp01'"),
    ],
)
def test_bad_input_of_a_migration_is_named(run, given, says):
    with pytest.raises(ArgumentError, match=says):
        run(server_migration, **{"method": "live", "source": "cmp01", **given})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"host": "cmp77", "state": "enabled"}, "cmp77"),
        ({"host": "cmp01", "state": "enabled", "disabled_reason": "x"}, "disabled_reason needs state=disabled"),
        ({"host": "cmp01", "state": "disabled", "disabled_reason": "x" * 256}, "over 255"),
    ],
)
def test_bad_input_of_a_service_is_named(run, given, says):
    with pytest.raises(ArgumentError, match=says):
        run(compute_service, **given)


def test_wrong_cloud_and_wrong_password_are_named(lab_nova, run, tmp_path):
    with pytest.raises(ArgumentError, match="no cloud 'elsewhere', only: lab"):
        run(compute_service, host="cmp01", state="enabled", cloud="elsewhere")
    with pytest.raises(ArgumentError, match="no clouds.yaml"):
        run(compute_service, host="cmp01", state="enabled", clouds_file=str(tmp_path / "none.yaml"))
    text = lab_nova.clouds_yaml.read_text()
    password = lab_nova.connection().config.get_auth_args()["password"]
    wrong = tmp_path / "clouds.yaml"
    wrong.write_text(text.replace(password, "wrong-password"))
    with pytest.raises(HaError, match="[Cc]redentials") as caught:
        run(compute_service, host="cmp01", state="enabled", clouds_file=str(wrong))
    assert "wrong-password" not in str(caught.value)


def test_through_a_plain_playbook_in_process_and_as_a_module(lab_nova, auth, tmp_path):
    play = tmp_path / "play.yml"
    play.write_text("""
- hosts: all
  gather_facts: false
  module_defaults:
    group/c5c3.ha.openstack:
      cloud: lab
      clouds_file: CLOUDS_FILE
  tasks:
    - name: Disable
      c5c3.ha.compute_service: {host: cmp03, state: disabled, disabled_reason: from a playbook}
      register: first
    - name: Disable again
      c5c3.ha.compute_service: {host: cmp03, state: disabled, disabled_reason: from a playbook}
      register: second
    - name: Enable as a module of its own
      c5c3.ha.compute_service: {host: cmp03, state: enabled}
      environment: {C5C3_HA_AS_MODULE: "yes"}
      register: third
    - ansible.builtin.assert:
        that: [first is changed, second is not changed, third is changed, third.service.status == "enabled"]
""".replace("CLOUDS_FILE", auth["clouds_file"]))
    inventory = "localhost ansible_connection=local ansible_python_interpreter={{ansible_playbook_python}}\n"
    (tmp_path / "inventory").write_text(inventory)
    done = subprocess.run(
        ["ansible-playbook", "-i", str(tmp_path / "inventory"), str(play)],
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_who_stopped_a_server_is_in_its_history(lab_nova, auth, server):
    nova = Nova.from_params({**auth, "api_timeout": 30.0})
    assert nova.is_running(server) is True
    lab_nova.lab.kill(server)
    wait_until(lambda: nova.is_running(server) is False, 30, "Nova's diagnostics say that it is dead", 0.1)
    # nova-compute holds STOPPED events back for 15 s, then stops the server by itself, as nobody.
    lab_nova.wait_server(server, "SHUTOFF", timeout=60)
    assert stopped_by_user(nova.actions(server)) is False
    lab_nova.connection().compute.start_server(server)
    lab_nova.wait_server(server)
    lab_nova.connection().compute.stop_server(server)
    lab_nova.wait_server(server, "SHUTOFF")
    assert stopped_by_user(nova.actions(server)) is True


def test_questions_to_a_dead_compute_end_in_time(lab_nova, auth, server):
    nova = Nova.from_params({**auth, "api_timeout": 30.0})
    lab_nova.lab.kill("cmp01/nova-compute", stay_down=True)
    began = time.monotonic()
    assert nova.is_running(server) is None
    assert time.monotonic() - began < 15
    lab_nova.lab.heal("cmp01/nova-compute")  # else its server is not deleted either
    lab_nova.wait_service("cmp01", "up", 60)


def test_servers_on_a_host_are_only_those(lab_nova, auth, server):
    nova = Nova.from_params({**auth, "api_timeout": 30.0})
    assert server in {facts.id for facts in nova.servers_on("cmp01")}
    assert server not in {facts.id for facts in nova.servers_on("cmp02")}
    assert nova.server(UNKNOWN) is None
    assert Path(auth["clouds_file"]).stat().st_mode & 0o077 == 0
