"""The roles on the lab's Kubernetes: what they make, that a second run changes nothing, and what an agent is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from ansible_collections.c5c3.ha.plugins.module_utils import resources
from ansible_collections.c5c3.ha.plugins.module_utils.errors import Forbidden
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from tests import crd_cases
from tests.lab import LabError
from tests.lab.images import LAB_IMAGE

ROOT = Path(__file__).parents[2]
NAMESPACE = "c5c3-ha-test"
PASSWORD = "sw0rdfish-never-shown"
MINE, OTHERS = "policy-a", "policy-b"
SERVER, OTHER = crd_cases.SERVER, crd_cases.OTHER
NODES = resources.NODES
DEFINITIONS = resources.Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False
)


@dataclass
class Run:
    """One run of ansible-playbook."""

    code: int
    output: str
    changed: int


class Playbooks:
    """Runs roles of this checkout against the lab, as a user would."""

    def __init__(self, kubeconfig: Path | None, folder: Path) -> None:
        self.folder = folder
        tree = folder / "collections" / "ansible_collections" / "c5c3"
        tree.mkdir(parents=True)
        (tree / "ha").symlink_to(ROOT)
        bundled = Path(sys.prefix) / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": f"{folder / 'collections'}:{os.environ.get('ANSIBLE_COLLECTIONS_PATH', '')}:{bundled}",
            "ANSIBLE_HOME": str(folder / "home"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "0",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            **({"K8S_AUTH_KUBECONFIG": str(kubeconfig)} if kubeconfig else {}),
        }

    def play(self, tasks: list[dict] | str, *options: str, **variables: object) -> Run:
        """Run roles (a list of a play's ``roles``) or a playbook of the collection, by its name."""
        if isinstance(tasks, str):
            playbook = tasks
        else:
            playbook = str(self.folder / "play.yml")
            Path(playbook).write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "roles": tasks}]))
        result = subprocess.run(
            [Path(sys.executable).parent / "ansible-playbook", playbook, *options, "-e", json.dumps(variables)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        recap = [line for line in result.stdout.splitlines() if line.startswith("localhost ") and "changed=" in line]
        changed = int(recap[-1].split("changed=")[1].split()[0]) if recap else -1
        return Run(result.returncode, result.stdout, changed)

    def role(self, name: str, *options: str, **variables: object) -> Run:
        return self.play([{"role": f"c5c3.ha.{name}"}], *options, **variables)

    def succeed(self, name: str, *options: str, **variables: object) -> Run:
        run = self.role(name, *options, **variables)
        assert run.code == 0, run.output[-6000:]
        return run


@pytest.fixture(scope="module")
def playbooks(lab_kubernetes, tmp_path_factory) -> Playbooks:
    return Playbooks(lab_kubernetes.kubeconfig, tmp_path_factory.mktemp("roles"))


@pytest.fixture(scope="module")
def admin(lab_kubernetes) -> Client:
    return Client.from_params({"kubeconfig": str(lab_kubernetes.kubeconfig), "request_timeout": 30.0}, "c5c3-ha-test")


@pytest.fixture(scope="module")
def definitions(playbooks, admin) -> Iterator[None]:
    """Our definitions are served; no objects before and after."""
    playbooks.succeed("crds", crds_adopt=True)
    clear(admin)
    yield
    clear(admin)


def clear(admin: Client) -> None:
    for kind in (resources.evictions(), resources.hypervisors(), resources.migrations()):
        for item in admin.list(kind):
            admin.delete(kind, item["metadata"]["name"], item["metadata"].get("namespace"))


# --- crds -----------------------------------------------------------------------------------------------------------


class TestCrds:
    GROUP = "roles.test.example.org"

    def test_life(self, playbooks, admin):
        """Planned, installed, unchanged, not removed while in use, removed; with another group."""
        group = {"crds_api_group": self.GROUP}
        planned = playbooks.succeed("crds", "--check", "--diff", **group)
        assert planned.changed == 1
        assert admin.get(DEFINITIONS, f"evictions.{self.GROUP}") is None
        assert playbooks.succeed("crds", **group).changed == 1
        assert playbooks.succeed("crds", "--diff", **group).changed == 0

        kind = resources.evictions(self.GROUP)
        admin.create(kind, kind.body("cmp01", spec=crd_cases.eviction()))
        refused = playbooks.role("crds", crds_state="absent", **group)
        assert refused.code != 0
        assert "Eviction cmp01" in refused.output and "crds_force=true" in refused.output
        assert admin.get(kind, "cmp01") is not None
        assert playbooks.succeed("crds", crds_state="absent", crds_force=True, **group).changed == 1
        assert admin.get(DEFINITIONS, f"evictions.{self.GROUP}") is None

    def test_foreign_definitions_are_left_alone(self, playbooks, admin):
        name = "evictions.kvm.cloud.sap"
        body = yaml.safe_load((ROOT / "tests/data/upstream/kvm.cloud.sap_evictions.yaml").read_text())
        if admin.get(DEFINITIONS, name) is None:
            admin.create(DEFINITIONS, body)
        before = admin.get(DEFINITIONS, name)["spec"]
        refused = playbooks.role("crds", crds_api_group="kvm.cloud.sap")
        assert refused.code != 0
        assert name in refused.output and "crds_adopt=true" in refused.output
        assert admin.get(DEFINITIONS, name)["spec"] == before

    def test_bad_arguments_are_named(self, playbooks):
        refused = playbooks.role("crds", crds_state="gone")
        assert refused.code != 0
        assert "crds_state" in refused.output and "present, absent" in refused.output


# --- settings -------------------------------------------------------------------------------------------------------


def test_settings_that_cannot_work_are_refused_before_anything_is_deployed(tmp_path):
    """By name and with the remedy; nobody has to be there for that, neither a cluster nor a cloud."""
    playbooks = Playbooks(None, tmp_path)
    refused = playbooks.role("ha_agent", ha_agent_verify_seconds="soon")
    assert refused.code != 0 and refused.changed == 0
    assert "ha_agent_verify_seconds" in refused.output and "float" in refused.output
    refused = playbooks.role(
        "hypervisor_operator",
        hypervisor_operator_unreachable_seconds=-1,
        hypervisor_operator_rulebook_vars={"c5c3_ha_crash_restart": 3, "c5c3_ha_max_parallel": 0},
    )
    assert refused.code != 0 and refused.changed == 0
    text = " ".join(refused.output.split())
    for told in (
        "hypervisor_operator_unreachable_seconds (c5c3_ha_unreachable_seconds) is -1: give a number of seconds from 0",
        "hypervisor_operator_max_parallel (c5c3_ha_max_parallel) is 0: give a whole number from 1 to 1000",
        "no variable 'c5c3_ha_crash_restart': perhaps c5c3_ha_crash_restarts is meant",
    ):
        assert told in text, refused.output


# --- playbooks that look and ask ------------------------------------------------------------------------------------


def condition(kind: str, status: str, reason: str, message: str) -> dict:
    return {"status": {"conditions": resources.set_condition([], kind, status, reason, message)}}


@pytest.fixture
def emptied(admin, definitions) -> Iterator[None]:
    clear(admin)
    yield
    clear(admin)


def test_status_tells_on_one_page_what_is_and_why(playbooks, admin, emptied):
    """Also of objects that nobody has written a status for, and of texts that are no templates."""
    hypervisors, evictions, migrations = resources.hypervisors(), resources.evictions(), resources.migrations()
    for name in ("cmp01", "cmp02"):
        admin.create(hypervisors, hypervisors.body(name, spec={}))
    why = "3 of 4 hypervisors are not Ready: {{ 1 / 0 }}"
    status = condition("EvacuationAllowed", "False", "TooManyUnhealthy", why)["status"]
    status |= {"nodeState": "Unreachable", "agent": {"heartbeatTime": crd_cases.EARLY}}
    admin.patch(hypervisors, "cmp01", {"status": status}, subresource="status")
    admin.create(evictions, evictions.body("cmp01", spec=crd_cases.eviction()))
    admin.create(evictions, evictions.body(crd_cases.SERVER, spec=crd_cases.vm_eviction()))
    failed = condition("Evicting", "False", "Failed", "1 of 1 failed: web: no valid host, cmp02 is full")
    admin.patch(evictions, crd_cases.SERVER, failed, subresource="status")
    spec = {"instance": crd_cases.SERVER, "source": "cmp01", "eviction": "cmp01"}
    admin.create(migrations, migrations.body(crd_cases.SERVER, "default", spec=spec), "default")

    told = playbooks.play("c5c3.ha.status", "-i", "localhost,")
    assert told.code == 0, told.output[-3000:]
    for words in (
        (
            "cmp01",
            "Unreachable",
            crd_cases.EARLY[:19],
            "TooManyUnhealthy: 3 of 4 hypervisors are not Ready: {{ 1 / 0 }}",
        ),
        ("cmp02", "never"),
        ("cmp01", "waiting", "0/?"),
        (crd_cases.SERVER, "InstanceStopped", "Failed", "no valid host, cmp02 is full"),
        (crd_cases.SERVER, "cmp01", "cmp01"),
    ):
        assert any(all(word in line for word in words) for line in told.output.splitlines()), (words, told.output)
    assert told.changed == 0


@pytest.mark.parametrize(
    ("reason", "message", "code"),
    [("Succeeded", "2 of 2 servers done", 0), ("Failed", "1 of 2 failed: web: no valid host", 2), (None, "", 2)],
)
def test_evict_asks_once_follows_and_fails_with_the_reason(playbooks, admin, emptied, reason, message, code):
    """In place of the operator the test finishes the Eviction; without a reason nobody does."""
    evictions = resources.evictions()
    given = {"evict_hypervisor": "cmp01", "evict_reason": "new disks", "evict_wait_timeout": 600 if reason else 5}
    planned = playbooks.play("c5c3.ha.evict", "--check", "-i", "localhost,", **given)
    assert planned.code == 0 and planned.changed > 0 and admin.get(evictions, "cmp01") is None, planned.output[-3000:]

    def operator() -> None:
        waits(lambda: admin.get(evictions, "cmp01"))
        counts = {"counts": {"total": 2, "succeeded": 1}}
        admin.patch(evictions, "cmp01", {"status": {**counts}}, subresource="status")
        if reason:
            end = condition("Evicting", "False", reason, message)
            admin.patch(evictions, "cmp01", end, subresource="status")

    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(operator)
        done = playbooks.play("c5c3.ha.evict", "-i", "localhost,", **given)
        acting.result()
    assert done.code == code, done.output[-3000:]
    spec = admin.get(evictions, "cmp01")["spec"]
    assert (spec["hypervisor"], spec["cause"], spec["reason"]) == ("cmp01", "Maintenance", "new disks")
    assert "of 2 servers done" in done.output
    if reason == "Failed":
        assert message in done.output
    if reason is None:
        assert "is not finished after 5 seconds" in done.output and "see whether an operator runs" in done.output


# --- what an agent may do -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def agents(playbooks, admin, definitions) -> Iterator[dict]:
    """The role's rights and policy, installed with no agent running, and two Nodes."""
    variables = {
        "ha_agent_namespace": NAMESPACE,
        "ha_agent_certificate_agents": True,
        "ha_agent_node_selector": {"c5c3.ha/test": "nowhere"},
    }
    playbooks.succeed("ha_agent", **variables)
    for name in (MINE, OTHERS):
        if admin.get(NODES, name) is None:
            admin.create(NODES, NODES.body(name))
    yield variables
    for name in (MINE, OTHERS):
        admin.delete(NODES, name)
    playbooks.succeed("ha_agent", ha_agent_state="absent", **variables)
    remove_namespace(admin, NAMESPACE)


class Tokens:
    """Clients with real tokens of the agent's account."""

    def __init__(self, admin: Client, kubeconfig: Path, folder: Path) -> None:
        self.admin, self.kubeconfig, self.folder = admin, kubeconfig, folder

    def __call__(self, node: str | None) -> Client:
        """Return an agent whose token is bound to a Node, or to none."""
        spec: dict = {"expirationSeconds": 3600}
        if node:
            uid = self.admin.get(NODES, node)["metadata"]["uid"]
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/c5c3-ha-agent/token"
        token = self.admin.request("POST", path, None, {"spec": spec})["status"]["token"]
        return self.client({"token": token})

    def client(self, user: dict) -> Client:
        config = yaml.safe_load(self.kubeconfig.read_text())
        config["users"] = [{"name": config["users"][0]["name"], "user": user}]
        file = self.folder / f"{len(list(self.folder.iterdir()))}.kubeconfig"
        file.touch(mode=0o600)
        file.write_text(yaml.safe_dump(config))
        return Client.from_params({"kubeconfig": str(file), "request_timeout": 10.0}, "c5c3-ha-agent")


@pytest.fixture(scope="module")
def agent_of(agents, admin, lab_kubernetes, tmp_path_factory) -> Tokens:
    return Tokens(admin, lab_kubernetes.kubeconfig, tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def mine(agent_of) -> Client:
    """The agent of MINE. The policy is compiled a moment after it is stored: waits until it holds."""
    client = agent_of(MINE)
    evictions, deadline = resources.evictions(), time.monotonic() + 30
    while True:
        try:
            client.create(evictions, evictions.body(OTHERS, spec=crd_cases.eviction(hypervisor=OTHERS)), dry_run=True)
        except Forbidden as error:
            if "own hypervisor only" in str(error):
                return client
        assert time.monotonic() < deadline, "the admission policy does not hold within 30 s"
        time.sleep(0.1)


@pytest.fixture
def objects(admin, mine) -> Iterator[None]:
    """Hypervisors of both Nodes; each test leaves nothing."""
    for name in (MINE, OTHERS):
        admin.create(resources.hypervisors(), resources.hypervisors().body(name, spec={}))
    yield
    clear(admin)


EVICTIONS, HYPERVISORS = resources.evictions(), resources.hypervisors()


def put(admin: Client, name: str, hypervisor: str, finished: bool | None = None, **spec: object) -> dict:
    """Create an Eviction as administrator; None leaves it without status."""
    instances = [name] if resources.is_uuid(name) else None
    spec = crd_cases.eviction(hypervisor=hypervisor, instances=instances, occurredAt=crd_cases.EARLY, **spec)
    created = admin.create(EVICTIONS, EVICTIONS.body(name, spec=spec))
    if finished is not None:
        condition = ("False", "Succeeded") if finished else ("True", "Running")
        body = {"status": {"conditions": resources.set_condition([], "Evicting", *condition)}}
        created = admin.patch(EVICTIONS, name, body, subresource="status")
    return created


def vm_body(name: str = SERVER, hypervisor: str = MINE, **more: object) -> dict:
    return EVICTIONS.body(name, spec=crd_cases.vm_eviction(hypervisor=hypervisor, instances=[name], **more))


@pytest.mark.usefixtures("objects")
class TestAgentMay:
    def test_report_a_server_of_its_own(self, mine):
        assert mine.create(EVICTIONS, vm_body(), strict=True)["spec"]["hypervisor"] == MINE
        later = {"spec": {"occurredAt": crd_cases.LATE}}
        assert mine.patch(EVICTIONS, SERVER, later)["spec"]["occurredAt"] == crd_cases.LATE
        assert mine.get(EVICTIONS, SERVER) is not None
        assert mine.delete(EVICTIONS, SERVER) is True

    def test_ask_for_its_own_host_to_be_emptied(self, mine):
        mine.create(EVICTIONS, EVICTIONS.body(MINE, spec=crd_cases.eviction(hypervisor=MINE, cause="Reboot")))
        assert mine.delete(EVICTIONS, MINE) is True

    def test_replace_the_finished_eviction_of_a_server_that_moved_here(self, admin, mine):
        put(admin, SERVER, OTHERS, finished=True)
        assert mine.delete(EVICTIONS, SERVER) is True
        mine.create(EVICTIONS, vm_body())

    def test_tell_that_a_moved_server_died_again_while_its_eviction_is_in_work(self, admin, mine):
        put(admin, SERVER, OTHERS, finished=False)
        later = {"spec": {"occurredAt": crd_cases.LATE}}
        assert mine.patch(EVICTIONS, SERVER, later)["spec"]["occurredAt"] == crd_cases.LATE

    def test_report_its_heartbeat(self, mine):
        status = {"status": {"agent": {"heartbeatTime": crd_cases.EARLY, "libvirtConnected": True}}}
        assert mine.patch(HYPERVISORS, MINE, status, subresource="status")["status"]["agent"]["libvirtConnected"]
        assert mine.get(HYPERVISORS, OTHERS) is not None


MIGRATIONS = resources.migrations()


@pytest.fixture
def migration(admin, mine) -> Iterator[Callable[..., dict]]:
    """Make the Migration of SERVER as administrator."""

    def make(type_: str | None = None, **spec: object) -> dict:
        body = MIGRATIONS.body(SERVER, NAMESPACE, spec={"instance": SERVER, **spec})
        created = admin.create(MIGRATIONS, body, NAMESPACE)
        if type_:
            body = {"status": {"started": crd_cases.EARLY, "type": type_}}
            created = admin.patch(MIGRATIONS, SERVER, body, NAMESPACE, subresource="status")
        return created

    yield make
    for name in (SERVER, OTHER):
        admin.delete(MIGRATIONS, name, NAMESPACE)


class TestMigrations:
    """An agent writes Migrations of its own node, as source or as destination."""

    def refused(self, action, *words: str) -> None:
        with pytest.raises(Forbidden) as caught:
            action()
        for word in words:
            assert word in str(caught.value)

    @staticmethod
    def spec(**spec: object) -> dict:
        return {"spec": spec}

    def test_source_and_destination_may(self, mine, agent_of, migration):
        body = MIGRATIONS.body(SERVER, NAMESPACE, spec={"instance": SERVER, "source": MINE})
        mine.create(MIGRATIONS, body, NAMESPACE, strict=True)
        status = {"status": {"started": crd_cases.EARLY, "type": "unbounded", "origin": MINE}}
        mine.patch(MIGRATIONS, SERVER, status, NAMESPACE, subresource="status")
        target = agent_of(OTHERS)
        target.patch(MIGRATIONS, SERVER, self.spec(target=OTHERS), NAMESPACE)
        done = {"status": {"type": "completed", "destination": OTHERS}}
        found = target.patch(MIGRATIONS, SERVER, done, NAMESPACE, subresource="status")
        assert (found["spec"]["source"], found["status"]["origin"]) == (MINE, MINE)
        # and back again
        target.patch(MIGRATIONS, SERVER, self.spec(source=OTHERS, target=None), NAMESPACE)

    @pytest.mark.parametrize("type_", ["completed", "failed"])
    def test_one_that_is_over_may_be_begun_anew(self, mine, migration, type_):
        migration(type_, source=OTHERS, target="policy-c")
        mine.patch(MIGRATIONS, SERVER, self.spec(source=MINE, target=None), NAMESPACE)

    def test_others_may_not(self, mine, migration):
        body = MIGRATIONS.body(OTHER, NAMESPACE, spec={"instance": OTHER, "source": OTHERS})
        words = ("from or to its own hypervisor only", f'bound to Node "{MINE}"')
        self.refused(lambda: mine.create(MIGRATIONS, body, NAMESPACE), *words)
        migration("unbounded", source=OTHERS, target="policy-c")
        status = {"status": {"type": "completed"}}
        self.refused(lambda: mine.patch(MIGRATIONS, SERVER, status, NAMESPACE, subresource="status"), *words)
        for spec in ({"source": MINE}, {"target": MINE}, {"source": MINE, "target": None}):
            self.refused(lambda spec=spec: mine.patch(MIGRATIONS, SERVER, self.spec(**spec), NAMESPACE), *words)

    @pytest.mark.parametrize("type_", [None, "completed"])
    def test_a_source_may_join_what_its_destination_told(self, mine, migration, type_):
        """One that was over before its source could look."""
        migration(type_, target=OTHERS)
        mine.patch(MIGRATIONS, SERVER, self.spec(source=MINE, eviction=SERVER), NAMESPACE)
        status = {"status": {"started": crd_cases.EARLY, "origin": MINE}}
        found = mine.patch(MIGRATIONS, SERVER, status, NAMESPACE, subresource="status")
        assert (found["spec"]["target"], found["status"]["origin"]) == (OTHERS, MINE)

    def test_a_source_is_not_taken_from_another(self, mine, migration):
        migration("unbounded", source=OTHERS)
        self.refused(lambda: mine.patch(MIGRATIONS, SERVER, self.spec(source=MINE), NAMESPACE), "only")
        self.refused(lambda: mine.patch(MIGRATIONS, SERVER, self.spec(source=None, target=MINE), NAMESPACE), "only")

    def test_none_is_deleted_and_none_is_named_otherwise(self, mine, migration):
        migration("completed", source=MINE)
        self.refused(lambda: mine.delete(MIGRATIONS, SERVER, NAMESPACE))
        body = MIGRATIONS.body("other", NAMESPACE, spec={"instance": SERVER, "source": MINE})
        self.refused(lambda: mine.create(MIGRATIONS, body, NAMESPACE), "named as")
        body = MIGRATIONS.body(SERVER, "default", spec={"instance": SERVER, "source": MINE})
        self.refused(lambda: mine.create(MIGRATIONS, body, "default"))

    def test_a_token_without_a_node(self, agent_of, migration):
        nobody = agent_of(None)
        for spec in ({}, {"source": ""}, {"source": MINE}):
            body = MIGRATIONS.body(SERVER, NAMESPACE, spec={"instance": SERVER, **spec})
            self.refused(lambda body=body: nobody.create(MIGRATIONS, body, NAMESPACE), 'bound to Node ""')


@pytest.mark.usefixtures("objects")
class TestAgentMayNot:
    def refused(self, action, *words: str) -> None:
        with pytest.raises(Forbidden) as caught:
            action()
        for word in words:
            assert word in str(caught.value)

    def test_create_evictions_of_another_node(self, mine):
        words = ("own hypervisor only", f'bound to Node "{MINE}"', f'the Eviction is of "{OTHERS}"')
        self.refused(lambda: mine.create(EVICTIONS, vm_body(hypervisor=OTHERS)), *words)
        spec = crd_cases.eviction(hypervisor=OTHERS, cause="NodeUnreachable")
        self.refused(lambda: mine.create(EVICTIONS, EVICTIONS.body(OTHERS, spec=spec)), *words)

    def test_create_evictions_with_other_names(self, mine):
        spec = crd_cases.eviction(hypervisor=MINE)
        for name in (OTHER, OTHERS, "anything"):
            self.refused(lambda name=name: mine.create(EVICTIONS, EVICTIONS.body(name, spec=spec)), "named as")
        spec = crd_cases.eviction(hypervisor=MINE, instances=[SERVER, OTHER])
        self.refused(lambda: mine.create(EVICTIONS, EVICTIONS.body("two", spec=spec)), "named as")

    def test_hold_objects_by_finalizers_or_owners(self, admin, mine):
        body = vm_body()
        body["metadata"]["finalizers"] = ["example.org/stay"]
        self.refused(lambda: mine.create(EVICTIONS, body), "finalizers")
        put(admin, SERVER, MINE)
        patch = {"metadata": {"finalizers": ["example.org/stay"]}}
        self.refused(lambda: mine.patch(EVICTIONS, SERVER, patch), "finalizers")

    @pytest.mark.parametrize("finished", [None, False, True])
    def test_change_the_eviction_of_another_host(self, admin, mine, finished):
        put(admin, OTHERS, OTHERS, finished)
        self.refused(lambda: mine.patch(EVICTIONS, OTHERS, {"spec": {"reason": "no"}}), "own hypervisor only")
        later = {"spec": {"occurredAt": crd_cases.LATE}}
        self.refused(lambda: mine.patch(EVICTIONS, OTHERS, later), "own hypervisor only")

    def test_change_more_than_the_time_of_another_hosts_server(self, admin, mine):
        put(admin, SERVER, OTHERS, finished=False)
        for patch in (
            {"spec": {"reason": "no"}},
            {"metadata": {"labels": {"a": "b"}}},
            {"metadata": {"annotations": {"a": "b"}}},
        ):
            self.refused(lambda patch=patch: mine.patch(EVICTIONS, SERVER, patch), "own hypervisor only")

    def test_change_the_finished_eviction_of_another_hosts_server(self, admin, mine):
        put(admin, SERVER, OTHERS, finished=True)
        later = {"spec": {"occurredAt": crd_cases.LATE}}
        self.refused(lambda: mine.patch(EVICTIONS, SERVER, later), "own hypervisor only")

    @pytest.mark.parametrize("finished", [None, False])
    def test_delete_what_another_host_has_in_work(self, admin, mine, finished):
        put(admin, SERVER, OTHERS, finished)
        self.refused(lambda: mine.delete(EVICTIONS, SERVER), "finished ones of a server", OTHERS)
        put(admin, OTHERS, OTHERS, finished)
        self.refused(lambda: mine.delete(EVICTIONS, OTHERS), "own hypervisor")

    def test_delete_the_finished_eviction_of_another_host(self, admin, mine):
        put(admin, OTHERS, OTHERS, finished=True)
        self.refused(lambda: mine.delete(EVICTIONS, OTHERS), "own hypervisor")

    def test_write_an_evictions_status(self, admin, mine):
        put(admin, SERVER, MINE)
        status = {"status": {"conditions": resources.set_condition([], "Evicting", "False", "Succeeded")}}
        self.refused(lambda: mine.patch(EVICTIONS, SERVER, status, subresource="status"), "evictions/status")

    def test_write_another_hypervisors_status(self, mine):
        status = {"status": {"agent": {"libvirtConnected": False}}}
        patch = lambda: mine.patch(HYPERVISORS, OTHERS, status, subresource="status")  # noqa: E731
        self.refused(patch, "Hypervisor of its own Node only", OTHERS)

    def test_write_what_the_operator_judges_by(self, admin, mine):
        mine.patch(HYPERVISORS, MINE, {"status": {"agent": {"heartbeatTime": crd_cases.EARLY}}}, subresource="status")
        ready = resources.set_condition([], "EvacuationAllowed", "True", "GatesPassed")
        admin.patch(HYPERVISORS, MINE, {"status": {"nodeState": "Ready", "conditions": ready}}, subresource="status")
        for status in (
            {"conditions": resources.set_condition([], "HypervisorDisabled", "False", "Succeeded")},
            {"conditions": None},
            {"nodeState": "Unreachable"},
            {"evicted": True},
            {"traits": ["CUSTOM_HANA_EXCLUSIVE_HOST"]},
            {"serviceId": "other"},
            {"agent": {"heartbeatTime": crd_cases.LATE}, "nodeState": None},
        ):
            body = {"status": status}
            self.refused(
                lambda body=body: mine.patch(HYPERVISORS, MINE, body, subresource="status"), "only its sign of life"
            )
        beat = {"agent": {"heartbeatTime": crd_cases.LATE}, "numInstances": 3}
        mine.patch(HYPERVISORS, MINE, {"status": beat}, subresource="status")

    def test_write_what_is_wanted_of_a_hypervisor(self, mine):
        for name in (MINE, OTHERS):
            self.refused(lambda name=name: mine.patch(HYPERVISORS, name, {"spec": {"maintenance": "auto"}}))
            self.refused(lambda name=name: mine.delete(HYPERVISORS, name))
        body = HYPERVISORS.body("another", spec={"fencing": {"agent": "fence_ipmilan", "address": "10.0.0.9"}})
        self.refused(lambda: mine.create(HYPERVISORS, body))

    def test_look_around(self, mine):
        self.refused(lambda: mine.list(EVICTIONS))
        self.refused(lambda: mine.list(HYPERVISORS))
        self.refused(lambda: mine.list(NODES))
        self.refused(lambda: mine.request("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets"))
        self.refused(lambda: mine.request("GET", f"/api/v1/namespaces/{NAMESPACE}/configmaps"))
        self.refused(lambda: mine.request("GET", f"/api/v1/namespaces/{NAMESPACE}/pods"))

    def test_act_with_a_token_of_no_node(self, admin, agent_of):
        nobody = agent_of(None)
        for name in (MINE, OTHERS):
            self.refused(lambda name=name: nobody.create(EVICTIONS, vm_body(hypervisor=name)), 'bound to Node ""')
        put(admin, SERVER, MINE, finished=True)
        self.refused(lambda: nobody.delete(EVICTIONS, SERVER), 'bound to Node ""')
        put(admin, OTHER, MINE, finished=False)
        self.refused(lambda: nobody.patch(EVICTIONS, OTHER, {"spec": {"occurredAt": crd_cases.LATE}}), 'Node ""')

    def test_even_with_more_rights_by_mistake(self, admin, mine):
        """The policy holds where RBAC was opened too far, such as by an aggregated role."""
        role = resources.Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", False)
        rules = admin.get(role, "c5c3-ha-agent")["rules"]
        everything = [{"apiGroups": [resources.DEFAULT_GROUP], "resources": ["*"], "verbs": ["*"]}]
        admin.patch(role, "c5c3-ha-agent", {"rules": everything})
        try:
            wait_for(lambda: mine.list(HYPERVISORS))
            fencing = {"spec": {"fencing": {"agent": "fence_ipmilan", "address": "10.0.0.9"}}}
            self.refused(lambda: mine.patch(HYPERVISORS, MINE, fencing), "only its status")
            self.refused(lambda: mine.patch(HYPERVISORS, OTHERS, fencing), "own Node only")
            self.refused(lambda: mine.delete(HYPERVISORS, OTHERS), "own Node only")
            put(admin, SERVER, OTHERS, finished=False)
            status = {"status": {"conditions": resources.set_condition([], "Evicting", "False", "Succeeded")}}
            self.refused(lambda: mine.patch(EVICTIONS, SERVER, status, subresource="status"), "status of an Eviction")
            put(admin, OTHER, MINE, finished=False)
            self.refused(lambda: mine.patch(EVICTIONS, OTHER, status, subresource="status"), "status of an Eviction")
            admin.delete(HYPERVISORS, MINE)
            body = HYPERVISORS.body(MINE, **fencing)
            self.refused(lambda: mine.create(HYPERVISORS, body), "only its status")
        finally:
            admin.patch(role, "c5c3-ha-agent", {"rules": rules})


@pytest.mark.usefixtures("objects")
class TestAgentWithCertificate:
    """An agent on a host outside Kubernetes: who it is stands in its certificate, here told by impersonation."""

    def create(self, kubernetes, body: dict, user: str, group: str) -> str:
        asking = ("--as", user, "--as-group", group, "--as-group", "system:authenticated")
        return kubernetes.kubectl("create", "-f", "-", *asking, stdin=json.dumps(body))

    def test_its_own_node_only(self, lab_kubernetes):
        who = (f"c5c3-ha:agent:{MINE}", "c5c3-ha:agents")
        assert "created" in self.create(lab_kubernetes, vm_body(), *who)
        with pytest.raises(LabError, match=f'bound to Node "{MINE}"'):
            self.create(lab_kubernetes, vm_body(OTHER, OTHERS), *who)

    def test_a_name_of_another_kind_is_no_node(self, lab_kubernetes):
        with pytest.raises(LabError, match='bound to Node ""'):
            self.create(lab_kubernetes, vm_body(), MINE, "c5c3-ha:agents")

    def test_the_name_without_the_group_has_no_rights(self, lab_kubernetes):
        with pytest.raises(LabError, match="cannot create resource"):
            self.create(lab_kubernetes, vm_body(), f"c5c3-ha:agent:{MINE}", "somebody")


# --- everything, deployed ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deployment(playbooks, admin, definitions, lab_kubernetes) -> Iterator[dict]:
    """Variables that deploy real agents and operators in the lab; removed at the end."""
    remove_namespace(admin, "c5c3-ha-deployed")
    for host in lab_kubernetes.lab.hosts.values():
        host.exec(["mkdir", "-p", "/run/libvirt"], check=True)
    collections = playbooks.folder / "collections"
    pod = lab_kubernetes.pod_volumes([collections, ROOT])
    variables: dict = {
        "c5c3_ha_namespace": "c5c3-ha-deployed",
        "c5c3_ha_image": LAB_IMAGE,
        "hypervisor_operator_cloud": "test",
        "hypervisor_operator_clouds": {
            "test": {"auth": {"auth_url": "http://127.0.0.1:9/", "username": "u", "password": PASSWORD}}
        },
        "hypervisor_operator_cloud_ca": "no certificate",
        "ha_agent_name": "deployed-agent",
        # not the Nodes that only the policy tests have
        "ha_agent_node_selector": {"nova.openstack.cloud.sap/virt-driver": "kvm"},
        "ha_agent_rulebook_vars": {"c5c3_ha_heartbeat_seconds": 2},
        "hypervisor_operator_name": "deployed-operator",
    }
    for role in ("ha_agent", "hypervisor_operator"):
        variables |= {
            f"{role}_image_pull_policy": "Never",
            f"{role}_collections_path": str(collections),
            f"{role}_extra_volumes": pod["volumes"],
            f"{role}_extra_volume_mounts": pod["volumeMounts"],
            f"{role}_extra_env": pod["env"],
        }
    yield variables
    for role in ("ha_agent", "hypervisor_operator"):
        playbooks.succeed(role, **{**variables, f"{role}_state": "absent"})
    for kind in (PODS, SECRETS, CONFIG_MAPS):
        left = [item["metadata"]["name"] for item in admin.list(kind, "c5c3-ha-deployed")]
        assert [name for name in left if name.startswith("deployed-") and kind is not PODS] == []
    remove_namespace(admin, "c5c3-ha-deployed")


def remove_namespace(admin: Client, name: str) -> None:
    admin.delete(NAMESPACES, name)
    waits(lambda: admin.get(NAMESPACES, name) is None)


PODS = resources.Resource("", "v1", "pods", "Pod", True)
SECRETS = resources.Resource("", "v1", "secrets", "Secret", True)
CONFIG_MAPS = resources.Resource("", "v1", "configmaps", "ConfigMap", True)
NAMESPACES = resources.Resource("", "v1", "namespaces", "Namespace", False)
LEASES = resources.Resource("coordination.k8s.io", "v1", "leases", "Lease", True)


@pytest.mark.timeout(900)
class TestDeployment:
    def test_planned_deployed_unchanged(self, playbooks, admin, deployment, lab_kubernetes):
        planned = playbooks.play("c5c3.ha.data_plane", "--check", "--diff", "-i", "localhost,", **deployment)
        assert planned.code == 0, planned.output[-6000:]
        assert admin.get(NAMESPACES, "c5c3-ha-deployed") is None

        deployed = playbooks.play("c5c3.ha.data_plane", "--diff", "-vvv", "-i", "localhost,", **deployment)
        assert deployed.code == 0, deployed.output[-6000:]
        assert deployed.changed > 0
        assert PASSWORD not in deployed.output.replace(json.dumps(deployment), "")
        config = admin.get(CONFIG_MAPS, "deployed-operator", "c5c3-ha-deployed")
        assert PASSWORD not in json.dumps(config)
        assert yaml.safe_load(config["data"]["vars.yml"])["c5c3_ha_lease_namespace"] == "c5c3-ha-deployed"

        again = playbooks.play("c5c3.ha.data_plane", "--diff", "-i", "localhost,", **deployment)
        assert again.code == 0, again.output[-6000:]
        assert again.changed == 0, again.output[-6000:]

    def test_agents_tell_of_themselves_and_one_operator_leads(self, admin, deployment, lab_kubernetes):
        """The pods' own tokens are bound to their Nodes: the policy lets each write its own Hypervisor's status."""
        names = list(lab_kubernetes.lab.hosts)
        waits(lambda: all((admin.get(HYPERVISORS, name).get("status") or {}).get("agent") for name in names))
        holder = waits(
            lambda: [lease["spec"].get("holderIdentity") for lease in admin.list(LEASES, "c5c3-ha-deployed")]
        )
        assert holder[0].startswith("deployed-operator-")

    def test_the_operator_has_the_rights_it_uses_and_no_others(self, admin, deployment):
        """As the API server's authorizer says of its account."""
        namespace = "c5c3-ha-deployed"

        def may(verb: str, group: str, resource: str, name: str = "", where: str = "", subresource: str = "") -> bool:
            asked = {"verb": verb, "group": group, "resource": resource, "name": name, "namespace": where}
            asked["subresource"] = subresource
            spec = {
                "user": f"system:serviceaccount:{namespace}:deployed-operator",
                "groups": ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"],
                "resourceAttributes": {key: value for key, value in asked.items() if value},
            }
            path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
            return admin.request("POST", path, None, {"spec": spec})["status"]["allowed"]

        ours = resources.DEFAULT_GROUP
        verbs = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
        rights = {
            (ours, "evictions", ""): {"get", "list", "watch", "create", "patch", "delete"},
            (ours, "evictions", "status"): {"patch"},
            (ours, "hypervisors", ""): {"get", "list", "watch", "patch"},
            (ours, "hypervisors", "status"): {"patch"},
            (ours, "migrations", ""): set(),
            (ours, "migrations", "status"): set(),
            ("", "nodes", ""): {"get", "list", "watch"},
            ("", "nodes", "status"): set(),
            ("", "pods", ""): set(),
            ("", "pods", "exec"): set(),
            ("", "events", ""): {"create"},
            ("", "secrets", ""): set(),
            ("", "serviceaccounts", "token"): set(),
            ("rbac.authorization.k8s.io", "clusterroles", ""): set(),
        }
        for (group, resource, subresource), allowed in rights.items():
            found = {verb for verb in verbs if may(verb, group, resource, subresource=subresource)}
            assert found == allowed, f"{resource}/{subresource} of {group or 'core'}"
        lease = lambda verb, name: may(verb, "coordination.k8s.io", "leases", name, namespace)  # noqa: E731
        (own,) = [one["metadata"]["name"] for one in admin.list(LEASES, namespace)]
        assert {verb for verb in verbs if lease(verb, own)} == {"get", "create", "update"}
        assert {verb for verb in verbs if lease(verb, "another")} == {"create"}
        assert {verb for verb in verbs if may(verb, "", "secrets", "bmc", namespace)} == {"get"}
        assert not any(may(verb, "", "secrets", "bmc", "default") for verb in verbs)

    def test_pods_are_held_tight(self, admin, deployment):
        pods = admin.list(PODS, "c5c3-ha-deployed")
        for pod in pods:
            (container,) = pod["spec"]["containers"]
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            if container["name"] == "operator":
                assert pod["spec"]["securityContext"]["runAsNonRoot"]
            else:
                mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
                assert mounts["/run/libvirt"]["readOnly"]
                assert not any("secret" in volume for volume in pod["spec"]["volumes"])


def waits(question, seconds: float = 90.0):
    """Return the first true answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.2)


# --- platform host ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("role", ["ha_agent", "hypervisor_operator"])
def test_unit_is_what_systemd_wants(role, tmp_path):
    """Rendered as on a host, and looked through by systemd itself."""
    for name in ("python", "ansible-rulebook"):
        program = tmp_path / "venv" / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    folder = ROOT / "roles" / role
    unit, environment = tmp_path / "c5c3-test.service", tmp_path / "environment"
    tasks: list[dict] = [
        {"ansible.builtin.setup": {"gather_subset": ["min"]}},
        *({"ansible.builtin.include_vars": f"{folder}/{name}/main.yml"} for name in ("defaults", "vars")),
        *(
            {"ansible.builtin.template": {"src": f"{folder}/templates/host/{source}", "dest": str(to), "mode": "0600"}}
            for source, to in (("unit.service.j2", unit), ("environment.j2", environment))
        ),
    ]
    variables = {
        f"{role}_platform": "host",
        f"{role}_venv": str(tmp_path / "venv"),
        f"{role}_config_path": str(tmp_path),
        f"{role}_environment": {"WORDS": 'a "quoted" word, 100 % and $HOME'},
        f"{role}_extra_arguments": ["--shutdown-delay", "5 seconds %n"],
        f"{role}_user": "root",
        f"{role}_group": "root",
    }
    play = tmp_path / "play.yml"
    play.write_text(json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]))
    run = Playbooks(None, tmp_path).play(str(play), **variables)
    assert run.code == 0, run.output[-4000:]
    assert "--shutdown-delay '5 seconds %%n'" in unit.read_text()
    assert 'WORDS="a \\"quoted\\" word, 100 % and \\$HOME"' in environment.read_text()
    seen = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (seen.returncode, seen.stdout + seen.stderr) == (0, "")


def wait_for(action, seconds: float = 15.0) -> None:
    """Wait until the API server's authorizer has taken up changed rights."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            action()
            return
        except Forbidden:
            assert time.monotonic() < deadline
            time.sleep(0.1)
