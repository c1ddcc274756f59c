# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Switches a host off and proves it."""

from __future__ import annotations

import contextlib
import time

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import fencing_rules as rules
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.fencing_rules import (
    FenceResult,
    FenceTarget,
    FencingError,
)
from ansible_collections.c5c3.ha.plugins.module_utils.fencing import ipmi, process, redfish
from ansible_collections.c5c3.ha.plugins.module_utils.fencing.target import read_target
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client

# Between the two answers "off": a host in the middle of a power cycle is off for a moment and comes back.
CONFIRM_SECONDS = 2.0
# Between two tries with a controller in trouble.
PAUSE = 0.5
# Of one question the most; a busy controller is asked again.
_SHARE = 1 / 3
_LEAST = 1.0
_POWER_TIMEOUT = 20


def fence_hypervisor(
    client: Client, hypervisor: dict, deadline: float, namespace: str = "", confirm_seconds: float = CONFIRM_SECONDS
) -> FenceResult:
    """Read a Hypervisor's power switch and switch the host off (:func:`read_target`, :func:`fence_off`).

    :raises KubernetesError: the API server did not answer.
    """
    try:
        target = read_target(client, hypervisor, namespace)
    except FencingError as error:
        return FenceResult(False, error.reason, str(error))
    return fence_off(target, deadline, confirm_seconds)


def fence_off(target: FenceTarget, deadline: float, confirm_seconds: float = CONFIRM_SECONDS) -> FenceResult:
    """Switch the host off, and prove it: the right system says twice that it is off.

    Safe to call again at any time. Nothing that a controller does raises.

    :param deadline: seconds after which it gives up, whatever hangs.
    :param confirm_seconds: seconds between the two answers.
    """
    start = time.monotonic()
    end = start + deadline
    sent, stays_on, power = False, False, "unknown"

    def result(off: bool, reason: str, message: str) -> FenceResult:
        return FenceResult(off, reason, message, round(time.monotonic() - start, 3), "off" if off else power)

    takes = f"{target.host} stays on though {target.where} took the command"
    try:
        with _Switch(target, end, deadline) as switch:
            while True:
                try:
                    power = switch.power()
                    if power == "off":
                        power = "unknown"
                        power = switch.look_again(confirm_seconds)
                    if power == "off" and sent:
                        return result(True, rules.OFF, f"{target.host} was switched off, {target.where} says so")
                    if power == "off":
                        return result(True, rules.ALREADY_OFF, f"{target.host} was off already, {target.where} says so")
                    stays_on = sent
                    sent = True  # whatever comes of it
                    switch.off()
                    trouble = FencingError(rules.STAYS_ON, takes)
                except FencingError as error:
                    trouble = error
                stays_on = stays_on or trouble.reason == rules.STAYS_ON
                if trouble.reason in rules.PERMANENT or not switch.pause(PAUSE):
                    break
    except FencingError as error:
        trouble = error
    if trouble.reason == rules.TIMEOUT and stays_on and power == "on":
        trouble = FencingError(rules.STAYS_ON, takes)  # the last of several commands only ran out of time
    return result(False, trouble.reason, _with_remedy(trouble))


def fence_status(target: FenceTarget, deadline: float) -> FenceResult:
    """Ask the right system once for its state and change nothing; reason On or Off, or what went wrong.

    :param deadline: seconds after which it gives up.
    """
    start = time.monotonic()
    try:
        with _Switch(target, start + deadline, deadline * 3) as switch:
            power = switch.power()
    except FencingError as error:
        return FenceResult(False, error.reason, _with_remedy(error), round(time.monotonic() - start, 3))
    reason = rules.OFF if power == "off" else rules.ON
    message = f"{target.host} is {power}, {target.where} says so"
    return FenceResult(power == "off", reason, message, round(time.monotonic() - start, 3), power)


