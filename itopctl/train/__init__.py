"""One run: data, model, training loop. One resolved run config in, events out. Knows neither SLURM nor the store.

`data/` data sets as tensors on the device · `models/` the networks · `optim.py` optimizer and learning rate ·
`setup.py` device, determinism, seeds · `loop.py` the training · `measure.py` what a run measures of itself.
"""
