"""The CRDs on a real kube-apiserver: what is accepted, what is refused and with which words, ours and upstream's."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path

import pytest
import yaml

from ansible_collections.c5c3.ha.plugins.module_utils import resources
from ansible_collections.c5c3.ha.plugins.module_utils.errors import Invalid, KubernetesError
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from tests import crd_cases

ROOT = Path(__file__).parents[2]
UPSTREAM = "kvm.cloud.sap"
DEFINITIONS = resources.Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False
)
KINDS = {"Hypervisor": resources.hypervisors, "Eviction": resources.evictions, "Migration": resources.migrations}


def until(condition, what: str, seconds: float = 30.0):
    """Return the first true answer of `condition`; fail with `what` when it does not come in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)


def install(client: Client, definition: dict) -> None:
    """Create or update a CustomResourceDefinition and wait until it is served."""
    name = definition["metadata"]["name"]
    if client.get(DEFINITIONS, name) is None:
        client.create(DEFINITIONS, definition)
    else:
        client.patch(DEFINITIONS, name, definition)

    def established():
        return any(
            condition["type"] == "Established" and condition["status"] == "True"
            for condition in ((client.get(DEFINITIONS, name).get("status") or {}).get("conditions") or [])
        )

    until(established, f"{name} is not established")


@pytest.fixture(scope="module")
def client(lab_kubernetes) -> Client:
    """Client of the lab's API server, which serves our definitions and upstream's."""
    client = Client.from_params({"kubeconfig": str(lab_kubernetes.kubeconfig), "request_timeout": 30.0}, "c5c3-ha-test")
    for path in (*sorted((ROOT / "crds").glob("*.yaml")), *sorted((ROOT / "tests/data/upstream").glob("*.yaml"))):
        install(client, yaml.safe_load(path.read_text()))
    clear(client)
    return client


@pytest.fixture(autouse=True)
def empty(client):
    """Each test leaves no objects of ours behind."""
    yield
    clear(client)


def clear(client: Client) -> None:
    for group in (resources.DEFAULT_GROUP, UPSTREAM):
        for kind in KINDS.values():
            resource = kind(group)
            for item in client.list(resource):
                client.delete(resource, item["metadata"]["name"], item["metadata"].get("namespace"))


def create(client: Client, kind: str, name: str, spec: dict | None, group: str = resources.DEFAULT_GROUP) -> dict:
    resource = KINDS[kind](group)
    body = resource.body(name) if spec is None else resource.body(name, spec=copy.deepcopy(spec))
    return client.create(resource, body, "default" if resource.namespaced else None, strict=True)


def patch(client: Client, kind: str, name: str, body: dict, subresource: str | None = None, **options) -> dict:
    resource = KINDS[kind](options.pop("group", resources.DEFAULT_GROUP))
    return client.patch(resource, name, body, "default" if resource.namespaced else None, subresource, **options)


def causes(error: KubernetesError) -> dict[str, list[str]]:
    """Return the API's refusals: field -> messages."""
    found: dict[str, list[str]] = {}
    for cause in error.causes:
        found.setdefault(cause.get("field", ""), []).append(cause["message"])
    return found


def assert_refused(error: KubernetesError, field: str, message: str) -> None:
    assert error.status == 422, error
    found = causes(error)
    where = found.get(field, []) or (found.get("<nil>", []) if not field else [])
    assert any(message in text for text in where), f"{field}: {message!r} not in {found}"


@pytest.mark.parametrize("case", crd_cases.ACCEPTED)
def test_accepted(client, case):
    kind, name, spec = crd_cases.ACCEPTED[case]
    stored = create(client, kind, name, spec)
    for key, value in (spec or {}).items():
        assert stored["spec"][key] == value


@pytest.mark.parametrize("case", crd_cases.REFUSED)
def test_refused(client, case):
    kind, name, spec, field, message = crd_cases.REFUSED[case]
    with pytest.raises(Invalid) as caught:
        create(client, kind, name, spec)
    assert_refused(caught.value, field, message)


