"""Exact k-subsets, by score or at random: the only place where weights are ranked or drawn.

Ranks, never thresholds alone: exactly k indices come back, whatever the ties. Ties at the k-th score are broken
by a seeded random key; nothing is drawn where there is no tie. Forbidden entries take no part at all, so no
score, not even -inf, can make them come back.

On a CPU the work is NumPy's, whose partition and flatnonzero are many times faster than PyTorch's.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def lowest(scores: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Positions, ascending, of the `count` lowest of `scores` (1-d, floating).

    Raises:
        ValueError: `count` exceeds the scores, or a score is NaN.
    """
    return highest(-scores, count, generator)


def highest(scores: Tensor, count: int, generator: torch.Generator, forbidden: Tensor | None = None) -> Tensor:
    """Positions, ascending, of the `count` highest of `scores` (1-d, floating) that are not forbidden.

    Args:
        scores: one for each entry; those of forbidden entries are not looked at.
        count: how many, in [0, number of entries that are not forbidden].
        generator: breaks ties.
        forbidden: positions that cannot be chosen.

    Raises:
        ValueError: `count` exceeds the allowed entries, or an allowed score is NaN.
    """
    scores = _comparable(scores)
    allowed = scores.numel() - (0 if forbidden is None else forbidden.numel())
    if not 0 <= count <= allowed:
        raise ValueError(f"cannot choose {count} of {allowed} entries")
    if forbidden is not None and forbidden.numel():
        scores = scores.clone()
        scores[forbidden] = -torch.inf
    above, tied = _split_anywhere(scores, count)
    wanted = count - above.numel()
    if tied.numel() > wanted:
        if forbidden is not None and forbidden.numel():
            tied = tied[~torch.isin(tied, forbidden)] if scores[tied[0]] == -torch.inf else tied
        tied = tied[distinct(tied.numel(), wanted, generator)]
    return torch.cat([above, tied]).sort().values if tied.numel() else above


class HighestSoFar:
    """`highest` of scores that come piece by piece: the same positions, and only so many in memory.

    Args:
        count, generator: as of `highest`.
        forbidden: as of `highest`, ascending.
    """

    def __init__(self, count: int, generator: torch.Generator, forbidden: Tensor) -> None:
        self._count, self._generator, self._forbidden = count, generator, forbidden
        self._least = -torch.inf if count else torch.inf  # lower scores are not among the highest
        self._scores, self._positions = torch.empty(0), torch.empty(0, dtype=torch.int64)
        self._held = 0  # so many of these stand there

    def add(self, scores: Tensor, first: int) -> None:
        """Look at the scores (1-d, floating) of the entries from position `first` on, behind those before.

        Raises:
            ValueError: an allowed score is NaN.
        """
        scores = _comparable(scores)
        wanted = ~(scores < self._least)  # a NaN is, and is found below
        wanted[self._forbidden_from(first, scores.numel()) - first] = False
        found = positions(wanted)
        scores = scores[found]
        if bool(scores.isnan().any()):
            raise ValueError("a score is NaN")
        if self._held + found.numel() > self._scores.numel():
            self._make_room(scores)
        end = self._held + found.numel()
        self._scores[self._held : end] = scores
        self._positions[self._held : end] = found
        self._positions[self._held : end] += first
        self._held = end

    def positions(self) -> Tensor:
        """Of the `count` highest, ascending.

        Raises:
            ValueError: `count` exceeds the allowed entries.
        """
        found = highest(self._scores[: self._held], self._count, self._generator)
        return self._positions.to(found.device)[found]

    def _make_room(self, scores: Tensor) -> None:
        """Keep those that may be among the highest (ties with the last of them are broken when all are known)."""
        held, at = self._scores[: self._held], self._positions[: self._held]
        if self._held > self._count > 0:
            above, tied = _split_anywhere(held, self._count)
            kept = torch.cat([above, tied]).sort().values
            held, at = held[kept], at[kept]
            self._least = float(held.min())
        size = held.numel() + scores.numel()
        if size > self._scores.numel():
            room = max(size + self._count, 2 * held.numel())  # ties may be many, and all of them are kept
            held, at = held.clone(), at.clone()
            self._scores = scores.new_empty(room)
            self._positions = at.new_empty(room, device=scores.device)
        self._held = held.numel()
        self._scores[: self._held] = held
        self._positions[: self._held] = at

    def _forbidden_from(self, first: int, count: int) -> Tensor:
        ends = torch.tensor([first, first + count], device=self._forbidden.device)
        start, stop = torch.searchsorted(self._forbidden, ends).tolist()
        return self._forbidden[start:stop]


