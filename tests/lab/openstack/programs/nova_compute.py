"""nova-compute whose drivers are also looked up in the lab's folder `virt` (compute_driver = ha_fake.HaFakeDriver)."""

import sys
from pathlib import Path

import nova.virt
from nova.cmd.compute import main

nova.virt.__path__.append(str(Path(__file__).parents[1] / "virt"))
sys.argv[0] = "nova-compute"
sys.exit(main())
