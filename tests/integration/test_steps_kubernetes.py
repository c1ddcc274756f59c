"""Steps eviction, eviction_info, hypervisor and migration against the real kube-apiserver."""

from __future__ import annotations

import base64
import copy
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils.errors import (
    Conflict,
    Forbidden,
    HaError,
    Invalid,
    NotServed,
    Unauthorized,
    Unreachable,
)
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from ansible_collections.c5c3.ha.plugins.module_utils.resources import evictions, hypervisors, now_utc, set_condition
from ansible_collections.c5c3.ha.plugins.module_utils.steps import eviction, eviction_info, hypervisor, migration
from tests.lab import wait_until
from tests.lab.kubernetes import Kubernetes

pytestmark = [pytest.mark.lab, pytest.mark.kubernetes]
ROOT = Path(__file__).parents[2]
UPSTREAM = "kvm.cloud.sap"


def at(second: float) -> str:
    return f"2026-11-24T09:00:{second:09.6f}Z"


@pytest.fixture(scope="module")
def api(lab_kubernetes: Kubernetes) -> Kubernetes:
    for name in ("hypervisors", "evictions", "migrations"):
        lab_kubernetes.kubectl("apply", "-f", str(ROOT / "crds" / f"{name}.yaml"))
        lab_kubernetes.kubectl("wait", "--for=condition=Established", f"crd/{name}.hypervisor.c5c3.io", "--timeout=20s")
    return lab_kubernetes


@pytest.fixture(scope="module")
def upstream(api: Kubernetes) -> None:
    """Upstream's own Eviction, whose schema has no spec.instances, cause and occurredAt."""
    api.kubectl("apply", "-f", str(ROOT / "tests/data/upstream/kvm.cloud.sap_evictions.yaml"))
    api.kubectl("wait", "--for=condition=Established", f"crd/evictions.{UPSTREAM}", "--timeout=20s")


@pytest.fixture
def server() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def client(api: Kubernetes) -> Iterator[Client]:
    with Client.from_params({"kubeconfig": str(api.kubeconfig)}, "c5c3-ha-operator") as made:
        yield made


def run(api: Kubernetes, step, check_mode: bool = False, **params) -> dict:
    """Run a step with its defaults, as a module would."""
    spec = step.ARGUMENTS["argument_spec"]
    filled = {name: copy.deepcopy(option.get("default")) for name, option in spec.items()}
    if not {"host", "kubeconfig"} & set(params):
        params["kubeconfig"] = str(api.kubeconfig)
    return step.run({**filled, **params}, check_mode)


def evict(api: Kubernetes, server: str, second: float = 10, **params) -> dict:
    given = {
        "hypervisor": "cmp01",
        "instances": [server],
        "cause": "InstanceStopped",
        "reason": "QEMU was killed",
        "occurred_at": at(second),
    }
    return run(api, eviction, **{**given, **params})


def finish(client: Client, server: str) -> None:
    status = {"finishedAt": now_utc(), "conditions": set_condition([], "Evicting", "False", "Succeeded")}
    client.patch(evictions(), server, {"status": status}, subresource="status")


# --- eviction -------------------------------------------------------------------------------------------------------


def test_asking_twice_is_asking_once(api, client, server):
    first, second = evict(api, server), evict(api, server)
    assert (first["changed"], first["action"]) == (True, "created")
    assert (second["changed"], second["action"]) == (False, "unchanged")
    assert first["eviction"]["metadata"]["uid"] == second["eviction"]["metadata"]["uid"]
    stored = client.get(evictions(), server)
    assert stored["spec"] == {
        "hypervisor": "cmp01",
        "instances": [server],
        "cause": "InstanceStopped",
        "reason": "QEMU was killed",
        "occurredAt": at(10),
    }
    managers = json.loads(api.kubectl("get", "evi", server, "-o", "json", "--show-managed-fields"))["metadata"]
    assert {entry["manager"] for entry in managers["managedFields"]} == {"c5c3-ha-agent"}


