"""Validates rendered manifests against the schemas of Kubernetes, and checks that they agree with each other.

Usage: check.py FILE SERVICEMONITOR_SCHEMA. kubernetes-validate contains the schemas. A ServiceMonitor is not part of
Kubernetes; the members that we use have a handwritten schema.
"""

import copy
import json
import sys

import jsonschema
import kubernetes_validate
import yaml

# The oldest supported version, one in between, and the newest with a schema.
VERSIONS = ("1.28", "1.32", kubernetes_validate.latest_version())


def check(document, monitor):
    """Raises if a document does not match its schema. Fields unknown to the schema are errors."""
    if document["kind"] == "ServiceMonitor":
        jsonschema.Draft202012Validator(monitor).validate(document)
        return
    for version in VERSIONS:
        kubernetes_validate.validate(document, version, strict=True)


def refused(document, monitor):
    try:
        check(document, monitor)
    except jsonschema.ValidationError:
        return True
    return False


def spoilt(by_kind):
    """Manifests with typical mistakes; the schemas must refuse each."""

    def broken(kind, change):
        document = copy.deepcopy(by_kind[kind])
        change(document)
        return document

    def container(document):
        return document["spec"]["template"]["spec"]["containers"][0]

    yield "hostPid", broken("DaemonSet", lambda d: d["spec"]["template"]["spec"].update(hostPid=True))
    yield "no selector", broken("DaemonSet", lambda d: d["spec"].pop("selector"))
    yield "capabilities as text", broken(
        "DaemonSet", lambda d: container(d)["securityContext"]["capabilities"].update(add="BPF")
    )
    yield "a misspelt mount", broken("DaemonSet", lambda d: container(d)["volumeMounts"][0].update(readonly=True))
    yield "a port that is none", broken("Service", lambda d: d["spec"]["ports"][0].update(port="metrics"))
    yield "a misspelt policy", broken("NetworkPolicy", lambda d: d["spec"].update(policytypes=["Ingress"]))
    if "ServiceMonitor" in by_kind:
        yield "a misspelt endpoint", broken("ServiceMonitor", lambda d: d["spec"]["endpoints"][0].update(ports="metrics"))


def selects(selector, labels):
    return bool(selector) and all(labels.get(name) == value for name, value in selector.items())


def belongs_together(by_kind):
    """Checks beyond the schemas: selectors match, and referenced names exist."""
    pod = by_kind["DaemonSet"]["spec"]["template"]
    labels = pod["metadata"]["labels"]
    container = pod["spec"]["containers"][0]
    ports = {port["name"] for port in container["ports"]}
    service = by_kind["Service"]
    yield "the DaemonSet selects its pods", selects(by_kind["DaemonSet"]["spec"]["selector"]["matchLabels"], labels)
    yield "the Service selects the pods", selects(service["spec"]["selector"], labels)
    yield "the Service's port is one of the pod", service["spec"]["ports"][0]["targetPort"] in ports
    policy = by_kind["NetworkPolicy"]["spec"]
    yield "the policy selects the pods", selects(policy["podSelector"]["matchLabels"], labels)
    yield "the policy's port is one of the pod", policy["ingress"][0]["ports"][0]["port"] in ports
    yield "the service account exists", pod["spec"]["serviceAccountName"] == by_kind["ServiceAccount"]["metadata"]["name"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        yield f"{probe} asks a port of the pod", container[probe]["httpGet"]["port"] in ports
    for probe in ("startupProbe", "livenessProbe"):
        # A pod that is not ready because nothing can be attached on its node must not be restarted.
        yield f"{probe} does not ask whether it is ready", container[probe]["httpGet"]["path"] == "/-/healthy"
    yield "readiness is asked for", container["readinessProbe"]["httpGet"]["path"] == "/-/ready"
    yield "a pod that is not ready is scraped", service["spec"].get("publishNotReadyAddresses") is True
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    yield "every mount has its volume", {mount["name"] for mount in container["volumeMounts"]} == volumes
    yield "every mount is read-only", all(mount.get("readOnly") for mount in container["volumeMounts"])
    listen = [argument for argument in container["args"] if argument.startswith("--listen=")]
    yield "it listens at its port", listen == [f"--listen=0.0.0.0:{container['ports'][0]['containerPort']}"]
    namespace = by_kind["Namespace"]["metadata"]["name"]
    others = [document for kind, document in by_kind.items() if kind != "Namespace"]
    yield "all are in the namespace", all(document["metadata"]["namespace"] == namespace for document in others)
    if "ServiceMonitor" in by_kind:
        monitor = by_kind["ServiceMonitor"]["spec"]
        yield "the monitor selects the Service", selects(
            monitor["selector"]["matchLabels"], service["metadata"]["labels"]
        )
        names = {port["name"] for port in service["spec"]["ports"]}
        yield "the monitor's port is one of the Service", monitor["endpoints"][0]["port"] in names


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        documents = [document for document in yaml.safe_load_all(file) if document]
    with open(sys.argv[2], encoding="utf-8") as file:
        monitor = json.load(file)
    complaints = []
    for document in documents:
        name = f"{document['kind']} {document['metadata']['name']}"
        try:
            check(document, monitor)
            print(f"{name}: valid")
        except jsonschema.ValidationError as error:
            complaints.append(f"{name}: {'.'.join(map(str, error.path))}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            complaints.append(f"{name}: {error.message}")
    by_kind = {document["kind"]: document for document in documents}
    if len(by_kind) != len(documents):
        complaints.append("two documents of one kind: this check supports one of each")
    complaints += [f"violated: {what}" for what, is_so in belongs_together(by_kind) if not is_so]
    complaints += [f"accepted although broken: {what}" for what, doc in spoilt(by_kind) if not refused(doc, monitor)]
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints or not documents else 0


if __name__ == "__main__":
    sys.exit(main())
