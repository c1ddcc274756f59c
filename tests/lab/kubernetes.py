"""The part Kubernetes: etcd, API server, controller manager, scheduler; kubelet and containerd on every host.

The API is at https://10.66.0.254:6443. Pods reach it as https://10.0.0.1:443 (what every client with in-cluster
configuration uses): there is no kube-proxy, a DNAT rule in each host does it. Other Services have no address that
answers. A Node is named as its host and carries the label ``nova.openstack.cloud.sap/virt-driver=kvm``.

Images without a registry (tests.lab.images): ``lab.local/busybox:1``, and ``lab.local/c5c3-ha:1``, whose file system is
nearly empty: a pod with it takes /usr and a Python virtual environment from the host, read-only. What such a pod needs
is plain data from :meth:`Kubernetes.pod_volumes`:

* ``volumes``/``volumeMounts``: /usr (with Java), /etc/alternatives, /etc/java-*, /etc/ssl, the virtual environment, the
  Python installation it was made from, and every folder given in ``paths``; each at its own path, read-only;
* ``env``: PATH with the environment's bin first, JAVA_HOME, LANG.

hostPath volumes of a pod are the host's: /run/libvirt is the libvirtd of that very hypervisor.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import shutil
import ssl
import sys
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from . import LabError, Part, wait_until
from .certificates import Authority
from .hosts import CONTROL_ADDRESS, Host
from .images import LAB_IMAGE, archive
from .kube.build import kwok_folder, programs

API_PORT = 6443
API_URL = f"https://{CONTROL_ADDRESS}:{API_PORT}"
SERVICE_NETWORK = "10.0.0.0/24"
SERVICE_ADDRESS = "10.0.0.1"
VIRT_DRIVER_LABEL = "nova.openstack.cloud.sap/virt-driver"

# Those that act on Nodes, Pods and their owners; none that needs a cloud, volumes or IP address management.
_CONTROLLERS = (
    "node-lifecycle-controller,taint-eviction-controller,serviceaccount-controller,serviceaccount-token-controller,"
    "root-ca-certificate-publisher-controller,namespace-controller,garbage-collector-controller,"
    "pod-garbage-collector-controller,clusterrole-aggregation-controller,deployment-controller,replicaset-controller,"
    "daemonset-controller,statefulset-controller,job-controller,endpointslice-controller,disruption-controller"
)

# The kubelet sets these for the whole machine unless they have its values already: show it files that have.
_KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}

_CONTAINERD_CONFIG = """\
version = 3
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri",
  "io.containerd.image-verifier.v1.bindir", "io.containerd.tracing.processor.v1.otlp"]
