"""Tests of the engine compute on tiny tensors: one thread each is fastest, and tests run beside each other."""

import torch

torch.set_num_threads(1)
