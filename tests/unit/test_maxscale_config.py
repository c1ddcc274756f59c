"""A configuration of MaxScale is refused when MaxScale would refuse it, or when it loses, doubles or hides writes."""

from __future__ import annotations

import copy

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.maxscale_config import faults, servers
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.maxscale_parameters import PARAMETERS

GOOD: dict = {
    "maxscale": {"threads": "auto", "admin_host": "127.0.0.1", "max_auth_errors_until_block": 0},
    "n1": {"type": "server", "address": "10.0.0.1", "port": 3306, "priority": 1, "ssl": True, "ssl_ca": "/etc/tls/ca.crt"},
    "n2": {"type": "server", "address": "10.0.0.2", "port": 3306, "priority": 2},
    "n3": {"type": "server", "address": "10.0.0.3", "port": 3306, "priority": 3},
    "cluster": {
        "type": "monitor", "module": "galeramon", "servers": "n1,n2,n3", "user": "monitor", "password": "A0",
        "monitor_interval": "500ms", "backend_read_timeout": "1s", "use_priority": True,
    },
    "writes": {
        "type": "service", "router": "readwritesplit", "cluster": "cluster", "user": "service", "password": "A1",
        "transaction_replay": True, "transaction_replay_max_size": "1Mi", "master_accept_reads": True,
    },
    "listener": {
        "type": "listener", "service": "writes", "protocol": "mariadbclient", "port": 3307, "ssl": True,
        "ssl_key": "/k", "ssl_cert": "/c", "ssl_ca": "/a", "ssl_version": "TLSv1.2,TLSv1.3",
    },
}  # fmt: skip


def changed(section: str, **parameters: object) -> dict:
    done = copy.deepcopy(GOOD)
    done[section].update(parameters)
    return done


def test_a_good_one_has_no_faults():
    assert faults(GOOD, 2) == []


@pytest.mark.parametrize(
    ("section", "parameters", "says"),
    [
        ("writes", {"transaction_reply": True}, "transaction_reply is no parameter"),
        ("cluster", {"transaction_replay": True}, "is no parameter"),
        ("cluster", {"monitor_interval": "500"}, "h, m, s or ms"),
        ("cluster", {"backend_read_timeout": "500ms"}, "whole seconds"),
        ("cluster", {"servers": "n1,n2,n9"}, "there is no n9"),
        ("writes", {"master_failure_mode": "never"}, "one of fail_instantly"),
        ("writes", {"max_slave_connections": "many"}, "a number"),
        ("writes", {"transaction_replay": "perhaps"}, "a boolean"),
        ("listener", {"ssl_version": "TLSv1.2,SSLv3"}, "of MAX"),
        ("listener", {"ssl_cert": "relative"}, "an absolute path"),
        ("listener", {"ssl_key": ""}, "needs ssl_key"),
        ("writes", {"password": ""}, "(secret)"),
        ("cluster", {"module": "mariadbmon"}, "not known here"),
    ],
)
def test_what_maxscale_would_refuse(section, parameters, says):
    told = faults(changed(section, **parameters), 2)
    assert any(says in one and f"[{section}]" in one for one in told), told


@pytest.mark.parametrize(
    ("section", "parameters", "says"),
    [
        ("cluster", {"root_node_as_master": True, "disable_master_failback": True}, "different writers"),
        ("cluster", {"disable_master_failback": True}, "2 MaxScales"),
        ("cluster", {"disable_master_role_setting": True}, "without a writer"),
        ("n2", {"priority": 1}, "another priority"),
        ("writes", {"causal_reads": "local"}, "galera_sync_wait"),
        ("writes", {"transaction_replay_safe_commit": False}, "twice"),
        ("writes", {"transaction_replay_checksum": "result_only"}, "leave it at full"),
        ("writes", {"transaction_replay_retry_on_mismatch": True}, "leave it false"),
        ("writes", {"delayed_retry": False}, "overrides delayed_retry=false"),
        ("writes", {"optimistic_trx": True}, "not the writer"),
        ("writes", {"transaction_replay": False, "master_reconnection": False}, "session ends"),
        ("maxscale", {"admin_host": "0.0.0.0"}, "admin API without TLS"),
    ],
)
def test_what_loses_doubles_or_hides_writes(section, parameters, says):
    told = faults(changed(section, **parameters), 2)
    assert any(says in one for one in told), told


def test_a_single_maxscale_may_stick_to_its_writer():
    assert faults(changed("cluster", disable_master_failback=True), 1) == []


def test_a_secret_is_not_told():
    assert "geheim" not in str(faults(changed("cluster", password="geheim", monitor_interval="x"), 2))


def test_the_data_are_whole():
    assert {"transaction_replay", "causal_reads", "delayed_retry"} <= set(PARAMETERS["readwritesplit"])
    assert {"use_priority", "available_when_donor"} <= set(PARAMETERS["galeramon"])
    kinds = {kind.split()[0] for module in PARAMETERS.values() for kind in module.values()}
    assert kinds <= {
        "boolean", "number", "size", "duration", "seconds", "path", "string", "secret", "list", "reference", "references",
        "threads", "one", "many",
    }  # fmt: skip


def test_servers_have_the_priority_of_their_order():
    made = servers({"n1": "10.0.0.1", "n2": "10.0.0.2"}, {"port": 3306})
    assert [(name, one["priority"]) for name, one in made.items()] == [("n1", 1), ("n2", 2)]
    assert made["n2"] == {"type": "server", "address": "10.0.0.2", "priority": 2, "port": 3306}