def test_twenty_who_see_the_same_death_make_one(api, server):
    barrier = threading.Barrier(20)

    def tell(_number: int) -> dict:
        barrier.wait()
        return evict(api, server)

    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(tell, range(20)))
    assert sum(result["changed"] for result in results) == 1
    assert len({result["eviction"]["metadata"]["uid"] for result in results}) == 1


def test_of_ten_later_deaths_told_at_once_the_latest_stands(api, client, server):
    evict(api, server, 1)
    barrier = threading.Barrier(10)

    def tell(second: int) -> dict:
        barrier.wait()
        return evict(api, server, second)

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(tell, range(2, 12)))
    assert client.get(evictions(), server)["spec"]["occurredAt"] == at(11)


def test_a_finished_one_is_made_anew_by_a_later_death_only(api, client, server):
    old = evict(api, server, 10)["eviction"]["metadata"]["uid"]
    finish(client, server)
    assert evict(api, server, 10)["action"] == "unchanged"
    renewed = evict(api, server, 11)
    assert renewed["action"] == "replaced"
    assert renewed["eviction"]["metadata"]["uid"] != old
    assert "status" not in client.get(evictions(), server)
    assert renewed["diff"]["before"]["spec"]["occurredAt"] == at(10)


def test_twenty_who_see_a_later_death_make_one_anew(api, client, server):
    evict(api, server, 10)
    finish(client, server)
    barrier = threading.Barrier(20)

    def tell(_number: int) -> dict:
        barrier.wait()
        return evict(api, server, 11)

    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(tell, range(20)))
    assert sum(result["changed"] for result in results) == 1
    assert len({result["eviction"]["metadata"]["uid"] for result in results}) == 1


def test_check_mode_says_what_would_be_and_changes_nothing(api, client, server):
    told = evict(api, server, check_mode=True)
    assert (told["changed"], told["action"]) == (True, "created")
    assert told["diff"]["before"] == {}
    assert told["diff"]["after"]["spec"]["instances"] == [server]
    assert client.get(evictions(), server) is None
    evict(api, server)
    version = client.get(evictions(), server)["metadata"]["resourceVersion"]
    assert evict(api, server, 11, check_mode=True)["diff"]["after"]["spec"]["occurredAt"] == at(11)
    finish(client, server)
    assert evict(api, server, 11, check_mode=True)["action"] == "replaced"
    assert run(api, eviction, check_mode=True, instances=[server], state="absent")["action"] == "deleted"
    stored = client.get(evictions(), server)
    assert stored["spec"]["occurredAt"] == at(10)
    assert version != stored["metadata"]["resourceVersion"], "only the end was written"


def test_removal(api, client, server):
    assert run(api, eviction, instances=[server], state="absent")["changed"] is False
    evict(api, server)
    assert run(api, eviction, name=server, state="absent")["changed"] is True
    assert client.get(evictions(), server) is None


def test_a_death_after_a_mere_notice(api, client, server):
    told = evict(api, server, 10, cause="DiskIOError", notify_only=True)
    assert told["eviction"]["spec"]["notifyOnly"] is True
    dead = evict(api, server, 11)
    assert dead["action"] == "replaced"
    assert "notifyOnly" not in dead["eviction"]["spec"]
    assert evict(api, server, 12, cause="DiskIOError", notify_only=True)["action"] == "unchanged"


def test_a_whole_host(api, client):
    name = f"cmp-{uuid.uuid4().hex[:8]}"
    made = run(api, eviction, hypervisor=name, cause="Maintenance", reason="upgrade")
    assert made["eviction"]["metadata"]["name"] == name
    several = f"rack-{uuid.uuid4().hex[:8]}"
    client.create(evictions(), evictions().body(several, spec={"hypervisor": name, "reason": "by hand"}))
    two = [str(uuid.uuid4()), str(uuid.uuid4())]
    with pytest.raises(HaError, match=f"is about every server of '{name}', not about 2 servers"):
        run(api, eviction, hypervisor=name, name=several, instances=two, reason="x")


