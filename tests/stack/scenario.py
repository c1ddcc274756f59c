"""Run a phase of a molecule scenario, or a playbook of the collection on its hosts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.setup import system
from tests.stack.hosts import SCENARIOS, HostError, Scenario
from tests.stack.podman import environment


def molecule(of: Scenario, phase: str, *options: str, timeout: float = 1200) -> str:
    """Run one phase and return its output; raise HostError with the failed tasks when it fails.

    Whole outputs are kept in the cache's folder logs/.
    """
    env = settings(of)
    if phase == "destroy":
        shutil.rmtree(env["MOLECULE_EPHEMERAL_DIRECTORY"], ignore_errors=True)
    code, output = run(of, phase, ["molecule", phase, "-s", of.name, *options], env, timeout)
    if code:
        raise HostError(f"molecule {phase} ended with {code}:\n{told(output)}")
    return output


def settings(of: Scenario) -> dict[str, str]:
    """Return the environment in which molecule, or Ansible alone, finds a scenario's hosts."""
    env = {
        **environment(),
        "C5C3_STACK_DISTRO": of.distribution,
        "C5C3_STACK_SEED": str(of.seed),
        "ANSIBLE_NOCOLOR": "1",
        "NO_COLOR": "1",
        # of each seed and distribution a state of its own
        "MOLECULE_EPHEMERAL_DIRECTORY": f"/run/c5c3-ha/molecule/{of.seed}-{of.name}-{of.distribution}",
    }
    env.pop("ANSIBLE_FORCE_COLOR", None)
    return env


def playbook(
    of: Scenario,
    name: str,
    variables: dict[str, Any] | None = None,
    *options: str,
    timeout: float = 1200,
    log: str = "",
) -> tuple[int, str]:
    """Run a playbook on a scenario's hosts, as an operator does, and return its exit code and output.

    ``name`` is one of the collection, or a path. The scenario's vars/main.yml is given to it, and ``variables`` over that. ``log``
    names its log among several that run at once.
    """
    env = settings(of)
    env.update(
        ANSIBLE_CONFIG=f"{env['MOLECULE_EPHEMERAL_DIRECTORY']}/ansible.cfg",
        MOLECULE_PROJECT_DIRECTORY=str(system.ROOT),
        MOLECULE_SCENARIO_NAME=of.name,
    )
    argv = ["ansible-playbook", "-i", str(SCENARIOS / "shared" / "inventory"), name, *options]
    given = SCENARIOS / of.name / "vars" / "main.yml"
    if given.exists():
        argv += ["-e", f"@{given}"]
    if variables:
        argv += ["-e", json.dumps(variables)]
    what = Path(name).name.removeprefix("c5c3.ha.").removesuffix(".yml")
    return run(of, f"{what}-{log}" if log else what, argv, env, timeout)


def run(of: Scenario, what: str, argv: list[str], env: dict[str, str], timeout: float) -> tuple[int, str]:
    """Run a command for a scenario; return its exit code and its output, which is kept in a log, too."""
    log = system.cache() / "logs" / f"stack-{of.seed}-{of.name}-{of.distribution}-{what}.log"
    log.parent.mkdir(exist_ok=True)
    began = time.monotonic()
    with log.open("w") as handle:
        done = subprocess.run(
            argv,
            cwd=system.ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    print(f"{what} of {of.name} on {of.distribution}: {time.monotonic() - began:.1f} s, whole output in {log}")
    return done.returncode, log.read_text(errors="replace")


def recaps(output: str) -> dict[str, dict[str, int]]:
    """Return what Ansible's recap counts, by host."""
    return {
        line.split(":")[0].strip(): {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line)}
        for line in output.splitlines()
        if "changed=" in line and "unreachable=" in line
    }


def told(output: str) -> str:
    """Return what an operator would look at: failed and changed tasks' own words, else the last lines."""
    kept: list[str] = []
    task = ""
    lines = output.splitlines()
    for number, line in enumerate(lines):
        if line.startswith(("TASK [", "RUNNING HANDLER [")):
            task = line
        elif re.match(r"(\[ERROR\]|fatal:|failed:)", line):
            kept += [task, *lines[number : number + 12]]
    return "\n".join(kept[-60:] or lines[-30:])
