"""What a Plan needs of the kernel that not every kernel has, tried before anything is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from testbed.errors import UnsupportedError
from testbed.plan import Plan
from testbed.runtime import kernel

_ELSEWHERE = "run the lab under Debian's own kernel (testbed vm), or"


@dataclass(frozen=True)
class _Need:
    """Kernel features that one part of a lab needs, by name, each with whether the Plan has use for it."""

    what: str
    trials: dict[str, tuple[kernel.Trial, Callable[[Plan], bool]]]
    instead: str


def _has_interface(kind: str) -> Callable[[Plan], bool]:
    return lambda plan: any(entry.kind == kind for node in plan.nodes for entry in node.interfaces)


def _has_ruleset(tool: str) -> Callable[[Plan], bool]:
    return lambda plan: any(entry.tool == tool for node in plan.nodes for entry in node.rulesets)


_NEEDS = (
    _Need(
        "kube-proxy's mode ipvs",
        {
            "IPVS": (kernel.ipvs, _has_ruleset("ipvs")),
            "IP sets": (kernel.IPSETS, _has_ruleset("ipset")),
            "dummy interfaces": (kernel.DUMMY, _has_interface("dummy")),
        },
        "choose another kubeProxyMode",
    ),
    _Need(
        "an EgressService between nodes that share no link",
        {"VXLAN devices": (kernel.VXLAN, _has_interface("vxlan"))},
        "give the nodes a link in common",
    ),
)


def features(plan: Plan) -> dict[str, kernel.Trial]:
    """The features a Plan needs besides those that every lab needs, by name."""
    return {name: trial for need in _NEEDS for name, (trial, needed) in need.trials.items() if needed(plan)}


def refuse(plan: Plan) -> None:
    """Raise UnsupportedError, naming all of them, where this kernel lacks features that the Plan needs."""
    if any(node.vrf_devices for node in plan.nodes):
        answer = kernel.try_all({"vrf": kernel.VRF})["vrf"]
        if not answer.works:
            raise UnsupportedError(f"VRF driver device: {answer.detail}; the driver netns does without")
    if not (wanted := features(plan)):
        return
    answers = kernel.try_all(wanted)
    sentences = []
    for need in _NEEDS:
        own = [(name, answers[name]) for name in need.trials if name in answers]
        if lacking := [f"{name} ({answer.detail})" for name, answer in own if not answer.works]:
            sentences.append(f"{need.what} needs {', '.join(lacking)}: {_ELSEWHERE} {need.instead}")
    if sentences:
        raise UnsupportedError("; ".join(sentences))
