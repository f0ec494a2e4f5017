#!/usr/bin/env python3
"""Builds images by deploy/docker/Dockerfile with buildah, and runs what is in them as a container would.

    image_build_test.py [TARGET...]      control (default), cpu

Needs buildah, root (no daemon, no namespaces: it builds and runs in chroots), package registries, and some 20 GB of disk; a build takes as
long as a release does. REIN_IMAGE_BASE names another base image, REIN_IMAGE_FLAGS gives `buildah build` more arguments (-v FILE:FILE:ro for a
proxy's certificate, say). A second build of a target, to see whether it is the same, is made with REIN_IMAGE_TWICE=1. Skipped, loudly, without buildah.
"""
import hashlib
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGETS = [argument for argument in sys.argv[1:] if argument in ("control", "cpu")] or ["control"]
# With what the base image has on top: 75 MiB for Debian's slim one.
MOST_MEBIBYTES = {"control": 150, "cpu": 700}
ROLES = {"control": ["rein", "rein-controller", "rein-reward"],
         "cpu": ["rein", "rein-controller", "rein-reward", "rein-trainer", "rein-rollout", "rein-reference"]}
EPOCH = "1767225600"
REVISION = "0123456789ab"
JOB = """set -e
export HOME=/tmp
rein up --listen 127.0.0.1:0 --admin 127.0.0.1:0
trap 'rein down' EXIT
rein submit -f /opt/rein/configs/jobs/sft_digits.yaml sft.updates=25
rein wait sft-digits --timeout 240
rein get job sft-digits
"""

if shutil.which("buildah") is None or os.geteuid() != 0:
    print("SKIPPED: no image was built: this needs buildah, and root", file=sys.stderr)
    sys.exit(77)


def buildah(*arguments, check=True, **options):
    run = subprocess.run(["buildah", "--storage-driver", os.environ.get("STORAGE_DRIVER", "vfs"), *arguments], capture_output=True, text=True, **options)
    if check and run.returncode != 0:
        raise AssertionError(f"buildah {shlex.join(arguments)}:\n{run.stdout[-4000:]}{run.stderr[-4000:]}")
    return run


def build(target, *flags):
    if base := os.environ.get("REIN_IMAGE_BASE"):
        flags += ("--build-arg", f"BASE={base}")
    name = f"localhost/rein-test-{target}"
    buildah("build", "--isolation", "chroot", "-f", "deploy/docker/Dockerfile", "--target", target, "-t", name, "--build-arg",
            f"SOURCE_DATE_EPOCH={EPOCH}", "--build-arg", f"REVISION={REVISION}", *flags, *shlex.split(os.environ.get("REIN_IMAGE_FLAGS", "")), ".", cwd=ROOT)
    return name


def contents(opt):
    """What a layer holds: each path with its mode, time and bytes or link."""
    held = {}
    for path in sorted(opt.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        held[str(path.relative_to(opt))] = (oct(status.st_mode), int(status.st_mtime), content)
    return held


class ImageBuildTest(unittest.TestCase):
    def image(self, target, *flags):
        """(container, its root)"""
        container = buildah("from", build(target, *flags)).stdout.strip()
        self.addCleanup(buildah, "rm", container)
        return container, pathlib.Path(buildah("mount", container).stdout.strip())

    def run_in(self, container, *command, check=True):
        return buildah("run", "--isolation", "chroot", container, "--", *command, check=check, timeout=600)

    def test_each(self):
        for target in TARGETS:
            with self.subTest(target=target):
                container, root = self.image(target)
                self.check_labels(target)
                self.check_content(target, root)
                self.check_roles(target, container)
                if target == "cpu":
                    self.check_a_job(container, root)
                if os.environ.get("REIN_IMAGE_TWICE"):
                    before = contents(root / "opt/rein")
                    self.assertEqual(contents(self.image(target, "--no-cache")[1] / "opt/rein"), before)

    def check_labels(self, target):
        config = json.loads(buildah("inspect", "--type", "image", f"localhost/rein-test-{target}").stdout)["OCIv1"]["config"]
        self.assertEqual(config["User"], "10001:10001")
        self.assertEqual(config["StopSignal"], "SIGTERM")
        self.assertLessEqual({("title", "Rein"), ("licenses", "Apache-2.0"), ("revision", REVISION)},
                             {(name.removeprefix("org.opencontainers.image."), value) for name, value in config["Labels"].items()})

    def check_content(self, target, root):
        opt = root / "opt/rein"
        files = [path for path in opt.rglob("*") if path.is_file()]
        size = sum(path.lstat().st_size for path in files) / 2**20
        print(f"{target}: {size:.0f} MiB in /opt/rein", file=sys.stderr)
        self.assertLess(size, MOST_MEBIBYTES[target] - (75 if target == "cpu" else 0))
        bill = json.loads((opt / "sbom.spdx.json").read_text())
        self.assertEqual({f"./{path.relative_to(opt)}" for path in files} - {"./sbom.spdx.json"}, {entry["fileName"] for entry in bill["files"]})
        self.assertEqual(any("torch" in package["name"] for package in bill["packages"]), target == "cpu")
        self.assertEqual([str(path) for path in root.glob("src/*")] + [str(path) for path in root.glob("cache/*")], [], "of a build")
        for path in files:
            self.assertEqual((path.stat().st_uid, path.stat().st_mode & 0o022), (0, 0), f"{path}: the role may change it")

    def check_roles(self, target, container):
        self.assertIn("uid=10001(rein)", self.run_in(container, "id").stdout)
        for role in ROLES[target]:
            self.assertRegex(self.run_in(container, role, "--version").stdout, rf"^{role} \S+ \({REVISION}, cpu")
        refused = self.run_in(container, "touch", "/opt/rein/new", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.run_in(container, "touch", "/var/lib/rein/new", "/shared/new")

    def check_a_job(self, container, root):
        subprocess.run([ROOT / "deploy/make_digits", root / "opt/rein/data/digits"], check=True)
        self.assertIn("SUCCEEDED", self.run_in(container, "/bin/sh", "-c", JOB).stdout)


if __name__ == "__main__":
    unittest.main(argv=["image_build_test.py"])
