"""Examples for the CRDs, shared by the unit tests (is every rule covered?) and the integration tests (does it hold?)."""

from __future__ import annotations

SERVER = "12e479eb-9f0c-4d5e-8a6b-0123456789ab"
OTHER = "7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d"
EARLY, LATE = "2026-11-24T09:42:01.123456Z", "2026-11-24T09:42:01.123457Z"


def eviction(**spec: object) -> dict:
    """Return the spec of an Eviction of one host, changed by `spec` (None removes a key)."""
    return _clean({"hypervisor": "cmp01", "reason": "test", **spec})


def vm_eviction(**spec: object) -> dict:
    """Return the spec of an Eviction of one server, changed by `spec` (None removes a key)."""
    return eviction(**{"cause": "InstanceStopped", "instances": [SERVER], "occurredAt": EARLY, **spec})


def _clean(spec: dict) -> dict:
    return {key: value for key, value in spec.items() if value is not None}


_TRAIT = {"trait": {"name": "CUSTOM_GPU"}}
_AGGREGATE = {"aggregate": {"name": "rack1", "uuid": OTHER, "metadata": {"zone": "a"}}}

# kind, name, spec
ACCEPTED = {
    # the examples of the C5C3 page "CRDs"
    "page-eviction": ("Eviction", "eviction-001", {"hypervisor": "hypervisor-001", "reason": "Planned maintenance"}),
    "page-hypervisor": (
        "Hypervisor",
        "hypervisor-001",
        {
            "version": "1.0.0",
            "reboot": False,
            "evacuateOnReboot": True,
            "lifecycleEnabled": True,
            "skipTests": False,
            "customTraits": [],
            "aggregates": [],
            "allowedProjects": [],
            "highAvailability": True,
            "createCertManagerCertificate": False,
            "installCertificate": True,
            "maintenance": "",
        },
    ),
    "page-migration": ("Migration", "migration-vm-001", {}),
    "eviction-of-one-server": ("Eviction", SERVER, vm_eviction()),
    "eviction-of-a-host": ("Eviction", "cmp01", eviction(cause="NodeUnreachable", occurredAt=EARLY)),
    "eviction-empty-instances": ("Eviction", "cmp01", eviction(instances=[])),
    "eviction-of-some": ("Eviction", "some", eviction(cause="DiskIOError", instances=[SERVER, OTHER])),
    "eviction-time-with-offset": ("Eviction", "cmp01", eviction(occurredAt="2026-11-24T10:42:01+01:00")),
    "eviction-1000-servers": (
        "Eviction",
        "cmp01",
        eviction(instances=[f"00000000-0000-4000-8000-{number:012x}" for number in range(1000)]),
    ),
    "eviction-domain-name": ("Eviction", "cmp01.example.org", eviction(hypervisor="cmp01.example.org")),
    **{
        f"eviction-{cause}": ("Eviction", SERVER, vm_eviction(cause=cause))
        for cause in ("InstanceStopped", "RebootFailed", "WatchdogRestartFailed", "DiskIOError")
    },
    **{
        f"eviction-{cause}": ("Eviction", "cmp01", eviction(cause=cause))
        for cause in ("NodeNotReady", "NodeUnreachable", "Maintenance", "Reboot")
    },
    "hypervisor-without-spec": ("Hypervisor", "cmp01", None),
    "hypervisor-all": (
        "Hypervisor",
        "cmp01",
        {
            "maintenance": "manual",
            "maintenanceReason": "new disks",
            "overcommit": {"cpu": 4, "memory": 1.0},
            "groups": [_TRAIT, _AGGREGATE],
            "fencing": {
                "agent": "fence_redfish",
                "address": "10.0.0.1:8000",
                "systemId": "7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d",
                "secretRef": {"name": "bmc-cmp01", "namespace": "c5c3-ha"},
                "parameters": {"ssl_insecure": "1"},
            },
        },
    ),
    "hypervisor-without-fencing": ("Hypervisor", "cmp01", {"fencing": {"agent": "none"}}),
    "migration-all": (
        "Migration",
        SERVER,
        {"instance": SERVER, "source": "cmp01", "target": "cmp02", "eviction": "cmp01"},
    ),
}

IMMUTABLE = "Value is immutable"
IMMUTABLE_CAUSE = "spec.cause is immutable"
IMMUTABLE_INSTANCES = "spec.instances is immutable"
FORWARD = "spec.occurredAt may only move forward"
SINCE_2000 = "spec.occurredAt must be a time since 2000"
KEPT = "spec.occurredAt may only move forward, it cannot be removed"
NAMED = "an Eviction of one server must be named as that server's UUID (spec.instances[0])"
NEEDS_INSTANCES = (
    "spec.instances must name at least one server when spec.cause is InstanceStopped, RebootFailed,"
    " WatchdogRestartFailed or DiskIOError; without it every server of the hypervisor would be moved"
)
TERMINATION = "spec is immutable when maintenance is 'termination'; can only change maintenance to 'ha'"
MANUAL = "maintenanceReason must be non-empty when maintenance is 'manual'"
OVERCOMMIT = "overcommit ratios must be >= 1.0"
ONE_GROUP = "exactly one group type must be set"

