"""Renderings of single components: the base, or one pod, with one component each."""
import pathlib
import tempfile

import yaml

from manifests import KUSTOMIZE, render

COMPONENTS = sorted(path.name for path in (KUSTOMIZE / "components").iterdir())


def with_component(name):
    base = "foundation" if name == "one-pod" else ""
    folder = pathlib.Path(tempfile.mkdtemp(dir=KUSTOMIZE, prefix=".check-"))
    try:
        (folder / "kustomization.yaml").write_text(yaml.safe_dump({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": "rein",
            "resources": [f"../base/{base}" if base else "../base"], "components": [f"../components/{name}"]}))
        return render(folder)
    finally:
        (folder / "kustomization.yaml").unlink()
        folder.rmdir()


def all():
    for name in COMPONENTS:
        yield f"component {name}", with_component(name)
