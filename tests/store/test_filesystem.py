"""What kind of file system a folder lies on, by what Linux says of its mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from itopctl.store import filesystem
from itopctl.store.filesystem import file_system, is_shared

MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /home rw,relatime shared:7 - nfs4 server:/home rw,vers=4.2
31 30 0:41 / /home/me/scratch rw - lustre mgs@tcp:/scratch rw
32 22 0:42 / /mnt/with\040space rw - beegfs beegfs_nodev rw
33 22 0:43 / /mnt/s3 rw - fuse.s3fs s3fs rw
34 22 0:44 / /mnt/gl rw - fuse.glusterfs server:/v rw
35 22 0:45 / /tmp rw - tmpfs tmpfs rw
36 35 0:46 / /tmp/twice rw - ext4 /dev/sdb1 rw
37 36 0:47 / /tmp/twice rw master:1 propagate_from:2 - nfs server:/b rw
38 22 0:48 / /mnt/ü\134x rw - cifs //server/x rw
nonsense
39 22
"""


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda self, *a, **k: MOUNTS if str(self) == "/proc/self/mountinfo" else read(self, *a, **k)
    )
    monkeypatch.setattr(Path, "resolve", lambda self, strict=False: self)


@pytest.mark.parametrize(
    ("path", "kind", "shared"),
    [
        ("/var/results", "ext4", False),
        ("/home/me/results", "nfs4", True),
        ("/homeless/results", "ext4", False),
        ("/home/me/scratch/a/b", "lustre", True),
        ("/home/me/scratch", "lustre", True),
        ("/mnt/with space/results", "beegfs", True),
        ("/mnt/s3/results", "fuse.s3fs", True),
        ("/mnt/gl", "fuse.glusterfs", True),
        ("/tmp/results", "tmpfs", False),
        ("/tmp/twice/results", "nfs", True),
        ("/mnt/ü\\x/results", "cifs", True),
    ],
)
def test_the_innermost_mount_and_of_two_on_one_place_the_last_tells(
    mounts: None, path: str, kind: str, shared: bool
) -> None:
    assert file_system(Path(path)) == kind
    assert is_shared(Path(path)) == shared


def test_where_linux_does_not_say_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", fail)
    assert file_system(Path("/home")) is None
    assert not is_shared(Path("/home"))


def test_a_folder_here_lies_on_something(tmp_path: Path) -> None:
    assert file_system(tmp_path)
    assert file_system(tmp_path / "not there yet") == file_system(tmp_path)
    assert file_system(Path("/proc/self")) == "proc"


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc/self")
    assert file_system(tmp_path / "link") == "proc"


def test_kinds_that_several_machines_write_to_are_known() -> None:
    assert {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "cephfs", "ceph"} & filesystem._SHARED
    assert not {"ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs"} & filesystem._SHARED
