"""A real SLURM cluster on one machine, for tests, and the tests of itopctl on it.

`cluster.py` what tests and `make` use · `config.py` its settings and files · `layout.py` writing them ·
`daemons.py` its daemons by name · `processes.py` processes and jobs · `packages.py` Debian's packages ·
`sockets.py` ports.

`place.py` a results folder of one test on it: what the tests of itopctl itself use.
"""
