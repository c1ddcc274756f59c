"""Container images without a registry: one archive for ``ctr -n k8s.io images import``.

``lab.local/pause:1``    what a pod's sandbox runs
``lab.local/busybox:1``  Debian's static busybox with all its applets
``lab.local/c5c3-ha:1``  the lab image: nearly empty, /bin, /lib, /lib64 and /sbin point into /usr, which comes from the
                         host through a volume (see ``Kubernetes.pod_volumes``)
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from .cache import cached
from .hosts import LabError

PAUSE_IMAGE = "lab.local/pause:1"
BUSYBOX_IMAGE = "lab.local/busybox:1"
LAB_IMAGE = "lab.local/c5c3-ha:1"

# Entries of a root file system: a folder (None), a symlink (str), or a file's content (bytes).
_Tree = Mapping[str, "bytes | str | None"]

_ACCOUNTS: dict[str, bytes | str | None] = {
    "etc": None,
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files dns\n",
    "tmp": None,
    "root": None,
    "var": None,
    "var/tmp": None,
    "run": None,
}


def _layer(tree: _Tree) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, value in tree.items():
            entry = tarfile.TarInfo(name)
            if value is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name.endswith("tmp") else 0o755
                tar.addfile(entry)
            elif isinstance(value, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, value
                tar.addfile(entry)
            else:
                entry.size, entry.mode = len(value), 0o755 if name.startswith("bin/") else 0o644
                tar.addfile(entry, io.BytesIO(value))
    return buffer.getvalue()


def _busybox() -> tuple[bytes, list[str]]:
    path = shutil.which("busybox")
    if path is None:
        raise LabError("busybox is missing, of which the lab makes its images: apt-get install busybox-static")
    applets = subprocess.run([path, "--list"], capture_output=True, text=True, check=True).stdout.split()
    return Path(path).read_bytes(), [a for a in applets if a != "busybox"]


def archive() -> Path:
    """The archive with all three images, made once."""
    busybox, applets = _busybox()
    trees: dict[str, tuple[_Tree, list[str]]] = {
        PAUSE_IMAGE: (
            {**_ACCOUNTS, "bin": None, "bin/busybox": busybox},
            # containerd ends a sandbox with SIGKILL, so a plain sleep will do.
            ["/bin/busybox", "sleep", "2147483647"],
        ),
        BUSYBOX_IMAGE: (
            {**_ACCOUNTS, "bin": None, "bin/busybox": busybox, **{f"bin/{a}": "busybox" for a in applets}},
            [],
        ),
        LAB_IMAGE: (
            {**_ACCOUNTS, "usr": None, **{name: f"usr/{name}" for name in ("bin", "sbin", "lib", "lib64")}},
            [],
        ),
    }

    def make(folder: Path) -> None:
        manifest = []
        with tarfile.open(folder / "images.tar", "w", format=tarfile.USTAR_FORMAT) as tar:

            def add(name: str, data: bytes) -> None:
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))

            for number, (image, (tree, entrypoint)) in enumerate(trees.items()):
                layer = _layer(tree)
                config = {
                    "architecture": "amd64",
                    "os": "linux",
                    "config": {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Entrypoint": entrypoint or None},
                    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
                }
                add(f"{number}.json", json.dumps(config).encode())
                add(f"{number}.tar", layer)
                manifest.append({"Config": f"{number}.json", "RepoTags": [image], "Layers": [f"{number}.tar"]})
            add("manifest.json", json.dumps(manifest).encode())

    return cached("images", [Path(__file__), busybox], make) / "images.tar"
