#!/usr/bin/env bash
# Builds the CPU code with AddressSanitizer and UndefinedBehaviorSanitizer and
# runs the tests on it. Needs GCC on Linux. Arguments go to pytest;
# SCAN_EXAMPLES=100 asks for 100 times as many random calls, new ones each run.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python}
work=$here/build/sanitized
mkdir -p "$work/package"

cd "$here"
FORCE_CUDA=0 SELECTIVE_SCAN_SANITIZE=1 "$python" setup.py -q build_ext \
  --build-temp "$work/objects" --build-lib "$work/package"
cp selective_scan/*.py "$work/package/selective_scan/"

# Run from the package's folder, so that neither the source folder nor an
# installed build is imported. Python itself leaks by design; the C++ library
# comes along so that the sanitizer finds what throws. pytest must leave the
# output alone (-s), or a report would be lost with the process.
cd "$work/package"
export LD_PRELOAD ASAN_OPTIONS UBSAN_OPTIONS PYTHONPATH OMP_NUM_THREADS
LD_PRELOAD="$(gcc -print-file-name=libasan.so) \
$(gcc -print-file-name=libstdc++.so)"
# More memory than there is must fail as it does without the sanitizer.
ASAN_OPTIONS=detect_leaks=0:halt_on_error=1:allocator_may_return_null=1
UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
PYTHONPATH=$work/package
OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
exec "$python" -m pytest -q -s -p no:cacheprovider "$here/tests" \
  --ignore="$here/tests/test_cuda_compiles.py" "$@"
