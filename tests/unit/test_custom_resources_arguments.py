# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments and credentials of the source custom_resources: each wrong one is told in one sentence, before anything."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError, HaError
from ansible_collections.c5c3.ha.plugins.module_utils.watching.credentials import Credentials, TokenFile
from ansible_collections.c5c3.ha.plugins.module_utils.watching.options import Auth, parse

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "extensions/eda/plugins/event_source/custom_resources.py"


# --- options ------------------------------------------------------------------------------------------------------


def test_defaults():
    options = parse({})
    (watched,) = options.watched
    assert watched.resource.full_name == "evictions.hypervisor.c5c3.io"
    assert (watched.namespace, watched.label_selector, watched.field_selector, watched.resync_seconds) == (
        None,
        "",
        "",
        30.0,
    )
    assert options.lease is None
    assert options.watch_timeout == 45.0


def test_empty_strings_count_as_not_given_and_strings_as_what_they_say():
    options = parse(
        {
            "kubeconfig": "",
            "context": "",
            "kinds": "",
            "namespace": None,
            "resync_seconds": "12.5",
            "validate_certs": "no",
        }
    )
    assert options.watched[0].resync_seconds == 12.5
    assert options.auth.validate_certs is False


def test_kinds_resources_and_selectors():
    options = parse(
        {
            "api_group": "kvm.cloud.sap",
            "kinds": ["Eviction", "Migration"],
            "namespace": "monsoon3",
            "label_selectors": ["zone=a", "tier!=test"],
            "resources": [
                {"kind": "Hypervisor", "label_selectors": "x=y", "resync_seconds": 0},
                {"kind": "Node", "group": "core", "plural": "nodes", "field_selectors": ["metadata.name=cmp01"]},
                {
                    "kind": "OVSNode",
                    "group": "ovs.c5c3.io",
                    "version": "v1alpha1",
                    "plural": "ovsnodes",
                    "namespaced": True,
                },
            ],
        }
    )
    assert [(w.resource.path(namespace=w.namespace), w.label_selector, w.field_selector) for w in options.watched] == [
        ("/apis/kvm.cloud.sap/v1/evictions", "zone=a,tier!=test", ""),
        ("/apis/kvm.cloud.sap/v1alpha1/namespaces/monsoon3/migrations", "zone=a,tier!=test", ""),
        ("/apis/kvm.cloud.sap/v1/hypervisors", "x=y", ""),
        ("/api/v1/nodes", "zone=a,tier!=test", "metadata.name=cmp01"),
        ("/apis/ovs.c5c3.io/v1alpha1/namespaces/monsoon3/ovsnodes", "zone=a,tier!=test", ""),
    ]
    assert [w.resync_seconds for w in options.watched] == [30, 30, 0, 30, 30]


def test_only_resources_when_no_kinds_are_given():
    assert [w.resource.kind for w in parse({"resources": [{"kind": "Hypervisor"}]}).watched] == ["Hypervisor"]


