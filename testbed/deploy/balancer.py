"""What must be changed for the address sets and virtual servers of a node to be as planned. Pure functions of texts.

Neither ipset nor IPVS can take the place of all there is in one transaction, and to empty first would lose packets. So
the difference is applied, as kube-proxy does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable


def sets_to_add(wanted: str, found: str) -> str:
    """What `ipset restore` must do for every set and entry of `wanted` to be there.

    Args:
        wanted, found: as `ipset save` prints them; a set is the same when its name is.
    """
    names = _created(found)
    lines = [line for name, line in _created(wanted).items() if name not in names]
    there = set(_entries(found))
    return _text([*lines, *(line for line in _entries(wanted) if line not in there)])


def sets_to_remove(wanted: str, found: str) -> str:
    """What `ipset restore` must do for nothing but `wanted` to be there; no rule may name a set that goes."""
    names, kept = _created(wanted), set(_entries(wanted))
    gone = [name for name in _created(found) if name not in names]
    stale = [line for line in _entries(found) if line not in kept and line.split()[1] in names]
    deleted = [line.replace("add ", "del ", 1) for line in stale]
    return _text([*deleted, *(f"destroy {name}" for name in gone)])


def _created(text: str) -> dict[str, str]:
    return {line.split()[1]: line for line in text.splitlines() if line.startswith("create ")}


def _entries(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("add ")]


def servers_to_change(wanted: str, found: str) -> str:
    """What `ipvsadm --restore` must do for the servers of `wanted`, and no others, to be there.

    Args:
        wanted, found: as `ipvsadm-save -n` prints them.

    A server that stays is not touched, so its connections go on. One that goes takes its connections with it, for
    kube-proxy sets net.ipv4.vs.expire_nodest_conn.
    """
    new, old = _servers(wanted), _servers(found)
    lines = [f"-D {key}" for key in old if " -r " not in key and key not in new]
    virtual = {key for key in old if key in new and " -r " not in key}
    lines += [f"-d {key}" for key in old if key not in new and key.partition(" -r ")[0] in virtual]
    lines += [line if key not in old else _edited(line) for key, line in new.items() if old.get(key) != line]
    return _text(lines)


def _servers(text: str) -> dict[str, str]:
    """The line of each server by what names it: "-t 10.96.0.10:80" or "-t 10.96.0.10:80 -r 192.168.1.10:8080"."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        found[" ".join(words[1:5] if words[0] == "-a" else words[1:3])] = line.strip()
    return found


def _edited(line: str) -> str:
    """The command that changes a server, from the one that adds it."""
    return line.replace("-A ", "-E ", 1) if line.startswith("-A ") else line.replace("-a ", "-e ", 1)


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


Difference = Callable[[str, str], str]
"""What a loader must do: wanted text, found text → commands."""
