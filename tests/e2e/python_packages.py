"""Starts a test again in a Python of its own that has packages of PyPI:

    enter("openai", "openai==3.57.0")       # before anything else that the test imports

It is kept in ${REIN_CACHE:-~/.cache/rein}/python-NAME and made once, for which pip must reach its index. Tests of one environment
take turns, of several checkouts too: each installs what it needs, and no other may change that while it runs.
"""
import fcntl
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
    CACHE.mkdir(parents=True, exist_ok=True)
    turn = os.open(CACHE / f"python-{name}.lock", os.O_CREAT | os.O_RDWR, 0o644)
    fcntl.flock(turn, fcntl.LOCK_EX)  # until this process ends, also as another program
    os.set_inheritable(turn, True)
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
