#!/usr/bin/env bash
# Evaluate as a Slurm job, one task per GPU:
#   tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT \
#       [arguments of test.py]
# Environment: GPUS (8), GPUS_PER_NODE (8; 0 asks for none), CPUS_PER_TASK (5),
# SRUN_ARGS (further arguments of srun), MASTER_PORT, PYTHON.
set -euo pipefail

PARTITION=${1:?the partition is missing}
JOB_NAME=${2:?the name of the job is missing}
CONFIG=${3:?the config is missing}
CHECKPOINT=${4:?the checkpoint is missing}
GPUS=${GPUS:-8}
PER_NODE=$((GPUS < ${GPUS_PER_NODE:=8} ? GPUS : GPUS_PER_NODE))
TOOLS=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

# SRUN_ARGS holds several words, and the options for GPUs may be none.
# shellcheck disable=SC2046,SC2086
PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}" \
    exec srun -p "$PARTITION" --job-name="$JOB_NAME" --ntasks="$GPUS" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 \
    $( ((PER_NODE)) && echo "--gres=gpu:$PER_NODE" \
        "--ntasks-per-node=$PER_NODE") ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$TOOLS/test.py" "$CONFIG" "$CHECKPOINT" \
    --launcher=slurm "${@:5}"
