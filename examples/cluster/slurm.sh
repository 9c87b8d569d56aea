#!/bin/bash
# One run on two nodes under SLURM, a process for each node; it is requeued when it is preempted, and goes on.
#   sbatch examples/cluster/slurm.sh
#SBATCH --job-name=maml
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --open-mode=append

# --signal: SIGTERM 120 s before the time limit, to every process; each chunk of log_every iterations must take less
out=$SCRATCH/runs/maml # on a file system that all nodes see
resume=""
if [ -f "$out/config.json" ]; then resume=--resume; fi

srun jaxrl-hier train maml --distributed --iterations 5000 --out "$out" $resume
code=$?
if [ $code -eq 143 ]; then # stopped by SIGTERM and saved
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
