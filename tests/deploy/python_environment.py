"""Runs a test in an environment of its own that has deploy/python installed:

    from python_environment import ROOT, start_again
    start_again()                                  # or start_again("sinks", "mlflow==...", ...)

First of all: it starts the file again where the packages are. pip must reach its index once (tests/e2e/python_packages.py); the test is
skipped, and said so, else.
"""
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))
import python_packages  # noqa: E402


def environment(name="test", *more, interpreter=sys.executable):
    """The interpreter of the environment; None where pip cannot make it."""
    python = python_packages.environment(name, "grpcio", "grpcio-tools", "setuptools>=68", "wheel", *more, interpreter=interpreter)
    if python is not None:
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-build-isolation", "--force-reinstall",
                        "--no-deps", ROOT / "deploy/python"], check=True)
    return python


def start_again(name="test", *more):
    if os.environ.get(python_packages.MARK) == name:
        return
    python = environment(name, *more)
    if python is None:
        print(f"SKIPPED: the Python package was NOT tried: pip cannot install {' '.join(('grpcio-tools', *more))}", file=sys.stderr)
        sys.exit(77)
    os.execve(python, [str(python), *sys.argv], {**os.environ, python_packages.MARK: name})
