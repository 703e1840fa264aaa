"""The files of a cluster before anything runs: folders, devices, the key, the configuration."""

from __future__ import annotations

import secrets
from pathlib import Path

from tests.slurm.config import Settings, Site, files


def lay_out(folder: Path, settings: Settings, site: Site) -> None:
    """Make what is missing, and write the configuration anew."""
    folder.chmod(0o700)  # for root alone: the database has no password
    if site.folder != folder and not site.folder.is_symlink():
        site.folder.symlink_to(folder, target_is_directory=True)
    for name in ("run", "log", "state", "spool", "gpu", *(f"spool/{node}" for node in settings.nodes)):
        (folder / name).mkdir(exist_ok=True)
    for node in settings.nodes:
        for index in range(settings.gpus):
            device = folder / "gpu" / f"{node}-{index}"
            if not device.is_symlink():
                device.symlink_to("/dev/null")
    key = folder / "munge.key"
    if not key.exists():
        _write_private(key, secrets.token_bytes(128))
    for name, text in files(settings, site).items():
        _write_private(folder / name, text.encode())


def _write_private(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
