#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: galera_info
short_description: Tell what a member of a Galera cluster is and holds
description:
  - Reads the state that C(grastate.dat) keeps, asks the server over its socket, and looks at the host's names and disk.
  - Never fails because of the server's state; what cannot be read is absent from the answer.
version_added: 0.1.0
author: The c5c3.ha authors (@c5c3)
options:
  datadir:
    description: Data directory of the server.
    type: path
    default: /var/lib/mysql
  socket:
    description: The server's socket. The user of the task is known there by C(unix_socket).
    type: path
    default: /run/mysqld/mysqld.sock
  service:
    description: Unit of the server.
    type: str
    default: mariadb
  config:
    description: Files whose changes the server reads only when it starts.
    type: list
    elements: path
    default: []
  resolve:
    description: Names to look up as this host sees them.
    type: list
    elements: str
    default: []
  recover:
    description:
      - Ask the storage engine of a server that does not run for its last write, as C(galera_recovery) does. Needed after a
        crash, when C(grastate.dat) knows no seqno.
    type: bool
    default: false
  wait:
    description:
      - Seconds to wait for a server whose process runs to answer from within a primary component.
    type: int
    default: 0
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
  platform:
    platforms: Debian
    support: full
seealso:
  - module: community.mysql.mysql_info
"""

EXAMPLES = r"""
- name: Look at this member
  c5c3.ha.galera_info:
    resolve: [db1.example.com, db2.example.com, db3.example.com]
  register: member

- name: Learn the last write after a crash
  c5c3.ha.galera_info:
    recover: true
  register: member
"""

RETURN = r"""
node:
  description: The member.
  returned: success
  type: dict
  contains:
    running:
      description: Whether the server's process is there.
      type: bool
    answers:
      description: Whether the server answers on its socket.
      type: bool
    wsrep:
      description: Whether it replicates.
      type: bool
    cluster_name:
      description: Name of its cluster.
      type: str
    cluster_uuid:
      description: The cluster's uuid.
      type: str
    cluster_status:
      description: V(Primary), V(non-Primary) or V(Disconnected).
      type: str
    cluster_size:
      description: Members of its component.
      type: int
    conf_id:
      description: Number of its component's view.
      type: int
    state:
      description: Such as V(Synced), V(Joined) or V(Donor/Desynced).
      type: str
    last_committed:
      description: Seqno of the last write.
      type: int
    replicated:
      description: Writes that this member took from clients and gave to the others since its start; grows on a writer only.
      type: int
    clients:
      description: Connections that came over the network.
      type: int
    addresses:
      description: Where the component's members take clients.
      type: list
      elements: str
    version:
      description: The server's version.
      type: str
    grastate:
      description: What C(grastate.dat) says, with C(uuid), C(seqno) and C(safe_to_bootstrap).
      type: dict
    recovered:
      description: C(uuid) and C(seqno) that the storage engine holds, with O(recover=true) and a server that does not run.
      type: dict
    recovery_error:
      description: Last words of the server when that cannot be read.
      type: str
    databases:
      description: Databases that are not the server's own.
      type: list
      elements: str
    config_newer:
      description: Whether one of O(config) was laid after the server's start.
      type: bool
    free_bytes:
      description: Free bytes where the data are, or would be.
      type: int
    data_bytes:
      description: Bytes of the data.
      type: int
    names:
      description: For each of O(resolve) its address, or V(null).
      type: dict
  sample:
    running: true
    answers: true
    wsrep: true
    cluster_status: Primary
    cluster_size: 3
    state: Synced
"""

import os
import re
import socket
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.c5c3.ha.plugins.module_utils import service_age

OWN = {"mysql", "performance_schema", "sys", "information_schema", "test", "lost+found"}
STATUS = {
    "wsrep_cluster_status": "cluster_status",
    "wsrep_cluster_state_uuid": "cluster_uuid",
    "wsrep_local_state_comment": "state",
}
NUMBERS = {
    "wsrep_cluster_size": "cluster_size",
    "wsrep_cluster_conf_id": "conf_id",
    "wsrep_last_committed": "last_committed",
    "wsrep_replicated": "replicated",
    "clients": "clients",
}
# Not held up by wsrep_sync_wait: that would wait for a primary component.
QUESTION = (
    "SET SESSION wsrep_sync_wait=0; SHOW GLOBAL STATUS LIKE 'wsrep\\_%'; "
    "SHOW GLOBAL VARIABLES WHERE variable_name IN ('wsrep_on', 'wsrep_cluster_name', 'version'); "
    "SELECT 'clients', COUNT(*) FROM information_schema.processlist WHERE host NOT IN ('', 'localhost') AND user <> 'system user'; "
    "SELECT 'database', schema_name FROM information_schema.schemata"
)


def grastate(text: str) -> dict[str, Any]:
    """Parse grastate.dat."""
    fields = dict(re.findall(r"^(uuid|seqno|safe_to_bootstrap):\s*(\S+)", text, re.M))
    return {
        "uuid": fields.get("uuid", ""),
        "seqno": int(fields.get("seqno", -1)),
        "safe_to_bootstrap": fields.get("safe_to_bootstrap") == "1",
    }


def answer(text: str) -> dict[str, Any]:
    """Make the server's tab-separated answer to QUESTION into fields of a node."""
    rows = [line.split("\t", 1) for line in text.splitlines() if "\t" in line]
    values = {name: value for name, value in rows if name != "database"}
    node: dict[str, Any] = {field: values.get(name, "") for name, field in STATUS.items()}
    for name, field in NUMBERS.items():
        found = values.get(name, "")
        node[field] = int(found) if found.isdigit() else -1
    node["wsrep"] = values.get("wsrep_on", "OFF") == "ON"
    node["cluster_name"] = values.get("wsrep_cluster_name", "")
    node["version"] = values.get("version", "")
    node["addresses"] = [one for one in values.get("wsrep_incoming_addresses", "").split(",") if one]
    # of a node that stands alone these two are not of a cluster
    if node["cluster_status"] != "Primary":
        node["cluster_uuid"] = ""
    node["databases"] = sorted(value for name, value in rows if name == "database" and value not in OWN)
    return node


