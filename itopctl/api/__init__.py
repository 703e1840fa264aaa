"""Everything that itopctl does, from Python: `project.py` has the one object, `Project`.

It is made of `workplace.py` where results and data lie · `project_runs.py` from specs to runs · `project_results.py`
what is recorded · `project_upkeep.py` cancelling, deleting, exporting, checking. These call: `opening.py` results
folders and their stores · `specs.py` specs to plans · `forecasting.py` what runs will explore and cost · `worklist.py`
runs that are to be made · `running.py` a pool on this machine · `cluster.py` SLURM · `retrying.py` failed runs again ·
`exporting.py` a trained network as a file · `diagnosis.py` whether machine and cluster are fit · `logs.py` what runs
print · `report_request.py` what a report is asked for · `sources.py` runs as records, from one or several stores ·
`reporting.py` tables · `figures.py` what figures are made from · `page.py`, `page_figures.py` the HTML page ·
`frames.py` records as pandas frames · `files.py` files that the user names. Nothing here prints.
"""
