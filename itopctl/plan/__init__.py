"""What would be done, and what it would explore and cost: values to print, test or carry out.

Pure: nothing here starts, writes, trains, or imports torch. `runs.py` the runs of some specs by what is to be done
with them · `versions.py` runs by other versions of the user's own code · `predicted_exploration.py` the exploration
rate of one run · `forecast.py` steps, updates, FLOPs, memory and disk of each run · `history.py` time, from finished
runs · `totals.py` of a whole plan · `warnings.py` what is likely a mistake, in sentences · `reach.py` the update
interval that reaches an exploration rate · `unmade.py` runs that cannot be made, and what is said of them ·
`planned_run.py` a run with all that is known before it · `tables.py` forecasts as tables. What a run's model looks
like is told them as an `Outline` (`itopctl.dst.network_outline`); `itopctl.train.model_outline` makes one.
"""

from itopctl.plan.runs import Plan, PlannedSweep, make_plan

__all__ = ["Plan", "PlannedSweep", "make_plan"]
