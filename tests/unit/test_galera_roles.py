"""The roles galera, galera_proxy and maxscale tell their variables alike everywhere, and their files hold what they promise."""

from __future__ import annotations

import configparser
import importlib.util
import re
from pathlib import Path

import jinja2
import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROLES = ("galera", "galera_proxy", "maxscale")
TYPES = {"str": str, "path": str, "int": int, "bool": bool, "dict": dict, "list": list, "float": float}
WORDS = ("galera_users", "maxscale_encrypted", "maxpasswd", "_galera_proxy_users")


def load(role: str, path: str) -> dict:
    return yaml.safe_load((ROOT / "roles" / role / path).read_text())


def options(role: str) -> dict:
    return load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_argument_specs_agree(role):
    defaults = load(role, "defaults/main.yml")
    assert list(options(role)) == list(defaults)
    for name, option in options(role).items():
        assert name.startswith(f"{role}_") and option["description"]
        if isinstance(defaults[name], str) and "{{" in defaults[name]:
            assert "default" not in option, f"{name} comes from another variable"
            continue
        assert option["default"] == defaults[name], name
        assert isinstance(defaults[name], TYPES[option["type"]]), name
        if "choices" in option:
            assert defaults[name] in option["choices"], name


@pytest.mark.parametrize("role", ROLES)
def test_readme_s_full_example_names_every_variable(role):
    text = (ROOT / "roles" / role / "README.md").read_text().split("## Everything")[1].split("```")[1]
    told = set(re.findall(rf"^\s+(?:# )?({role}_[a-z_]+):", text, re.M))
    assert told == set(load(role, "defaults/main.yml"))


@pytest.mark.parametrize("role", ROLES)
def test_passwords_are_marked(role):
    for name, option in options(role).items():
        assert bool(option.get("no_log")) == name.endswith("_password"), name


