"""A containerlab topology with much of what such files say, written for the tests."""

from __future__ import annotations

from pathlib import Path

TOPOLOGY = """\
name: imported
topology:
  defaults:
    kind: linux
    env: {SITE: here}
  groups:
    routers:
      image: registry.example/frrouting/frr:10.5.1
      binds:
        - cfg/daemons:/etc/frr/daemons
        - cfg/__clabNodeName__.conf:/etc/frr/frr.conf
  nodes:
    R1: {group: routers}
    r2:
      group: routers
      sysctls:
        net.ipv4.conf.eth1.arp_ignore: 1
    pc1:
      image: alpine:${ALPINE:=3}
      env: {COLOUR: green}
      binds:
        - share:/srv/share:ro
      exec:
        - ip address add 10.1.0.2/24 dev eth1
        - ip route add default via 10.1.0.1
        - sh -c 'echo "$$SITE $$COLOUR __clabNodeName__" > /tmp/said'
        - false
        - ip route del 192.0.2.0/24 dev eth0
    pc2:
      image: nicolaka/netshoot
      aliases: [far.example]
      stages: {configure: {wait-for: [{node: pc3, stage: configure}]}}
      exec:
        - ip address add 10.2.0.2/24 dev eth1
        - ip route add default via 10.2.0.1
    pc3:
      image: alpine
      network-mode: none
      exec: ["ip address add 10.2.0.3/24 dev eth0", "ip route add default via 10.2.0.1"]
    lan: {kind: bridge}
  links:
    - endpoints: ["R1:eth1", "r2:eth1"]
    - type: veth
      mtu: 1400
      endpoints:
        - {node: pc1, interface: eth1, mac: "02:00:00:00:01:02"}
        - {node: R1, interface: eth2}
    - endpoints: ["r2:eth2", "lan:r2-lan"]
    - endpoints: ["pc2:eth1", "lan:pc2-lan"]
    - endpoints: ["pc3:eth0", "lan:pc3-lan"]
"""
DAEMONS = """\
# which daemons run
bgpd=yes
ospfd=yes
isisd=yes
ospf6d=yes
bfdd=no
vtysh_enable=yes
zebra_options="  -A 127.0.0.1 -s 90000000"
bgpd_options="   --daemon -A 127.0.0.1"
"""
R1 = """\
frr defaults traditional
hostname R1
interface eth1
 ip address 10.0.0.1/30
 ip ospf network point-to-point
 ip ospf hello-interval 1
 ip ospf dead-interval 4
 ip router isis core
 isis network point-to-point
interface eth2
 ip address 10.1.0.1/24
interface lo
 ip address 10.255.0.1/32
router ospf
 network 10.0.0.0/30 area 0
 network 10.255.0.0/16 area 0
router isis core
 net 49.0001.0000.0000.0001.00
router bgp 65000
 no bgp network import-check
 neighbor 10.255.0.2 remote-as 65000
 neighbor 10.255.0.2 update-source lo
 address-family ipv4 unicast
  network 10.1.0.0/24
 exit-address-family
"""


def other_end(text: str) -> str:
    """The configuration of the second router: the same, seen from the other side."""
    swapped = text.replace("10.0.0.1/30", "10.0.0.2/30").replace("10.1.0.", "10.2.0.")
    swapped = swapped.replace("10.255.0.1/32", "10.255.0.X/32").replace("10.255.0.2", "10.255.0.1")
    swapped = swapped.replace("10.255.0.X", "10.255.0.2").replace("hostname R1", "hostname r2")
    return swapped.replace("0000.0001.00", "0000.0002.00")


def written(folder: Path, topology: str = TOPOLOGY) -> str:
    """The topology and what it binds, in a folder; the path of its file."""
    (folder / "cfg").mkdir()
    (folder / "cfg/daemons").write_text(DAEMONS)
    (folder / "cfg/R1.conf").write_text(R1)
    (folder / "cfg/r2.conf").write_text(other_end(R1))
    (folder / "share/deep").mkdir(parents=True)
    (folder / "share/greeting").write_text("hello\n")
    (folder / "share/deep/run").write_text("#!/bin/sh\necho ran\n")
    (folder / "share/deep/run").chmod(0o755)
    file = folder / "own.clab.yml"
    file.write_text(topology)
    return str(file)
