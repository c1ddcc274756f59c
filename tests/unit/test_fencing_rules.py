"""What a fence target may be, and what answers mean."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import fencing_rules as rules

UUID = "a1234567-89ab-cdef-a123-456789abcde1"
SECRET = {"username": b"fencer", "password": b"s3cr3t pass"}
REDFISH = {
    "agent": "fence_redfish",
    "address": "bmc01.example.org:8443",
    "systemId": UUID,
    "secretRef": {"name": "bmc"},
}


def refused(fencing: dict | None, secret: dict[str, bytes] | None = None) -> rules.FencingError:
    with pytest.raises(rules.FencingError) as caught:
        rules.make_target("cmp01", fencing, SECRET if secret is None else secret)
    assert "cmp01" in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


# --- the target -----------------------------------------------------------------------------------------------------


def test_a_whole_target():
    parameters = {"ssl_insecure": "1", "power_wait": "2"}
    target = rules.make_target("cmp01", {**REDFISH, "parameters": parameters}, SECRET)
    assert (target.address, target.port, target.system_id) == ("bmc01.example.org", 8443, UUID)
    assert (target.username, target.password) == ("fencer", "s3cr3t pass")
    assert target.parameters == (("power_wait", "2"), ("ssl_insecure", "1"))
    assert target.is_redfish and target.where == "bmc01.example.org:8443"


def test_the_secret_is_in_no_text_of_the_target():
    target = rules.make_target("cmp01", REDFISH, SECRET)
    assert "s3cr3t" not in f"{target!r} {target}"


@pytest.mark.parametrize("fencing", [None, {}, {"agent": ""}, {"address": "10.0.0.1"}, "fence_redfish"])
def test_not_configured(fencing):
    assert refused(fencing).reason == rules.NOT_CONFIGURED


def test_no_fencing_by_declaration():
    assert refused({"agent": "none"}).reason == rules.NO_FENCING


@pytest.mark.parametrize(
    "agent",
    [
        *("fence_dummy", "fence_kdump", "fence_apc", "fence_virsh"),
        *("/bin/sh", "fence_redfish;id", "fence_redfish\n", "fence_", "Fence_redfish", "../fence_redfish", "--help"),
        *(5, ["fence_redfish"], {"a": 1}, True),
    ],
)
def test_agents_that_are_refused(agent):
    assert refused({**REDFISH, "agent": agent}).reason == rules.INVALID_TARGET


@pytest.mark.parametrize("agent", sorted(rules.REDFISH_AGENTS | rules.IPMI_AGENTS))
def test_agents_that_are_taken(agent):
    assert rules.make_target("cmp01", {**REDFISH, "agent": agent}, SECRET).agent == agent


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.9", ("10.0.0.9", 0)),
        ("10.0.0.9:8000", ("10.0.0.9", 8000)),
        ("https://10.0.0.9:8000", ("10.0.0.9", 8000)),
        ("bmc-1.example.org", ("bmc-1.example.org", 0)),
        ("bmc_1:1", ("bmc_1", 1)),
        ("fd00::1", ("fd00::1", 0)),
        ("[fd00::1]", ("fd00::1", 0)),
        ("[fd00::1]:443", ("fd00::1", 443)),
    ],
)
def test_addresses(address, expected):
    assert rules.checked_address("cmp01", address) == expected


@pytest.mark.parametrize(
    "address",
    [
        *(
            None,
            "",
            7,
            ["10.0.0.9"],
            "-v",
            "127.0.0.1 -v",
            "127.0.0.1\n",
            "127.0.0.1\nport=1",
            "a=b",
            "a;b",
            "a b",
            "$(id)",
        ),
        *("10.0.0.9:", "10.0.0.9:0", "10.0.0.9:65536", "10.0.0.9:http", "10.0.0.9:8000/redfish", "10.0.0.9/redfish"),
        *(
            "http://10.0.0.9",
            "https://",
            "https://u:p@h",
            "u@h",
            "[10.0.0.9]:5",
            "[fd00::1",
            "[fd00::1]x",
            "fd00::1%eth0",
        ),
        *("127.1", "0x7f.1", "1", "a..b", ".a", "a-", "-a", "b\u00fcro", "a\0b", "x" * 64, "a." * 127 + "ab"),
    ],
)
def test_addresses_that_are_refused(address):
    assert refused({**REDFISH, "address": address}).reason == rules.INVALID_TARGET


@given(st.text(max_size=60))
def test_no_address_holds_what_a_command_line_or_a_line_would_take_for_something_else(text):
    try:
        name, port = rules.checked_address("cmp01", text)
    except rules.FencingError:
        return
    assert name and not name.startswith("-") and 0 <= port < 65536
    assert all(character.isascii() and (character.isalnum() or character in "._-:") for character in name)


@pytest.mark.parametrize(
    "system",
    [
        *(None, "", 5, [], "-v", "a b", "a\nb", "a\0", "x" * 254, "a=b", 'a"b', "a;b"),
        *("00000000-0000-0000-0000-000000000000", "03000200-0400-0500-0006-000700080009", "F" * 32),
    ],
)
def test_system_ids_that_are_refused(system):
    assert refused({**REDFISH, "systemId": system}).reason == rules.INVALID_TARGET


def test_ipmi_wants_a_guid():
    error = refused({**REDFISH, "agent": "fence_ipmilan", "systemId": "SERIAL123"})
    assert error.reason == rules.INVALID_TARGET and "mc guid" in str(error)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"username": b"fencer"}, rules.NOT_CONFIGURED),
        ({"password": b"x"}, rules.NOT_CONFIGURED),
        ({"username": b"", "password": b"x"}, rules.NOT_CONFIGURED),
        ({"username": b"fencer", "password": b"s3cr3t\n"}, rules.INVALID_TARGET),
        ({"username": b"fencer\n", "password": b"s3cr3t"}, rules.INVALID_TARGET),
        ({"username": b"fencer", "password": b"s3cr3t\naction=on"}, rules.INVALID_TARGET),
        ({"username": b"fencer", "password": b"s3cr3t\r"}, rules.INVALID_TARGET),
        ({"username": b"fencer", "password": "s3cr3t\u2028x".encode()}, rules.INVALID_TARGET),
        ({"username": b"fencer", "password": b"s3cr3t\xff"}, rules.INVALID_TARGET),
        ({"username": b"fencer", "password": b"s3cr3t" * 50}, rules.INVALID_TARGET),
        ({"username": b"-U", "password": b"s3cr3t"}, rules.INVALID_TARGET),
        ({"username": b"a:b", "password": b"s3cr3t"}, rules.INVALID_TARGET),
        ({"username": b"fencer", "password": b"s3cr3t", "ca.crt": b"nothing"}, rules.INVALID_TARGET),
    ],
)
def test_secrets_that_are_refused(data, reason):
    error = refused(REDFISH, data)
    assert error.reason == reason
    assert "s3cr3t" not in str(error)


def test_without_a_secret():
    with pytest.raises(rules.FencingError, match="secretRef") as caught:
        rules.make_target("cmp01", REDFISH, None)
    assert caught.value.reason == rules.NOT_CONFIGURED


@pytest.mark.parametrize(
    "parameters",
    [
        {"method": "cycle"},
        {"action": "on"},
        {"cipher": "3 -v"},
        {"cipher": 3},
        {"power_wait": "60"},
        ["cipher"],
        {1: "1"},
    ],
)
def test_parameters_that_are_refused(parameters):
    assert refused({**REDFISH, "parameters": parameters}).reason == rules.INVALID_TARGET


# --- what the agent reads -------------------------------------------------------------------------------------------


def read_as_the_agents_do(lines: str) -> dict[str, str]:
    """fencing.py, _parse_input_stdin."""
    import re

    options = {}
    for line in lines.splitlines():
        line = line.strip()
        if line.startswith("#") or not line:
            continue
        name, value = (line + "=").split("=", 1)
        options[name] = re.sub('^"(.*)"$', "\\1", value[:-1])
    return options


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
def test_every_value_that_is_taken_arrives_as_it_is(password, username):
    data = {"username": username.encode(), "password": password.encode()}
    try:
        target = rules.make_target("cmp01", REDFISH, data)
    except rules.FencingError:
        return
    lines = rules.agent_lines(target, "off", {"password": target.password})
    read = read_as_the_agents_do(lines)
    assert (read["username"], read["password"], read["action"]) == (username, password, "off")
    assert set(read) == {"action", "ip", "username", "power_wait", "ipport", "password"}


@pytest.mark.parametrize("password", [" a ", '"a"', '"', "a=b", "#a", "\u00e4", " ", "a\u00a0"])
def test_odd_passwords_arrive(password):
    target = rules.FenceTarget("cmp01", "fence_redfish", "h", UUID, "u", password)
    assert read_as_the_agents_do(rules.agent_lines(target, "off", {"password": password}))["password"] == password


@pytest.mark.parametrize("action", ["reboot", "cycle", "on", "diag", ""])
def test_only_off_and_status(action):
    with pytest.raises(ValueError, match="neither off nor status"):
        rules.agent_lines(rules.FenceTarget("cmp01", "fence_redfish", "h", UUID), action, {})


def test_an_ipv6_address_in_a_url_has_brackets():
    target = rules.FenceTarget("cmp01", "fence_redfish", "fd00::1", UUID)
    assert "ip=[fd00::1]\n" in rules.agent_lines(target, "off", {})
    target = rules.FenceTarget("cmp01", "fence_ipmilan", "fd00::1", UUID)
    assert "ip=fd00::1\n" in rules.agent_lines(target, "off", {})
    assert target.where == "[fd00::1]"


# --- which system ---------------------------------------------------------------------------------------------------

SMBIOS = str(uuid.UUID(bytes_le=uuid.UUID(UUID).bytes))
REVERSED = uuid.UUID(bytes=uuid.UUID(UUID).bytes[::-1]).hex


@pytest.mark.parametrize("other", [UUID, UUID.upper(), UUID.replace("-", ""), SMBIOS, REVERSED])
def test_one_guid_in_every_byte_order(other):
    assert rules.same_guid(UUID, other) and rules.same_guid(other, UUID)


@pytest.mark.parametrize("other", [None, "", 5, "x" * 36, UUID[:-1] + "2", UUID[:-1], "0" * 32])
def test_other_guids(other):
    assert not rules.same_guid(UUID, other)


@given(st.uuids(), st.uuids())
def test_two_guids_are_one_only_when_their_bytes_are(one, other):
    if sorted(one.bytes) != sorted(other.bytes):
        assert not rules.same_guid(str(one), str(other))
    assert not rules.same_guid("0" * 32, "0" * 32)


OTHER = "b1234567-89ab-cdef-a123-456789abcde1"


def test_the_system_is_found_by_uuid_and_by_serial_number():
    systems = [("/1", {"UUID": OTHER, "SerialNumber": "S1"}), ("/2", {"UUID": UUID, "SerialNumber": "S2"}), ("/3", {})]
    assert rules.matching_systems(UUID, systems) == [systems[1]]
    assert rules.matching_systems(f"/redfish/v1/Systems/{UUID}", systems) == [systems[1]]
    assert rules.matching_systems("S1", systems) == [systems[0]]


@pytest.mark.parametrize("wanted", ["1", "/redfish/v1/Systems/1", "System.Embedded.1", "None", OTHER[:-1] + "5"])
def test_a_name_within_the_controller_is_no_identity(wanted):
    systems = [(f"/redfish/v1/Systems/{name}", {"Id": name, "UUID": UUID}) for name in ("1", "System.Embedded.1")]
    assert rules.matching_systems(wanted, systems) == []


@pytest.mark.parametrize(
    "path", [None, 5, "", "/", "/redfish/v2/x", "http://h/redfish/v1/x", "/redfish/v1/a b", "/redfish/v1/a\r\nX: y"]
)
def test_paths_that_are_not_asked_for(path):
    assert rules.usable_path(path) is None


def test_wrong_system_tells_what_was_found():
    target = rules.make_target("cmp01", REDFISH, SECRET)
    text = rules.wrong_system(target, ["/redfish/v1/Systems/1 " + OTHER])
    assert OTHER in text and UUID in text and "nothing was switched" in text and "bmc01.example.org:8443" in text


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "output", "power"),
    [
        (0, "Status: ON\n", "on"),
        (2, "Status: OFF\n", "off"),
        (2, "", None),  # python3 that does not find the agent
        (2, "usage: fence_x [-h]\n", None),
        (0, "Status: OFF\n", None),
        (2, "Status: ON\n", None),
        (1, "Status: OFF\n", None),
        (0, "Success: Already OFF\n", None),
        (0, "", None),
        (2, "my Status: OFF\n", None),
        (2, "Status: OFFLINE\n", None),
        (-9, "Status: OFF\n", None),
    ],
)
def test_power(code, output, power):
    assert rules.agent_power(code, output) == power


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("> RAKP 2 HMAC is invalid\nError: Unable to establish IPMI v2 / RMCP+ session", rules.AUTHENTICATION_FAILED),
        ("RAKP 2 message indicates an error : unauthorized name", rules.AUTHENTICATION_FAILED),
        ("ERROR:root:Unable to connect/login to fencing device", rules.AUTHENTICATION_FAILED),
        ("401 Client Error: Unauthorized for url", rules.AUTHENTICATION_FAILED),
        ("Error: Unable to establish IPMI v2 / RMCP+ session", rules.UNREACHABLE),
        ("[Errno 111] Connection refused", rules.UNREACHABLE),
        ("Address lookup for bmc1 failed", rules.UNREACHABLE),
        ("ERROR:root:Connection timed out", rules.UNREACHABLE),
        ("ERROR:root:Failed: Timed out waiting to power OFF", rules.STAYS_ON),
        ("Traceback (most recent call last):", rules.AGENT_FAILED),
        ("", rules.AGENT_FAILED),
    ],
)
def test_problems(output, reason):
    assert rules.problem(output) == reason


@pytest.mark.parametrize(
    ("output", "guid"),
    [
        (f"System GUID  : {UUID}\nTimestamp    : 12/15/2077 16:26:15\n", UUID),
        (f"System GUID  : {UUID.replace('-', '')}\nGUID Encoding : SMBIOS\n", UUID.replace("-", "")),
        (f"GUID of another : {UUID}", None),
        ("System GUID  : none", None),
        ("", None),
    ],
)
def test_mc_guid(output, guid):
    assert rules.mc_guid(output) == guid


def test_words_are_one_printable_line_without_secrets():
    text = rules.words("a\x1b[31m\n\n  b s3cr3t  c\nERROR:root:Please use '-h' for usage\n", ["s3cr3t", ""])
    assert text == "a?[31m; b *** c"
    assert len(rules.words("x" * 1000)) == 300


@given(st.text(max_size=400), st.text(min_size=1, max_size=8))
def test_words_of_anything(output, secret):
    text = rules.words(output, [secret], 50)
    assert len(text) <= 50 and text.isprintable()


@pytest.mark.parametrize("reason", sorted(rules.PERMANENT | {rules.UNREACHABLE, rules.STAYS_ON, rules.TIMEOUT}))
def test_every_reason_has_a_remedy(reason):
    assert rules.remedy(reason)
