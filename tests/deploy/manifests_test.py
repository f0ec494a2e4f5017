#!/usr/bin/env python3
"""Checks what deploy/kustomize renders, without a cluster: every reference, every convention, every edge.

    manifests_test.py BIN_FOLDER

Command lines are given to the real binaries with --check, certificates and all.
"""
import collections
import copy
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import manifests
from manifests import COMPONENT, EDGES, KUSTOMIZE, OUTSIDE, ROLES, Network, containers_of, objects_of, pods_of, render, selects

manifests.skip_without_tools()
import component_renderings  # noqa: E402  (yaml is there, or the line above has ended the process)

BIN = pathlib.Path(sys.argv.pop(1)).resolve()
OVERLAYS = sorted(path.name for path in (KUSTOMIZE / "overlays").iterdir())
GPU = "nvidia.com/gpu"
DEVICES = {GPU, "rdma/ib"}
PRIVILEGED_COMPONENTS = {"rdma-infiniband"}  # says so, and opens its namespace


class Rendered:
    """All objects of one rendering."""

    def __init__(self, name, text):
        self.name, self.text, self.objects = name, text, objects_of(text)
        self.pods = [pod for item in self.objects for pod in pods_of(item)]

    def of(self, kind):
        return [item for item in self.objects if item["kind"] == kind]

    def names(self, kind):
        return {item["metadata"]["name"] for item in self.of(kind)}


ALL = [Rendered(name, render(KUSTOMIZE / "overlays" / name)) for name in OVERLAYS]
ALL += [Rendered(name, text) for name, text in component_renderings.all()]


