"""The one door for processes."""

from __future__ import annotations

import os
import sys

import pytest

from testbed.errors import CommandError, UnsupportedError
from testbed.run import ENVIRONMENT, attach, run, start_detached

PYTHON = sys.executable


def test_output() -> None:
    assert run(["/bin/echo", "a  b", "$HOME"]) == "a  b $HOME\n"  # no shell has seen it


def test_input() -> None:
    assert run(["/bin/cat"], stdin="line\n") == "line\n"


def test_standard_error_is_not_output() -> None:
    assert run([PYTHON, "-c", "import sys; print('out'); print('err', file=sys.stderr)"]) == "out\n"


def test_environment_is_minimal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_USER", "x")
    assert sorted(run(["/usr/bin/env"]).splitlines()) == sorted(f"{key}={value}" for key, value in ENVIRONMENT.items())
    assert run(["/usr/bin/env"], env={"A": "b"}) == "A=b\n"


def test_output_that_is_no_text() -> None:
    assert run([PYTHON, "-c", r"import sys; sys.stdout.buffer.write(b'\xff')"]) == "\ufffd"


def test_failure_says_what_was_run_and_what_it_said() -> None:
    program = "import sys; print('half'); print('because', file=sys.stderr); sys.exit(3)"
    with pytest.raises(CommandError) as caught:
        run([PYTHON, "-c", program])
    error = caught.value
    assert error.argv == (PYTHON, "-c", program)
    assert error.status == 3
    assert error.output == "half\nbecause\n"
    assert str(error).endswith("ended with status 3: half\nbecause")


def test_killed_by_a_signal() -> None:
    with pytest.raises(CommandError) as caught:
        run([PYTHON, "-c", "import os; os.kill(os.getpid(), 9)"])
    assert caught.value.status == -9


def test_too_slow() -> None:
    with pytest.raises(CommandError, match=r"/bin/sleep 30 ended with status -9: took longer than 0\.2 s"):
        run(["/bin/sleep", "30"], timeout=0.2)


@pytest.mark.parametrize("call", [run, attach])
def test_not_installed(call: object) -> None:
    with pytest.raises(UnsupportedError, match="/no/such/program is not installed"):
        call(["/no/such/program"])  # type: ignore[operator]


@pytest.mark.parametrize(
    ("program", "status"), [("pass", 0), ("raise SystemExit(7)", 7), ("import os; os.abort()", 134)]
)
def test_attached(program: str, status: int) -> None:
    assert attach([PYTHON, "-c", program]) == status


def test_attached_has_the_callers_terminal(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TERM", "xterm-color")
    attach(["/usr/bin/env"])
    assert "TERM=xterm-color\n" in capfd.readouterr().out
    attach(["/usr/bin/env"], env={"A": "b"})
    assert capfd.readouterr().out == "A=b\n"


def test_detached() -> None:
    program = f"import os, sys; sys.exit(os.getsid(0) == {os.getsid(0)} or os.read(0, 1) != b'')"
    start_detached([PYTHON, "-c", program])  # in a session of its own, nothing to read
    with pytest.raises(CommandError, match="ended with status 4: why not"):
        start_detached([PYTHON, "-c", "import sys; print('why not', file=sys.stderr); sys.exit(4)"])
