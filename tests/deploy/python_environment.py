"""Runs a test in an environment of its own that has deploy/python installed: import this first.

Needs pip to reach grpcio and grpcio-tools once (kept in ${REIN_CACHE:-~/.cache/rein}/python-test); the test is skipped, and said so, else.
"""
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("REIN_CACHE", pathlib.Path.home() / ".cache/rein")) / "python-test"


def environment():
    python = CACHE / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", CACHE], check=True)
    base = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    if subprocess.run([*base, "grpcio", "grpcio-tools", "setuptools>=68", "wheel"], capture_output=True).returncode != 0:
        print("SKIPPED: the Python package was NOT tried: pip cannot install grpcio-tools", file=sys.stderr)
        sys.exit(77)
    subprocess.run([*base, "--no-build-isolation", "--force-reinstall", "--no-deps", ROOT / "deploy/python"], check=True)
    return python


if "REIN_IN_VENV" not in os.environ:
    python = environment()
    os.execve(python, [str(python), *sys.argv], dict(os.environ, REIN_IN_VENV="1"))
sys.path.insert(0, str(ROOT / "tests/e2e"))
