#!/usr/bin/env python3
"""Builds images by deploy/docker/Dockerfile with buildah, and runs what is in them as a container runtime would.

    image_build_test.py [TARGET...]      control (default), cpu

Needs buildah, root (no daemon), package registries, and some 20 GB of disk; a build takes as long as a release does. REIN_IMAGE_BASE names
another base image, REIN_IMAGE_FLAGS gives `buildah build` more arguments (-v FILE:FILE:ro for a proxy's certificate, say).
REIN_IMAGE_TWICE=1 builds every target again, without layers and compiled objects of the first, and wants equal layers.
Skipped, loudly, without buildah. With runc, ip and `cpu` among the targets the five services run as containers: controller and reward service of
the image `control`, where that was built too.
"""
import contextlib
import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGETS = [argument for argument in sys.argv[1:] if argument in ("control", "cpu")] or ["control"]
MOST_MEBIBYTES = {"control": 150, "cpu": 700}  # of files, the base image's too
PROGRAMS = {"control": ["rein", "rein-controller", "rein-reward"],
            "cpu": ["rein", "rein-controller", "rein-reward", "rein-trainer", "rein-rollout", "rein-reference"]}
EPOCH = "1767225600"
REVISION = "0123456789ab"
USER = 10001
CONTROLLER = "127.0.0.1:7000"
# Role: (image, its own arguments); the order is that of the start, its reverse that of the stop.
CONTAINERS = {
    "controller": ("control", ["--listen", CONTROLLER, "--admin", "127.0.0.1:7080", "--state", "/var/lib/rein", "--outputs", "/shared/jobs"]),
    "trainer": ("cpu", ["--controller", CONTROLLER, "--threads", "1"]),
    "rollout": ("cpu", ["--controller", CONTROLLER, "--threads", "1"]),
    "reference": ("cpu", ["--controller", CONTROLLER, "--threads", "1"]),
    "reward": ("control", ["--controller", CONTROLLER]),
}
OF_THE_C_LIBRARY = r"/(?:ld-linux[^/]*|lib(?:c|m|dl|rt|pthread|resolv|util|nss_\w+)\.so[.\d]*)$"
GRACE_SECONDS = 30  # the shortest of the manifests'
# Where the jobs of the quickstart find what they name when they run in containers.
IN_CONTAINERS = ["data.train.file=/shared/data/%s.jsonl", "data.eval.file=/shared/data/eval.jsonl"]

if shutil.which("buildah") is None or os.geteuid() != 0:
    print("SKIPPED: no image was built: this needs buildah, and root", file=sys.stderr)
    sys.exit(77)


def sh(*command, check=True, **options):
    run = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if check and run.returncode != 0:
        raise AssertionError(f"{shlex.join(map(str, command))}: {run.returncode}\n{run.stdout[-4000:]}{run.stderr[-4000:]}")
    return run


def build(target, *flags, environment=None):
    if base := os.environ.get("REIN_IMAGE_BASE"):
        flags += ("--build-arg", f"BASE={base}")
    name = f"localhost/rein-test-{target}"
    sh("buildah", "build", "--isolation", "chroot", "-f", "deploy/docker/Dockerfile", "--target", target, "-t", name, "--timestamp", EPOCH,
       "--build-arg", f"SOURCE_DATE_EPOCH={EPOCH}", "--build-arg", f"REVISION={REVISION}", *flags,
       *shlex.split(os.environ.get("REIN_IMAGE_FLAGS", "")), ".", cwd=ROOT, env=environment)
    return name


def inspect(name):
    return json.loads(sh("buildah", "inspect", "--type", "image", name).stdout)


def contents(root):
    """What an image holds: each path with its mode, owner, time and bytes or link."""
    held = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        held[str(path.relative_to(root))] = (oct(status.st_mode), status.st_uid, status.st_gid, int(status.st_mtime), content)
    return held


def mebibytes(root):
    """Of all files, one with several names once."""
    sizes = {(status.st_dev, status.st_ino): status.st_size for status in (path.lstat() for path in root.rglob("*"))}
    return sum(sizes.values()) / 2**20


