"""Rules of a rulebook that fire for events, by ansible-rulebook's own parser and engine. A process of its own: it holds a JVM.

Reads events from stdin, one JSON object a line; writes the names of the rules that fired, one JSON list a line.
"""

from __future__ import annotations

import json
import sys

import yaml
from ansible_rulebook.json_generator import visit_ruleset
from ansible_rulebook.rules_parser import parse_rule_sets
from drools.rule import Rule
from drools.ruleset import Ruleset, assert_event


def main(rulebook: str) -> None:
    """Answer each line of stdin."""
    with open(rulebook, encoding="utf-8") as file:
        (parsed,) = parse_rule_sets(yaml.safe_load(file))
    ruleset = Ruleset(name=parsed.name, serialized_ruleset=json.dumps(visit_ruleset(parsed, {})["RuleSet"]))
    fired: list[str] = []
    for rule in parsed.rules:
        ruleset.add_rule(Rule(name=rule.name, callback=lambda _results, name=rule.name: fired.append(name)))
    for line in sys.stdin:
        fired.clear()
        assert_event(parsed.name, line)
        print(json.dumps(fired), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
