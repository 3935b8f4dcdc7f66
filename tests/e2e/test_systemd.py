"""The service under a real systemd as PID 1, installed by the commands of the README.

Each test has a machine of its own: a container with its own network, the stand-in for ProcessMind in it, and exports
that belong to another user. Where no such machine can be had, the tests are skipped with the reason.
"""

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.daemon import KEY
from support.debian import ROOT, UnavailableError
from support.nspawn import Machine, Machines

pytestmark = pytest.mark.timeout(900)  # the first of them makes a Debian, the others wait for it

EXPORTS = "/srv/exports"
API = "http://127.0.0.1:8800"
OBJECTS = "/var/lib/processmind/objects"
CAP_LEASE = 1 << 28


def commands() -> list[str]:
    """The commands of the README, from nothing to a running service."""
    section = (ROOT / "README.md").read_text().partition("### As a systemd service\n")[2]
    block = section.partition("```console\n")[2].partition("```")[0]
    return re.findall(r"^# (.+)$", block, re.MULTILINE)


APT, INSTALL, INIT, DROP_IN, START = commands()


@pytest.fixture(scope="module")
def machines() -> Machines:
    """Machines in which the daemon is installed."""
    try:
        return Machines((APT, INSTALL))
    except UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture
def fresh(machines: Machines) -> Iterator[Machine]:
    """A machine after the installation, with an export's directory and ProcessMind."""
    with booted(machines) as machine:
        machine.shell(
            f"groupadd etl && useradd --groups etl producer && install -d -o producer -g etl -m 2775 {EXPORTS}/orders"
        )
        machine.shell("umask 077; cat > /root/processmind.env", f"TABLEFEED_SANDBOX_API_KEY={KEY}\n")
        machine.shell(
            "systemd-run --quiet --unit=processmind --description=ProcessMind -p DynamicUser=yes "
            "-p StateDirectory=processmind -p EnvironmentFile=/root/processmind.env "
            "tablefeed sandbox --strict --data /var/lib/processmind"
        )
        machine.until(lambda: "serves the API" in machine.journal("processmind"))
        yield machine


@contextmanager
def booted(machines: Machines) -> Iterator[Machine]:
    """A machine; the test is skipped where it does not boot."""
    try:
        with machines.boot() as machine:
            yield machine
    except UnavailableError as reason:
        pytest.skip(str(reason))


def configure(machine: Machine, *feeds: str, **api: str) -> None:
    """Write the configuration and the key as an administrator would, with an editor and the usual umask."""
    lines = ["[api]", f'base_url = "{API}"', 'tenant_id = "tenant-123"', *(f'{k} = "{v}"' for k, v in api.items())]
    lines += ["[log]", 'level = "debug"']
    for feed in feeds:
        lines += ["[[feeds]]", f'name = "{feed}"', f'directory = "{EXPORTS}/{feed}"', 'datatable_id = "table-456"']
        lines += ['settle = "200ms"']
    machine.shell("cat > /etc/tablefeed/tablefeed.toml", "\n".join(lines))
    machine.shell("umask 077; cat > /etc/tablefeed/api-key", KEY)


def adapt(machine: Machine, *settings: str) -> None:
    """Add a drop-in."""
    machine.shell(
        "install -D -m 644 /dev/stdin /etc/systemd/system/tablefeed.service.d/test.conf && systemctl daemon-reload",
        "\n".join(("[Service]", *settings, "")),
    )


@pytest.fixture
def service(fresh: Machine) -> Machine:
    """A machine on which the service runs and nothing has happened yet."""
    configure(fresh, "orders")
    fresh.shell(DROP_IN)
    fresh.shell(START)
    return fresh


def drop(machine: Machine, name: str, feed: str = "orders", content: str = "a;b\n1;2\n") -> None:
    """Let the producer export a file."""
    machine.shell(
        "exec setpriv --reuid producer --regid producer --init-groups /bin/sh -c "
        f"'umask 027; cat > {EXPORTS}/{feed}/.part && mv {EXPORTS}/{feed}/.part {EXPORTS}/{feed}/{name}'",
        content,
    )


def there(machine: Machine, path: str) -> bool:
    """Whether a file exists."""
    return machine.attempt("test", "-e", path)[0] == 0