class ManifestsTest(unittest.TestCase):
    where = ""

    def _formatMessage(self, message, standard):
        return super()._formatMessage(f"{self.where}: {message}", standard)

    def each(self):
        for rendered in ALL:
            self.where = rendered.name
            yield rendered

    def each_pod(self):
        for rendered in self.each():
            for name, template, _ in rendered.pods:
                self.where = f"{rendered.name}, pod {name}"
                yield rendered, name, template

    def test_all_overlays_and_components_are_there(self):
        self.assertEqual(OVERLAYS, ["batch-jobset", "cpu-dev", "multi-gpu-node", "multi-node", "single-gpu"])
        self.assertGreaterEqual(len(component_renderings.COMPONENTS), 10)
        self.assertTrue(all(rendered.pods for rendered in ALL))

    def test_names_are_unique_and_in_the_namespace(self):
        for rendered in self.each():
            seen = collections.Counter((i["apiVersion"], i["kind"], i["metadata"]["name"]) for i in rendered.objects)
            self.assertEqual([key for key, count in seen.items() if count > 1], [])
            for item in rendered.objects:
                if item["kind"] not in ("Namespace", "PersistentVolume"):
                    self.assertEqual(item["metadata"].get("namespace"), "rein", item["metadata"]["name"])

    def test_selectors_meet_their_pods(self):
        for rendered in self.each():
            labels = [template["metadata"]["labels"] for _, template, _ in rendered.pods]
            for item in rendered.of("StatefulSet"):
                own = item["spec"]["template"]["metadata"]["labels"]
                self.assertTrue(selects(item["spec"]["selector"], own), item["metadata"]["name"])
                others = [l for l in labels if l is not own and selects(item["spec"]["selector"], l)]
                self.assertEqual(others, [], f"{item['metadata']['name']} selects the pods of another set")
            for item in rendered.of("Service"):
                hit = [l for l in labels if selects({"matchLabels": item["spec"]["selector"]}, l)]
                if item["metadata"]["name"] == "trainer" and rendered.name == "component lws":
                    self.assertEqual(len(hit), 1)
                self.assertEqual(len({l[COMPONENT] for l in hit}), 1, item["metadata"]["name"])
            for item in rendered.of("PodDisruptionBudget"):
                self.assertTrue(any(selects(item["spec"]["selector"], l) for l in labels), item["metadata"]["name"])
            for item in rendered.of("HorizontalPodAutoscaler") + rendered.of("ScaledObject"):
                target = item["spec"]["scaleTargetRef"]
                self.assertIn(target["name"], rendered.names(target["kind"]))

    def test_services_and_probes_name_ports_that_are_there(self):
        for rendered in self.each():
            for service in rendered.of("Service"):
                for _, template, _ in rendered.pods:
                    if not selects({"matchLabels": service["spec"]["selector"]}, template["metadata"]["labels"]):
                        continue
                    ports = {p["name"] for c in containers_of(template) for p in c.get("ports", [])}
                    for port in service["spec"]["ports"]:
                        self.assertIn(port["targetPort"], ports, service["metadata"]["name"])
            for name, template, _ in rendered.pods:
                for container in containers_of(template):
                    ports = {p["name"]: p["containerPort"] for p in container.get("ports", [])}
                    probes = [container[k] for k in ("startupProbe", "livenessProbe", "readinessProbe") if k in container]
                    self.assertEqual(len(probes), 0 if name == "submit" else 3, name)
                    for probe in probes:
                        self.assertIn(probe["httpGet"]["port"], ports)
                        self.assertEqual(probe["httpGet"]["scheme"], "HTTPS")
                    if probes:
                        start = container["startupProbe"]
                        self.assertGreaterEqual(start["periodSeconds"] * start["failureThreshold"], 2700)
                        self.assertGreaterEqual(container["livenessProbe"]["timeoutSeconds"], 5)
                    for flag, port in (("--listen", "grpc"), ("--admin", "admin")):
                        given = [a for a in container.get("args", []) if a.startswith(flag + "=")]
                        self.assertEqual(given, [f"{flag}=0.0.0.0:{ports[port]}"] if ports else [], name)

    def test_volumes_claims_secrets_and_settings_exist(self):
        for rendered in self.each():
            claims, maps = rendered.names("PersistentVolumeClaim"), rendered.names("ConfigMap")
            for item in rendered.objects:
                templates = {t["metadata"]["name"] for t in item.get("spec", {}).get("volumeClaimTemplates", [])} \
                    if item["kind"] == "StatefulSet" else set()
                for name, template, _ in pods_of(item):
                    volumes = {v["name"]: v for v in template["spec"].get("volumes", [])}
                    mounted = set()
                    for container in containers_of(template):
                        for mount in container.get("volumeMounts", []):
                            self.assertIn(mount["name"], set(volumes) | templates, name)
                            mounted.add(mount["name"])
                        paths = [m["mountPath"] for m in container.get("volumeMounts", [])]
                        self.assertEqual(len(paths), len(set(paths)), name)
                        for source in container.get("envFrom", []):
                            self.assertIn(source["configMapRef"]["name"], maps, name)
                    self.assertEqual(set(volumes) - mounted, set(), f"{name} mounts them nowhere")
                    for volume in volumes.values():
                        if "persistentVolumeClaim" in volume:
                            self.assertIn(volume["persistentVolumeClaim"]["claimName"], claims, name)
                        if "configMap" in volume:
                            self.assertIn(volume["configMap"]["name"], maps, name)
                        if volume.get("emptyDir", {}).get("medium") == "Memory":
                            self.assertIn("sizeLimit", volume["emptyDir"])
            for item in rendered.of("Secret"):
                self.fail(f"a Secret with values stands in the manifests: {item['metadata']['name']}")

    def test_pods_are_restricted(self):
        for rendered, name, template in self.each_pod():
            spec = template["spec"]
            self.assertIs(spec["automountServiceAccountToken"], False)
            self.assertEqual(spec["serviceAccountName"], "rein")
            self.assertIs(spec["securityContext"]["runAsNonRoot"], True)
            self.assertGreater(spec["securityContext"]["runAsUser"], 0)
            self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
            self.assertEqual(spec["securityContext"]["fsGroupChangePolicy"], "OnRootMismatch")
            for key in ("hostNetwork", "hostPID", "hostIPC"):
                self.assertNotIn(key, spec)
            self.assertFalse([v for v in spec["volumes"] if "hostPath" in v])
            for container in containers_of(template):
                security = container["securityContext"]
                self.assertIs(security["allowPrivilegeEscalation"], False)
                self.assertIs(security["readOnlyRootFilesystem"], True)
                self.assertEqual(security["capabilities"]["drop"], ["ALL"])
                if not any(one in rendered.name for one in PRIVILEGED_COMPONENTS):
                    self.assertNotIn("add", security["capabilities"])
                self.assertIn("/tmp", [m["mountPath"] for m in container["volumeMounts"]])
        for rendered in self.each():
            level = rendered.of("Namespace")[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
            opened = any(one in rendered.name for one in PRIVILEGED_COMPONENTS)
            self.assertEqual(level, "privileged" if opened else "restricted")

    def test_resources_images_and_grace(self):
        grace = {"trainer": 600, "rollout": 120, "rein": 120}
        for _, name, template in self.each_pod():
            self.assertEqual(template["spec"]["terminationGracePeriodSeconds"], grace.get(name, 30))
            for container in containers_of(template):
                resources = container["resources"]
                self.assertIn("cpu", resources["requests"])
                self.assertIn("memory", resources["requests"])
                self.assertIn("memory", resources["limits"])
                for device in DEVICES:
                    self.assertEqual(resources["requests"].get(device), resources["limits"].get(device))
                if resources["limits"].get(GPU):
                    self.assertEqual(resources["requests"], resources["limits"], "a GPU pod is Guaranteed")
                    self.assertIn(GPU, [t["key"] for t in template["spec"]["tolerations"]])
                self.assertRegex(container["image"], r"^[\w./-]+:\d+\.\d+\.\d+$")

    def test_every_object_is_labelled(self):
        for rendered in self.each():
            for item in rendered.objects:
                if item["apiVersion"].split("/")[0] in ("v1", "apps", "policy", "networking.k8s.io"):
                    if item["kind"] not in ("PersistentVolume",) and item["metadata"]["name"] not in ("models",):
                        self.assertEqual(item["metadata"].get("labels", {}).get("app.kubernetes.io/part-of"), "rein",
                                         f"{item['kind']} {item['metadata']['name']}")

    def test_budgets_and_spread(self):
        rendered = next(r for r in ALL if r.name == "multi-node")
        budgets = {b["metadata"]["name"]: b["spec"] for b in rendered.of("PodDisruptionBudget")}
        self.assertEqual(budgets["trainer"]["maxUnavailable"], 0)
        self.assertEqual(budgets["rollout"]["maxUnavailable"], "25%")
        self.assertTrue(all(b["unhealthyPodEvictionPolicy"] == "AlwaysAllow" for b in budgets.values()))
        self.assertNotIn("controller", budgets)
        for name, template, _ in rendered.pods:
            if name in ("rollout", "reward"):
                spread = template["spec"]["topologySpreadConstraints"][0]
                self.assertTrue(selects(spread["labelSelector"], template["metadata"]["labels"]))
        for service in rendered.of("Service"):
            if service["metadata"]["name"] != "controller":
                self.assertEqual(service["spec"]["clusterIP"], "None")
                self.assertIs(service["spec"]["publishNotReadyAddresses"], True)

    def test_two_controllers_share_a_store_and_may_be_drained_one_by_one(self):
        rendered = next(r for r in ALL if r.name == "component postgres-store")
        controller = next(i for i in rendered.of("StatefulSet") if i["metadata"]["name"] == "controller")
        budget = next(b["spec"] for b in rendered.of("PodDisruptionBudget") if b["metadata"]["name"] == "controller")
        pod = controller["spec"]["template"]["spec"]
        self.assertEqual(controller["spec"]["replicas"], 2)
        self.assertEqual(budget["maxUnavailable"], 1)
        self.assertNotIn("volumeClaimTemplates", controller["spec"])
        self.assertTrue(selects(pod["topologySpreadConstraints"][0]["labelSelector"],
                                controller["spec"]["template"]["metadata"]["labels"]))
        # The one that waits is ready, or no budget would let the one that leads go, and no update would end.
        self.assertEqual(pod["containers"][0]["readinessProbe"]["httpGet"]["path"], "/healthz")
        args = pod["containers"][0]["args"]
        self.assertIn("--state=/shared/controller", args)
        self.assertFalse([a for a in args if "password" in a and not a.startswith("--store-password-file=/etc/rein/store/")])
        self.assertEqual([v["secret"]["secretName"] for v in pod["volumes"] if v["name"] == "store"], ["rein-store"])

    def test_ranks_and_their_addresses(self):
        for rendered in self.each():
            for name, template, replicas in rendered.pods:
                args = containers_of(template)[0].get("args", [])
                peers = [a for a in args if a.startswith("--peers=")]
                if name != "trainer":
                    self.assertEqual(peers, [])
                    continue
                self.assertEqual(len(peers[0].split(",")) if peers else 0, replicas - 1)
                self.assertEqual([a for a in args if a.startswith("--rank=")] != [], replicas > 1)

    def test_the_network_is_the_list_of_edges(self):
        for rendered in self.each():
            network = Network(rendered.of("NetworkPolicy"))
            pods = {}
            for name, template, _ in rendered.pods:
                ports = {p["name"]: p["containerPort"] for c in containers_of(template) for p in c.get("ports", [])}
                pods[template["metadata"]["labels"][COMPONENT]] = {
                    "labels": template["metadata"]["labels"], "ports": ports, "namespace_labels": {}}
            if "trainer" in pods:
                pods["scorer"] = {"labels": {COMPONENT: "scorer"}, "ports": {}, "namespace_labels": {}}
            pods["stranger"] = {"labels": {}, "ports": {}, "namespace_labels": {}}
            outside = {
                "monitoring": {"kubernetes.io/metadata.name": "monitoring"}, "clients": {"rein-clients": "allowed"},
                "elsewhere": {"kubernetes.io/metadata.name": "default"}, "internet": {}}
            outside["database"] = {"rein-database": "allowed"}
            edges = dict(EDGES) | OUTSIDE
            if "submit" in pods:
                edges[("submit", "controller")] = {7000}
            for target_name, target in pods.items():
                for source_name in list(pods) + list(outside):
                    source = pods.get(source_name) or {"labels": {}, "namespace_labels": outside[source_name],
                                                       "ports": {}, "outside": True}
                    for port in (22, 53, 443, 7000, 7080, 8000, 41234):
                        allowed = edges.get((source_name, target_name), set())
                        if source_name in outside and (source_name, target_name) not in edges:
                            allowed = set()
                        wanted = allowed is None or port in allowed
                        self.assertEqual(network.allows(source, target, port), wanted,
                                         f"{source_name} -> {target_name}:{port}")
            dns = {"labels": {"k8s-app": "kube-dns"}, "ports": {}, "outside": True,
                   "namespace_labels": {"kubernetes.io/metadata.name": "kube-system"}}
            world = {"labels": {}, "ports": {}, "outside": True, "namespace_labels": {}}
            for name, pod in pods.items():
                self.assertTrue(network.allows(pod, dns, 53), name)
                self.assertFalse(network.allows(pod, dns, 443), name)
                self.assertFalse(network.allows(pod, world, 443), f"{name} reaches the world")
                database = {"labels": {}, "ports": {}, "outside": True, "namespace_labels": {"rein-database": "allowed"}}
                wanted = name == "controller" and rendered.name == "component postgres-store"
                self.assertEqual(network.allows(pod, database, 5432), wanted, f"{name} -> database")
                self.assertFalse(network.allows(pod, database, 22) or network.allows(pod, world, 5432), name)

    def test_certificates_cover_the_names_that_are_called(self):
        rendered = next(r for r in ALL if r.name == "component tls-cert-manager")
        certificates = {c["spec"]["secretName"]: c["spec"] for c in rendered.of("Certificate")}
        for one in ALL:
            for name, template, _ in one.pods:
                for container in containers_of(template):
                    role = pathlib.Path(container["command"][0]).name.removeprefix("rein-")
                    for arg in container.get("args", []):
                        found = re.match(r"--(advertise|controller|peers|server)=(.*)", arg)
                        if not found:
                            continue
                        called = "controller" if found[1] in ("controller", "server") else \
                            "trainer" if found[1] == "peers" else role
                        names = certificates[f"rein-{called}-tls"]["dnsNames"]
                        for address in found[2].split(","):
                            host = re.sub(r"\$\(\w+\)", "x", address.replace("$(POD_NAMESPACE)", "rein")).split(":")[0]
                            covered = any(host == n or (n[:2] == "*." and host.split(".", 1)[1] == n[2:]) for n in names)
                            self.assertTrue(covered, f"{one.name} {name}: {host} is none of {names}")

    def test_the_batch_pods_are_those_of_the_base(self):
        base = {name: template for name, template, _ in Rendered("base", render(KUSTOMIZE / "base")).pods}
        batch = next(r for r in ALL if r.name == "batch-jobset")
        for name, template, _ in batch.pods:
            if name == "submit":
                continue
            mine, theirs = copy.deepcopy(template["spec"]), copy.deepcopy(base[name]["spec"])
            self.assertEqual(mine.pop("restartPolicy"), "OnFailure")
            for spec in (mine, theirs):  # what a JobSet names otherwise, and a run to its end does not need
                container = spec["containers"][0]
                container["args"] = [a for a in container["args"] if a.split("=")[0] not in
                                     ("--advertise", "--controller", "--tokens", "--state")]
                container["env"] = [e for e in container["env"] if e["name"] not in ("POD_HOST", "JOB_COMPLETION_INDEX")]
                container.pop("lifecycle", None)
                for key, holder in (("volumeMounts", container), ("volumes", spec)):
                    holder[key] = sorted((v for v in holder[key] if v["name"] not in ("state", "tokens")),
                                         key=lambda v: v["name"])
            self.assertEqual(mine, theirs, name)


class CommandLinesTest(unittest.TestCase):
    """Every container's command line, given to the real binary."""

    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        rein = BIN / "rein"
        subprocess.run([rein, "certs", "init", "--dir", cls.folder / "certs", "--namespace", "rein",
                        "--user", "batch:submitter"], check=True, capture_output=True)
        (cls.folder / "password").write_text("of the database\n")
        subprocess.run([rein, "token", "add", "ada", "--file", cls.folder / "tokens.json"], check=True, capture_output=True)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def command(self, rendered, item_name, template, container):
        """Its arguments, with the variables and the mounts that the pod would have."""
        maps = {m["metadata"]["name"]: m["data"] for m in rendered.of("ConfigMap")}
        values = {"POD_NAME": f"{item_name}-0", "POD_NAMESPACE": "rein", "POD_INDEX": "0", "LWS_WORKER_INDEX": "0",
                  "JOB_COMPLETION_INDEX": "0"}
        for source in container.get("envFrom", []):
            values |= maps[source["configMapRef"]["name"]]
        for variable in container.get("env", []):
            if "value" in variable:
                values[variable["name"]] = self.expand(variable["value"], values)
        program = pathlib.PurePosixPath(container["command"][0])
        self.assertEqual(str(program.parent), "/opt/rein")
        arguments = container["command"][1:] + container.get("args", [])
        arguments = [self.expand(argument, values) for argument in arguments]
        secrets = {v["name"]: v for v in template["spec"]["volumes"]}
        role = program.name.removeprefix("rein-")
        user = "user/batch" if "submit" in arguments else "" if role == "rein" else role
        mounts = {"/etc/rein/tls": self.folder / "certs" / user, "/etc/rein/tokens": self.folder,
                  "/etc/rein/job": self.folder, "/shared": self.folder, "/var/lib/rein": self.folder,
                  "/etc/rein/store": self.folder}
        for mount in container["volumeMounts"]:
            path = mount["mountPath"]
            for i, argument in enumerate(arguments):
                if path in mounts and f"={path}" in argument:  # the folder itself may lie in /tmp
                    arguments[i] = argument.replace(path, str(mounts[path]))
        for argument in arguments:
            value = argument.partition("=")[2]
            if value.startswith("/"):
                self.assertTrue(value.startswith(str(self.folder)), f"{argument} lies on no volume")
        self.assertIn("tls", secrets)
        return [BIN / program.name, *arguments]

    def expand(self, text, values):
        for name in re.findall(r"\$\((\w+)\)", text):
            self.assertIn(name, values, text)
        return re.sub(r"\$\((\w+)\)", lambda m: values[m[1]], text)

    def test_every_command_line_is_taken(self):
        checked = collections.Counter()
        for rendered in ALL:
            for name, template, _ in rendered.pods:
                for container in containers_of(template):
                    with self.subTest(rendered.name, pod=name):
                        command = self.command(rendered, name, template, container)
                        environment = dict(os.environ, REIN_HOME=str(self.folder / "home"))
                        environment.pop("REIN_SERVER", None)
                        if "submit" in command:  # all it needs but a controller
                            job = next(m["data"]["job.yaml"] for m in rendered.of("ConfigMap") if "job.yaml" in m["data"])
                            (self.folder / "job.yaml").write_text(job)
                            command[1] = "--server=localhost:9"
                            run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
                            self.assertEqual(run.returncode, 7, run.stderr)
                        else:
                            run = subprocess.run([*command, "--check"], env=environment, capture_output=True, text=True,
                                                 timeout=60)
                            self.assertEqual(run.returncode, 0, f"{command}\n{run.stdout}{run.stderr}")
                            self.assertIn("flags and files are good", run.stdout)
                        checked[pathlib.Path(command[0]).name] += 1
        self.assertEqual(set(checked), {"rein", *(f"rein-{role}" for role in ROLES)})

    def test_a_wrong_flag_would_be_found(self):
        for flags in (["--listne=0.0.0.0:7000"], ["--listen=0.0.0.0:99999"], ["--listen=0.0.0.0:7000"],
                      ["--tls=/nowhere"], ["--device=gpu"], ["--controller=controller"]):
            run = subprocess.run([BIN / "rein-reward", *flags, "--check"], capture_output=True, text=True, timeout=60)
            self.assertIn(run.returncode, (2, 3), f"{flags}: {run.stdout}{run.stderr}")
        for flags, code in ((["--rank=1", "--peers=a:1"], 0), (["--rank=2", "--peers=a:1"], 3), (["--rank=-1"], 2), (["--rank=1"], 3)):
            run = subprocess.run([BIN / "rein-trainer", *flags, "--check"], capture_output=True, text=True, timeout=60)
            self.assertEqual(run.returncode, code, f"{flags}: {run.stdout}{run.stderr}")


class NetworkModelTest(unittest.TestCase):
    """The model of policies itself: what it must tell apart."""

    def test_a_missing_and_an_extra_rule_are_found(self):
        policies = next(r for r in ALL if r.name == "multi-node").of("NetworkPolicy")
        pod = lambda role: {"labels": {COMPONENT: role}, "ports": {"grpc": 7000, "admin": 7080}, "namespace_labels": {}}
        reach = lambda rules, a, b, port=7000: Network(rules).allows(pod(a), pod(b), port)
        self.assertTrue(reach(policies, "controller", "trainer"))
        self.assertFalse(reach(policies, "reward", "trainer"))
        without = [p for p in policies if p["metadata"]["name"] != "actors"]
        self.assertFalse(reach(without, "controller", "reward"))
        self.assertTrue(reach([], "reward", "trainer"), "without a policy everything is open")
        wider = copy.deepcopy(policies)
        for policy in wider:
            if policy["metadata"]["name"] == "default-deny":
                policy["spec"]["ingress"] = policy["spec"]["egress"] = [{}]
        self.assertTrue(reach(wider, "reward", "trainer"))


if __name__ == "__main__":
    unittest.main()
