#!/usr/bin/env python3
"""Validates every rendering strictly: Kubernetes' own objects and, by their CRDs, those of the components.

    schema_test.py

Needs what deploy/fetch_schemas fetches; skipped, and said so, without it.
"""
import copy
import os
import pathlib
import subprocess
import sys

import manifests

CACHE = pathlib.Path(os.environ.get("REIN_CACHE", pathlib.Path.home() / ".cache/rein")) / "schemas"
VENV = CACHE / "venv/bin/python"
manifests.skip_without_tools()
if not VENV.exists():
    print("SKIPPED: the manifests were NOT validated against schemas: run deploy/fetch_schemas", file=sys.stderr)
    sys.exit(manifests.SKIPPED)
if "REIN_IN_VENV" not in os.environ:
    os.execve(VENV, [str(VENV), *sys.argv], dict(os.environ, REIN_IN_VENV="1"))

import unittest  # noqa: E402

import component_renderings  # noqa: E402
import jsonschema  # noqa: E402
import kubernetes_validate  # noqa: E402
import yaml  # noqa: E402

from manifests import KUSTOMIZE, objects_of, render  # noqa: E402

VERSION = "1.34"  # the newest that the package has of the ones the manifests are for


def strict(schema):
    """The schema of a CRD, with fields refused that it does not know (as a server prunes or refuses them)."""
    if not isinstance(schema, dict):
        return schema
    schema = {key: ([strict(one) for one in value] if isinstance(value, list) else strict(value) if isinstance(value, dict) else value)
              for key, value in schema.items() if not key.startswith("x-kubernetes-validations")}
    if "properties" in schema:
        schema["properties"] = {key: strict(value) for key, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            schema["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
        schema.pop("pattern", None)
        schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if schema.pop("nullable", False) and isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    return schema


def crds():
    known = {}
    for path in sorted((CACHE / "crds").glob("*.yaml")):
        try:
            documents = list(yaml.safe_load_all(path.read_text()))
        except yaml.YAMLError:
            continue  # a template
        for crd in documents:
            if not isinstance(crd, dict) or crd.get("kind") != "CustomResourceDefinition" or "spec" not in crd:
                continue
            for version in crd["spec"].get("versions", []) if "names" in crd["spec"] else []:
                schema = version.get("schema", {}).get("openAPIV3Schema")
                if schema:
                    schema = strict(schema)
                    schema["properties"] |= {"metadata": {"type": "object"}, "apiVersion": {"type": "string"}, "kind": {"type": "string"}}
                    known[(f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"])] = schema
    return known


CRDS = crds()


def problems(item):
    """What is wrong with an object; None when there is no schema for it."""
    key = (item["apiVersion"], item["kind"])
    if key in CRDS:
        return [f"{'.'.join(map(str, e.absolute_path))}: {e.message[:200]}"
                for e in jsonschema.Draft7Validator(CRDS[key]).iter_errors(item)]
    if "." in key[0].split("/")[0] and not key[0].split("/")[0].endswith(".k8s.io"):
        return None
    try:
        kubernetes_validate.validate(item, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [error.message]
    return []


class SchemaTest(unittest.TestCase):
    def renderings(self):
        for folder in sorted((KUSTOMIZE / "overlays").iterdir()):
            yield folder.name, render(folder)
        yield from component_renderings.all()

    def test_every_object_is_valid(self):
        unknown, seen = set(), set()
        for name, text in self.renderings():
            for item in objects_of(text):
                key = repr(item)
                if key in seen:
                    continue  # most objects are those of the base
                seen.add(key)
                found = problems(item)
                if found is None:
                    unknown.add((item["apiVersion"], item["kind"]))
                else:
                    self.assertEqual(found, [], f"{name}: {item['kind']} {item['metadata']['name']}")
        self.assertEqual(unknown, set(), "no schema for these")

    def test_mistakes_are_found(self):
        jobset = next(i for i in objects_of(render(KUSTOMIZE / "overlays/batch-jobset")) if i["kind"] == "JobSet")
        base = {i["kind"] + i["metadata"]["name"]: i for i in objects_of(render(KUSTOMIZE / "base"))}
        for item, change in ((jobset, lambda i: i["spec"].update(replicatedJob=[])),
                             (jobset, lambda i: i["spec"]["network"].update(enableDNSHostnames="yes")),
                             (base["StatefulSettrainer"], lambda i: i["spec"].update(replica=3)),
                             (base["StatefulSettrainer"], lambda i: i["spec"].update(replicas="three")),
                             (base["NetworkPolicyactors"], lambda i: i["spec"].update(policyType=[]))):
            broken = copy.deepcopy(item)
            change(broken)
            self.assertNotEqual(problems(broken), [])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