@contextmanager
def interrupted(machine: Machine, name: str) -> Iterator[None]:
    """Let the producer export a file that takes long enough, and hold the store still in the middle of it."""
    store = machine.show("MainPID", unit="processmind")["MainPID"]
    machine.shell(
        f"truncate --size=400M {EXPORTS}/{name} && chmod 640 {EXPORTS}/{name} && chown producer:etl {EXPORTS}/{name}"
    )
    machine.run("mv", f"{EXPORTS}/{name}", f"{EXPORTS}/orders/{name}")
    machine.until(lambda: re.search(f'"event":"upload_started".*"path":"{name}"', machine.journal()))
    machine.shell(f"kill -STOP {store}")
    assert not there(machine, f"{EXPORTS}/orders/archive/{name}")
    yield
    machine.shell(f"kill -CONT {store}")


def until_archived(machine: Machine, name: str, feed: str = "orders") -> None:
    """Wait until a file has been delivered and archived."""
    machine.until(lambda: there(machine, f"{EXPORTS}/{feed}/archive/{name}"))


def objects(machine: Machine) -> int:
    """How many objects the store has."""
    return int(machine.shell(f"find {OBJECTS} -type f | wc -l"))


def main_pid(machine: Machine) -> str:
    """The daemon's process."""
    return machine.show("MainPID")["MainPID"]


def status(machine: Machine) -> str:
    """What `systemctl status` shows."""
    return machine.show("StatusText")["StatusText"]


