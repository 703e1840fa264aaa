"""itopctl: sweeps of dynamic sparse training, from a YAML file to a table.

This package module is imported by everything, `itopctl --help` included: it must stay empty of imports.
"""

__version__ = "0.1.0"
