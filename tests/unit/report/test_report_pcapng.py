"""The pcapng file, block by block."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from testbed.report.pcapng import notes, pcapng
from testbed.trace.journeys import Question
from testbed.trace.packet import Frame

SYN = bytes.fromhex("4500002800074000400600000a0000010a00000203e8005000000005000000005002040000000000")
FRAMES = [
    Frame(1_700_000_000_123_456_789, "c", None, "eth0", "out", 0x0800, SYN, sender=b"\1\2\3\4\5\6"),
    Frame(1_700_000_000_123_456_999, "r", "red", "in0", "in", 0x0800, SYN[:30]),
]


def blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        kind, length = struct.unpack_from("<II", data)
        assert length % 4 == 0
        assert struct.unpack_from("<I", data, length - 4)[0] == length
        yield kind, data[8 : length - 4]
        data = data[length:]


def options(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        kind, length = struct.unpack_from("<HH", data)
        if kind == 0:
            break
        found[kind] = data[4 : 4 + length]
        data = data[4 + length + -length % 4 :]
    return found


def test_blocks():
    written = list(blocks(pcapng(FRAMES, {0: "request at c"}, "a title")))
    assert [kind for kind, _ in written] == [0x0A0D0D0A, 1, 1, 6, 6]
    assert struct.unpack_from("<I", written[0][1])[0] == 0x1A2B3C4D
    assert options(written[0][1][16:])[1] == b"a title"
    second = options(written[2][1][8:])
    assert second[2] == b"r/red:in0"
    assert second[1] == b"node r, VRF red"
    assert second[9] == b"\x09"  # nanoseconds


def test_packets():
    written = list(blocks(pcapng(FRAMES, {0: "request at c"})))
    number, high, low, kept, whole = struct.unpack_from("<IIIII", written[3][1])
    assert (number, high << 32 | low) == (0, FRAMES[0].time)
    assert (kept, whole) == (20 + len(SYN), 20 + 40)
    data = written[3][1][20 : 20 + kept]
    assert data[20:] == SYN
    assert data[:2] == b"\x08\x00"
    assert data[10] == 4  # outgoing
    assert data[11:18] == b"\6\1\2\3\4\5\6"
    assert options(written[3][1][20 + kept + -kept % 4 :])[1] == b"request at c"
    assert struct.unpack_from("<II", written[4][1], 12) == (50, 60)  # cut off: the true length is kept


def test_notes():
    question = Question("tcp", 5, "c", "10.0.0.2", 80)
    assert notes(FRAMES, question)[0] == "request at c, out eth0"


def test_no_frames():
    assert [kind for kind, _ in blocks(pcapng([]))] == [0x0A0D0D0A]
