"""The one tree of errors. Every error is written for the user: what, where, found, expected, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a file the user wrote. Lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in the user's input.

    Args:
        message: what is wrong, with the offending value.
        position: where the user wrote it; None where no single place is to blame.
        hint: what to do about it ("did you mean leaf1?"); empty where nothing useful can be said.
    """

    message: str
    position: Position | None = None
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.position}: " if self.position else ""
        return f"{where}{self.message}" + (f" ({self.hint})" if self.hint else "")


class TestbedError(Exception):
    """Base of every error this package raises on purpose."""

    __test__ = False  # not a pytest class, whatever its name
    exit_code = 1


class InputError(TestbedError):
    """The lab file or a manifest is wrong; all problems that were found, in file order."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=_file_order))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UnsupportedError(TestbedError):
    """This machine lacks a kernel feature or a program that the lab needs."""

    exit_code = 3


class CommandError(TestbedError):
    """A program that was run failed.

    Args:
        argv: the command as it was run.
        status: its exit status (negative: the signal that ended it).
        output: what it printed, both streams.
        where: the node it ran in, in the user's words; empty for the host.
    """

    def __init__(self, argv: Sequence[str], status: int, output: str, where: str = "") -> None:
        self.argv = tuple(argv)
        self.status = status
        self.output = output
        place = f" in {where}" if where else ""
        super().__init__(f"{' '.join(argv)}{place} ended with status {status}: {output.strip() or '(no output)'}")


class DeployError(TestbedError):
    """The Plan could not be made real (or undone)."""


class NotReadyError(TestbedError):
    """The lab did not become ready in time; `missing` names each thing that is still awaited."""

    exit_code = 4

    def __init__(self, seconds: float, missing: Sequence[str]) -> None:
        self.missing = tuple(missing)
        lines = "\n".join(f"  {item}" for item in missing)
        super().__init__(f"not ready after {seconds:g} s; still awaited:\n{lines}")


class NoSuchLabError(TestbedError):
    """The lab that was named is not running."""

    exit_code = 5


class NoSuchNodeError(TestbedError):
    """The node that was named does not exist or does not run."""

    exit_code = 5


class ProbeError(TestbedError):
    """A probe could not be carried out at all (which is not the same as a probe that found no answer)."""


def _file_order(problem: Problem) -> tuple[str, int, int, str]:
    position = problem.position
    return (position.file, position.line, position.column, "") if position else ("", 0, 0, problem.message)
