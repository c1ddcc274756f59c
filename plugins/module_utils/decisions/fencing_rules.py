# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fence target is, and what the answers of fence agents and management controllers mean. No I/O.

A host counts as off only when the controller that was proven to be the host's own says so. A text that is not
understood is never taken for "off".
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from ansible_collections.c5c3.ha.plugins.module_utils.errors import HaError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import shown

OFF = "Off"
ALREADY_OFF = "AlreadyOff"
ON = "On"  # of a status query only
NOT_CONFIGURED = "NotConfigured"
NO_FENCING = "NoFencing"
WRONG_SYSTEM = "WrongSystem"
AUTHENTICATION_FAILED = "AuthenticationFailed"
UNREACHABLE = "Unreachable"
STAYS_ON = "StaysOn"
TIMEOUT = "Timeout"
AGENT_MISSING = "AgentMissing"
INVALID_TARGET = "InvalidTarget"
AGENT_FAILED = "AgentFailed"

# Asking again cannot help before a person has changed something; a wrong password asked often locks the account.
PERMANENT = frozenset((NOT_CONFIGURED, NO_FENCING, WRONG_SYSTEM, AUTHENTICATION_FAILED, AGENT_MISSING, INVALID_TARGET))

# spec.fencing.agent by which a site declares that this host cannot be fenced.
NONE = "none"
# Only agents whose system can be told apart from every other one. fence_dummy, for one, always reports success.
REDFISH_AGENTS = frozenset(("fence_redfish",))
IPMI_AGENTS = frozenset(
    ("fence_ipmilan", "fence_ipmilanplus", "fence_idrac", "fence_ilo3", "fence_ilo4", "fence_ilo5", "fence_imm")
)

_AGENT = re.compile(r"fence_[a-z0-9_]{1,58}")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_SYSTEM_ID = re.compile(r"[A-Za-z0-9/][A-Za-z0-9._:/+-]{0,252}")
_REDFISH_PATH = re.compile(r"/redfish/v1/[A-Za-z0-9._~:%/@!$&'()*+,;=-]{1,230}")
_REDFISH_PAGE = re.compile(_REDFISH_PATH.pattern + r"(\?[A-Za-z0-9._~:%/@!$&'()*+,;=-]{0,230})?")
_GUID = re.compile(r"[0-9a-fA-F]{32}")
# Some firmware gives every board one of these.
_PLACEHOLDERS = frozenset(("0" * 32, "f" * 32, "00020003000400050006000700080009", "03000200040005000006000700080009"))
_MC_GUID = re.compile(r"^\s*System GUID\s*:\s*([0-9a-fA-F-]{32,36})\s*$", re.MULTILINE)

# name: pattern of the value. Each goes to the fence agent under this name.
PARAMETERS = {
    "cipher": re.compile(r"[0-9]|1[0-9]"),
    "privlvl": re.compile(r"callback|user|operator|administrator"),
    "ssl_insecure": re.compile(r"[01]"),
    "power_wait": re.compile(r"[0-9]|[1-5][0-9]"),
}


