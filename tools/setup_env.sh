#!/usr/bin/env bash
# Make .venv with the tested stack, and re-use what is already there.
#
#   bash tools/setup_env.sh            what trains, evaluates and draws
#   bash tools/setup_env.sh --tests    also pytest, ONNX, OpenVINO, CoreML, mim
#
# tools/quickstart.sh and tools/run_tests.sh call this. It can be interrupted
# and run again: each step that ended is remembered by a hash of what it was
# made from, and mmcv's compilation goes on with the files it has.
#
# Settings, all by environment variable:
#   PYTHON                 the interpreter for a new .venv: 3.10, 3.11 or 3.12
#   TORCH_INDEX            an index to take torch and torchvision from; that of
#                          PyTorch's CPU builds saves some 2 GB to fetch
#   PIP_FIND_LINKS         a folder of ready wheels, mmcv's for example
#   MAX_JOBS               compilers that run at a time; all cores by default
#   CUDA_HOME              the CUDA toolkit, of torch's CUDA version
#   FORCE_CUDA=1           build CUDA operators where no GPU is visible
#   CUDA_VISIBLE_DEVICES=  (empty) build for the CPU where one is
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VENV=.venv STATE=.venv/setup
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
export PIP_ROOT_USER_ACTION=ignore
# torch finds ninja by PATH and compiles one file at a time without it.
export PATH="$PWD/$VENV/bin:$PATH"

say() {
    printf '[setup %02d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"
}

fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

python() { "$VENV/bin/python" "$@"; }

pip() { python -m pip "$@"; }

# The pinned versions for every install.
pip_install() { pip install --constraint requirements/lock.txt "$@"; }

pinned() { sed -n "s/^$1==//p" requirements/lock.txt; }

# All files below the given paths that a build reads, names and contents.
hash_files() {
    find "$@" -type f -not -path '*/build/*' -not -path '*/__pycache__/*' \
        -not -path '*.egg-info/*' -not -name '*.so' -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c 1-16
}

