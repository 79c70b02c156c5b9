"""A cluster of kind's made real: what is installed is read and checked first, then kind makes the nodes, then the
objects are applied until the cluster takes them, and all of it is awaited."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from testbed.deploy import kube_schemas
from testbed.deploy.kube_api import Api, NotYetError, title
from testbed.errors import DeployError, InputError, NotReadyError, Position, Problem, UnsupportedError
from testbed.events import Awaited, Observer
from testbed.export import kind as rendering
from testbed.plan import Cluster, KubeObject, Plan
from testbed.runtime import kind_tool
from testbed.runtime.base import ClusterRuntime
from testbed.wait import Deadline, until

CALICO_AGENT = ("DaemonSet", "calico-node")
EARLY = ("projectcalico.org/",)  # what pods need before they get a network
DISCOVERIES = "discovery.json"
PATIENCE = 30.0  # seconds for one upstream manifest

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Prepared:
    """All that goes into a cluster, in the order in which it is applied."""

    documents: tuple[Document, ...]


def prepare(plan: Plan) -> Prepared:
    """Read the upstream manifests and check everything, before anything is made.

    Raises:
        UnsupportedError: kind or the client is not there. InputError: an object is wrong, or a manifest cannot be had.
    """
    assert plan.cluster is not None
    if reason := kind_tool.missing():
        raise UnsupportedError(reason)
    upstream = [list(_documents(source)) for source in plan.cluster.upstream]
    own = [json.loads(entry.text) for entry in plan.cluster.objects]
    known = kube_schemas.schemas([entry for file in upstream for entry in file])
    problems = [
        Problem(f"{title(item)}: {text}", _position(entry))
        for item, entry in zip(own, plan.cluster.objects, strict=True)
        for text in kube_schemas.problems(item, known)
    ]
    if problems:
        raise InputError(problems)
    return Prepared(tuple(in_order(upstream, own, plan.cluster)))


def in_order(upstream: Sequence[Sequence[Document]], own: Sequence[Document], cluster: Cluster) -> Iterator[Document]:
    """Calico with its settings, what the lab says of it, the other manifests, the rest of the lab's.

    Args:
        upstream: Calico's manifest first.
    """
    early = [item for item in own if item["kind"] in ("Namespace", "Node") or item["apiVersion"].startswith(EARLY)]
    for item in upstream[0] if upstream else ():
        yield _with_settings(item, cluster)
    yield from early
    for file in upstream[1:]:
        yield from file
    yield from (item for item in own if item not in early)


def _with_settings(item: Document, cluster: Cluster) -> Document:
    """Calico's node agent with the lab's environment instead of the manifest's."""
    if (item["kind"], item["metadata"]["name"]) != CALICO_AGENT:
        return item
    made: dict[str, Any] = json.loads(json.dumps(item))
    for container in made["spec"]["template"]["spec"]["containers"]:
        if container["name"] == CALICO_AGENT[1]:
            given = dict(cluster.settings)
            kept = [entry for entry in container.get("env", ()) if entry["name"] not in given]
            container["env"] = [*kept, *({"name": name, "value": value} for name, value in given.items())]
    return made


def _documents(source: str) -> Iterator[Document]:
    """The objects of an upstream manifest. Raises InputError when it cannot be had or is none."""
    import yaml

    text = _text(source)
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the CRDs are half a megabyte
        found = [entry for entry in yaml.load_all(text, Loader=loader) if entry is not None]
    except yaml.YAMLError as error:
        raise InputError([Problem(f"{source} is no YAML: {str(error).splitlines()[0]}")]) from None
    for entry in found:
        if not (isinstance(entry, dict) and {"apiVersion", "kind", "metadata"} <= entry.keys()):
            raise InputError([Problem(f"{source} holds something that is no Kubernetes object")])
        yield entry


def _text(source: str) -> str:
    hint = "for a machine without a network, name a folder with the files: cluster.kind.offline"
    if source.startswith("https://"):
        import httpx

        try:
            answer = httpx.get(source, timeout=PATIENCE, follow_redirects=True)
        except httpx.HTTPError as error:
            raise InputError([Problem(f"{source} cannot be had: {error}", hint=hint)]) from None
        if answer.status_code != httpx.codes.OK:
            raise InputError([Problem(f"{source} cannot be had: status {answer.status_code}", hint=hint)])
        return answer.text
    try:
        return Path(source).read_text()
    except (OSError, ValueError) as error:
        raise InputError([Problem(f"{source} cannot be read: {error}")]) from None


def _position(entry: KubeObject) -> Position | None:
    file, _, rest = entry.origin.rpartition(":")
    file, _, line = file.rpartition(":")
    return Position(file, int(line), int(rest)) if file else None


# --- a running one ----------------------------------------------------------------------------------------------------

_FIXED = ("image", "pod_subnet", "service_subnet", "kube_proxy_mode", "nodes", "upstream", "settings")


