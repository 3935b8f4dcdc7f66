"""What operators deploy, as data: the Kubernetes examples, the compose file, the Dockerfile."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from tablefeed.config import Settings, load

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "config/kubernetes"
COMPOSE = ROOT / "config/compose.yaml"
CONFIGURATION = "tablefeed.toml"
"""The file that the daemon looks for in /etc/tablefeed."""

WORKLOADS = ("CronJob", "Deployment", "Job", "Pod", "StatefulSet")
"""Kinds of objects that run pods."""
POD = "tablefeed-fleet-7d4b9c6f5d-x2x9q"
"""A name such as a Deployment's pods have."""

Document = dict[str, Any]


def documents(name: str) -> list[Document]:
    """The objects of one Kubernetes example."""
    return list(yaml.safe_load_all((KUBERNETES / name).read_text()))


def secrets() -> dict[str, dict[str, str]]:
    """What the examples' secrets hold, by the secret's name."""
    found = [document for path in KUBERNETES.iterdir() for document in documents(path.name)]
    return {it["metadata"]["name"]: it["stringData"] for it in found if it["kind"] == "Secret"}


def _filled_in(entry: Document) -> str:
    match entry:
        case {"value": str(value)}:
            return value
        case {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}:
            return POD
        case {"valueFrom": {"secretKeyRef": {"name": str(name), "key": str(key)}}}:
            return secrets()[name][key]
        case _:
            raise AssertionError(f"nothing is known of {entry}")


def compose() -> Document:
    """The compose file."""
    read: Document = yaml.safe_load(COMPOSE.read_text())
    return read


@dataclass(frozen=True)
class Example:
    """One Kubernetes example that runs tablefeed in a pod."""

    name: str

    def one(self, kind: str) -> Document:
        """The only object of a kind."""
        (found,) = [document for document in documents(self.name) if document["kind"] == kind]
        return found

    @property
    def workload(self) -> Document:
        """The object that makes the pods."""
        (found,) = [document for document in documents(self.name) if document["kind"] in WORKLOADS]
        return found

    @property
    def template(self) -> Document:
        """The pods' template."""
        spec = self.workload["spec"]
        found: Document = spec.get("template") or spec["jobTemplate"]["spec"]["template"]
        return found

    @property
    def pod(self) -> Document:
        """The pods' specification."""
        found: Document = self.template["spec"]
        return found

    @property
    def containers(self) -> list[Document]:
        """All containers of the pod, in the order in which they start."""
        return [*self.pod.get("initContainers", []), *self.pod["containers"]]

    def container(self, name: str) -> Document:
        """A container by its name."""
        (found,) = [container for container in self.containers if container["name"] == name]
        return found

    @property
    def tablefeed(self) -> Document:
        """The container of ours."""
        return self.container("tablefeed")

    @property
    def configuration(self) -> str:
        """The TOML in the ConfigMap."""
        (text,) = self.one("ConfigMap")["data"].values()
        return str(text)

    def settings(self, directory: Path) -> Settings:
        """The settings that the pod's daemon has. `directory`: where to put the file."""
        path = directory / CONFIGURATION
        path.write_text(self.configuration)
        return load(path, self.environment)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of our container, as the kubelet fills them in for a pod called `POD`."""
        return {entry["name"]: _filled_in(entry) for entry in self.tablefeed.get("env", [])}

    def mounted(self, path: str | os.PathLike[str]) -> Document | None:
        """The mount of our container in which a path lies."""
        parents = [PurePosixPath(path), *PurePosixPath(path).parents]
        mounts: list[Document] = self.tablefeed["volumeMounts"]
        return next((m for parent in parents for m in mounts if PurePosixPath(m["mountPath"]) == parent), None)


EXAMPLES = [Example(name) for name in ("daemon.yaml", "export-then-deliver.yaml", "fleet.yaml", "sidecar.yaml")]


def dockerfile() -> Iterator[tuple[str, str]]:
    """The instructions of the Dockerfile with their arguments, in order."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for instruction in "\n".join(lines).replace("\\\n", " ").splitlines():
        if instruction.strip():
            word, _, arguments = instruction.partition(" ")
            yield word, arguments.strip()


def service_environment(service: Mapping[str, Any]) -> dict[str, str]:
    """The environment of a compose service."""
    return {name: str(value) for name, value in service.get("environment", {}).items()}