@pytest.mark.parametrize("case", crd_cases.CHANGE_REFUSED)
def test_change_refused(client, case):
    kind, name, spec, change, field, message = crd_cases.CHANGE_REFUSED[case]
    before = create(client, kind, name, spec)
    with pytest.raises(Invalid) as caught:
        patch(client, kind, name, {"spec": change})
    assert_refused(caught.value, field, message)
    after = client.get(KINDS[kind](), name)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


@pytest.mark.parametrize("case", crd_cases.CHANGE_ACCEPTED)
def test_change_accepted(client, case):
    kind, name, spec, change = crd_cases.CHANGE_ACCEPTED[case]
    create(client, kind, name, spec)
    after = patch(client, kind, name, {"spec": change})
    for key, value in change.items():
        assert after["spec"].get(key) == value


def test_hypervisor_defaults_are_upstreams(client):
    theirs = create(client, "Hypervisor", "cmp01", {}, UPSTREAM)["spec"]
    assert create(client, "Hypervisor", "cmp01", {})["spec"] == theirs
    assert create(client, "Hypervisor", "cmp02", None)["spec"] == theirs
    assert theirs["highAvailability"] is True and theirs["evacuateOnReboot"] is True and theirs["reboot"] is False


def test_unknown_fields_are_named_when_asked_and_dropped_otherwise(client):
    with pytest.raises(Invalid, match="spec.vms"):
        create(client, "Eviction", "cmp01", crd_cases.eviction(vms=["x"]))
    stored = client.create(resources.evictions(), resources.evictions().body("cmp01", spec=crd_cases.eviction(vms=[])))
    assert "vms" not in stored["spec"]


NOW = "2026-11-24T09:45:00.000000Z"
CONDITION = {"type": "Evicting", "status": "True", "reason": "Running", "lastTransitionTime": NOW}
CONDITION["message"] = "0 of 1 done; web: restarting on cmp01, attempt 1"
STATUS = {
    "observedGeneration": 1,
    "observedOccurredAt": NOW,
    "startedAt": NOW,
    "finishedAt": NOW,
    "holder": {"identity": "operator-0/17", "renewedAt": NOW},
    "counts": {"total": 2, "succeeded": 1, "failed": 0, "skipped": 1},
    "instances": [
        {
            "id": crd_cases.SERVER,
            "name": "web",
            "route": "Restart",
            "phase": "Restarting",
            "attempts": 1,
            "attemptedAt": NOW,
            "from": "cmp01",
            "to": "cmp01",
            "message": "asked Nova for a hard reboot",
            "startedAt": NOW,
            "finishedAt": NOW,
        }
    ],
    "hypervisorServiceId": crd_cases.OTHER,
    "outstandingRamMb": 512,
    "outstandingInstances": [crd_cases.SERVER],
    "conditions": [CONDITION],
}


def test_status_is_a_subresource_of_its_own(client):
    body = resources.evictions().body(crd_cases.SERVER, spec=crd_cases.vm_eviction(), status=STATUS)
    created = client.create(resources.evictions(), body)
    assert "status" not in created

    after = patch(client, "Eviction", crd_cases.SERVER, {"status": STATUS, "spec": {"reason": "no"}}, "status")
    assert after["status"] == STATUS
    assert after["spec"]["reason"] == "test"
    assert after["metadata"]["generation"] == created["metadata"]["generation"]

    after = patch(client, "Eviction", crd_cases.SERVER, {"spec": {"reason": "yes"}, "status": {"startedAt": None}})
    assert after["status"] == STATUS
    assert after["spec"]["reason"] == "yes"
    assert after["metadata"]["generation"] == created["metadata"]["generation"] + 1


def broken(**changes: object) -> dict:
    return {**STATUS, **changes}


