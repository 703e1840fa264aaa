"""Truly sparse layers: weights, gradients and optimizer state exist only at the nonzeros, on PyTorch's own CSR kernels.

Not which weights are active (`itopctl.dst.update`).

`positioned.py` values that know where they stand · `meeting.py` operations on such values · `parameter.py` the weight
of a layer · `module.py` what layers have in common · `derivative.py` backward passes, which have no graph ·
`csr.py` products by nonzeros · `linear.py`, `convolution.py` the layers · `tables.py` what convolutions multiply rows
of · `batch_last.py` the memory layout between them · `factored.py` their dense gradients. Which arithmetic is faster:
`itopctl.dst.speed`.
"""
