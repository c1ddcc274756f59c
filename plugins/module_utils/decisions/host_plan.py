# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done next with a host that is to be emptied: a pure function of what is known now (design.md, rules 1 and 2).

A living host is emptied by migrations. A dead one is proven to be off first, then forced down and disabled in Nova, and
only then are its servers evacuated: an evacuation makes a second copy of each guest, and the proof is all that keeps the
first from running. What is not known is waited for.

No memory but the Eviction's own status: the condition Fenced is written before the first command to a power switch, and
from then on the host is never left alone without looking.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# Causes that tell of a host that nobody hears any more; every other one asks for a drain.
DEAD_HOST = frozenset({"NodeNotReady", "NodeUnreachable"})

# Reasons of the condition Fenced beside those of a FenceResult.
FENCING = "Fencing"
BY_CONSENT = "UnfencedByConsent"
POWERED_ON = "PoweredOn"

# Of a FenceResult: the site declares that the host cannot be fenced.
NO_FENCING = "NoFencing"
# Tried again seldom: only a person can change these, and a wrong password tried often locks the account.
SELDOM = frozenset(
    {"NotConfigured", NO_FENCING, "WrongSystem", "AuthenticationFailed", "AgentMissing", "InvalidTarget"}
)
SELDOM_SECONDS = 60.0
# A killed step's fence agent may live on for so long beyond its own deadline.
AGENT_GRACE = 5.0


@dataclass(frozen=True)
class Settings:
    """Limits of the work on the host, in seconds.

    :ivar fence_timeout: one call of the fence agent.
    :ivar proof_seconds: how old the proof may be when an evacuation begins: somebody could have powered the host on.
    :ivar backoff: between the first two calls of the fence agent, doubled for each one more.
    :ivar consent: whether a host that its site declares unfenceable is evacuated without proof.
    """

    fence_timeout: float = 60.0
    proof_seconds: float = 30.0
    backoff: float = 5.0
    consent: bool = False


@dataclass(frozen=True)
class Fence:
    """What the Eviction's status says about fencing; times in seconds since the epoch.

    :ivar begun: a command to the power switch may have been sent, by whichever step.
    :ivar reason: of the last result; FENCING while one is awaited, empty before the first.
    :ivar proven_at: when the host was last proven off, None when the last word is another.
    """

    begun: bool = False
    reason: str = ""
    message: str = ""
    attempts: int = 0
    attempted_at: float | None = None
    proven_at: float | None = None

    @property
    def by_consent(self) -> bool:
        """Whether the host is taken for off without a proof."""
        return self.reason == BY_CONSENT


@dataclass(frozen=True)
class HostFacts:
    """What is known of the host now.

    :ivar node_ready: its Node's condition Ready; None when there is no Node, or when it was not asked for.
    :ivar node_since: since when that is so, by the Node's own word; None when it is not known.
    :ivar refusal: reason and message of the gate that refuses; asked only where :func:`needs_gates` says so.
    :ivar alive: the gates let it pass as a host that lives.
    :ivar target: whether another hypervisor is up and enabled.
    :ivar to_begin: whether there are servers whose evacuation has not begun (or is not known).
    """

    cause: str
    now: float
    service_up: bool = False
    service_enabled: bool = False
    forced_down: bool = False
    node_ready: bool | None = None
    node_since: float | None = None
    refusal: tuple[str, str] | None = None
    alive: bool = False
    target: bool = True
    to_begin: bool = True
    fence: Fence = field(default_factory=Fence)


@dataclass(frozen=True)
class HostDecision:
    """The next thing to do, and why in a word and in words.

    ``act``: Wait; Cancel (nothing was done, nothing is to be done); Return (the host is back by itself: begin nothing
    more); Migrate (the servers, the host lives); Fence (prove it off, again if it was proven before); Look (ask the
    power switch, change nothing); ForceDown; Disable; Evacuate (the servers).
    """

    act: str
    reason: str = ""
    message: str = ""


def needs_node(facts: HostFacts) -> bool:
    """Whether the decision hangs on the Node."""
    return facts.cause in DEAD_HOST or facts.fence.begun or not facts.service_up


def needs_gates(facts: HostFacts) -> bool:
    """Whether the decision hangs on the gates: before anything is done to a host that may be dead."""
    return needs_node(facts) and not facts.fence.begun and facts.node_ready is not True