def test_upstreams_schema_would_empty_the_whole_host(api, upstream, client, server):
    for check_mode in (True, False):
        with pytest.raises(HaError, match=r"refused: evictions.kvm.cloud.sap .* every server of cmp01"):
            evict(api, server, api_group=UPSTREAM, check_mode=check_mode)
    assert client.list(evictions(UPSTREAM)) == []


def test_upstreams_schema_serves_for_a_host(api, upstream, client):
    made = run(api, eviction, hypervisor="cmp01", cause="Reboot", reason="r", occurred_at=at(1), api_group=UPSTREAM)
    assert made["eviction"]["spec"] == {"hypervisor": "cmp01", "reason": "r"}
    assert any("spec.cause" in text for text in made["warnings"]), "the API server tells what it dropped"
    again = run(api, eviction, hypervisor="cmp01", reason="r", occurred_at=at(1), api_group=UPSTREAM)
    assert again["changed"] is False
    run(api, eviction, hypervisor="cmp01", state="absent", api_group=UPSTREAM)


def test_a_group_that_is_not_served(api, server):
    with pytest.raises(NotServed, match="c5c3.ha.crds"):
        evict(api, server, api_group="nobody.example.com")


def test_eviction_info(api, client, server):
    evict(api, server, hypervisor="info01")
    other = str(uuid.uuid4())
    evict(api, other, hypervisor="info01")
    finish(client, other)
    client.patch(evictions(), other, {"metadata": {"labels": {"zone": "a"}}})

    def names(**params) -> set[str]:
        return {item["metadata"]["name"] for item in run(api, eviction_info, **params)["evictions"]}

    assert names(hypervisor="info01") == {server, other}
    assert names(hypervisor="info01", finished=True) == {other}
    assert names(hypervisor="info01", finished=False) == {server}
    assert names(name=server) == {server}
    assert names(name=str(uuid.uuid4())) == set()
    assert names(label_selectors=["zone=a", "zone!=b"]) == {other}
    with pytest.raises(Invalid):
        names(label_selectors=["zone in"])


# --- faults ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_api_server_killed_in_the_middle_is_waited_for(api, server):
    """Deaths are told all the while; each ends in one Eviction."""
    servers = [str(uuid.uuid4()) for _ in range(40)]
    killed = threading.Event()

    def tell(number: int) -> dict:
        if number == 10:
            api.lab.kill("kube-apiserver")
            killed.set()
        return evict(api, servers[number], request_timeout=60)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(tell, range(40)))
    assert killed.is_set()
    assert {result["eviction"]["metadata"]["name"] for result in results} == set(servers)
    again = [evict(api, name) for name in servers]
    assert not any(result["changed"] for result in again)


@pytest.mark.slow
def test_a_hung_api_server_is_given_up_in_time_and_said_so(api, server):
    api.lab.freeze("kube-apiserver")
    try:
        start = time.monotonic()
        with pytest.raises(Unreachable, match="no answer from https://10.66.0.254:6443 within 2 s"):
            evict(api, server, request_timeout=2)
        assert time.monotonic() - start < 3
    finally:
        api.lab.thaw("kube-apiserver")
    assert wait_until(lambda: evict(api, server, request_timeout=30), 30, "the API server answers")["changed"]


def test_a_kept_connection_survives_the_servers_restart(api, client, server):
    assert client.get(evictions(), server) is None
    api.lab.kill("kube-apiserver")
    assert client.get(evictions(), server) is None


@pytest.fixture(scope="module")
def account(api: Kubernetes, tmp_path_factory) -> dict:
    """A service account that may read Evictions and nothing else, with its token in a file."""
    for kind in ("serviceaccount", "clusterrole", "clusterrolebinding"):  # of an earlier run, on a lab left up
        api.kubectl("delete", kind, "steps-test", "-n", "default", "--ignore-not-found")
    api.kubectl("create", "serviceaccount", "steps-test", "-n", "default")
    api.kubectl("create", "clusterrole", "steps-test", "--verb=get,list", "--resource=evictions.hypervisor.c5c3.io")
    api.kubectl(
        "create", "clusterrolebinding", "steps-test", "--clusterrole=steps-test", "--serviceaccount=default:steps-test"
    )
    folder = tmp_path_factory.mktemp("account")
    token = folder / "token"
    token.write_text(api.kubectl("create", "token", "steps-test", "-n", "default"))
    config = json.loads(Path(api.kubeconfig).read_text())["clusters"][0]["cluster"]
    ca = folder / "ca.crt"
    ca.write_bytes(base64.b64decode(config["certificate-authority-data"]))
    return {"host": config["server"], "ca_cert": str(ca), "token_file": str(token)}


