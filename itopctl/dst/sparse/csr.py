"""Products with a sparse matrix: which nonzeros make which row of the product, and what they are multiplied by.

The nonzeros' values are a tensor of their own, and what stands here is structure alone. All three products that
training needs are PyTorch's own: an embedding bag (a row of the product is a weighted sum of rows), and the product of
two dense matrices sampled at the nonzeros.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_LARGEST = 2**31 - 1  # indices are 32 bits wide


@dataclass(frozen=True)
class Bags:
    """For each row of a product, the entries that make it: which row of the other factor, times which value.

    Attributes:
        ends: int32 [rows + 1], where each row's entries end; the first is 0.
        sources: int32 [entries], rows of the other factor.
        order: int32 [entries], which value each entry has; None where entries are the values in their order.
    """

    ends: Tensor
    sources: Tensor
    order: Tensor | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """All memory of it."""
        return [tensor for tensor in (self.ends, self.sources, self.order) if tensor is not None]

    def part(self, part: slice, parts: int, skipped: int) -> Bags:
        """Those of some rows alone.

        Args:
            part: which rows, counted in parts of the same size.
            parts: how many parts all rows are.
            skipped: how many rows the other factor is without, before those that are needed here.
        """
        if part == slice(0, parts):
            return self if skipped == 0 else Bags(self.ends, self.sources - skipped, self.order)
        size = (self.ends.numel() - 1) // parts
        ends = self.ends[part.start * size : part.stop * size + 1]
        entries = slice(int(ends[0]), int(ends[-1]))
        assert self.order is not None
        return Bags(ends - ends[0], self.sources[entries] - skipped, self.order[entries])

    def product(self, values: Tensor, factor: Tensor) -> Tensor:
        """[rows, n] of values [count] and a factor [sources, n].

        The kernel of an embedding bag keeps a row's sum in registers: two to three times as fast as MKL's product of a
        CSR matrix where rows are as short as a batch.
        """
        if factor.numel() == 0:  # an empty batch
            return factor.new_zeros(self.ends.numel() - 1, factor.shape[1])
        entries = values if self.order is None else values.index_select(0, self.order)
        if factor.device.type != "cpu":
            shape = (self.ends.numel() - 1, factor.shape[0])
            return _csr(self.ends, self.sources, entries, shape) @ factor
        return functional.embedding_bag(
            self.sources, factor, self.ends, mode="sum", per_sample_weights=entries, include_last_offset=True
        )

    def sampled(self, left: Tensor, right: Tensor) -> Tensor:
        """For each entry the dot product of its row of `left` [rows, n] and its row of `right` [sources, n]; [entries].

        It is the gradient of the entries, where `left` is the gradient of the product and `right` the factor.
        """
        if left.numel() == 0:  # an empty batch
            return left.new_zeros(self.sources.numel())
        # What stands in the matrix plays no part, but it must be finite: it is multiplied by zero.
        entries = left.new_zeros(self.sources.numel())
        pattern = _csr(self.ends, self.sources, entries, (self.ends.numel() - 1, right.shape[0]))
        return torch.sparse.sampled_addmm(pattern, left, right.t(), beta=0.0).values()


def bags_by(rows: Tensor, count: int, sources: Tensor, order: Tensor | None) -> Bags:
    """Bags of entries that are in no order: the row of the product each belongs to, its source and its value.

    In linear time on a CPU.

    Raises:
        ValueError: more entries, rows or sources than 32 bits count.
    """
    if max(count, rows.numel(), int(sources.max()) if sources.numel() else 0) > _LARGEST:
        raise ValueError(f"a sparse product of {count} rows and {rows.numel()} entries is too large")
    ends, sorting = _counting_sort(rows.to(torch.int32), count)
    order = sorting if order is None else order.index_select(0, sorting)
    return Bags(ends, sources.index_select(0, sorting).to(torch.int32), order.to(torch.int32))


class Csr:
    """The structure of a sparse matrix, and of its transpose.

    Args:
        positions: flat row-major positions of the nonzeros, int64, ascending; in this order their values are given.
        shape: rows, columns.

    Attributes:
        by_rows: makes W·x of x.
        by_columns: makes Wᵀ·y of y.

    Raises:
        ValueError: more nonzeros, rows or columns than 32 bits count.
    """

    def __init__(self, positions: Tensor, shape: tuple[int, int]) -> None:
        rows, columns = shape
        if max(rows, columns, positions.numel()) > _LARGEST:
            raise ValueError(f"a sparse matrix of {rows} × {columns} with {positions.numel()} nonzeros is too large")
        row_starts = torch.arange(rows + 1, device=positions.device) * columns
        ends = torch.searchsorted(positions, row_starts).to(torch.int32)
        column = (positions % columns).to(torch.int32)
        self.by_rows = Bags(ends, column)
        self.by_columns = bags_by(column, columns, (positions // columns).to(torch.int32), None)

    @property
    def tensors(self) -> list[Tensor]:
        """All memory of the structure: 12 bytes a nonzero, 4 a row and 4 a column."""
        return [*self.by_rows.tensors, *self.by_columns.tensors]


def _csr(ends: Tensor, indices: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_csr_tensor(ends, indices, values, shape, check_invariants=False)


def _counting_sort(keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Where each of the keys 0 … count − 1 (int32) ends in sorted order (int32, 0 first), and that order; stable."""
    if keys.device.type != "cpu":
        order = torch.argsort(keys, stable=True)
        ends = torch.searchsorted(keys[order], torch.arange(count + 1, dtype=torch.int32, device=keys.device))
        return ends.to(torch.int32), order
    import scipy.sparse  # late: it takes long to import, and masked training does without it

    size = keys.numel()
    row = (np.arange(size, dtype=np.int32), keys.numpy(), np.array([0, size], dtype=np.int32))
    by_key = scipy.sparse.csr_matrix(row, shape=(1, count), copy=False).tocsc()
    ends = torch.from_numpy(by_key.indptr.astype(np.int32, copy=False))
    return ends, torch.from_numpy(by_key.data)


with warnings.catch_warnings():  # PyTorch calls its CSR tensors beta, once a process, to whoever makes the first
    warnings.simplefilter("ignore")
    _csr(torch.zeros(2, dtype=torch.int32), torch.zeros(0, dtype=torch.int32), torch.zeros(0), (1, 1))
