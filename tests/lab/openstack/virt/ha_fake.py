"""Hypervisors for scale: a driver whose guests are files, and whose faults are ordered by a file.

`compute_driver = ha_fake.HaFakeDriver` (programs/nova_compute.py makes it importable below nova.virt).

- One JSON file for each guest in STATE_PATH/vms/UUID, with its uuid, name and power state (1 runs, 4 is shut off): guests outlive
  a restart of nova-compute, and an oracle sees a guest that runs on two hosts without asking Nova.
- STATE_PATH/faults.json is read at every call; a missing file means no fault. Keys, with their defaults:
  vcpus 1000, memory_mb 800000, local_gb 600000 (read at start), spawn "ok" | "fail", spawn_seconds 0, reboot "ok" | "fail",
  reboot_seconds 0, live_migration "ok" | "fail" | "hang", live_seconds 0.
"""

import json
import os
import time

import nova.conf
from nova import exception
from nova.virt import fake

CONF = nova.conf.CONF


class Guest(fake.FakeInstance):
    """A guest whose change of state is written to its file at once."""

    def __init__(self, folder, name, state, uuid):
        self._path = None
        super().__init__(name, state, uuid)
        self._path = os.path.join(folder, uuid)
        self._save()

    def __setattr__(self, key, value):
        super().__setattr__(key, value)
        if key == "state" and self._path:
            self._save()

    def _save(self):
        # the dot keeps the unfinished file out of the oracle's sight
        new = os.path.join(os.path.dirname(self._path), f".{self.uuid}")
        with open(new, "w", encoding="utf-8") as file:
            json.dump({"uuid": self.uuid, "name": self.name, "state": self.state}, file)
        os.rename(new, self._path)


class Guests(dict):
    """The driver's dictionary of guests by UUID, kept in files."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        for name in os.listdir(folder):
            if not name.startswith("."):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    guest = json.load(file)
                super().__setitem__(name, Guest(folder, guest["name"], guest["state"], guest["uuid"]))

    def __setitem__(self, uuid, guest):
        super().__setitem__(uuid, Guest(self.folder, guest.name, guest.state, guest.uuid))

    def __delitem__(self, uuid):
        super().__delitem__(uuid)
        os.unlink(os.path.join(self.folder, uuid))

    def pop(self, uuid, *default):
        if uuid not in self:
            return super().pop(uuid, *default)
        guest = self[uuid]
        del self[uuid]
        return guest


class HaFakeDriver(fake.FakeDriverWithoutFakeNodes):
    def __init__(self, virtapi, read_only=False):
        faults = self._faults()
        self.vcpus = faults.get("vcpus", 1000)
        self.memory_mb = faults.get("memory_mb", 800000)
        self.local_gb = faults.get("local_gb", 600000)
        self._aborted, self._forced = set(), set()
        super().__init__(virtapi, read_only)
        self.instances = Guests(os.path.join(CONF.state_path, "vms"))

    @staticmethod
    def _faults():
        try:
            with open(os.path.join(CONF.state_path, "faults.json"), encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return {}

    def spawn(self, context, instance, *args, **kwargs):
        faults = self._faults()
        time.sleep(faults.get("spawn_seconds", 0))
        if faults.get("spawn") == "fail":
            raise exception.InstanceDeployFailure(reason="faults.json orders it")
        return super().spawn(context, instance, *args, **kwargs)

    def reboot(self, *args, **kwargs):
        faults = self._faults()
        time.sleep(faults.get("reboot_seconds", 0))
        if faults.get("reboot") == "fail":
            raise exception.InstanceRebootFailure(reason="faults.json orders it")
        return super().reboot(*args, **kwargs)

    def live_migration(
        self, context, instance, dest, post_method, recover_method, block_migration=False, migrate_data=None
    ):
        faults = self._faults()
        outcome = faults.get("live_migration", "ok")
        end = time.monotonic() + (3600 if outcome == "hang" else faults.get("live_seconds", 0))
        while time.monotonic() < end and instance.uuid not in self._aborted | self._forced:
            time.sleep(0.05)
        self._forced.discard(instance.uuid)
        if instance.uuid in self._aborted:
            self._aborted.discard(instance.uuid)
            recover_method(context, instance, dest, migrate_data, migration_status="cancelled")
        elif outcome == "fail":
            recover_method(context, instance, dest, migrate_data)
        else:
            post_method(context, instance, dest, block_migration, migrate_data)

    def live_migration_abort(self, instance):
        self._aborted.add(instance.uuid)

    def live_migration_force_complete(self, instance):
        self._forced.add(instance.uuid)

    def post_live_migration(self, context, instance, block_device_info, migrate_data=None):
        self.destroy(context, instance, None, block_device_info)
