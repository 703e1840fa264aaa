#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --array=0-49%20
#SBATCH --chdir='/home/me/it'"'"'s "mine"/snapshots/0123456789ab/experiments'
#SBATCH --comment='it'"'"'s "mine"'
#SBATCH --constraint='a100|h100'
#SBATCH --cpus-per-task=8
#SBATCH --dependency=afterok:12:13_4,afterany:9
#SBATCH --error='/home/me/it'"'"'s "mine"/submissions/cifar100-0badc0de/%A_%a_0_log.err'
#SBATCH --exclusive
#SBATCH --gpus-per-node=a100:2
#SBATCH --job-name=cifar100-0badc0de
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mail-user=me@lab
#SBATCH --mem=64G
#SBATCH --nice=100
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output='/home/me/it'"'"'s "mine"/submissions/cifar100-0badc0de/%A_%a_0_log.out'
#SBATCH --partition=gpu,long
#SBATCH --qos=high
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=600

# setup
module load cuda
echo "it's $HOSTNAME"
export PYTHONPATH='/home/me/it'"'"'s "mine"/snapshots/0123456789ab'${PYTHONPATH:+:$PYTHONPATH}

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '/home/me/it'"'"'s "mine"/submissions/cifar100-0badc0de/%A_%a_%t_log.out' --error '/home/me/it'"'"'s "mine"/submissions/cifar100-0badc0de/%A_%a_%t_log.err' --cpus-per-task=8 /usr/bin/python3 -u -c 'import sys; sys.path[:] = filter(None, sys.path); import runpy; sys.argv.pop(0); runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)' itopctl.dispatch.job '/home/me/it'"'"'s "mine"/submissions/cifar100-0badc0de'
