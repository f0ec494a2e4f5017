#!/usr/bin/env python3
"""Runs the cpu-dev overlay on this machine as a cluster would: no API server, but each pod for real.

    one_machine_test.py BIN_FOLDER

Each pod's process has a network of its own, the root file system of an image (read-only, a release beside a C library), its volumes,
Secrets and user, and the command line and environment that the overlay renders. A name server answers as the Services would, and
NetworkPolicies are nftables rules where pods' packets are forwarded. A job learns there; a pod is killed; a node is drained.
All of it is in namespaces that end with the test. Skipped, loudly, where those are forbidden.
"""
import base64
import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import manifests
from manifests import COMPONENT, EDGES, KUSTOMIZE, OUTSIDE, Network, containers_of, objects_of, pods_of, render

BIN = pathlib.Path(sys.argv[1]).resolve()
INSIDE = "--inside"
NAMESPACES = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]
OF_THE_C_LIBRARY = r"/\S*(?:ld-linux\S*|/lib(?:c|m|dl|rt|pthread|resolv|util|nss_files)\.so\S*)"
NODES = {"node-a": ["controller-0", "trainer-0"], "node-b": ["rollout-0", "reference-0", "reward-0"]}
PORTS = (7000, 7080, 41234)
JOBS = """name: start
model: {config: /opt/rein/configs/models/digits}
data: {train: /shared/data/sft.jsonl}
sft: {updates: 30, sequences: 32}
trainer: {learning_rate: 2e-3}
---
name: learn
model: {job: start}
data: {train: /shared/data/train.jsonl, eval: /shared/data/eval.jsonl}
grpo: {updates: 40, prompts: 16, group_size: 4, max_completion_tokens: 3, kl: {coefficient: 0.01}}
rewards: [{exact_match: {}}]
trainer: {learning_rate: 1e-3}
checkpoint: {every: 10}
"""


# The cluster's name server: A records of NAMES, a JSON file; every other type has no record, every other name is unknown.
NAME_SERVER = r"""
import json, socket, struct, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 53))
while True:
    query, peer = server.recvfrom(4096)
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    question, kind = query[12 : at + 5], struct.unpack(">H", query[at + 1 : at + 3])[0]
    addresses = json.load(open(sys.argv[1])).get(".".join(labels))
    found = addresses if addresses and kind == 1 else []
    answers = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(a) for a in found)
    head = query[:2] + struct.pack(">HHHHH", 0x8580 if addresses else 0x8583, 1, len(found), 0, 0)
    server.sendto(head + question + answers, peer)
"""


def skip(why):
    print(f"SKIPPED: the overlay was NOT run: {why}", file=sys.stderr)
    sys.exit(manifests.SKIPPED)


def begin_again_inside():
    manifests.skip_without_tools()
    missing = [tool for tool in ("nft", "ip", "unshare", "nsenter", "setpriv", "strip") if not shutil.which(tool)]
    if missing:
        skip(f"{', '.join(missing)} missing (apt-get install nftables iproute2 util-linux binutils)")
    for what, command in (("namespaces", [*NAMESPACES, "true"]), ("nftables", ["unshare", "--net", "nft", "add", "table", "inet", "t"])):
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode != 0:
            skip(f"no {what} here: {run.stderr.strip()}")
    sys.exit(subprocess.run([*NAMESPACES, sys.executable, *sys.argv, INSIDE]).returncode)


def sh(*command, **more):
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, **more)
    assert run.returncode == 0, f"{command}: {run.stdout}{run.stderr}"
    return run.stdout


