"""Kubernetes manifests as data: what the tests of deploy/kustomize ask of them."""
import pathlib
import shutil
import subprocess
import sys

try:
    import yaml
except ImportError:
    yaml = None

ROOT = pathlib.Path(__file__).resolve().parents[2]
KUSTOMIZE = ROOT / "deploy/kustomize"
SKIPPED = 77  # what ctest shows as skipped
ROLES = ["controller", "trainer", "rollout", "reference", "reward"]
COMPONENT = "app.kubernetes.io/component"

# Which pods may reach which, and where: the whole list. None: every port.
EDGES = {("controller", role): {7000} for role in ROLES[1:]}
EDGES |= {(role, "controller"): {7000} for role in ROLES[1:]}
EDGES |= {(a, b): None for a, b in [("trainer", "trainer"), ("trainer", "rollout"), ("trainer", "reference"),
                                    ("rollout", "trainer"), ("reference", "trainer")]}
EDGES |= {("reward", "reference"): {7000}}
EDGES |= {(role, "scorer"): {7000} for role in ("controller", "reward", "trainer")}  # users' environments, scorers, losses
OUTSIDE = {("monitoring", role): {7080} for role in ROLES} | {("clients", "controller"): {7000, 7080}}


def skip_without_tools():
    """Ends the process as skipped, and says so, where manifests cannot be rendered."""
    missing = [tool for tool, there in (("kubectl", shutil.which("kubectl")), ("python3-yaml", yaml)) if not there]
    if missing:
        print(f"SKIPPED: the manifests were NOT checked: {' and '.join(missing)} missing", file=sys.stderr)
        sys.exit(SKIPPED)


def render(folder):
    run = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout


def objects_of(text):
    return [item for item in yaml.safe_load_all(text) if item]


def pods_of(item):
    """(name, pod template, replicas) of each pod template in an object."""
    kind, name, spec = item["kind"], item["metadata"]["name"], item.get("spec", {})
    if kind in ("StatefulSet", "Deployment"):
        yield name, spec["template"], spec.get("replicas", 1)
    elif kind == "JobSet":
        for job in spec["replicatedJobs"]:
            inner = job["template"]["spec"]
            yield job["name"], inner["template"], inner.get("parallelism", 1) * job.get("replicas", 1)
    elif kind == "LeaderWorkerSet":
        group = spec["leaderWorkerTemplate"]
        yield name, group["workerTemplate"], group["size"] * spec.get("replicas", 1)


def containers_of(template):
    return template["spec"].get("initContainers", []) + template["spec"]["containers"]


def selects(selector, labels):
    if not all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for term in selector.get("matchExpressions", []):
        value, wanted = labels.get(term["key"]), term.get("values", [])
        if not {"In": value in wanted, "NotIn": value not in wanted, "Exists": value is not None,
                "DoesNotExist": value is None}[term["operator"]]:
            return False
    return True


class Network:
    """What NetworkPolicies let through: whether a pod, or a namespace outside, reaches a port of a pod."""

    def __init__(self, policies):
        self.policies = policies

    def allows(self, source, target, port):
        """`source` and `target`: {"labels", "namespace_labels", "ports": {name: number}}."""
        return (self._side("Egress", source, target, port) and self._side("Ingress", target, source, port))

    def _side(self, direction, pod, peer, port):
        if pod.get("outside"):
            return True
        rules_key, peers_key = ("egress", "to") if direction == "Egress" else ("ingress", "from")
        named = pod if direction == "Ingress" else peer
        bound = [p for p in self.policies
                 if selects(p["spec"]["podSelector"], pod["labels"]) and direction in p["spec"]["policyTypes"]]
        if not bound:
            return True
        return any(self._rule(rule, peers_key, peer, port, named) for p in bound for rule in p["spec"].get(rules_key, []))

    @staticmethod
    def _rule(rule, peers_key, peer, port, named):
        ports = rule.get("ports")
        if ports and not any(one["port"] == port or named["ports"].get(one["port"]) == port for one in ports):
            return False
        peers = rule.get(peers_key)
        if not peers:
            return True
        for one in peers:
            space = one.get("namespaceSelector")
            if space is None and peer.get("outside"):
                continue
            if space is not None and not selects(space, peer["namespace_labels"]):
                continue
            if selects(one.get("podSelector", {}), peer["labels"]):
                return True
        return False
