"""Features that not every kernel has, and what `testbed vm` needs, which has a kernel with all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

FEATURES = ("vrf", "ipvs", "ipset", "ipip", "vxlan", "vlan", "netem", "dummy")


@functools.cache
def _missing() -> Mapping[str, str]:
    """Feature → why it does not work; empty when it does. VLAN and netem are tried on a link, which is made first."""
    from testbed.runtime import kernel

    trials = {"veth": kernel.VETH, "vlan": kernel.VLAN, "netem": kernel.netem, "vrf": kernel.VRF, "ipvs": kernel.ipvs}
    trials |= {"ipset": kernel.IPSETS, "ipip": kernel.IPIP, "vxlan": kernel.VXLAN, "dummy": kernel.DUMMY}
    answers = kernel.try_all(trials)
    return {name: "" if answers[name].works else answers[name].detail for name in FEATURES}


def _probe(name: str) -> Callable[[], str]:
    def reason() -> str:
        found = _missing()[name]
        return f"{found} (`testbed vm` runs it on a distribution's)" if found else ""

    return reason


PROBES: Mapping[str, Callable[[], str]] = {name: _probe(name) for name in FEATURES}


@functools.cache
def machine() -> str:
    """What `testbed vm` lacks here; empty when nothing. Not whether a machine boots."""
    from testbed.errors import TestbedError
    from testbed.vm import kernels
    from testbed.vm.machine import missing

    try:
        kernels.find()
    except TestbedError as error:
        return str(error)
    return missing()
