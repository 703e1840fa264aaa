"""Data sets: `catalogue.py` their names and sizes (light) · `files.py` on-disk formats · `tensors.py` on the device."""
