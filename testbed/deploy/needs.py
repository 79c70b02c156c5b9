"""What a Plan needs of the kernel that not every kernel has, tried before anything is made."""

from __future__ import annotations

from testbed.errors import UnsupportedError
from testbed.plan import Plan
from testbed.runtime import kernel

IPVS_MODE = "kube-proxy's mode ipvs"
_ADVICE = "run the lab under Debian's own kernel (testbed vm), or choose another kubeProxyMode"


def features(plan: Plan) -> dict[str, kernel.Trial]:
    """The features a Plan needs besides those that every lab needs, by name."""
    kinds = {entry.kind for node in plan.nodes for entry in node.interfaces}
    tools = {entry.tool for node in plan.nodes for entry in node.rulesets}
    wanted = {
        "IPVS": (kernel.ipvs, "ipvs" in tools),
        "IP sets": (kernel.IPSETS, "ipset" in tools),
        "dummy interfaces": (kernel.DUMMY, "dummy" in kinds),
    }
    return {name: trial for name, (trial, needed) in wanted.items() if needed}


def refuse(plan: Plan) -> None:
    """Raise UnsupportedError, naming all of them, where this kernel lacks features that the Plan needs."""
    if any(node.vrf_devices for node in plan.nodes):
        answer = kernel.try_all({"vrf": kernel.VRF})["vrf"]
        if not answer.works:
            raise UnsupportedError(f"VRF driver device: {answer.detail}; the driver netns does without")
    if not (wanted := features(plan)):
        return
    answers = kernel.try_all(wanted)
    lacking = [f"{name} ({answer.detail})" for name, answer in answers.items() if not answer.works]
    if lacking:
        raise UnsupportedError(f"{IPVS_MODE} needs {', '.join(lacking)}: {_ADVICE}")