class Container:
    """A role in a container of its own: a read-only root, the image's user and environment, no capability, volumes; its network is the pod's."""

    def __init__(self, pod, role):
        self.pod, self.role = pod, role
        self.starts = 0

    def image(self):
        return self.pod.images.get(CONTAINERS[self.role][0]) or self.pod.images["cpu"]

    def start(self):
        self.starts += 1
        self.name = f"rein-{self.role}-{os.getpid()}-{self.starts}"
        bundle = self.pod.folder / self.name
        bundle.mkdir()
        sh("runc", "spec", "--bundle", bundle)
        spec = json.loads((bundle / "config.json").read_text())
        (root, config), flags = self.image(), CONTAINERS[self.role][1]
        user, group = map(int, config["User"].split(":"))
        spec["root"] = {"path": str(root), "readonly": True}
        spec["process"] |= {"terminal": False, "args": [f"/opt/rein/rein-{self.role}", *flags], "env": config["Env"], "capabilities": {},
                            "noNewPrivileges": True, "user": {"uid": user, "gid": group}, "rlimits": []}
        spec["mounts"] += [{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]}]
        spec["mounts"] += [{"destination": inside, "type": "bind", "source": str(outside), "options": ["rbind", "rw", "nosuid", "nodev"]}
                           for inside, outside in self.pod.volumes(self.role).items()]
        next(space for space in spec["linux"]["namespaces"] if space["type"] == "network")["path"] = f"/run/netns/{self.pod.network}"
        (bundle / "config.json").write_text(json.dumps(spec))
        self.log = bundle / "log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(["runc", "--root", self.pod.folder / "runc", "run", "--bundle", bundle, self.name], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)

    def stop(self):
        """As a runtime stops it: the image's signal, then patience. The code it ends with."""
        sh("runc", "--root", self.pod.folder / "runc", "kill", self.name, self.image()[1]["StopSignal"])
        return self.process.wait(GRACE_SECONDS)

    def proc(self, file):
        """/proc/PID/FILE of the role."""
        pid = json.loads(sh("runc", "--root", self.pod.folder / "runc", "state", self.name).stdout)["pid"]
        return pathlib.Path(f"/proc/{pid}/{file}").read_text()


class Pod:
    """The five containers, and the network and volumes that they share."""

    def __init__(self, folder, images, stack):
        self.folder, self.images = folder, images  # name: (root, config)
        self.network = f"rein-test-{os.getpid()}"
        self.containers = {role: Container(self, role) for role in CONTAINERS}
        sh("ip", "netns", "add", self.network)
        stack.callback(sh, "ip", "netns", "delete", self.network)
        sh("ip", "-n", self.network, "link", "set", "lo", "up")
        stack.callback(self.kill)
        for volume in ("shared", "state"):
            (folder / volume).mkdir()
            os.chown(folder / volume, USER, USER)
        sh(ROOT / "deploy/make_digits", folder / "shared/data")

    def volumes(self, role):
        return {"/shared": self.folder / "shared"} | ({"/var/lib/rein": self.folder / "state"} if role == "controller" else {})

    def start(self):
        for container in self.containers.values():
            container.start()
        self.until(lambda: self.ready() == sorted(set(CONTAINERS) - {"controller"}), "four actors are ready")

    def ready(self):
        run = self.rein("get", "actors", "-o", "json", code=None)
        return sorted(actor["role"].lower() for actor in json.loads(run.stdout).get("actors", []) if actor["state"] == "READY") if run.returncode == 0 else []

    def kill(self):
        for container in self.containers.values():
            if container.starts:
                sh("runc", "--root", self.folder / "runc", "delete", "--force", container.name, check=False)
                container.process.wait()

    def rein(self, *arguments, code=0, timeout=600):
        """The command on the host, which reaches the containers' ports: the program is the one that the image has."""
        run = sh("ip", "netns", "exec", self.network, self.containers["controller"].image()[0] / "opt/rein/rein", "--server", CONTROLLER, *arguments, check=False,
                 timeout=timeout, env=dict(os.environ, REIN_HOME=str(self.folder / "home")))
        assert code is None or run.returncode == code, f"rein {arguments}: {run.returncode}\n{run.stdout}{run.stderr}\n{self.logs()}"
        return run

    def job(self, name):
        return json.loads(self.rein("get", "job", name, "-o", "json").stdout)

    def submit(self, file, rows, *overrides):
        self.rein("submit", "-f", ROOT / "configs/jobs" / file, IN_CONTAINERS[0] % rows, IN_CONTAINERS[1], *overrides)

    def until(self, condition, what, seconds=120):
        end = time.monotonic() + seconds
        while not condition():
            ended = [role for role, container in self.containers.items() if container.process.poll() is not None]
            assert not ended and time.monotonic() < end, f"{what}: it did not come to pass; ended: {ended}\n{self.logs()}"
            time.sleep(0.2)

    def logs(self):
        return "".join(f"--- {role}\n{container.log.read_text()[-2000:]}" for role, container in self.containers.items() if container.starts)


class ImageBuildTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.images = {}  # target: (root, config)
        for target in TARGETS:
            container = sh("buildah", "from", build(target)).stdout.strip()
            cls.addClassCleanup(sh, "buildah", "rm", container)
            cls.images[target] = (pathlib.Path(sh("buildah", "mount", container).stdout.strip()), inspect(f"localhost/rein-test-{target}")["OCIv1"]["config"])

    def test_1_labels(self):
        for _, config in self.images.values():
            self.assertEqual(config["User"], f"{USER}:{USER}")
            self.assertEqual(config["StopSignal"], "SIGTERM")
            self.assertLessEqual({("title", "Rein"), ("licenses", "Apache-2.0"), ("revision", REVISION)},
                                 {(name.removeprefix("org.opencontainers.image."), value) for name, value in config["Labels"].items()})

    def test_2_sizes(self):
        for target, (root, _) in self.images.items():
            whole, own = mebibytes(root), mebibytes(root / "opt/rein")
            print(f"{target}: {whole:.0f} MiB, {own:.0f} of them in /opt/rein", file=sys.stderr)
            self.assertLess(whole, MOST_MEBIBYTES[target])

    def test_3_content(self):
        for target, (root, _) in self.images.items():
            opt = root / "opt/rein"
            files = [path for path in opt.rglob("*") if path.is_file() and not path.is_symlink()]
            bill = json.loads((opt / "sbom.spdx.json").read_text())
            self.assertEqual({f"./{path.relative_to(opt)}": hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.name != "sbom.spdx.json"},
                             {entry["fileName"]: digest["checksumValue"] for entry in bill["files"] for digest in entry["checksums"] if digest["algorithm"] == "SHA256"})
            self.assertEqual(any("torch" in package["name"] for package in bill["packages"]), target == "cpu")
            self.assertEqual([str(path) for folder in ("src", "cache", "root/.cache", "root/.cargo") for path in (root / folder).rglob("*") if not path.is_dir()], [],
                             "of a build")
            for path in [opt, *opt.rglob("*")]:
                self.assertEqual((path.lstat().st_uid, path.lstat().st_mode & 0o022 if not path.is_symlink() else 0), (0, 0), f"{path}: the role may change it")

    def inside(self, target):
        """Runs commands in a container of its own that may change."""
        container = sh("buildah", "from", f"localhost/rein-test-{target}").stdout.strip()
        self.addCleanup(sh, "buildah", "rm", container)
        return lambda *command, check=True: sh("buildah", "run", "--isolation", "chroot", container, "--", *command, check=check)

    def test_4_only_libraries_that_are_loaded(self):
        for target, (root, _) in self.images.items():
            run, loaded = self.inside(target), set()
            for program in PROGRAMS[target]:
                said = run("ldd", f"/opt/rein/{program}").stdout
                self.assertNotIn("not found", said, program)
                loaded |= set(re.findall(r"=> /opt/rein/lib/(\S+)", said))
            self.assertEqual({path.name for path in (root / "opt/rein/lib").iterdir()}, loaded)

    def test_5_programs(self):
        for target in self.images:
            run = self.inside(target)
            self.assertIn(f"uid={USER}(rein)", run("id").stdout)
            for program in PROGRAMS[target]:
                self.assertRegex(run(program, "--version").stdout, rf"^{program} \S+ \({REVISION}, cpu")
            self.assertNotEqual(run("touch", "/opt/rein/new", check=False).returncode, 0)
            run("touch", "/var/lib/rein/new", "/shared/new")

    @unittest.skipUnless("cpu" in TARGETS, "of the images with every role")
    def test_5_what_it_does_unless_told_otherwise(self):
        command = self.images["cpu"][1]["Cmd"]
        said = self.inside("cpu")("timeout", "--preserve-status", "20", *command, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0").stdout
        self.assertRegex(said, r"^up +controller \S+ · trainer-0 · rollout-0 · reference-0 · reward-0 ")

    def test_6_the_quickstart_in_five_containers(self):
        missing = [tool for tool in ("runc", "ip") if shutil.which(tool) is None]
        if missing or "cpu" not in self.images:
            why = f"{' and '.join(missing)} missing (apt-get install runc iproute2)" if missing else "the image cpu was not built"
            print(f"SKIPPED in part: no job was run in containers: {why}", file=sys.stderr)
            self.skipTest(why)
        with contextlib.ExitStack() as stack:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder.chmod(0o755)
            pod = Pod(folder, self.images, stack)
            pod.start()
            for role, container in pod.containers.items():
                status = dict(line.split(":\t", 1) for line in container.proc("status").splitlines())
                self.assertEqual((status["Uid"].split(), status["CapEff"], status["CapBnd"], status["NoNewPrivs"]), ([str(USER)] * 4, "0" * 16, "0" * 16, "1"), role)
            self.learn(pod)
            for role, container in pod.containers.items():
                opened = set(re.findall(r"(/\S+\.so[.\d]*)$", container.proc("maps"), re.MULTILINE))
                self.assertEqual({path for path in opened if "/opt/rein/lib/" not in path and not re.search(OF_THE_C_LIBRARY, path)}, set(), role)
            self.stop_and_go_on(pod)
            written = {path.lstat().st_uid for volume in ("shared/jobs", "state") for path in (folder / volume).rglob("*")}
            self.assertEqual(written, {USER})

    def learn(self, pod):
        pod.submit("sft_digits.yaml", "sft", "model.config=/opt/rein/configs/models/digits")
        pod.rein("wait", "sft-digits", "--timeout", "500")
        pod.submit("grpo_digits.yaml", "train")
        pod.rein("wait", "grpo-digits", "--timeout", "500")
        job = pod.job("grpo-digits")
        accuracy = [entry.get("accuracy", 0) for entry in job["evals"]]
        print(f"held-out accuracy in the containers: {accuracy}", file=sys.stderr)
        self.assertEqual(job["state"], "JOB_STATE_SUCCEEDED")
        self.assertGreater(accuracy[-1], accuracy[0] + 0.2)
        self.assertTrue((pod.folder / "shared/jobs/grpo-digits/model/model.safetensors").exists(), "results lie on the volume")

    def stop_and_go_on(self, pod):
        """Every container is stopped in the middle of a job, actors before their controller; new ones on the same volumes end it."""
        pod.submit("grpo_digits.yaml", "train", "name=again", "checkpoint.every=5")
        pod.until(lambda: int(pod.job("again").get("update", 0)) >= 7, "update 7")
        for role in reversed(CONTAINERS):
            container = pod.containers[role]
            self.assertEqual(container.stop(), 0, f"{role}: {container.log.read_text()[-2000:]}")
            self.assertIn("stopping", container.log.read_text(), role)
        pod.start()
        pod.rein("wait", "again", "--timeout", "500")
        job = pod.job("again")
        self.assertEqual((job["state"], int(job["update"])), ("JOB_STATE_SUCCEEDED", 60))
        said = pod.rein("describe", "again").stdout
        self.assertRegex(said, r"consumed 1920\b")
        self.assertNotIn("ALARM", said)

    @unittest.skipUnless(os.environ.get("REIN_IMAGE_TWICE"), "REIN_IMAGE_TWICE is not set")
    def test_7_a_second_build_is_the_same(self):
        for target, (root, _) in self.images.items():
            first = inspect(f"localhost/rein-test-{target}")
            with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as empty:  # cache mounts lie there: what was compiled is not used again
                second = inspect(build(target, "--no-cache", environment=dict(os.environ, TMPDIR=empty)))
            if first["OCIv1"]["rootfs"] != second["OCIv1"]["rootfs"]:
                container = sh("buildah", "from", f"localhost/rein-test-{target}").stdout.strip()
                self.addCleanup(sh, "buildah", "rm", container)
                self.assertEqual(contents(pathlib.Path(sh("buildah", "mount", container).stdout.strip())), contents(root))
            self.assertEqual(first["OCIv1"]["rootfs"], second["OCIv1"]["rootfs"], "layers")
            self.assertEqual(first["FromImageID"], second["FromImageID"], "configuration")


if __name__ == "__main__":
    unittest.main(argv=["image_build_test.py"])