def ask(module: AnsibleModule, path: str) -> dict[str, Any] | None:
    """Ask the server; None when it does not answer within seconds (a frozen one accepts and says nothing)."""
    if not os.path.exists(path):
        return None
    argv = ["timeout", "5", "mariadb", "--no-defaults", "--protocol=socket", f"--socket={path}", "--connect-timeout=3"]
    code, out, _err = module.run_command([*argv, "--batch", "--skip-column-names", "--execute", QUESTION])
    return answer(out) if code == 0 else None


def unit(module: AnsibleModule, service: str) -> tuple[bool, float]:
    """Return (the process is there or coming, seconds since the epoch when it was started)."""
    try:
        told = service_age.show(module, [service])[0]
    except LookupError:
        return False, 0.0
    running = told.get("ActiveState") in ("activating", "reloading", "deactivating") or told.get("MainPID", "0") != "0"
    return running, service_age.started(told)


def recovered(module: AnsibleModule) -> tuple[dict[str, Any] | None, str]:
    """Ask the storage engine; return (position, error)."""
    code, out, err = module.run_command(["galera_recovery"])
    found = re.search(r"--wsrep_start_position=([0-9a-f-]{36}):(-?\d+)", out)
    if code == 0 and found:
        return {"uuid": found[1], "seqno": int(found[2])}, ""
    return None, (err or out).strip()[-600:]


def size(folder: str) -> int:
    """Return the bytes that the files below a folder take."""
    total = 0
    for place, _folders, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
            except OSError:
                continue
    return total


def free(folder: str) -> int:
    """Return the free bytes of the file system that holds, or would hold, a folder."""
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def look_up(name: str) -> str | None:
    """Return the address of a name."""
    try:
        return socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0]
    except OSError:
        return None


def node(module: AnsibleModule) -> dict[str, Any]:
    """Look at the member."""
    params = module.params
    datadir = params["datadir"]
    deadline = time.monotonic() + params["wait"]
    while True:
        running, since = unit(module, params["service"])
        told = ask(module, params["socket"]) if running else None
        settled = not running or (told is not None and (not told["wsrep"] or told["cluster_status"] == "Primary"))
        if settled or time.monotonic() >= deadline:
            break
        time.sleep(1)
    found: dict[str, Any] = {"running": running, "answers": told is not None, "wsrep": False, "databases": []}
    try:
        with open(os.path.join(datadir, "grastate.dat"), encoding="utf-8") as handle:
            found["grastate"] = grastate(handle.read())
    except OSError:
        found["grastate"] = None
    if told is None and os.path.isdir(datadir):
        found["databases"] = sorted(
            entry.name
            for entry in os.scandir(datadir)
            if entry.is_dir() and entry.name not in OWN and entry.name[0] not in ".#"
        )
    found.update(told or {})
    if params["recover"] and not running and os.path.isdir(os.path.join(datadir, "mysql")):
        found["recovered"], found["recovery_error"] = recovered(module)
    # from its start, not from when it was a member: it has read them long before
    later, _seconds = service_age.newest(service_age.laid(params["config"]), since)
    found["config_newer"] = bool(running and since and later)
    found["free_bytes"] = free(datadir)
    found["data_bytes"] = size(datadir)
    found["names"] = {name: look_up(name) for name in params["resolve"]}
    return found


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "datadir": {"type": "path", "default": "/var/lib/mysql"},
            "socket": {"type": "path", "default": "/run/mysqld/mysqld.sock"},
            "service": {"type": "str", "default": "mariadb"},
            "config": {"type": "list", "elements": "path", "default": []},
            "resolve": {"type": "list", "elements": "str", "default": []},
            "recover": {"type": "bool", "default": False},
            "wait": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, node=node(module))


if __name__ == "__main__":
    main()