class Pod:
    """One pod: its network and its process. It may come again, at another address."""

    def __init__(self, cluster, name, template, service):
        self.cluster, self.name, self.template, self.service = cluster, name, template, service
        self.container = template["spec"]["containers"][0]
        self.process, self.address, self.generation = None, None, 0
        self.as_peer = {"labels": template["metadata"]["labels"], "namespace_labels": {"kubernetes.io/metadata.name": "rein"},
                        "ports": {p["name"]: p["containerPort"] for p in self.container["ports"]}}

    def start(self):
        self.generation += 1
        self.space = f"{self.name}.{self.generation}"
        self.address = self.cluster.network_of(self.space)
        self.cluster.names_changed()
        security, pod = self.template["spec"]["securityContext"], self.cluster.folder / self.space
        assert self.container["securityContext"]["readOnlyRootFilesystem"] and security["runAsNonRoot"]
        root = pod / "root"
        root.mkdir(parents=True)
        script = [f"mount --bind {self.cluster.image} {root}", f"mount -o remount,bind,ro {root}", f"mount -t proc proc {root}/proc"]
        script += [f"mount --bind {device} {root}{device}" for device in ("/dev/null", "/dev/zero", "/dev/urandom")]
        script += [f"mount --bind {self.cluster.resolver} {root}/etc/resolv.conf"]
        for mount in self.container["volumeMounts"]:
            script.append(f"mount --bind {self.volume(mount['name'], pod, security)} {root}{mount['mountPath']}")
            if mount.get("readOnly"):
                script.append(f"mount -o remount,bind,ro {root}{mount['mountPath']}")
        environment = self.environment()
        fill = lambda text: re.sub(r"\$\((\w+)\)", lambda m: environment[m[1]], text)
        command = [fill(part) for part in (*self.container["command"], *self.container["args"])]
        user, group = security["runAsUser"], security["runAsGroup"]
        self.log = pod / "log"
        inside = ["setpriv", f"--reuid={user}", f"--regid={group}", f"--groups={security['fsGroup']}", "--bounding-set=-all", "--no-new-privs"]
        enter = ["nsenter", f"--net=/run/netns/{self.space}", "unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "bash", "-ec",
                 " && ".join(script) + f' && exec chroot {root} /sbin/setpriv "$@"', "pod", *inside[1:], *command]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(enter, stdout=log, stderr=log, env={"PATH": os.environ["PATH"], **environment}, start_new_session=True)

    def environment(self):
        values = {}
        for source in self.container.get("envFrom", []):
            values |= next(o for o in self.cluster.objects if o["kind"] == "ConfigMap" and
                           o["metadata"]["name"] == source["configMapRef"]["name"])["data"]
        fields = {"metadata.name": self.name, "metadata.namespace": "rein"}
        for entry in self.container.get("env", []):
            values[entry["name"]] = entry["value"] if "value" in entry else fields[entry["valueFrom"]["fieldRef"]["fieldPath"]]
        return values

    def volume(self, name, pod, security):
        """The folder of a volume: a Secret's files, a claim that outlives the pod, or an empty one."""
        volume = next((v for v in self.template["spec"]["volumes"] if v["name"] == name), {"persistentVolumeClaim": {"claimName": name}})
        if "secret" in volume:
            folder = pod / name
            folder.mkdir()
            for key, value in self.cluster.secrets[volume["secret"]["secretName"]].items():
                (folder / key).write_bytes(value)
                os.chown(folder / key, 0, security["fsGroup"])
                (folder / key).chmod(volume["secret"]["defaultMode"])
            return folder
        claim = volume.get("persistentVolumeClaim")
        folder = self.cluster.folder / "claims" / (claim["claimName"] if claim and claim["claimName"] == "shared" else f"{name}-{self.name}") if claim else pod / name
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, security["runAsUser"], security["fsGroup"])
        return folder

    def child(self):
        """The role's own process, below nsenter and unshare."""
        pid = self.process.pid
        while True:
            below = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if not below:
                return pid
            pid = int(below[0])

    def ready(self):
        port = self.as_peer["ports"][self.container["readinessProbe"]["httpGet"]["port"]]
        path = self.container["readinessProbe"]["httpGet"]["path"]
        probe = ("import ssl, sys, urllib.request as u\nc = ssl._create_unverified_context()\n"
                 f"sys.exit(0 if u.urlopen('https://{self.address}:{port}{path}', context=c, timeout=5).status == 200 else 1)")
        return subprocess.run([sys.executable, "-c", probe], capture_output=True).returncode == 0  # from the node, as the kubelet asks

    def kill(self):
        os.kill(self.child(), signal.SIGKILL)
        self.process.wait(30)

    def stop(self):
        """As the kubelet: preStop, then SIGTERM, and no more patience than the pod has."""
        hook = self.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        time.sleep(hook)
        os.kill(self.child(), signal.SIGTERM)
        self.process.wait(self.template["spec"]["terminationGracePeriodSeconds"] - hook)


