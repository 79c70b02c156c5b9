"""A walk as a pcapng file: one file for all namespaces, each interface with its name, node and VRF as a comment.

Source: draft-ietf-opsawg-pcapng (the file format), https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL2.html (what
stands before each packet, since packets are captured without their link's header).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence

from pcapng.blocks import EnhancedPacket, InterfaceDescription, SectionHeader
from pcapng.writer import FileWriter

from testbed.trace.journeys import Question, journeys
from testbed.trace.packet import ETH_P_ARP, Frame

LINKTYPE_LINUX_SLL2 = 276
NANOSECONDS = b"\x09"  # if_tsresol: 10^-9 s
PACKET_TYPES = {"in": 0, "other": 3, "out": 4}


def pcapng(frames: Sequence[Frame], notes: Mapping[int, str] | None = None, title: str = "") -> bytes:
    """The contents of a pcapng file.

    Args:
        frames: in the order of time. notes: comments on frames, by their index. title: a comment on the file.
    """
    section = SectionHeader(options={**_comment(title), "shb_userappl": "testbed"})
    ports = list(dict.fromkeys((frame.node, frame.vrf, frame.interface) for frame in frames))
    for node, vrf, interface in ports:
        _describe(section, node, vrf, interface)
    numbers = {port: number for number, port in enumerate(ports)}
    found = io.BytesIO()
    writer = FileWriter(found, section)  # which writes the interfaces, too
    for index, frame in enumerate(frames):
        number = numbers[frame.node, frame.vrf, frame.interface]
        writer.write_block(_packet(section, frame, number, (notes or {}).get(index, "")))
    return found.getvalue()


def notes(frames: Sequence[Frame], question: Question) -> dict[int, str]:
    """A comment on each frame of a flow: node and VRF, which way, and whether it is of the request or the reply."""
    place = {id(frame): index for index, frame in enumerate(frames)}
    found: dict[int, str] = {}
    for journey in journeys(frames, question):
        for sighting in journey.sightings:
            frame = sighting.frame
            where = f"{frame.node}, VRF {frame.vrf}" if frame.vrf else frame.node
            found[place[id(frame)]] = f"{journey.direction} at {where}, {frame.way} {frame.interface}"
    return found


def _comment(text: str) -> dict[str, str]:
    return {"opt_comment": text} if text else {}


def _describe(section: SectionHeader, node: str, vrf: str | None, interface: str) -> None:
    """Add an interface to the section."""
    where = f"{node}/{vrf}" if vrf else node
    said = f"node {node}, VRF {vrf}" if vrf else f"node {node}"
    options = {
        **_comment(said),
        "if_name": f"{where}:{interface}",
        "if_description": f"{interface} of {said}",
        "if_tsresol": NANOSECONDS,
    }
    section.new_member(InterfaceDescription, link_type=LINKTYPE_LINUX_SLL2, options=options)


def _packet(section: SectionHeader, frame: Frame, number: int, note: str) -> EnhancedPacket:
    data = _cooked(frame) + frame.data
    return section.new_member(
        EnhancedPacket,
        interface_id=number,
        timestamp_high=frame.time >> 32,
        timestamp_low=frame.time & 0xFFFFFFFF,
        packet_len=max(len(data), len(data) - len(frame.data) + _length(frame)),
        packet_data=data,
        options=_comment(note),
    )


def _cooked(frame: Frame) -> bytes:
    """The header of LINKTYPE_LINUX_SLL2: what the kernel says of a packet instead of its link's own header."""
    address = frame.sender[:8]
    return struct.pack(
        "!HHIHBB8s",
        frame.ethertype,
        0,
        frame.index,
        frame.hardware,
        PACKET_TYPES[frame.way],
        len(address),
        address,
    )


def _length(frame: Frame) -> int:
    """The length of the whole packet, of which only the beginning was kept: by its IP header."""
    if frame.ethertype == ETH_P_ARP or len(frame.data) < 6:
        return len(frame.data)
    if frame.data[0] >> 4 == 6:
        return 40 + int.from_bytes(frame.data[4:6], "big")
    return int.from_bytes(frame.data[2:4], "big")
