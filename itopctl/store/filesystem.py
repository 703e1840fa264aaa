"""What kind of file system a folder lies on."""

from __future__ import annotations

from pathlib import Path

_SHARED = frozenset({
    "nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "afs", "panfs", "wekafs",
    "pvfs2", "orangefs", "ocfs2", "gfs2", "9p", "virtiofs", "davfs",
})  # fmt: skip

_LOCAL = frozenset({
    "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "ramfs", "f2fs", "jfs", "reiserfs", "bcachefs", "overlay",
    "apfs", "hfs", "ufs",
})  # fmt: skip


def file_system(path: Path) -> str | None:
    """Type of the file system that holds a path, such as `ext4` or `nfs4`; None where that cannot be told."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text()
    except OSError:
        return None
    resolved = path.resolve()
    best, kind = -1, None
    for line in mounts.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split()
        if not separator or len(fields) < 5:
            continue
        point = Path(fields[4].encode().decode("unicode_escape").encode("latin-1").decode(errors="replace"))
        if resolved.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split()[0]
    return kind


def is_shared(path: Path) -> bool:
    """Whether a path lies on a file system that several machines write to."""
    kind = file_system(path) or ""
    return kind.removeprefix("fuse.") in _SHARED or kind.startswith("fuse.")


def is_local(path: Path) -> bool:
    """Whether a path surely lies on a file system that this machine alone writes to."""
    return file_system(path) in _LOCAL
