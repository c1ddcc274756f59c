"""docs/reactions.md and the rulebook ha_agent say the same: every event goes through ansible-rulebook's own engine."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events import translate
from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events.states import SHUTOFF_REASONS

ROOT = Path(__file__).resolve().parents[2]
RULEBOOKS = ROOT / "extensions/eda/rulebooks"
TEXT = (ROOT / "docs/reactions.md").read_text()
JAVA = shutil.which("java")
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("drools") is None or not JAVA, reason="ansible-rulebook or Java is not here"
)


def table(title: str) -> list[dict[str, str]]:
    """The first table below a heading."""
    lines = TEXT.split(f"## {title}\n")[1].split("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


class Row(NamedTuple):
    events: tuple[str, ...]
    actions: tuple[str, ...]
    details: tuple[str, ...]
    rule: str
    cause: str
    incoming: bool

    def fits(self, event: dict[str, Any]) -> bool:
        return (
            event["event"] in self.events
            and bool(event.get("incoming")) >= self.incoming
            and ("*" in self.actions or event.get("action", "-") in self.actions)
            and ("*" in self.details or event.get("detail", "-") in self.details)
        )


def rows() -> Iterator[Row]:
    for row in table("The table"):
        events = row["event"].split(", ")
        incoming = "incoming" in events
        yield Row(
            tuple(event for event in events if event != "incoming"),
            tuple(row["action"].split(", ")),
            tuple(row["detail"].split(", ")),
            row["rule"],
            row["cause"],
            incoming,
        )


ROWS = list(rows())
EXTRA = {
    "io_error": {"device": "vda", "path": "/x", "reason": "", "errors": 1},
    "heartbeat": {"connected": True, "domains": 0},
    "connection": {"connected": True, "reason": ""},
    "migration_iteration": {"iteration": 1},
    "job_completed": {"operation": "MIGRATION_OUT"},
}


def event(kind: str, **fields: Any) -> dict[str, Any]:
    """As the source tells it; of a guest and a hypervisor of its own, so that no throttle holds it back."""
    base = {"event": kind, "hypervisor": f"h-{uuid.uuid4()}", "uri": "qemu:///system", "synthetic": False, "count": 1}
    base["occurred_at"] = "2026-11-24T09:42:01.123456Z"
    if kind not in ("heartbeat", "connection"):
        base.update(uuid=str(uuid.uuid4()), domain="instance-1")
    return {**base, **EXTRA.get(kind, {}), **fields}


def all_events() -> Iterator[dict[str, Any]]:
    newer = "CODE_99"
    for action in (*translate.ACTIONS, newer):
        details = {*translate.DETAILS.get(action, ()), newer, *(SHUTOFF_REASONS if action == "STOPPED" else ())}
        # Only a stop is marked so by the source.
        for detail, incoming in itertools.product(sorted(details), (False, True) if action == "STOPPED" else (False,)):
            # What libvirtd gave up is told as FAILED.
            if detail != "DAEMON":
                yield event("lifecycle", action=action, detail=detail, **({"incoming": True} if incoming else {}))
    yield event("lifecycle", action="STOPPED", detail="FAILED", watchdog="POWEROFF")
    yield event("lifecycle", action="STOPPED", detail="UNKNOWN", synthetic=True)
    for action in (*translate.WATCHDOG_ACTIONS, newer):
        if action != "POWEROFF":
            yield event("watchdog", action=action)
    for action, reason in itertools.product((*translate.IO_ERROR_ACTIONS, newer), ("", "enospc", "eother")):
        yield event("io_error", action=action, reason=reason)
    for action, detail in itertools.product((*translate.AGENT_STATES, newer), (*translate.AGENT_REASONS, newer)):
        yield event("agent_lifecycle", action=action, detail=detail)
    for recipient, action in itertools.product(translate.MEMORY_RECIPIENTS, (*translate.MEMORY_ACTIONS, newer)):
        yield event("memory_failure", recipient=recipient, action=action, action_required=True, recursive=False)
    for operation in translate.OPERATIONS:
        yield event("job_completed", operation=operation)
    for kind in ("reboot", "control_error", "migration_iteration", "heartbeat", "connection"):
        yield event(kind)


Ask = Callable[[dict[str, Any]], list[str]]


@pytest.fixture(scope="module")
def fires() -> Iterator[Ask]:
    """Names of the rules that fire for an event."""
    program = Path(__file__).parent / "reactions/engine.py"
    process = subprocess.Popen(
        [sys.executable, str(program), str(RULEBOOKS / "ha_agent.yml")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "JAVA_HOME": str(Path(JAVA).resolve().parents[1])},
    )

    def ask(told: dict[str, Any]) -> list[str]:
        process.stdin.write(json.dumps(told) + "\n")
        process.stdin.flush()
        while not (line := process.stdout.readline()).startswith("["):
            assert line, "the engine has ended"
        return json.loads(line)

    yield ask
    process.stdin.close()
    process.wait(30)


def test_the_rule_that_fires_is_the_one_of_the_table(fires):
    wrong = []
    used = set()
    for told in all_events():
        row = next((row for row in ROWS if row.fits(told)), None)
        expected = [] if row is None or row.rule == "-" else [row.rule]
        used.add(row)
        found = fires(told)
        if found != expected or row is None:
            wrong.append(f"{told}: {found}, the table says {expected}")
    assert not wrong, "\n".join(wrong)
    assert used == set(ROWS), f"rows that no event fits: {set(ROWS) - used}"


def rules() -> list[dict[str, Any]]:
    (ruleset,) = yaml.safe_load((RULEBOOKS / "ha_agent.yml").read_text())
    return ruleset["rules"]


def test_every_rule_is_in_the_table_with_its_cause():
    named = {row.rule: row.cause for row in ROWS if row.rule != "-"}
    assert set(named) == {rule["name"] for rule in rules()}
    for rule in rules():
        text = yaml.safe_dump(rule["action"])
        playbook = re.search(r"name: c5c3\.ha\.(disk_error|restart_domain)\n", text)
        if playbook:
            text += (ROOT / f"playbooks/{playbook[1]}.yml").read_text()
        causes = {
            cause
            for cause in ("InstanceStopped", "RebootFailed", "WatchdogRestartFailed", "DiskIOError")
            if cause in text
        }
        assert causes == ({named[rule["name"]]} if named[rule["name"]] else set()), rule["name"]


def test_the_pause_between_two_looks_is_the_rulebooks():
    """The thresholds are compared in test_rulebook_settings.py."""
    seconds = {rule["name"]: rule.get("throttle", {}).get("once_within") for rule in rules()}
    assert seconds["A disk reported an error"] == "15 seconds" and "once in 15 seconds" in TEXT


def templates(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for value in node.values():
            yield from templates(value)
    elif isinstance(node, list):
        for value in node:
            yield from templates(value)
    elif isinstance(node, str):
        yield from re.findall(r"{{(.*?)}}", node)


# Words of fixed lists, UUIDs, times, the agent's own name and URI: nothing that a guest or its owner can choose.
# Ours, libvirt's words, or numbers of ours.
SAFE = {
    *("hypervisor", "uri", "uuid", "occurred_at", "action", "detail", "synthetic", "reason", "event", "connected"),
    "count",
}


def test_nothing_that_a_guest_can_choose_is_put_into_an_action():
    for rule in rules():
        for template in templates(rule["action"]):
            for key in re.findall(r"event\.(\w+)", template):
                assert key in SAFE, f"{rule['name']}: {key}"
            # libvirt's own text: compared, never written out
            for use in re.findall(r"event\.reason[^'\"]*", template):
                assert re.match(r"event\.reason (is defined|==)", use), template


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["event", "action", "detail", "uuid", "domain", "reason", "incoming", "path", "iteration", "x"]
        ),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(allow_nan=False, allow_infinity=False),
            st.text(),
            st.sampled_from(["lifecycle", "io_error", "STOPPED", "{{ 1/0 }}", "$(reboot)", "../../etc", "A" * 70_000]),
            st.lists(st.text(max_size=3), max_size=3),
        ),
    )
)
def test_no_event_ends_the_engine(fires, told):
    """Missing fields, wrong types, hostile texts: at most one rule fires, and the engine goes on."""
    told = {**told, "uuid": told.get("uuid", str(uuid.uuid4()))}
    assert len(fires(told)) <= 1


HOSTILE = st.one_of(
    st.text(min_size=1),
    st.sampled_from(
        [
            "{{ lookup('pipe', 'reboot') }}",
            "{% for x in y %}",
            "$(reboot)",
            "; rm -rf /",
            "../../etc/passwd",
            "\x00",
            "\u202e",
            "a" * 70_000,
        ]
    ),
)


@settings(max_examples=100, deadline=None)
@given(
    name=HOSTILE, path=HOSTILE, device=HOSTILE, reason=HOSTILE, action=st.sampled_from(["PAUSE", "REPORT", "CODE_7"])
)
def test_texts_of_guests_reach_no_action(name, path, device, reason, action):
    """A name, a path, a device or a reason is what an owner of a guest can choose: none of it is in what an action gets."""
    from ansible_rulebook.util import substitute_variables

    marks = {
        key: f"hostile-{key}-{text}"
        for key, text in (("domain", name), ("path", path), ("device", device), ("reason", reason))
    }
    told = event("io_error", action=action, **{**marks, "uri": "qemu:///system"})
    told |= {"detail": "FAILED", "connected": True}
    for rule in rules():
        ((_verb, arguments),) = rule["action"].items()
        result = json.dumps(substitute_variables(arguments, {"event": told}))
        assert "hostile-" not in result, rule["name"]


@given(
    name=st.text(),
    path=st.one_of(st.none(), st.text()),
    device=st.one_of(st.none(), st.text()),
    reason=st.one_of(st.none(), st.text()),
    number=st.integers(-5, 2**31),
)
def test_whatever_libvirt_tells_becomes_an_event(name, path, device, reason, number):
    kinds = {kind.constant.removeprefix("VIR_DOMAIN_EVENT_ID_"): kind for kind in translate.KINDS}
    uuid_ = str(uuid.uuid4())
    for constant, arguments in (
        ("LIFECYCLE", (number, number)),
        ("WATCHDOG", (number,)),
        ("IO_ERROR", (path, device, number)),
        ("IO_ERROR_REASON", (path, device, number, reason)),
        ("AGENT_LIFECYCLE", (number, number)),
        ("MEMORY_FAILURE", (number, number, number)),
        ("JOB_COMPLETED", ({name: reason, "operation": number, "event": name, "uuid": name, "errmsg": name},)),
    ):
        told = translate.event_of(kinds[constant], uuid_, name, "2026-11-24T09:42:01.123456Z", arguments)
        assert told["event"] == kinds[constant].event and told["uuid"] == uuid_, "own keys are not overwritten"
        json.dumps(told)
