"""``make demo``: a VM dies and lives again, a hypervisor is drained; every part is real."""
