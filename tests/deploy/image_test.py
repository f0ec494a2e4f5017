#!/usr/bin/env python3
"""Checks what an image would hold, without an engine: the programs run in an empty root with the collected libraries.

    image_test.py BIN_FOLDER
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

BIN = pathlib.Path(sys.argv.pop(1)).resolve()
ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCKER = ROOT / "deploy/docker"
CONTROL = ["rein", "rein-controller", "rein-reward"]
MIB = 1 << 20


class ImageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.root = pathlib.Path(cls.temporary.name)
        cls.opt = cls.root / "opt/rein"
        run = subprocess.run([ROOT / "deploy/release", "control", "--preset", BIN.parent.name, "--to", cls.opt, "--unpacked"],
                             capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr

    def test_the_roles_without_libtorch_are_small(self):
        size = sum(path.stat().st_size for path in self.opt.rglob("*") if path.is_file() and not path.is_symlink())
        self.assertLess(size, 75 * MIB, "the base image of 74 MiB comes on top, and 150 MiB are the limit")
        self.assertFalse([path for path in self.opt.rglob("*torch*")])

    def test_they_run_in_an_empty_root(self):
        # With /proc, by which the loader finds the folder of a program.
        inside = ["unshare", "--mount", "bash", "-ec", 'mount -t proc proc "$0/proc"; exec /usr/sbin/chroot "$0" "$@"', self.root]
        if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
            self.skipTest("chroot and mounts need root")
        # What the base image brings: the C library and its loader.
        run = subprocess.run(["ldd", *(BIN / name for name in CONTROL)], capture_output=True, text=True, check=True).stdout
        for line in run.splitlines():
            found = re.search(r"(/\S*(?:ld-linux\S*|/lib(?:c|m|dl|rt|pthread|resolv)\.so\S*))", line)
            if found:
                target = self.root / found[1].lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(os.path.realpath(found[1]), target)
        for name in ("dev", "proc"):
            (self.root / name).mkdir(exist_ok=True)
        for name in CONTROL:
            run = subprocess.run([*inside, f"/opt/rein/{name}", "--help"], capture_output=True, text=True, env={})
            self.assertEqual(run.returncode, 0, f"{name}: {run.stderr}")
            self.assertIn("Usage", run.stdout)
        run = subprocess.run([*inside, "/opt/rein/rein-reward", "--check"], capture_output=True, text=True, env={})
        self.assertIn("flags and files are good", run.stdout, run.stderr)

    def test_the_launcher_of_programs_lies_beside_the_reward_service(self):
        run = subprocess.run(["ldd", self.opt / "rein-sandbox"], capture_output=True, text=True)
        self.assertIn("statically linked", run.stdout, "for an image without its libraries")

    def test_what_cuda_opens_by_name_is_packed(self):
        if not shutil.which("cc"):
            self.skipTest("cc is missing")
        folder = self.root / "by-name"
        lib, other = folder / "nvidia/cu13/lib", folder / "nvidia/cudnn/lib"
        for path in (lib, other):
            path.mkdir(parents=True)
        build = lambda *words: subprocess.run(["cc", *words], cwd=folder, check=True, input="int one(void) { return 1; } int main(void) { return one(); }", text=True)
        build("-shared", "-fPIC", "-Wl,-soname,libcublas.so.13", "-x", "c", "-", "-o", lib / "libcublas.so.13")
        build("-x", "c", "-", "-x", "none", "-o", "program", "-Wl,--no-as-needed", lib / "libcublas.so.13", f"-Wl,-rpath,{lib}")
        opened = ("libnvrtc.so.13", "libnvrtc-builtins.so.13.0", "libcublasLt.so.13", "libcudnn_graph.so.9", "libcudnn_engines_runtime_compiled.so.9")
        for name in (*opened, "libcusolver.so.12"):
            build("-shared", "-fPIC", f"-Wl,-soname,{name}", "-x", "c", "-", "-o", (other if "cudnn" in name else lib) / name)
        for name in ("libnvrtc.alt.so.13", "libcudart_static.a"):
            (lib / name).write_text("x")
        build("-shared", "-fPIC", "-x", "c", "-", "-x", "none", "-o", lib / "libtorch_cuda_linalg.so", "-Wl,--no-as-needed", lib / "libcusolver.so.12", f"-Wl,-rpath,{lib}")
        subprocess.run([ROOT / "deploy/packaging/collect_libraries", "--cuda", folder / "to", folder / "program"], check=True, capture_output=True)
        self.assertEqual({path.name for path in (folder / "to").iterdir()}, {"libcublas.so.13", "libtorch_cuda_linalg.so", "libcusolver.so.12", *opened})

    def test_the_bill_of_materials(self):
        bill = json.loads((self.opt / "sbom.spdx.json").read_text())
        self.assertLessEqual({"rein", "tokenizers", "libgrpc++1.51"}, {package["name"] for package in bill["packages"]})
        self.assertFalse([package["name"] for package in bill["packages"] if "torch" in package["name"]])
        files = {entry["fileName"] for entry in bill["files"]}
        for path in (*(self.opt / "lib").iterdir(), self.opt / "rein-control"):
            self.assertIn(f"./{path.relative_to(self.opt)}", files)

    def test_the_licence_of_a_package_whose_link_a_slim_base_lacks(self):
        sys.path.insert(0, str(ROOT / "deploy/packaging"))
        import origins
        source = origins._dpkg("-W", "-f", "${source:Package}", "libstdc++6")
        docs = self.root / "docs"
        base = f"{source}-base"  # of GCC: the package that has the text of all
        (docs / base).mkdir(parents=True)
        self.assertIsNone(origins.copyright_of("libstdc++6", docs))
        (docs / base / "copyright").write_text("a text")
        self.assertEqual(origins.copyright_of("libstdc++6", docs), docs / base / "copyright")
        self.assertIsNone(origins.copyright_of("zlib1g", docs))

    def test_the_dockerfile(self):
        text = (DOCKER / "Dockerfile").read_text()
        for stage, kind in (("build-cpu", "cpu"), ("build-control", "control"), ("build-cuda", "cuda")):
            self.assertRegex(text, rf"AS {stage}\n(?:.+\n)*RUN .* deploy/release {kind} --to /opt/rein --unpacked\n")
        stages = re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE)
        names = [name for _, name in stages]
        self.assertLessEqual({"control", "cpu", "cuda"}, set(names))
        for base, name in stages:
            self.assertTrue(base == "${BASE}" or base in names, f"{name} comes from {base}")
        self.assertRegex(text, r"ARG BASE=debian:[\d.]+-slim\n")
        self.assertNotIn("latest", text)
        self.assertIn("\nUSER 10001:10001\n", text)
        for label in ("title", "licenses", "version", "revision"):
            self.assertIn(f"org.opencontainers.image.{label}=", text)
        for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
            for source in sources.split():
                self.assertTrue((ROOT / source).exists(), source)
        used = set()
        for path in (ROOT / "deploy/kustomize").rglob("*.yaml"):
            used |= set(re.findall(r"/opt/rein/([\w-]+)", path.read_text()))
        self.assertEqual(used, {"rein", "rein-controller", "rein-trainer", "rein-rollout", "rein-reference", "rein-reward"})


if __name__ == "__main__":
    unittest.main()
