"""The warm ansible-playbook, with real processes: what a caller sees is what the ordinary one would do, run once.

The "real" ansible-playbook on these PATHs is a stand-in that says ORDINARY and ends with 77: falling back is told apart
from a warm run, and costs nothing. The warm server imports the real ansible.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

WARM = Path(__file__).resolve().parents[2] / "plugins" / "plugin_utils" / "warm"
ORDINARY = 77
PATIENCE = 40.0


def until(condition, what: str, seconds: float = PATIENCE):
    """Return the first true value of `condition`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def state(pid: int) -> str:
    """Return the state letter of a process; "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def gone(pid: int) -> bool:
    return state(pid) in ("", "Z")


class Daemon:
    """A launcher whose command only waits, and calls of its ansible-playbook."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.log = folder / "log"
        real = folder / "bin" / "ansible-playbook"
        real.parent.mkdir(parents=True)
        real.write_text(f"#!{sys.executable}\nprint('ORDINARY', flush=True)\nraise SystemExit({ORDINARY})\n")
        real.chmod(0o755)
        (folder / "home").mkdir()
        (folder / "work").mkdir()
        self.environment = {
            "PATH": f"{real.parent}:/usr/bin:/bin",
            "HOME": str(folder / "home"),
            "LANG": "C.UTF-8",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
            **variables,
        }
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(WARM), "--", "sh", "-c", 'echo "${PATH%%:*}"; exec cat'],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.environment,
            )
        self.warm = Path(self.process.stdout.readline().decode().strip())
        self.environment["PATH"] = f"{self.warm}:{self.environment['PATH']}"

    @property
    def server(self) -> int:
        return children(self.process.pid)[0]

    def said(self, text: str) -> bool:
        return text in self.log.read_text()

    def learn(self) -> Daemon:
        """Teach the environment by a first call, which is run the ordinary way, and wait until it is warm."""
        assert self.run("-").returncode == ORDINARY
        until(lambda: self.said("ready after") or self.process.poll() is not None, f"warm: {self.log.read_text()}")
        return self

    def play(self, tasks: str, name: str = "play.yml") -> str:
        """Write a playbook; return its name relative to the calls' folder."""
        head = "- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks:\n"
        (self.folder / "work" / name).write_text(head + textwrap.indent(textwrap.dedent(tasks), "    "))
        return name

    def start(self, *arguments: str, **options) -> subprocess.Popen:
        variables = options.pop("variables", {})
        return subprocess.Popen(
            ["ansible-playbook", *arguments],
            executable=self.warm / "ansible-playbook" if "executable" not in options else options.pop("executable"),
            **{
                "env": {**self.environment, **variables},
                "cwd": self.folder / "work",
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.STDOUT,
                "text": True,
                **options,
            },
        )

    def run(self, *arguments: str, **options) -> subprocess.CompletedProcess:
        process = self.start(*arguments, **options)
        output, _nothing = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(arguments, process.returncode, output)

    def slow(self) -> tuple[subprocess.Popen, int]:
        """Start a run that lasts; return the client and the process of the run once its task is at work."""
        mark = self.folder / "work" / "at-work"
        mark.unlink(missing_ok=True)
        play = self.play(f"- ansible.builtin.command: sh -c 'echo x >> {mark}; exec sleep 50'\n", "slow.yml")
        before = set(children(self.server))
        client = self.start(play)
        until(lambda: mark.exists() or client.poll() is not None, "the task is at work")
        assert client.poll() is None, client.stdout.read()
        (keeper,) = set(children(self.server)) - before
        return client, children(keeper)[0]

    def stop(self) -> None:
        server = children(self.process.pid)
        self.process.kill()
        self.process.communicate()
        for pid in server:
            until(lambda: gone(pid), "the server ends with its daemon")
        shutil.rmtree(self.warm, ignore_errors=True)  # where a test killed the server


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    found = Daemon(tmp_path).learn()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("warm")
    (folder / "lib").mkdir()
    (folder / "lib" / "site_extra.py").write_text("VALUE = 1\n")
    found = Daemon(folder, PYTHONPATH=str(folder / "lib"), C5C3_HA_WARM_PRELOAD="site_extra not_there").learn()
    yield found
    found.stop()


