"""Ask a host's nova-compute for a live migration, as the conductor does when its checks are done: a message in the host's queue.

Usage: late_move.py NOVA.CONF SERVER HOST TARGET. Of a host that is dead it waits in the broker.
"""

import sys

from nova import config, context, objects
from nova.compute import rpcapi

configuration, server, host, target = sys.argv[1:]
config.parse_args(["late-move", "--config-file", configuration])
objects.register_all()
admin = context.get_admin_context()
mapping = objects.InstanceMapping.get_by_instance_uuid(admin, server)
with context.target_cell(admin, mapping.cell_mapping) as cell:
    instance = objects.Instance.get_by_uuid(cell, server, expected_attrs=["flavor", "info_cache", "system_metadata"])
    migration = objects.Migration(
        cell,
        instance_uuid=server,
        source_compute=host,
        source_node=host,
        dest_compute=target,
        dest_node=target,
        dest_compute_id=objects.ComputeNode.get_by_host_and_nodename(cell, target, target).id,
        migration_type="live-migration",
        status="accepted",
        new_instance_type_id=instance.flavor.id,
        old_instance_type_id=instance.flavor.id,
    )
    migration.create()
    data = objects.LibvirtLiveMigrateData(
        block_migration=False,
        disk_over_commit=False,
        disk_available_mb=1024,
        is_shared_instance_path=True,
        is_shared_block_storage=True,
        instance_relative_path=server,
        image_type="raw",
        filename="shared",
        is_volume_backed=False,
        wait_for_vif_plugged=False,
    )
    rpcapi.ComputeAPI().live_migration(
        cell, instance, target, block_migration=False, host=host, migration=migration, migrate_data=data
    )