class Cluster:
    def __init__(self, folder):
        self.folder = folder
        self.objects = objects_of(render(KUSTOMIZE / "overlays/cpu-dev"))
        self.network = Network([o for o in self.objects if o["kind"] == "NetworkPolicy"])
        self.used = 0
        self.outside = {}  # name: (address, as peer)
        sh("mount", "--make-rprivate", "/")
        pathlib.Path("/run/netns").mkdir(exist_ok=True)
        sh("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
        sh("ip", "link", "set", "lo", "up")
        pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        self.names = folder / "names.json"
        self.names.write_text("{}")
        address = self.network_of("dns")
        self.outside["dns"] = (address, {"labels": {"k8s-app": "kube-dns"}, "ports": {}, "outside": True,
                                         "namespace_labels": {"kubernetes.io/metadata.name": "kube-system"}})
        self.name_server = subprocess.Popen(["nsenter", "--net=/run/netns/dns", sys.executable, "-c", NAME_SERVER, self.names])
        self.resolver = folder / "resolv.conf"  # as the kubelet writes it
        self.resolver.write_text(f"nameserver {address}\nsearch rein.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n")
        self.resolver.chmod(0o644)
        self.make_image()
        self.make_secrets()
        self.pods = {f"{name}-{i}": Pod(self, f"{name}-{i}", template, name)
                     for item in self.objects for name, template, replicas in pods_of(item) for i in range(replicas)}
        assert set(self.pods) == {pod for pods in NODES.values() for pod in pods}
        for name, labels in (("clients", {"rein-clients": "allowed"}), ("monitoring", {"kubernetes.io/metadata.name": "monitoring"}),
                             ("elsewhere", {"kubernetes.io/metadata.name": "default"})):
            address = self.network_of(name)
            self.outside[name] = (address, {"labels": {}, "ports": {}, "namespace_labels": labels, "outside": True})

    def make_image(self):
        """What docker/Dockerfile lays into an image, as far as roles see it."""
        self.image = self.folder / "image"
        run = subprocess.run([manifests.ROOT / "deploy/release", "cpu", "--preset", BIN.parent.name, "--to", self.image / "opt/rein", "--unpacked"],
                             capture_output=True, text=True)
        if "no licence text" in run.stderr:
            skip(run.stderr.strip().splitlines()[-1])
        assert run.returncode == 0, run.stdout + run.stderr
        for path in ("proc", "etc/rein/tls", "etc/rein/tokens", "var/lib/rein", "shared", "tmp", "dev/shm", "sbin"):
            (self.image / path).mkdir(parents=True)
        for path in ("etc/resolv.conf", "dev/null", "dev/zero", "dev/urandom"):
            (self.image / path).touch()
        (self.image / "etc/nsswitch.conf").write_text("hosts: files dns\n")  # as the base image has them
        (self.image / "etc/hosts").write_text("127.0.0.1 localhost\n")
        shutil.copy2(shutil.which("setpriv"), self.image / "sbin/setpriv")
        programs = [*(self.image / "opt/rein" / f"rein-{r}" for r in manifests.ROLES), shutil.which("setpriv")]
        seen = "".join(subprocess.run(["ldd", program], capture_output=True, text=True).stdout for program in programs)
        for path in set(re.findall(f"({OF_THE_C_LIBRARY})", seen)) | set(re.findall(r"(/\S*libcap-ng\.so\S*)", seen)):
            target = self.image / path.lstrip("/")
            if not target.is_relative_to(self.image / "opt"):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(os.path.realpath(path), target)

    def make_secrets(self):
        shared = self.folder / "claims/shared"
        shared.mkdir(parents=True)
        sh(manifests.ROOT / "deploy/make_digits", shared / "data")
        certs, tokens = self.folder / "certs", self.folder / "tokens.json"
        rein = BIN / "rein"
        sh(rein, "certs", "init", "--namespace", "rein", "--dir", certs)
        (self.folder / "ada.token").write_text(sh(rein, "token", "add", "ada", "--role", "submitter", "--file", tokens))
        self.secrets = {o["metadata"]["name"]: {k: base64.b64decode(v) for k, v in o["data"].items()}
                        for o in objects_of(sh(rein, "certs", "secrets", "--dir", certs)) if o["kind"] == "Secret"}
        self.secrets["rein-tokens"] = {"tokens.json": tokens.read_bytes()}

    def network_of(self, space):
        """A network namespace of that name, whose packets are forwarded here; its address."""
        self.used += 1
        n = self.used
        sh("ip", "netns", "add", space)
        sh("ip", "link", "add", f"v{n}", "type", "veth", "peer", "name", "eth0", "netns", space)
        sh("ip", "addr", "add", f"10.77.{n}.1/30", "dev", f"v{n}")
        sh("ip", "link", "set", f"v{n}", "up")
        for command in (f"addr add 10.77.{n}.2/30 dev eth0", "link set eth0 up", "link set lo up", f"route add default via 10.77.{n}.1"):
            sh("ip", "-n", space, *command.split())
        return f"10.77.{n}.2"

    def names_changed(self):
        """Names as the headless Services resolve them, and the policies for the new addresses."""
        names = {}
        for pod in self.pods.values():
            if pod.address:
                names[f"{pod.name}.{pod.service}.rein.svc.cluster.local"] = [pod.address]
                names.setdefault(f"{pod.service}.rein.svc.cluster.local", []).append(pod.address)
        whole = self.names.with_suffix(".new")
        whole.write_text(json.dumps(names))
        whole.replace(self.names)
        there = {p.name: (p.address, p.as_peer) for p in self.pods.values() if p.address} | self.outside
        rules = ["table inet pods", "delete table inet pods", "table inet pods {", "chain forward {",
                 "type filter hook forward priority 0; policy drop;", "ct state established,related accept"]
        for source, (from_address, from_peer) in there.items():
            for target, (to_address, to_peer) in there.items():
                if target == "dns" and self.network.allows(from_peer, to_peer, 53):
                    rules.append(f"ip saddr {from_address} ip daddr {to_address} udp dport 53 accept")
                if source == target or to_peer.get("outside"):
                    continue
                open_to = [port for port in PORTS if self.network.allows(from_peer, to_peer, port)]
                where = "" if len(open_to) == len(PORTS) else f"tcp dport {{ {', '.join(map(str, open_to))} }} "
                if open_to:
                    rules.append(f"ip saddr {from_address} ip daddr {to_address} {where}accept")
        sh("nft", "-f", "-", input="\n".join([*rules, "}", "}"]) + "\n")

    def rein(self, *arguments, space="clients", code=0, timeout=280):
        """The command as somebody in another namespace gives it."""
        script = f"mount --bind {self.resolver} /etc/resolv.conf && exec \"$@\""
        run = subprocess.run(["nsenter", f"--net=/run/netns/{space}", "unshare", "--mount", "bash", "-ec", script, "rein", BIN / "rein", "--server",
                              "controller.rein.svc:7000", "--ca", self.folder / "certs/ca.crt", "--token-file", self.folder / "ada.token",
                              *arguments], capture_output=True, text=True, timeout=timeout, env=dict(os.environ, REIN_HOME=str(self.folder / "home")))
        assert code is None or run.returncode == code, f"rein {arguments}: {run.returncode}\n{run.stdout}{run.stderr}\n{self.logs()}"
        return run.stdout + run.stderr

    def logs(self):
        return "".join(f"--- {pod.name}\n{pod.log.read_text()[-2500:]}" for pod in self.pods.values() if pod.generation)

    def reaches(self, space, address, port):
        """Whether packets arrive: a connection, or the refusal of a port that nobody has open."""
        probe = (f"import socket, sys\ntry: socket.create_connection(('{address}', {port}), 3.5)\n"
                 "except ConnectionRefusedError: pass\nexcept OSError: sys.exit(1)")
        return subprocess.run(["nsenter", f"--net=/run/netns/{space}", sys.executable, "-c", probe], capture_output=True).returncode == 0

    def until(self, condition, what, seconds=120):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{what} did not come to pass\n{self.logs()}"
            time.sleep(0.3)

    def all_ready(self):
        self.until(lambda: all(pod.ready() for pod in self.pods.values()), "every pod ready")

    def update_of(self, job):
        return int(json.loads(self.rein("get", "job", job, "-o", "json")).get("update", 0))

    def may_evict(self, name):
        """What the disruption budgets say to a drain while every pod is ready; a share is rounded up."""
        labels = self.pods[name].template["metadata"]["labels"]
        for budget in (o["spec"] for o in self.objects if o["kind"] == "PodDisruptionBudget"):
            if manifests.selects(budget["selector"], labels):
                most, count = budget["maxUnavailable"], sum(manifests.selects(budget["selector"], p.template["metadata"]["labels"]) for p in self.pods.values())
                if (most if isinstance(most, int) else -(-int(most.rstrip("%")) * count // 100)) < 1:
                    return False
        return True


class OneMachineTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        folder.chmod(0o755)
        cls.cluster = Cluster(folder)
        stack.callback(cls.cluster.name_server.kill)
        stack.callback(lambda: [pod.process.kill() for pod in cls.cluster.pods.values() if pod.process and pod.process.poll() is None])
        for pod in cls.cluster.pods.values():
            pod.start()
        cls.cluster.all_ready()

    def test_1_edges_and_no_others(self):
        component = lambda name: self.cluster.pods[name].as_peer["labels"][COMPONENT] if name in self.cluster.pods else name
        spaces = {name: pod.space for name, pod in self.cluster.pods.items()} | {name: name for name in self.cluster.outside if name != "dns"}
        edges = EDGES | OUTSIDE
        asked = [(source, target, port) for source in spaces for target in self.cluster.pods for port in PORTS if source != target]
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            reached = list(pool.map(lambda one: self.cluster.reaches(spaces[one[0]], self.cluster.pods[one[1]].address, one[2]), asked))
        refused = 0
        for (source, target, port), open_ in zip(asked, reached, strict=True):
            allowed = edges.get((component(source), component(target)), set())
            wanted = allowed is None or port in allowed
            self.assertEqual(open_, wanted, f"{source} -> {target}:{port}")
            refused += not wanted
        self.assertGreater(refused, 50)
        self.assertFalse(self.cluster.reaches(spaces["trainer-0"], "10.77.250.2", 443), "the world")

    def test_2_strangers_and_pods_without_a_token(self):
        self.assertIn("rein get", self.cluster.rein("get", "jobs", "--help"))
        self.cluster.rein("get", "jobs")
        run = self.cluster.rein("get", "jobs", space="elsewhere", code=None, timeout=120)
        self.assertNotIn("NAME", run, "no packet of theirs arrives")

    def test_3_a_job_learns_a_pod_is_killed_a_node_is_drained(self):
        start, learn = JOBS.split("---\n")
        (self.cluster.folder / "start.yaml").write_text(start)
        (self.cluster.folder / "learn.yaml").write_text(learn)
        self.cluster.rein("submit", "-f", self.cluster.folder / "start.yaml")
        self.cluster.rein("wait", "start", "--timeout", "200")
        self.cluster.rein("submit", "-f", self.cluster.folder / "learn.yaml")
        self.cluster.until(lambda: self.cluster.update_of("learn") >= 3, "update 3")

        generator = self.cluster.pods["rollout-0"]
        before = generator.address
        generator.kill()
        generator.start()  # the StatefulSet makes it again, under its name
        self.assertNotEqual(generator.address, before)
        seen = self.cluster.update_of("learn")
        self.cluster.until(lambda: self.cluster.update_of("learn") >= seen + 3, "updates with the generator that came back")

        self.assertFalse(self.cluster.may_evict("trainer-0"), "a drain never takes the trainer of a running job")
        drained = NODES["node-b"]
        for name in drained:
            self.assertTrue(self.cluster.may_evict(name), name)
            pod = self.cluster.pods[name]
            pod.stop()
            self.assertEqual(pod.process.returncode, 0, f"{name} ended in order\n{pod.log.read_text()[-2000:]}")
            pod.start()  # on the other node
            self.cluster.until(pod.ready, f"{name} ready again")
        self.cluster.rein("wait", "learn", "--timeout", "250")
        job = json.loads(self.cluster.rein("get", "job", "learn", "-o", "json"))
        self.assertEqual((job["state"], int(job["update"])), ("JOB_STATE_SUCCEEDED", 40))
        self.assertGreater(job["evals"][-1]["accuracy"], job["evals"][0].get("accuracy", 0))
        shared = self.cluster.folder / "claims/shared/jobs/learn"
        self.assertTrue((shared / "model/model.safetensors").exists(), "results lie on the shared volume")
        self.assertEqual((shared / "model/model.safetensors").stat().st_uid, 10001)


if __name__ == "__main__":
    if INSIDE not in sys.argv:
        begin_again_inside()
    unittest.main(argv=sys.argv[:1])
