"""Run a phase of a molecule scenario."""

from __future__ import annotations

import re
import shutil
import subprocess
import time

from tests.setup import system
from tests.stack.hosts import HostError, Scenario
from tests.stack.podman import environment


def molecule(of: Scenario, phase: str, *options: str, timeout: float = 1200) -> str:
    """Run one phase and return its output; raise HostError with the failed tasks when it fails.

    Whole outputs are kept in the cache's folder logs/.
    """
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
    if phase == "destroy":
        shutil.rmtree(env["MOLECULE_EPHEMERAL_DIRECTORY"], ignore_errors=True)
    log = system.cache() / "logs" / f"stack-{of.seed}-{of.name}-{of.distribution}-{phase}.log"
    log.parent.mkdir(exist_ok=True)
    began = time.monotonic()
    with log.open("w") as handle:
        done = subprocess.run(
            ["molecule", phase, "-s", of.name, *options],
            cwd=system.ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    output = log.read_text(errors="replace")
    print(
        f"molecule {phase} of {of.name} on {of.distribution}: {time.monotonic() - began:.1f} s, whole output in {log}"
    )
    if done.returncode:
        raise HostError(f"molecule {phase} ended with {done.returncode} (whole output: {log}):\n{told(output)}")
    return output


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