[plugins.'io.containerd.cri.v1.images']
snapshotter = "overlayfs"
pinned_images = { sandbox = "lab.local/pause:1" }
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true  # without CAP_SYS_RESOURCE the sandbox cannot have -998
disable_apparmor = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "/run/cni/net.d"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
options = { BinaryName = "@RUNC@", SystemdCgroup = false }
"""

# The images must be there before the first pod; the API server is waited for so that a node's first registration does
# not fall into a back-off, but not for ever: a kubelet also works without it.
_KUBELET_SCRIPT = """\
#!/bin/bash
until @CTR@ version >/dev/null 2>&1; do sleep 0.05; done
[ -e /var/lib/c5c3-images-@IMAGES_HASH@ ] || {
    @CTR@ --namespace k8s.io images import --all-platforms @IMAGES@ && touch /var/lib/c5c3-images-@IMAGES_HASH@
}
for _ in $(seq 100); do (exec 3<>/dev/tcp/@ADDRESS@/@PORT@) 2>/dev/null && break; sleep 0.1; done
exec @KUBELET@
"""


class Kubernetes(Part):
    """The cluster of one lab."""

    def __init__(self, lab: Any) -> None:
        super().__init__(lab)
        self.directory: Path = lab.directory / "kubernetes"
        self._pki: Path = self.directory / "pki"

    # -- for users ----------------------------------------------------------------------------------------------------

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig. Its server is reachable inside the control namespace and the hosts."""
        return self._pki / "admin.kubeconfig"

    @cached_property
    def programs(self) -> dict[str, list[str]]:
        """The argv prefix of each program (``kubectl``, ``ctr``, ...)."""
        return programs()

    def kubectl_command(self, *arguments: str) -> list[str]:
        """The argv of kubectl as administrator, to be run inside the control namespace's network."""
        # Its cache of what is served goes by address, and every lab has the same.
        cache = str(self.directory / "kubectl-cache")
        return [*self.programs["kubectl"], "--kubeconfig", str(self.kubeconfig), "--cache-dir", cache, *arguments]

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float | None = 120) -> str:
        """Run kubectl as administrator and return what it printed.

        :param stdin: text for ``-f -``.
        :raises LabError: when it fails, with its message.
        """
        result = self.lab.control.network_exec(
            self.kubectl_command(*arguments), input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )
        if result.returncode:
            raise LabError(f"kubectl {' '.join(arguments)} failed: {result.stderr.strip()}")
        return result.stdout

    def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """One request to the API server as administrator; the parsed answer.

        :raises LabError: on an answer that is no 2xx.
        :raises OSError: when the API server does not answer.
        """
        return self._requests([(method, path, body)], content_type)[0]

    def node_ready(self, name: str) -> str:
        """A Node's Ready condition: ``True``, ``False``, ``Unknown``; empty when there is no such Node."""
        try:
            node = self.request("GET", f"/api/v1/nodes/{name}")
        except LabError:
            return ""
        return _condition(node, "Ready")

    def wait_node(self, name: str, ready: str, timeout: float = 60) -> float:
        """Wait until a Node's Ready condition is ``ready``; return the seconds that took."""
        start = time.monotonic()
        wait_until(lambda: self._try(lambda: self.node_ready(name) == ready), timeout, f"Node {name}: {ready}", 0.1)
        return time.monotonic() - start

    def pod_volumes(self, paths: Iterable[Path | str] = (), python: Path | str | None = None) -> dict[str, list]:
        """What a pod with the lab image needs.

        :param paths: further folders or files of this machine that the pod sees at the same path, read-only.
        :param python: the virtual environment's interpreter; default: the one that runs this.
        :return: lists ``volumes``, ``volumeMounts`` and ``env`` of a pod's spec.
        """
        # Not resolved to the end: a virtual environment is found through the path of its bin/python symlink.
        interpreter = Path(os.path.abspath(python or sys.executable))
        environment = interpreter.parent.parent
        wanted = [Path("/usr"), Path("/etc/alternatives"), Path("/etc/ssl"), *sorted(Path("/etc").glob("java-*"))]
        if interpreter.resolve().is_relative_to("/usr"):
            base: list[Path] = []
        else:
            base = [interpreter.resolve().parent.parent]
        wanted += [environment, *base, *map(Path, paths)]
        volumes, mounts = [], []
        for number, path in enumerate(dict.fromkeys(wanted)):
            if any(other != path and path.is_relative_to(other) for other in wanted):
                continue  # shown by the folder above it
            volumes.append({"name": f"lab-{number}", "hostPath": {"path": str(path)}})
            mounts.append({"name": f"lab-{number}", "mountPath": str(path), "readOnly": True})
        env = {"PATH": f"{environment}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp"}
        java = shutil.which("java", path="/usr/bin:/usr/local/bin")
        if java:
            env["JAVA_HOME"] = str(Path(java).resolve().parent.parent)
        return {
            "volumes": volumes,
            "volumeMounts": mounts,
            "env": [{"name": name, "value": value} for name, value in env.items()],
        }

    # -- simulated nodes ----------------------------------------------------------------------------------------------

    def kwok_nodes(self, count: int, timeout: float = 120) -> float:
        """Have exactly ``count`` simulated Nodes, named kwok-0001 and so on, all Ready with leases.

        The controller (kwok) is built on first use (about 100 s). They carry the taint ``kwok.x-k8s.io/node``.

        :return: seconds until the last was Ready.
        :raises LabError: when that takes longer than ``timeout`` seconds.
        """
        start = time.monotonic()
        if "kwok" not in self.lab.control.services():
            folder = kwok_folder()
            self.lab.control.add_service(
                "kwok",
                [
                    str(folder / "kwok"),
                    *("--kubeconfig", str(self.kubeconfig), "--manage-all-nodes=false"),
                    *("--manage-nodes-with-annotation-selector", "kwok.x-k8s.io/node=fake"),
                    # Renewed after a quarter of it: silent for longer than the grace, they would be Unknown.
                    *("--node-lease-duration-seconds", str(self.lab.node_grace), "--v", "WARN"),
                    *("--config", str(folder / "node-fast.yaml"), "--config", str(folder / "node-lease.yaml")),
                ],
                cwd=self.directory,
            )
        wanted = {f"kwok-{number:04}" for number in range(1, count + 1)}
        have = {node["metadata"]["name"] for node in self._kwok_list()}
        calls: list[tuple[str, str, Any]] = []
        for name in sorted(have - wanted):
            calls.append(("DELETE", f"/api/v1/nodes/{name}", None))
        for name in sorted(wanted - have):
            calls.append(("POST", "/api/v1/nodes", _kwok_node(name)))
        self._requests(calls)

        def all_ready() -> bool:
            nodes = self._kwok_list()
            return len(nodes) == count and all(_condition(node, "Ready") == "True" for node in nodes)

        wait_until(all_ready, timeout, f"{count} simulated Nodes are Ready (tests/lab/lab logs kwok)", 0.5)
        return time.monotonic() - start

    def _kwok_list(self) -> list[dict]:
        return self.request("GET", "/api/v1/nodes?labelSelector=type%3Dkwok&resourceVersion=0")["items"]

    # -- the part -----------------------------------------------------------------------------------------------------

    def prepare(self, progress: Callable[[str], None]) -> None:
        self.programs = programs(progress)  # type: ignore[misc]
        self.directory.mkdir(parents=True)
        self._images = archive()
        authority = Authority(self._pki)
        authority.key_pair("service-account")
        authority.issue(
            "apiserver",
            "kube-apiserver",
            hosts=[
                *("127.0.0.1", CONTROL_ADDRESS, SERVICE_ADDRESS),
                *("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"),
            ],
        )
        authority.issue("kubelet-client", "apiserver-kubelet-client", ["system:masters"])
        authority.issue("admin", "admin", ["system:masters"])
        authority.issue("kube-controller-manager", "system:kube-controller-manager")
        authority.issue("kube-scheduler", "system:kube-scheduler")
        for user in ("admin", "kube-controller-manager", "kube-scheduler"):
            authority.kubeconfig(user, API_URL)
        for host in self.lab.hosts.values():
            name = host.name
            authority.issue(name, f"system:node:{name}", ["system:nodes"], hosts=[name, host.address])
            authority.kubeconfig(name, API_URL)
        if self.lab.kwok_nodes:
            kwok_folder(progress)
        # Pods that have a network of their own.
        for number, host in enumerate(self.lab.hosts.values(), 1):
            self.lab.control.add_setup(f"ip route add 10.244.{number}.0/24 via {host.address}")

    def start(self, progress: Callable[[str], None]) -> None:
        control, pki = self.lab.control, self._pki
        etcd = "http://127.0.0.1:2379"
        peer = "http://127.0.0.1:2380"
        control.add_service(
            "etcd",
            [
                *self.programs["etcd"],
                *("--data-dir", str(self.directory / "etcd"), "--unsafe-no-fsync", "--log-level", "warn"),
                *("--listen-client-urls", etcd, "--advertise-client-urls", etcd, "--listen-peer-urls", peer),
                *("--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"),
            ],
        )
        control.add_service(
            "kube-apiserver",
            [
                *self.programs["kube-apiserver"],
                *("--etcd-servers", etcd, "--secure-port", str(API_PORT), "--bind-address", "0.0.0.0"),
                *("--advertise-address", CONTROL_ADDRESS, "--service-cluster-ip-range", SERVICE_NETWORK),
                *("--tls-cert-file", f"{pki}/apiserver.crt", "--tls-private-key-file", f"{pki}/apiserver.key"),
                *("--client-ca-file", f"{pki}/ca.crt", "--kubelet-certificate-authority", f"{pki}/ca.crt"),
                *("--kubelet-client-certificate", f"{pki}/kubelet-client.crt"),
                *("--kubelet-client-key", f"{pki}/kubelet-client.key"),
                *("--kubelet-preferred-address-types", "InternalIP", "--allow-privileged"),
                *("--service-account-key-file", f"{pki}/service-account.pub"),
                *("--service-account-signing-key-file", f"{pki}/service-account.key"),
                *("--service-account-issuer", "https://kubernetes.default.svc"),
                *("--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction"),
            ],
            cwd=self.directory,
        )
        progress("etcd and API server started")
        self.wait_answering(120)
        progress("API server ready")
        for name in ("kube-controller-manager", "kube-scheduler"):
            config = str(pki / f"{name}.kubeconfig")
            control.add_service(
                name,
                [
                    *self.programs[name],
                    *("--kubeconfig", config, "--authentication-kubeconfig", config),
                    *("--authorization-kubeconfig", config, "--bind-address", "127.0.0.1", "--leader-elect=false"),
                    *(self._controller_manager_flags() if name == "kube-controller-manager" else ()),
                ],
                cwd=self.directory,
            )

    def _controller_manager_flags(self) -> list[str]:
        return [
            *("--service-account-private-key-file", f"{self._pki}/service-account.key"),
            *("--root-ca-file", f"{self._pki}/ca.crt", "--use-service-account-credentials=true"),
            *("--node-monitor-period", "1s", "--node-monitor-grace-period", f"{self.lab.node_grace}s"),
            *("--node-eviction-rate", "10"),  # else a second node's pods wait for 10 s
            *("--controllers", _CONTROLLERS),
        ]

    def define_host(self, host: Host) -> None:
        folder = self.directory / host.name
        folder.mkdir()
        pki, number = self._pki, list(self.lab.hosts).index(host.name) + 1
        settings = folder / "sys"
        settings.mkdir()
        for key, value in _KERNEL_SETTINGS.items():
            file = settings / key.replace("/", ".")
            file.write_text(value + "\n")
            host.add_setup(f"mount --bind {shlex.quote(str(file))} /proc/sys/{key}")
        host.add_setup("echo 1 >/proc/sys/net/ipv4/ip_forward")
        for other, peer in enumerate(self.lab.hosts.values(), 1):
            if peer is not host:
                host.add_setup(f"ip route add 10.244.{other}.0/24 via {peer.address}")
        nat = folder / "api.nft"
        rule = f"ip daddr {SERVICE_ADDRESS} tcp dport 443 dnat to {CONTROL_ADDRESS}:{API_PORT}"
        nat.write_text(
            "table ip c5c3_lab_api {\n"
            f"  chain output {{ type nat hook output priority -100; {rule}; }}\n"
            f"  chain prerouting {{ type nat hook prerouting priority -100; {rule}; }}\n"
            "}\n"
        )
        host.add_setup(f"nft -f {shlex.quote(str(nat))}")
        cni = folder / "10-lab.conflist"
        cni.write_text(json.dumps(_cni_config(number)))
        # The name server that nobody is: no pod waits for one of the outer machine.
        host.add_setup(
            f"mkdir -p /run/cni/net.d; cp {shlex.quote(str(cni))} /run/cni/net.d/; echo 'nameserver 127.0.0.1' >/run/resolv.conf"
        )
        runc = shutil.which("runc")
        if runc is None:
            raise LabError("runc is missing: apt-get install runc containernetworking-plugins")
        containerd_config = folder / "containerd.toml"
        containerd_config.write_text(_CONTAINERD_CONFIG.replace("@RUNC@", runc))
        containerd = self.programs["containerd"]
        host.add_service(
            "containerd",
            [*containerd, "--config", str(containerd_config)],
            env={"PATH": f"{Path(containerd[0]).parent}:{os.environ.get('PATH', '')}"},  # finds its shim there
        )
        kubelet_config = folder / "kubelet.json"
        kubelet_config.write_text(json.dumps(self._kubelet_config(host), indent=1))
        kubelet = [
            *self.programs["kubelet"],
            *("--config", str(kubelet_config), "--kubeconfig", str(pki / f"{host.name}.kubeconfig")),
            *("--hostname-override", host.name, "--node-ip", host.address),
            *("--node-labels", f"{VIRT_DRIVER_LABEL}=kvm"),
        ]
        script = folder / "kubelet.sh"
        text = _KUBELET_SCRIPT
        for key, value in {
            "@CTR@": shlex.join(self.programs["ctr"]),
            "@IMAGES@": shlex.quote(str(self._images)),
            "@IMAGES_HASH@": self._images.parent.name,
            "@ADDRESS@": CONTROL_ADDRESS,
            "@PORT@": str(API_PORT),
            "@KUBELET@": shlex.join(kubelet),
        }.items():
            text = text.replace(key, value)
        script.write_text(text)
        host.add_service("kubelet", ["bash", str(script)])

    def _kubelet_config(self, host: Host) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{self._pki}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{self._pki}/{host.name}.crt",
            "tlsPrivateKeyFile": f"{self._pki}/{host.name}.key",
            "resolvConf": "/run/resolv.conf",
            "volumePluginDir": "/var/lib/kubelet/volumeplugins",
            "syncFrequency": "2s",  # with the default a crash loop shows as Error for 150 s
            "nodeStatusUpdateFrequency": "2s",
            "nodeLeaseDurationSeconds": 8,  # renewed every 2 s
            # Else a container that tests kill often stays away for up to 5 minutes.
            "crashLoopBackOff": {"maxContainerRestartPeriod": "5s"},
            "failSwapOn": False,
            "maxPods": 50,
            "evictionHard": {"memory.available": "100Mi"},
            "imageGCHighThresholdPercent": 100,
        }

    def wait(self, progress: Callable[[str], None]) -> None:
        start = time.monotonic()
        missing = list(self.lab.hosts)
        while missing:
            name = missing.pop(0)
            self.wait_node(name, "True", 120)
            progress(f"Node {name} Ready after {time.monotonic() - start:.1f} s more")
        # Pods cannot be made before.
        wait_until(
            lambda: self._try(lambda: self.request("GET", "/api/v1/namespaces/default/serviceaccounts/default")),
            60,
            "namespace default has its ServiceAccount (lab logs kube-controller-manager)",
            0.1,
        )
        if self.lab.kwok_nodes:
            seconds = self.kwok_nodes(self.lab.kwok_nodes)
            progress(f"{self.lab.kwok_nodes} simulated Nodes Ready after {seconds:.1f} s")

    def wait_answering(self, timeout: float = 60) -> None:
        """Wait until the API server, which was killed, answers again, for custom resources, too.

        :raises LabError: after `timeout` seconds.
        """
        wait_until(
            lambda: self._try(self._api_ready), timeout, "the API server is ready (lab logs kube-apiserver)", 0.1
        )
        wait_until(lambda: self._try(self._serves_custom), timeout, "the API server serves custom resources", 0.1)

    # -- inner parts --------------------------------------------------------------------------------------------------

    @staticmethod
    def _try(condition: Callable[[], Any]) -> Any:
        """False while the API server does not answer, or refuses."""
        with contextlib.suppress(OSError, http.client.HTTPException, LabError):
            return condition()
        return False

    def _api_ready(self) -> bool:
        return self.request("GET", "/readyz") == "ok"

    def _serves_custom(self) -> bool:
        """Ready it is before: until their storage is there it answers 429."""
        for item in self.request("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")["items"]:
            spec = item["spec"]
            version = next(each["name"] for each in spec["versions"] if each["served"])
            self.request("GET", f"/apis/{spec['group']}/{version}/{spec['names']['plural']}?limit=1")
        return True

    def _requests(self, calls: list[tuple[str, str, Any]], content_type: str = "application/json") -> list[Any]:
        """Several requests over one connection, made inside the control namespace's network."""

        def run() -> list[Any]:
            context = ssl.create_default_context(cafile=str(self._pki / "ca.crt"))
            context.load_cert_chain(self._pki / "admin.crt", self._pki / "admin.key")
            connection = http.client.HTTPSConnection(CONTROL_ADDRESS, API_PORT, timeout=30, context=context)
            answers = []
            try:
                for method, path, body in calls:
                    data = None if body is None else json.dumps(body)
                    connection.request(method, path, data, {"Content-Type": content_type})
                    response = connection.getresponse()
                    text = response.read().decode()
                    if not 200 <= response.status < 300:
                        raise LabError(f"{method} {path}: {response.status} {text.strip()[:500]}")
                    is_json = response.headers.get_content_type() == "application/json"
                    answers.append(json.loads(text) if is_json else text)
            finally:
                connection.close()
            return answers

        return self.lab.control.in_network(run)


def _condition(resource: dict[str, Any], name: str) -> str:
    for condition in resource.get("status", {}).get("conditions", []):
        if condition["type"] == name:
            return condition["status"]
    return ""


def _cni_config(number: int) -> dict[str, Any]:
    return {
        "cniVersion": "1.0.0",
        "name": "lab",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": f"10.244.{number}.0/24"}]],
                    "dataDir": "/run/cni/ipam",
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }


def _kwok_node(name: str) -> dict[str, Any]:
    capacity = {"cpu": "32", "memory": "256Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"},
            "labels": {"kubernetes.io/hostname": name, "type": "kwok", VIRT_DRIVER_LABEL: "kvm"},
        },
        "spec": {"taints": [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]},
        "status": {"allocatable": capacity, "capacity": capacity},
    }


__all__ = ["API_URL", "LAB_IMAGE", "VIRT_DRIVER_LABEL", "Kubernetes"]
