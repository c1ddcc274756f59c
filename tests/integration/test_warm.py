"""The warm ansible-playbook under the real ansible-runner and the real ansible-rulebook, beside the ordinary one.

A collection of the tests' own carries a source that stamps events and an action plugin that stamps its run. The source
puts the next event when the run before has ended. `C5C3_HA_WARM_EVENTS` events each way (5 if unset).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WARM = ["-m", "ansible_collections.c5c3.ha.plugins.plugin_utils.warm", "--"]
EVENTS = int(os.environ.get("C5C3_HA_WARM_EVENTS", "5"))
PATIENCE = 240.0

pytestmark = [pytest.mark.rulebook, pytest.mark.slow]

SOURCE = """
import asyncio, os, time
from pathlib import Path


def runs():
    found = set()
    for entry in Path(f"/proc/{os.getpid()}/task").iterdir():
        found |= set((entry / "children").read_text().split())
    return found


async def until(condition):
    while not condition():
        await asyncio.sleep(0.02)


async def main(queue, args):
    if args["ready"]:
        await until(lambda: "ready after" in Path(args["ready"]).read_text())
    before = runs()
    told = Path(args["told"])
    for number in range(int(args["events"])):
        await queue.put({"tick": {"number": number, "at": time.time()}})
        await until(lambda: told.exists() and told.read_text().count("\\n") > number)
        await until(lambda: runs() <= before)
    await asyncio.sleep(3600)
"""

ACTION = """
import json, os, time
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        now = time.time()
        with open(self._task.args["told"], "a") as file:
            took = now - float(self._task.args["at"])
            file.write(json.dumps({"number": int(self._task.args["number"]), "took": took}) + "\\n")
        return {**result, "changed": True, "value": {"text": "ünïcode", "number": int(self._task.args["number"])}}
"""

RULEBOOK = """
- name: warm
  hosts: localhost
  sources:
    - tests.warm.ticks: {{events: {events}, told: {told}, ready: "{ready}"}}
  rules:
    - name: tick
      condition: event.tick is defined
      action:
        run_module:
          name: tests.warm.stamp
          module_args: {{told: {told}, at: "{{{{ event.tick.at }}}}", number: "{{{{ event.tick.number }}}}"}}
"""

# Two runs in one daemon, as [status, exit code, events, output, number of fact files] each.
RUNNER = """
import ansible_runner, json, sys, tempfile, time
from pathlib import Path

while sys.argv[2] and "ready after" not in Path(sys.argv[2]).read_text():
    time.sleep(0.02)
found = []
for number in range(2):
    with tempfile.TemporaryDirectory(prefix="eda") as name:
        folder = Path(name)
        (folder / "project").mkdir(), (folder / "inventory").mkdir()
        (folder / "inventory" / "hosts").write_text(
            f"localhost ansible_connection=local ansible_python_interpreter={sys.executable}\\n"
        )
        (folder / "wrapper.yml").write_text(Path(sys.argv[1]).read_text())
        run = ansible_runner.run(private_data_dir=name, playbook=name + "/wrapper.yml", quiet=True, limit="localhost")
        facts = list(folder.rglob("fact_cache/*"))
        found.append([run.status, run.rc, list(run.events), run.stdout.read(), len(facts)])
json.dump(found, sys.stdout)
"""

PLAY = """
- name: wrapper
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Module wrapper
      tests.warm.stamp: {told: TOLD, at: 0, number: 7}
      register: module_result
    - ansible.builtin.debug: {msg: "{{ module_result.value }} {{ [3, 1] | sort }}"}
    - ansible.builtin.command: echo from a module
    - ansible.builtin.fail: {msg: on purpose}
      ignore_errors: true
    - name: save result
      ansible.builtin.set_fact: {module_result: "{{ module_result }}", cacheable: true}
