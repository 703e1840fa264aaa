"""Run directories, journals, and the database that indexes them. Knows neither torch nor a scheduler.

`rundir.py` the files of one run · `files.py` reading and writing them · `journal.py` their event log ·
`submissions.py` what a scheduler was given · `archives.py` export and import · `tables.py` the database's tables ·
`database.py` opening and writing it · `integrity.py` whether its content can be trusted · `run_update.py` the rows that
follow from a run's files · `ingest.py` all of these → database · `queries.py` what people ask of it.

The run directories and the sweep manifests are the truth; the database can be deleted and is rebuilt from them. That
is also what happens to an index of an older version (`migration.py`).
"""

GOES_ON = frozenset({"timeout", "preempted", "node-failure", "killed"})
"""Causes of an attempt's end after which a job that is not over tries its run again by itself."""

STATES = ("queued", "pending", "running", "done", "failed", "lost")
"""What a run can be: not started, waiting at a scheduler, at some process, finished, ended by an error, or gone
without a word."""
