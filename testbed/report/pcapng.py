"""A walk as a pcapng file: one file for all namespaces, each interface with its name, node and VRF as a comment.

Source: draft-ietf-opsawg-pcapng (the file format), https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL2.html (what
stands before each packet, since packets are captured without their link's header). The format
has no maintained writer that gives interfaces names and comments in a small package, and three kinds of block do.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

from testbed.trace.journeys import Question, journeys
from testbed.trace.packet import ETH_P_ARP, Frame

SECTION_HEADER, INTERFACE_DESCRIPTION, ENHANCED_PACKET = 0x0A0D0D0A, 1, 6
MAGIC = 0x1A2B3C4D
LINKTYPE_LINUX_SLL2 = 276
OPT_END, OPT_COMMENT, SHB_USERAPPL, IF_NAME, IF_DESCRIPTION, IF_TSRESOL = 0, 1, 4, 2, 3, 9
NANOSECONDS = b"\x09"
PACKET_TYPES = {"in": 0, "other": 3, "out": 4}


def pcapng(frames: Sequence[Frame], notes: Mapping[int, str] | None = None, title: str = "") -> bytes:
    """The contents of a pcapng file.

    Args:
        frames: in the order of time. notes: comments on frames, by their index. title: a comment on the file.
    """
    ports = list(dict.fromkeys((frame.node, frame.vrf, frame.interface) for frame in frames))
    numbers = {port: number for number, port in enumerate(ports)}
    blocks = [_section(title), *(_interface(*port) for port in ports)]
    for index, frame in enumerate(frames):
        number = numbers[frame.node, frame.vrf, frame.interface]
        blocks.append(_packet(frame, number, (notes or {}).get(index, "")))
    return b"".join(blocks)


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


def _block(kind: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _options(options: Iterable[tuple[int, bytes]]) -> bytes:
    """Options as type, length and value, padded to 32 bits; nothing at all when there are none."""
    found = b"".join(struct.pack("<HH", kind, len(value)) + _padded(value) for kind, value in options if value)
    return found + struct.pack("<HH", OPT_END, 0) if found else b""


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def _section(title: str) -> bytes:
    options = _options([(OPT_COMMENT, title.encode()), (SHB_USERAPPL, b"testbed")])
    return _block(SECTION_HEADER, struct.pack("<IHHq", MAGIC, 1, 0, -1) + options)


def _interface(node: str, vrf: str | None, interface: str) -> bytes:
    where = f"{node}/{vrf}" if vrf else node
    said = f"node {node}, VRF {vrf}" if vrf else f"node {node}"
    options = [
        (OPT_COMMENT, said.encode()),
        (IF_NAME, f"{where}:{interface}".encode()),
        (IF_DESCRIPTION, f"{interface} of {said}".encode()),
        (IF_TSRESOL, NANOSECONDS),
    ]
    return _block(INTERFACE_DESCRIPTION, struct.pack("<HHI", LINKTYPE_LINUX_SLL2, 0, 0) + _options(options))


def _packet(frame: Frame, number: int, note: str) -> bytes:
    data = _cooked(frame) + frame.data
    length = max(len(data), len(data) - len(frame.data) + _length(frame))
    head = struct.pack("<IIIII", number, frame.time >> 32, frame.time & 0xFFFFFFFF, len(data), length)
    return _block(ENHANCED_PACKET, head + _padded(data) + _options([(OPT_COMMENT, note.encode())]))


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
