"""``python -m tests.stack VERB ...``: test hosts by hand; inside ``tests/setup/in hosts``.

prepare [DISTRIBUTION ...]     make the images (all known ones when none is named)
up SCENARIO | down SCENARIO    start or remove a scenario's hosts (C5C3_STACK_DISTRO, C5C3_STACK_SEED)
inventory SCENARIO             Ansible's inventory as JSON
check SCENARIO                 write as a client, read it back, look that all is well
soak MINUTES SCENARIO ...      clients write, all cores are busy, nothing is broken: no failover may come (hosts stand already)
report                         write the table of docs/failover.md from the results so far
list                           what of ours exists
in SCENARIO HOST COMMAND ...   run a command inside a host
kill_host | start | freeze | thaw | partition | heal SCENARIO HOST
"""

from __future__ import annotations

import json
import os
import sys

from tests.setup.progress import SetupError
from tests.stack import clients, hosts, images, report, soak
from tests.stack.podman import PodmanError, environment, podman


def check(of: hosts.Scenario) -> None:
    """Raise HostError unless a client can write, finds what it wrote, and the service is whole."""
    service = clients.service(of)
    service.prepare()
    session = service.connect()
    wanted = {f"check-{number}" for number in range(20)}
    for key in wanted:
        session.write(key)
    session.close()
    missing = wanted - set(service.found())
    if missing:
        raise hosts.HostError(f"{len(missing)} of {len(wanted)} acknowledged writes are not there")
    hosts.wait(f"{of.name} whole", lambda: not service.unsettled(), 60, 1)


def main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if argv else 2
    verb, *rest = argv
    if verb == "prepare":
        for distribution in rest or images.DISTRIBUTIONS:
            print(images.ensure(distribution))
        return 0
    if verb == "report":
        print(f"{report.write()} rows in {report.PAGE}")
        return 0
    if verb == "list":
        print(podman("ps", "--all", "--format={{.Names}} {{.Image}} {{.Status}}").stdout, end="")
        return 0
    if verb == "soak" and len(rest) > 1:
        wrong = soak.run(float(rest[0]), rest[1:])
        print("\n".join(wrong) or "nothing changed its leader, nothing was lost")
        return 1 if wrong else 0
    of = hosts.scenario(rest[0]) if rest else None
    if of is None:
        print(__doc__)
        return 2
    if verb == "up":
        hosts.up(of)
    elif verb == "down":
        hosts.down(of)
    elif verb == "inventory":
        print(json.dumps(hosts.inventory(of)))
    elif verb == "check":
        check(of)
    elif verb == "in":
        flags = ["-it"] if sys.stdin.isatty() else ["-i"]
        os.execvpe("podman", ["podman", "exec", *flags, of.host(rest[1]).container, *rest[2:]], environment())
    else:
        host = of.host(rest[1])
        faults = {
            "kill_host": lambda: hosts.kill_host(host),
            "start": lambda: hosts.start(host),
            "freeze": lambda: hosts.freeze(host),
            "thaw": lambda: hosts.thaw(host),
            "partition": lambda: hosts.partition(of, host),
            "heal": lambda: hosts.heal_partition(host),
        }
        if verb not in faults:
            print(__doc__)
            return 2
        faults[verb]()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (SetupError, PodmanError, hosts.HostError) as error:
        print(f"stack: {error}", file=sys.stderr)
        sys.exit(1)
