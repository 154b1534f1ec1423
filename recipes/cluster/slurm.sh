#!/bin/bash
# An audit as a Slurm array without Ray: one shard and one GPU a job. Then `findnemo merge`, and `findnemo verify` for the quality check.
#
#     MODEL=owner/model PROMPTS=captions.parquet CALIBRATION=calibration OUT=/scratch/audit sbatch --array=1-64 recipes/cluster/slurm.sh
#     findnemo merge "$OUT/run" "$OUT"/shard-* && findnemo verify "$OUT/run"
#
# A job that is preempted or killed is put back into the queue and goes on where it stopped: what was committed is kept.
#SBATCH --job-name=findnemo
#SBATCH --gpus=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@60
#SBATCH --output=findnemo-%A-%a.log
set -euo pipefail
: "${MODEL:?the model: a hub id or a directory that every node sees}" "${PROMPTS:?the table of captions}"
: "${CALIBRATION:?made once by findnemo calibrate}" "${OUT:?a directory that every node sees}"

srun findnemo audit "$MODEL" --prompts "$PROMPTS" --calibration "$CALIBRATION" \
  --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --out "$OUT/shard-$SLURM_ARRAY_TASK_ID" --quiet
