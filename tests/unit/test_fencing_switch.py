"""When a host counts as off: fencing against a controller that behaves in every way one can."""

from __future__ import annotations

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils import fencing
from ansible_collections.c5c3.ha.plugins.module_utils.decisions import fencing_rules as rules
from ansible_collections.c5c3.ha.plugins.module_utils.fencing import ipmi, process, redfish, switch

UUID = "a1234567-89ab-cdef-a123-456789abcde1"
OTHER = "b1234567-89ab-cdef-a123-456789abcde1"
PASSWORD = "s3cr3t-pass"


class Controller:
    """Answers in the place of the agents and of the network, on a clock of its own.

    :ivar script: what happens at each question: a callable that gets this object.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.power = "on"
        self.system = UUID
        self.obeys = True
        self.asked: list[str] = []
        self.hooks: dict[int, object] = {}
        self.identity_trouble: list[rules.FencingError] = []
        self.answers: list[process.Answer] = []
        self.seen_power = ""
        self.environments: list[dict] = []
        self.arguments: list[list[str]] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def step(self, what: str) -> None:
        self.asked.append(what)
        self.now += 0.1
        hook = self.hooks.get(len(self.asked))
        if hook:
            hook(self)

    def identify(self, target: rules.FenceTarget) -> None:
        self.step("identity")
        if self.identity_trouble:
            raise self.identity_trouble.pop(0)
        if not rules.same_guid(target.system_id, self.system):
            raise rules.FencingError(rules.WRONG_SYSTEM, rules.wrong_system(target, [self.system]))

    def find_system(self, target, seconds, known=""):
        self.identify(target)
        return "/redfish/v1/Systems/1", self.seen_power or self.power.capitalize()

    def check_guid(self, target, password, seconds):
        self.identify(target)

    def run(self, arguments, lines, seconds, environment=None):
        values = dict(line.split("=", 1) for line in lines.splitlines())
        self.arguments.append(arguments)
        self.environments.append(environment or {})
        assert PASSWORD not in str(arguments) + str(environment)
        assert values["action"] in ("off", "status")
        self.step(values["action"])
        if self.answers:
            answer = self.answers.pop(0)
            if answer.code is None:
                self.now += seconds
            return answer
        if values["action"] == "status":
            code = 2 if self.power == "off" else 0
            return process.Answer(code, f"Status: {self.power.upper()}\n", "")
        if self.obeys:
            self.power = "off"
            return process.Answer(0, "Success: Powered OFF\n", "")
        return process.Answer(1, "", "ERROR:root:Failed: Timed out waiting to power OFF\n")


@pytest.fixture
def controller(monkeypatch) -> Controller:
    controller = Controller()
    monkeypatch.setattr(switch, "time", controller)
    monkeypatch.setattr(process, "find", lambda program: f"/usr/sbin/{program}")
    monkeypatch.setattr(process, "run", controller.run)
    monkeypatch.setattr(redfish, "find_system", controller.find_system)
    monkeypatch.setattr(ipmi, "check_guid", controller.check_guid)
    return controller


@pytest.fixture(params=["fence_redfish", "fence_ipmilan"])
def target(request) -> rules.FenceTarget:
    return rules.FenceTarget("cmp01", request.param, "10.0.0.9", UUID, "fencer", PASSWORD)


def trouble(reason: str) -> rules.FencingError:
    return rules.FencingError(reason, "10.0.0.9 is in trouble")


def off(target: rules.FenceTarget, deadline: float = 30.0) -> rules.FenceResult:
    result = fencing.fence_off(target, deadline)
    assert PASSWORD not in repr(result)
    assert result.message.isprintable()
    assert "cmp01" in result.message or "10.0.0.9" in result.message
    assert result.off == (result.reason in (rules.OFF, rules.ALREADY_OFF))
    assert not result.off or result.power == "off"
    return result


def test_on_then_off(controller, target):
    result = off(target)
    assert (result.off, result.reason, result.power) == (True, rules.OFF, "off")
    assert controller.asked == ["identity", "status", "off", "identity", "status", "identity", "status"]
    assert result.seconds >= switch.CONFIRM_SECONDS


def test_off_already_gets_no_command_and_two_looks(controller, target):
    controller.power = "off"
    result = off(target)
    assert (result.off, result.reason) == (True, rules.ALREADY_OFF)
    assert controller.asked == ["identity", "status", "identity", "status"]


def test_a_host_in_a_power_cycle_is_off_for_a_moment_only(controller, target):
    """Off at the first look, on again at the second: that was no proof, and now it gets the command."""
    controller.power = "off"
    controller.hooks[3] = lambda c: setattr(c, "power", "on")
    result = off(target)
    assert result.reason == rules.OFF
    assert controller.asked.count("off") == 1
    assert controller.asked[-4:] == ["identity", "status", "identity", "status"]


@pytest.mark.parametrize("power", ["on", "off"])
def test_the_wrong_system_is_never_touched_nor_believed(controller, target, power):
    controller.power, controller.system = power, OTHER
    result = off(target)
    assert (result.off, result.reason) == (False, rules.WRONG_SYSTEM)
    assert controller.asked == ["identity"]
    assert "nothing was switched" in result.message


@pytest.mark.parametrize("question", [4, 6])
def test_an_address_that_moves_to_another_system_proves_nothing(controller, target, question):
    """The command went to the right one; the later word of another is no proof."""
    controller.hooks[question] = lambda c: setattr(c, "system", OTHER)
    result = off(target)
    assert (result.off, result.reason) == (False, rules.WRONG_SYSTEM)


@pytest.mark.parametrize("reason", [rules.AUTHENTICATION_FAILED, rules.WRONG_SYSTEM])
def test_what_no_second_try_can_mend_gets_none(controller, target, reason):
    controller.identity_trouble = [trouble(reason)]
    assert off(target).reason == reason
    assert controller.asked == ["identity"]


@pytest.mark.parametrize("reason", [rules.UNREACHABLE, rules.AGENT_FAILED, rules.TIMEOUT])
def test_passing_trouble_passes(controller, target, reason):
    controller.identity_trouble = [trouble(reason)] * 3
    assert off(target).reason == rules.OFF


def test_unreachable_until_the_end(controller, target):
    controller.identity_trouble = [trouble(rules.UNREACHABLE)] * 1000
    result = off(target, 10)
    assert (result.off, result.reason, result.power) == (False, rules.UNREACHABLE, "unknown")
    assert 8 < result.seconds <= 10
    assert "power and network" in result.message


def test_a_host_that_stays_on(controller, target):
    controller.obeys = False
    result = off(target, 20)
    assert (result.off, result.reason, result.power) == (False, rules.STAYS_ON, "on")
    assert controller.asked.count("off") > 1


def test_a_command_that_succeeds_and_does_nothing(controller, target):
    """Exit 0 of off is not believed, as of fence_dummy."""
    controller.answers = []
    original = controller.run

    def lying(arguments, lines, seconds, environment=None):
        if "action=off" in lines:
            controller.step("off")
            return process.Answer(0, "Success: Powered OFF\n", "")
        return original(arguments, lines, seconds, environment)

    process.run = lying
    try:
        result = off(target, 20)
    finally:
        process.run = original
    assert (result.off, result.reason) == (False, rules.STAYS_ON)


@pytest.mark.parametrize(
    "answer", [(0, "", ""), (2, "", "python3: can't open file"), (1, "Status: OFF\n", ""), (-9, "", "")]
)
def test_an_answer_that_is_not_understood_is_not_off(controller, target, answer):
    controller.answers = [process.Answer(*answer)] * 500
    result = off(target, 10)
    assert (result.off, result.power) == (False, "unknown")
    assert "off" not in controller.asked


def test_a_hanging_agent_ends_in_time(controller, target):
    controller.answers = [process.Answer(None, "", "")] * 500
    result = off(target, 10)
    assert (result.off, result.reason) == (False, rules.TIMEOUT)
    assert result.seconds <= 10.5


def test_a_hanging_off_that_did_its_work_counts_by_the_later_look(controller, target):
    controller.answers = [process.Answer(0, "Status: ON\n", "")]
    controller.hooks[3] = lambda c: c.answers.append(process.Answer(1, "", "Connection lost")) or setattr(
        c, "power", "off"
    )
    result = off(target)
    assert result.off and result.reason == rules.OFF


def test_a_host_that_stays_on_is_told_though_the_last_command_ran_out_of_time(controller, target):
    on, refused = process.Answer(0, "Status: ON\n", ""), process.Answer(1, "", "Failed: Timed out waiting to power OFF")
    controller.answers = [on, refused, on, process.Answer(None, "", "")]
    assert off(target, 10).reason == rules.STAYS_ON
    controller.answers = [on, process.Answer(None, "", "")]
    # One command that hung: nobody knows whether it was taken.
    assert off(target, 10).reason == rules.TIMEOUT


def test_no_time_for_the_second_look_is_no_proof(controller, target):
    controller.power = "off"
    result = off(target, 2.0)
    assert (result.off, result.reason, result.power) == (False, rules.TIMEOUT, "unknown")


def test_redfish_powering_off_is_not_off(controller):
    target = rules.FenceTarget("cmp01", "fence_redfish", "10.0.0.9", UUID, "fencer", PASSWORD)
    controller.power, controller.seen_power = "off", "PoweringOff"
    result = off(target, 10)
    assert (result.off, result.reason) == (False, rules.STAYS_ON)


def test_without_the_agent(controller, target, monkeypatch):
    def find(program):
        raise rules.FencingError(rules.AGENT_MISSING, f"{program} is not installed at 10.0.0.9: install it")

    monkeypatch.setattr(process, "find", find)
    assert off(target).reason == rules.AGENT_MISSING
    assert fencing.fence_status(target, 5).reason == rules.AGENT_MISSING


@pytest.mark.parametrize(
    ("agent", "reason"), [("none", rules.NO_FENCING), ("fence_dummy", rules.INVALID_TARGET), ("", rules.NOT_CONFIGURED)]
)
def test_a_target_made_by_hand_is_checked_too(controller, agent, reason):
    assert off(rules.FenceTarget("cmp01", agent, "10.0.0.9", UUID)).reason == reason
    assert controller.asked == []


def test_status_changes_nothing(controller, target):
    assert fencing.fence_status(target, 5).reason == rules.ON
    controller.power = "off"
    result = fencing.fence_status(target, 5)
    assert (result.off, result.reason, result.power) == (True, rules.OFF, "off")
    assert "off" not in controller.asked


def test_the_ipmi_password_goes_to_no_agent(controller):
    target = rules.FenceTarget("cmp01", "fence_ipmilan", "10.0.0.9", UUID, "fencer", PASSWORD)
    seen = []
    original = process.run

    def look(arguments, lines, seconds, environment=None):
        seen.append(lines)
        path = dict(line.split("=", 1) for line in lines.splitlines())["ipmitool_path"]
        with open(path, encoding="utf-8") as file:
            seen.append(file.read())
        return original(arguments, lines, seconds, environment)

    process.run = look
    try:
        assert off(target).off
    finally:
        process.run = original
    assert seen and PASSWORD not in "".join(seen)


def test_read_and_off_in_one(monkeypatch):
    hypervisor = {"metadata": {"name": "cmp01"}, "spec": {"fencing": {"agent": "none"}}}
    assert fencing.fence_hypervisor(None, hypervisor, 5).reason == rules.NO_FENCING
    assert fencing.fence_hypervisor(None, {"metadata": {"name": "cmp01"}}, 5).reason == rules.NOT_CONFIGURED