@pytest.mark.parametrize(
    ("tasks", "code", "text"),
    [
        ("- ansible.builtin.debug: {msg: hello there}\n", 0, "hello there"),
        ("- ansible.builtin.fail: {msg: for a reason}\n", 2, "for a reason"),
        ("- no_such_module_at_all: {}\n", 4, "no_such_module_at_all"),
    ],
)
def test_exit_codes_and_output(shared: Daemon, tasks: str, code: int, text: str) -> None:
    done = shared.run(shared.play(tasks))
    assert (done.returncode, text in done.stdout) == (code, True), done.stdout
    assert "ORDINARY" not in done.stdout


def test_an_error_of_the_command_line(shared: Daemon) -> None:
    assert shared.run("not-there.yml").returncode == 1
    done = shared.run("play.yml", "--no-such-option")
    assert (done.returncode, "unrecognized arguments" in done.stdout) == (2, True), done.stdout
    done = shared.run("--version")
    assert f"executable location = {shared.folder}/bin/ansible-playbook" in done.stdout


def test_folder_umask_stdin_and_the_variables_that_differ_at_each_call(shared: Daemon) -> None:
    play = shared.play("""\
        - ansible.builtin.copy:
            dest: "{{ lookup('env', 'PWD') }}/told"
            content: "{{ lookup('pipe', 'pwd; umask') }} {{ said }} {{ lookup('env', 'AWX_ISOLATED_DATA_DIR') }}"
        """)
    work = shared.folder / "work"
    variables = {"PWD": str(work), "AWX_ISOLATED_DATA_DIR": "/nowhere"}
    (work / "words.yml").write_text("said: words\n")
    with open(work / "words.yml", "rb") as words:
        done = shared.run(play, "-e", "@/dev/stdin", stdin=words, umask=0o027, variables=variables)
    assert done.returncode == 0, done.stdout
    assert (work / "told").read_text().split() == [str(work), "0027", "words", "/nowhere"]


def test_the_path_of_a_run_is_the_ordinary_one(shared: Daemon) -> None:
    done = shared.run(shared.play("- ansible.builtin.debug: {msg: \"{{ lookup('env', 'PATH') }}\"}\n"))
    assert str(shared.warm) not in done.stdout and f"{shared.folder}/bin:" in done.stdout


def test_large_output_arrives_whole(shared: Daemon) -> None:
    done = shared.run(shared.play("- ansible.builtin.debug: {msg: \"{{ 'x' * 3000000 }}END\"}\n"))
    assert done.returncode == 0 and "x" * 3000000 + "END" in done.stdout


def test_an_output_that_nobody_reads_ends_the_run(shared: Daemon) -> None:
    process = shared.start(shared.play("- ansible.builtin.debug: {msg: \"{{ 'x' * 3000000 }}\"}\n"))
    process.stdout.close()
    assert process.wait(PATIENCE) != 0


def test_many_at_once_each_run_once_and_no_zombie_is_left(shared: Daemon) -> None:
    mark = shared.folder / "work" / "marks"
    play = shared.play(f"- ansible.builtin.shell: echo {{{{ number }}}} >> {mark}\n")
    with ThreadPoolExecutor(20) as pool:
        done = list(pool.map(lambda number: shared.run(play, "-e", f"number={number}"), range(20)))
    codes = [one.returncode for one in done]
    warm = [number for number, code in enumerate(codes) if code == 0]
    # on a loaded machine some may not get their answer within a second: these ran the ordinary one, and only that
    assert set(codes) <= {0, ORDINARY} and len(warm) >= 5, codes
    assert sorted(int(line) for line in mark.read_text().split()) == warm
    until(lambda: not children(shared.server), "no keeper and no zombie is left")


@pytest.mark.parametrize(
    ("why", "variables"),
    [
        ("an added variable", {"ANSIBLE_STDOUT_CALLBACK": "minimal"}),
        ("a changed one", {"HOME": "/nowhere"}),
        ("one that ansible knows nothing of", {"UNHEARD_OF": "1"}),
    ],
)
def test_another_environment_is_run_the_ordinary_way(shared: Daemon, why: str, variables: dict) -> None:
    assert shared.run(shared.play("[]\n"), variables=variables).returncode == ORDINARY, why
    until(lambda: shared.said(f"another environment ({' '.join(variables)})"), "the reason is told")


