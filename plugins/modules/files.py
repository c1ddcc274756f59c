#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: files
short_description: Lay several files and folders at once
description:
  - Does in one call on the host what M(ansible.builtin.template), M(ansible.builtin.copy) and M(ansible.builtin.file) do with two
    calls a file. The second run of a role that lays twenty files takes seconds instead of a minute.
  - Content comes from the task, such as from the lookups P(ansible.builtin.template#lookup) and P(ansible.builtin.file#lookup).
    Neither it nor any other argument goes to the system's log.
  - A file is replaced whole, in one step, and is never readable for more than O(files[].mode) says, not even while it is written.
version_added: 0.1.0
author: The c5c3.ha authors (@c5c3)
options:
  files:
    description: What to lay, in this order.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      state:
        description:
          - V(file) for a file with O(files[].content), V(directory) for a folder, which is made with those above it (V(0755)).
          - V(absent) removes a file; a folder is refused.
        type: str
        choices: [file, directory, absent]
        default: file
      content:
        description: All of the file. Needed for O(files[].state=file).
        type: str
      owner:
        description: Name of the owner.
        type: str
        default: root
      group:
        description: Name of the group.
        type: str
        default: root
      mode:
        description: Mode in octal, as a string. The default is V(0644) for a file and V(0755) for a folder.
        type: str
      validate:
        description: Command that must end with 0 before a new content is laid; V(%s) in it is a file with that content.
        type: str
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  platform:
    platforms: posix
    support: full
  idempotent:
    description: When run twice in a row outside check mode with the same arguments, the second run changes nothing.
    support: full
notes:
  - What a diff shows is the file's content; give O(ignore:no_log=true) to a task that lays secrets.
seealso:
  - module: ansible.builtin.template
  - module: ansible.builtin.copy
  - module: ansible.builtin.file
"""

EXAMPLES = r"""
- name: Lay the configuration
  c5c3.ha.files:
    files:
      - path: /etc/systemd/system/memcached.service.d
        state: directory
      - path: /etc/systemd/system/memcached.service.d/site.conf
        content: |
          [Service]
          RestartSec=1
      - path: /etc/memcached.conf
        content: "{{ lookup('ansible.builtin.template', 'memcached.conf.j2') }}"
        group: memcache
        mode: "0640"
  register: laid

- name: Have systemd read its units anew
  ansible.builtin.systemd_service:
    daemon_reload: true
  when: laid.paths | select('match', '/etc/systemd/') | length > 0
"""

RETURN = r"""
paths:
  description: Those that were changed, or would be in check mode.
  returned: success
  type: list
  elements: str
"""

import contextlib
import errno
import grp
import os
import pwd
import shlex
import stat
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

MODES = {"file": "0644", "directory": "0755"}
ARGUMENTS = {
    "files": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["file", "directory", "absent"], "default": "file"},
            "content": {"type": "str"},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str"},
            "validate": {"type": "str"},
        },
        "required_if": [("state", "file", ["content"])],
    }
}


class Refused(Exception):
    """What cannot be laid; the message names the path and the remedy."""


def wanted_mode(of: dict[str, Any]) -> int:
    """Return the mode as a number.

    :raises Refused: when it is no octal number.
    """
    mode = of["mode"] or MODES[of["state"]]
    try:
        return int(mode, 8)
    except ValueError:
        raise Refused(
            f"mode {mode!r} of {of['path']} is no octal number: write it as a string, such as '0640'"
        ) from None


def seen(path: str) -> os.stat_result | None:
    """Return what is there, without following a link; None where nothing is."""
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def number(of: dict[str, Any], kind: str) -> int:
    """Return the number of the owner or of the group.

    :raises Refused: when the host does not know the name.
    """
    try:
        return pwd.getpwnam(of["owner"]).pw_uid if kind == "owner" else grp.getgrnam(of["group"]).gr_gid
    except KeyError:
        raise Refused(
            f"the {kind} {of[kind]!r} of {of['path']} is not known on this host: install the package that makes it first"
        ) from None


def fits(of: dict[str, Any], there: os.stat_result) -> bool:
    """Tell whether owner, group and mode are as wanted."""
    wanted = (number(of, "owner"), number(of, "group"), wanted_mode(of))
    return (there.st_uid, there.st_gid, stat.S_IMODE(there.st_mode)) == wanted


def told(of: dict[str, Any], there: os.stat_result | None) -> dict[str, str]:
    """Return owner, group and mode for a diff."""
    if there is None:
        return {}

    def name(known: Any, which: int) -> str:
        try:
            return str(known(which)[0])
        except KeyError:
            return str(which)

    owner, group = name(pwd.getpwuid, there.st_uid), name(grp.getgrgid, there.st_gid)
    return {"owner": owner, "group": group, "mode": f"{stat.S_IMODE(there.st_mode):04o}"}


def dress(of: dict[str, Any], what: int) -> None:
    """Give owner, group and mode to an open file or folder; the mode last, since a change of the owner can clear bits of it."""
    os.fchown(what, number(of, "owner"), number(of, "group"))
    os.fchmod(what, wanted_mode(of))


def write(module: AnsibleModule, of: dict[str, Any], content: bytes) -> None:
    """Put the file where it belongs, whole, with its attributes, once it is found valid."""
    folder = os.path.dirname(of["path"])
    try:
        handle, fresh = tempfile.mkstemp(prefix=".ansible_tmp", dir=folder)  # 0600 until it is dressed
    except FileNotFoundError:
        raise Refused(f"there is no folder {folder} for {of['path']}: lay it before, with state: directory") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            dress(of, file.fileno())
            os.fsync(file.fileno())
        if of["validate"]:
            code, out, err = module.run_command(shlex.split(of["validate"].replace("%s", shlex.quote(fresh))))
            if code:
                said = (err or out).strip().replace(fresh, of["path"])
                raise Refused(
                    f"{of['path']} would not be valid and stays as it is; {shlex.split(of['validate'])[0]} says: {said}"
                )
        os.rename(fresh, of["path"])
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise


def lay_file(module: AnsibleModule, of: dict[str, Any]) -> dict[str, Any] | None:
    """Lay one file; return its diff, None when it is as wanted."""
    path, wanted = of["path"], of["content"].encode()
    there = seen(path)
    if there is not None and stat.S_ISDIR(there.st_mode):
        raise Refused(f"{path} is a folder, and a file is to be there: remove it, or name another path")
    old = b""
    if there is not None and stat.S_ISREG(there.st_mode):
        with open(path, "rb") as file:
            old = file.read()
        if old == wanted:
            if fits(of, there):
                return None
            if not module.check_mode:
                with open(path, "rb") as file:
                    dress(of, file.fileno())
            return dressed(of, there)
    if not module.check_mode:
        write(module, of, wanted)
    return {
        "before_header": path,
        "after_header": path,
        "before": old.decode(errors="replace"),
        "after": of["content"],
    }


def dressed(of: dict[str, Any], there: os.stat_result | None) -> dict[str, Any]:
    """Return the diff of a path of which owner, group or mode, or all of it, changes."""
    wanted = {"owner": of["owner"], "group": of["group"], "mode": f"{wanted_mode(of):04o}"}
    return {"before": {"path": of["path"], **told(of, there)}, "after": {"path": of["path"], **wanted}}


def lay_directory(module: AnsibleModule, of: dict[str, Any]) -> dict[str, Any] | None:
    """Make one folder and those above it; return its diff, None when it is as wanted."""
    path = of["path"]
    try:
        there = os.stat(path)
    except FileNotFoundError:
        there = None
    if there is not None and not stat.S_ISDIR(there.st_mode):
        raise Refused(f"{path} is no folder, and one is to be there: remove it, or name another path")
    if there is not None and fits(of, there):
        return None
    if not module.check_mode:
        if there is None:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            dress(of, handle)
        finally:
            os.close(handle)
    return dressed(of, there)


def remove(module: AnsibleModule, of: dict[str, Any]) -> dict[str, Any] | None:
    """Remove one file; return its diff, None when it is not there."""
    there = seen(of["path"])
    if there is None:
        return None
    if stat.S_ISDIR(there.st_mode):
        raise Refused(f"{of['path']} is a folder, and only files are removed: use ansible.builtin.file")
    if not module.check_mode:
        os.unlink(of["path"])
    return {"before": {"path": of["path"], "state": "file"}, "after": {"path": of["path"], "state": "absent"}}


LAY = {"file": lay_file, "directory": lay_directory, "absent": remove}


def refuse(files: list[dict[str, Any]], check: bool) -> None:
    """Look at all arguments before anything is changed. In check mode a package that makes an owner may not be there yet.

    :raises Refused: names the first that is wrong.
    """
    for of in files:
        if not os.path.isabs(of["path"]):
            raise Refused(f"path {of['path']!r} is not absolute: write it from / on")
        if of["state"] != "absent":
            wanted_mode(of)
            for kind in () if check else ("owner", "group"):
                number(of, kind)
        if of["validate"] and "%s" not in of["validate"]:
            raise Refused(f"validate of {of['path']} has no %s: put it where the command takes the file's name")
    twice = sorted({of["path"] for of in files if [each["path"] for each in files].count(of["path"]) > 1})
    if twice:
        raise Refused(f"{', '.join(twice)} is named more than once: a second run would change it back and forth")


def main() -> None:
    # with no_log no argument goes to the system's log; a diff still shows what changes
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True, no_log=True)
    os.umask(0o022)  # a hardened host's would shut users out of the folders above
    diffs: dict[str, dict[str, Any]] = {}
    of: dict[str, Any] = {}
    try:
        refuse(module.params["files"], module.check_mode)
        for of in module.params["files"]:
            diff = LAY[of["state"]](module, of)
            if diff is not None:
                diffs[of["path"]] = diff
    except Refused as error:
        module.fail_json(msg=str(error), paths=list(diffs))
    except OSError as error:
        what = "the disk is full: free some space" if error.errno == errno.ENOSPC else f"{error.strerror}"
        module.fail_json(msg=f"cannot lay {of['path']}: {what}", paths=list(diffs))
    module.exit_json(changed=bool(diffs), paths=list(diffs), diff=list(diffs.values()))


if __name__ == "__main__":
    main()
