"""The lab's OpenStack: keystone, placement, glance and Nova in the control namespace; neutron is a stub.

Users, schema, flavors and the image are built once and kept in the cache as a ready data folder.

Folder ``LAB/nova``: ``etc`` configuration, ``mysql`` ``rabbit`` ``images`` ``keys`` data, ``store`` the servers' disks,
``state/HOST`` of each nova-compute, ``secrets.json`` passwords made with the data, ``clouds.yaml`` for the operator.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import secrets as random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from . import guest
from .cache import cache_root, cached, digest
from .hosts import CONTROL_ADDRESS, LAB_ROOT, LabError, Namespace, enter_network, signal_process, wait_until
from .hypervisors import Hypervisors

if TYPE_CHECKING:
    import openstack.connection
    from openstack.compute.v2.server import Server

    from . import Lab
    from .hosts import Host
    from .outside import Outside

HERE = Path(__file__).parent
OPENSTACK = HERE / "openstack"
PROGRAMS = OPENSTACK / "programs"
KEYSTONE = f"http://{CONTROL_ADDRESS}:15000/v3"
COMPUTE = f"http://{CONTROL_ADDRESS}:18774/v2.1"
MESSAGE_PORT = 15674
API_PORTS = {"nova-api": 18774, "placement": 18778, "glance": 19292}
SERVICES = (
    *("mariadb", "rabbitmq", "neutron", "keystone", "placement", "glance"),
    *("nova-api", "nova-conductor", "nova-scheduler"),
)
# Nova's newest microversion that evacuates a running server to ACTIVE is 2.94; 2.95 stops it.
MICROVERSION = "2.95"
# How long a question is asked again when its connection breaks.
AGAIN_SECONDS = 10
_DATABASES = ("keystone", "placement", "glance", "nova_api", "nova", "nova_cell0")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_T = TypeVar("_T")


def find_python() -> str:
    """A Python 3.12 for the lab's OpenStack: C5C3_HA_NOVA_PYTHON, python3.12 on PATH, pyenv's.

    :raises LabError: when there is none.
    """
    candidates = [os.environ.get("C5C3_HA_NOVA_PYTHON"), shutil.which("python3.12")]
    candidates += sorted(map(str, Path.home().glob(".pyenv/versions/3.12*/bin/python3.12")), reverse=True)
    if sys.version_info[:2] == (3, 12):
        candidates.insert(1, sys.executable)
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            version = [candidate, "-c", "import sys; sys.exit(sys.version_info[:2] != (3, 12))"]
            if subprocess.run(version, check=False, stderr=subprocess.DEVNULL).returncode == 0:
                return candidate
    raise LabError("the lab's Nova needs Python 3.12: install it, or name it in C5C3_HA_NOVA_PYTHON")


def virtual_environment() -> Path:
    """The virtual environment with nova, keystone, glance, placement and libvirt-python; made when missing (90 s).

    :raises LabError: when pip fails, with the end of its output.
    """
    python = find_python()
    constraints, requirements = OPENSTACK / "constraints.txt", HERE / "requirements-nova.txt"
    inputs = (constraints, requirements, Path(python).resolve().parent.name, str(Path(python).resolve()))

    def make(folder: Path) -> None:
        subprocess.run([python, "-m", "venv", folder], check=True)
        pip = [folder / "bin/pip", "--disable-pip-version-check", "install", "-q"]
        run = subprocess.run(
            [*pip, "-c", constraints, "-r", requirements],
            stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if run.returncode:
            raise LabError(f"pip cannot install the lab's OpenStack:\n{run.stdout[-3000:]}")
        # The folder gets its name only when it is ready: its scripts must name the later one.
        final = cache_root() / f"venv-nova-{digest(inputs)}"
        for script in (folder / "bin").iterdir():
            if script.is_file() and not script.is_symlink():
                script.write_bytes(script.read_bytes().replace(bytes(folder), bytes(final)))

    return cached("venv-nova", inputs, make)


def ready_data() -> Path:
    """The folder with schema, users, endpoints, flavors and images; made when missing (a minute on a quiet machine).

    :raises LabError: when a part of OpenStack fails, with the end of its output.
    """
    templates = OPENSTACK / "templates"
    inputs = [
        # Of nova.conf only what _auth.j2 makes is written into the data: the URLs of the cell.
        *(templates / f"{name}.j2" for name in ("_auth", "keystone.conf", "glance-api.conf", "mariadb.cnf")),
        OPENSTACK / "constraints.txt",
        PROGRAMS / "seed.py",
        guest.SOURCE,
        subprocess.run(["mariadbd", "--version"], capture_output=True, text=True, check=True).stdout,
        "3",  # raise it when Nova.build_data changes
    ]

    def make(target: Path) -> None:
        LAB_ROOT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="data-", dir=LAB_ROOT) as folder:
            # A control namespace of its own. Its seed, which only names its cgroups, is nobody's.
            control = Namespace("control", Path(folder) / "control", CONTROL_ADDRESS, seed=10_000_000 + os.getpid())
            lab = SimpleNamespace(
                directory=Path(folder), control=control, hosts={}, storage="per-host", computes="libvirt"
            )
            control.start()
            try:
                Nova(lab).build_data(target)
            finally:
                control.kill()

    return cached("nova-data", inputs, make)


class Nova:
    """OpenStack in a lab, a part of :class:`tests.lab.Lab`.

    Settings, to be changed before the lab is brought up (``lab.nova.sync_power_state_interval = 20``):

    - sync_power_state_interval: seconds between Nova's comparisons of power states; 600 is Nova's default.
    - live_migration_bandwidth: MiB/s, 0 for no limit.
    - debug: Nova's debug log.
    - outside: where database, bus and cache are, when others run them.
    """

    sync_power_state_interval = 600
    live_migration_bandwidth = 0
    debug = False
    outside: Outside | None = None

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.control = lab.control
        self.directory = Path(lab.directory) / "nova"
        self.hypervisors = Hypervisors(self)
        self._venv: Path | None = None
        self._token: tuple[float, str] | None = None
        self._connection: openstack.connection.Connection | None = None

    # -- life ---------------------------------------------------------------------------------------------------------

    @property
    def venv(self) -> Path:
        """The virtual environment of the control plane and of nova-compute."""
        self._venv = self._venv or virtual_environment()
        return self._venv

    @property
    def clouds_yaml(self) -> Path:
        """A clouds.yaml (0600) with the cloud ``lab``: the operator's user, an administrator of Nova."""
        return self.directory / "clouds.yaml"

    @property
    def store(self) -> Path:
        """The folder with the servers' disks, one folder for each server's UUID."""
        return self.directory / "store"

    @property
    def secrets(self) -> dict[str, str]:
        """Passwords: admin, operator, service, database, message."""
        return json.loads((self.directory / "secrets.json").read_text())

    def prepare(self, progress: Callable[[str], None] = lambda text: None) -> None:
        """The virtual environment and the data, made when missing, and the hypervisors' keys.

        :raises LabError: when one of them cannot be made.
        """
        progress("virtual environment of OpenStack")
        self._venv = virtual_environment()
        self._make_folders()
        progress("OpenStack's database with users, flavors and images")
        subprocess.run(["cp", "-a", "--sparse=always", f"{ready_data()}/.", self.directory], check=True)
        self.hypervisors.prepare()

    def _make_folders(self) -> None:
        for folder in ("etc", "run", "store", "rabbit", "state"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)

    def define_host(self, host: Host) -> None:
        """Make a hypervisor of a host that is off."""
        self.hypervisors.define_host(host)
        if self.outside:
            host.add_setup(self.outside.host_setup)

    def start(self, progress: Callable[[str], None] = lambda text: None) -> None:
        """Start the control plane in the control namespace, and nova-compute on each host as soon as it can register.

        :raises LabError: when a part is not ready in time; the message names its log.
        """
        began = time.monotonic()

        def tell(text: str) -> None:
            progress(f"{text} ({time.monotonic() - began:.1f} s)")

        self._render_all()
        if self.outside:
            self.outside.attach(self)
        else:
            self._start_rabbitmq()
        self._start_mariadb()
        self._add_python("neutron", ["neutron_stub.py", CONTROL_ADDRESS, "19696"])
        self.hypervisors.start()
        self._wait_mariadb()
        # The image's place was written with the path of the lab that built the data.
        self._sql(
            "UPDATE glance.image_locations SET value ="
            f" CONCAT('file://{self.directory}/images/', SUBSTRING_INDEX(value, '/', -1));"
        )
        if self.outside:
            self.outside.move_in(self, _DATABASES)
            self.control.remove_service("mariadb")
            tell("the databases have moved out")
        # All import their modules while RabbitMQ boots.
        self._start_keystone()
        for name in ("conductor", "scheduler"):
            configuration = self.directory / "etc/nova/nova.conf"
            self._add_service(f"nova-{name}", [f"bin/nova-{name}", "--config-file", configuration])
        self._start_nova_api()
        self._start_placement()
        self._start_glance()
        if not self.outside:
            self._wait_port(MESSAGE_PORT, "rabbitmq")
        tell("database and message queue are ready")
        self._wait_http(f"{KEYSTONE}/", "keystone")
        self._wait_queue("conductor")
        tell("keystone and nova-conductor are ready")
        self.hypervisors.start_computes()
        for name, port in API_PORTS.items():
            self._wait_http(f"http://{CONTROL_ADDRESS}:{port}/", name)
        tell("the APIs are ready")

    def wait(self, progress: Callable[[str], None] = lambda text: None) -> None:
        """Wait until each nova-compute is up and can take a server.

        :raises LabError: after 90 s, naming the hosts that miss.
        """
        self.wait_computes(sorted(self.lab.hosts))
        progress("nova-compute is up on " + ", ".join(sorted(self.lab.hosts)))

    def stop(self) -> None:
        """Nothing to do beyond the end of the namespaces; the data folder goes with the lab's folder."""
        self._connection = None

    def build_data(self, target: Path) -> None:
        """Make schema, users, endpoints, flavors and images from nothing, and leave them in `target`; see ready_data."""
        self._make_folders()
        passwords = {n: random.token_urlsafe(18) for n in ("admin", "operator", "service", "database", "message")}
        self._write("secrets.json", json.dumps(passwords))
        for folder in ("images", "keys/fernet", "keys/credential"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
            (self.directory / folder).chmod(0o700)
        self._render_all()
        install = ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={self.directory}/mysql"]
        install += ["--skip-test-db", "--auth-root-authentication-method=socket", "--skip-log-bin"]
        install += ["--innodb-log-file-size=16M", "--innodb-flush-method=nosync"]
        try:
            subprocess.run(install, check=True, capture_output=True, text=True)
            self._start_rabbitmq()
            self._start_mariadb()
            self._wait_mariadb()
            self._sql(
                *(f"CREATE DATABASE {name} CHARACTER SET utf8mb3;" for name in _DATABASES),
                f"CREATE USER openstack@'127.0.0.1' IDENTIFIED BY '{passwords['database']}';",
                "GRANT ALL ON *.* TO openstack@'127.0.0.1';",
            )
            self._wait_port(MESSAGE_PORT, "rabbitmq")
            with concurrent.futures.ThreadPoolExecutor() as pool:
                for job in [pool.submit(f) for f in (self._sync_keystone, self._sync_small, self._sync_nova)]:
                    job.result()
            self._start_keystone()
            self._start_glance()
            self._start_nova_api()
            self._add_python("neutron", ["neutron_stub.py", CONTROL_ADDRESS, "19696"])
            self._wait_http(f"{KEYSTONE}/", "keystone")
            image = self.directory / "run/tick.img"
            guest.build(image)
            self._run(["bin/python", PROGRAMS / "seed.py", self.directory / "secrets.json", image])
        except subprocess.CalledProcessError as error:
            raise LabError(f"cannot build the lab's OpenStack data: {error}\n{(error.stderr or '')[-3000:]}") from error
        self.control.stop_service("mariadb", timeout=60)
        for name in ("secrets.json", "mysql", "images", "keys"):
            shutil.move(self.directory / name, target / name)

    def _sync_keystone(self) -> None:
        etc = self.directory / "etc/keystone/keystone.conf"
        manage = ["bin/keystone-manage", "--config-file", etc]
        self._run([*manage, "db_sync"])
        for kind in ("fernet", "credential"):
            self._run([*manage, f"{kind}_setup", "--keystone-user", "root", "--keystone-group", "root"])
        urls = [f"--bootstrap-{kind}-url={KEYSTONE}" for kind in ("internal", "public", "admin")]
        self._run(
            [*manage, "bootstrap", "--bootstrap-region-id", "RegionOne", *urls],
            env={"OS_BOOTSTRAP_PASSWORD": self.secrets["admin"]},
        )

    def _sync_small(self) -> None:
        etc = self.directory / "etc"
        self._run(["bin/placement-manage", "--config-file", etc / "placement/placement.conf", "db", "sync"])
        self._run(["bin/glance-manage", "--config-file", etc / "glance/glance-api.conf", "db_sync"])

    def _sync_nova(self) -> None:
        manage = ["bin/nova-manage", "--config-file", self.directory / "etc/nova/nova.conf"]
        self._run([*manage, "api_db", "sync"])
        self._run([*manage, "cell_v2", "map_cell0"])
        self._run([*manage, "cell_v2", "create_cell", "--name", "cell1"])
        self._run([*manage, "db", "sync"])

    # -- parts --------------------------------------------------------------------------------------------------------

    def _start_mariadb(self) -> None:
        self.control.add_service("mariadb", ["mariadbd", f"--defaults-file={self.directory}/etc/mariadb.cnf"])

    def _start_rabbitmq(self) -> None:
        data = self.directory / "rabbit"
        self.control.add_service(
            "rabbitmq",
            ["/usr/lib/rabbitmq/bin/rabbitmq-server"],
            env={
                "HOME": str(data),  # the Erlang cookie
                "RABBITMQ_NODENAME": "lab@localhost",
                "RABBITMQ_DIST_PORT": "25674",
                "RABBITMQ_MNESIA_BASE": str(data),
                "RABBITMQ_LOG_BASE": str(data / "log"),
                "RABBITMQ_CONFIG_FILE": str(self.directory / "etc/rabbitmq.conf"),
                "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "etc/rabbitmq_plugins"),
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
                "ERL_EPMD_ADDRESS": "127.0.0.1",
                # Else its script stays as the parent of the broker, and a kill -9 would leave the broker running.
                "detached": "1",
            },
        )

    def _start_keystone(self) -> None:
        self._add_wsgi("keystone", 15000, "keystone_app:application", OS_KEYSTONE_CONFIG_DIR="keystone")

    def _start_placement(self) -> None:
        self._add_wsgi("placement", 18778, "placement.wsgi.api:application", OS_PLACEMENT_CONFIG_DIR="placement")

    def _start_glance(self) -> None:
        self._add_wsgi("glance", 19292, "glance.wsgi.api:application", threads=4, OS_GLANCE_CONFIG_DIR="glance")

    def _start_nova_api(self) -> None:
        self._add_wsgi("nova-api", 18774, "nova_app:application", OS_NOVA_CONFIG_DIR="nova")

    def _add_wsgi(self, name: str, port: int, application: str, threads: int = 8, **folders: str) -> None:
        argv = ["bin/gunicorn", "--worker-class", "gthread", "--workers", "1", "--threads", str(threads)]
        # --limit-request-line: Nova sends long queries. --reuse-port: a killed master's worker holds the port a moment.
        argv += ["--no-control-socket", "--limit-request-line", "0", "--timeout", "120", "--reuse-port"]
        argv += ["--bind", f"{CONTROL_ADDRESS}:{port}", "--pythonpath", str(PROGRAMS), application]
        self._add_service(name, argv, {key: f"{self.directory}/etc/{folder}" for key, folder in folders.items()})

    def _add_python(self, name: str, argv: list[str]) -> None:
        self._add_service(name, ["bin/python", PROGRAMS / argv[0], *argv[1:]])

    def _add_service(self, name: str, argv: list[Any], env: dict[str, str] | None = None) -> None:
        self.control.add_service(name, [self.venv / argv[0], *argv[1:]], env={**self.environment, **(env or {})})

    @property
    def environment(self) -> dict[str, str]:
        """Variables for every Python service."""
        return {"PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": "1", "OS_SERVICE_TYPE": "lab"}

    # -- configuration ------------------------------------------------------------------------------------------------

    def render(self, template: str, **values: Any) -> str:
        """The text of ``openstack/templates/TEMPLATE.j2``; an unknown variable is an error."""
        import jinja2

        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(OPENSTACK / "templates"),
            undefined=jinja2.StrictUndefined,
            keep_trailing_newline=True,
            trim_blocks=True,
            autoescape=False,
        )
        common = {
            "directory": self.directory,
            "venv": self.venv,
            "control": CONTROL_ADDRESS,
            "keystone": KEYSTONE,
            "outside": self.outside,
            "outside_ca": self.outside.ca(self) if self.outside else "",
        }
        if (self.directory / "secrets.json").exists():
            common["secrets"] = self.secrets
        return environment.get_template(f"{template}.j2").render({**common, **values})

    def _write(self, path: str | Path, text: str) -> Path:
        path = self.directory / path
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def nova_configuration(self, path: str, host: str, address: str, driver: str, instances: str) -> Path:
        """Write a nova.conf; without a database when it is a compute's.

        :param host: Nova's name of the host, "control" for the control plane.
        """
        (self.directory / "state" / host).mkdir(parents=True, exist_ok=True)
        text = self.render(
            "nova.conf",
            file=self.directory / path,
            host=host,
            address=address,
            driver=driver,
            instances=instances,
            compute=host != "control",
            libvirt=host != "control" and driver.startswith("libvirt"),
            sync_power_state_interval=self.sync_power_state_interval,
            live_migration_bandwidth=self.live_migration_bandwidth,
            debug=self.debug,
        )
        return self._write(path, text)

    def _render_all(self) -> None:
        for path in ("keystone/keystone.conf", "placement/placement.conf", "glance/glance-api.conf"):
            self._write(f"etc/{path}", self.render(Path(path).name))
        for name in ("rabbitmq.conf", "mariadb.cnf"):
            self._write(f"etc/{name}", self.render(name))
        self._write("etc/rabbitmq_plugins", "[].\n")
        self._write("clouds.yaml", self.render("clouds.yaml"))
        self.nova_configuration(
            "etc/nova/nova.conf", "control", CONTROL_ADDRESS, "libvirt.LibvirtDriver", "/nonexistent"
        )
        # nova-api looks for it in its own folder
        shutil.copyfile(self.venv / "etc/nova/api-paste.ini", self.directory / "etc/nova/api-paste.ini")
        shutil.copyfile(
            self.venv / "etc/glance/glance-api-paste.ini", self.directory / "etc/glance/glance-api-paste.ini"
        )

    def _run(self, argv: list[Any], env: dict[str, str] | None = None, timeout: float = 300, **kwargs: Any) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": "/root", **self.environment, **(env or {})}
        run = self.control.exec(
            [self.venv / argv[0], *argv[1:]],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=timeout,
            **kwargs,
        )
        return run.stdout

    def _sql(self, *statements: str) -> str:
        if self.outside and "mariadb" not in self.control.services():
            return self.outside.sql(self, "\n".join(statements))
        client = ["mariadb", "--no-defaults", f"--socket={self.directory}/run/mysql.sock", "--user=root", "--batch"]
        run = subprocess.run(
            client, input="\n".join(statements), capture_output=True, text=True, check=False, timeout=30
        )
        if run.returncode:
            raise LabError(f"MariaDB refuses: {run.stderr.strip()} (log: {self.control.log_path('mariadb')})")
        return run.stdout

    # -- waiting ------------------------------------------------------------------------------------------------------

    def in_network(self, function: Callable[[], _T]) -> _T:
        """Call `function` in a thread that is in the control network, and return its value or raise its error."""
        if self.entered:
            return function()
        result: concurrent.futures.Future[_T] = concurrent.futures.Future()
        pid = self.control.pid
        if pid is None:
            raise LabError("the lab is not up: lab up")

        def run() -> None:
            try:
                enter_network(pid)
                result.set_result(function())
            except BaseException as error:  # pylint: disable=broad-exception-caught
                result.set_exception(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join()
        return result.result()

    @property
    def entered(self) -> bool:
        """Whether this thread is in the control network (see Lab.enter)."""
        pid = self.control.pid
        return bool(pid) and os.readlink("/proc/thread-self/ns/net") == os.readlink(f"/proc/{pid}/ns/net")

    def _wait_mariadb(self) -> None:
        path = str(self.directory / "run/mysql.sock")

        def listening() -> bool:
            with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
                client.connect(path)
                return True
            return False

        wait_until(listening, 60, f"mariadb listens (log: {self.control.log_path('mariadb')})", interval=0.05)

    def _wait_port(self, port: int, name: str, timeout: float = 90) -> None:
        def listening() -> bool:
            with contextlib.suppress(OSError), socket.create_connection((CONTROL_ADDRESS, port), timeout=1):
                return True
            return False

        what = f"{name} listens on port {port} (log: {self.control.log_path(name)})"
        self.in_network(lambda: wait_until(listening, timeout, what, interval=0.1))

    def _wait_http(self, url: str, name: str, timeout: float = 120) -> None:
        def answers() -> bool:
            try:
                with urllib.request.urlopen(url, timeout=timeout):
                    return True
            except urllib.error.HTTPError as error:
                return error.code < 500
            except OSError:
                return False

        what = f"{name} answers (log: {self.control.log_path(name)})"
        self.in_network(lambda: wait_until(answers, timeout, what, interval=0.1))

    def _wait_queue(self, *queues: str, timeout: float = 90) -> None:
        urls, options = f"nova:{self.secrets['message']}@{CONTROL_ADDRESS}:{MESSAGE_PORT}", []
        if self.outside:
            urls, options = ",".join(self.outside.message), [self.outside.ca(self)]
        program = ["bin/python", PROGRAMS / "wait_queue.py", ",".join(queues), str(timeout)]
        try:
            self._run([*program, *options], input=urls)
        except subprocess.CalledProcessError as error:
            raise LabError(
                f"Nova is not ready after {timeout:g} s: {error.stderr.strip()} (logs: {self.control.log_path('nova-*')},"
                f" {self.lab.directory}/*/log/nova-compute.log)"
            ) from error

    def wait_answering(self, service: str, host: str = "", timeout: float = 60) -> None:
        """Wait until a part that was killed really works again, not only runs: it answers, it reads its queue.

        :param service: an API, ``rabbitmq``, ``nova-conductor``, ``nova-scheduler``, or a host's ``nova-compute``.
        :raises LabError: after `timeout` seconds.
        """
        if service in API_PORTS:
            self._wait_http(f"http://{CONTROL_ADDRESS}:{API_PORTS[service]}/", service, timeout)
        elif service == "nova-compute":
            self._wait_queue(f"compute.{host}", timeout=timeout)
        elif service == "rabbitmq":
            on = sorted(name for name, each in self.lab.hosts.items() if each.running)
            self._wait_queue("conductor", "scheduler", *(f"compute.{name}" for name in on), timeout=timeout)
        else:
            self._wait_queue(service.removeprefix("nova-"), timeout=timeout)

    def hang(self, host: str) -> None:
        """Let a host's nova-compute hang as a real one does: up for Nova, deaf for all that touches libvirt, till killed."""
        pid = self.lab.machine(host).service_pid("nova-compute")
        if pid is None:
            raise LabError(f"{host}/nova-compute is not running: lab heal {host}/nova-compute starts it")
        signal_process(pid, signal.SIGUSR1)

    def late_move(self, server: str, host: str, target: str) -> None:
        """Put a live migration's message into the queue of a host, as the conductor does just before the host dies."""
        configuration = self.directory / "etc/nova/nova.conf"
        self._run(["bin/python", PROGRAMS / "late_move.py", configuration, server, host, target])

    def request(self, method: str, path: str, body: Any = None, microversion: str = MICROVERSION) -> Any:
        """One call of Nova's API without openstacksdk: light enough for `lab status`.

        A GET whose connection breaks (an API that a test has just killed) is asked again for AGAIN_SECONDS.

        :param path: below /v2.1, such as "/os-services".
        :returns: the decoded JSON, None for an empty answer.
        :raises urllib.error.HTTPError: as the API answers.
        :raises OSError: when there is no answer.
        """

        def call() -> Any:
            headers = {"X-Auth-Token": self._auth_token(), "Content-Type": "application/json"}
            headers["OpenStack-API-Version"] = f"compute {microversion}"
            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(COMPUTE + path, data, headers, method=method)
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
            return json.loads(text) if text else None

        end = time.monotonic() + (AGAIN_SECONDS if method == "GET" else 0)
        while True:
            try:
                return self.in_network(call)
            except urllib.error.HTTPError:
                raise
            except (OSError, http.client.HTTPException):
                if time.monotonic() >= end:
                    raise
                time.sleep(0.2)

    def _auth_token(self) -> str:
        if self._token and time.monotonic() - self._token[0] < 3600:
            return self._token[1]
        domain = {"id": "default"}
        user = {"name": "c5c3-ha-operator", "domain": domain, "password": self.secrets["operator"]}
        scope = {"project": {"name": "admin", "domain": domain}}
        auth = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        request = urllib.request.Request(
            f"{KEYSTONE}/auth/tokens", json.dumps(auth).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            self._token = (time.monotonic(), answer.headers["X-Subject-Token"])
        return self._token[1]

    def compute_services(self) -> dict[str, dict[str, Any]]:
        """Nova's nova-compute services by host: state "up" or "down", status, forced_down, disabled_reason ..."""
        answer = self.request("GET", "/os-services?binary=nova-compute")
        return {service["host"]: service for service in answer["services"]}

    def wait_computes(self, hosts: list[str], timeout: float = 150) -> None:
        """Wait until Nova shows each of `hosts` up and lists its hypervisor, so that a server can be booted there.

        :raises LabError: after `timeout` seconds, naming those that miss.
        """
        missing = set(hosts)

        def ready() -> bool:
            up = {host for host, service in self.compute_services().items() if service["state"] == "up"}
            listed = set()
            if missing <= up:
                try:
                    hypervisors = self.request("GET", "/os-hypervisors/detail")["hypervisors"]
                except OSError:
                    # Asked before a nova-compute listened to its queue: that question is lost, the next is answered.
                    return False
                listed = {h["service"]["host"] for h in hypervisors if h["state"] == "up"}
            missing.difference_update(up & listed)
            return not missing

        try:
            wait_until(ready, timeout, "computes", interval=0.5)
        except LabError:
            logs = ", ".join(str(self.lab.hosts[name].log_path("nova-compute")) for name in sorted(missing))
            raise LabError(
                f"nova-compute is not up after {timeout:g} s on {', '.join(sorted(missing))} ({logs})"
            ) from None

    def wait_ready(self, timeout: float = 90) -> None:
        """Wait until every part of the control plane answers and each nova-compute is up; for use after faults."""
        self._wait_mariadb()
        self._wait_port(MESSAGE_PORT, "rabbitmq", timeout)
        self._wait_http(f"{KEYSTONE}/", "keystone", timeout)
        for name, port in API_PORTS.items():
            self._wait_http(f"http://{CONTROL_ADDRESS}:{port}/", name, timeout)
        self._wait_queue("conductor", "scheduler", timeout=timeout)
        self.wait_computes(sorted(name for name, host in self.lab.hosts.items() if host.running), timeout)

    def force_down(self, host: str, forced: bool = True, timeout: float = 60) -> None:
        """Tell Nova that nova-compute of `host` is down, or take that back.

        Nova refuses to take it back until the returned nova-compute has completed its evacuation records: this waits.
        """
        service = self.compute_services()[host]["id"]

        def accepted() -> bool:
            try:
                self.request("PUT", f"/os-services/{service}", {"forced_down": forced})
            except urllib.error.HTTPError as error:
                if error.code != 400 or forced:
                    raise
                return False
            return True

        wait_until(accepted, timeout, f"Nova takes back that {host} is down", interval=0.5)

    def evacuate(self, server: str, host: str | None = None) -> None:
        """Evacuate a server, to `host` or where the scheduler wants it; a running one is to run again (2.94)."""
        body = {"evacuate": {"host": host} if host else {}}
        self.request("POST", f"/servers/{server}/action", body, microversion="2.94")

    def wait_service(self, host: str, state: str, timeout: float = 60) -> float:
        """Wait until Nova shows nova-compute of `host` in `state` ("up", "down"); returns the seconds it took."""
        began = time.monotonic()
        wait_until(
            lambda: self.compute_services()[host]["state"] == state, timeout, f"Nova shows {host} {state}", interval=0.2
        )
        return time.monotonic() - began

    # -- servers ------------------------------------------------------------------------------------------------------

    def connection(self) -> openstack.connection.Connection:
        """An openstacksdk connection to cloud ``lab`` with microversion 2.95, one for the whole process.

        :raises LabError: when this process is not in the control network.
        """
        if not self.entered:
            raise LabError("this process is not in the lab's network: call lab.enter() first, before threads start")
        if self._connection is None:
            import openstack.config
            import openstack.connection

            config = openstack.config.OpenStackConfig(
                config_files=[str(self.clouds_yaml)], secure_files=[], vendor_files=[], load_envvars=False
            )
            region = config.get_one(cloud="lab", compute_default_microversion=MICROVERSION, compute_connect_retries=5)
            self._connection = openstack.connection.Connection(config=region)
        return self._connection

    def boot(
        self,
        name: str,
        host: str | None = None,
        flavor: str = "t16",
        image: str = "tick",
        wait: bool = True,
        timeout: float = 90,
        **kwargs: Any,
    ) -> Server:
        """Boot a server with the counting guest.

        :param host: the hypervisor; None lets the scheduler choose.
        :param flavor: t16, t96, or one with a watchdog (w16, wpoweroff16, wpause16, wnone16).
        :param wait: until it is ACTIVE.
        :param kwargs: further attributes of openstacksdk's create_server.
        :raises LabError: when the server is not ACTIVE after `timeout` seconds.

        While waiting, a server that found no host is deleted and booted anew: a host that has just come back is up for
        Nova's API a moment before it is for the scheduler.
        """
        compute = self.connection().compute
        if host:
            kwargs["host"] = host
        end = time.monotonic() + timeout
        while True:
            server = compute.create_server(
                name=name,
                image_id=self._id("image", image),
                flavor_id=self._id("flavor", flavor),
                networks="none",
                **kwargs,
            )
            if not wait:
                return server
            try:
                return self.wait_server(server.id, timeout=max(end - time.monotonic(), 1))
            except LabError as error:
                if "No valid host" not in str(error) or time.monotonic() >= end - 10:
                    raise
                self.delete(server.id)

    def boot_many(self, name: str, host: str, count: int, flavor: str = "t16", timeout: float = 300) -> set[str]:
        """Boot servers with one request, as Nova does it fastest; returns their ids when all are ACTIVE.

        Those in ERROR are deleted and booted anew, as by :meth:`boot`.

        :raises LabError: when not all are ACTIVE after `timeout` seconds.
        """
        body = {
            "name": name,
            "imageRef": self._id("image", "tick"),
            "flavorRef": self._id("flavor", flavor),
            "networks": "none",
            "availability_zone": f"nova:{host}",
            "return_reservation_id": True,
        }
        active: set[str] = set()
        end = time.monotonic() + timeout
        while missing := count - len(active):
            if time.monotonic() > end:
                raise LabError(f"only {len(active)} of {count} servers on {host} are ACTIVE")
            asked = {"server": {**body, "min_count": missing}}
            reservation = self.request("POST", "/servers", asked)["reservation_id"]
            path = f"/servers/detail?all_tenants=1&reservation_id={reservation}"

            def settled(path: str = path, missing: int = missing) -> dict[str, str] | None:
                found = {each["id"]: each["status"] for each in self.request("GET", path)["servers"]}
                over = len(found) == missing and set(found.values()) <= {"ACTIVE", "ERROR"}
                return found if over else None

            left = max(end - time.monotonic(), 1)
            found = wait_until(settled, left, f"{missing} servers on {host} are ACTIVE", 1.0)
            active |= {server for server, status in found.items() if status == "ACTIVE"}
            self.delete(*(server for server, status in found.items() if status == "ERROR"))
        return active

    def _id(self, kind: str, name: str) -> str:
        cache = self.__dict__.setdefault("_ids", {})
        if (kind, name) not in cache:
            cloud = self.connection()
            every = cloud.image.images() if kind == "image" else cloud.compute.flavors()
            cache.update({(kind, each.name): each.id for each in every})
        try:
            return cache[kind, name]
        except KeyError:
            known = ", ".join(sorted(n for k, n in cache if k == kind))
            raise LabError(f"the lab's cloud has no {kind} {name!r}; it has: {known}") from None

    def wait_server(self, server: str, status: str = "ACTIVE", host: str | None = None, timeout: float = 60) -> Server:
        """Wait until a server has `status`, no task, and is on `host` when one is given.

        :raises LabError: at once when it goes to ERROR instead, or after `timeout` seconds.
        """
        compute = self.connection().compute

        def reached() -> Server | None:
            found = compute.get_server(server)
            if found.status == "ERROR" != status:
                raise LabError(f"server {found.name} ({server}) is in ERROR: {(found.fault or {}).get('message')}")
            if found.status != status or found.task_state or (host and found.compute_host != host):
                return None
            return found

        where = f" on {host}" if host else ""
        return wait_until(reached, timeout, f"server {server} is {status}{where}", interval=0.1)

    def delete(self, *servers: str, wait: bool = True, timeout: float = 60) -> None:
        """Delete servers; with `wait`, return when all are gone."""
        compute = self.connection().compute
        for server in servers:
            compute.delete_server(server, ignore_missing=True, force=True)
        if wait:

            def gone() -> bool:
                left = {server.id for server in compute.servers(all_projects=True)}
                return not left & set(servers)

            wait_until(gone, timeout, f"{len(servers)} servers are deleted", interval=0.1)

    def servers(self) -> dict[str, str]:
        """UUID to name of every server, read from the database: works while the APIs are down.

        :raises LabError: when MariaDB does not answer.
        """
        rows = self._sql("SELECT uuid, display_name FROM nova.instances WHERE deleted = 0;").splitlines()[1:]
        return dict(row.split("\t", 1) for row in rows)

    def guest_processes(self, name: str) -> list[int]:
        """The QEMU processes of a server, as pids seen from outside.

        :param name: name or UUID; a name is looked up in the database.
        """
        server = name if _UUID.fullmatch(name) else self.server_id(name)
        return [guest.pid for guest in self.lab.oracle.guests() if guest.server == server]

    def server_id(self, name: str) -> str:
        """UUID of the server called `name` (or its UUID itself).

        :raises LabError: when there is none, or more than one.
        """
        matching = [uuid for uuid, each in self.servers().items() if name in (uuid, each)]
        if len(matching) != 1:
            raise LabError(f"{len(matching)} servers are called {name!r}: name one by its UUID ({', '.join(matching)})")
        return matching[0]
