#!/usr/bin/env bash
# Set the environment up, then train, evaluate and draw on embedded data.
# Arguments go to tools/quickstart.py; --help lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

minutes() { printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); }

bash tools/setup_env.sh
setup=$SECONDS
.venv/bin/python tools/quickstart.py "$@"
printf 'Set-up took %s, the main job %s.\n' \
    "$(minutes "$setup")" "$(minutes $((SECONDS - setup)))"
