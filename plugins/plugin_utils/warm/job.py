# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the warm server imports, and how a forked copy of it becomes one run of ansible-playbook.

The only file here that knows ansible's inside. A fresh process differs from a copy of a warm one in what ansible
computes while it is imported; `_make_anew` does that again. Everything else that import computes follows from the
environment, the configuration file and the code, and `differs` tells when one of these is not what it was.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import pkgutil
import secrets
import signal
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

# What nearly every run imports sooner or later. A name that a version of ansible does not have is passed by.
CORE = """
ansible.cli.playbook ansible.executor.playbook_executor ansible.executor.task_queue_manager ansible.template
ansible.executor.process.worker ansible.executor.module_common ansible.executor.task_executor
ansible.playbook.handler_task_include ansible.parsing.vault ansible.modules ansible.plugins.lookup.env
ansible.utils.color ansible.utils._junit_xml curses yaml jinja2 multiprocessing.popen_fork multiprocessing.queues
multiprocessing.synchronize concurrent.futures.thread encodings.idna xml.dom.minidom
""".split()
# Every run loads all or some of ansible's own plugins of these kinds, and reads their options from their YAML.
KINDS = "become cache callback connection inventory shell strategy vars".split()
ACTIONS = "assert command debug gather_facts include_vars normal set_fact".split()
BUILTIN = "ansible_collections.ansible.builtin"
# What our steps import late; not openstack.config, which costs 11 MB and serves a rare kind of clouds.yaml only.
LIBRARIES = """
http.client ssl keystoneauth1.session keystoneauth1.adapter keystoneauth1.exceptions keystoneauth1.identity.v3
""".split()
# Ours; ansible's loader compiles a collection's code from its source in every process.
COLLECTION = "ansible_collections.c5c3.ha.plugins."
ACTION_FOLDER = Path(__file__).parents[2] / "action"
KEPT = "module_utils.kept"
OURS = [
    *(
        f"{kind}.{path.stem}"
        for path in sorted(ACTION_FOLDER.glob("[a-z]*.py"))
        for kind in ("action", "module_utils.steps")
    ),
    *(f"module_utils.{name}" for name in ("kubernetes", "nova", "clouds")),
    KEPT,
]
# Further names, blank-separated, that a site wants to have imported.
MORE = "C5C3_HA_WARM_PRELOAD"

_files: dict[str, tuple[int, int, int]] = {}
_preloaded: set[str] = set()


def warm() -> None:
    """Import all of it. What is not there, or does not like to be imported, is left to the run that needs it."""
    importlib.import_module("ansible.cli.playbook")  # this one must work
    for name in CORE + LIBRARIES + os.environ.get(MORE, "").split():
        _import(name)
    _import_plugins()
    from ansible import constants

    _files.update({name: _stamp(name) for name in _loaded_files()})
    if constants.CONFIG_FILE:
        name = os.fsdecode(constants.CONFIG_FILE)
        _files[name] = _stamp(name)
    if _depends_on_folder():
        raise RuntimeError("a path in its environment or configuration is relative; make it absolute")
    clean()
    if threading.active_count() > 1:
        raise RuntimeError(f"an import started threads: {threading.enumerate()[1:]}")
    gc.collect()
    # collections in a copy then leave these objects, and so the pages below them, alone
    gc.freeze()


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception:  # noqa: S110 - it will fail again in the run, or never be needed
        pass


def _import_plugins() -> None:
    """Import plugins, ours with ansible's own loader, which is then taken out: every run installs its own."""
    from ansible.plugins import loader
    from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

    loader._configure_collection_loader()
    try:
        _import(BUILTIN)  # its routing table is the largest YAML of all
        for name in ACTIONS:
            _import(f"ansible.plugins.action.{name}")
            _preloaded.add(f"ansible.plugins.action.{name}")
            _import(f"{BUILTIN}.plugins.action.{name}")
        for kind in KINDS:
            _read_options(getattr(loader, f"{kind}_loader"))
        loader.fragment_loader._clear_caches()
        for name in OURS:
            _import(COLLECTION + name)
        if kept := sys.modules.get(COLLECTION + KEPT):
            kept.share()
    finally:
        _AnsibleCollectionFinder._remove()
        # A run's playbook may bring collections of its own: the upper levels are then found anew.
        for name in ("ansible_collections", "ansible_collections.c5c3", "ansible_collections.ansible"):
            sys.modules.pop(name, None)


