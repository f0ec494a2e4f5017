#!/usr/bin/env python3
"""Installs deploy/python into each Python from 3.10 to 3.13 that this machine has, and runs python_test.py there.

    python_versions_test.py BIN_FOLDER

Looked for as python3.N on the PATH, and among pyenv's. Those that are missing are named; skipped where there is none.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from python_environment import environment, python_packages

VERSIONS = ("3.10", "3.11", "3.12", "3.13")
TESTS = ("python_test", "python_scorer_test")


def version_of(interpreter):
    asked = subprocess.run([interpreter, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True)
    return asked.stdout.strip()


def interpreter_of(version):
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")), reverse=True), sys.executable]
    return next((path for path in found if path and version_of(path) == version), None)


INTERPRETERS = {version: interpreter_of(version) for version in VERSIONS}
if missing := [version for version, path in INTERPRETERS.items() if path is None]:
    print(f"NOT tried, for this machine has none: Python {', '.join(missing)}", file=sys.stderr)
if len(missing) == len(VERSIONS):
    sys.exit(77)


class PythonVersionsTest(unittest.TestCase):
    def test_each(self):
        for version, interpreter in INTERPRETERS.items():
            if interpreter is None:
                continue
            python = environment(f"test-{version}", interpreter=interpreter)
            if python is None:
                self.skipTest(f"NOT tried with {version} and later: pip cannot install grpcio-tools")
            self.assertEqual(version_of(python), version)
            with self.subTest(version=version, test="sinks"):
                run = subprocess.run([python, "-m", "rein.sinks", "wandb", "job"], capture_output=True, text=True)
                self.assertEqual(run.returncode, 1, run.stdout)
                self.assertIn("pip install './deploy/python[wandb]'", run.stderr)
            for test in TESTS:
                with self.subTest(version=version, test=test):
                    run = subprocess.run([python, pathlib.Path(__file__).with_name(f"{test}.py"), sys.argv[1]], capture_output=True, text=True,
                                         env={**os.environ, python_packages.MARK: "test"}, timeout=300)
                    self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
                    print(f"Python {version}: {test}: {run.stderr.strip().splitlines()[-1]}")


if __name__ == "__main__":
    unittest.main(argv=["python_versions_test.py"])
