"""What outlives one run of a step, and a cloud's token with it."""

from __future__ import annotations

import json
import os
import signal

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils import clouds, kept

AUTH = {"auth_url": "http://keystone.invalid/v3", "username": "u", "password": "never shown", "project_name": "p"}


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(kept, "_memory", None)


def forked(work) -> int:
    """Run `work` in a fork; its exit code is what it returns."""
    child = os.fork()
    if not child:
        code = 99
        try:
            code = work() or 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_nothing_is_there_before():
    assert kept.get(b"a") is None
    kept.share()
    assert kept.get(b"a") is None


def test_what_one_fork_keeps_the_next_one_finds():
    kept.share()
    assert forked(lambda: kept.put(b"a", b"one")) == 0
    assert forked(lambda: 0 if kept.get(b"a") == b"one" else 1) == 0
    assert kept.get(b"a") == b"one" and kept.get(b"b") is None


def test_without_a_shared_memory_each_process_has_its_own():
    kept.put(b"a", b"one")
    forked(lambda: kept.put(b"a", b"two"))
    assert kept.get(b"a") == b"one"


def test_sharing_twice_forgets_nothing():
    kept.share()
    kept.put(b"a", b"one")
    kept.share()
    assert kept.get(b"a") == b"one"


def test_the_last_one_counts_also_a_shorter_one():
    kept.put(b"a", b"long" * 1000)
    kept.put(b"a", b"short")
    assert kept.get(b"a") == b"short"


def test_too_large_is_not_kept_and_spoils_nothing():
    kept.put(b"a", b"one")
    kept.put(b"a", bytes(kept.LARGEST))
    assert kept.get(b"a") == b"one"
    kept.put(b"a", bytes(kept.LARGEST - 68))
    assert len(kept.get(b"a")) == kept.LARGEST - 68


def test_half_written_is_not_there(monkeypatch):
    """A run that was killed between content and head, at any byte of either."""
    kept.share()
    kept.put(b"a", b"the old content, whole")
    begin = kept._slot(kept.hashlib.sha256(b"a").digest())
    whole = bytes(kept._memory[begin : begin + 200])
    kept.put(b"a", b"the new content, whole")
    new = bytes(kept._memory[begin : begin + 200])
    differing = [i for i in range(200) if whole[i] != new[i]]
    for cut in range(1, len(differing)):
        mixed = bytearray(whole)
        for i in sorted(differing, key=lambda i: (i < 68, i))[:cut]:
            mixed[i] = new[i]
        kept._memory[begin : begin + 200] = bytes(mixed)
        assert kept.get(b"a") in (None, b"the old content, whole", b"the new content, whole")
    kept._memory[begin + 64 : begin + 68] = b"\xff\xff\xff\xff"
    assert kept.get(b"a") is None


def test_killed_writers_leave_no_nonsense():
    kept.share()
    children = []
    for number in range(4):
        child = os.fork()
        if not child:
            while True:
                kept.put(b"a", bytes([number]) * 50_000)
        children.append(child)
    seen = set()
    for _ in range(500):
        content = kept.get(b"a")
        seen.add(content)
        assert content is None or (len(content) == 50_000 and len(set(content)) == 1)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    kept.put(b"a", b"calm")
    assert kept.get(b"a") == b"calm"
    assert len(seen) > 1


class Access:
    """What keystoneauth1 makes of an answer of Keystone."""

    def __init__(self, token: str, lives: bool = True) -> None:
        self.auth_token = token
        expires = "2999-01-01T00:00:00Z" if lives else "2001-01-01T00:00:00Z"
        self._data = {
            "token": {"expires_at": expires, "issued_at": "2000-01-01T00:00:00Z", "methods": [], "catalog": []}
        }


@pytest.fixture
def keystone(monkeypatch):
    """Counts logins; each gives another token."""
    from keystoneauth1.access import access
    from keystoneauth1.identity.v3 import Password

    logins: list[str] = []
    lives = {"value": True}

    def log_in(self, session, **kwargs):
        logins.append(f"token-{len(logins) + 1}")
        made = Access(logins[-1], lives["value"])
        return access.create(body=made._data, auth_token=made.auth_token)

    monkeypatch.setattr(Password, "get_auth_ref", log_in)
    return logins, lives


def token(auth: dict = AUTH) -> str:
    return clouds.open_session({"auth": auth, "cloud": None})[0].get_token()


def test_the_second_run_has_the_firsts_token(keystone):
    logins, _lives = keystone
    assert [token(), token()] == ["token-1", "token-1"]
    assert logins == ["token-1"]


def test_another_password_is_another_login(keystone):
    token()
    assert token({**AUTH, "password": "another"}) == "token-2"
    assert token() == "token-1"


def test_one_that_has_expired_is_not_used(keystone):
    _logins, lives = keystone
    lives["value"] = False
    token()
    lives["value"] = True
    assert token() == "token-2" and token() == "token-2"


def test_a_refused_token_is_replaced_for_all(keystone):
    session = clouds.open_session({"auth": AUTH, "cloud": None})[0]
    assert session.get_token() == "token-1"
    session.invalidate()  # as keystoneauth1 does at a 401
    assert session.get_token() == "token-2"
    assert token() == "token-2"


@pytest.mark.parametrize("state", [b"", b"{", b"[]", b'{"auth_token": "x"}', json.dumps({"auth_token": 1}).encode()])
def test_nonsense_is_a_login(keystone, monkeypatch, state):
    monkeypatch.setattr(kept, "get", lambda name: state)
    assert token() == "token-1"


def test_the_password_is_not_what_is_kept(keystone):
    token()
    assert b"never shown" not in bytes(kept._memory)