def test_lease():
    lease = parse({"lease": {"name": "ha"}}).lease
    assert (lease.name, lease.namespace) == ("ha", "default")
    assert (lease.timing.duration, lease.timing.renew_deadline, lease.timing.retry_period) == (10, 6.5, 2.0)
    lease = parse({"lease": {"name": "ha", "namespace": "c5c3-ha", "duration": "4"}}).lease
    assert (lease.timing.duration, lease.timing.renew_deadline, lease.timing.retry_period) == (4, 2.6, 0.8)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], ["arguments [] is not a dictionary"]),
        ({"kind": ["Eviction"]}, ["Unknown option 'kind'", "did you mean kinds?"]),
        ({"resync": 5}, ["Unknown option 'resync'", "resync_seconds"]),
        ({"lease": {"name": "x", "time": 5}}, ["Unknown option 'lease.time'", "duration, name"]),
        ({"kinds": ["Evictions"]}, ["kinds 'Evictions' is wrong", "did you mean Eviction?"]),
        ({"kinds": []}, ["name at least one kind"]),
        ({"kinds": 7}, ["kinds 7 is wrong", "list of strings"]),
        ({"kinds": ["Eviction", "Eviction"]}, ["name each kind once"]),
        ({"api_group": "Nonsense"}, ["api_group 'Nonsense'", "kvm.cloud.sap"]),
        ({"resync_seconds": "often"}, ["resync_seconds 'often' is wrong", "number of seconds from 0 to 86400"]),
        ({"resync_seconds": -1}, ["resync_seconds -1 is wrong"]),
        ({"resync_seconds": True}, ["resync_seconds True is wrong"]),
        ({"resync_seconds": float("nan")}, ["resync_seconds nan is wrong"]),
        ({"watch_timeout": 0}, ["watch_timeout 0 is wrong", "from 1 to 3600"]),
        ({"validate_certs": "maybe"}, ["validate_certs 'maybe' is wrong", "true or false"]),
        ({"host": "10.66.0.254"}, ["host '10.66.0.254' is wrong", "https://"]),
        ({"kubeconfig": "/nowhere/config"}, ["kubeconfig '/nowhere/config' is wrong", "no such file"]),
        ({"token_file": "/nowhere/token"}, ["token_file '/nowhere/token' is wrong", "no such file"]),
        ({"client_key": str(PLUGIN)}, ["client_key", "needs client_cert"]),
        ({"api_key": "x", "token_file": str(PLUGIN)}, ["either api_key or token_file"]),
        ({"lease": "ha"}, ["lease 'ha' is not a dictionary"]),
        ({"lease": {}}, ["lease.name is missing"]),
        ({"lease": {"name": "No Name"}}, ["lease.name 'No Name'"]),
        ({"lease": {"name": "x", "namespace": "a.b"}}, ["namespace 'a.b'"]),
        ({"lease": {"name": "x", "duration": 2.5}}, ["lease.duration 2.5 is wrong", "integer"]),
        ({"lease": {"name": "x", "renew_deadline": 10}}, ["lease.renew_deadline 10.0", "less than the duration, 10 s"]),
        ({"lease": {"name": "x", "retry_period": 5}}, ["lease.retry_period 5.0", "two thirds"]),
        ({"resources": [{"kind": "Node"}]}, ["resources[0].plural", "plural unless it is one of"]),
        ({"resources": [{"plural": "nodes"}]}, ["resources[0].kind"]),
        ({"resources": [{"kind": "Eviction", "namespace": "x"}]}, ["resources[0].namespace 'x'", "cluster scope"]),
        ({"resources": [{"kind": "Migration", "namespace": "a/b"}]}, ["namespace 'a/b'"]),
        ({"resources": [{"kind": "Eviction", "versoin": "v1"}]}, ["Unknown option 'resources[0].versoin'", "version?"]),
        ({"resources": {}}, ["give a list of dictionaries"]),
        ({"resources": ["Node"]}, ["resources[0] 'Node' is not a dictionary"]),
    ],
)
def test_wrong_arguments_are_named_with_a_remedy(args, says):
    with pytest.raises(ArgumentError) as caught:
        parse(args)
    for part in says:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_secret_is_in_no_message_and_no_repr():
    with pytest.raises(ArgumentError) as caught:
        parse({"api_key": ["hush"]})
    assert "hush" not in str(caught.value)
    assert "hush" not in repr(parse({"api_key": "hush"}))


async def test_the_source_refuses_before_it_does_anything():
    main = runpy.run_path(str(PLUGIN))["main"]
    with pytest.raises(HaError, match="Unknown option 'kubconfig': did you mean kubeconfig"):
        await main(asyncio.Queue(1), {"kubconfig": "x"})


def test_documentation_names_every_option_and_no_other():
    module = runpy.run_path(str(PLUGIN))
    documented = yaml.safe_load(module["DOCUMENTATION"])["options"]
    with pytest.raises(ArgumentError) as caught:
        parse({"zzzzzzzz": 1})
    known = set(str(caught.value).split("known are ")[1].split(", ")) - {"eda_feedback_queue"}
    assert known == set(documented)
    with pytest.raises(ArgumentError) as caught:
        parse({"lease": {"name": "x", "zzzzzzzz": 1}})
    assert set(str(caught.value).split("known are ")[1].split(", ")) == set(documented["lease"]["suboptions"])
    with pytest.raises(ArgumentError) as caught:
        parse({"resources": [{"kind": "Eviction", "zzzzzzzz": 1}]})
    assert set(str(caught.value).split("known are ")[1].split(", ")) == set(documented["resources"]["suboptions"])


