#!/bin/bash

# Parameters
#SBATCH --array=0-1%1
#SBATCH --chdir='/home/me/its results/snapshots/0123456789ab'
#SBATCH --dependency=afterany:9
#SBATCH --error='/home/me/its results/submissions/cifar100-0badc0de/%A_%a_0_log.err'
#SBATCH --job-name=cifar100-0badc0de
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output='/home/me/its results/submissions/cifar100-0badc0de/%A_%a_0_log.out'
#SBATCH --requeue
#SBATCH --signal=USR2@90

# setup
export PYTHONPATH='/home/me/its results/snapshots/0123456789ab'${PYTHONPATH:+:$PYTHONPATH}

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '/home/me/its results/submissions/cifar100-0badc0de/%A_%a_%t_log.out' --error '/home/me/its results/submissions/cifar100-0badc0de/%A_%a_%t_log.err' /usr/bin/python3 -u -c 'import sys; sys.path[:] = filter(None, sys.path); import runpy; sys.argv.pop(0); runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)' itopctl.dispatch.job '/home/me/its results/submissions/cifar100-0badc0de'