def distinct(population: int, count: int, generator: torch.Generator) -> Tensor:
    """A uniformly random `count`-subset of 0 … population − 1, ascending, on the generator's device."""
    if not 0 <= count <= population:
        raise ValueError(f"cannot draw {count} of {population}")
    if generator.device.type != "cpu":
        return torch.randperm(population, generator=generator, device=generator.device)[:count].sort().values
    seed = int(torch.randint(2**62, (), generator=generator, device="cpu"))
    drawn = np.random.Generator(np.random.Philox(seed)).choice(population, count, replace=False, shuffle=False)
    drawn.sort()
    return torch.from_numpy(drawn)


def outside(ranks: Tensor, members: Tensor) -> Tensor:
    """The entries of these ranks among 0, 1, 2, … without `members` (ascending): rank 0 is the first non-member."""
    gaps = members - torch.arange(members.numel(), device=members.device)  # non-members below each member
    return ranks + torch.searchsorted(gaps, ranks, right=True)


def positions(flags: Tensor) -> Tensor:
    """Positions, ascending, at which a flat bool tensor is True."""
    if flags.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(flags.numpy()))
    return flags.nonzero().squeeze(1)


def sorted_positions(some: Tensor) -> Tensor:
    """Positions, ascending; a tensor of the caller's own on a CPU is sorted in place."""
    if some.device.type == "cpu":
        some.numpy().sort()
        return some
    return some.sort().values


def located(wanted: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Where each of the wanted positions is `among` others, ascending and not empty, and whether it is there."""
    found = torch.searchsorted(among, wanted).clamp_(max=among.numel() - 1)
    return found, among[found] == wanted


def _comparable(scores: Tensor) -> Tensor:
    """Scores without their graph, in a precision that every device can rank."""
    scores = scores.detach()
    return scores.to(torch.float32) if scores.dtype in (torch.bfloat16, torch.float16) else scores


def _split_anywhere(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`_split`, by what is fastest on the device."""
    return (_split_on_cpu if scores.device.type == "cpu" else _split)(scores, count)


def _split(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Positions of the scores above the count-th highest, and of those equal to it, both ascending."""
    if scores.numel() and scores.max().isnan():
        raise ValueError("a score is NaN")
    if count == 0:
        nothing = torch.empty(0, dtype=torch.int64, device=scores.device)
        return nothing, nothing
    # Not kthvalue: on a GPU it is refused where deterministic algorithms are asked for.
    threshold = torch.topk(scores, count, sorted=False).values.min()
    return (scores > threshold).nonzero().squeeze(1), (scores == threshold).nonzero().squeeze(1)


def _split_on_cpu(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`_split` by NumPy."""
    values = scores.numpy()
    if values.size and np.isnan(values.max()):
        raise ValueError("a score is NaN")
    nothing = torch.empty(0, dtype=torch.int64, device="cpu")
    if count == 0:
        return nothing, nothing
    threshold = np.partition(values, values.size - count)[values.size - count]
    reached = np.flatnonzero(values >= threshold)
    if reached.size == count:
        return torch.from_numpy(reached), nothing
    tie = values[reached] == threshold
    return torch.from_numpy(reached[~tie]), torch.from_numpy(reached[tie])