# step KEY FUNCTION ...: run a function unless it ended with that key before.
step() {
    local file=$STATE/${2#install_}
    [[ -f $file && $(<"$file") == "$1" ]] && return
    "${@:2}"
    printf '%s\n' "$1" >"$file"
    changed=1
}

# Run a compilation with its output in a log and ninja's count on the screen.
compile() {
    local name=$1 log=$STATE/$1.log
    shift
    export MAX_JOBS=${MAX_JOBS:-$(nproc)}
    if ! "$@" 2>&1 | tee "$log" |
        sed -nu "s|^ *\(\[[0-9]*/[0-9]*\]\).*|[setup] $name: file \1|p"; then
        tail -n 30 "$log" >&2
        fail "building $name failed; the whole output is in $log" \
            'It needs g++ and python3-dev, and for a GPU the CUDA toolkit;' \
            'CUDA_VISIBLE_DEVICES= (empty) builds for the CPU.'
    fi
}

find_python() {
    local candidate tried=()
    # A name on PATH may be a shim for a version that is not there, and a
    # system's Python may come without venv: only running it tells.
    for candidate in "${PYTHON:-python3.11}" python3 python3.12 python3.10; do
        command -v "$candidate" >/dev/null || continue
        if "$candidate" -c 'import ensurepip, sys, venv
sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
        tried+=("$candidate ($("$candidate" --version 2>&1 | head -n 1))")
        [[ -z ${PYTHON:-} ]] || break
    done
    fail 'Python 3.10, 3.11 or 3.12 with its venv module is needed.' \
        "Found: ${tried[*]:-no Python at all}." \
        'Install one (Debian, Ubuntu: python3 python3-venv python3-dev), or' \
        'name one: PYTHON=/path/to/python3.11 bash tools/setup_env.sh'
}

install_torch() {
    say 'torch: 530 MB to fetch, and some 2 GB of CUDA libraries;' \
        'TORCH_INDEX, see tools/setup_env.sh, may name a smaller build'
    pip_install pip
    pip_install setuptools wheel ninja
    pip_install torch torchvision ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
}

install_libraries() {
    say 'MMDetection, MMSegmentation, MMPretrain and what they need'
    pip_install -r requirements/runtime.txt -r requirements/det.txt \
        -r requirements/seg.txt -r requirements/cls.txt
    if ! python -c 'import cv2' 2>/dev/null; then
        say 'no libGL on this machine: OpenCV without windows instead'
        pip install --no-deps --force-reinstall \
            "opencv-python-headless==$(pinned opencv-python)"
    fi
}

install_test_libraries() {
    say 'what the tests run with: pytest, ONNX, OpenVINO, CoreML, mim'
    pip_install -r requirements/deploy.txt -r requirements/openvino.txt \
        -r requirements/coreml.txt -r requirements/tests.txt
    # With its dependencies it would pull setuptools below what we need.
    pip_install --no-deps openmim
}

# Prints the compute capabilities to build for, or nothing for the CPU.
visible_gpus() {
    python - <<'PY'
import os

import torch

count = torch.cuda.device_count() if torch.cuda.is_available() else 0
gpus = {'%d.%d' % torch.cuda.get_device_capability(i) for i in range(count)}
if not gpus and os.environ.get('FORCE_CUDA') == '1':
    gpus = {os.environ.get('TORCH_CUDA_ARCH_LIST', 'all')}
print(*sorted(gpus))
PY
}

# A bare toolkit lacks the headers of CUDA's libraries, which came with torch.
add_cuda_headers() {
    local folder
    for folder in "$PWD/$VENV"/lib/python*/site-packages/nvidia/*/include; do
        CPLUS_INCLUDE_PATH=${CPLUS_INCLUDE_PATH:+$CPLUS_INCLUDE_PATH:}$folder
        NVCC_PREPEND_FLAGS="${NVCC_PREPEND_FLAGS:-} -isystem $folder"
    done
    export CPLUS_INCLUDE_PATH NVCC_PREPEND_FLAGS
}

install_mmcv() {
    local version source
    version=$(pinned mmcv)
    say "mmcv $version: looking for a ready wheel"
    if [[ -z $gpus ]] && pip_install --only-binary mmcv mmcv \
        &>"$STATE/mmcv.log" && python -c "import mmcv.ops" 2>/dev/null; then
        return
    fi
    say "mmcv $version: compiling it, some 6 minutes on two cores," \
        'or 70 with CUDA operators'
    # The folder stays until the end, so that a stopped build can go on.
    source=$STATE/mmcv-$version-${gpus:-cpu}
    if [[ ! -f $source/setup.py ]]; then
        pip download --quiet --no-deps --no-build-isolation \
            --no-binary mmcv --dest "$STATE" "mmcv==$version"
        rm -rf "$source.part" && mkdir "$source.part"
        tar -xzf "$STATE/mmcv-$version.tar.gz" --strip-components 1 \
            -C "$source.part"
        mv "$source.part" "$source"
    fi
    # Python's own flags ask for debug symbols, which double the minutes.
    CFLAGS="${CFLAGS:-} -g0 -O2" CXXFLAGS="${CXXFLAGS:-} -g0 -O2" \
        MMCV_WITH_OPS=1 FORCE_CUDA=$((${#gpus} > 0)) \
        compile mmcv "$VENV/bin/python" -m pip install --verbose --no-deps \
        --no-build-isolation --force-reinstall "./$source"
    python -c 'import mmcv.ops'
    rm -rf "$source" "$STATE/mmcv-$version.tar.gz"
}

install_extension() {
    say 'the selective scan extension: compiling it'
    compile extension "$VENV/bin/python" -m pip install --verbose --no-deps \
        --no-build-isolation ./ext/selective_scan
}

install_package() {
    say 'mmmobilemamba itself, editable'
    pip install --quiet --no-deps --no-build-isolation --editable .
}

[[ -z ${1:-} || $1 == --tests ]] ||
    fail "unknown argument $1; allowed is --tests"

changed=
if ! python -c 'import pip' 2>/dev/null; then
    found=$(find_python)
    say "new environment in $VENV with $("$found" --version)"
    "$found" -m venv --clear "$VENV"
fi
mkdir -p "$STATE"
step "$(grep -E '^(pip|setuptools|wheel|ninja|torch.*)==' \
    requirements/lock.txt) ${TORCH_INDEX:-}" install_torch
libraries=$(hash_files requirements)
step "$libraries" install_libraries
if [[ -n ${1:-} ]]; then
    step "$libraries" install_test_libraries
fi
gpus=$(visible_gpus)
# What was built for the GPU serves while the GPU is hidden, too.
if [[ -z $gpus && -f $STATE/gpus ]]; then
    gpus=$(<"$STATE/gpus")
fi
[[ -z $gpus ]] || add_cuda_headers
target="torch $(pinned torch), ${gpus:-cpu}"
step "mmcv $(pinned mmcv), $target" install_mmcv
printf '%s\n' "$gpus" >"$STATE/gpus"
step "$target $(cd ext/selective_scan &&
    hash_files setup.py pyproject.toml selective_scan csrc)" install_extension
step "$PWD $(hash_files setup.py pyproject.toml requirements \
    mmmobilemamba/version.py configs tools model-index.yml)" install_package
if [[ -n $changed ]]; then
    python -W ignore tools/collect_env.py
fi
say "environment ready in $VENV"
