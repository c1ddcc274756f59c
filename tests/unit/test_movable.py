"""What cannot go the way it would have to go, and what would help."""

from __future__ import annotations

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.movable import final_refusal, hindrance, site_remedy


@pytest.mark.parametrize(
    ("extra_specs", "says"),
    [
        ({"pci_passthrough:alias": "gpu:1"}, "PCI devices through (gpu)"),
        ({"pci_passthrough:alias": "gpu:1, nic:2"}, "(gpu, nic)"),
        ({"resources:VGPU": "1"}, "virtual GPU"),
        ({"resources1:VGPU": "1"}, "virtual GPU"),
        ({"resources_GPU0:VGPU": 1}, "virtual GPU"),
        ({"hw:pmem": "6GB"}, "hw:pmem"),
        ({"hw:mem_encryption": "True"}, "hw:mem_encryption"),
    ],
)
def test_devices_do_not_migrate_live_but_otherwise(extra_specs, says):
    told = hindrance("LiveMigrate", extra_specs)
    assert says in told and "openstack server stop" in told
    assert hindrance("ColdMigrate", extra_specs) == "" and hindrance("Evacuate", extra_specs) == ""


@pytest.mark.parametrize(
    "extra_specs",
    [
        {},
        {"pci_passthrough:alias": ""},
        {"hw:mem_encryption": "False"},
        {"resources:CUSTOM_VGPU": "1"},
        {"trait:VGPU": "required"},
        {"hw:cpu_policy": "dedicated", "hw:numa_nodes": "2"},
    ],
)
def test_the_rest_is_tried(extra_specs):
    assert hindrance("LiveMigrate", extra_specs) == ""


def test_what_the_site_says_migrates_is_tried():
    assert hindrance("LiveMigrate", {"pci_passthrough:alias": "vf:1"}, ["vf"]) == ""
    assert "(gpu)" in hindrance("LiveMigrate", {"pci_passthrough:alias": "vf:1,gpu:1"}, ["vf"])
    assert hindrance("LiveMigrate", {"resources:VGPU": "1"}, ["VGPU"]) == ""


@pytest.mark.parametrize("value", [7, None, True, "x" * 5000, "a\x1b[2J:1", ",,:,", {"a": 1}])
def test_nonsense_in_a_flavor_is_harmless(value):
    told = hindrance("LiveMigrate", {"pci_passthrough:alias": value, "hw:mem_encryption": value})
    assert told.isprintable() and len(told) < 400


@pytest.mark.parametrize(
    "failure",
    [
        "Operation 'live-migration' not supported for mem encryption enabled instance (x).",
        "Operation 'evacuate' not supported for vTPM-enabled instance (x).",
        "Operation 'live-migration' not supported for instance with vDPA ports ((instance_uuid)s).",
        "Migration pre-check error: This request does not explicitly request live-migratable devices.",
        "Migration pre-check error: Cannot live migrate VIF with related PCI, Neutron does not support ...",
        "Migration pre-check error: non-VIF related PCI requests for instance ...",
    ],
)
def test_nova_words_that_no_later_attempt_changes(failure):
    assert final_refusal(failure)


@pytest.mark.parametrize(
    "failure",
    [
        "",
        "No valid host was found. There are not enough hosts available.",
        "Migration pre-check error: Timeout while checking if we can live migrate to host: cmp02",
        "Live migration failed: connection refused",
        "cmp01 is not on shared storage: Live migration can not be used without shared storage except a booted VM",
    ],
)
def test_the_rest_is_tried_again(failure):
    assert final_refusal(failure) == ""


@pytest.mark.parametrize(
    ("failure", "helps"),
    [
        (
            "Resize error: not able to execute ssh command: Unexpected error while running command.\nCommand: ssh -o cmp02",
            "sshd runs",
        ),
        ("scp: ssh: connect to host 10.0.0.2 port 22: Connection refused", "sshd runs"),
        ("Command: rsync -r cmp02:/x\nStderr: 'Host key verification failed.\r\n'", "sshd runs"),
        ("Unacceptable CPU info: CPU doesn't have compatibility.", "cpu_models"),
        ("the CPU is incompatible with host CPU: Host CPU does not provide required features: avx512f", "cpu_models"),
        ("unable to connect to server at 'cmp02:16514': Connection refused", "libvirtd"),
        ("operation failed: Failed to connect to remote libvirt URI qemu+tcp://cmp02/system", "libvirtd"),
    ],
)
def test_what_the_site_has_to_mend_is_said(failure, helps):
    assert helps in site_remedy(failure)
    assert final_refusal(failure) == "", "once it is mended, an attempt does better"


@pytest.mark.parametrize(
    "failure", ["", "No valid host was found.", "Timeout while checking if we can live migrate to host: cmp02"]
)
def test_of_the_rest_nothing_is_said(failure):
    assert site_remedy(failure) == ""