def test_examples_are_rulebooks_with_options_that_pass():
    for ruleset in yaml.safe_load(runpy.run_path(str(PLUGIN))["EXAMPLES"]):
        (source,) = ruleset["sources"]
        parse(source["c5c3.ha.custom_resources"])


# --- credentials --------------------------------------------------------------------------------------------------


def kubeconfig(path, user=None, cluster=None, **top):
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "me"}}],
        "clusters": [{"name": "lab", "cluster": cluster or {"server": "http://127.0.0.1:1/"}}],
        "users": [{"name": "me", "user": user or {"token": "first"}}],
        **top,
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.fixture()
def load(tmp_path, monkeypatch):
    """Load credentials; return (host, authorization, credentials)."""
    monkeypatch.setenv("HOME", str(tmp_path))

    async def loader(auth, environ=None, service_account="/nowhere"):
        credentials = Credentials(auth, environ or {}, service_account)
        rest, host = await credentials.load()
        await rest.close()
        return host, await credentials.authorization(), credentials

    return loader


async def test_order_of_places(load, tmp_path):
    one = kubeconfig(tmp_path / "one", cluster={"server": "http://one"})
    two = kubeconfig(tmp_path / "two", cluster={"server": "http://two"})
    three = kubeconfig(tmp_path / "three", cluster={"server": "http://three"})
    pod = tmp_path / "pod"
    pod.mkdir()
    (pod / "token").write_text("pod-token\n")
    (pod / "ca.crt").write_text("")
    (tmp_path / ".kube").mkdir()
    kubeconfig(tmp_path / ".kube/config", cluster={"server": "http://home"})
    environ = {
        "K8S_AUTH_KUBECONFIG": two,
        "KUBECONFIG": f"/nowhere:{three}",
        "KUBERNETES_SERVICE_HOST": "fd00::1",
        "KUBERNETES_SERVICE_PORT": "6443",
    }
    assert (await load(Auth(host="http://zero/", kubeconfig=one), environ))[:2] == ("http://zero", None)
    assert (await load(Auth(kubeconfig=one), environ))[0] == "http://one"
    assert (await load(Auth(), environ))[0] == "http://two"
    del environ["K8S_AUTH_KUBECONFIG"]
    assert (await load(Auth(), environ))[0] == "http://three"
    del environ["KUBECONFIG"]
    with pytest.raises(ArgumentError, match="TLS files"):  # the pod's CA is empty
        await load(Auth(), environ, str(pod))
    (pod / "ca.crt").unlink()
    certificate = subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=x",
            "-keyout",
            str(tmp_path / "key"),
            "-out",
            str(pod / "ca.crt"),
        ],
        capture_output=True,
        check=True,
    )
    assert certificate.returncode == 0
    assert (await load(Auth(), environ, str(pod)))[:2] == ("https://[fd00::1]:6443", "Bearer pod-token")
    assert (await load(Auth(), environ, "/nowhere"))[0] == "http://home"
    (tmp_path / ".kube/config").unlink()
    with pytest.raises(ArgumentError, match="set kubeconfig or host"):
        await load(Auth(), environ, "/nowhere")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "kubectl config view"),
        ("a: [", "kubectl config view"),
        ("- 1", "kubectl config view"),
        ("{}", "kubectl config view"),
        ("current-context: x\ncontexts: 5\nclusters: {}\n", "kubectl config view"),
    ],
)
async def test_files_that_are_no_kubeconfig(load, tmp_path, content, says):
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(ArgumentError) as caught:
        await load(Auth(kubeconfig=str(path)))
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


async def test_an_unknown_context_is_named(load, tmp_path):
    path = kubeconfig(tmp_path / "config")
    with pytest.raises(ArgumentError, match="context 'prod' is wrong: kubeconfig .* has none of that name"):
        await load(Auth(kubeconfig=path, context="prod"))


async def test_a_missing_certificate_is_named(load, tmp_path):
    path = kubeconfig(
        tmp_path / "config", cluster={"server": "https://127.0.0.1:1", "certificate-authority": "missing.crt"}
    )
    with pytest.raises(ArgumentError, match="missing.crt"):
        await load(Auth(kubeconfig=path))


