"""The module files: what it lays, what it leaves alone, what it refuses."""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.setup import system

OWNER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name


def lay(*files: dict[str, Any], check: bool = False, log: Path | None = None) -> dict[str, Any]:
    """Run the module as Ansible does, in a process of its own, and return its answer; ``log`` stands for the system's."""
    asked = {
        "files": [{"owner": OWNER, "group": GROUP, **each, "path": str(each["path"])} for each in files],
        "_ansible_check_mode": check,
        "_ansible_diff": True,
    }
    code = (
        "import sys, json\n"
        "from ansible.module_utils import basic\n"
        "from ansible.module_utils.testing import patch_module_args\n"
        "log = open(sys.argv[1], 'a')\n"
        "basic.AnsibleModule.log = lambda self, msg, log_args=None: print(msg, log_args, file=log, flush=True)\n"
        "from ansible_collections.c5c3.ha.plugins.modules import files\n"
        "with patch_module_args(json.load(sys.stdin)):\n"
        "    files.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(log or os.devnull)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        cwd=system.ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def test_what_is_laid_once_is_left_alone_the_second_time(tmp_path: Path) -> None:
    """Folders above are made, modes are as asked for, the second run changes nothing, not even the time."""
    files = [
        {"path": tmp_path / "a" / "b", "state": "directory", "mode": "0750"},
        {"path": tmp_path / "a" / "b" / "conf", "content": "one\n", "mode": "0640"},
        {"path": tmp_path / "a" / "b" / "plain", "content": ""},
    ]
    first = lay(*files)
    assert first["changed"] and first["paths"] == [str(each["path"]) for each in files]
    conf = tmp_path / "a" / "b" / "conf"
    assert (conf.read_text(), mode(conf), mode(conf.parent)) == ("one\n", "0640", "0750")
    assert mode(tmp_path / "a" / "b" / "plain") == "0644"
    before = conf.stat()
    second = lay(*files)
    assert not second["changed"] and second["paths"] == [] and second["diff"] == []
    assert conf.stat().st_mtime_ns == before.st_mtime_ns and conf.stat().st_ino == before.st_ino


def test_only_what_differs_changes_and_is_told(tmp_path: Path) -> None:
    """A diff names the file and shows both contents; a mode alone leaves the content's time."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("old\n")
    one.chmod(0o644)
    two.write_text("same\n")
    two.chmod(0o666)
    before = two.stat().st_mtime_ns
    told = lay({"path": one, "content": "new\n"}, {"path": two, "content": "same\n"})
    assert told["paths"] == [str(one), str(two)]
    assert (told["diff"][0]["before"], told["diff"][0]["after"], told["diff"][0]["after_header"]) == (
        "old\n",
        "new\n",
        str(one),
    )
    assert (told["diff"][1]["before"]["mode"], told["diff"][1]["after"]["mode"]) == ("0666", "0644")
    assert two.stat().st_mtime_ns == before and mode(two) == "0644"
    assert lay({"path": one, "content": "newer\n"})["paths"] == [str(one)]


def test_check_mode_tells_and_does_nothing(tmp_path: Path) -> None:
    """The same answer as the run, even for a file whose folder the run would make, and an owner its package would."""
    there = tmp_path / "there"
    there.write_text("old\n")
    files = [
        {"path": tmp_path / "new", "state": "directory"},
        {"path": tmp_path / "new" / "file", "content": "x", "owner": "nobody-has-this-name"},
        {"path": there, "content": "new\n"},
    ]
    told = lay(*files, check=True)
    assert told["changed"] and len(told["paths"]) == 3
    assert not (tmp_path / "new").exists() and there.read_text() == "old\n"
    assert lay({"path": there, "state": "absent"}, check=True)["changed"] and there.exists()


def test_a_file_goes_and_a_folder_stays(tmp_path: Path) -> None:
    """state: absent removes a file, once; it is not for folders."""
    gone = tmp_path / "gone"
    gone.touch()
    assert lay({"path": gone, "state": "absent"})["paths"] == [str(gone)]
    assert not gone.exists()
    assert not lay({"path": gone, "state": "absent"})["changed"]
    refused = lay({"path": tmp_path, "state": "absent"})
    assert refused["failed"] and "is a folder" in refused["msg"] and tmp_path.is_dir()


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    """What a link leads to is somebody else's."""
    other, link = tmp_path / "other", tmp_path / "link"
    other.write_text("theirs")
    link.symlink_to(other)
    assert lay({"path": link, "content": "ours"})["changed"]
    assert other.read_text() == "theirs" and not link.is_symlink() and link.read_text() == "ours"


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ({"path": "relative", "content": "x"}, "'relative' is not absolute"),
        ({"path": "/DIR/x", "content": "x", "mode": "rw"}, "'rw' of /DIR/x is no octal number"),
        ({"path": "/DIR/x"}, "content"),
        ({"path": "/DIR/no/x", "content": "x"}, "there is no folder /DIR/no"),
        (
            {"path": "/DIR/x", "content": "x", "owner": "nobody-has-this-name"},
            "'nobody-has-this-name' of /DIR/x is not known",
        ),
        ({"path": "/DIR/folder", "content": "x"}, "/DIR/folder is a folder"),
        ({"path": "/DIR/old", "state": "directory"}, "/DIR/old is no folder"),
        ({"path": "/DIR/old", "content": "x", "validate": "true"}, "has no %s"),
        ({"path": "/DIR/old", "content": "x", "validate": "grep -q wanted %s"}, "stays as it is; grep says"),
        ({"path": "/DIR/new", "content": "x", "validate": "cat %s /DIR/none"}, "cat says"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(tmp_path: Path, file: dict[str, str], says: str) -> None:
    """The message names the value; no half-written file stays behind."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "old").write_text("old")
    given = {key: value.replace("/DIR", str(tmp_path)) for key, value in file.items()}
    refused = lay(given)
    assert refused["failed"] and says.replace("/DIR", str(tmp_path)) in refused["msg"]
    assert sorted(os.listdir(tmp_path)) == ["folder", "old"] and (tmp_path / "old").read_text() == "old"


def test_a_path_named_twice_is_refused(tmp_path: Path) -> None:
    """Two contents of one file would change it at every run."""
    refused = lay({"path": tmp_path / "x", "content": "1"}, {"path": tmp_path / "x", "content": "2"})
    assert refused["failed"] and "named more than once" in refused["msg"] and not (tmp_path / "x").exists()


def test_a_valid_content_is_laid(tmp_path: Path) -> None:
    """The command sees the new content, before the old one goes."""
    path = tmp_path / "conf"
    assert lay({"path": path, "content": "wanted\n", "validate": "grep -q wanted %s"})["changed"]
    assert path.read_text() == "wanted\n"


def test_contents_stay_out_of_the_system_log(tmp_path: Path) -> None:
    """AnsibleModule writes the arguments of a module to the log, unless it is told not to."""
    told = lay({"path": tmp_path / "conf", "content": "geheim"}, log=tmp_path / "log")
    assert told["changed"] and "geheim" not in (tmp_path / "log").read_text()


def test_folders_above_are_open_to_their_users_on_a_hardened_host(tmp_path: Path) -> None:
    """A umask of 077 would shut the service's user out of the folder above its own."""
    before = os.umask(0o077)
    try:
        lay({"path": tmp_path / "above" / "own", "state": "directory", "mode": "0750"})
    finally:
        os.umask(before)
    assert (mode(tmp_path / "above"), mode(tmp_path / "above" / "own")) == ("0755", "0750")


def test_an_unknown_owner_is_told_before_anything_is_laid(tmp_path: Path) -> None:
    """Not when the third of five files comes to it."""
    refused = lay(
        {"path": tmp_path / "a", "content": "x"}, {"path": tmp_path / "b", "content": "x", "owner": "nobody-has-it"}
    )
    assert refused["failed"] and "'nobody-has-it'" in refused["msg"] and not os.listdir(tmp_path)
