"""A real kube-apiserver with its etcd, as two processes on the loopback, for the length of a test."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from testbed.deploy.kube_api import Api, NotYetError
from testbed.wait import Deadline, until


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for entry in sockets:
            entry.bind(("127.0.0.1", 0))
        return [entry.getsockname()[1] for entry in sockets]


@contextlib.contextmanager
def kube_apiserver(folder: Path) -> Iterator[Path]:
    """Start both; gives a kubeconfig of an administrator once the API answers."""
    clients, peers, port = free_ports(3)
    subprocess.run(["openssl", "genrsa", "-out", str(folder / "key"), "2048"], check=True, capture_output=True)
    (folder / "tokens.csv").write_text("token,admin,admin,system:masters\n")
    store = f"http://127.0.0.1:{clients}"
    argvs = [
        ["etcd", "--data-dir", "data", "--listen-client-urls", store, "--advertise-client-urls", store,
         "--listen-peer-urls", f"http://127.0.0.1:{peers}", "--unsafe-no-fsync"],
        ["kube-apiserver", "--etcd-servers", store, "--cert-dir", "certs", "--bind-address", "127.0.0.1",
         "--secure-port", str(port), "--service-account-issuer", "https://test", "--service-account-key-file", "key",
         "--service-account-signing-key-file", "key", "--token-auth-file", "tokens.csv", "--allow-privileged=true",
         "--authorization-mode", "AlwaysAllow", "--service-cluster-ip-range", "10.96.0.0/16",
         "--disable-admission-plugins", "ServiceAccount",
         "--feature-gates", "MutatingAdmissionPolicy=true",
         "--runtime-config", "admissionregistration.k8s.io/v1beta1=true"],
    ]  # fmt: skip
    kubeconfig = folder / "kubeconfig"
    server = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(folder / "certs" / "apiserver.crt")}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": server}],
        "users": [{"name": "admin", "user": {"token": "token"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "current-context": "test",
    }
    kubeconfig.write_text(json.dumps(config))
    with contextlib.ExitStack() as stack:
        for argv in argvs:
            log = stack.enter_context((folder / f"{argv[0]}.log").open("w"))
            process = subprocess.Popen(
                [shutil.which(argv[0]) or argv[0], *argv[1:]],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
        assert until(lambda: answers(kubeconfig), Deadline(90)), (folder / "kube-apiserver.log").read_text()[-2000:]
        yield kubeconfig


def answers(kubeconfig: Path) -> bool:
    """Whether it has begun to work: its own namespaces are there."""
    if not (kubeconfig.parent / "certs" / "apiserver.crt").exists():
        return False
    try:
        api = Api(kubeconfig, kubeconfig.parent / "discoveries.json")
        api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe", "namespace": "kube-system"}})
    except NotYetError:
        return False
    api.close()
    return True
