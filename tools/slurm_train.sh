#!/usr/bin/env bash
# Train as a Slurm job, one task per GPU:
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR \
#       [arguments of train.py]
# Environment: GPUS (8), GPUS_PER_NODE (8; 0 asks for none), CPUS_PER_TASK (5),
# SRUN_ARGS (further arguments of srun), MASTER_PORT, PYTHON.
set -euo pipefail

if (($# < 4)); then
    echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR" \
        "[arguments of train.py]" >&2
    exit 2
fi
PARTITION=$1
JOB_NAME=$2
CONFIG=$3
WORK_DIR=$4
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
TOOLS=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

RESOURCES=(--ntasks="$GPUS" --cpus-per-task="${CPUS_PER_TASK:-5}")
if ((GPUS_PER_NODE > 0)); then
    PER_NODE=$((GPUS < GPUS_PER_NODE ? GPUS : GPUS_PER_NODE))
    RESOURCES+=(--gres="gpu:$PER_NODE" --ntasks-per-node="$PER_NODE")
fi

# SRUN_ARGS holds several words.
# shellcheck disable=SC2086
PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}" \
    exec srun -p "$PARTITION" --job-name="$JOB_NAME" "${RESOURCES[@]}" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$TOOLS/train.py" "$CONFIG" --work-dir="$WORK_DIR" \
    --launcher=slurm "${@:5}"
