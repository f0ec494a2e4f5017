#!/usr/bin/env python3
"""Looks at the built programs themselves: what makes a fault in them harder to use is there.

    hardened_test.py BIN_FOLDER
"""
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

BIN = pathlib.Path(sys.argv.pop(1)).resolve()
if not shutil.which("readelf"):
    print("SKIPPED: the programs were NOT looked at: readelf missing (binutils)", file=sys.stderr)
    sys.exit(77)
CACHE = (BIN.parent / "CMakeCache.txt").read_text()
SHIPPED = re.search(r"^CMAKE_BUILD_TYPE:\w+=Release$", CACHE, re.MULTILINE)
SANITIZED = re.search(r"^REIN_SANITIZE:\w+=\S", CACHE, re.MULTILINE)


def readelf(program, *flags):
    return subprocess.run(["readelf", "-W", *flags, program], capture_output=True, text=True, check=True).stdout


class HardenedTest(unittest.TestCase):
    def programs(self):
        found = sorted({path.resolve() for path in BIN.glob("rein*") if path.is_file() and "." not in path.name and "test" not in path.name
                        and "bench" not in path.name})
        self.assertLessEqual({"rein-control", "rein-sandbox"}, {path.name for path in found})
        return found

    def test_addresses_are_random_and_tables_read_only(self):
        for program in self.programs():
            with self.subTest(program.name):
                segments, dynamic = readelf(program, "-l"), readelf(program, "-d")
                self.assertTrue(re.search(r"Type: +DYN", readelf(program, "-h")), "not position independent")
                self.assertTrue("GNU_RELRO" in segments)
                self.assertTrue(re.search(r"BIND_NOW|Flags:.* NOW", dynamic), "its tables of functions stay writable")
                self.assertFalse("TEXTREL" in dynamic)

    def test_no_memory_is_both_written_and_run(self):
        for program in self.programs():
            with self.subTest(program.name):
                segments = [line.split() for line in readelf(program, "-l").splitlines() if re.match(r" +(LOAD|GNU_STACK) ", line)]
                self.assertIn("GNU_STACK", [s[0] for s in segments], "without it the stack can be run")
                for segment in segments:
                    flags = "".join(segment[6:-1])
                    self.assertFalse("W" in flags and "E" in flags, segment)

    def test_libraries_come_from_no_folder_that_others_choose(self):
        for program in self.programs():
            with self.subTest(program.name):
                for paths in re.findall(r"\((?:RPATH|RUNPATH)\) +Library r\w*path: \[(.*)\]", readelf(program, "-d")):
                    for folder in paths.split(":"):
                        self.assertTrue(folder.startswith(("/", "$ORIGIN")), f"'{folder}' of {paths} depends on where it is started")

    @unittest.skipUnless(SHIPPED and not SANITIZED, "of the release presets")
    def test_stacks_and_copies_are_guarded(self):
        for program in self.programs():
            with self.subTest(program.name):
                symbols = readelf(program, "--dyn-syms")
                if program.name == "rein-sandbox":  # static, and stripped of names once installed
                    symbols = readelf(program, "-s")
                self.assertTrue("__stack_chk_fail" in symbols)
                if program.name != "rein-sandbox":
                    self.assertTrue(re.search(r"__(?!stack)\w+_chk\b", symbols), "no copy is checked")


if __name__ == "__main__":
    unittest.main()