def refuse_change(old: Plan, new: Plan) -> None:
    """Raise InputError for a change that a running cluster of kind's cannot take."""
    hint = f"`testbed down {new.name}` first"
    if (old.cluster is None) != (new.cluster is None):
        before, after = ("kind" if plan.cluster else "embedded" for plan in (old, new))
        raise InputError([Problem(f"the cluster of a running lab cannot change from {before} to {after}", hint=hint)])
    if old.cluster is None or new.cluster is None:
        return
    changed = [name for name in _FIXED if getattr(old.cluster, name) != getattr(new.cluster, name)]
    if changed:
        names = ", ".join(name.replace("_", " ") for name in changed)
        raise InputError([Problem(f"a running cluster of kind's cannot change: {names}", hint=hint)])


# --- doing ------------------------------------------------------------------------------------------------------------


def make(plan: Plan, runtime: ClusterRuntime, deadline: Deadline) -> None:
    """Have kind make the nodes. Raises CommandError with kind's words."""
    assert plan.cluster is not None
    names = rendering.containers(plan)
    runtime.make_cluster(rendering.config_text(plan), names, plan.cluster.images, deadline.left)


def install(
    plan: Plan, old: Plan | None, prepared: Prepared, kubeconfig: Path, deadline: Deadline, observer: Observer
) -> None:
    """Apply everything, take away what is no longer wanted, and wait until the cluster has done it.

    Args:
        old: the plan of the lab as it runs; None for a new one.

    Raises:
        NotReadyError: naming what is awaited. DeployError: the cluster refuses an object, or gives a Service another
            address than the lab counts on.
    """
    assert plan.cluster is not None
    api = _connected(kubeconfig, deadline)
    try:
        for node in plan.cluster.nodes:
            if node.role == "control-plane":
                _insist(partial(api.include_in_load_balancing, node.name), f"node {node.name}", deadline)
        titles = [title(item) for item in prepared.documents]
        for number, item in enumerate(prepared.documents):
            observer(Awaited("objects", tuple(titles[number:]), len(titles)))
            _insist(partial(api.apply, item), titles[number], deadline)
        for item in _gone(old, plan):
            _insist(partial(api.delete, item), title(item), deadline)
        _await_workloads(api, deadline, observer)
        _await_addresses(api, plan, deadline, observer)
    finally:
        api.close()


def _gone(old: Plan | None, new: Plan) -> Iterator[Document]:
    """The objects of a plan that another one has not."""
    assert new.cluster is not None
    kept = {_identity(json.loads(entry.text)) for entry in new.cluster.objects}
    for entry in old.cluster.objects if old and old.cluster else ():
        item = json.loads(entry.text)
        if _identity(item) not in kept and item["kind"] != "Node":
            yield item


def _identity(item: Document) -> tuple[str, str, str, str]:
    metadata = item["metadata"]
    return item["apiVersion"].partition("/")[0], item["kind"], metadata.get("namespace", ""), metadata["name"]


def _connected(kubeconfig: Path, deadline: Deadline) -> Api:
    found: list[Api] = []
    _insist(lambda: found.append(Api(kubeconfig, kubeconfig.with_name(DISCOVERIES))), "the cluster's API", deadline)
    return found[0]


def _insist(work: Callable[[], None], what: str, deadline: Deadline) -> None:
    """Do it until it is done. Raises NotReadyError with the last reason it was not."""
    last = ""

    def done() -> bool:
        nonlocal last
        try:
            work()
        except NotYetError as error:
            last = str(error)
            return False
        return True

    if not until(done, deadline):
        raise NotReadyError(deadline.seconds, [f"{what}: {last}"])


def _await_workloads(api: Api, deadline: Deadline, observer: Observer) -> None:
    missing: list[str] = []
    most = 0

    def done() -> bool:
        nonlocal most
        missing[:] = _lack(api.unfinished)
        most = max(most, len(missing))
        observer(Awaited("workloads", tuple(missing), most))
        return not missing

    if not until(done, deadline):
        raise NotReadyError(deadline.seconds, missing)


def _await_addresses(api: Api, plan: Plan, deadline: Deadline, observer: Observer) -> None:
    """Every load balancer has an address, and the one the lab counts on: MetalLB's rules leave it no choice here."""
    wanted = {f"{entry.namespace}/{entry.name}": entry.addresses for entry in plan.services if entry.addresses}
    found: dict[str, tuple[str, ...]] = {}
    missing: list[str] = []

    def done() -> bool:
        missing[:] = _lack(lambda: _without_address(api, wanted, found))
        observer(Awaited("load balancer addresses", tuple(missing), len(wanted)))
        return not missing

    if not until(done, deadline):
        raise NotReadyError(deadline.seconds, missing)
    for key, addresses in wanted.items():
        if set(found[key]) != set(addresses):
            given, expected = ", ".join(found[key]), ", ".join(addresses)
            raise DeployError(
                f"Service {key} has the address {given}, and the lab counts on {expected}: "
                "state it, with the annotation metallb.io/loadBalancerIPs"
            )


def _without_address(api: Api, wanted: Mapping[str, Sequence[str]], found: dict[str, tuple[str, ...]]) -> list[str]:
    found.clear()
    found.update(api.addresses())
    return [f"Service {key}: no address" for key in wanted if not found.get(key)]


def _lack(question: Callable[[], list[str]]) -> list[str]:
    """What is missing; that the API does not answer is missing too."""
    try:
        return question()
    except NotYetError as error:
        return [str(error)]
