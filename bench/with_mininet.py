"""Builds a topology with Mininet, from Python as Mininet is meant to be used. Runs in the system's Python.

    python3 with_mininet.py TOPOLOGY.json

All that is slow in Mininet's shells is asked of all nodes at once, as its manual advises. Ends when its standard
input does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mininet.net import Mininet  # type: ignore[import-not-found]  # no dependency of the project


def main() -> None:
    topology = json.loads(Path(sys.argv[1]).read_text())
    net = Mininet(topo=None, controller=None, build=False)
    nodes = {name: net.addHost(name, ip=None) for name in topology["nodes"]}
    for (a, port_a, ip_a), (b, port_b, ip_b) in topology["links"]:
        net.addLink(nodes[a], nodes[b], intfName1=port_a, intfName2=port_b, params1={"ip": ip_a}, params2={"ip": ip_b})
    net.start()
    started = [node.popen(["sh", topology["nodes"][name]]) for name, node in nodes.items()]
    sys.stdin.read()
    for node, process in zip(nodes.values(), started, strict=True):
        process.terminate()
        node.sendCmd("kill $(cat /run/frr/zebra.pid)")
    for node, process in zip(nodes.values(), started, strict=True):
        node.waitOutput()
        process.wait()
    net.stop()


if __name__ == "__main__":
    main()
