"""Randomness by key: a generator that depends on what it is for, and on nothing that was drawn before."""

from __future__ import annotations

import hashlib

import torch


def keyed_generator(*key: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose seed is a hash of the key, such as (seed, layer, update)."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)