# kind, name, spec, field, part of the message
REFUSED = {
    "no-spec": ("Eviction", "cmp01", None, "spec", "Required value"),
    "no-hypervisor": ("Eviction", "cmp01", eviction(hypervisor=None), "spec.hypervisor", "Required value"),
    "no-reason": ("Eviction", "cmp01", eviction(reason=None), "spec.reason", "Required value"),
    "empty-hypervisor": ("Eviction", "cmp01", eviction(hypervisor=""), "spec.hypervisor", "at least 1 chars long"),
    "empty-reason": ("Eviction", "cmp01", eviction(reason=""), "spec.reason", "at least 1 chars long"),
    "long-reason": ("Eviction", "cmp01", eviction(reason="x" * 1025), "spec.reason", "may not be more than 1024"),
    "path-as-hypervisor": ("Eviction", "cmp01", eviction(hypervisor="../etc"), "spec.hypervisor", "should match"),
    "option-as-hypervisor": ("Eviction", "cmp01", eviction(hypervisor="-x"), "spec.hypervisor", "should match"),
    "two-lines-as-hypervisor": ("Eviction", "cmp01", eviction(hypervisor="a\nb"), "spec.hypervisor", "should match"),
    "unknown-cause": ("Eviction", "cmp01", eviction(cause="Fire"), "spec.cause", "Unsupported value"),
    "instance-no-uuid": ("Eviction", "cmp01", eviction(instances=["vm-001"]), "spec.instances[0]", "should match"),
    "instance-upper-case": (
        "Eviction",
        "cmp01",
        eviction(instances=[SERVER.upper()]),
        "spec.instances[0]",
        "should match",
    ),
    "instance-twice": (
        "Eviction",
        "cmp01",
        eviction(instances=[SERVER, OTHER, SERVER]),
        "spec.instances[2]",
        "Duplicate value",
    ),
    "1001-servers": (
        "Eviction",
        "cmp01",
        eviction(instances=[f"00000000-0000-4000-8000-{number:012x}" for number in range(1001)]),
        "spec.instances",
        "must have at most 1000 items",
    ),
    "no-time": ("Eviction", "cmp01", eviction(occurredAt="yesterday"), "spec.occurredAt", "should match"),
    "time-before-all": (
        "Eviction",
        "cmp01",
        eviction(occurredAt="1999-12-31T23:59:59Z"),
        "spec.occurredAt",
        SINCE_2000,
    ),
    "list-as-time": ("Eviction", "cmp01", eviction(occurredAt=[]), "spec.occurredAt", "expected"),
    "no-such-day": ("Eviction", "cmp01", eviction(occurredAt="2026-02-31T00:00:00Z"), "spec.occurredAt", "date-time"),
    "time-without-zone": (
        "Eviction",
        "cmp01",
        eviction(occurredAt="2026-11-24T09:42:01"),
        "spec.occurredAt",
        "should match",
    ),
    "other-name": ("Eviction", "my-eviction", vm_eviction(), "", NAMED),
    "name-of-another-server": ("Eviction", OTHER, vm_eviction(), "", NAMED),
    **{
        f"{cause}-without-instances": (
            "Eviction",
            "cmp01",
            eviction(cause=cause, instances=instances),
            "spec",
            NEEDS_INSTANCES,
        )
        for cause, instances in (
            ("InstanceStopped", None),
            ("RebootFailed", []),
            ("WatchdogRestartFailed", None),
            ("DiskIOError", []),
        )
    },
    "unknown-maintenance": ("Hypervisor", "cmp01", {"maintenance": "nap"}, "spec.maintenance", "Unsupported value"),
    "manual-without-reason": ("Hypervisor", "cmp01", {"maintenance": "manual"}, "spec", MANUAL),
    "manual-with-empty-reason": (
        "Hypervisor",
        "cmp01",
        {"maintenance": "manual", "maintenanceReason": ""},
        "spec",
        MANUAL,
    ),
    "overcommit-below-one": ("Hypervisor", "cmp01", {"overcommit": {"cpu": 0.5}}, "spec.overcommit", OVERCOMMIT),
    "group-of-nothing": ("Hypervisor", "cmp01", {"groups": [{}]}, "spec.groups[0]", ONE_GROUP),
    "group-of-both": ("Hypervisor", "cmp01", {"groups": [{**_TRAIT, **_AGGREGATE}]}, "spec.groups[0]", ONE_GROUP),
    "fencing-without-agent": (
        "Hypervisor",
        "cmp01",
        {"fencing": {"address": "10.0.0.1"}},
        "spec.fencing.agent",
        "Required value",
    ),
    "fencing-agent-with-path": (
        "Hypervisor",
        "cmp01",
        {"fencing": {"agent": "/bin/sh"}},
        "spec.fencing.agent",
        "should match",
    ),
    "fencing-address-as-option": (
        "Hypervisor",
        "cmp01",
        {"fencing": {"agent": "fence_ipmilan", "address": "--action=on"}},
        "spec.fencing.address",
        "should match",
    ),
    "fencing-secret-without-name": (
        "Hypervisor",
        "cmp01",
        {"fencing": {"agent": "fence_ipmilan", "secretRef": {}}},
        "spec.fencing.secretRef.name",
        "Required value",
    ),
    "fencing-parameter-that-is-no-text": (
        "Hypervisor",
        "cmp01",
        {"fencing": {"agent": "fence_ipmilan", "parameters": {"cipher": 3}}},
        "spec.fencing.parameters.cipher",
        "must be of type string",
    ),
    "migration-long-instance": (
        "Migration",
        SERVER,
        {"instance": "x" * 65},
        "spec.instance",
        "may not be more than 64",
    ),
}

