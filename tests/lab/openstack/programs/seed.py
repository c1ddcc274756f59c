"""Fill a fresh cloud: users, endpoints, flavors, the tick image.

Usage: seed.py SECRETS.json TICK.img. Run once, when the lab's data is built, with the lab's virtual environment.
"""

import json
import sys
import time

import openstack

CONTROL = "http://10.66.0.254"
ENDPOINTS = (
    ("nova", "compute", f"{CONTROL}:18774/v2.1"),
    ("placement", "placement", f"{CONTROL}:18778"),
    ("glance", "image", f"{CONTROL}:19292"),
    ("neutron", "network", f"{CONTROL}:19696"),
)
# name: (RAM in MiB, extra specs)
FLAVORS = {
    "t16": (16, {}),
    "t96": (96, {}),
    "w16": (16, {"hw:watchdog_action": "reset"}),
    "w96": (96, {"hw:watchdog_action": "reset"}),
    "wpoweroff16": (16, {"hw:watchdog_action": "poweroff"}),
    "wpause16": (16, {"hw:watchdog_action": "pause"}),
    "wnone16": (16, {"hw:watchdog_action": "none"}),
}


def connect(password: str) -> openstack.connection.Connection:
    return openstack.connect(
        auth_url=f"{CONTROL}:15000/v3",
        username="admin",
        password=password,
        project_name="admin",
        user_domain_id="default",
        project_domain_id="default",
        region_name="RegionOne",
    )


def main(secrets_file: str, tick: str) -> None:
    with open(secrets_file, encoding="utf-8") as file:
        secrets = json.load(file)
    cloud = connect(secrets["admin"])
    cloud.create_project("service", domain_id="default")
    for name, _type, _url in ENDPOINTS:
        cloud.create_user(name=name, password=secrets["service"], domain_id="default")
        cloud.grant_role("admin", user=name, project="service")
        cloud.grant_role("service", user=name, project="service")
    # What the hypervisor operator logs in as: Nova's admin rules ask for the role admin.
    cloud.create_user(name="c5c3-ha-operator", password=secrets["operator"], domain_id="default")
    cloud.grant_role("admin", user="c5c3-ha-operator", project="admin")
    for name, kind, url in ENDPOINTS:
        service = cloud.create_service(name=name, type=kind)
        for interface in ("public", "internal", "admin"):
            cloud.identity.create_endpoint(service_id=service.id, interface=interface, url=url, region_id="RegionOne")
    cloud = connect(secrets["admin"])  # with the endpoints in its catalog
    image = cloud.image.create_image(
        name="tick", disk_format="raw", container_format="bare", visibility="public", allow_duplicates=True
    )
    with open(tick, "rb") as data:
        headers = {"Content-Type": "application/octet-stream"}
        cloud.image.put(f"/images/{image.id}/file", data=data, headers=headers).raise_for_status()
    end = time.monotonic() + 30
    while (status := cloud.image.get_image(image.id).status) != "active":
        if time.monotonic() > end:
            sys.exit(f"the image tick is {status} 30 s after its upload")
        time.sleep(0.1)
    for name, (ram, specs) in FLAVORS.items():
        flavor = cloud.compute.create_flavor(name=name, ram=ram, vcpus=1, disk=0)
        if specs:
            cloud.compute.create_flavor_extra_specs(flavor, specs)


if __name__ == "__main__":
    main(*sys.argv[1:])
