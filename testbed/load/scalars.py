"""What a plain YAML scalar means: YAML 1.1 as Kubernetes reads it.

Source: https://yaml.org/type/ and kubernetes-sigs/yaml goyaml.v2/resolve.go, which leaves out base-60 numbers (so
`22:22` is text), reads `y` and `n` as booleans, and hands dates on as the text they are.
"""

from __future__ import annotations

import math
import re

Scalar = str | int | float | bool | None

NULLS = ("", "~", "null", "Null", "NULL")
_PREFIX = "tag:yaml.org,2002:"
_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(NULLS, None),
}
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_INTEGER = re.compile(
    r"(?P<sign>[-+]?)(0[xX](?P<x>[0-9a-fA-F]+)|0[bB](?P<b>[01]+)|0[oO]?(?P<o>[0-7]+)|(?P<d>0|[1-9][0-9]*))"
)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BASES = {"x": 16, "b": 2, "o": 8, "d": 10}
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
    "str": (str,),
    "timestamp": (str,),
}


class ScalarError(ValueError):
    """A scalar that has no value here; the text says why."""


def resolve(text: str, tag: str | None, plain: bool) -> Scalar:
    """The value of a scalar.

    Args:
        text: the scalar's content, escapes and folding undone.
        tag: its explicit tag, as a full URI; None for none.
        plain: written without quotes and not as a block.

    Raises:
        ScalarError: the tag is unknown or does not fit, or the number does not fit JSON or 64 bits.
    """
    if tag is None:
        return _plain(text) if plain else text
    if tag == _PREFIX + "str":
        return text
    kind = tag.removeprefix(_PREFIX)
    if kind == tag or kind not in _TYPES:
        raise ScalarError(f"unknown tag {short_tag(tag)!r}")
    value = _plain(text)
    if type(value) not in _TYPES[kind]:
        raise ScalarError(f"{text!r} is not of type {short_tag(tag)!r}")
    return float(value) if kind == "float" and isinstance(value, int) else value


def short_tag(tag: str) -> str:
    """The tag as it is usually written: `!!int` for the full URI."""
    return f"!!{tag.removeprefix(_PREFIX)}" if tag.startswith(_PREFIX) else tag


def _plain(text: str) -> Scalar:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _NOT_FINITE.fullmatch(text):
        raise ScalarError(f"{text} is not a number that can be used")
    if text[0] not in "0123456789+-.":
        return text
    digits = text.replace("_", "")
    if found := _INTEGER.fullmatch(digits):
        return _integer(found)
    if _FLOAT.fullmatch(digits):
        number = float(digits)
        return number if math.isfinite(number) else text
    return text


def _integer(found: re.Match[str]) -> int:
    name = next(name for name in _BASES if found[name] is not None)
    if len(found[name]) > 64:  # longer than 64 bits in any base; also keeps int() from its own limit
        raise ScalarError("the number does not fit into 64 bits")
    number = int(found["sign"] + found[name], _BASES[name])
    if not -(2**63) <= number < 2**64:
        raise ScalarError("the number does not fit into 64 bits")
    return number
