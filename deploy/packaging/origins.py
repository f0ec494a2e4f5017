"""Where what a release holds comes from: Debian packages, Rust crates, wheels; each with its version and licence."""
import dataclasses
import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
SETUP = (ROOT / "deploy/setup").read_text()
CACHE = pathlib.Path(os.environ.get("REIN_CACHE", pathlib.Path.home() / ".cache/rein"))
VERSION = re.search(r"project\(rein VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]


@dataclasses.dataclass(frozen=True, order=True)
class Origin:
    name: str
    version: str
    purl: str
    licence: str  # an SPDX expression, or NOASSERTION
    texts: tuple  # files of its licence


def _dpkg(*arguments):
    return subprocess.run(["dpkg-query", *arguments], capture_output=True, text=True).stdout


def copyright_of(package, docs=pathlib.Path("/usr/share/doc")):
    """Its licence text, if there is one. Slim base images lack the links to the text of another package of the same source."""
    source = _dpkg("-W", "-f", "${source:Package}", package)
    siblings = [line.split()[1] for line in _dpkg("-W", "-f", "${source:Package} ${Package}\n").splitlines() if line.split()[0] == source]
    texts = [docs / name / "copyright" for name in (package, *sorted(siblings))]
    return next((text for text in texts if text.exists()), None)


def debian_packages(libraries):
    """Packages that own shared libraries of these names, and those whose archives are linked in."""
    owners = {line.split(":")[0] for name in libraries for line in _dpkg("-S", f"*/{name}").splitlines()[:1]}
    linked = set(re.findall(r"\b((?:lib|prometheus-|nlohmann-)\S*-dev)\b", SETUP)) - {"libgtest-dev", "libgmock-dev"}
    found = []
    for name in sorted(owners | linked):
        fields = _dpkg("-W", "-f", "${Version} ${Architecture} ${db:Status-Status}", name).split()
        if len(fields) != 3 or fields[2] != "installed":
            continue
        text = copyright_of(name)
        found.append(Origin(name, fields[0], f"pkg:deb/debian/{name}@{fields[0]}?arch={fields[1]}", "NOASSERTION",
                            (text,) if text else ()))
    return found


def crates():
    """Those that are linked in: Cargo.lock also names other systems'."""
    tree = subprocess.run(["cargo", "tree", "--manifest-path", ROOT / "common/text/crate/Cargo.toml", "--offline", "--locked", "--target",
                           "x86_64-unknown-linux-gnu", "-e", "normal", "--prefix", "none"], capture_output=True, text=True, check=True).stdout
    registry = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo")) / "registry/src"
    found = []
    for name, version in sorted(set(re.findall(r"^(\S+) v(\S+)(?: \(\*\)| \(proc-macro\).*)?$", tree, re.MULTILINE))):
        folder = next(iter(sorted(registry.glob(f"*/{name}-{version}"))), None)
        licence, texts = None, ()
        if folder:
            licence = re.search(r'^license = "([^"]+)"', (folder / "Cargo.toml").read_text(), re.MULTILINE)
            texts = tuple(sorted(path for path in folder.iterdir() if re.match(r"(?i)licen[cs]e|copying|notice", path.name) and path.is_file()))
        expression = re.sub(r"\s*/\s*", " OR ", licence[1]) if licence else "NOASSERTION"
        found.append(Origin(name, version, f"pkg:cargo/{name}@{version}", expression, texts))
    return found


# NVIDIA's own terms have no SPDX name.
_WHEEL_LICENCES = {"torch": "BSD-3-Clause", "nvidia-nccl-cu13": "BSD-3-Clause", "nvidia-cudnn-frontend": "MIT"}
# Which wheel has a library, by the beginning of its name.
_WHEELS = {"libtorch": "torch", "libc10": "torch", "libcudart": "nvidia-cuda-runtime", "libcupti": "nvidia-cuda-cupti", "libcublas": "nvidia-cublas",
           "libcudnn": "nvidia-cudnn-cu13", "libcufft": "nvidia-cufft", "libcufile": "nvidia-cufile", "libcurand": "nvidia-curand",
           "libcusolver": "nvidia-cusolver", "libcusparse": "nvidia-cusparse", "libcusparseLt": "nvidia-cusparselt-cu13", "libnccl": "nvidia-nccl-cu13",
           "libnvJitLink": "nvidia-nvjitlink", "libnvrtc": "nvidia-cuda-nvrtc", "libnvshmem": "nvidia-nvshmem-cu13"}
# Their headers and device code are compiled in.
_COMPILED_IN = ("nvidia-cuda-cccl", "nvidia-cuda-crt", "nvidia-cuda-nvcc", "nvidia-cudnn-frontend", "nvidia-nvvm")


def wheel_of(library):
    """The longest beginning counts; None of a library that no wheel has."""
    return _WHEELS.get(max((start for start in _WHEELS if library.startswith(start)), key=len, default=None))


def wheels(libraries):
    names = {wheel_of(library) for library in libraries} - {None}
    if any(name.startswith("libtorch_cuda") for name in libraries):
        names |= set(_COMPILED_IN)
    found = []
    for name in sorted(names):
        folder = next(iter(sorted((CACHE / "libtorch-2.11.0/licences").glob(f"{name.replace('-', '_')}-[0-9]*"))), None)
        version = folder.name.rsplit("-", 1)[1] if folder else ""
        texts = tuple(sorted(path for path in folder.rglob("*") if path.is_file())) if folder else ()
        found.append(Origin(name, version, f"pkg:pypi/{name}@{version}", _WHEEL_LICENCES.get(name, "LicenseRef-NVIDIA"), texts))
    return found


def all_of(folder):
    libraries = sorted(path.name for path in (folder / "lib").iterdir())
    debian, of_wheels = debian_packages(libraries), wheels(libraries)
    unknown = [name for name in libraries if not wheel_of(name) and not _dpkg("-S", f"*/{name}")]
    if unknown:
        raise SystemExit(f"{', '.join(unknown)}: of no Debian package, and of no wheel that deploy/packaging/origins.py knows")
    return [*debian, *crates(), *of_wheels]
