"""Calico's selector language: what a BGPPeer, an IPPool or a policy selects by labels.

    expression = term { "||" term };  term = factor { "&&" factor };  factor = { "!" } ( "(" expression ")" | test )
    test = "all()" | "global()" | "has(" label ")" | label operator
    operator = ("==" | "!=" | "contains" | "starts with" | "ends with") string | ["not"] "in" "{" strings "}"

A string stands in single or double quotes. The meanings are those of upstream libcalico-go/lib/selector: a test of a
label that is absent is false, except that `!=` and `not in` are then true; an empty selector selects everything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache

Labels = Mapping[str, str]
Test = Callable[[Labels], bool]

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<word>[A-Za-z0-9_./-]+)
      | (?P<string>'[^']*'|"[^"]*")
      | (?P<sign>&&|\|\||==|!=|[!(){},])
    )""",
    re.VERBOSE,
)
_END = ("end", "")
_COMPARISONS: dict[str, Callable[[str, str], bool]] = {
    "contains": lambda found, wanted: wanted in found,
    "starts": str.startswith,
    "ends": str.endswith,
}


def matches(selector: str, labels: Labels) -> bool:
    """Whether `selector` selects an object with `labels`. Raises ValueError when it cannot be read."""
    return parse(selector)(labels)


@cache
def parse(selector: str) -> Test:
    """A function of labels that says whether they are selected.

    Raises ValueError, naming the place, when the text is not a selector.
    """
    if not selector.strip():
        return lambda _labels: True
    parser = _Parser(selector)
    test = parser.expression()
    parser.expect("end", "")
    return test


class _Parser:
    """Recursive descent over the tokens; each method reads one rule of the grammar."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(_tokens(text))
        self.position = 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.position][:2] if self.position < len(self.tokens) else _END

    def next(self) -> tuple[str, str]:
        token = self.peek()
        self.position += 1
        return token

    def accept(self, kind: str, value: str) -> bool:
        if self.peek() != (kind, value):
            return False
        self.position += 1
        return True

    def expect(self, kind: str, value: str = "") -> str:
        found_kind, found = self.peek()
        if found_kind != kind or (value and found != value):
            raise self.error(f"expected {value or kind}, found {found or 'the end'}")
        self.position += 1
        return found

    def error(self, message: str) -> ValueError:
        column = self.tokens[self.position][2] if self.position < len(self.tokens) else len(self.text)
        return ValueError(f"selector {self.text!r}, at character {column + 1}: {message}")

    def expression(self) -> Test:
        tests = [self.term()]
        while self.accept("sign", "||"):
            tests.append(self.term())
        return tests[0] if len(tests) == 1 else lambda labels: any(test(labels) for test in tests)

    def term(self) -> Test:
        tests = [self.factor()]
        while self.accept("sign", "&&"):
            tests.append(self.factor())
        return tests[0] if len(tests) == 1 else lambda labels: all(test(labels) for test in tests)

    def factor(self) -> Test:
        if self.accept("sign", "!"):
            inner = self.factor()
            return lambda labels: not inner(labels)
        if self.accept("sign", "("):
            inner = self.expression()
            self.expect("sign", ")")
            return inner
        word = self.expect("word")
        if word in ("all", "global", "has") and self.accept("sign", "("):
            return self.call(word)
        return self.comparison(word)

    def call(self, name: str) -> Test:
        label = self.expect("word") if name == "has" else ""
        self.expect("sign", ")")
        if name == "global":  # objects without a namespace: of no use where nodes and namespaces are selected
            raise self.error("global() is not supported")
        return (lambda labels: label in labels) if label else (lambda _labels: True)

    def comparison(self, label: str) -> Test:
        kind, operator = self.next()
        if (kind, operator) == ("sign", "=="):
            wanted = self.string()
            return lambda labels: labels.get(label) == wanted
        if (kind, operator) == ("sign", "!="):
            wanted = self.string()
            return lambda labels: labels.get(label) != wanted
        if operator in ("in", "not"):
            if operator == "not":
                self.expect("word", "in")
            members = self.members()
            return lambda labels: (labels[label] in members if label in labels else False) == (operator == "in")
        if operator in _COMPARISONS:
            if operator != "contains":
                self.expect("word", "with")
            return _compare(label, _COMPARISONS[operator], self.string())
        self.position -= 1
        raise self.error(f"expected an operator after {label}, found {operator or 'the end'}")

    def string(self) -> str:
        return self.expect("string")[1:-1]

    def members(self) -> frozenset[str]:
        self.expect("sign", "{")
        found = [self.string()]
        while self.accept("sign", ","):
            found.append(self.string())
        self.expect("sign", "}")
        return frozenset(found)


def _compare(label: str, comparison: Callable[[str, str], bool], wanted: str) -> Test:
    return lambda labels: label in labels and comparison(labels[label], wanted)


def _tokens(text: str) -> list[tuple[str, str, int]]:
    found: list[tuple[str, str, int]] = []
    place, end = 0, len(text.rstrip())
    while place < end:
        if not (match := _TOKEN.match(text, place)):
            raise ValueError(f"selector {text!r}, at character {place + 1}: not a selector")
        kind = match.lastgroup or ""
        found.append((kind, match[kind], match.start(kind)))
        place = match.end()
    return found
