"""How long is long: on a slow machine, one under emulation for instance, everything that waits waits longer.

TESTBED_PATIENCE=FACTOR multiplies every time limit of this package. What ends before its limit takes no longer.
"""

from __future__ import annotations

import functools
import math
import os

from testbed.errors import InputError, Problem

VARIABLE = "TESTBED_PATIENCE"


@functools.cache
def factor() -> float:
    """What the environment says; 1 where it says nothing. Raises InputError when that is no number of 1 or more."""
    text = os.environ.get(VARIABLE) or "1"
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 1 <= number < math.inf:
        raise InputError([Problem(f"{VARIABLE} is {text!r}", hint="a number of 1 or more, as 10")])
    return number


def stretched(seconds: float) -> float:
    """A time limit as this machine needs it."""
    return seconds * factor()