@pytest.mark.parametrize(
    ("status", "field", "message"),
    [
        (broken(counts={"total": -1}), "status.counts.total", "greater than or equal to 0"),
        (broken(instances=[{"id": "a", "phase": "Lost"}]), "status.instances[0].phase", "Unsupported value"),
        (broken(instances=[{"id": "a", "route": "Walk"}]), "status.instances[0].route", "Unsupported value"),
        (broken(instances=[{"id": "a"}, {"id": "a"}]), "status.instances[1]", "Duplicate value"),
        (broken(instances=[{"name": "web"}]), "status.instances[0].id", "Required value"),
        (broken(instances=[{"id": "a", "message": "x" * 2049}]), "status.instances[0].message", "more than 2048"),
        (broken(holder={}), "status.holder.identity", "Required value"),
        (broken(conditions=[{**CONDITION, "status": "Maybe"}]), "status.conditions[0].status", "Unsupported value"),
        (broken(conditions=[{**CONDITION, "reason": ""}]), "status.conditions[0].reason", "at least 1 chars"),
        (broken(conditions=[CONDITION, CONDITION]), "status.conditions[1]", "Duplicate value"),
    ],
)
def test_status_refused(client, status, field, message):
    create(client, "Eviction", crd_cases.SERVER, crd_cases.vm_eviction())
    with pytest.raises(Invalid) as caught:
        patch(client, "Eviction", crd_cases.SERVER, {"status": status}, "status")
    assert_refused(caught.value, field, message)


def test_hypervisor_status(client):
    create(client, "Hypervisor", "cmp01", None)
    status = {
        "nodeState": "Unreachable",
        "agent": {"heartbeatTime": NOW, "version": "1.0.0", "libvirtConnected": True},
        "instances": [{"id": "abc123", "name": "vm-001", "active": True}],
        "numInstances": 1,
        "capabilities": {"cpuArch": "x86_64", "memory": "512Gi", "cpus": 128},
        "allocation": {"cpu": "3", "memory": "12Gi"},
        "cells": [{"cellID": 0, "capacity": {"cpu": 64}}],
        "operatingSystem": {"prettyVersion": "Debian 12"},
        "updateStatus": {"inProgress": False, "retry": 3},
        "conditions": [{**CONDITION, "type": "libvirtd.service", "reason": "Running"}],
    }
    stored = patch(client, "Hypervisor", "cmp01", {"status": status}, "status", strict=True)["status"]
    for key, value in status.items():
        assert stored[key] == {**value, "installed": "unknown"} if key == "updateStatus" else stored[key] == value
    for wrong, field in (({"nodeState": "Gone"}, "status.nodeState"), ({"instances": [{}]}, "status.instances[0].id")):
        with pytest.raises(Invalid) as caught:
            patch(client, "Hypervisor", "cmp01", {"status": wrong}, "status")
        assert field in causes(caught.value)


def test_migration_status(client):
    create(client, "Migration", crd_cases.SERVER, {"instance": crd_cases.SERVER})
    status = {"started": NOW, "origin": "cmp01", "type": "unbounded", "memIteration": 3, "memBps": "16.5 MiB/s"}
    assert patch(client, "Migration", crd_cases.SERVER, {"status": status}, "status")["status"] == status
    with pytest.raises(Invalid) as caught:
        patch(client, "Migration", crd_cases.SERVER, {"status": {"started": None}}, "status")
    assert_refused(caught.value, "status.started", "Required value")


def table(client: Client, kind: str) -> dict[str, dict]:
    """Return what ``kubectl get`` shows: object name -> column -> cell."""
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    resource = KINDS[kind]()
    connection = client._connection()  # the client itself asks for plain JSON only
    connection.request(
        "GET", resource.path(namespace="default" if resource.namespaced else None), None, {"Accept": accept}
    )
    answer = json.loads(connection.getresponse().read())
    connection.close()
    columns = [column["name"] for column in answer["columnDefinitions"]]
    return {row["object"]["metadata"]["name"]: dict(zip(columns, row["cells"])) for row in answer["rows"]}