def _read_options(loader: Any) -> None:
    """Import ansible's own plugins of one kind, no other, and let `loader` read what options they have."""
    package = importlib.import_module(loader.package)
    for found in pkgutil.iter_modules(package.__path__):
        name = f"{loader.package}.{found.name}"
        if found.name == "base":
            continue  # no plugin: an old name of the package, which warns
        _import(name)
        if name in sys.modules:
            _preloaded.add(name)
            loader._load_config_defs(found.name, sys.modules[name], sys.modules[name].__file__)


def clean() -> None:
    """Remove the scratch folder that importing ansible makes, and forget to do so at exit."""
    from ansible import constants
    from ansible.utils.path import cleanup_tmp_file

    atexit.unregister(cleanup_tmp_file)
    cleanup_tmp_file(constants.DEFAULT_LOCAL_TMP)


def differs(arguments: list[str]) -> tuple[bool, str]:
    """Tell whether this run would differ from the ordinary one, given its folder and environment are on.

    Return (whether a server started now would do better, the reason or "").
    """
    from ansible import constants
    from ansible.config.manager import find_ini_config_file

    found = find_ini_config_file()
    if (os.fsdecode(found) if found else None) != (
        os.fsdecode(constants.CONFIG_FILE) if constants.CONFIG_FILE else None
    ):
        return False, "another ansible.cfg"
    for name, stamp in _files.items():
        if _stamp(name) != stamp:
            return True, f"{name} has changed"
    ours = os.path.join("ansible_collections", "c5c3", "ha")
    for argument in arguments:
        beside = os.path.join(os.path.dirname(os.path.realpath(argument)), "collections", ours)
        if not argument.startswith("-") and os.path.isfile(argument) and os.path.exists(beside):
            return False, "the playbook brings its own c5c3.ha"
    return False, ""


def _loaded_files() -> set[str]:
    standard = os.path.dirname(os.__file__)
    found = set()
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        if name and (not name.startswith(standard) or "-packages" in name):
            found.add(name)
    return found


def _stamp(name: str) -> tuple[int, int, int]:
    try:
        status = os.stat(name)
    except OSError:
        return (0, 0, 0)
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _depends_on_folder() -> bool:
    """Tell whether some setting's value depends on the folder in which ansible was imported."""
    from ansible import constants

    before = os.getcwd()
    os.chdir("/")
    try:
        for name, definition in constants.config.get_configuration_definitions().items():
            if definition.get("type") not in ("path", "pathlist", "pathspec"):
                continue
            if constants.config.get_config_value(name, variables=vars(constants)) != getattr(constants, name):
                return True
    finally:
        os.chdir(before)
    return False


def _make_anew() -> None:
    """Do again what ansible does while it is imported and what must not be shared between processes."""
    from ansible import constants
    from ansible.utils import color
    from ansible.utils import vars as identifiers
    from ansible.utils.display import Display

    for name in ("DEFAULT_LOCAL_TMP", "CACHE_PLUGIN_CONNECTION"):
        setattr(constants, name, constants.config.get_config_value(name, variables=vars(constants)))
    # the identifiers of plays and tasks, which event consumers take as unique
    identifiers.random_int = f"{secrets.randbelow(2**32):08x}"
    identifiers.cur_id = 0
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        # descriptors 0-2 are the caller's by now, the objects above them stay
        stream.reconfigure(line_buffering=descriptor == 2 or os.isatty(descriptor))
    importlib.reload(color)
    Display()._set_column_width()
    _let_directories_override()


def _let_directories_override() -> None:
    """Give way where a playbook or a role brings a plugin with the name of one of ansible's: it takes its place."""
    from ansible import constants
    from ansible.plugins import get_plugin_class
    from ansible.plugins.loader import PluginLoader

    add = PluginLoader.add_directory

    def add_directory(self: PluginLoader, directory: str, with_subdir: bool = False) -> None:
        add(self, directory, with_subdir)
        for file in Path(directory, self.subdir if with_subdir else "").glob("*.py"):
            name = f"{self.package}.{file.stem}"
            if name in _preloaded:
                sys.modules.pop(name, None)
                kind = get_plugin_class(self.class_name)
                constants.config._plugins.get(kind, {}).pop(file.stem, None)

    PluginLoader.add_directory = add_directory


def run(arguments: list[str]) -> NoReturn:
    """Be ansible-playbook, and end as an interpreter does, without taking apart what is shared with the server."""
    interrupted = False
    code: object = 1
    try:
        sys.argv = arguments
        _make_anew()
        from ansible.cli.playbook import main

        code = main(arguments)
    except SystemExit as leaving:
        code = leaving.code
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        sys.excepthook(type(error), error, error.__traceback__)
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        code = code or 120  # as the interpreter does when it cannot write the rest
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit((code or 0) & 0xFF)