def answer(machine: Machine, line: str, *answers: tuple[str, str]) -> str:
    """Run a command at a terminal, answer its questions in turn, and return what was shown."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        machine.command("/bin/sh", "-c", line), stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    os.close(slave)
    waiting, said, new = list(answers), "", ""
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        if select.select([master], [], [], 0.1)[0]:
            try:
                new += os.read(master, 65536).decode()
            except OSError:  # the terminal was closed
                break
        if waiting and waiting[0][0] in new:
            said, new = said + new, ""
            os.write(master, waiting.pop(0)[1].encode() + b"\n")
    assert process.wait(timeout=10) == 0, said + new
    os.close(master)
    return said + new


def test_five_commands_lead_from_nothing_to_a_running_service(fresh: Machine) -> None:
    """What the README says, word for word, ends in a service that has delivered a file of another user."""
    shown = answer(
        fresh,
        f"{INIT} --base-url {API}",  # the stand-in's; all else is asked
        ("(it is not shown): ", KEY),
        ("Tenant id", "tenant-123"),
        ("Number of the datatable", "1"),
        ("Directory", f"{EXPORTS}/orders"),
        ("Name of the feed", "orders"),
    )
    assert KEY not in shown
    fresh.shell(DROP_IN)
    fresh.shell(START)
    assert fresh.run("systemctl", "is-active", "tablefeed") == "active\n"
    assert fresh.run("systemctl", "is-enabled", "tablefeed") == "enabled\n"
    drop(fresh, "one.csv")
    until_archived(fresh, "one.csv")
    assert objects(fresh) == 1
    fresh.until(lambda: status(fresh) == "0 uploading, 0 queued, 1 delivered today")

    owners = fresh.shell("stat -c '%A %U %G %n' /etc/tablefeed/* /var/lib/tablefeed /var/lib/tablefeed/ledger.db")
    assert owners.splitlines() == [
        "-rw------- root root /etc/tablefeed/api-key",
        "-rw-r----- root tablefeed /etc/tablefeed/tablefeed.toml",
        "drwx------ tablefeed tablefeed /var/lib/tablefeed",
        "-rw------- tablefeed tablefeed /var/lib/tablefeed/ledger.db",
    ]
    line = next(line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("# systemd-run "))
    assert "All is well." in fresh.shell(line.removeprefix("# "))


def test_the_key_is_seen_nowhere(service: Machine) -> None:
    """No argument, no environment of a process and no line of the journal holds it, also when it is refused."""
    drop(service, "one.csv")
    until_archived(service, "one.csv")
    processmind = service.show("MainPID", unit="processmind")["MainPID"]  # the other side, which must know it
    found = service.shell(
        f"for pid in $(ls /proc | grep '^[0-9]*$' | grep -vx {processmind}); do "
        "cat /proc/$pid/cmdline /proc/$pid/environ 2> /dev/null; done | tr '\\0' '\\n'"
    )
    assert "CREDENTIALS_DIRECTORY=" in found
    assert "/usr/local/bin/tablefeed\nrun\n" in found
    assert KEY not in found
    assert KEY not in service.run("journalctl", "--no-pager", "--all", "--output=verbose")
    assert service.attempt("setpriv", "--reuid=tablefeed", "--clear-groups", "cat", "/etc/tablefeed/api-key")[0] != 0


def test_the_daemon_has_the_rights_it_needs_and_no_others(service: Machine) -> None:
    """One capability, for leases; system calls are filtered, no core is dumped, nothing new can be gained."""
    pid = main_pid(service)
    fields = dict(line.split(":\t", 1) for line in service.run("cat", f"/proc/{pid}/status").splitlines())
    for capabilities in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
        assert int(fields[capabilities], 16) == CAP_LEASE
    assert (fields["Seccomp"], fields["NoNewPrivs"]) == ("2", "1")
    assert re.search(r"Max core file size +0 +0 ", service.run("cat", f"/proc/{pid}/limits"))


def test_a_file_of_another_user_waits_for_its_writer(service: Machine) -> None:
    """With CAP_LEASE the kernel says who writes a file that is not ours; without it the silence alone would count."""
    writer = subprocess.Popen(
        service.command(
            "setpriv", "--reuid=producer", "--regid=producer", "--init-groups",
            "/bin/sh", "-c", f"umask 027; exec 3> {EXPORTS}/orders/open.csv; echo begun >&3; read end; echo ended >&3",
        ),
        stdin=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        service.until(lambda: there(service, f"{EXPORTS}/orders/open.csv"))
        for name in ("second.csv", "third.csv"):  # each takes as long as the first had to be quiet
            drop(service, name)
            until_archived(service, name)
        assert there(service, f"{EXPORTS}/orders/open.csv")
        assert objects(service) == 2
        writer.communicate("\n", timeout=10)
    finally:
        writer.kill()
        writer.wait()
    until_archived(service, "open.csv")
    assert service.run("cat", f"{EXPORTS}/orders/archive/open.csv") == "begun\nended\n"


def test_exports_are_out_of_reach_until_a_drop_in_names_them(fresh: Machine) -> None:
    """The service says what it misses and keeps the file; with the drop-in it archives it, and sends it only once."""
    configure(fresh, "orders")
    adapt(fresh, "SupplementaryGroups=etl")
    fresh.shell(START)
    drop(fresh, "one.csv")
    fresh.until(lambda: "blocked: orders (" in status(fresh))
    assert "ead-only file system" in status(fresh)
    assert there(fresh, f"{EXPORTS}/orders/one.csv")
    errors = fresh.run("journalctl", "--unit=tablefeed", "--priority=err", "--output=cat", "--no-pager").splitlines()
    assert len(errors) == 1
    assert "ReadWritePaths=" in errors[0]
    fresh.shell(DROP_IN)
    fresh.shell("systemctl daemon-reload && systemctl restart tablefeed")
    until_archived(fresh, "one.csv")
    assert objects(fresh) == 1
    fresh.until(lambda: "blocked" not in status(fresh))


def test_a_reload_adds_a_feed(service: Machine) -> None:
    """Its files are delivered by the same process, without a restart."""
    pid = main_pid(service)
    service.shell(f"install -d -o producer -g etl -m 2775 {EXPORTS}/invoices")
    configure(service, "orders", "invoices")
    service.run("systemctl", "reload", "tablefeed")
    for feed in ("invoices", "orders"):
        drop(service, "one.csv", feed)
        until_archived(service, "one.csv", feed)
    assert main_pid(service) == pid
    assert service.show("ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}


def test_a_reload_of_a_configuration_with_errors_fails_and_changes_nothing(service: Machine) -> None:
    """Who types `systemctl reload` sees that it failed, the journal says why, and the daemon goes on."""
    pid = main_pid(service)
    configure(service, "orders", tenant="x")
    code, _ = service.attempt("systemctl", "reload", "tablefeed")
    assert code != 0
    assert "api.tenant" in service.journal()
    drop(service, "one.csv")
    until_archived(service, "one.csv")
    assert main_pid(service) == pid


def test_a_daemon_that_hangs_is_started_again_and_tells_where_it_hung(service: Machine) -> None:
    """No sign of life from its event loop: systemd ends it, and the next one delivers what has come meanwhile."""
    adapt(service, "WatchdogSec=2s", "RestartSec=100ms")
    service.run("systemctl", "restart", "tablefeed")
    pid = main_pid(service)
    service.shell(f"kill -STOP {pid}")
    drop(service, "one.csv")
    until_archived(service, "one.csv")
    assert main_pid(service) not in ("0", pid)
    assert service.show("NRestarts") == {"NRestarts": "1"}
    journal = service.journal()
    assert "Watchdog timeout" in journal
    assert "Fatal Python error: Aborted" in journal
    assert "most recent call first" in journal


def test_a_killed_daemon_goes_on(service: Machine) -> None:
    """kill -9 in the middle of a delivery: the next one ends it with the same object."""
    adapt(service, "RestartSec=100ms")
    pid = main_pid(service)
    with interrupted(service, "one.csv"):
        service.shell(f"kill -KILL {pid}")
        service.until(lambda: service.show("NRestarts", "ActiveState") == {"NRestarts": "1", "ActiveState": "active"})
    until_archived(service, "one.csv")
    assert main_pid(service) not in ("0", pid)
    assert objects(service) == 1


def test_a_newer_systemd_waits_for_reloads_and_longer_between_restarts(service: Machine) -> None:
    """Where systemd knows how, a reload is over when it is done, and what keeps failing is started ever less often."""
    version = int(re.findall(r"\d+", service.run("systemctl", "--version"))[0])
    if version < 254:
        pytest.skip(f"this is systemd {version}; TABLEFEED_TEST_RELEASE=trixie tests with a newer one")
    assert service.show("Type", "RestartSteps", "RestartMaxDelayUSec") == {
        "Type": "notify-reload", "RestartSteps": "7", "RestartMaxDelayUSec": "5min",
    }  # fmt: skip
    service.run("systemctl", "reload", "tablefeed")
    assert '"event":"reloaded"' in service.journal()
    adapt(service, "RestartSec=200ms", "RestartSteps=3", "RestartMaxDelaySec=3s")
    pauses = []
    for _ in range(3):
        pid, began = main_pid(service), time.monotonic()
        service.shell(f"kill -KILL {pid}")
        service.until(lambda pid=pid: main_pid(service) not in ("0", pid))  # type: ignore[misc]
        pauses.append(time.monotonic() - began)
    assert pauses[2] > pauses[0] + 0.5


def test_a_stop_waits_for_what_is_being_sent(service: Machine) -> None:
    """Also for longer than TimeoutStopSec, as far as `shutdown_grace` reaches."""
    adapt(service, "TimeoutStopSec=1s")
    service.run("systemctl", "restart", "tablefeed")
    with interrupted(service, "one.csv"):
        service.until(lambda: status(service).startswith("1 uploading"))
        service.run("systemctl", "stop", "--no-block", "tablefeed")
        service.until(lambda: status(service).startswith("draining"))
        began = time.monotonic()
        service.until(lambda: time.monotonic() > began + 3)
        assert service.show("ActiveState") == {"ActiveState": "deactivating"}
    service.until(lambda: service.show("ActiveState") == {"ActiveState": "inactive"})
    assert service.show("Result", "ExecMainStatus") == {"Result": "success", "ExecMainStatus": "0"}
    assert there(service, f"{EXPORTS}/orders/archive/one.csv")
    assert '"event":"stopped"' in service.journal()


def test_without_a_key_it_says_which_file_to_write(fresh: Machine) -> None:
    """It is not started again and again, and starts when the file is there."""
    configure(fresh, "orders", api_key_file="/etc/tablefeed/api-key")
    fresh.run("rm", "/etc/tablefeed/api-key")
    fresh.shell(DROP_IN)
    assert fresh.attempt("/bin/sh", "-c", START)[0] != 0
    assert fresh.show("Result", "ExecMainStatus", "NRestarts", "ActiveState") == {
        "Result": "exit-code", "ExecMainStatus": "78", "NRestarts": "0", "ActiveState": "failed",
    }  # fmt: skip
    assert "/etc/tablefeed/api-key does not exist" in fresh.journal()
    configure(fresh, "orders", api_key_file="/etc/tablefeed/api-key")
    fresh.run("systemctl", "start", "tablefeed")
    drop(fresh, "one.csv")
    until_archived(fresh, "one.csv")


def test_a_service_whose_postgresql_is_away_is_started_again_until_its_ledger_is_there(fresh: Machine) -> None:
    """The driver works in the confinement of the unit, and nobody has to start the service by hand afterwards."""
    configure(fresh, "orders")
    fresh.shell(DROP_IN)
    url = "postgresql+psycopg://tablefeed:secret@127.0.0.1:5/tablefeed"
    adapt(fresh, "RestartSec=100ms", f"Environment=TABLEFEED_LEDGER__URL={url}")
    fresh.run("systemctl", "enable", "tablefeed")
    fresh.run("systemctl", "start", "--no-block", "tablefeed")
    fresh.until(lambda: int(fresh.show("NRestarts")["NRestarts"]) >= 2)
    told = fresh.journal()
    assert "status=69" in told
    assert "PostgreSQL does not answer as it should" in told
    assert "secret" not in told
    adapt(fresh, "RestartSec=100ms")
    fresh.until(lambda: fresh.show("ActiveState")["ActiveState"] == "active")
    drop(fresh, "one.csv")
    until_archived(fresh, "one.csv")
