"""The lab's command line: ``tests/lab/lab VERB`` or ``python -m tests.lab VERB``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from . import PARTS, Lab, LabError

try:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
except ImportError:  # plain lines do as well
    Console = None  # type: ignore[assignment, misc]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lab", description="Kubernetes with nodes, Nova and libvirt hypervisors, really running on this machine."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str, target: str = "") -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.add_argument("--seed", type=int, default=int(os.environ.get("C5C3_LAB_SEED", "0")), help="which lab (0)")
        if target:
            sub.add_argument("target", help=target)
        return sub

    any_target = (
        "host (cmp01), service (cmp01/libvirtd, kube-apiserver), cmp01/agent, operator, or server (name or UUID)"
    )
    up = verb("up", "start everything and wait until it works")
    up.add_argument("--hosts", type=int, default=3, help="hypervisors (3)")
    up.add_argument("--parts", default=",".join(PARTS), help=f"comma-separated ({','.join(PARTS)})")
    up.add_argument("--storage", choices=("per-host", "shared"), default="per-host", help="store mounts (per-host)")
    up.add_argument(
        "--computes", choices=("libvirt", "fake"), default="libvirt", help="nova-compute's driver (libvirt)"
    )
    up.add_argument("--kwok-nodes", type=int, default=0, metavar="N", help="N simulated Nodes more (0)")
    up.add_argument("--node-grace", type=int, help="seconds until a silent Node is Unknown (10; with kwok 40)")
    verb("down", "kill everything and remove every trace")
    verb("prepare", "build what is built once, start nothing").add_argument("--parts", default=",".join(PARTS))
    verb("status", "each part with its pid, state and memory").add_argument("--json", action="store_true")
    kill = verb("kill", "kill -9; a service comes back by itself, a host stays off until heal", any_target)
    kill.add_argument("--stay-down", action="store_true", help="a service stays down until heal")
    verb("freeze", "stop all processes of it without ending them", any_target)
    verb("thaw", "undo freeze", any_target)
    partition = verb("partition", "cut a host off", "host")
    partition.add_argument("--mode", choices=("drop", "link"), default="drop", help="packets vanish, or eth0 is down")
    verb("heal", "undo every fault: power on, thaw, reconnect, start", "").add_argument(
        "target", nargs="?", help=f"{any_target}; without it everything"
    )
    verb("bmc", "start the hosts' management controllers, and tell how each is reached")
    oracle = verb("oracle", "what the guests really do, seen from outside")
    oracle.add_argument("--json", action="store_true")
    oracle.add_argument("--seconds", type=float, default=2.5, help="how long to look (2.5)")
    execute = verb("exec", "run a command in the control namespace's network, or inside a host")
    execute.add_argument("--host", help="inside this host instead")
    for sub in (execute, verb("kubectl", "kubectl as administrator"), verb("openstack", "openstack as the operator")):
        sub.add_argument("command", nargs="*", help="the command and all its arguments")
    logs = verb("logs", "the output of a service, of a host's init", "service (cmp01/kubelet, nova-api) or host")
    logs.add_argument("-f", "--follow", action="store_true")
    logs.add_argument("-n", "--lines", type=int, default=100)
    return parser


class _Printer:
    """Progress lines with seconds; a spinner on a terminal."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.console = Console(highlight=False) if Console else None
        self.status = self.console.status("") if self.console and self.console.is_terminal else None

    def __call__(self, text: str) -> None:
        seconds = f"{time.monotonic() - self.start:6.1f} s"
        if self.console:
            self.console.print(f"[dim]{seconds}[/dim]  {escape(text)}")
        else:
            print(f"{seconds}  {text}", flush=True)
        if self.status:
            self.status.update(escape(text))

    def __enter__(self) -> _Printer:
        if self.status:
            self.status.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self.status:
            self.status.stop()


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[str] = ()) -> None:
    if Console:
        table = Table(*columns, box=None, pad_edge=False, header_style="bold")
        for column in table.columns:
            column.justify = "right" if column.header in right else "left"
            column.no_wrap = True
        for row in rows:
            table.add_row(*(escape("" if value is None else str(value)) for value in row))
        console = Console(highlight=False)
        console.print(table) if console.is_terminal else Console(highlight=False, width=200).print(table)
    else:
        for row in (columns, *rows):
            print("  ".join("" if value is None else str(value) for value in row))


