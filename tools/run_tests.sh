#!/usr/bin/env bash
# Set the environment up where it is missing, then run the tests: all of them,
# or what the arguments choose, which are pytest's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly NOTHING_COLLECTED=5 EXT=ext/selective_scan

bash tools/setup_env.sh
python=$PWD/.venv/bin/python

for argument in "$@"; do
    if [[ -e ${argument%%::*} ]]; then
        exec "$python" -m pytest "$@"
    fi
done

# Two runs, as the extension is a distribution of its own with its own
# settings. Options such as -k may leave one of them without a test.
status=0
"$python" -m pytest "$@" || status=$?
if [[ -d $EXT/tests ]]; then
    ext_status=0
    # By path and not from its folder, where its sources would be imported
    # in place of what is installed.
    "$python" -m pytest "$EXT/tests" "$@" || ext_status=$?
    case $status,$ext_status in
    0,$NOTHING_COLLECTED) ;;
    0,* | "$NOTHING_COLLECTED",*) status=$ext_status ;;
    esac
fi
printf 'Set-up and tests took %d min %02d s.\n' \
    $((SECONDS / 60)) $((SECONDS % 60))
exit "$status"
