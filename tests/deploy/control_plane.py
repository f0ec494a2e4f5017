"""A real Kubernetes control plane on this machine: etcd, API server, controller manager and scheduler. Nodes are objects whose
part a thread plays: it keeps their leases, says that bound pods are ready, lets deleted ones go, and makes volumes for claims.
No container runs."""
import json
import os
import pathlib
import shutil
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from ports import free_port  # noqa: E402

CACHE = pathlib.Path(os.environ.get("REIN_CACHE", pathlib.Path.home() / ".cache/rein"))
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
SKIPPED = 77
GPU = "nvidia.com/gpu"


def folder_of_programs():
    """Where deploy/fetch_control_plane put them; ends the process as skipped, and says so, without."""
    found = [f for f in sorted(CACHE.glob("kubernetes-*")) if all((f / name).exists() for name in PROGRAMS)]
    missing = ([] if found else ["Kubernetes"]) + [name for name in ("etcd", "kubectl", "openssl") if not shutil.which(name)]
    if not (CACHE / "schemas/crds").is_dir():
        missing.append("CRDs")
    if missing:
        print(f"SKIPPED: nothing was applied to a control plane: {', '.join(missing)} missing (deploy/fetch_control_plane)", file=sys.stderr)
        sys.exit(SKIPPED)
    return found[-1]


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())


