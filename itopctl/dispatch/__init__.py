"""Starting runs and knowing what became of them. Does not know what is being trained, but for `worker.py`'s one call.

`causes.py` why an attempt ended · `worker.py` the process that trains · `pool.py` a pool of such processes on this
machine · `manifest.py` what a sweep leaves on disk before anything starts.
"""
