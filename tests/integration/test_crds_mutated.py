"""Every field of the CRDs spoilt on a real kube-apiserver: refused by its name, or accepted and survived by the steps."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils import resources
from ansible_collections.c5c3.ha.plugins.module_utils.errors import HaError, KubernetesError
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from tests import crd_mutations
from tests.crd_cases import SERVER
from tests.crds import install
from tests.unit import test_bad_resources as steps

KINDS = {"Hypervisor": resources.hypervisors, "Eviction": resources.evictions, "Migration": resources.migrations}
WORKERS = 8
# Of each sort some: the unit tests have them all.
VALUES = (
    *(None, True, -1, 2**63, [], {}, [None], {"a": {"b": []}}, crd_mutations.GONE),
    *("../../etc/passwd", "--action=on", "{{ 7 * 7 }}", "a\nb\x00", "\u202e\U0001f600", "", "x" * 5000, "yesterday"),
)
world = steps.world


@pytest.fixture(scope="module")
def clients(lab_kubernetes) -> Iterator[list[Client]]:
    """One for each worker: a client keeps its connections to itself."""
    install(lab_kubernetes, *crd_mutations.PLURALS.values())
    made = [
        Client.from_params({"kubeconfig": str(lab_kubernetes.kubeconfig), "request_timeout": 60.0}, "c5c3-ha-test")
        for _ in range(WORKERS)
    ]
    for kind in KINDS:
        _remove(made[0], kind)
        _create(made[0], crd_mutations.example(kind), dry_run=False)
    yield made
    for kind in KINDS:
        _remove(made[0], kind)
    for client in made:
        client.close()


def _remove(client: Client, kind: str) -> None:
    metadata = crd_mutations.example(kind)["metadata"]
    client.delete(KINDS[kind](), metadata["name"], metadata.get("namespace"))


def _create(client: Client, obj: dict, dry_run: bool = True, name: str | None = None) -> dict:
    resource = KINDS[obj["kind"]]()
    namespace = "default" if resource.namespaced else None
    body = resource.body(name or obj["metadata"]["name"], namespace, **{k: obj[k] for k in ("spec",) if k in obj})
    return client.create(resource, body, namespace, dry_run=dry_run)


def send(client: Client, mutation: crd_mutations.Mutation) -> dict:
    """Let the API server look at it, and store nothing; what it would have stored.

    :raises KubernetesError: it refuses.
    """
    obj, kind = mutation.object, mutation.kind
    resource = KINDS[kind]()
    namespace = "default" if resource.namespaced else None
    if mutation.path[0] == "spec":
        # The example's own name is taken by the object that status is tried on.
        new = "spoilt" if kind != "Migration" else crd_mutations.OTHER
        if kind == "Eviction" and isinstance(obj.get("spec"), dict) and obj["spec"].get("instances") == [SERVER]:
            obj = copy.deepcopy(obj)
            new = obj["spec"]["instances"][0] = crd_mutations.OTHER  # an Eviction of one server bears its name
        return _create(client, obj, name=new)
    body = {"status": None if mutation.value is crd_mutations.GONE and len(mutation.path) == 1 else obj.get("status")}
    return client.patch(resource, obj["metadata"]["name"], body, namespace, "status", dry_run=True)


def named(error: KubernetesError, mutation: crd_mutations.Mutation) -> bool:
    """Whether the refusal tells which field is wrong: the field, or the one that holds it."""
    text = f"{error} {error.causes}"
    names = [part for part in mutation.path if isinstance(part, str)]
    return names[-1] in text or (len(names) > 1 and names[-2] in text)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_field_spoilt(clients, kind, world, monkeypatch):
    mutations = [
        crd_mutations.mutate(kind, path, value)
        for path in crd_mutations.fields(kind)
        for value in VALUES
        if not (value is None and path == ("status",))
    ]

    def try_some(number: int) -> list[tuple[crd_mutations.Mutation, dict | KubernetesError]]:
        answers: list[tuple[crd_mutations.Mutation, dict | KubernetesError]] = []
        for mutation in mutations[number::WORKERS]:
            try:
                answers.append((mutation, send(clients[number], mutation)))
            except KubernetesError as error:
                answers.append((mutation, error))
        return answers

    with ThreadPoolExecutor(WORKERS) as pool:
        answers = [answer for some in pool.map(try_some, range(WORKERS)) for answer in some]
    refused = [(mutation, error) for mutation, error in answers if isinstance(error, KubernetesError)]
    accepted = [(mutation, obj) for mutation, obj in answers if isinstance(obj, dict)]
    print(f"{kind}: {len(answers)} tried, {len(refused)} refused, {len(accepted)} accepted")
    wrong = [f"{m}: {error.status} {error}" for m, error in refused if error.status not in (400, 422)]
    wrong += [f"{m}: the field is not named: {error}" for m, error in refused if not named(error, m)]
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong[:30])
    assert len(refused) > len(answers) // 4 and accepted
    crashes = []
    for mutation, obj in accepted:
        obj["metadata"].setdefault("uid", "u")
        obj["metadata"].setdefault("resourceVersion", "7")
        try:
            survive(kind, obj, world, monkeypatch)
        except HaError:
            continue
        except Exception as error:  # pylint: disable=broad-exception-caught
            crashes.append(f"{mutation}: {type(error).__name__}: {error}")
    assert not crashes, f"{len(crashes)} crashes:\n" + "\n".join(crashes[:30])


def survive(kind: str, obj: dict, world, monkeypatch) -> None:
    """Let the steps that read such a resource work on it."""
    step, given = steps.GIVEN[kind.lower()]
    if kind == "Eviction":
        steps.work(world, copy.deepcopy(obj))
        given = {**given, "instances": obj["spec"].get("instances") or [crd_mutations.OTHER]}
    for state in ("present", "absent"):
        steps.ask(step, monkeypatch, obj, **given, state=state)