async def test_options_replace_what_the_kubeconfig_says(load, tmp_path):
    path = kubeconfig(tmp_path / "config")
    token = tmp_path / "token"
    token.write_text("from-file\n")
    assert (await load(Auth(kubeconfig=path)))[1] == "Bearer first"
    assert (await load(Auth(kubeconfig=path, api_key="key")))[1] == "Bearer key"
    assert (await load(Auth(kubeconfig=path, token_file=str(token))))[1] == "Bearer from-file"


async def test_a_kubeconfigs_token_file_is_followed(load, tmp_path):
    (tmp_path / "token").write_text("one")
    path = kubeconfig(tmp_path / "config", user={"tokenFile": "token"})
    _host, authorization, credentials = await load(Auth(kubeconfig=path))
    assert authorization == "Bearer one"
    (tmp_path / "new").write_text("two\n")
    os.replace(tmp_path / "new", tmp_path / "token")
    assert await credentials.authorization() == "Bearer two"


async def test_a_login_helper_is_run(load, tmp_path):
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "exec"}}
    helper = {"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/echo", "args": [json.dumps(answer)]}
    path = kubeconfig(tmp_path / "config", user={"exec": helper})
    assert (await load(Auth(kubeconfig=path)))[1] == "Bearer exec"
    path = kubeconfig(tmp_path / "config", user={"exec": {**helper, "command": "/bin/false"}})
    with pytest.raises(HaError, match="login helper"):
        await load(Auth(kubeconfig=path))


async def test_keys_inside_a_kubeconfig_do_not_stay_on_disk(load, tmp_path, monkeypatch):
    key, certificate = tmp_path / "k.pem", tmp_path / "c.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=x",
            "-keyout",
            str(key),
            "-out",
            str(certificate),
        ],
        capture_output=True,
        check=True,
    )
    inline = {
        "client-key-data": base64.b64encode(key.read_bytes()).decode(),
        "client-certificate-data": base64.b64encode(certificate.read_bytes()).decode(),
    }
    path = kubeconfig(
        tmp_path / "config",
        user=inline,
        cluster={"server": "https://x", "certificate-authority-data": inline["client-certificate-data"]},
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    for _twice in (1, 2):  # their reader must not remember the files it wrote the first time
        await load(Auth(kubeconfig=path))
        assert list(scratch.iterdir()) == []


async def test_a_changed_file_is_noticed(load, tmp_path):
    path = kubeconfig(tmp_path / "config")
    _host, _authorization, credentials = await load(Auth(kubeconfig=path))
    assert not credentials.changed()
    kubeconfig(tmp_path / "config", user={"token": "longer-than-before"})
    assert credentials.changed()


def test_a_token_file_that_is_away_for_a_moment_keeps_its_last_token(tmp_path):
    path = tmp_path / "token"
    path.write_text("one")
    file = TokenFile(str(path))
    assert file.read() == "one"
    path.unlink()
    assert file.read() == "one"
    path.write_text("")
    assert file.read() == "one"
    path.write_text("two")
    assert file.read() == "two"
    path.write_bytes(b"\xff\xfe\x00")
    assert file.read() == "two"
    path.write_text("with\nnewline")
    assert file.read() == "two"


@pytest.mark.parametrize("content", [b"", b"  \n", b"a b", b"a\nb", b"\xff\xfe"])
def test_a_token_file_without_a_token_is_told_at_start(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ArgumentError, match="gives no token"):
        TokenFile(str(path)).read()


# --- the light import ---------------------------------------------------------------------------------------------

LIGHT = """
import sys
from ansible_collections.c5c3.ha.plugins.module_utils.watching import client_library
library = client_library.load()
names = [name for name in sys.modules if name.startswith("kubernetes_asyncio")]
assert len(names) < 30, len(names)
from kubernetes_asyncio import client, config, watch
assert client.CoreV1Api.__module__ == "kubernetes_asyncio.client.api.core_v1_api"
assert client.Configuration is library.Configuration
assert config.load_kube_config and watch.Watch and client.V1Pod(kind="Pod").kind == "Pod"
try:
    client.NoSuchThing
except AttributeError:
    print("fine")
"""


def test_only_a_few_modules_are_imported_and_others_still_find_all():
    done = subprocess.run(
        [sys.executable, "-c", LIGHT],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert done.stdout.strip() == "fine", done.stderr
