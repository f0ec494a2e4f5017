#!/usr/bin/env python3
"""Checks that headers, sources and functions stay small enough to be read at once.

    check_sizes.py <project root>
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1]).resolve()
FOLDERS = ("common", "reward", "rollout", "trainer", "services")
LIMITS = {".h": 250, ".cc": 500, ".cu": 500}
FUNCTION_LINES = 80


def long_functions(lines):
    """Bodies that begin with '{' at the end of a line at no or class indent and end with '}' there."""
    start = None
    for number, line in enumerate(lines, 1):
        if start is None and line.endswith("{") and not line.startswith(("namespace", "class", "struct", "enum", "}", "extern")):
            if re.match(r"^\S.*\)[\w\s:(){},.<>&*>-]*\{$", line) or re.match(r"^    .*\) ?(const )?\{$", line):
                start = number if line[0] != " " else None
        elif start is not None and line == "}":
            if number - start > FUNCTION_LINES:
                yield start, number - start
            start = None


def main():
    errors = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix not in LIMITS:
                continue
            name, lines = path.relative_to(ROOT), path.read_text().splitlines()
            if len(lines) > LIMITS[path.suffix]:
                errors.append(f"{name}: {len(lines)} lines, at most {LIMITS[path.suffix]}")
            for start, length in long_functions(lines):
                errors.append(f"{name}:{start}: a function of {length} lines, at most {FUNCTION_LINES}")
    print("\n".join(errors) or "sizes hold")
    return bool(errors)


sys.exit(main())
