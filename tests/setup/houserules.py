"""The project's own rules that no linter knows; each names the file, the line and the remedy."""

from __future__ import annotations

import re

import yaml

from tests.setup import collection, system

# written in pieces, since this file obeys the rule too
REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("crates", "io"),
        ("proxy", "golang", "org"),
        ("sum", "golang", "org"),
        ("registry", "npmjs", "org"),
        ("repo1", "maven", "org"),
        ("repo", "maven", "apache", "org"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("archive", "ubuntu", "com"),
    )
]
PRIVATE_KEY = re.compile(r"-{5}BEGIN [A-Z ]*" + r"PRIVATE KEY-{5}\s*\n\s*[A-Za-z0-9+/=]{20}")
HEADER = (
    "# -*- coding: utf-8 -*-\n"
    "# Copyright: (c) 2026, The c5c3.ha authors\n"
    "# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)\n"
    "# SPDX-License-Identifier: GPL-3.0-or-later\n"
)


def texts() -> dict[str, str]:
    """Return the text files of the checkout by name."""
    found = {}
    for name in collection.files():
        path = system.ROOT / name
        if path.is_symlink() or not path.is_file() or path.stat().st_size > 2_000_000:
            continue
        try:
            found[name] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


def registries(files: dict[str, str]) -> list[str]:
    """A machine's own configuration says where packages come from; no file of ours does."""
    wanted = re.compile("|".join(rf"\b{re.escape(host)}\b" for host in REGISTRIES))
    return [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: names a package registry's host ({match.group()}); leave it to the machine's configuration"
        for name, text in files.items()
        for match in wanted.finditer(text)
    ]


def private_keys(files: dict[str, str]) -> list[str]:
    """Keys are made when they are needed, never kept in the repository."""
    return [
        f"{name}: holds a private key; make it at run time" for name, text in files.items() if PRIVATE_KEY.search(text)
    ]


def headers(files: dict[str, str]) -> list[str]:
    """Every Python file that is shipped says its licence in the same four lines."""
    return [
        f"{name}: begin with the four header lines of tests/setup/houserules.py"
        for name, text in files.items()
        if name.endswith(".py")
        and name.startswith(("plugins/", "extensions/"))
        and text.strip()
        and not text.removeprefix("#!/usr/bin/python\n").startswith(HEADER)
    ]


def action_groups(files: dict[str, str]) -> list[str]:
    """Every module stands in the action group `all`, and no group names one that is not there."""
    modules = {
        f"c5c3.ha.{name.removeprefix('plugins/modules/').removesuffix('.py')}"
        for name in files
        if re.fullmatch(r"plugins/modules/[a-z]\w*\.py", name)
    }
    groups = yaml.safe_load(files["meta/runtime.yml"])["action_groups"]
    problems = [f"meta/runtime.yml: action group all lacks {name}" for name in sorted(modules - set(groups["all"]))]
    for group, members in groups.items():
        problems += [
            f"meta/runtime.yml: action group {group} names {name}, which is no module"
            for name in members
            if isinstance(name, str) and name not in modules
        ]
    return problems


def role_readmes(files: dict[str, str]) -> list[str]:
    """Every role has a README and an argument specification that describes each of its defaults."""
    problems = []
    for role in sorted({name.split("/")[1] for name in files if name.startswith("roles/") and name.count("/") > 1}):
        for needed in ("README.md", "meta/argument_specs.yml"):
            if f"roles/{role}/{needed}" not in files:
                problems.append(f"roles/{role}: has no {needed}")
        defaults = yaml.safe_load(files.get(f"roles/{role}/defaults/main.yml", "")) or {}
        specs = (yaml.safe_load(files.get(f"roles/{role}/meta/argument_specs.yml", "")) or {}).get("argument_specs", {})
        options = {name for spec in specs.values() for name in (spec.get("options") or {})}
        problems += [
            f"roles/{role}: {name} is in defaults/main.yml but not in meta/argument_specs.yml"
            for name in sorted(set(defaults) - options)
        ]
        problems += [
            f"roles/{role}: variable {name} does not begin with {role}_"
            for name in sorted(defaults)
            if not name.startswith(f"{role}_")
        ]
    return problems


def links(files: dict[str, str]) -> list[str]:
    """A relative link in a Markdown page leads somewhere."""
    problems = []
    for name, text in files.items():
        if not name.endswith(".md"):
            continue
        folder = (system.ROOT / name).parent
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text):
            if not (folder / target).exists():
                problems.append(f"{name}: link to {target}, which is not there")
    return problems


def check() -> tuple[bool, str]:
    """Return (clean, findings)."""
    files = texts()
    problems = [
        problem
        for rule in (registries, private_keys, headers, action_groups, role_readmes, links)
        for problem in rule(files)
    ]
    return not problems, "\n".join(problems) + "\n"
