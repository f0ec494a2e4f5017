#!/usr/bin/env python3
"""`rein deploy` against a kubectl that answers as clusters do: what is missing is named before anything is applied.

    deploy_command_test.py BIN_FOLDER
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import manifests

manifests.skip_without_tools()
BIN = pathlib.Path(sys.argv.pop(1)).resolve()
ROOT = pathlib.Path(__file__).resolve().parents[2]

# Renders by the real kubectl; everything else is answered from cluster.json, and written down.
KUBECTL = """#!/usr/bin/env python3
import json, os, pathlib, subprocess, sys
here = pathlib.Path(__file__).parent
cluster = json.loads((here / "cluster.json").read_text())
words = sys.argv[1:]
if words[0] == "kustomize":
    sys.exit(subprocess.run([cluster["real"], *words]).returncode)
if words[0] in ("apply", "delete", "diff"):
    (here / "stdin.yaml").write_text(sys.stdin.read())
with open(here / "calls.txt", "a") as calls:
    calls.write(" ".join(words) + "\\n")
if not cluster["up"]:
    sys.exit("The connection to the server was refused")
if words[0] == "version":
    print(json.dumps({"clientVersion": {}, "serverVersion": {"minor": "32"}}))
elif words[0] == "api-resources":
    group = words[1].split("=")[1]
    print("things." + group if group in cluster["groups"] else "", end="")
elif words[0] == "get" and words[1] == "nodes":
    print(json.dumps({"items": [{"status": {"allocatable": {"nvidia.com/gpu": str(n)} if n else {}}} for n in cluster["gpus"]]}))
elif words[0] == "get" and words[1] == "storageclass":
    print(json.dumps({"items": [{"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": str(cluster["class"]).lower()}}}]}))
elif words[0] == "get" and words[1] == "secret":
    print(json.dumps({"metadata": {"name": words[2]}}) if words[2] in cluster["secrets"] else "", end="")
"""
SECRETS = ["rein-tokens"] + [f"rein-{role}-tls" for role in ("controller", "trainer", "rollout", "reference", "reward", "admin", "batch")]
GOOD = {"up": True, "groups": ["jobset.x-k8s.io"], "gpus": [8, 8], "class": True, "secrets": SECRETS}


class DeployTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        (self.folder / "kubectl").write_text(KUBECTL)
        (self.folder / "kubectl").chmod(0o755)

    def rein(self, *arguments, code=0, **changes):
        real = subprocess.run(["which", "kubectl"], capture_output=True, text=True).stdout.strip()
        (self.folder / "cluster.json").write_text(json.dumps(GOOD | {"real": real} | changes))
        run = subprocess.run([BIN / "rein", "deploy", *arguments, "--kubectl", self.folder / "kubectl"], capture_output=True, text=True,
                             cwd=ROOT, timeout=60, stdin=subprocess.DEVNULL)
        self.assertEqual(run.returncode, code, run.stdout + run.stderr)
        return run.stdout + run.stderr

    def calls(self):
        path = self.folder / "calls.txt"
        return path.read_text() if path.exists() else ""

    def test_render_is_what_kubectl_renders(self):
        self.assertEqual(self.rein("render", "-k", "cpu-dev"), manifests.render(ROOT / "deploy/kustomize/overlays/cpu-dev"))
        self.assertEqual(self.rein("render", "-k", str(ROOT / "deploy/kustomize/base")), manifests.render(ROOT / "deploy/kustomize/base"))
        self.assertIn("no overlay cpu-dve; there are ", self.rein("render", "-k", "cpu-dve", code=4))

    def test_apply_on_a_cluster_that_has_everything(self):
        self.rein("apply", "-k", "multi-node")
        self.assertIn("apply -f -", self.calls())
        applied = manifests.objects_of((self.folder / "stdin.yaml").read_text())
        self.assertEqual(applied, manifests.objects_of(manifests.render(ROOT / "deploy/kustomize/overlays/multi-node")))

    def test_what_is_missing_is_named_and_nothing_applied(self):
        for overlay, changes, wanted in (
                ("multi-node", {"gpus": [0]}, "no node offers one: install NVIDIA's device plugin"),
                ("multi-node", {"gpus": [3]}, "the pods ask for 7, the nodes have 3"),
                ("multi-node", {"class": False}, "default storage class"),
                ("multi-node", {"secrets": []}, "rein token add ada"),
                ("multi-node", {"secrets": ["rein-tokens"]}, "Secret rein/rein-trainer-tls: rein certs init"),
                ("batch-jobset", {"groups": []}, "API group jobset.x-k8s.io")):
            text = self.rein("apply", "-k", overlay, code=3, **changes)
            self.assertIn(wanted, text)
            self.assertIn("nothing was applied", text)
            self.assertNotIn("apply -f", self.calls())
        self.rein("apply", "-k", "multi-node", "--yes", gpus=[0])
        self.assertIn("apply -f", self.calls())

    def test_no_cluster_and_no_kubectl(self):
        for verb in ("apply", "diff", "status", "delete"):
            self.assertIn("kubectl reaches no cluster", self.rein(verb, "-k", "cpu-dev", code=7, up=False))
        run = subprocess.run([BIN / "rein", "deploy", "render", "-k", "cpu-dev", "--kubectl", "no-such-kubectl"], capture_output=True,
                             text=True, cwd=ROOT)
        self.assertEqual(run.returncode, 4)
        self.assertIn("no-such-kubectl is not installed", run.stderr)

    def test_delete_asks_and_keeps_volumes(self):
        self.assertIn("nothing was deleted", self.rein("delete", "-k", "multi-node", code=2))
        self.rein("delete", "-k", "multi-node", "--yes")
        kinds = {item["kind"] for item in manifests.objects_of((self.folder / "stdin.yaml").read_text())}
        self.assertIn("StatefulSet", kinds)
        self.assertEqual(kinds & {"PersistentVolumeClaim", "PersistentVolume", "Namespace"}, set())

    def test_status_shows_pods_and_what_they_wait_for(self):
        self.assertIn("missing  nvidia.com/gpu", self.rein("status", "-k", "single-gpu", gpus=[]))
        self.assertIn("get pods,pvc,events -n rein", self.calls())


if __name__ == "__main__":
    unittest.main()
