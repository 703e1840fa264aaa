"""Starting runs and knowing what became of them. Does not know what is being trained, but for `worker.py`'s one call.

`causes.py` why an attempt ended · `attempt.py` one attempt at a run · `lost_attempts.py` its end, where it cannot say
so itself · `worker.py` the process that trains · `slots.py` places for such processes on a machine · `pool.py` a pool
of them · `manifest.py` what a sweep leaves on disk before anything starts · `trial.py` making each model once before
that.

`scheduler.py` what a scheduler is asked · `slurm.py` SLURM's answers · `slurm_states.py` what its words mean ·
`snapshot.py` the code that jobs run · `script.py` the batch script · `submitter.py` from runs to arrays of jobs ·
`job.py` what runs in a job · `reconcile.py` what became of them · `cancellation.py` calling them off · `deletion.py`
deleting sweeps and runs for good.
"""