"""


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, dict]:
    """Return a folder with the collections and the environment for a daemon."""
    collections = tmp_path / "collections" / "ansible_collections"
    # a copy: an edit of the checkout while this runs would rightly end the warmth
    for name in ("plugins", "meta"):
        shutil.copytree(ROOT / name, collections / "c5c3" / "ha" / name, ignore=shutil.ignore_patterns("__pycache__"))
    mine = collections / "tests" / "warm"
    for name, text in (
        ("extensions/eda/plugins/event_source/ticks.py", SOURCE),
        ("plugins/action/stamp.py", ACTION),
        ("galaxy.yml", "namespace: tests\nname: warm\nversion: 1.0.0\n"),
    ):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text(text)
    (tmp_path / "home").mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTEST"))},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(collections.parent),
        "ANSIBLE_COLLECTIONS_PATH": str(collections.parent),
        "HOME": str(tmp_path / "home"),
        "LANG": "C.UTF-8",
    }
    return tmp_path, environment


def plain(text: str) -> list[str]:
    """Take out of events what differs between any two runs: identifiers, times, process numbers, scratch names."""
    for pattern, word in (
        (r"/tmp/eda\w+", "/tmp/eda"),
        (r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", "UUID"),
        (r"\d{4}-\d\d-\d\d[T ][\d:.]+(\+00:00)?", "TIME"),
        (r'"delta": "[^"]+"', '"delta": 0'),
        (r'"(pid|duration)": [\d.e-]+', r'"\1": 0'),
    ):
        text = re.sub(pattern, word, text)
    return text.splitlines()


def test_events_and_facts_are_those_of_the_ordinary_run(place: tuple[Path, dict]) -> None:
    folder, environment = place
    (folder / "play.yml").write_text(PLAY.replace("TOLD", str(folder / "told")))
    (folder / "runner").write_text(f"#!{sys.executable}\n{RUNNER}")
    (folder / "runner").chmod(0o755)
    runs = []
    for kind, launcher in (("ordinary", []), ("warm", [sys.executable, *WARM])):
        log = folder / f"{kind}.log"
        with open(log, "wb") as errors:
            words = [*launcher, str(folder / "runner"), str(folder / "play.yml"), str(log) if launcher else ""]
            done = subprocess.run(
                words, check=False, env=environment, stdout=subprocess.PIPE, stderr=errors, timeout=PATIENCE
            )
        assert done.returncode == 0, log.read_text()
        assert "refused" not in log.read_text(), log.read_text()
        runs += json.loads(done.stdout)
    status, code, _events, output, facts = runs[0]
    assert (status, code) == ("successful", 0), output
    assert facts == 1  # which ansible-rulebook reads
    texts = [plain(json.dumps(run, indent=1, sort_keys=True, ensure_ascii=False)) for run in runs]
    assert texts[2] == texts[0] and texts[3] == texts[0]
    seen: set[str] = set()
    for run in runs:
        data = [event["event_data"] for event in run[2]]
        identifiers = {one[name] for one in data for name in ("play_uuid", "task_uuid") if name in one}
        assert identifiers and not identifiers & seen
        seen |= identifiers


def latencies(place: tuple[Path, dict], launcher: list[str]) -> tuple[list[float], str, int]:
    """Return event-put-to-action seconds, the log, and the warm server's anonymous memory in KiB."""
    folder, environment = place
    kind = "warm" if launcher else "ordinary"
    told, log = folder / f"{kind}.told", folder / f"{kind}.log"
    (folder / "inventory").write_text("localhost ansible_connection=local\n")
    book = folder / f"{kind}.yml"
    book.write_text(RULEBOOK.format(events=EVENTS, told=told, ready=log if launcher else ""))
    words = [*launcher, shutil.which("ansible-rulebook", path=environment["PATH"]), "-i", "inventory", "-r", str(book)]
    with open(log, "wb") as output:
        daemon = subprocess.Popen(words, env=environment, cwd=folder, stdout=output, stderr=output)
    memory = 0
    try:
        end = time.monotonic() + PATIENCE
        while not told.exists() or told.read_text().count("\n") < EVENTS:
            assert daemon.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        if launcher:
            for child in Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split():
                if "warm/server.py" in Path(f"/proc/{child}/cmdline").read_text():
                    memory = int(
                        re.search(r"^RssAnon:\s+(\d+)", Path(f"/proc/{child}/status").read_text(), re.M).group(1)
                    )
    finally:
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
    stamps = [json.loads(line) for line in told.read_text().splitlines()]
    assert [stamp["number"] for stamp in stamps] == list(range(EVENTS))
    return [stamp["took"] for stamp in stamps], log.read_text(), memory


@pytest.mark.skipif(shutil.which("java") is None, reason="ansible-rulebook needs Java 17")
def test_the_way_from_event_to_action(place: tuple[Path, dict], capsys) -> None:
    ordinary, _log, _memory = latencies(place, [])
    warm, log, memory = latencies(place, [sys.executable, *WARM])
    assert "ready after" in log and "refused" not in log, log
    with capsys.disabled():
        for name, values in (("ordinary", ordinary), ("warm", warm)):
            print(
                f"\nevent to action, {name}: p50 {statistics.median(values):.3f} s "
                f"({min(values):.3f}-{max(values):.3f}), n={len(values)}",
                end="",
            )
        print(f"\nwarm server: {memory / 1024:.0f} MiB beside the files it maps")
    assert statistics.median(warm) < statistics.median(ordinary)
    assert memory < 60 * 1024
