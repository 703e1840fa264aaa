"""The command line: one thin file per verb. Everything is called here, nothing is computed.

Heavy imports (sqlalchemy, rich, torch) stand inside the functions, so that `--help` and completion are instant.
"""