def test_columns_show_cause_progress_and_age(client):
    create(client, "Eviction", crd_cases.SERVER, crd_cases.vm_eviction())
    patch(client, "Eviction", crd_cases.SERVER, {"status": STATUS}, "status")
    row = table(client, "Eviction")[crd_cases.SERVER]
    assert (row["Hypervisor"], row["Cause"], row["State"]) == ("cmp01", "InstanceStopped", "Running")
    assert (row["Done"], row["Total"], row["Failed"]) == (1, 2, 0)
    assert row["Age"].endswith("s")
    assert row["Message"] == CONDITION["message"]


def test_columns_tell_why_a_host_is_emptied_or_is_not(client):
    create(client, "Hypervisor", "cmp01", {})
    conditions = []
    for kind, status, reason, message in (
        ("EvacuationAllowed", "False", "TooManyUnhealthy", "3 of 4 hypervisors are not Ready, and the limit is 0.5"),
        ("NodePressure", "True", "DiskPressure", "the kubelet reports DiskPressure"),
        ("HypervisorDisabled", "True", "Succeeded", "Hypervisor is disabled"),
    ):
        conditions = resources.set_condition(conditions, kind, status, reason, message)
    status = {"numInstances": 2, "nodeState": "Unreachable", "conditions": conditions}
    patch(client, "Hypervisor", "cmp01", {"status": status}, "status")
    row = table(client, "Hypervisor")["cmp01"]
    assert (row["Node"], row["Evacuation"], row["Pressure"], row["Disabled"]) == (
        *("Unreachable", "TooManyUnhealthy", "DiskPressure", "True"),
    )
    assert row["Message"].startswith("3 of 4 hypervisors")


def test_columns_tell_whom_a_migration_serves_and_why_it_failed(client):
    create(
        client, "Migration", crd_cases.SERVER, {"instance": crd_cases.SERVER, "source": "cmp01", "eviction": "cmp01"}
    )
    status = {"started": crd_cases.EARLY, "type": "failed", "errMsg": "operation aborted"}
    patch(client, "Migration", crd_cases.SERVER, {"status": status}, "status")
    row = table(client, "Migration")[crd_cases.SERVER]
    assert (row["Eviction"], row["Type"], row["Error"]) == ("cmp01", "failed", "operation aborted")


def test_a_time_of_a_megabyte_is_refused(client):
    """Of format date-time is a time with any number of digits after its point."""
    create(client, "Eviction", crd_cases.SERVER, crd_cases.vm_eviction())
    long = f"2026-11-24T09:42:01.{'1' * 1000}Z"
    with pytest.raises(Invalid) as caught:
        patch(client, "Eviction", crd_cases.SERVER, {"status": {"startedAt": long}}, "status")
    assert_refused(caught.value, "status.startedAt", "may not be more than 64")


def test_short_names(client):
    for kind, short in (("Hypervisor", "hv"), ("Eviction", "evi"), ("Migration", "mig")):
        names = client.get(DEFINITIONS, KINDS[kind]().full_name)["status"]["acceptedNames"]
        assert short in names["shortNames"], names


def test_evictions_are_selected_by_hypervisor(client):
    create(client, "Eviction", "cmp01", crd_cases.eviction())
    create(client, "Eviction", "cmp02", crd_cases.eviction(hypervisor="cmp02"))
    found = client.list(resources.evictions(), field_selector="spec.hypervisor=cmp02")
    assert [item["metadata"]["name"] for item in found] == ["cmp02"]


