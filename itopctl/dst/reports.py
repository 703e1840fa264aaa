"""What the engine tells: one topology update, and one layer as it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TopologyUpdate:
    """What one drop-and-grow did, over all layers.

    Attributes:
        step: optimizer steps (or steps replaced by an update) done so far, this one included.
        drop_fraction: ζ at this update.
        replaced: weights dropped, which is also the number grown.
        moved: weights active now that were not before (regrown ones are not counted).
        new: weights active now for the first time.
        exploration_rate: R_s after the update.
        skipped: True where a non-finite gradient made the update impossible; nothing was changed.
    """

    step: int
    drop_fraction: float
    replaced: int
    moved: int
    new: int
    exploration_rate: float
    skipped: bool = False


@dataclass(frozen=True)
class LayerReport:
    """One maskable layer as it is now: `size` weights, of which `active`; `explored` were ever active.

    `dropped` is the number of drops in all topology updates; a weight that is dropped again counts again. `backend`:
    `dense` (every weight is active), `masked` (dense arithmetic under a mask) or `sparse` (with the nonzeros alone).
    """

    name: str
    shape: tuple[int, ...]
    size: int
    active: int
    explored: int
    dropped: int = 0
    backend: str = "dense"

    @property
    def density(self) -> float:
        return self.active / self.size

    @property
    def exploration_rate(self) -> float:
        return self.explored / self.size