def test_forbidden_says_who_may_not_do_what(api, account, server):
    def allowed() -> bool:
        try:
            return run(api, eviction_info, name=server, **account)["evictions"] == []
        except Forbidden:
            return False  # RBAC is read a moment later

    wait_until(allowed, 10, "the role is in force")
    with pytest.raises(Forbidden) as caught:
        evict(api, server, **account)
    text = str(caught.value)
    assert "system:serviceaccount:default:steps-test" in text
    assert "ClusterRoleBinding" in text
    assert Path(account["token_file"]).read_text().strip() not in text


def test_a_token_is_read_again_when_its_file_changes(api, account, server, tmp_path):
    token = tmp_path / "token"
    token.write_text(Path(account["token_file"]).read_text())
    with Client.from_params({**account, "token_file": str(token)}, "c5c3-ha-agent") as reader:
        assert reader.get(evictions(), server) is None
        token.write_text("expired")
        with pytest.raises(Unauthorized, match="renew it"):
            reader.get(evictions(), server)
        token.write_text(api.kubectl("create", "token", "steps-test", "-n", "default"))
        assert reader.get(evictions(), server) is None


def test_a_certificate_authority_that_did_not_sign(api, account, server, tmp_path):
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other", "-days", "1"),
            *("-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "ca")),
        ],
        check=True,
        capture_output=True,
    )
    start = time.monotonic()
    with pytest.raises(Unreachable, match="not trusted"):
        evict(api, server, **{**account, "ca_cert": str(tmp_path / "ca")})
    assert time.monotonic() - start < 2, "asking again would not help"
    assert (
        run(api, eviction_info, name=server, **{**account, "ca_cert": None, "validate_certs": False})["evictions"] == []
    )


def test_preconditions(api, client, server):
    made = evict(api, server)["eviction"]["metadata"]
    with pytest.raises(Conflict):
        client.delete(evictions(), server, uid=str(uuid.uuid4()))
    with pytest.raises(Conflict):
        client.delete(evictions(), server, resource_version="1")
    with pytest.raises(Conflict):
        client.patch(evictions(), server, {"metadata": {"resourceVersion": "1"}, "spec": {"reason": "y"}})
    with pytest.raises(Invalid, match="immutable"):
        client.patch(evictions(), server, {"spec": {"hypervisor": "cmp02"}})
    with pytest.raises(Invalid, match="bogus"):
        client.patch(evictions(), server, {"spec": {"bogus": "cmp02"}}, strict=True)
    assert client.delete(evictions(), server, uid=made["uid"], resource_version=made["resourceVersion"])
    assert client.delete(evictions(), server) is False


@pytest.mark.slow
def test_a_long_list_comes_in_pages(api, client):
    names = {f"page-{number:04d}" for number in range(1200)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: client.create(hypervisors(), hypervisors().body(name, spec={})), names))
    try:
        listed = client.list(hypervisors())
        assert names <= {item["metadata"]["name"] for item in listed}
        assert {item["kind"] for item in listed} == {"Hypervisor"}
    finally:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: client.delete(hypervisors(), name), names))


# --- hypervisor -----------------------------------------------------------------------------------------------------


@pytest.fixture
def host() -> str:
    return f"cmp-{uuid.uuid4().hex[:8]}"