@pytest.mark.parametrize("role", ROLES)
def test_a_task_that_touches_a_secret_logs_nothing(role):
    for file in sorted((ROOT / "roles" / role / "tasks").rglob("*.yml")):
        for block in re.split(r"\n(?=\s*- name:)", file.read_text()):
            if any(word in re.sub(r"when:.*", "", block, flags=re.S) for word in WORDS):
                assert "no_log: true" in block, f"{file}:\n{block}"


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("galera_check", ROOT / "roles/galera/files/galera_check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GOOD = {"wsrep_ready": "ON", "wsrep_cluster_status": "Primary", "wsrep_local_state": "4", "read_only": "OFF"}


@pytest.mark.parametrize(
    ("change", "donor", "takes"),
    [
        ({}, False, True),
        ({"wsrep_local_state": "2"}, True, True),
        ({"wsrep_local_state": "2"}, False, False),
        ({"wsrep_local_state": "3"}, True, False),
        ({"wsrep_local_state": "1"}, True, False),
        ({"wsrep_cluster_status": "non-Primary"}, True, False),
        ({"wsrep_cluster_status": "Disconnected"}, True, False),
        ({"wsrep_ready": "OFF"}, True, False),
        ({"read_only": "ON"}, True, False),
        ({"read_only": "NO_LOCK"}, True, False),
    ],
)
def test_health_is_what_the_member_says_of_itself(check, change, donor, takes):
    assert check.verdict({**GOOD, **change}, donor)[0] is takes


def test_a_member_that_says_nothing_takes_no_writes(check):
    assert check.verdict({}, True)[0] is False
    assert check.Member("/nonexistent.sock", True).judge()[0] is False


def test_the_check_ends_before_the_proxy_s_patience(check):
    patience = load("galera_proxy", "defaults/main.yml")["galera_proxy_check_timeout"]
    assert patience > check.PATIENCE * 1000


PROXY = {
    "ansible_managed": "managed",
    "inventory_hostname": "p1",
    "_galera_proxy_lua": "/etc/p/one-writer.lua",
    "_galera_proxy_run": "/run/p",
    "_galera_proxy_admin": "/run/p/admin.sock",
    "_galera_proxy_writer": "/run/p/writer.sock",
    "_galera_proxy_addresses": {"db1": "192.0.2.1", "db2": "192.0.2.2"},
    "_galera_proxy_peers": {"p1": "192.0.2.11", "p2": "192.0.2.12"},
}


def of_the_proxy(template):
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["bool"] = bool
    text = (ROOT / "roles/galera_proxy/templates" / template).read_text()
    return environment.from_string(text).render({**load("galera_proxy", "defaults/main.yml"), **PROXY})


def test_sessions_that_are_cut_have_always_been_connected():
    """HAProxy 3.0 keeps one that was cut while it was connecting, and passes nothing: `server`s whose sessions are cut are sockets of its own."""
    heading = ""
    sections: dict[str, list[str]] = {}
    for line in of_the_proxy("haproxy.cfg.j2").splitlines():
        if line and not line.startswith((" ", "#")):
            heading = line
        sections.setdefault(heading, []).append(line.strip())
    cut = [name for name, lines in sections.items() if any("shutdown-sessions" in line for line in lines)]
    assert cut == ["listen galera"]
    for name, address in (("db1", "192.0.2.1"), ("db2", "192.0.2.2")):
        found = [line for line in sections["listen galera"] if line.startswith(f"server {name} ")]
        assert len(found) == 1 and f"unix@/run/p/to-{name}.sock" in found[0] and f"addr {address} check" in found[0]
        behind = sections[f"listen to-{name}"]
        assert any(line.startswith(f"bind unix@/run/p/to-{name}.sock ") for line in behind)
        assert [line for line in behind if line.startswith("server ")] == [f"server {name} {address}:3306"]


def test_who_cuts_strayed_sessions_knows_the_writers_by_the_ids_of_the_table():
    servers = dict(re.findall(r"^  server (\w+) unix@.* id (\d+) ", of_the_proxy("haproxy.cfg.j2"), re.M))
    known = re.findall(r'^  \[(\d+)\] = "(\w+)",$', of_the_proxy("one-writer.lua.j2"), re.M)
    assert servers == {name: number for number, name in known} and len(servers) == 2


def of_the_member(**changed):
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["bool"] = bool
    values = load("galera", "defaults/main.yml")
    text = environment.from_string((ROOT / "roles/galera/templates/galera.cnf.j2").read_text()).render(
        {
            **values,
            **changed,
            "ansible_managed": "managed",
            "inventory_hostname": "db1",
            "_galera_own_address": "192.0.2.1",
            "_galera_addresses": {"db1": "192.0.2.1", "db2": "192.0.2.2", "db3": "192.0.2.3"},
            "_galera_donors": ["db3", "db2"],
            "_galera_quorum": True,
            "_galera_provider": {"gcache.size": "1G", "socket.ssl": "yes"},
            "_galera_ca": "/a",
            "_galera_cert": "/c",
            "_galera_key": "/k",
        }
    )
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return parser


def test_only_maxscale_s_own_accounts_do_not_wait_for_what_was_committed():
    wanted = load("galera", "defaults/main.yml")
    with_maxscale = of_the_member(galera_proxy="maxscale")["mysqld"]
    assert with_maxscale["wsrep_sync_wait"] == "1"
    names = re.search(r"IN \('(\w+)', '(\w+)'\), 0, @@SESSION.wsrep_sync_wait\)\"$", with_maxscale["init_connect"])
    assert names.groups() == (wanted["galera_maxscale_monitor_user"], wanted["galera_maxscale_service_user"])
    assert "init_connect" not in of_the_member(galera_proxy="haproxy")["mysqld"]


def test_the_members_configuration_is_an_ini_file_with_one_value_each():
    parser = of_the_member()
    server = parser["mysqld"]
    assert server["wsrep_cluster_address"] == "gcomm://192.0.2.1,192.0.2.2,192.0.2.3"
    # the comma at the end lets any member give its data when none of these can
    assert server["wsrep_sst_donor"] == "db3,db2,"
    assert server["wsrep_provider_options"] == '"gcache.size=1G;socket.ssl=yes;"'
    assert server["require_secure_transport"] == "ON" and parser["sst"]["encrypt"] == "3"
    assert server["innodb_flush_log_at_trx_commit"] == "1" and server["wsrep_sync_wait"] == "1"
