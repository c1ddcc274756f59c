"""Fencing with the real agents against emulated controllers whose switches kill the lab's hosts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from ansible_collections.c5c3.ha.plugins.module_utils import fencing, kubernetes, resources
from ansible_collections.c5c3.ha.plugins.module_utils.decisions import fencing_rules as rules
from tests.lab import Lab, wait_until
from tests.lab.bmc import Bmc
from tests.lab.hosts import PATH

pytestmark = [pytest.mark.lab, pytest.mark.kubernetes, pytest.mark.timeout(600)]

NAMESPACE = "fencing-test"
# Waits are for conditions: on a quiet machine nothing takes a tenth of it.
LONG = 120.0
# How long a controller in trouble is given here.
SHORT = 2.5
# Between two looks.
BETWEEN = 0.3
KINDS = ("redfish", "ipmi")
SECRETS = resources.Resource("", "v1", "secrets", "Secret", True)
HYPERVISORS = resources.hypervisors()


@pytest.fixture
def machines(lab_kubernetes) -> Lab:
    """The machines, of which only the hosts and Kubernetes are needed."""
    return lab_kubernetes.lab


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


def make(bmc: Bmc, kind: str, host: str = "cmp01", data: dict | None = None, **spec: object) -> rules.FenceTarget:
    secret = {key: value.encode() for key, value in bmc.credentials(**(data or {})).items()}
    return rules.make_target(host, getattr(bmc, kind)(host, **spec), secret)


def others_untouched(bmc: Bmc, before: list[str], host: str | None = None) -> None:
    """No command reached a host but this one, and none of them was anything but off."""
    new = bmc.commands()[len(before) :]
    assert set(new) <= ({f"{host} off"} if host else set()), new


class Spy:
    """Stands before a program on PATH, and looks at arguments and environments of the program and of all its callers."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder, self.log = folder, folder / f"{program}.seen"
        text = f"""#!/bin/sh
pid=$$
while [ "$pid" -gt 1 ] && [ "$pid" != {os.getpid()} ]; do
    tr '\\0' '\\n' </proc/$pid/cmdline >>{self.log}
    tr '\\0' '\\n' </proc/$pid/environ >>{self.log}
    pid=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$pid/status)
done
exec {shutil.which(program, path=PATH)} "$@"
"""
        self.path = folder / program
        self.path.write_text(text)
        self.path.chmod(0o755)

    @property
    def seen(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


# --- off --------------------------------------------------------------------------------------------------------------


def test_off_is_proven_and_the_host_is_dead(machines, lab_bmc, kind):
    before = lab_bmc.commands()
    target = make(lab_bmc, kind)
    assert fencing.fence_status(target, LONG).reason == rules.ON
    result = fencing.fence_off(target, LONG, BETWEEN)
    assert (result.off, result.reason, result.power) == (True, rules.OFF, "off"), result
    assert not machines.hosts["cmp01"].running
    assert machines.hosts["cmp02"].running
    assert fencing.fence_status(target, LONG).off
    # Again, as after a kill of whoever did it: nothing is sent any more.
    others_untouched(lab_bmc, before, "cmp01")
    sent = len(lab_bmc.commands())
    again = fencing.fence_off(target, LONG, BETWEEN)
    assert (again.off, again.reason) == (True, rules.ALREADY_OFF), again
    assert len(lab_bmc.commands()) == sent


def test_each_of_two_systems_on_one_controller_is_its_own(machines, lab_bmc):
    """fence_redfish alone would take the last one."""
    for host, other in (("cmp01", "cmp02"), ("cmp02", "cmp01")):
        before = lab_bmc.commands()
        assert fencing.fence_off(make(lab_bmc, "redfish", host), LONG, BETWEEN).off
        assert not machines.hosts[host].running and machines.hosts[other].running
        others_untouched(lab_bmc, before, host)
        machines.heal(host)


def test_the_password_is_seen_by_nobody(lab_bmc, kind, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    spies = [
        Spy(tmp_path, name) for name in (("fence_redfish",) if kind == "redfish" else ("fence_ipmilan", "ipmitool"))
    ]
    secret = lab_bmc.password
    result = fencing.fence_off(make(lab_bmc, kind), LONG, BETWEEN)
    assert result.off, result
    for spy in spies:
        assert "LC_ALL=C.UTF-8" in spy.seen and secret not in spy.seen, spy.path
    if kind == "ipmi":
        assert "\nfence_ipmilan" in spies[0].seen or "fence_ipmilan" in spies[1].seen
        assert "power\noff" in spies[1].seen and "mc\nguid" in spies[1].seen
    assert secret not in repr(result)
    for log in (lab_bmc.lab.directory / "control/log").glob("bmc-*.log"):
        assert secret not in log.read_text(errors="replace"), log


def test_the_spy_would_see_it(lab_bmc, tmp_path):
    """The agent as everybody calls it: ipmitool -P has the password in its arguments."""
    spy = Spy(tmp_path, "ipmitool")
    secret = lab_bmc.password
    lines = f"ip=10.66.0.254\nipport={lab_bmc.ipmi_port('cmp01')}\nusername={lab_bmc.user}\npassword={secret}\n"
    lines += f"lanplus=1\ncipher=3\naction=status\nipmitool_path={spy.path}\n"
    subprocess.run(["fence_ipmilan"], input=lines, text=True, check=True, env={"PATH": PATH}, capture_output=True)
    assert f"-P\n{secret}\n" in spy.seen


# --- faults -----------------------------------------------------------------------------------------------------------


def fails(
    machines: Lab, bmc: Bmc, target: rules.FenceTarget, *reasons: str, deadline: float = SHORT
) -> rules.FenceResult:
    """Fencing fails for one of these reasons, in time, and no host noticed."""
    before = bmc.commands()
    start = time.monotonic()
    result = fencing.fence_off(target, deadline)
    assert time.monotonic() - start < deadline + 5
    assert not result.off and result.reason in reasons, result
    assert bmc.password not in repr(result)
    assert all(host.running for host in machines.hosts.values())
    others_untouched(bmc, before, target.host if rules.STAYS_ON in reasons else None)
    return result


def test_wrong_password(machines, lab_bmc, kind):
    target = make(lab_bmc, kind, data={"password": "not-the-one"})
    result = fails(machines, lab_bmc, target, rules.AUTHENTICATION_FAILED, deadline=LONG)
    assert "password" in result.message and "not-the-one" not in result.message
    assert result.seconds < LONG / 2


@pytest.mark.thorough
def test_wrong_user(machines, lab_bmc, kind):
    fails(
        machines,
        lab_bmc,
        make(lab_bmc, kind, data={"username": "somebody"}),
        rules.AUTHENTICATION_FAILED,
        deadline=LONG,
    )


@pytest.mark.thorough
def test_silent_controller(machines, lab_bmc, kind):
    """It takes the connection and never answers; the agent alone would hang for ever."""
    machines.freeze("bmc-redfish" if kind == "redfish" else "bmc-ipmi-cmp01")
    result = fails(machines, lab_bmc, make(lab_bmc, kind), rules.UNREACHABLE)
    assert "does not answer" in result.message


@pytest.mark.thorough
def test_silent_from_the_middle_on(machines, lab_bmc, kind, monkeypatch):
    """It falls silent after it has proven who it is: the agent hangs, and is killed with all that it started."""
    service = "bmc-redfish" if kind == "redfish" else "bmc-ipmi-cmp01"
    original = fencing.switch.process.run

    def freeze_then_run(arguments: list[str], *more: object) -> object:
        if arguments[0].endswith(("fence_redfish", "fence_ipmilan")):
            machines.freeze(service)
        return original(arguments, *more)

    monkeypatch.setattr(fencing.switch.process, "run", freeze_then_run)
    # Then it is asked again who it is, if time is left.
    result = fails(machines, lab_bmc, make(lab_bmc, kind), rules.TIMEOUT, rules.UNREACHABLE, deadline=6)
    assert result.power == "unknown"


@pytest.mark.thorough
def test_black_hole(machines, lab_bmc, kind):
    lab_bmc.black_hole("cmp01")
    fails(machines, lab_bmc, make(lab_bmc, kind), rules.UNREACHABLE)


def test_nobody_there(machines, lab_bmc):
    fails(machines, lab_bmc, make(lab_bmc, "redfish", address="10.66.0.254:19"), rules.UNREACHABLE)


def test_unknown_name(machines, lab_bmc):
    fails(machines, lab_bmc, make(lab_bmc, "ipmi", address="no-such-bmc.invalid"), rules.UNREACHABLE)


@pytest.mark.thorough
def test_a_host_that_stays_on(machines, lab_bmc, kind):
    lab_bmc.stays_on("cmp01")
    result = fails(machines, lab_bmc, make(lab_bmc, kind), rules.STAYS_ON, deadline=10)
    assert result.power == "on" and "by hand" in result.message


@pytest.mark.parametrize("power", ["on", "off"])
def test_wrong_system(machines, lab_bmc, kind, power):
    """The address of another host's controller: neither is that host switched off, nor is its being off believed."""
    host = "cmp02"
    if power == "off":
        machines.kill(host)
    before = lab_bmc.commands()
    # IPMI: the controller of cmp02. Redfish: a chassis that has no such system.
    target = (
        make(lab_bmc, kind, address=lab_bmc.ipmi(host)["address"])
        if kind == "ipmi"
        else make(lab_bmc, kind, systemId="11111111-2222-3333-4444-555555555555")
    )
    result = fencing.fence_off(target, LONG, BETWEEN)
    assert (result.off, result.reason) == (False, rules.WRONG_SYSTEM), result
    assert machines.hosts["cmp01"].running and machines.hosts[host].running == (power == "on")
    others_untouched(lab_bmc, before)


def test_redfish_name_of_a_system_is_no_identity(machines, lab_bmc):
    fails(machines, lab_bmc, make(lab_bmc, "redfish", systemId="System.Embedded.1"), rules.WRONG_SYSTEM, deadline=LONG)


def test_certificate_of_a_stranger(machines, lab_bmc):
    target = make(lab_bmc, "redfish", data={"ca.crt": ""})
    result = fails(machines, lab_bmc, target, rules.UNREACHABLE)
    assert "ca.crt" in result.message and "ssl_insecure" in result.message
    insecure = make(lab_bmc, "redfish", data={"ca.crt": ""}, parameters={"ssl_insecure": "1"})
    assert fencing.fence_status(insecure, LONG).reason == rules.ON


def test_agent_missing(machines, lab_bmc, kind, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(fencing.switch.process, "_SYSTEM_PATH", "/nonexistent")
    result = fails(machines, lab_bmc, make(lab_bmc, kind), rules.AGENT_MISSING)
    assert "install" in result.message


# --- the Secret and who may read it -----------------------------------------------------------------------------------


@pytest.fixture
def api(lab_kubernetes) -> Iterator[kubernetes.Client]:
    with kubernetes.Client.from_params({"kubeconfig": str(lab_kubernetes.kubeconfig)}, "c5c3-ha-test") as client:
        yield client


@pytest.fixture(scope="module")
def namespace(lab_kubernetes) -> Iterator[None]:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    lab_kubernetes.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    yield
    lab_kubernetes.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture
def hypervisor(api, lab_bmc, namespace, definitions) -> Iterator[Callable[..., dict]]:
    """Makes the Hypervisor cmp01 with that spec.fencing, and its Secret."""
    lab_bmc.write_secret(NAMESPACE)

    def make(fencing_spec: dict | None) -> dict:
        api.delete(HYPERVISORS, "cmp01")
        return api.create(
            HYPERVISORS, HYPERVISORS.body("cmp01", spec={"fencing": fencing_spec} if fencing_spec else {})
        )

    yield make
    api.delete(HYPERVISORS, "cmp01")


@pytest.fixture(scope="module")
def definitions(lab_kubernetes) -> None:
    for path in sorted((Path(__file__).resolve().parents[2] / "crds").glob("*.yaml")):
        lab_kubernetes.kubectl("apply", "--server-side", "-f", str(path))
    lab_kubernetes.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")


def test_target_from_the_cluster(api, hypervisor, lab_bmc, kind, machines):
    target = fencing.read_target(api, hypervisor(getattr(lab_bmc, kind)("cmp01")), NAMESPACE)
    assert target == make(lab_bmc, kind)
    result = fencing.fence_hypervisor(api, hypervisor(getattr(lab_bmc, kind)("cmp01")), LONG, NAMESPACE, BETWEEN)
    assert result.off and not machines.hosts["cmp01"].running


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        (None, rules.NOT_CONFIGURED, "no spec.fencing"),
        ({"agent": "none"}, rules.NO_FENCING, "never switched off"),
        ({"agent": "fence_dummy"}, rules.INVALID_TARGET, "fence_redfish"),
        ({"secretRef": {"name": "gone"}}, rules.NOT_CONFIGURED, "there is no Secret"),
        ({"secretRef": {"name": "bmc", "namespace": "kube-system"}}, rules.INVALID_TARGET, "there only"),
        ({"secretRef": {"name": "half"}}, rules.NOT_CONFIGURED, "no password"),
        ({"address": "h;reboot"}, rules.INVALID_TARGET, "HOST:PORT"),
        ({"systemId": None}, rules.INVALID_TARGET, "systemId"),
    ],
)
def test_what_is_wrong_with_a_configuration(api, hypervisor, lab_bmc, lab_kubernetes, spec, reason, words):
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "half", "namespace": NAMESPACE}}
    lab_kubernetes.kubectl("apply", "-f", "-", stdin=json.dumps({**body, "stringData": {"username": "u"}}))
    whole = spec if spec is None or "agent" in spec else {**lab_bmc.redfish("cmp01"), **spec}
    whole = {key: value for key, value in whole.items() if value is not None} if whole else whole
    with pytest.raises(fencing.FencingError, match=words) as caught:
        fencing.read_target(api, hypervisor(whole), NAMESPACE)
    assert caught.value.reason == reason and "cmp01" in str(caught.value)