class FencingError(HaError):
    """A host cannot be fenced as it is configured.

    :ivar reason: one of this module's reasons.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class FenceTarget:
    """One host's power switch. The secret stays out of its repr.

    :param host: name of the Hypervisor.
    :param agent: a fence agent, or ``none``.
    :param address: host name or IP address of the management controller.
    :param system_id: UUID or serial number (Redfish), GUID as ``ipmitool mc guid`` tells it (IPMI).
    :param port: TCP or UDP port, 0 for the protocol's own.
    :param parameters: further options of the agent, name and value.
    :param ca: certificate authority of the controller, PEM; empty means the machine's own.
    """

    host: str
    agent: str
    address: str = ""
    system_id: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    port: int = 0
    parameters: tuple[tuple[str, str], ...] = ()
    ca: str = field(default="", repr=False)

    @property
    def is_redfish(self) -> bool:
        """Whether the controller is asked by Redfish; otherwise by IPMI."""
        return self.agent in REDFISH_AGENTS

    @property
    def where(self) -> str:
        """The controller for messages, such as ``10.0.0.9:8000``."""
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}" if self.port else address


@dataclass(frozen=True)
class FenceResult:
    """What came of fencing, or of asking for the state.

    :param off: proven off: the right system said so, later than any command. Nothing else allows an evacuation.
    :param reason: one of this module's reasons.
    :param message: what was seen and what to do, without secrets.
    :param seconds: how long it took.
    :param power: ``on``, ``off`` or ``unknown`` as last seen from the right system.
    """

    off: bool
    reason: str
    message: str
    seconds: float = 0.0
    power: str = "unknown"


# --- the target -----------------------------------------------------------------------------------------------------


def make_target(host: str, fencing: dict | None, secret: dict[str, bytes] | None) -> FenceTarget:
    """Return the target that ``spec.fencing`` and the decoded data of its Secret describe.

    :param secret: None when ``spec.fencing`` names none.
    :raises FencingError: NotConfigured, NoFencing or InvalidTarget; the text names the field and what to write there.
    """
    agent = checked_agent(host, fencing)
    spec = fencing or {}
    address, port = checked_address(host, spec.get("address"))
    if secret is None:
        raise FencingError(
            NOT_CONFIGURED,
            f"Hypervisor {host}: spec.fencing has no secretRef: name a Secret with the keys username and password",
        )
    target = FenceTarget(
        host,
        agent,
        address,
        checked_system(host, agent, spec.get("systemId")),
        _credential(host, secret, "username"),
        _credential(host, secret, "password"),
        port,
        checked_parameters(host, spec.get("parameters")),
        _authority(host, secret),
    )
    if target.username.startswith("-") or ":" in target.username:
        raise FencingError(INVALID_TARGET, f"Hypervisor {host}: username of its Secret begins with '-' or holds ':'")
    return target


def checked_agent(host: str, fencing: dict | None) -> str:
    """Return the agent's name.

    :raises FencingError: there is none, it is ``none``, or it is not one whose system can be checked.
    """
    if not isinstance(fencing, dict) or not fencing.get("agent"):
        raise FencingError(
            NOT_CONFIGURED,
            f"Hypervisor {host} has no spec.fencing: nothing can prove that this host is off. Give agent, address,"
            " systemId and secretRef (module c5c3.ha.hypervisor, option fencing)",
        )
    agent = fencing["agent"]
    if agent == NONE:
        raise FencingError(
            NO_FENCING, f"Hypervisor {host}: spec.fencing.agent is none: this host is never switched off"
        )
    if not isinstance(agent, str) or not _AGENT.fullmatch(agent):
        raise FencingError(
            INVALID_TARGET,
            f"Hypervisor {host}: spec.fencing.agent {shown(agent)} is no fence agent: use one such as fence_redfish",
        )
    if agent not in REDFISH_AGENTS | IPMI_AGENTS:
        raise FencingError(
            INVALID_TARGET,
            f"Hypervisor {host}: spec.fencing.agent {agent} switches a system whose identity cannot be checked. Use one of"
            f" {', '.join(sorted(REDFISH_AGENTS | IPMI_AGENTS))}; or none, and evacuate by hand",
        )
    return agent


def checked_address(host: str, address: object) -> tuple[str, int]:
    """Return (host name or IP address without brackets, port or 0).

    :raises FencingError: InvalidTarget when it is anything else, such as an option of a program.
    """
    if not address:
        raise FencingError(
            INVALID_TARGET,
            f"Hypervisor {host}: spec.fencing has no address: give the management controller's host name or IP address",
        )
    text = address if isinstance(address, str) else ""
    text = text.removeprefix("https://")
    try:
        name, port = _split_port(text)
        if not _is_ip(name) and not _is_host_name(name):
            raise ValueError(name)
    except ValueError:
        raise FencingError(
            INVALID_TARGET,
            f"Hypervisor {host}: spec.fencing.address {shown(address)} is no address: give HOST, HOST:PORT or [IPv6]:PORT",
        ) from None
    return name, port


def _split_port(text: str) -> tuple[str, int]:
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or ":" not in name:
            raise ValueError(text)
        port = rest[1:] if rest else ""
    elif text.count(":") == 1:
        name, _colon, port = text.partition(":")
        rest = ":"
    else:
        name, rest, port = text, "", ""
    if not rest:
        return name, 0
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError(text)
    return name, int(port)


def _is_ip(text: str) -> bool:
    try:
        return "%" not in text and bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def _is_host_name(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    # "127.1" and "0x7f.1" are addresses to the C library.
    numeric = re.fullmatch(r"[0-9]+|0[xX][0-9a-fA-F]*", labels[-1]) is not None
    return len(text) <= 253 and not numeric and all(_LABEL.fullmatch(label) for label in labels)


def checked_system(host: str, agent: str, system_id: object) -> str:
    """Return what identifies the system.

    :raises FencingError: InvalidTarget when it is missing, or cannot tell this host from another.
    """
    how = (
        "give the system's UUID (dmidecode -s system-uuid on the host) or its serial number"
        if agent in REDFISH_AGENTS
        else "give the GUID that ipmitool mc guid tells"
    )
    if not system_id:
        raise FencingError(
            INVALID_TARGET,
            f"Hypervisor {host}: spec.fencing has no systemId, so a wrong address would switch off another host: {how}",
        )
    if not isinstance(system_id, str) or not _SYSTEM_ID.fullmatch(system_id):
        raise FencingError(
            INVALID_TARGET, f"Hypervisor {host}: spec.fencing.systemId {shown(system_id)} identifies no system: {how}"
        )
    guid = normal_guid(last_part(system_id))
    if guid in _PLACEHOLDERS or (guid is None and agent in IPMI_AGENTS):
        raise FencingError(
            INVALID_TARGET, f"Hypervisor {host}: spec.fencing.systemId {shown(system_id)} is no host's own: {how}"
        )
    return system_id


def checked_parameters(host: str, parameters: object) -> tuple[tuple[str, str], ...]:
    """Return further options of the agent, sorted by name.

    :raises FencingError: InvalidTarget for one that is not known here, or whose value does not fit.
    """
    if not parameters:
        return ()
    pairs = parameters.items() if isinstance(parameters, dict) else (("", ""),)
    for name, value in pairs:
        pattern = PARAMETERS.get(name) if isinstance(name, str) else None
        if pattern is None or not isinstance(value, str) or not pattern.fullmatch(value):
            raise FencingError(
                INVALID_TARGET,
                f"Hypervisor {host}: spec.fencing.parameters {shown(name)}: {shown(value)} is not possible: use"
                f" {', '.join(f'{name} ({pattern.pattern})' for name, pattern in sorted(PARAMETERS.items()))}",
            )
    return tuple(sorted(pairs))


def _credential(host: str, secret: dict[str, bytes], key: str) -> str:
    if not secret.get(key):
        raise FencingError(
            NOT_CONFIGURED,
            f"Hypervisor {host}: the Secret of spec.fencing.secretRef has no {key}: it needs the keys username and password",
        )
    try:
        text = secret[key].decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if text.endswith("\n"):
        raise FencingError(
            INVALID_TARGET,
            f"Hypervisor {host}: {key} of its Secret ends with a line break, which echo adds: make it with printf, or"
            " kubectl create secret generic --from-literal",
        )
    # The agent reads one line for each value.
    if len(text) > 255 or not all(character.isprintable() for character in text):
        raise FencingError(
            INVALID_TARGET,
            f"Hypervisor {host}: {key} of its Secret holds control characters, or more than 255: set one without",
        )
    return text


def _authority(host: str, secret: dict[str, bytes]) -> str:
    text = secret.get("ca.crt", b"").decode("ascii", "replace")
    if text and "-----BEGIN CERTIFICATE-----" not in text:
        raise FencingError(INVALID_TARGET, f"Hypervisor {host}: ca.crt of its Secret is no certificate in PEM")
    return text


# --- which system it is ---------------------------------------------------------------------------------------------


def normal_guid(text: object) -> str | None:
    """Return a UUID or GUID as 32 lower-case digits, or None when it is none."""
    digits = text.replace("-", "") if isinstance(text, str) and len(text) <= 36 else ""
    return digits.lower() if _GUID.fullmatch(digits) else None


def same_guid(one: object, other: object) -> bool:
    """Tell whether two texts are the same GUID, in whichever byte order.

    SMBIOS (dmidecode), RFC 4122 (Redfish) and IPMI 2.0 (section 20.8) write the bytes of one and the same in different
    orders, and controllers differ in which they follow.
    """
    first, second = normal_guid(one), normal_guid(other)
    if first is None or second is None or second in _PLACEHOLDERS:
        return False
    data = bytes.fromhex(second)
    orders = (
        second,
        uuid.UUID(hex=second).bytes_le.hex(),
        data[::-1].hex(),
        uuid.UUID(bytes=data[::-1]).bytes_le.hex(),
    )
    return first in orders


def last_part(text: str) -> str:
    """Return the last part of a Redfish path."""
    return text.rstrip("/").rpartition("/")[2]


def matching_systems(wanted: str, systems: Iterable[tuple[str, dict]]) -> list[tuple[str, dict]]:
    """Return those (path, ComputerSystem) that are `wanted`: by UUID, or by serial number when it is no UUID.

    A name within the controller, such as System.Embedded.1, identifies nothing: every controller has that one.
    """
    guid = last_part(wanted)
    if normal_guid(guid):
        return [(path, system) for path, system in systems if same_guid(guid, system.get("UUID"))]
    return [(path, system) for path, system in systems if system.get("SerialNumber") == wanted]


def usable_path(text: object, page: bool = False) -> str | None:
    """Return a path that a controller names, or None when it may not be asked for.

    :param page: of a list's next page, whose path may have a query.
    """
    pattern = _REDFISH_PAGE if page else _REDFISH_PATH
    return text if isinstance(text, str) and pattern.fullmatch(text) else None


def wrong_system(target: FenceTarget, found: Iterable[str]) -> str:
    """Say that the controller is not this host's, and what to do."""
    seen = ", ".join(shown(each) for each in found) or "none"
    key = "UUID" if target.is_redfish else "GUID"
    return (
        f"{target.where} is not the controller of {target.host}: systemId {shown(target.system_id)} is not among what it"
        f" has ({seen}); nothing was switched. Correct spec.fencing.address, or systemId after comparing the {key} with"
        " the host's own (dmidecode -s system-uuid)"
    )


