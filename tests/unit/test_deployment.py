"""What operators deploy in containers fits together: image, compose file, Kubernetes examples. No engine is needed."""

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from sqlalchemy import make_url

from support.deployment import (
    COMPOSE,
    CONFIGURATION,
    EXAMPLES,
    KUBERNETES,
    POD,
    ROOT,
    WORKLOADS,
    Example,
    compose,
    dockerfile,
    documents,
    secrets,
    service_environment,
)
from tablefeed import __version__
from tablefeed.cli.app import app
from tablefeed.config import Settings, load
from tablefeed.config.load import DEFAULT_PATH
from tablefeed.ledger.engine import describe, sqlite_file
from tablefeed.model import Ready

FILES = sorted(path.name for path in KUBERNETES.iterdir())
GROUP_OF_THE_IMAGE = 10001
FLEET = ("fleet-1", "fleet-2", "fleet-3")
DAEMONS = ("tablefeed", *FLEET)
"""The services of the compose file that run `tablefeed run`."""
each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)


def commands() -> set[str]:
    """The names of our commands."""
    return {command.name for command in app.registered_commands if command.name}


@pytest.mark.parametrize("version", ["1.29", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", FILES)
def test_kubernetes_takes_each_object_as_it_is(name: str, version: str) -> None:
    """The oldest that has sidecars and the newest know every key; a PodMonitor is no object of Kubernetes' own."""
    for document in documents(name):
        if document["kind"] != "PodMonitor":
            kubernetes_validate.validate(document, version, strict=True)


def test_each_workload_is_checked_here() -> None:
    """No example runs a pod that the tests below do not look at."""
    running = {name for name in FILES for d in documents(name) if d["kind"] in WORKLOADS}
    assert running == {example.name for example in EXAMPLES}


@each_example
def test_the_configuration_in_the_config_map_is_right(example: Example, tmp_path: Path) -> None:
    """It loads, lies where the daemon looks, and speaks of places that are mounted, writable where it must write."""
    settings = example.settings(tmp_path)
    assert list(example.one("ConfigMap")["data"]) == [CONFIGURATION]
    volumes = {volume["name"]: volume for volume in example.pod["volumes"]}

    def volume_of(path: object) -> Any:
        mount = example.mounted(str(path))
        assert mount is not None, path
        return volumes.get(mount["name"], {"claim template": mount["name"]})

    assert DEFAULT_PATH.name == CONFIGURATION
    assert volume_of(DEFAULT_PATH.parent)["configMap"]["name"] == example.one("ConfigMap")["metadata"]["name"]
    key = Path(str(settings.api.api_key_file))
    (secret,) = documents("secret.yaml")
    assert volume_of(key.parent)["secret"]["secretName"] == secret["metadata"]["name"]
    assert list(secret["stringData"]) == [key.name]
    file = sqlite_file(settings.ledger.url)
    for path in (*([file] if file else []), *(feed.directory for feed in settings.feeds)):
        mount = example.mounted(str(path))
        assert mount is not None
        assert not mount.get("readOnly")


@each_example
def test_the_pod_waits_for_the_drain(example: Example, tmp_path: Path) -> None:
    """The kubelet kills later than the daemon itself cuts uploads off, with seconds left for what comes before."""
    assert example.pod["terminationGracePeriodSeconds"] >= example.settings(tmp_path).service.shutdown_grace + 15


@each_example
def test_probes_and_scrapes_ask_where_the_daemon_listens(example: Example, tmp_path: Path) -> None:
    """Port and paths are those of the daemon, which listens on the pod's address; one pass has none of it."""
    address = example.settings(tmp_path).http.address
    probes = {name: probe for name, probe in example.tablefeed.items() if name.endswith("Probe")}
    annotations = example.template["metadata"].get("annotations", {})
    if "--once" in example.tablefeed["args"]:
        assert (address, probes, annotations) == (None, {}, {})
        return
    assert address is not None
    assert address[0] in ("", "0.0.0.0", "::")  # noqa: S104 - a pod's probes come from outside its network namespace
    assert example.tablefeed["ports"] == [{"name": "http", "containerPort": address[1]}]
    assert set(probes) == {"startupProbe", "livenessProbe", "readinessProbe"}
    assert {probe["httpGet"]["path"] for probe in probes.values()} == {"/healthz", "/readyz"}
    assert {probe["httpGet"]["port"] for probe in probes.values()} == {"http"}
    assert probes["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert annotations["prometheus.io/port"] == str(address[1])


@each_example
def test_pods_are_confined(example: Example) -> None:
    """Not root, nothing to write but volumes, no capability, no new privileges, fewer system calls, no token."""
    context = example.pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["fsGroup"] == context["runAsGroup"] == GROUP_OF_THE_IMAGE
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert example.pod["automountServiceAccountToken"] is False
    for container in example.containers:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} == set(container["resources"])


@each_example
def test_arguments_are_commands_of_ours(example: Example) -> None:
    """The image's entry point gets a command that it has, in the version of this tree, and no shell."""
    assert "command" not in example.tablefeed
    assert example.tablefeed["args"][0] in commands()
    assert example.tablefeed["image"].endswith(f"/tablefeed:{__version__}")


def test_the_service_names_the_daemons_pod() -> None:
    """It selects the pod of the StatefulSet that it governs, and leads to its port."""
    example = Example("daemon.yaml")
    service = example.one("Service")
    assert example.workload["spec"]["serviceName"] == service["metadata"]["name"]
    assert service["spec"]["selector"].items() <= example.template["metadata"]["labels"].items()
    assert [port["targetPort"] for port in service["spec"]["ports"]] == [example.tablefeed["ports"][0]["name"]]


def test_only_one_daemon_owns_a_ledger_of_sqlite() -> None:
    """The standing daemon is one, of a kind that ends the old pod first; a night's Job does not meet the last one's."""
    by_name = {example.name: example.workload for example in EXAMPLES}
    assert by_name["daemon.yaml"]["kind"] == "StatefulSet"
    assert by_name["daemon.yaml"]["spec"]["replicas"] == 1
    for name in ("sidecar.yaml", "export-then-deliver.yaml"):
        assert by_name[name]["spec"]["concurrencyPolicy"] == "Forbid"


def test_pods_of_the_fleet_are_nodes_with_names_of_their_own(tmp_path: Path) -> None:
    """Each is called as its pod, and the URL with the password comes from a secret that `fleet.yaml` does not hold."""
    example = Example("fleet.yaml")
    settings = example.settings(tmp_path)
    assert settings.fleet.node == POD
    assert example.workload["metadata"]["name"] == POD.rsplit("-", 2)[0]
    assert describe(settings.ledger.url) == "postgresql://postgres.example.com/tablefeed"
    assert settings.ledger.url == secrets()["tablefeed-ledger"]["url"]
    assert "postgresql+psycopg" not in (KUBERNETES / example.name).read_text()
    of_a_file = {**example.environment, "TABLEFEED_LEDGER__URL": f"{settings.ledger.url}\n"}
    assert load(tmp_path / CONFIGURATION, of_a_file).ledger.url == settings.ledger.url


def test_the_fleet_shares_all_that_its_pods_have(tmp_path: Path) -> None:
    """Every feed lies on the volume that many pods may mount at once, and says so; nothing else is kept in a pod."""
    example = Example("fleet.yaml")
    claim = example.one("PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    volumes = {volume["name"]: volume for volume in example.pod["volumes"]}
    for feed in example.settings(tmp_path).feeds:
        assert feed.shared
        assert feed.ready is not Ready.CLOSED, "the kernel of one machine does not know who writes on another"
        mount = example.mounted(feed.directory)
        assert mount is not None
        assert volumes[mount["name"]] == {
            "name": mount["name"],
            "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]},
        }
    assert not [volume for volume in volumes.values() if "emptyDir" in volume]


def test_the_fleet_goes_on_while_pods_are_replaced() -> None:
    """An update and a drained machine take one of several pods at a time, also while none of them is ready."""
    example = Example("fleet.yaml")
    spec, budget = example.workload["spec"], example.one("PodDisruptionBudget")["spec"]
    assert spec["replicas"] > spec["strategy"]["rollingUpdate"]["maxUnavailable"] == budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    (spread,) = example.pod["topologySpreadConstraints"]
    for selector in (spec["selector"], budget["selector"], spread["labelSelector"]):
        assert selector["matchLabels"] == example.template["metadata"]["labels"]
    others = [other.template["metadata"]["labels"] for other in EXAMPLES if other != example]
    assert example.template["metadata"]["labels"] not in others, "each workload would take the other's pods for its own"


def test_the_sidecar_is_native_and_of_the_exports_user() -> None:
    """It starts first, is ended last, and owns the exported files, so that it may ask who writes them."""
    example = Example("sidecar.yaml")
    assert [container["name"] for container in example.containers] == ["tablefeed", "export"]
    assert example.tablefeed["restartPolicy"] == "Always"
    assert all("runAsUser" not in container["securityContext"] for container in example.containers)
    assert example.pod["restartPolicy"] == "Never"


def test_what_the_sidecars_job_waits_for_is_what_is_delivered(tmp_path: Path) -> None:
    """Else the Job would wait for ever for a file that the feed does not take, or end before one that it does."""
    (feed,) = Example("sidecar.yaml").settings(tmp_path).feeds
    assert feed.include == ("*",)
    assert (feed.recursive, feed.archive) == (False, "delete")


def test_a_pod_monitor_finds_the_pods_that_have_metrics() -> None:
    """Its selector takes the standing daemon and the sidecar, by the port's name, and not the single pass."""
    (monitor,) = documents("podmonitor.yaml")
    selector = monitor["spec"]["selector"]
    (rule,) = selector["matchExpressions"]
    for example in EXAMPLES:
        labels = example.template["metadata"]["labels"]
        assert selector["matchLabels"].items() <= labels.items()
        assert (labels[rule["key"]] in rule["values"]) == ("ports" in example.tablefeed)
    assert [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]] == ["http"]


def compose_settings(name: str, directory: Path) -> Settings:
    """What a daemon of the compose file is configured with, where the user's environment adds nothing."""
    environment = service_environment(compose()["services"][name])
    filled_in = {key: re.sub(r"\$\{\w+:-(\w*)\}", r"\1", value) for key, value in environment.items()}
    return load(None, filled_in, default=directory / "none.toml")


@pytest.mark.parametrize("name", DAEMONS)
def test_the_compose_file_configures_by_the_environment_alone(name: str, tmp_path: Path) -> None:
    """Each daemon's settings load, and lead to the sandbox with the key that the sandbox wants."""
    services = compose()["services"]
    settings = compose_settings(name, tmp_path)
    assert settings.api.base_url == "http://sandbox:8800"
    assert str(settings.api.api_key_file) == "/run/secrets/api-key"
    key = (COMPOSE.parent / compose()["secrets"]["api-key"]["file"]).read_text().strip()
    assert service_environment(services["sandbox"]) == {"TABLEFEED_SANDBOX_API_KEY": key}
    assert key not in service_environment(services[name]).values()
    mounted = [entry["target"] for entry in services[name]["volumes"] if isinstance(entry, dict)]
    assert [str(feed.directory) for feed in settings.feeds] == mounted
    grace = int(services[name]["stop_grace_period"].removesuffix("s"))
    assert grace > settings.service.shutdown_grace


def test_the_compose_file_shows_pages_to_this_machine_only() -> None:
    """A port for each daemon is published, on loopback, and it is the one that the daemon listens on; no other is."""
    services = compose()["services"]
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {name: [f"127.0.0.1:{port}:8787"] for port, name in enumerate(DAEMONS, 8787)}
    assert {service_environment(services[name])["TABLEFEED_HTTP__LISTEN"] for name in DAEMONS} == {":8787"}


def test_the_compose_file_starts_each_daemon_after_what_it_needs_and_confines_all() -> None:
    """What a daemon waits for has a health check without a shell; no service has more rights than it needs."""
    services = compose()["services"]
    assert services["tablefeed"]["depends_on"] == {"sandbox": {"condition": "service_healthy"}}
    for name in FLEET:
        assert services[name]["depends_on"] == {
            needed: {"condition": "service_healthy"} for needed in ("sandbox", "postgres")
        }
    for needed in ("sandbox", "postgres"):
        assert services[needed]["healthcheck"]["test"][0] == "CMD"
    for name, service in services.items():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        if name != "postgres":
            assert service["image"] == f"tablefeed:{__version__}"
            assert service["command"][0] in commands()


def test_the_fleet_of_the_compose_file_is_apart_from_its_one_daemon(tmp_path: Path) -> None:
    """It starts by its profile alone, and has a directory of its own, which all of its daemons share."""
    services = compose()["services"]
    assert {name for name, service in services.items() if service.get("profiles") == ["fleet"]} == {*FLEET, "postgres"}
    binds = {name: [it["source"] for it in services[name]["volumes"] if isinstance(it, dict)] for name in DAEMONS}
    assert binds == {"tablefeed": ["../exports"], **{name: ["../exports-of-fleet"] for name in FLEET}}
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {f"/{source.removeprefix('../')}/" for [source] in binds.values()} <= {*ignored}
    assert all(feed.shared for name in FLEET for feed in compose_settings(name, tmp_path).feeds)
    assert not any(feed.shared for feed in compose_settings("tablefeed", tmp_path).feeds)


def test_the_nodes_of_the_compose_file_have_names_that_last() -> None:
    """Each is called as its service, also in a new container, and leaves no volume without a name behind."""
    services = compose()["services"]
    assert {services[name]["hostname"] for name in FLEET} == {*FLEET}
    for name in DAEMONS:
        named = [volume.split(":") for volume in services[name]["volumes"] if isinstance(volume, str)]
        assert [target for _, target in named] == ["/var/lib/tablefeed"]
        assert {volume for volume, _ in named} <= compose()["volumes"].keys()


def test_the_fleet_of_the_compose_file_finds_its_database(tmp_path: Path) -> None:
    """User, password and database are those that PostgreSQL is made with, and no argument holds the password."""
    server = compose()["services"]["postgres"]
    made = service_environment(server)
    (url,) = {service_environment(compose()["services"][name])["TABLEFEED_LEDGER__URL"] for name in FLEET}
    user, password, database = (made[f"POSTGRES_{part}"] for part in ("USER", "PASSWORD", "DB"))
    assert url == f"postgresql+psycopg://{user}:{password}@postgres/{database}"
    assert password == "${TABLEFEED_DATABASE_PASSWORD:-sandbox}"
    assert "command" not in server
    assert password not in " ".join(server["healthcheck"]["test"])
    assert {f"--username={user}", f"--dbname={database}"} <= {*server["healthcheck"]["test"]}
    assert describe(compose_settings(FLEET[0], tmp_path).ledger.url) == f"postgresql://postgres/{database}"
    assert [volume.split(":")[0] for volume in server["volumes"]] == ["database"]
    assert "database" in compose()["volumes"]


def test_the_readmes_container_needs_no_file(tmp_path: Path) -> None:
    """The variables that the README gives to `docker run` are a whole configuration, of places that it mounts."""
    commands_ = re.findall(r"^\$ docker run (?:.*\\\n)*.*", (ROOT / "README.md").read_text(), re.MULTILINE)
    words = [shlex.split(command.replace("\\\n", " ")) for command in commands_]
    of_files, of_variables = (list(pairwise(command)) for command in words)
    assert not [value for option, value in of_files if option == "-e"]
    environment = dict(value.split("=", 1) for option, value in of_variables if option == "-e")
    settings = load(None, environment, default=tmp_path / "none.toml")
    mounted = {value.split(":")[1] for option, value in of_variables if option == "-v"}
    assert {str(settings.api.api_key_file), *(str(feed.directory) for feed in settings.feeds)} < mounted
    for command in words:
        assert int(command[command.index("--stop-timeout") + 1]) > settings.service.shutdown_grace


def test_the_readmes_fleet_is_a_configuration(tmp_path: Path) -> None:
    """What it says of several daemons loads as it stands there, and leaves the password to `.pgpass`."""
    section = (ROOT / "README.md").read_text().partition("## Several daemons, one ledger\n")[2]
    told = section.partition("```toml\n")[2].partition("```")[0]
    (tmp_path / CONFIGURATION).write_text('[api]\ntenant_id = "tenant-123"\n' + told)
    settings = load(tmp_path / CONFIGURATION, {"TABLEFEED_API_KEY": "none"})
    assert (settings.fleet.node, settings.feeds[0].shared) == ("plant-07", True)
    assert make_url(settings.ledger.url).password is None


def test_the_image_is_built_on_a_pinned_python() -> None:
    """Both stages are built on one image, named down to the patch and the distribution."""
    instructions = list(dockerfile())
    assert instructions[0][0] == "ARG"
    name, _, image = instructions[0][1].partition("=")
    assert name == "PYTHON_IMAGE"
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", image)
    stages = [arguments for word, arguments in instructions if word == "FROM"]
    assert stages == ["${PYTHON_IMAGE} AS build", "${PYTHON_IMAGE}"]


def test_the_image_needs_no_shell() -> None:
    """The last stage runs nothing while it is built, and all that it will run is given word by word."""
    instructions = list(dockerfile())
    last = instructions[max(at for at, (word, _) in enumerate(instructions) if word == "FROM") :]
    assert "RUN" not in [word for word, _ in last]
    started = {word: arguments for word, arguments in last if word in ("ENTRYPOINT", "CMD", "HEALTHCHECK")}
    started["HEALTHCHECK"] = started["HEALTHCHECK"].partition(" CMD ")[2]
    assert {word: json.loads(arguments) for word, arguments in started.items()} == {
        "ENTRYPOINT": ["tablefeed"],
        "CMD": ["run"],
        "HEALTHCHECK": ["tablefeed", "status", "--alive"],
    }


def test_the_image_says_what_it_is() -> None:
    """Title, description, license and version stand in its labels, as in the package."""
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', (ROOT / "Dockerfile").read_text()))
    project = (ROOT / "pyproject.toml").read_text()
    assert labels == {
        "title": "tablefeed",
        "description": re.findall(r'^description = "(.*)"', project, re.MULTILINE)[0],
        "licenses": "MIT",
        "version": __version__,
    }
