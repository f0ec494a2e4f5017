#!/usr/bin/env python3
"""Checks the protocol: every element has a comment, and nothing that was published changes.

    check_protos.py <project root>            fails on a missing comment or an incompatible change
    check_protos.py <project root> --write    also adds new elements to tests/lint/protocol.txt

protocol.txt holds one line for each field, enum value and method. A line may be added; it may leave only
when the field's number and name are reserved in its message, or the method's name stands below "removed:".
"""
import pathlib
import re
import sys

DECLARATION = re.compile(r"^(message|enum|service|oneof)\s+(\w+)\s*\{")
FIELD = re.compile(r"^(optional |repeated )?([\w.]+(?:<[^>]*>)?)\s+(\w+)\s*=\s*(\d+)\s*[;\[]")
ENUM_VALUE = re.compile(r"^(\w+)\s*=\s*(-?\d+)\s*[;\[]")
METHOD = re.compile(r"^rpc\s+(\w+)\s*\((stream )?([\w.]+)\)\s*returns\s*\((stream )?([\w.]+)\)")
RESERVED = re.compile(r"^reserved\s+(.*);")


def elements(path):
    """Yields (line number, has a comment, line for protocol.txt or None, name) of each element."""
    scope, commented = [], False
    for number, raw in enumerate(path.read_text().splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("//"):
            commented = line.startswith("//") and (commented or len(line) > 3)
            continue
        kind = scope[-1][0] if scope else ""
        where = ".".join(name for what, name in scope if what != "oneof")
        if declared := DECLARATION.match(line):
            yield number, commented, None, f"{where}.{declared[2]}".lstrip(".")
            if not line.rstrip(";").endswith("}"):
                scope.append((declared[1], declared[2]))
        elif line.startswith("}"):
            if scope and not line.startswith("}]"):  # "}];" ends options over several lines
                scope.pop()
        elif line.startswith("extend "):
            scope.append(("extend", "extend " + line.split()[1]))
        elif RESERVED.match(line):
            yield number, True, f"{where} reserved {RESERVED.match(line)[1]}", where
        elif kind in ("message", "oneof", "extend") and (field := FIELD.match(line)):
            label, type_name, name, tag = field.groups()
            yield number, commented, f"{where}.{name} = {tag} {(label or '')}{type_name}", f"{where}.{name}"
        elif kind == "enum" and (value := ENUM_VALUE.match(line)):
            yield number, commented, f"{where}.{value[1]} = {value[2]}", f"{where}.{value[1]}"
        elif kind == "service" and (method := METHOD.match(line)):
            name, stream_in, request, stream_out, reply = method.groups()
            text = f"{where}.{name}({stream_in or ''}{request}) returns ({stream_out or ''}{reply})"
            yield number, commented, text, f"{where}.{name}"
        commented = False


def gone(line, now):
    """True when an element that is not there any more was given up in order."""
    match = re.match(r"(.*)\.(\w+) = (\d+)", line)
    if not match:
        return False
    message, name, tag = match.groups()
    reserved = " ".join(entry for entry in now if entry.startswith(f"{message} reserved "))
    return re.search(rf"\b{tag}\b", reserved) is not None and f'"{name}"' in reserved


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    snapshot = root / "tests/lint/protocol.txt"
    errors, now = [], set()
    for path in sorted((root / "proto").rglob("*.proto")):
        for number, commented, line, name in elements(path):
            if line:
                now.add(line)
            if not commented:
                errors.append(f"{path.relative_to(root)}:{number}: {name} has no comment above it")
    before = set(snapshot.read_text().splitlines()) if snapshot.exists() else set()
    for line in sorted(before - now):
        if not gone(line, now):
            errors.append(f"protocol.txt: '{line}' was published and has changed or gone: reserve it, add a new one")
    if "--write" in sys.argv and not errors:
        snapshot.write_text("\n".join(sorted(now)) + "\n")
    elif new := sorted(now - before):
        errors += [f"protocol.txt: '{line}' is new: run tests/lint/check_protos.py . --write" for line in new]
    print("\n".join(errors) or f"{len(now)} elements of the protocol hold")
    return bool(errors)


sys.exit(main())