def test_a_configuration_file_in_the_folder_is_honoured(shared: Daemon) -> None:
    (shared.folder / "work" / "ansible.cfg").write_text("[defaults]\nforks = 1\n")
    try:
        assert shared.run(shared.play("[]\n")).returncode == ORDINARY
    finally:
        (shared.folder / "work" / "ansible.cfg").unlink()


def test_descriptors_that_do_not_block_are_left_to_the_real_one(shared: Daemon) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    assert shared.run(shared.play("[]\n"), stderr=writer).returncode == ORDINARY
    os.close(reader), os.close(writer)


def test_a_plugin_beside_the_playbook_replaces_ansibles_own(shared: Daemon) -> None:
    """ansible.plugins.action.debug is imported already; a fresh ansible-playbook would take the one beside."""
    folder = shared.folder / "work" / "action_plugins"
    folder.mkdir()
    (folder / "debug.py").write_text(
        "from ansible.plugins.action import ActionBase\n"
        "class ActionModule(ActionBase):\n"
        "    def run(self, tmp=None, task_vars=None):\n"
        "        return {'changed': False, 'msg': 'from beside'}\n"
    )
    try:
        done = shared.run(shared.play("- debug: {msg: x}\n"), "-v")
        assert (done.returncode, "from beside" in done.stdout) == (0, True), done.stdout
    finally:
        shutil.rmtree(folder)


def exchange(daemon: Daemon, head: bytes, body: bytes = b"") -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(daemon.warm / "socket"))
        try:
            client.sendall(head + body)
            return client.recv(100)
        except (BrokenPipeError, ConnectionResetError):
            return b"reset"


@pytest.mark.parametrize(
    ("head", "body", "answer"),
    [
        (b"c5warm0\n00000001", b"x", b"Ranother version"),
        (b"GET / HTTP/1.1\r\n", b"", b"Ranother version"),
        (b"c5warm1\n00100001", b"", b"Rtoo large"),
        (b"c5warm1\n-0000001", b"", b"Ranother version"),
        (b"c5warm1\n00000001", b"x", b"Rnot a call"),
    ],
)
def test_what_is_no_call_is_refused(shared: Daemon, head: bytes, body: bytes, answer: bytes) -> None:
    assert exchange(shared, head, body) == answer


def test_a_call_that_is_too_large_is_run_the_ordinary_way(shared: Daemon) -> None:
    words = [f"--extra-vars={'x' * 100_000}"] * 12
    assert shared.run("-", *words).returncode == ORDINARY


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
def test_another_user_is_refused(shared: Daemon) -> None:
    assert (shared.warm.stat().st_mode & 0o777, (shared.warm / "socket").stat().st_mode & 0o777) == (0o700, 0o600)
    code = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(b'c5warm1\\n00000001x'); print(s.recv(100))"
    )
    command = ["/usr/bin/python3", "-c", code, str(shared.warm / "socket")]
    as_nobody = {"user": 65534, "group": 65534, "extra_groups": [], "text": True, "capture_output": True}
    assert "PermissionError" in subprocess.run(command, check=False, **as_nobody).stderr
    opened = [(path, path.stat().st_mode) for path in (shared.warm, shared.warm / "socket")]
    try:
        for path, _mode in opened:
            path.chmod(0o777)
        assert subprocess.run(command, check=False, **as_nobody).stdout.strip() == "b'Ranother user'"
    finally:
        for path, mode in opened:
            path.chmod(mode & 0o777)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -15), (signal.SIGINT, None), (signal.SIGHUP, -1)])
def test_signals_reach_the_run(shared: Daemon, number: int, code: int | None) -> None:
    # A shell starts what it puts into the background with SIGINT ignored, and so would the run be.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        client, run = shared.slow()
    finally:
        signal.signal(number, before)
    client.send_signal(number)
    client.communicate(timeout=PATIENCE)
    assert client.returncode == code if code is not None else client.returncode != 0
    until(lambda: gone(run), "the run ended")


