#!/usr/bin/env bash
# Set the environment up where it is missing, then run the tests: all but the
# slow ones, with --slow these too, or what other arguments choose, which are
# pytest's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly NOTHING_COLLECTED=5 EXT=ext/selective_scan

bash tools/setup_env.sh --tests
python=$PWD/.venv/bin/python

if [[ ${1:-} == --slow ]]; then
    shift
    set -- -m '' "$@"
fi
for argument in "$@"; do
    if [[ -e ${argument%%::*} ]]; then
        exec "$python" -m pytest "$@"
    fi
done

# A process for each core; tests of one file share fixtures that take long.
parallel=(--numprocesses "$(nproc)" --dist loadfile)
# Two runs, as the extension is a distribution of its own with its own
# settings. Options such as -k may leave one of them without a test.
status=0
"$python" -m pytest "${parallel[@]}" "$@" || status=$?
# By path and not from its folder, where its sources would be imported in
# place of what is installed.
ext_status=0
"$python" -m pytest "${parallel[@]}" "$EXT/tests" "$@" || ext_status=$?
case $status,$ext_status in
0,$NOTHING_COLLECTED) ;;
0,* | "$NOTHING_COLLECTED",*) status=$ext_status ;;
esac
printf 'Set-up and tests took %d min %02d s.\n' \
    $((SECONDS / 60)) $((SECONDS % 60))
exit "$status"