def test_a_hypervisors_life(api, client, host):
    fencing = {
        "agent": "fence_redfish",
        "address": "bmc",
        "system_id": None,
        "secret_ref": {"name": "s", "namespace": None},
    }
    made = run(api, hypervisor, name=host, high_availability=False, labels={"zone": "a"}, fencing=fencing)
    assert (made["action"], made["hypervisor"]["spec"]["highAvailability"]) == ("created", False)
    assert (
        run(api, hypervisor, name=host, high_availability=False, labels={"zone": "a"}, fencing=fencing)["changed"]
        is False
    )
    changed = run(api, hypervisor, name=host, maintenance="manual", maintenance_reason="memory", labels={"zone": None})
    assert changed["diff"]["after"]["spec"]["maintenanceReason"] == "memory"
    assert changed["diff"]["after"]["labels"] == {}
    assert changed["hypervisor"]["spec"]["fencing"] == {
        "agent": "fence_redfish",
        "address": "bmc",
        "secretRef": {"name": "s"},
    }
    back = run(api, hypervisor, name=host, maintenance="")
    assert "maintenanceReason" not in back["hypervisor"]["spec"]
    assert run(api, hypervisor, name=host, state="absent", check_mode=True)["changed"] is True
    assert run(api, hypervisor, name=host, state="absent")["changed"] is True
    assert run(api, hypervisor, name=host, state="absent")["changed"] is False


def test_agent_and_operator_write_beside_each_other(api, client, host):
    run(api, hypervisor, name=host)
    instances = [{"id": "u", "name": "n", "active": True}]
    run(api, hypervisor, name=host, node_state="NotReady")
    beat = run(
        api, hypervisor, name=host, agent_heartbeat=at(10), version="0.1.0", libvirt_connected=True, instances=instances
    )
    status = beat["hypervisor"]["status"]
    assert status["nodeState"] == "NotReady"
    assert status["agent"] == {"heartbeatTime": at(10), "version": "0.1.0", "libvirtConnected": True}
    assert (status["numInstances"], status["instances"]) == (1, instances)
    assert run(api, hypervisor, name=host, agent_heartbeat=at(9), instances=[])["changed"] is False
    assert run(api, hypervisor, name=host, agent_heartbeat=at(10), instances=instances)["changed"] is False
    status = client.get(hypervisors(), host)["status"]
    assert status["numInstances"] == 1
    managers = json.loads(api.kubectl("get", "hv", host, "-o", "json", "--show-managed-fields"))["metadata"]
    assert {entry["manager"] for entry in managers["managedFields"]} == {"c5c3-ha-agent", "c5c3-ha-operator"}


def test_an_agents_word_makes_no_hypervisor(api, client, host):
    result = run(api, hypervisor, name=host, create=False, agent_heartbeat=at(10))
    assert (result["changed"], result["skipped"]) == (False, True)
    assert client.get(hypervisors(), host) is None


def test_check_mode_of_a_hypervisor(api, client, host):
    told = run(api, hypervisor, name=host, node_state="Ready", check_mode=True)
    assert told["diff"]["after"]["status"]["nodeState"] == "Ready"
    assert client.get(hypervisors(), host) is None
    run(api, hypervisor, name=host)
    before = client.get(hypervisors(), host)
    told = run(api, hypervisor, name=host, node_state="Ready", high_availability=False, check_mode=True)
    assert told["diff"]["after"]["status"]["nodeState"] == "Ready"
    assert told["diff"]["after"]["spec"]["highAvailability"] is False
    assert client.get(hypervisors(), host) == before


def test_what_the_api_server_refuses_is_said(api, host):
    run(api, hypervisor, name=host, maintenance="termination")
    with pytest.raises(Invalid, match="immutable when maintenance is 'termination'"):
        run(api, hypervisor, name=host, maintenance="auto")


# --- migration ------------------------------------------------------------------------------------------------------