def _up(arguments: argparse.Namespace) -> None:
    grace = arguments.node_grace or (40 if arguments.kwok_nodes else 10)
    lab = Lab(
        seed=arguments.seed,
        hosts=arguments.hosts,
        parts=[part for part in arguments.parts.split(",") if part],
        storage=arguments.storage,
        computes=arguments.computes,
        kwok_nodes=arguments.kwok_nodes,
        node_grace=grace,
    )
    with _Printer() as progress:
        times = lab.up(progress)
        progress(f"lab {lab.seed} is up: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in times.items()))


def _down(arguments: argparse.Namespace) -> None:
    with _Printer() as progress:
        Lab.saved(arguments.seed).down()
        progress(f"lab {arguments.seed} is down")


def _prepare(arguments: argparse.Namespace) -> None:
    with _Printer() as progress:
        parts = arguments.parts.split(",")
        if "kubernetes" in parts:
            from .bmc import virtual_environment as bmc_environment
            from .images import archive
            from .kube.build import programs

            programs(progress)
            archive()
            progress("virtual environment of the management controllers")
            bmc_environment()
        if "nova" in parts:
            from .nova import ready_data, virtual_environment

            progress("virtual environment of OpenStack")
            virtual_environment()
            progress("OpenStack's database with users, flavors and images")
            ready_data()
        progress("ready")


def _status(arguments: argparse.Namespace) -> None:
    lab = Lab.attach(arguments.seed)
    rows = lab.status()
    if arguments.json:
        print(json.dumps(rows))
        return
    table = [[row["part"], row["pid"], row["state"], f"{row['rss'] / 2**20:.0f} MB"] for row in rows]
    machines = {"control", *lab.hosts}
    total = sum(row["rss"] for row in rows if row["part"] in machines)
    table.append(["all", None, None, f"{total / 2**20:.0f} MB"])
    _print_table(["part", "pid", "state", "RSS"], table, right=["pid", "RSS"])


def _oracle(arguments: argparse.Namespace) -> None:
    reports = [dataclasses.asdict(report) for report in Lab.attach(arguments.seed).oracle.report(arguments.seconds)]
    if arguments.json:
        print(json.dumps(reports))
    elif reports:
        _print_table(list(reports[0]), [list(report.values()) for report in reports])
    else:
        print("no servers")


def _bmc(arguments: argparse.Namespace) -> None:
    bmc = Lab.attach(arguments.seed).bmc
    bmc.up()
    rows = []
    for host in bmc.lab.host_names:
        for fencing in (bmc.redfish(host), bmc.ipmi(host)):
            rows.append([host, fencing["agent"], fencing["address"], fencing["systemId"]])
    _print_table(["host", "agent", "address", "systemId"], rows)
    print(f"user {bmc.user}, password in {bmc.directory}/password, certificate authority {bmc.directory}/tls/ca.crt")


def _run(lab: Lab, argv: Sequence[str], environment: dict[str, str] | None = None) -> None:
    """Become ``argv`` inside the control namespace's network."""
    lab.enter()
    try:
        os.execvpe(argv[0], list(argv), {**os.environ, **(environment or {})})
    except FileNotFoundError:
        raise LabError(f"no program {argv[0]!r} on PATH") from None


def _parse(argv: list[str]) -> argparse.Namespace:
    """Everything behind the first word that is no option of the lab belongs to the command, options included."""
    if argv[:1] and argv[0] in ("exec", "kubectl", "openstack"):
        end = 1
        while end < len(argv) and argv[end].startswith(("--seed", "--host", "-h", "--help")):
            end += 1 if "=" in argv[end] or argv[end] in ("-h", "--help") else 2
        command = argv[end:]
        arguments = _parser().parse_args(argv[:end])
        arguments.command = command[1:] if command[:1] == ["--"] else command
        return arguments
    return _parser().parse_args(argv)


def _exec(arguments: argparse.Namespace) -> None:
    lab, command = Lab.attach(arguments.seed), arguments.command
    if not command:
        raise LabError("exec needs a command: lab exec -- ip addr")
    if arguments.host:
        argv = lab.machine(arguments.host).command(command)
        os.execvp(argv[0], argv)
    _run(lab, command)


def _kubectl(arguments: argparse.Namespace) -> None:
    lab = Lab.attach(arguments.seed)
    _run(lab, lab.kubernetes.kubectl_command(*arguments.command))


def _openstack(arguments: argparse.Namespace) -> None:
    lab = Lab.attach(arguments.seed)
    own = lab.nova.venv / "bin" / "openstack"
    program = str(own) if own.exists() else "openstack"
    try:
        _run(
            lab, [program, *arguments.command], {"OS_CLIENT_CONFIG_FILE": str(lab.nova.clouds_yaml), "OS_CLOUD": "lab"}
        )
    except LabError:
        raise LabError("the openstack command is missing: pip install python-openstackclient") from None


def _logs(arguments: argparse.Namespace) -> None:
    path = Lab.attach(arguments.seed).log_path(arguments.target)
    if not path.exists():
        raise LabError(f"{arguments.target} has printed nothing yet: {path} does not exist")
    if arguments.follow:
        os.execvp("tail", ["tail", "-n", str(arguments.lines), "-F", str(path)])
    with open(path, encoding="utf-8", errors="replace") as file:
        sys.stdout.writelines(deque(file, arguments.lines))


def _fault(arguments: argparse.Namespace) -> None:
    lab = Lab.attach(arguments.seed)
    start = time.monotonic()
    if arguments.verb == "kill":
        lab.kill(arguments.target, stay_down=arguments.stay_down)
    elif arguments.verb == "partition":
        lab.partition(arguments.target, arguments.mode)
    else:
        getattr(lab, arguments.verb)(arguments.target)
    print(f"{arguments.verb} {arguments.target or 'everything'}: done in {time.monotonic() - start:.2f} s")


_VERBS: dict[str, Callable[[argparse.Namespace], None]] = {
    "up": _up,
    "down": _down,
    "prepare": _prepare,
    "status": _status,
    "bmc": _bmc,
    "oracle": _oracle,
    "exec": _exec,
    "kubectl": _kubectl,
    "openstack": _openstack,
    "logs": _logs,
    **dict.fromkeys(("kill", "freeze", "thaw", "partition", "heal"), _fault),
}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(list(sys.argv[1:] if argv is None else argv))
    # TERM as Ctrl-C: a lab that is just coming up is killed again.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _VERBS[arguments.verb](arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # lab status | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