def test_the_operator_may_read_these_secrets_and_no_others(api, hypervisor, lab_bmc, lab_kubernetes, tmp_path):
    """The role's own rights, as the API server judges them."""
    variables = {
        "hypervisor_operator_namespace": "fencing-test-operator",
        "hypervisor_operator_fencing_namespace": NAMESPACE,
        "hypervisor_operator_name": "op",
        "hypervisor_operator_replicas": 0,
        "hypervisor_operator_wait": False,
        "hypervisor_operator_clouds": {"openstack": {"auth": {}}},
    }
    play = tmp_path / "play.yml"
    play.write_text(
        yaml.safe_dump(
            [{"hosts": "localhost", "gather_facts": False, "roles": [{"role": "c5c3.ha.hypervisor_operator"}]}]
        )
    )
    bundled = Path(sys.prefix) / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    environment = {
        **os.environ,
        "K8S_AUTH_KUBECONFIG": str(lab_kubernetes.kubeconfig),
        "ANSIBLE_COLLECTIONS_PATH": f"{os.environ.get('ANSIBLE_COLLECTIONS_PATH', '')}:{bundled}",
        "ANSIBLE_LOCALHOST_WARNING": "0",
    }

    def role(**more: object) -> None:
        command = [Path(sys.executable).parent / "ansible-playbook", play, "-e", json.dumps({**variables, **more})]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]

    role()
    try:
        path = "/api/v1/namespaces/fencing-test-operator/serviceaccounts/op/token"
        token = api.request("POST", path, None, {"spec": {"expirationSeconds": 3600}})["status"]["token"]
        config = yaml.safe_load(lab_kubernetes.kubeconfig.read_text())
        config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
        kubeconfig = tmp_path / "operator.kubeconfig"
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(yaml.safe_dump(config))
        body = hypervisor(lab_bmc.redfish("cmp01"))
        with kubernetes.Client.from_params({"kubeconfig": str(kubeconfig)}, "c5c3-ha-operator") as operator:
            wait_until(lambda: may(operator, NAMESPACE, "bmc"), 30, "the role's rights are in force")
            assert fencing.read_target(operator, body, NAMESPACE).password == lab_bmc.password
            for namespace in ("default", "kube-system", "fencing-test-operator"):
                assert not may(operator, namespace, "bmc")
            for method, where in (
                ("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets"),
                ("GET", "/api/v1/secrets"),
                ("DELETE", f"/api/v1/namespaces/{NAMESPACE}/secrets/bmc"),
            ):
                with pytest.raises(kubernetes.Forbidden):
                    operator.request(method, where)
            with pytest.raises(kubernetes.Forbidden):
                operator.patch(SECRETS, "bmc", {"data": {"password": "eA=="}}, NAMESPACE)
            # Who points it elsewhere is told so, and not obeyed.
            with pytest.raises(fencing.FencingError, match="may not read") as caught:
                fencing.read_target(operator, body, "default")
            assert caught.value.reason == rules.NOT_CONFIGURED
    finally:
        role(hypervisor_operator_state="absent")
        lab_kubernetes.kubectl("delete", "namespace", "fencing-test-operator", "--wait=false")