@pytest.mark.parametrize("group", [resources.DEFAULT_GROUP, UPSTREAM])
def test_the_same_code_serves_both_groups(client, group):
    """A host's Eviction, its Hypervisor and a Migration are written, read and finished with the group as a variable."""
    evictions, hypervisors, _migrations = (
        kind(group) for kind in (KINDS[k] for k in ("Eviction", "Hypervisor", "Migration"))
    )
    client.create(hypervisors, hypervisors.body("cmp01", spec={"maintenance": "auto"}), strict=True)
    client.create(evictions, evictions.body("cmp01", spec=crd_cases.eviction()), strict=True)
    status = {"conditions": resources.set_condition([], "Evicting", "True", "Running"), "outstandingInstances": ["a"]}
    client.patch(evictions, "cmp01", {"status": status}, subresource="status", strict=True)
    assert not resources.is_finished(client.get(evictions, "cmp01"))
    conditions = resources.set_condition(
        client.get(evictions, "cmp01")["status"]["conditions"], "Evicting", "False", "Succeeded"
    )
    client.patch(
        evictions,
        "cmp01",
        {"status": {"conditions": conditions, "outstandingInstances": []}},
        subresource="status",
        strict=True,
    )
    assert resources.is_finished(client.get(evictions, "cmp01"))
    with pytest.raises(Invalid, match="Value is immutable"):
        client.patch(evictions, "cmp01", {"spec": {"hypervisor": "cmp02"}})
    conditions = resources.set_condition([], "HypervisorDisabled", "True", "Succeeded", "disabled")
    client.patch(
        hypervisors, "cmp01", {"status": {"conditions": conditions, "evicted": True}}, subresource="status", strict=True
    )
    assert resources.get_condition(client.get(hypervisors, "cmp01"), "HypervisorDisabled")["status"] == "True"
    with pytest.raises(Invalid, match="maintenanceReason must be non-empty"):
        client.patch(hypervisors, "cmp01", {"spec": {"maintenance": "manual"}})


@pytest.mark.parametrize("group", [resources.DEFAULT_GROUP, UPSTREAM])
def test_migrations_of_both_groups(client, group):
    """Upstream's definition requires status, which no create can carry: its objects are read and patched only."""
    migrations = resources.migrations(group)
    started = {"started": resources.now_utc(), "origin": "cmp01", "type": "unbounded"}
    body = migrations.body(crd_cases.SERVER, "default", spec={}, status=started)
    if group == UPSTREAM:
        with pytest.raises(Invalid, match="status: Required value"):
            client.create(migrations, body, "default")
        definition = client.get(DEFINITIONS, migrations.full_name)
        lenient = copy.deepcopy(definition["spec"])
        lenient["versions"][0]["schema"]["openAPIV3Schema"]["required"].remove("status")
        client.patch(DEFINITIONS, migrations.full_name, {"spec": lenient})
        until(lambda: attempt(lambda: client.create(migrations, body, "default")), "a Migration can be created")
        client.patch(DEFINITIONS, migrations.full_name, {"spec": definition["spec"]})
    else:
        client.create(migrations, body, "default")
    client.patch(migrations, crd_cases.SERVER, {"status": started}, "default", "status", strict=True)
    assert client.get(migrations, crd_cases.SERVER, "default")["status"]["origin"] == "cmp01"
    assert [item["metadata"]["name"] for item in client.list(migrations)] == [crd_cases.SERVER]


def attempt(action):
    """Return the action's answer, or None while the API server has not taken up a changed definition."""
    try:
        return action()
    except Invalid:
        return None


def test_upstream_schema_drops_our_fields_and_strict_says_so(client):
    """Why a VM-level Eviction must never be sent to it blindly: without spec.instances it means the whole host."""
    evictions = resources.evictions(UPSTREAM)
    body = evictions.body(crd_cases.SERVER, spec=crd_cases.vm_eviction())
    stored = client.create(evictions, body, dry_run=True)
    assert "instances" not in stored["spec"]
    with pytest.raises(Invalid, match="spec.instances"):
        client.create(evictions, body, dry_run=True, strict=True)
