"""Starts a test again in a Python of its own that has packages of PyPI:

    enter("openai", "openai==3.57.0")       # before anything else that the test imports

It is kept in ${REIN_CACHE:-~/.cache/rein}/python-NAME and made once, for which pip must reach its index.
"""
import os
import pathlib
import subprocess
import sys

CACHE = pathlib.Path(os.environ.get("REIN_CACHE", pathlib.Path.home() / ".cache/rein"))
MARK = "REIN_PYTHON_PACKAGES"


def environment(name, *requirements, interpreter=sys.executable):
    """The interpreter that has `requirements`; None where pip cannot get them."""
    folder = CACHE / f"python-{name}"
    python = folder / "bin/python"
    if not python.exists():
        subprocess.run([interpreter, "-m", "venv", folder], check=True)
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements]
    return python if subprocess.run(install, capture_output=True).returncode == 0 else None


def enter(name, *requirements):
    """Goes on in that environment; False where there is none."""
    if os.environ.get(MARK) == name:
        return True
    python = environment(name, *requirements)
    if python is None:
        return False
    os.execve(python, [str(python), *sys.argv], {**os.environ, MARK: name})