def may(client: kubernetes.Client, namespace: str, name: str) -> bool:
    """Whether that Secret may be read, there or not."""
    try:
        client.get(SECRETS, name, namespace)
    except kubernetes.Forbidden:
        return False
    return True


# --- the step ---------------------------------------------------------------------------------------------------------


def step(lab_kubernetes, *options: str, **arguments: object) -> tuple[int, dict, str]:
    """Run the task as a person would, and return exit code, result and all output."""
    arguments = {"name": "cmp01", "fencing_namespace": NAMESPACE, "deadline": LONG, **arguments}
    command = [Path(sys.executable).parent / "ansible", "localhost", "-m", "c5c3.ha.fence", "-a", json.dumps(arguments)]
    environment = {
        **os.environ,
        "K8S_AUTH_KUBECONFIG": str(lab_kubernetes.kubeconfig),
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "true",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal",
        "ANSIBLE_NOCOLOR": "1",
    }
    done = subprocess.run(
        [*command, *options], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    text = done.stdout[done.stdout.index("{", done.stdout.index("localhost |")) :]
    return done.returncode, json.JSONDecoder().raw_decode(text)[0], done.stdout + done.stderr


def test_step(machines, lab_bmc, lab_kubernetes, hypervisor):
    hypervisor(lab_bmc.redfish("cmp01"))
    before = lab_bmc.commands()
    code, result, _output = step(lab_kubernetes)
    assert (code, result["changed"], result["power"], result["off"]) == (0, False, "on", False)

    code, result, output = step(lab_kubernetes, "--check", "--diff", action="off")
    assert (code, result["changed"], result["power"]) == (0, True, "on")
    assert "would be switched off" in output
    assert machines.hosts["cmp01"].running and lab_bmc.commands() == before

    code, result, output = step(lab_kubernetes, "-vvvv", action="off")
    assert (code, result["changed"], result["off"], result["reason"]) == (0, True, True, "Off")
    assert not machines.hosts["cmp01"].running
    assert lab_bmc.password not in output

    code, result, _output = step(lab_kubernetes, action="off")
    assert (code, result["changed"], result["off"], result["reason"]) == (0, False, True, "AlreadyOff")


def test_step_fails_in_words(machines, lab_bmc, lab_kubernetes, hypervisor):
    hypervisor(lab_bmc.redfish("cmp01", systemId="11111111-2222-3333-4444-555555555555"))
    code, result, _output = step(lab_kubernetes, action="off")
    assert code != 0 and result["reason"] == "WrongSystem"
    assert "Correct spec.fencing.address" in result["msg"]
    assert all(host.running for host in machines.hosts.values())


def test_step_as_a_module(lab_bmc, lab_kubernetes, hypervisor):
    """Packed and sent, as to another host."""
    hypervisor(lab_bmc.ipmi("cmp01"))
    code, result, _output = step(lab_kubernetes, "-e", "ansible_connection=local", "--become")
    assert (code, result["power"]) == (0, "on")