def _with_remedy(error: FencingError) -> str:
    text = str(error)
    return (
        text
        if error.reason in rules.PERMANENT - {rules.AUTHENTICATION_FAILED}
        else f"{text}: {rules.remedy(error.reason)}"
    )


class _Switch:
    """One target's switch until `end` (monotonic clock).

    :raises FencingError: from each method, with the reason.
    """

    def __init__(self, target: FenceTarget, end: float, deadline: float) -> None:
        self.target = target
        self._end = end
        self._most = max(_LEAST, deadline * _SHARE)
        self._agent = ""
        self._path = ""  # of the Redfish system
        self._password = ""  # file of the IPMI password
        self._options: dict[str, str] = {}
        self._environment: dict[str, str] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> _Switch:
        rules.checked_agent(self.target.host, {"agent": self.target.agent})
        self._agent = process.find(self.target.agent)
        try:
            if self.target.is_redfish:
                self._options["password"] = self.target.password
                self._options.setdefault("ssl", "1")
                if self.target.ca:
                    path = self._stack.enter_context(process.memory_file("ca", self.target.ca))
                    self._environment["REQUESTS_CA_BUNDLE"] = path
            else:
                self._password = self._stack.enter_context(ipmi.password_file(self.target))
                self._options["ipmitool_path"] = self._stack.enter_context(ipmi.wrapper(self._password))
                self._options.update(lanplus="1", password=ipmi.NOTHING)
        except OSError as error:
            self._stack.close()
            raise FencingError(rules.AGENT_FAILED, f"no file for the password can be made: {error.strerror}") from None
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def pause(self, seconds: float) -> bool:
        """Wait; False at once when no time would be left then to ask anything."""
        if time.monotonic() + seconds + _LEAST / 2 >= self._end:
            return False
        time.sleep(seconds)
        return True

    def power(self) -> str:
        """Return ``on`` or ``off`` as the system says that was proven to be the right one just before."""
        seen = self._prove()
        answer = process.run([self._agent], self._lines("status"), self._allowed(), self._environment)
        power = rules.agent_power(answer.code, answer.stdout) if answer.code is not None else None
        if power is None:
            raise self._failed(answer, "status")
        # On, PoweringOn, PoweringOff, Paused: not off. An IPMI controller gives only one answer.
        return "on" if seen not in ("", "Off") else power

    def look_again(self, seconds: float) -> str:
        """As :meth:`power`, `seconds` later."""
        if not self.pause(seconds):
            raise FencingError(
                rules.TIMEOUT, f"{self.target.host} is off, and the time allowed was over before a second look"
            )
        return self.power()

    def off(self) -> None:
        """Give the command; the agent waits until the system says that it is off, or gives up."""
        left = self._end - time.monotonic()
        options = {"power_timeout": str(max(1, min(_POWER_TIMEOUT, int(left / 2))))}
        answer = process.run([self._agent], self._lines("off", options), left, self._environment)
        if answer.code != 0:
            raise self._failed(answer, "off")

    def _prove(self) -> str:
        """Return the PowerState, empty where the protocol tells none in the same answer."""
        if self.target.is_redfish:
            self._path, seen = redfish.find_system(self.target, self._allowed(), self._path)
            self._options["systems_uri"] = self._path
            return seen
        ipmi.check_guid(self.target, self._password, self._allowed())
        return ""

    def _allowed(self) -> float:
        return max(0.0, min(self._most, self._end - time.monotonic()))

    def _lines(self, action: str, options: dict[str, str] | None = None) -> str:
        return rules.agent_lines(self.target, action, {**self._options, **(options or {})})

    def _failed(self, answer: process.Answer, action: str) -> FencingError:
        name = f"{self.target.agent} {action} at {self.target.where}"
        if answer.code is None:
            return FencingError(rules.TIMEOUT, f"{name} did not end within the time allowed")
        said = rules.words(answer.output, [self.target.password]) or "no words"
        return FencingError(rules.problem(answer.output), f"{name} ended with {answer.code} ({said})")
