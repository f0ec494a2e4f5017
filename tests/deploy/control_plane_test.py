#!/usr/bin/env python3
"""Applies every overlay and component to a real Kubernetes control plane, by `rein deploy` as users do it.

    control_plane_test.py BIN_FOLDER

Wants what deploy/fetch_control_plane makes; skipped, and said so, without.
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import urllib.error

import manifests

manifests.skip_without_tools()
import yaml  # noqa: E402

import component_renderings  # noqa: E402
from control_plane import CACHE, GPU, ControlPlane, folder_of_programs  # noqa: E402

folder_of_programs()
BIN = pathlib.Path(sys.argv.pop(1)).resolve()
PODS = "/api/v1/namespaces/rein/pods"
BUDGETS = "/apis/policy/v1/namespaces/rein/poddisruptionbudgets"


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Reads a lone = as text, as Kubernetes does."""


Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)


def crds():
    """Those of the components, by name; what else lies beside them (patches, parts of charts) is left out."""
    found = {}
    for path in sorted((CACHE / "schemas/crds").glob("*.yaml")):
        for item in yaml.load_all(path.read_text(), Loader=Loader):
            if isinstance(item, dict) and item.get("kind") == "CustomResourceDefinition" and all(
                    v.get("schema", {}).get("openAPIV3Schema") for v in item.get("spec", {}).get("versions", [{}])):
                found[item["metadata"]["name"]] = item
    return found


def role_of(pod):
    return pod["metadata"]["labels"].get(manifests.COMPONENT)


class ControlPlaneTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        cls.plane = ControlPlane(cls.folder)
        cls.addClassCleanup(cls.plane.stop)
        # A cluster of two nodes that has nothing of ours.
        for name in ("node-0", "node-1"):
            cls.plane.add_node(name, cpu=128, memory="2Ti", gpus=8)
        cls.lacking = cls.rein("apply", "-k", "batch-jobset", code=3)
        cls.lacking_unasked = cls.rein("apply", "-k", "batch-jobset", "--yes", code=1)
        cls.plane.kubectl("delete", "namespace", "rein", "--ignore-not-found")
        # Now what deploy/README.md asks for.
        cls.plane.kubectl("apply", "--server-side", "-f", "-", given=yaml.dump_all(crds().values(), Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper)))
        cls.plane.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=120s")
        cls.plane.kubectl("apply", "-f", "-", given=json.dumps({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {
                "name": "played", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "rein.test/played", "volumeBindingMode": "Immediate"}))
        subprocess.run([BIN / "rein", "certs", "init", "--dir", cls.folder / "rein-certs", "--namespace", "rein", "--user", "batch:submitter"], check=True, capture_output=True)
        cls.secrets = subprocess.run([BIN / "rein", "certs", "secrets", "--dir", cls.folder / "rein-certs"], check=True, capture_output=True, text=True).stdout
        subprocess.run([BIN / "rein", "token", "add", "ada", "--role", "submitter", "--file", cls.folder / "tokens.json"], check=True, capture_output=True)

    @classmethod
    def rein(cls, *arguments, code=0):
        run = subprocess.run([BIN / "rein", "deploy", *arguments], env=cls.plane.environment, cwd=manifests.ROOT, capture_output=True,
                             text=True, timeout=300, stdin=subprocess.DEVNULL)
        assert run.returncode == code, f"rein deploy {arguments}: {run.returncode}\n{run.stdout}{run.stderr}"
        # An older kubectl than the server says so each time.
        return "".join(line for line in (run.stdout + run.stderr).splitlines(True) if not line.startswith("WARNING: version difference"))

    def setUp(self):
        self.plane.ready = True
        self.addCleanup(self.plane.kubectl, "delete", "namespace", "rein", "--ignore-not-found", "--timeout=150s")
        # As deploy/README.md says; the labels of the namespace come with the overlay.
        self.plane.kubectl("create", "namespace", "rein")
        self.plane.kubectl("apply", "-n", "rein", "-f", "-", given=self.secrets)
        self.plane.kubectl("create", "secret", "generic", "rein-tokens", "-n", "rein", f"--from-file={self.folder / 'tokens.json'}")

    def pods(self):
        return self.plane.items(PODS)

    def unready(self):
        return [p["metadata"]["name"] for p in self.pods()
                if not any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", []))]

    def until_ready(self, wanted):
        """Every pod that the manifests ask for, and no other, is bound to a node and ready."""
        counted = lambda: {role: sum(role_of(p) == role for p in self.pods()) for role in wanted}
        self.plane.wait(lambda: counted() == wanted and len(self.pods()) == sum(wanted.values()) and not self.unready(),
                        lambda: f"{counted()}, not ready: {self.unready()}")

    def apply(self, overlay):
        """Applied with nothing missing; the objects as rendered."""
        self.assertNotRegex(self.rein("apply", "-k", overlay), r"(?m)^missing ")
        rendered = manifests.objects_of(manifests.render(manifests.KUSTOMIZE / "overlays" / overlay))
        wanted = {}
        for item in rendered:
            for _, template, replicas in manifests.pods_of(item):
                role = template["metadata"]["labels"][manifests.COMPONENT]
                wanted[role] = wanted.get(role, 0) + replicas
        return rendered, wanted

    def why_pending(self, name):
        """What the scheduler says about a pod."""
        said = lambda: [c.get("message", "") for p in self.pods() if p["metadata"]["name"] == name
                        for c in p["status"].get("conditions", []) if c["type"] == "PodScheduled" and c["status"] == "False"]
        return self.plane.wait(said, f"a word about {name}")[0]

    def evict(self, name):
        """The HTTP status: 201, or 429 where a budget forbids it."""
        try:
            self.plane.call("POST", f"{PODS}/{name}/eviction", {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "rein"}})
            return 201
        except urllib.error.HTTPError as error:
            return error.code

    def check_running(self, rendered):
        """What a cluster makes of the objects, beyond taking them."""
        for pod in self.pods():
            sources = [s for v in pod["spec"]["volumes"] for s in v.get("projected", {}).get("sources", [])]
            self.assertFalse([s for s in sources if "serviceAccountToken" in s], f"{pod['metadata']['name']} holds a token of the API server")
        slices = self.plane.items("/apis/discovery.k8s.io/v1/namespaces/rein/endpointslices")
        for item in rendered:
            if item["kind"] == "Service":
                name, selector = item["metadata"]["name"], item["spec"]["selector"]
                chosen = {p["status"]["podIP"] for p in self.pods() if manifests.selects({"matchLabels": selector}, p["metadata"]["labels"])}
                mine = [s for s in slices if s["metadata"]["labels"]["kubernetes.io/service-name"] == name]
                self.assertEqual({a for s in mine for e in s["endpoints"] for a in e["addresses"]}, chosen, name)
                self.assertTrue(chosen, f"nothing answers for {name}")
                self.assertEqual({(p["name"], p["port"]) for s in mine for p in s["ports"]}, {("grpc", 7000), ("admin", 7080)}, name)
        for claim in self.plane.items("/api/v1/namespaces/rein/persistentvolumeclaims"):
            self.assertEqual(claim["status"]["phase"], "Bound", claim["metadata"]["name"])

    def test_a_cluster_that_lacks_something_is_told_what(self):
        self.assertIn("API group jobset.x-k8s.io: install what serves it, or leave its component out", self.lacking)
        self.assertIn("default storage class", self.lacking)
        self.assertIn("Secret rein/rein-batch-tls: rein certs init", self.lacking)
        self.assertIn("nothing was applied", self.lacking)
        self.assertIn('no matches for kind "JobSet"', self.lacking_unasked)

    def test_cpu_dev(self):
        rendered, wanted = self.apply("cpu-dev")
        self.until_ready(wanted)
        self.check_running(rendered)
        self.assertEqual(self.rein("diff", "-k", "cpu-dev"), "", "what was applied is what is there")
        self.assertIn("trainer-0", self.rein("status", "-k", "cpu-dev"))
        self.rein("delete", "-k", "cpu-dev", "--yes")
        self.plane.wait(lambda: not self.pods(), "no pod left")
        self.assertIn("shared", {c["metadata"]["name"] for c in self.plane.items("/api/v1/namespaces/rein/persistentvolumeclaims")})

    def test_multi_node(self):
        rendered, wanted = self.apply("multi-node")
        self.until_ready(wanted)
        self.check_running(rendered)
        nodes = {p["spec"]["nodeName"] for p in self.pods() if role_of(p) == "rollout"}
        self.assertEqual(nodes, {"node-0", "node-1"}, "the generators are spread")
        # Budgets as the manifests promise: the trainer never, a quarter of the generators, one scorer.
        allowed = lambda: {b["metadata"]["name"]: b.get("status", {}).get("disruptionsAllowed") for b in self.plane.items(BUDGETS)}
        self.plane.wait(lambda: allowed() == {"trainer": 0, "rollout": 1, "reward": 1}, lambda: str(allowed()))
        self.assertEqual(self.evict("trainer-0"), 429)
        self.plane.ready = False  # whatever comes in its place takes its time
        self.assertEqual(self.evict("rollout-0"), 201)
        self.plane.wait(lambda: allowed()["rollout"] == 0, lambda: str(allowed()))
        self.assertEqual(self.evict("rollout-1"), 429)
        self.plane.ready = True
        self.until_ready(wanted)
        # A drain takes what it may and waits for the trainer, which somebody has to pause.
        trainer = next(p for p in self.pods() if p["metadata"]["name"] == "trainer-0")
        text = self.plane.kubectl("drain", trainer["spec"]["nodeName"], "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=20s", code=1)
        self.assertRegex(text, r"trainer-\d.*violate the pod's disruption budget")
        self.assertIn("trainer-0", {p["metadata"]["name"] for p in self.pods()})
        self.plane.kubectl("uncordon", trainer["spec"]["nodeName"])
        self.until_ready(wanted)
        # More pods than there are GPUs.
        self.plane.kubectl("scale", "statefulset", "rollout", "-n", "rein", "--replicas=14")  # and 3 others on 16 GPUs
        unbound = lambda: [p["metadata"]["name"] for p in self.pods() if not p["spec"].get("nodeName")]
        self.plane.wait(lambda: len(self.pods()) == sum(wanted.values()) + 10 and len(unbound()) == 1, lambda: str(unbound()))
        self.assertIn(f"2 Insufficient {GPU}", self.why_pending(unbound()[0]))

    def test_one_gpu(self):
        rendered, wanted = self.apply("single-gpu")
        self.until_ready(wanted)
        self.check_running(rendered)

    def test_eight_gpus_fit_a_node_and_nine_do_not(self):
        rendered, wanted = self.apply("multi-gpu-node")
        self.until_ready(wanted)
        self.check_running(rendered)
        limits = [c["resources"]["limits"].get(GPU) for p in self.pods() for c in p["spec"]["containers"]]
        self.assertEqual(limits, ["8"])
        container = next(i for i in rendered if i["kind"] == "StatefulSet")["spec"]["template"]["spec"]["containers"][0]["name"]
        nine = {"spec": {"template": {"spec": {"containers": [{"name": container, "resources": {"limits": {GPU: "9"}, "requests": {GPU: "9"}}}]}}}}
        self.plane.kubectl("patch", "statefulset", "rein", "-n", "rein", "-p", json.dumps(nine))
        self.assertIn(f"2 Insufficient {GPU}", self.why_pending("rein-0"))

    def test_a_batch(self):
        rendered, wanted = self.apply("batch-jobset")
        batch = next(i for i in rendered if i["kind"] == "JobSet")
        self.assertEqual(self.plane.get("/apis/jobset.x-k8s.io/v1alpha2/namespaces/rein/jobsets/rein")["spec"]["replicatedJobs"][0]["name"],
                         batch["spec"]["replicatedJobs"][0]["name"])
        # JobSet's own controller is not here: its Jobs are made from the templates, as it would.
        for part in batch["spec"]["replicatedJobs"]:
            job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": f"rein-{part['name']}-0", "namespace": "rein"}, "spec": part["template"]["spec"]}
            self.plane.kubectl("create", "-f", "-", given=json.dumps(job))
        self.until_ready(wanted)
        self.check_running(rendered)

    def test_every_component_is_taken(self):
        self.apply_namespace()
        for name, text in component_renderings.all():
            with self.subTest(name):
                self.plane.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", given=text)
                for item in manifests.objects_of(text):  # whose pods only a controller would make
                    if item["kind"] == "LeaderWorkerSet":
                        for _, template, _ in manifests.pods_of(item):
                            self.make_pod(template, code=0)

    def apply_namespace(self):
        """As the overlays have it, with the pods' service account and nothing else."""
        wanted = [i for i in manifests.objects_of(manifests.render(manifests.KUSTOMIZE / "base/foundation")) if i["kind"] in ("Namespace", "ServiceAccount")]
        self.plane.kubectl("apply", "-f", "-", given=yaml.safe_dump_all(wanted))

    def make_pod(self, template, code):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": "rein", "labels": template["metadata"].get("labels", {})},
               "spec": template["spec"]}
        return self.plane.kubectl("create", "--dry-run=server", "-f", "-", given=json.dumps(pod), code=code)

    def test_what_a_cluster_must_refuse(self):
        self.apply_namespace()
        _, template, _ = next(p for i in manifests.objects_of(manifests.render(manifests.KUSTOMIZE / "base")) for p in manifests.pods_of(i) if p[0] == "rollout")
        self.make_pod(template, code=0)
        for change, says in (({"privileged": True, "allowPrivilegeEscalation": True}, "violates PodSecurity"), ({"allowPrivilegeEscalation": True}, "violates PodSecurity"),
                             ({"runAsUser": 0}, "violates PodSecurity")):
            worse = json.loads(json.dumps(template))
            worse["spec"]["containers"][0]["securityContext"] |= change
            self.assertIn(says, self.make_pod(worse, code=1), change)
        for overlay in ("cpu-dev", "multi-node"):  # a cluster's own check finds a key of another spelling
            text = manifests.render(manifests.KUSTOMIZE / "overlays" / overlay).replace("podSelector:", "podSelectr:", 1)
            self.assertRegex(self.plane.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", given=text, code=1),
                             r'unknown field "spec\.[\w.\[\]]*podSelectr')


if __name__ == "__main__":
    unittest.main()