# --- what agents say ------------------------------------------------------------------------------------------------


def agent_lines(target: FenceTarget, action: str, options: dict[str, str]) -> str:
    """Return what the agent reads from its standard input.

    :param action: ``off`` or ``status``; never reboot or cycle, after which the host runs again.
    :param options: the transport's own, over the target's parameters.
    :raises ValueError: another action.
    """
    if action not in ("off", "status"):
        raise ValueError(f"action {action!r} is neither off nor status")
    address = f"[{target.address}]" if ":" in target.address and target.is_redfish else target.address
    values = {"action": action, "ip": address, "username": target.username, "power_wait": "0"}
    if target.port:
        values["ipport"] = str(target.port)
    values.update(target.parameters)
    values.update(options)
    return "".join(f"{name}={_quoted(value)}\n" for name, value in values.items())


def _quoted(value: str) -> str:
    """The agents' library cuts blanks at the ends, and takes one pair of quotes away (fencing.py _parse_input_stdin)."""
    return f'"{value}"' if value != value.strip() or value.startswith('"') else value


def agent_power(code: int, output: str) -> str | None:
    """Return ``on`` or ``off`` when an agent's answer to the action status says so, else None.

    Both the exit code and the words must say it: python3 ends with 2, the code of "off", when a script is not there.
    """
    words = re.search(r"^Status: (ON|OFF)\s*$", output, re.MULTILINE)
    said = words.group(1) if words else ""
    return {(0, "ON"): "on", (2, "OFF"): "off"}.get((code, said))


