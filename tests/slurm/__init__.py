"""A real SLURM cluster on one machine, for tests.

`cluster.py` what tests and `make` use · `config.py` its settings and files · `layout.py` writing them ·
`daemons.py` its daemons by name · `processes.py` processes and jobs · `packages.py` Debian's packages ·
`sockets.py` ports.
"""
