"""Benchmarks of the figures in the README; run with `make bench` or `python -m benchmarks [NAME…]`."""