def test_an_ignored_signal_stays_ignored(shared: Daemon) -> None:
    """ansible-runner starts its processes with SIGHUP ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        client, run = shared.slow()
    finally:
        signal.signal(signal.SIGHUP, before)
    fields = dict(line.split(":\t") for line in Path(f"/proc/{run}/status").read_text().splitlines())
    assert int(fields["SigIgn"], 16) & 1 << signal.SIGHUP - 1
    client.send_signal(signal.SIGHUP)
    assert not gone(run) and client.poll() is None
    client.terminate()
    client.communicate(timeout=PATIENCE)


def test_a_client_that_is_killed_takes_the_run_with_it(shared: Daemon) -> None:
    client, run = shared.slow()
    (keeper,) = children(shared.server)
    client.kill()
    until(lambda: gone(run) and not state(keeper), "the run ended, and its keeper")
    client.communicate(timeout=PATIENCE)


def test_changed_code_is_run_the_ordinary_way_until_it_is_loaded(shared: Daemon) -> None:
    """The last test of the shared server: it starts itself anew."""
    play = shared.play("[]\n")
    assert shared.run(play).returncode == 0
    server, starts = shared.server, shared.log.read_text().count("ready after")
    (shared.folder / "lib" / "site_extra.py").write_text("VALUE = 22\n")
    assert shared.run(play).returncode == ORDINARY
    until(lambda: shared.log.read_text().count("ready after") > starts, "it started anew")
    assert shared.run(play).returncode == 0 and shared.server == server


def test_a_server_killed_before_is_no_loss(daemon: Daemon) -> None:
    os.kill(daemon.server, signal.SIGKILL)
    assert daemon.run(daemon.play("[]\n")).returncode == ORDINARY


def test_a_server_killed_after_it_took_the_call_leaves_the_run_alone(daemon: Daemon) -> None:
    go = daemon.folder / "work" / "go"
    daemon.play(f"- ansible.builtin.wait_for: {{path: {go}, sleep: 1}}\n", "waits.yml")
    client = daemon.start("waits.yml")
    server = daemon.server
    keeper = until(lambda: children(server), "the call was taken")[0]
    until(lambda: children(keeper), "it runs")
    os.kill(server, signal.SIGKILL)
    go.touch()
    assert "ORDINARY" not in client.communicate(timeout=PATIENCE)[0] and client.returncode == 0


def test_a_keeper_killed_in_the_run_ends_it_and_it_is_not_run_again(daemon: Daemon) -> None:
    client, run = daemon.slow()
    (keeper,) = children(daemon.server)
    os.kill(keeper, signal.SIGKILL)
    output = client.communicate(timeout=PATIENCE)[0]
    assert (client.returncode, "ORDINARY" in output) == (251, False), output
    assert "whether it finished is not known" in output
    until(lambda: gone(run), "the run ended with its keeper")
    assert (daemon.folder / "work" / "at-work").read_text() == "x\n"


def test_a_frozen_server_costs_a_second_and_the_call_is_not_run_later(daemon: Daemon) -> None:
    mark = daemon.folder / "work" / "mark"
    play = daemon.play(f"- ansible.builtin.file: {{path: {mark}, state: touch}}\n")
    server = daemon.server
    os.kill(server, signal.SIGSTOP)
    began = time.monotonic()
    assert daemon.run(play).returncode == ORDINARY
    assert time.monotonic() - began > 0.9
    os.kill(server, signal.SIGCONT)
    # the next call is taken after the one given up; when it is done the other would have begun
    assert daemon.run(daemon.play("[]\n", "empty.yml")).returncode == 0
    until(lambda: not children(server), "the connection given up is closed")
    assert not mark.exists()


def test_it_dies_with_its_daemon_and_leaves_nothing(daemon: Daemon) -> None:
    server = daemon.server
    assert daemon.warm.is_dir()
    daemon.stop()
    until(lambda: gone(server), "the server ended")
    until(lambda: not daemon.warm.exists(), "its folder is gone")
    assert not list((daemon.folder / "home" / ".ansible" / "tmp").iterdir())


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"PATH": "/nowhere"}, "no ansible-playbook on PATH"),
        ({}, "cannot tell which Python runs"),
        ({"XDG_RUNTIME_DIR": "/proc/1/root/nowhere", "BAD_PYTHON": "1"}, "its server ended at once"),
    ],
)
def test_a_command_runs_without_warmth_where_there_can_be_none(tmp_path: Path, variables: dict, reason: str) -> None:
    real = tmp_path / "ansible-playbook"
    python = tmp_path / "python-that-fails"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    real.write_text(f"#!{python}\n" if "BAD_PYTHON" in variables else "#!/bin/sh\n")
    real.chmod(0o755)
    command = [sys.executable, str(WARM), "--", "/bin/sh", "-c", "echo ran; exit 5"]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (5, "ran\n")
    assert reason in done.stderr and done.stderr.count("\n") == 1


def test_what_ansible_says_while_it_is_imported_is_said_by_every_run(tmp_path: Path) -> None:
    """Such a run differs from a warm one: it stays with the ordinary ansible-playbook, and the log tells why."""
    (tmp_path / "cfg").write_text("[defaults]\nforks = many\n")
    daemon = Daemon(tmp_path, ANSIBLE_CONFIG=str(tmp_path / "cfg"))
    try:
        assert daemon.run("-").returncode == ORDINARY
        until(lambda: daemon.said("ansible said while it was imported"), "the reason is told")
        assert daemon.run(daemon.play("[]\n")).returncode == ORDINARY
    finally:
        daemon.stop()


@pytest.mark.parametrize("path", ["roles:/etc/ansible/roles", "./roles"])
def test_a_relative_path_in_the_environment_is_not_taken(tmp_path: Path, path: str) -> None:
    daemon = Daemon(tmp_path, ANSIBLE_ROLES_PATH=path)
    try:
        assert daemon.run("-").returncode == ORDINARY
        until(lambda: daemon.said("is relative; make it absolute"), "the reason is told")
    finally:
        daemon.stop()


def test_client_and_server_speak_the_same_version() -> None:
    texts = [(WARM / name).read_text() for name in ("client.py", "server.py")]
    for line in ('MAGIC = b"c5warm1\\n"', 'SOCKET = "socket"'):
        assert all(line in text for text in texts)


class Cloud(BaseHTTPRequestHandler):
    """A Keystone that counts its logins, and a Nova with one service that is as it shall be."""

    logins = 0

    def _answer(self, code: int, body: dict, **headers: str) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        type(self).logins += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        url = f"http://127.0.0.1:{self.server.server_port}/compute"
        endpoint = {"id": "e", "interface": "public", "region": "r", "region_id": "r", "url": url}
        token = {
            "methods": ["password"],
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "expires_at": "2999-01-01T00:00:00.000000Z",
            "catalog": [{"type": "compute", "name": "nova", "id": "n", "endpoints": [endpoint]}],
        }
        self._answer(201, {"token": token}, **{"X-Subject-Token": "secret-token"})

    def do_GET(self) -> None:
        service = {"id": "1", "host": "cmp01", "binary": "nova-compute", "state": "up", "status": "enabled"}
        self._answer(200, {"services": [{**service, "forced_down": False}]})

    def log_message(self, *_words: object) -> None:
        """Nothing."""


def test_the_second_run_does_not_log_in_again(tmp_path: Path) -> None:
    paths = {name: os.environ[name] for name in ("ANSIBLE_COLLECTIONS_PATH", "PYTHONPATH")}
    cloud = ThreadingHTTPServer(("127.0.0.1", 0), Cloud)
    threading.Thread(target=cloud.serve_forever, daemon=True).start()
    daemon = Daemon(tmp_path, **paths)
    try:
        daemon.learn()
        name = daemon.play(f"""
            - c5c3.ha.compute_service:
                host: cmp01
                state: enabled
                auth: {{auth_url: "http://127.0.0.1:{cloud.server_port}/v3", username: u, password: p, project_name: x}}
            """)
        for _ in range(2):
            done = daemon.run(name)
            assert done.returncode == 0 and "ORDINARY" not in done.stdout, done.stdout
            assert "secret-token" not in done.stdout
        assert Cloud.logins == 1
    finally:
        daemon.stop()
        cloud.shutdown()