# kind, name, spec, merge patch of the spec, field, part of the message
CHANGE_REFUSED = {
    "hypervisor": ("Eviction", "cmp01", eviction(), {"hypervisor": "cmp02"}, "spec.hypervisor", IMMUTABLE),
    "cause": ("Eviction", "cmp01", eviction(cause="Reboot"), {"cause": "Maintenance"}, "spec", IMMUTABLE_CAUSE),
    "cause-removed": ("Eviction", "cmp01", eviction(cause="Reboot"), {"cause": None}, "spec", IMMUTABLE_CAUSE),
    "cause-added": ("Eviction", "cmp01", eviction(), {"cause": "Reboot"}, "spec", IMMUTABLE_CAUSE),
    "instances": (
        "Eviction",
        "some",
        eviction(instances=[SERVER, OTHER]),
        {"instances": [SERVER]},
        "spec.instances",
        IMMUTABLE_INSTANCES,
    ),
    "instances-other": (
        "Eviction",
        SERVER,
        vm_eviction(),
        {"instances": [OTHER]},
        "spec.instances",
        IMMUTABLE_INSTANCES,
    ),
    "instances-removed": (
        "Eviction",
        "some",
        eviction(instances=[SERVER, OTHER]),
        {"instances": None},
        "spec",
        IMMUTABLE_INSTANCES,
    ),
    "instances-emptied": (
        "Eviction",
        "some",
        eviction(instances=[SERVER, OTHER]),
        {"instances": []},
        "spec",
        IMMUTABLE_INSTANCES,
    ),
    "instances-added": ("Eviction", "cmp01", eviction(), {"instances": [SERVER, OTHER]}, "spec", IMMUTABLE_INSTANCES),
    "time-back": ("Eviction", SERVER, vm_eviction(occurredAt=LATE), {"occurredAt": EARLY}, "spec.occurredAt", FORWARD),
    "time-removed": ("Eviction", SERVER, vm_eviction(), {"occurredAt": None}, "spec", KEPT),
    "termination": (
        "Hypervisor",
        "cmp01",
        {"maintenance": "termination"},
        {"maintenance": "auto"},
        "spec",
        TERMINATION,
    ),
    "termination-ended": (
        "Hypervisor",
        "cmp01",
        {"maintenance": "termination"},
        {"maintenance": None},
        "spec",
        TERMINATION,
    ),
    "termination-other-field": (
        "Hypervisor",
        "cmp01",
        {"maintenance": "termination"},
        {"reboot": True},
        "spec",
        TERMINATION,
    ),
}

# kind, name, spec, merge patch of the spec
CHANGE_ACCEPTED = {
    "reason": ("Eviction", "cmp01", eviction(), {"reason": "another"}),
    "time-forward": ("Eviction", SERVER, vm_eviction(), {"occurredAt": LATE}),
    "time-added": ("Eviction", SERVER, vm_eviction(occurredAt=None), {"occurredAt": LATE}),
    "time-same": ("Eviction", SERVER, vm_eviction(), {"occurredAt": EARLY}),
    "instances-empty-for-absent": ("Eviction", "cmp01", eviction(), {"instances": []}),
    "instances-same": ("Eviction", SERVER, vm_eviction(), {"instances": [SERVER]}),
    "termination-to-ha": ("Hypervisor", "cmp01", {"maintenance": "termination"}, {"maintenance": "ha"}),
    "maintenance-ended": ("Hypervisor", "cmp01", {"maintenance": "auto"}, {"maintenance": ""}),
}