def test_a_migrations_life(api, server):
    where = {"name": server, "namespace": "default"}
    begun = run(
        api, migration, **where, source="cmp01", target="cmp02", eviction="cmp01", job={"type": 2, "data_total": 1024}
    )
    assert begun["action"] == "created"
    assert begun["migration"]["spec"] == {"instance": server, "source": "cmp01", "target": "cmp02", "eviction": "cmp01"}
    started = begun["migration"]["status"]["started"]
    assert begun["migration"]["status"]["dataTotal"] == "1.0 KiB"
    assert run(api, migration, **where, job={"type": 2, "data_total": 1024})["changed"] is False
    over = run(api, migration, **where, status={"destination": "cmp02", "type": "completed"})
    assert over["migration"]["status"]["started"] == started
    told = run(api, migration, **where, job={"type": 2}, check_mode=True)
    assert told["diff"]["after"]["status"].keys() == {"started", "type"}
    again = run(api, migration, **where, source="cmp02", job={"type": 2})
    assert again["migration"]["status"].keys() == {"started", "type"}
    assert again["migration"]["status"]["started"] > started
    assert run(api, migration, **where, state="absent")["changed"] is True
    assert run(api, migration, **where, state="absent")["changed"] is False


def test_a_namespace_that_is_not_there(api, server):
    with pytest.raises(HaError, match="nowhere"):
        run(api, migration, name=server, namespace="nowhere", job={"type": 1})


# --- from a playbook ------------------------------------------------------------------------------------------------

ELSEWHERE = '''
"""Like local, but not local: modules are packed, sent and run by another Python."""
from ansible.plugins.connection.local import Connection as Local
DOCUMENTATION = """
name: elsewhere
short_description: for tests
description: for tests
options: {}
"""
class Connection(Local):
    transport = "elsewhere"
'''

PLAY = """
- hosts: all
  gather_facts: false
  module_defaults:
    group/c5c3.ha.kubernetes: {{kubeconfig: {kubeconfig}}}
  tasks:
    - name: Ask
      c5c3.ha.eviction:
        hypervisor: "{{{{ 'cmp' ~ '01' }}}}"
        instances: ["{server}"]
        cause: InstanceStopped
        reason: told by a playbook
      register: asked
    - name: Ask again
      c5c3.ha.eviction: {{hypervisor: cmp01, instances: ["{server}"], reason: again}}
      register: again
    - name: Read
      c5c3.ha.eviction_info: {{name: "{server}"}}
      register: read
    - name: Fail
      c5c3.ha.eviction: {{hypervisor: "../x", reason: r, api_key: "geheim"}}
      register: failed
      ignore_errors: true
    - name: Fail for an unknown option
      c5c3.ha.eviction: {{hypervisor: cmp01, reason: r, bogus: 1}}
      register: unknown
      ignore_errors: true
    - name: Say
      ansible.builtin.copy:
        content: "{{{{ {{'asked': asked, 'again': again, 'read': read, 'failed': failed, 'unknown': unknown}} | to_json }}}}"
        dest: {output}
        mode: "0600"
"""


@pytest.mark.slow
@pytest.mark.parametrize("connection", ["local", "elsewhere"])
def test_a_playbook_gets_the_same_on_every_connection(api, client, server, tmp_path, connection):
    (tmp_path / "connection_plugins").mkdir()
    (tmp_path / "connection_plugins/elsewhere.py").write_text(ELSEWHERE)
    output = tmp_path / "output.json"
    play = tmp_path / "play.yml"
    play.write_text(PLAY.format(kubeconfig=api.kubeconfig, server=server, output=output))
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "h1,", str(play), "-vvv"]
    command += ["-e", f"ansible_connection={connection}", "-e", f"ansible_python_interpreter={sys.executable}"]
    collections = next(entry for entry in sys.path if (Path(entry) / "ansible_collections/c5c3/ha").exists())
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": collections, "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(output.read_text())
    assert said["asked"]["changed"] is True
    assert said["again"]["changed"] is False
    assert said["read"]["evictions"][0]["spec"]["reason"] == "told by a playbook"
    assert "hypervisor '../x'" in said["failed"]["msg"]
    assert said["unknown"]["msg"].startswith("Unsupported parameters for (c5c3.ha.eviction) module: bogus.")
    assert "geheim" not in done.stdout + done.stderr + output.read_text()
    assert "Traceback" not in done.stdout + done.stderr
    ran_as_module = "EXEC" in done.stdout and "AnsiballZ_eviction" in done.stdout
    assert ran_as_module is (connection != "local")
    client.delete(evictions(), server)
