"""Starting runs and knowing what became of them. Does not know what is being trained, but for `worker.py`'s one call.

`causes.py` why an attempt ended · `worker.py` the process that trains · `slots.py` places for such
processes on this machine · `pool.py` a pool of them · `manifest.py` what a sweep leaves on disk before anything starts.
"""
