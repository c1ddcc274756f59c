# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of Nova and Placement where their own answers have gaps."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from keystoneauth1 import exceptions

from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova, NovaNotFound, NovaUnavailable, server_facts

NOW = 1_800_000_000.0
SERVER, MIGRATION = "0ebbc390-82b5-44ca-809b-8b923e3353f2", "9b2b8b3e-1111-4222-8333-444455556666"


@pytest.fixture
def nova(monkeypatch):
    """A Nova whose requests go to ``answer(method, path, body, params)``; they are kept in ``asked``."""
    made = Nova.__new__(Nova)
    made.asked = []

    def request(method, path, body=None, params=None, **_more):
        made.asked.append((method, path, body, dict(params or {})))
        return made.answer(method, path, params or {})

    monkeypatch.setattr(made, "_request", request)
    return made


def record(number: int, status: str, created: str, updated: str | None) -> dict:
    return {"id": number, "instance_uuid": SERVER, "status": status, "created_at": created, "updated_at": updated}


def test_records_that_were_never_changed_are_found_too(nova):
    """changes-since looks at updated_at, which a record that nobody has begun does not have."""
    old = record(1, "accepted", "2027-01-15T06:00:00.000000", None)
    changed = record(2, "done", "2027-01-15T07:50:00.000000", "2027-01-15T07:59:00.000000")
    begun = record(3, "accepted", "2027-01-15T07:55:00.000000", "2027-01-15T07:56:00.000000")
    fresh = record(4, "accepted", "2027-01-15T07:58:00.000000", None)

    def answer(_method, _path, params):
        accepted = params.get("status") == "accepted"
        return {"migrations": [fresh, begun, old] if accepted else [changed, begun]}

    nova.answer = answer
    found = nova.migrations(host="cmp01", since=NOW - 3600)
    assert [each.id for each in found] == [4, 3, 2]
    assert [params for *_rest, params in nova.asked] == [
        {"host": "cmp01", "changes-since": "2027-01-15T07:00:00Z"},
        {"host": "cmp01", "status": "accepted"},
    ]


def test_a_broken_off_live_migrations_allocation_goes_back_to_its_server(nova):
    held = {"allocations": {"source": {"resources": {"VCPU": 1}, "generation": 7}}, "consumer_generation": 1}
    own = {"allocations": {"target": {"resources": {"VCPU": 1}}}, "consumer_generation": 4}
    owner = {"project_id": "p", "user_id": "u"}
    nova.answer = lambda method, path, params: {**(held if path.endswith(MIGRATION) else own), **owner}
    assert nova.take_back_allocation(SERVER, MIGRATION)
    assert nova.asked[-1][:3] == (
        "POST",
        "/allocations",
        {
            MIGRATION: {"allocations": {}, "consumer_generation": 1, **owner},
            SERVER: {"allocations": {"source": {"resources": {"VCPU": 1}}}, "consumer_generation": 4, **owner},
        },
    )


def test_what_was_taken_back_already_is_left(nova):
    nova.answer = lambda method, path, params: {"allocations": {}}
    assert not nova.take_back_allocation(SERVER, MIGRATION)
    assert [method for method, *_rest in nova.asked] == ["GET"]


def test_an_allocation_is_given_up_once(nova):
    nova.answer = lambda method, path, params: {}
    nova.drop_allocation(MIGRATION)

    def gone(_method, _path, _params):
        raise NovaNotFound("no such consumer", 404)

    nova.answer = gone
    nova.drop_allocation(MIGRATION)
    assert [(method, path) for method, path, *_rest in nova.asked] == [("DELETE", f"/allocations/{MIGRATION}")] * 2


def test_when_a_server_was_changed():
    assert server_facts({"id": SERVER, "updated": "2027-01-15T08:00:00Z"}).changed == NOW
    assert server_facts({"id": SERVER}).changed is None


class Api:
    """Answers in turn; an error is raised."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def request(self, path, method, **_more):
        self.asked.append(method)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(status_code=200, content=b"{}", json=lambda: answer)


def nova_of(*answers) -> Nova:
    made = Nova.__new__(Nova)
    made._api, made._timeout = Api(*answers), 1.0
    return made


def test_a_question_on_a_connection_that_was_just_closed_is_asked_again():
    made = nova_of(exceptions.ConnectFailure("reset by peer"), {"services": []})
    assert made.services() == []
    with pytest.raises(NovaUnavailable, match="does not answer"):
        nova_of(exceptions.ConnectFailure("refused"), exceptions.ConnectFailure("refused")).services()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda nova: nova.evacuate(SERVER), exceptions.ConnectFailure("reset by peer")),
        (lambda nova: nova.services(), exceptions.ConnectTimeout("timed out")),
    ],
)
def test_what_acts_and_what_took_its_time_is_not_sent_again(call, error):
    made = nova_of(error, {})
    with pytest.raises(NovaUnavailable):
        call(made)
    assert len(made._api.asked) == 1


def test_a_refusal_is_one_line():
    made = nova_of()
    refusal = {"computeFault": {"message": "Unexpected API Error.\n<class 'nova.exception.UnexpectedTaskStateError'>"}}
    made._api.request = lambda *_args, **_more: SimpleNamespace(status_code=500, content=b"x", json=lambda: refusal)
    with pytest.raises(NovaUnavailable, match="Error. <class 'nova.exception.UnexpectedTaskStateError'>"):
        made.reboot_hard(SERVER)