class ControlPlane:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.programs = folder_of_programs()
        self.processes = []
        self.ready = True  # False: new pods stay unready
        self.stopping = threading.Event()
        self.nodes = []
        self.failed = None
        etcd, peer, self.port = free_port(), free_port(), free_port()
        for command in (["genrsa", "-out", "sa.key", "2048"], ["rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub"]):
            subprocess.run(["openssl", *command], cwd=self.folder, check=True, capture_output=True)
        self.token = os.urandom(16).hex()
        (self.folder / "tokens.csv").write_text(f'{self.token},admin,admin,"system:masters"\n')
        (self.folder / "tokens.csv").chmod(0o600)
        self.start("etcd", "etcd", "--data-dir", "etcd", "--listen-client-urls", f"http://127.0.0.1:{etcd}", "--unsafe-no-fsync",
                   "--advertise-client-urls", f"http://127.0.0.1:{etcd}", "--listen-peer-urls", f"http://127.0.0.1:{peer}")
        self.start("apiserver", self.programs / "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd}", "--cert-dir=certs",
                   f"--secure-port={self.port}", "--bind-address=127.0.0.1", "--authorization-mode=RBAC",
                   "--token-auth-file=tokens.csv", "--service-account-issuer=https://rein.test", "--service-account-key-file=sa.pub",
                   "--service-account-signing-key-file=sa.key", "--service-cluster-ip-range=10.0.0.0/16",
                   "--endpoint-reconciler-type=none", "--allow-privileged=true", "--advertise-address=127.0.0.1")
        self.wait(lambda: (self.folder / "certs/apiserver.crt").exists(), "the API server's certificate")
        self.tls = ssl.create_default_context(cafile=self.folder / "certs/apiserver.crt")
        self.wait(lambda: self.call("GET", "/readyz", text=True) == "ok", "the API server", 120)
        (self.folder / "kubeconfig").write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": f"https://127.0.0.1:{self.port}",
                                                      "certificate-authority": str(self.folder / "certs/apiserver.crt")}}],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}]}))
        self.environment = dict(os.environ, KUBECONFIG=str(self.folder / "kubeconfig"))
        common = ("--kubeconfig=kubeconfig", "--leader-elect=false", "--secure-port=0")
        self.start("controllers", self.programs / "kube-controller-manager", *common, "--service-account-private-key-file=sa.key")
        self.start("scheduler", self.programs / "kube-scheduler", *common)
        self.wait(lambda: self.get("/api/v1/namespaces/default/serviceaccounts/default"), "the controllers")
        self.thread = threading.Thread(target=self.play)
        self.thread.start()

    def start(self, name, *command):
        with open(self.folder / f"{name}.log", "w") as log:
            self.processes.append(subprocess.Popen(list(map(str, command)), cwd=self.folder, stdout=log, stderr=log))

    def stop(self):
        self.stopping.set()
        if hasattr(self, "thread"):
            self.thread.join()
        for process in reversed(self.processes):
            process.kill()
            process.wait()

    def wait(self, condition, what, seconds=180):
        end = time.time() + seconds
        while True:
            try:
                found = condition()
            except (urllib.error.URLError, ConnectionError):
                found = None
            if found:
                return found
            for process in self.processes:
                assert process.poll() is None, f"{process.args[0]} ended; see {self.folder}"
            assert self.failed is None, self.failed
            assert time.time() < end, f"{what} did not come: {what() if callable(what) else ''}"
            time.sleep(0.2)

    def call(self, method, path, body=None, kind="application/json", text=False):
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}{path}", method=method,
                                         data=None if body is None else json.dumps(body).encode(),
                                         headers={"Authorization": f"Bearer {self.token}", "Content-Type": kind})
        with urllib.request.urlopen(request, context=self.tls, timeout=30) as answer:
            return answer.read().decode() if text else json.loads(answer.read())

    def get(self, path):
        """None where there is no such object."""
        try:
            return self.call("GET", path)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise

    def items(self, path):
        return (self.get(path) or {}).get("items", [])

    def kubectl(self, *arguments, code=0, given=None):
        run = subprocess.run(["kubectl", *arguments], env=self.environment, input=given, capture_output=True, text=True, timeout=300)
        assert run.returncode == code or code is None, f"kubectl {arguments}: {run.returncode}\n{run.stdout}{run.stderr}"
        return run.stdout + run.stderr

    def add_node(self, name, cpu, memory, gpus):
        room = {"cpu": str(cpu), "memory": memory, "pods": "110", "ephemeral-storage": "1Ti", **({GPU: str(gpus)} if gpus else {})}
        self.call("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}})
        self.call("PATCH", f"/api/v1/nodes/{name}/status", kind="application/merge-patch+json", body={"status": {
            "capacity": room, "allocatable": room, "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "Played", "lastHeartbeatTime": now(), "lastTransitionTime": now()}]}})
        lease = {"metadata": {"name": name}, "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now()}}
        self.call("POST", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", lease)
        self.nodes.append(name)
        self.wait(lambda: not self.get(f"/api/v1/nodes/{name}")["spec"].get("taints"), f"{name} without taints")

    def play(self):
        leased = 0
        while not self.stopping.wait(0.3):
            try:
                if time.time() - leased > 8:
                    leased = time.time()
                    for name in self.nodes:
                        self.call("PATCH", f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}",
                                  {"spec": {"renewTime": now()}}, "application/merge-patch+json")
                for claim in self.items("/api/v1/persistentvolumeclaims"):
                    self.make_volume(claim)
                for number, pod in enumerate(self.items("/api/v1/pods")):
                    self.run_pod(pod, number)
            except urllib.error.HTTPError as error:
                if error.code not in (404, 409):  # it changed or went meanwhile
                    self.failed = f"{error}: {error.read().decode()}"
                    return
            except (urllib.error.URLError, ConnectionError):
                pass  # a busy machine: again

    def make_volume(self, claim):
        name = "pv-" + claim["metadata"]["uid"]
        if claim["status"].get("phase") != "Pending" or self.get(f"/api/v1/persistentvolumes/{name}"):
            return
        self.call("POST", "/api/v1/persistentvolumes", {"metadata": {"name": name}, "spec": {
            "capacity": claim["spec"]["resources"]["requests"], "accessModes": claim["spec"]["accessModes"], "hostPath": {"path": "/nowhere"},
            "storageClassName": claim["spec"].get("storageClassName", ""), "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": claim["metadata"]["namespace"], "name": claim["metadata"]["name"], "uid": claim["metadata"]["uid"]}}})

    def run_pod(self, pod, number):
        meta, path = pod["metadata"], f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
        if not pod["spec"].get("nodeName"):
            return
        if meta.get("deletionTimestamp"):
            if pod["status"].get("phase") in ("Pending", "Running"):  # a Job's controller waits for an end
                self.call("PATCH", path + "/status", {"status": {"phase": "Failed"}}, "application/merge-patch+json")
            self.call("DELETE", path + "?gracePeriodSeconds=0")
        elif self.ready and pod["status"].get("phase") == "Pending":
            running = [{"name": c["name"], "ready": True, "started": True, "restartCount": 0, "image": c["image"], "imageID": "",
                        "state": {"running": {"startedAt": now()}}} for c in pod["spec"]["containers"]]
            conditions = [{"type": kind, "status": "True", "lastTransitionTime": now()}
                          for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")]
            address = f"10.244.{number // 250}.{number % 250 + 1}"
            self.call("PATCH", path + "/status", kind="application/merge-patch+json", body={"status": {
                "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "startTime": now(), "conditions": conditions,
                "containerStatuses": running}})
