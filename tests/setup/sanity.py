"""``ansible-test sanity`` without leaving the machine's own package index.

``python -m tests.setup.sanity dev|oldest [TEST ...]`` runs inside the environment of that name. ansible-test makes virtual
environments of its own; it would fetch pip's bootstrap script from the internet, so a stand-in is laid into its cache
that takes pip from ensurepip and the index this machine is set up with.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import ansible_test

from tests.setup import collection, system

# Needs PowerShell, which Debian does not have; the collection has no PowerShell.
LEFT_OUT = ("pslint",)
# What the other core may judge differently. The rest reads text and gives the same answer on both.
OLDEST = ("action-plugin-docs", "ansible-doc", "compile", "import", "runtime-metadata", "validate-modules")

# Our tests are no content of the collection for Ansible; ruff and black look at them. (ansible-test's pylint would
# forbid `_` as a name there, and any first line of scripts that names python3.)
NOT_CONTENT = tuple(
    f"tests/{folder}/" for folder in ("bench", "chaos", "demo", "integration", "lab", "setup", "stack", "unit")
)

STAND_IN = '''"""Stand-in for get-pip.py: ensurepip's pip, then the pip that ansible-test pins, from the machine's own index."""
import os
import subprocess
import sys

env = {k: v for k, v in os.environ.items() if not k.startswith("PIP_") or k in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "PIP_FIND_LINKS")}
subprocess.run([sys.executable, "-m", "ensurepip", "--default-pip"], check=True, stdout=subprocess.DEVNULL, env=env)
subprocess.run([sys.executable, "-m", "pip", "install", "-q", "pip==VERSION"], check=True, env=env)
'''


def home() -> Path:
    """Return a home folder of ansible-test's own in the cache, with the user's pip configuration in it."""
    folder = system.cache() / "ansible-test-home"
    cache = folder / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    source = Path(ansible_test.__file__).parent
    for version in sorted(
        set(re.findall(r"['\"](\d\d\.\d(?:\.\d)?)['\"]", (source / "_internal" / "python_requirements.py").read_text()))
    ):
        (cache / f"get_pip_{version.replace('.', '_')}.py").write_text(STAND_IN.replace("VERSION", version))
    for name in (".config/pip", ".pip", ".netrc"):
        real, link = Path.home() / name, folder / name
        if real.exists() and not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(real)
    return folder


def main(argv: list[str]) -> int:
    kind, tests = argv[0], argv[1:]
    began = time.monotonic()
    with system.lock(f"sanity-{kind}"):
        tree = collection.copied_tree(f"sanity-{kind}", without=NOT_CONTENT)
        command = [
            "ansible-test",
            "sanity",
            "--venv",
            "--python",
            f"{sys.version_info[0]}.{sys.version_info[1]}",
            "--color",
            "no",
            "--truncate",
            "0",
        ]
        for name in tests or (OLDEST if kind == "oldest" else ()):
            command += ["--test", name]
        if not tests and kind != "oldest":
            for name in LEFT_OUT:
                command += ["--skip-test", name]
        env = {
            **os.environ,
            "HOME": str(home()),
            "PYENV_ROOT": os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv")),
        }
        # the tree is found from the current folder; ours on PYTHONPATH would be a second one
        env.pop("PYTHONPATH", None)
        env.pop("ANSIBLE_COLLECTIONS_PATH", None)
        done = subprocess.run(
            command, cwd=tree / "ansible_collections" / "c5c3" / "ha", env=env, stdin=subprocess.DEVNULL, check=False
        )
    print(
        f"sanity on {kind}: {'clean' if done.returncode == 0 else 'findings above'}, {time.monotonic() - began:.0f} s",
        flush=True,
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
