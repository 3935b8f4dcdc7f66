import os

import pytest

from tablefeed.mounts import Mount, covering, of_device, parse, read

TABLE = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 27 0:40 / /srv rw shared:3 master:1 - xfs /dev/vdb rw
31 30 0:41 / /srv/my\\040exports rw,relatime shared:4 - nfs4 host:/x rw
32 27 0:42 / /mnt rw - ext4 /dev/vdc rw
33 32 0:43 / /mnt rw - cifs //host/x rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/srv/my exports", "nfs4"),
        ("/srv/my exports/orders", "nfs4"),
        ("/srv/my exports2", "xfs"),
        ("/srvx", "ext4"),
        ("/mnt/a", "cifs"),
    ],
)
def test_a_path_lies_on_its_longest_and_latest_mount(path: str, kind: str) -> None:
    """Names end at a slash, escapes are read, and of two mounts at one place the later covers the earlier."""
    mount = covering(TABLE, path)
    assert mount is not None
    assert mount.kind == kind


def test_a_device_has_its_mount() -> None:
    """The numbers are those of `st_dev`."""
    mount = of_device(TABLE, os.makedev(0, 41))
    assert mount is not None
    assert mount.point == "/srv/my exports"
    assert of_device(TABLE, os.makedev(9, 9)) is None


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs", "virtiofs"])
def test_network_shares_are_known(kind: str) -> None:
    """Where others write without this kernel's knowledge, events and leases tell nothing."""
    assert Mount(1, "/", kind).is_network


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuseblk", "nfsd", "zfs"])
def test_local_file_systems_are_not_taken_for_shares(kind: str) -> None:
    """On these the watch and the lease serve."""
    assert not Mount(1, "/", kind).is_network


def test_lines_that_are_not_understood_are_left_out() -> None:
    """A format of tomorrow must not stop the daemon."""
    assert list(parse("\nnonsense\n1 2 x:y / / rw - ext4 d rw\n1 2 0:1 / / rw\n")) == []


def test_this_machine_has_a_root() -> None:
    """The kernel's own text is understood."""
    assert covering(read(), "/") is not None
