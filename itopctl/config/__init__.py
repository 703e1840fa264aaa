"""From a YAML file to run configs: reading, schema, expansion, identity. Knows neither torch nor the store.

`reading.py` YAML text → plain data with line numbers · `sweep.py` the shape of a spec file · `run_config.py` one
resolved run · `resolve.py` what was written + a method's preset → a run config · `expand.py` a spec → its runs ·
`identity.py` the run id · `editor.py` JSON Schema for editors.
"""