_PROBLEMS = (
    # ipmitool and the agents' library say these; checked in this order.
    (r"RAKP 2 HMAC is invalid|unauthorized name|invalid password|Unable to connect/login", AUTHENTICATION_FAILED),
    (r"\b401\b|\b403\b|Unauthorized|Forbidden|insufficient privilege|correct privileges", AUTHENTICATION_FAILED),
    (r"Address lookup for|Name or service not known|Temporary failure in name resolution", UNREACHABLE),
    (r"Connection refused|No route to host|Network is unreachable|[Tt]imed out(?! waiting)", UNREACHABLE),
    (r"Unable to establish (IPMI v2 / RMCP\+|LAN) session|Connection lost|RemoteDisconnected", UNREACHABLE),
    (r"Timed out waiting to power OFF", STAYS_ON),
)


def problem(output: str) -> str:
    """Return the reason that fits the output of a program that failed."""
    for pattern, reason in _PROBLEMS:
        if re.search(pattern, output):
            return reason
    return AGENT_FAILED


def mc_guid(output: str) -> str | None:
    """Return the GUID from the output of ``ipmitool mc guid``, or None when it tells none."""
    found = _MC_GUID.search(output)
    return found.group(1) if found and normal_guid(found.group(1)) else None


def words(output: str, secrets: Iterable[str] = (), limit: int = 300) -> str:
    """Return the last words of a program's output for a message: printable, in one line, without `secrets`."""
    for secret in sorted((s for s in secrets if s), key=len, reverse=True):
        output = output.replace(secret, "***")
    lines = (" ".join(line.split()) for line in output.splitlines())
    # The agents end every failure with a hint at their own options.
    kept = [line for line in lines if line and "Please use '-h' for usage" not in line]
    text = "".join(character if character.isprintable() else "?" for character in "; ".join(kept))
    return text if len(text) <= limit else "..." + text[3 - limit :]


_REMEDIES = {
    AUTHENTICATION_FAILED: "correct username and password in its Secret, and see that the account may switch power",
    UNREACHABLE: "see that the controller has power and network, and is reachable from the operator",
    STAYS_ON: "switch the host off by hand at its power supply",
    TIMEOUT: "see whether the controller is overloaded, or allow more seconds",
    AGENT_FAILED: "run the step c5c3.ha.fence with action status, and see the agent's words",
    AGENT_MISSING: "install fence-agents (and ipmitool) where the operator runs",
}


def remedy(reason: str) -> str:
    """Return what a person can do about a reason, as the end of a sentence."""
    return _REMEDIES.get(reason, "see docs/fencing.md")
