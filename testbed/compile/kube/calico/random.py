"""The order in which a host tries the blocks of an IP pool: Calico's pseudo-random start, made again exactly.

Calico (libcalico-go/lib/ipam, randomBlockGenerator) seeds Go's math/rand with the FNV-1 hash of the host name and
draws the first block's index. So the addresses of a lab are those of a real cluster with nodes of the same names.

Go's generator is the additive lagged Fibonacci generator x[n] = x[n-607] + x[n-273] modulo 2**64 of Mitchell and
Reeds. Go ships its starting state as a table: the state after 7.8e12 steps from seed 1 (src/math/rand/gen_cooked.go).
That table is computed here instead. A step is linear, so n steps are the polynomial x**n modulo x**607 - x**334 - 1,
found by repeated squaring; polynomials are multiplied as big integers, 144 bits a coefficient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from struct import Struct

_LENGTH = 607
_TAP = 273
_START = _LENGTH - _TAP  # the "feed" index before the first step; it moves downwards, as does the tap from 0
_TABLE_STEPS = 7_800_000_000_000
_MERSENNE_31 = 0x7FFFFFFF
_SEED_FOR_ZERO = 89482311
_WORD = 0xFFFFFFFFFFFFFFFF
_COEFFICIENT = Struct("<Q10x")  # the low word of the 138 bits that 607 products of words need


def block_indices(host: str, count: int) -> Iterator[int]:
    """The indices 0 to count - 1 of a pool's blocks, in the order in which `host` tries them: all, each once."""
    first = _below(_fnv1(host), count)
    yield from range(first, count)
    yield from range(first)


def _fnv1(text: str) -> int:
    """The 32-bit FNV-1 hash (multiply, then xor) of the UTF-8 text."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value * 0x01000193 & 0xFFFFFFFF) ^ byte
    return value


def _below(seed: int, limit: int) -> int:
    """The first number that Go's big.Int.Rand draws from [0, limit) with this seed, on a 64-bit machine."""
    numbers = _numbers(seed)
    words = (limit.bit_length() + 63) // 64
    mask = (1 << limit.bit_length()) - 1
    while True:
        value = 0
        for index in range(words):  # a word is two draws of 32 bits, the low one first
            value |= (next(numbers) | next(numbers) << 32) << 64 * index
        if (value & mask) < limit:
            return value & mask


def _numbers(seed: int) -> Iterator[int]:
    """rand.Uint32: bits 31 to 62 of each 64-bit step."""
    state = [word ^ cooked for word, cooked in zip(_seeded(seed, 40, 20), _table(), strict=True)]
    tap, feed = 0, _START
    while True:
        tap, feed = (tap - 1) % _LENGTH, (feed - 1) % _LENGTH
        state[feed] = (state[feed] + state[tap]) & _WORD
        yield state[feed] >> 31 & 0xFFFFFFFF


def _seeded(seed: int, high: int, middle: int) -> list[int]:
    """607 words of three draws of the generator 48271 x mod 2**31 - 1 each, after 20 that are thrown away."""
    x = seed % _MERSENNE_31 or _SEED_FOR_ZERO
    for _ in range(20):
        x = x * 48271 % _MERSENNE_31
    words = []
    for _ in range(_LENGTH):
        draws = []
        for _ in range(3):
            x = x * 48271 % _MERSENNE_31
            draws.append(x)
        words.append((draws[0] << high ^ draws[1] << middle ^ draws[2]) & _WORD)
    return words


@cache
def _table() -> tuple[int, ...]:
    """Go's rngCooked: the state of 607 words, as it lies in memory, after _TABLE_STEPS steps from seed 1."""
    state = _seeded(1, 20, 10)
    # The words in the order in which steps produced them (as if): word k of memory was made by step _START - k.
    history = [state[(_START - step) % _LENGTH] for step in range(1, _LENGTH + 1)]
    for index in range(_LENGTH, 2 * _LENGTH):
        history.append((history[index - _LENGTH] + history[index - _TAP]) & _WORD)
    power = _power_of_x(_TABLE_STEPS)
    # New word j is the sum of power[i] * history[i + j]: a product with the coefficients reversed.
    product = _multiply(power[::-1], history)
    table = [0] * _LENGTH
    for offset in range(_LENGTH):
        step = _TABLE_STEPS + offset - (_LENGTH - 1)
        table[(_START - step) % _LENGTH] = product[_LENGTH - 1 + offset]
    return tuple(table)


def _power_of_x(exponent: int) -> list[int]:
    """The coefficients, lowest first, of x**exponent modulo x**607 - x**334 - 1 and 2**64."""
    bits = bin(exponent)[2:]
    first = _LENGTH.bit_length() - 1  # so many bits make an exponent below 607, which is a power as it stands
    power = [0] * _LENGTH
    power[int(bits[:first], 2)] = 1
    for bit in bits[first:]:
        power = _reduce(_multiply(power, power))
        if bit == "1":
            power = _reduce([0, *power])
    return power


def _reduce(coefficients: Sequence[int]) -> list[int]:
    reduced = list(coefficients)
    for index in range(len(reduced) - 1, _LENGTH - 1, -1):
        reduced[index - _LENGTH] += reduced[index]
        reduced[index - _TAP] += reduced[index]
    return [value & _WORD for value in reduced[:_LENGTH]]


def _multiply(left: Sequence[int], right: Sequence[int]) -> list[int]:
    """The product's coefficients modulo 2**64."""
    factor = _packed(left)
    other = factor if right is left else _packed(right)  # Python squares faster than it multiplies
    length = len(left) + len(right)
    product = (factor * other).to_bytes(length * _COEFFICIENT.size, "little")
    return [word for (word,) in _COEFFICIENT.iter_unpack(product)][: length - 1]


def _packed(coefficients: Sequence[int]) -> int:
    return int.from_bytes(b"".join(map(_COEFFICIENT.pack, coefficients)), "little")
