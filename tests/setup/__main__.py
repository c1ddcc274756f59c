"""``tests/setup/in PARTS COMMAND...``: set up PARTS, then become COMMAND inside them.

PARTS is a comma-separated list of

* ``dev``: Python 3.12 or later with today's ansible-core, ansible-rulebook and every tool of the gates
* ``oldest``: the oldest supported ansible-core on the oldest supported Python, for unit tests and sanity
* ``lab``: ``dev``, plus Debian packages and Go for tests/lab, and the lab's own artefacts (``python -m tests.lab prepare``)
* ``lab-packages``: ``lab`` without building the artefacts
* ``hosts``: Python with ansible-core, molecule and clients of the stack's services, and podman for hosts with systemd;
  their images are made by the first that wants them (``python -m tests.stack prepare``)

Everything made here lies in ``C5C3_HA_CACHE``, keyed by a hash of what it was made from; a second call only looks.
"""

from __future__ import annotations

import os
import sys

from tests.setup import collection, golang, progress, system, virtualenv
from tests.setup.progress import SetupError

PARTS = {"dev", "oldest", "lab", "lab-packages", "hosts"}


def environment(parts: list[str]) -> dict[str, str]:
    """Set up parts and return the environment (the whole of it) in which commands find them."""
    unknown = set(parts) - PARTS
    if unknown:
        raise SetupError(f"unknown part {', '.join(sorted(unknown))}: choose from {', '.join(sorted(PARTS))}")
    lab = "lab" in parts or "lab-packages" in parts
    hosts = "hosts" in parts
    system.require_packages(["base", *(["lab"] if lab else []), *(["hosts"] if hosts else [])])
    # a virtual environment of its own for hosts alone; beside another part (`lab,hosts`) the other's is used
    venv = virtualenv.ensure(
        "oldest" if "oldest" in parts else "hosts" if set(parts) == {"hosts"} else "dev",
    )
    path = [str(venv / "bin")]
    if lab:
        go = golang.ensure()
        if go:
            path.append(str(go))
    tree = collection.linked_tree()
    env = dict(os.environ)
    env.pop("PYTHONHOME", None)
    env.update(
        ANSIBLE_COLLECTIONS_PATH=str(tree),
        C5C3_HA_CACHE=str(system.cache()),
        PATH=os.pathsep.join(
            [*path, *[p for p in env.get("PATH", os.defpath).split(os.pathsep) if "/.pyenv/shims" not in p]]
        ),
        # the tree first: an event source is run by runpy and finds ansible_collections through PYTHONPATH only
        PYTHONPATH=os.pathsep.join([str(tree), str(system.ROOT)]),
        VIRTUAL_ENV=str(venv),
    )
    return env


def main(argv: list[str]) -> int:
    if not argv:
        print(__doc__, file=sys.stderr)
        return 2
    parts = [part for part in argv[0].split(",") if part]
    command = argv[1:]
    try:
        env = environment(parts)
        os.chdir(system.ROOT)
        if "lab" in parts:
            system.prepare_lab(env)
    except SetupError as error:
        progress.say(f"failed: {error}")
        return 2
    if not command:
        return 0
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(command[0], command, env)
    except FileNotFoundError:
        progress.say(f"failed: no command {command[0]!r} in {env['VIRTUAL_ENV']}/bin or on PATH")
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