def plan(host: str, facts: HostFacts, settings: Settings) -> HostDecision:
    """The next act for the host.

    :param host: its name, for messages.
    """
    if facts.fence.begun:
        return _begun(host, facts, settings)
    if facts.cause in DEAD_HOST and facts.node_ready:
        return HostDecision("Cancel", "NodeReady", f"the Node {host} is Ready again: nothing was done")
    if facts.service_up and (facts.cause not in DEAD_HOST or facts.alive):
        return _living(host, facts)
    if facts.node_ready:
        told = f"nova-compute of {host} is down while its Node is Ready: start it, then the host can be emptied"
        return HostDecision("Wait", "HypervisorDown", told)
    if facts.refusal:
        return HostDecision("Wait", *facts.refusal)
    if facts.service_up:
        return HostDecision("Wait", "ServiceUp", f"nova-compute of {host} is up: the host is not taken for dead")
    return HostDecision("Fence", FENCING, f"switching {host} off")


def _living(host: str, facts: HostFacts) -> HostDecision:
    if facts.refusal:
        return HostDecision("Wait", *facts.refusal)
    if not facts.target:
        told = f"no other hypervisor is up and enabled: enable one, then {host} can be emptied"
        return HostDecision("Wait", "NoTarget", told)
    return HostDecision("Migrate")


def _begun(host: str, facts: HostFacts, settings: Settings) -> HostDecision:
    fence = facts.fence
    if fence.by_consent:
        if facts.node_ready or (facts.service_up and facts.forced_down is False):
            return HostDecision("Return", POWERED_ON, f"{host} lives: nothing more is evacuated from it")
        return _evacuate(host, facts)
    if fence.proven_at is None:
        return _unproven(host, facts, settings)
    old = facts.now - fence.proven_at > settings.proof_seconds
    # A young proof outweighs a Node that is Ready since before it: that stays Ready for a while after its host lost its
    # power. One that became Ready after it was switched on by somebody.
    back = facts.node_since is not None and facts.node_since > fence.proven_at
    if facts.node_ready and (old or back):
        return HostDecision("Look", fence.reason, f"the Node {host} is Ready: asking whether the host is still off")
    if old and facts.to_begin:
        return HostDecision("Fence", FENCING, f"proving again that {host} is off")
    return _evacuate(host, facts)


def _unproven(host: str, facts: HostFacts, settings: Settings) -> HostDecision:
    fence = facts.fence
    since = facts.now - (fence.attempted_at or 0.0)
    if facts.node_ready:
        if fence.reason == FENCING and since < settings.fence_timeout + AGENT_GRACE:
            told = (
                f"the Node {host} is Ready, and a command to switch the host off may be under way: looking after that"
            )
            return HostDecision("Wait", FENCING, told)
        if fence.reason == POWERED_ON:
            return HostDecision("Return", POWERED_ON, f"{host} is on and its Node is Ready: it came back by itself")
        return HostDecision("Look", fence.reason, f"the Node {host} is Ready: asking whether the host is on")
    if fence.reason not in (FENCING, POWERED_ON):
        pause = SELDOM_SECONDS if fence.reason in SELDOM else settings.backoff * 2 ** min(fence.attempts - 1, 4)
        if since < pause:
            return HostDecision("Wait", fence.reason, f"not evacuated, since {host} is not proven off: {fence.message}")
    return HostDecision("Fence", FENCING, f"switching {host} off")


def _evacuate(host: str, facts: HostFacts) -> HostDecision:
    if not facts.forced_down:
        return HostDecision("ForceDown", "", f"telling Nova that {host} is down")
    if facts.service_enabled:
        return HostDecision("Disable", "", f"disabling nova-compute of {host}")
    return HostDecision("Evacuate")


def fenced_condition(fence: Fence) -> tuple[str, str, str] | None:
    """Status, reason and message of the condition Fenced; None before fencing began.

    True means proven off. While a proof is being renewed it stays True: the last word was "off".
    """
    if not fence.begun:
        return None
    if fence.proven_at is not None:
        return "True", fence.reason, fence.message
    return ("Unknown" if fence.reason == FENCING else "False"), fence.reason, fence.message
