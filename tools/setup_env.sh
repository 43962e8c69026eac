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
#   CUDA_HOME              the CUDA toolkit
#   FORCE_CUDA=1           build CUDA operators where no GPU is visible
#   CUDA_VISIBLE_DEVICES=  (empty) build for the CPU where one is
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VENV=.venv STATE=.venv/setup STEPS=6 WANTED=${1:-}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
export PIP_ROOT_USER_ACTION=ignore
# torch finds ninja by PATH and compiles one file at a time without it.
export PATH="$PWD/$VENV/bin:$PATH"
step=0
changed=0

say() {
    printf '[setup %d/%d %02d:%02d] %s\n' \
        "$step" "$STEPS" $((SECONDS / 60)) $((SECONDS % 60)) "$*"
}

fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

hash_of() { sha256sum | cut -c 1-16; }

# All files below the given paths that a build reads, names and contents.
hash_files() {
    find "$@" -type f -not -path '*/build/*' -not -path '*/__pycache__/*' \
        -not -path '*.egg-info/*' -not -name '*.so' -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum | hash_of
}

is_done() { [[ -f $STATE/$1 && $(<"$STATE/$1") == "$2" ]]; }

mark_done() {
    printf '%s\n' "$2" >"$STATE/$1"
    changed=1
}

pip() { "$VENV/bin/python" -m pip "$@"; }

# --no-input and the pinned versions for every install.
pip_install() { pip install --constraint requirements/lock.txt "$@"; }

pinned() { sed -n "s/^$1==//p" requirements/lock.txt; }

# Run a compilation with its output in a log and ninja's count on the screen.
compile() {
    local name=$1 log=$STATE/$1.log
    shift
    if ! "$@" 2>&1 | show_count "$name" "$log"; then
        tail -n 30 "$log" >&2
        fail "building $name failed; the whole output is in $log"
    fi
}

show_count() {
    local name=$1 log=$2 line count total
    : >"$log"
    while IFS= read -r line; do
        printf '%s\n' "$line" >>"$log"
        [[ $line =~ ^\ *\[([0-9]+)/([0-9]+)\] ]] || continue
        count=${BASH_REMATCH[1]} total=${BASH_REMATCH[2]}
        if [[ -t 1 ]]; then
            printf '\r%s ' "$(say "$name: file $count of $total")"
            ((count < total)) || printf '\n'
        elif ((count % 5 == 0 || total < 20)); then
            say "$name: file $count of $total"
        fi
    done
}

find_python() {
    local candidate tried=()
    # A name on PATH may be a shim for a version that is not there, and a
    # system's Python may come without venv: only running it tells.
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3 python3.12 \
        python3.10; do
        command -v "$candidate" >/dev/null || continue
        if "$candidate" - 2>/dev/null <<'PY'; then
import ensurepip, sys, venv
sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))
PY
            printf '%s\n' "$candidate"
            return
        fi
        tried+=("$candidate ($("$candidate" --version 2>&1 | head -n 1))")
        [[ $candidate != "${PYTHON:-}" ]] || break
    done
    fail 'Python 3.10, 3.11 or 3.12 with its venv module is needed.' \
        "Found: ${tried[*]:-no Python at all}." \
        'Install one (Debian, Ubuntu: python3 python3-venv python3-dev), or' \
        'name one: PYTHON=/path/to/python3.11 bash tools/setup_env.sh'
}

make_venv() {
    if ! "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
        local python
        python=$(find_python)
        say "new environment in $VENV with $("$python" --version)"
        "$python" -m venv --clear "$VENV"
    fi
    mkdir -p "$STATE"
}

install_torch() {
    local key=$1 index=()
    is_done torch "$key" && return
    if [[ -n ${TORCH_INDEX:-} ]]; then
        index=(--index-url "$TORCH_INDEX")
        say "torch from $TORCH_INDEX"
    else
        say 'torch: 530 MB to fetch, and some 2 GB of CUDA libraries;' \
            'TORCH_INDEX, see tools/setup_env.sh, may name a smaller build'
    fi
    pip_install pip
    pip_install setuptools wheel ninja
    pip_install torch torchvision ${index[@]+"${index[@]}"}
    mark_done torch "$key"
}

install_libraries() {
    local key=$1
    is_done libraries "$key" && return
    say 'MMDetection, MMSegmentation, MMPretrain and what they need'
    pip_install -r requirements/runtime.txt -r requirements/det.txt \
        -r requirements/seg.txt -r requirements/cls.txt
    if ! "$VENV/bin/python" -c 'import cv2' 2>/dev/null; then
        say 'no libGL on this machine: OpenCV without windows instead'
        pip install --no-deps --force-reinstall \
            "opencv-python-headless==$(pinned opencv-python)"
    fi
    mark_done libraries "$key"
}

install_test_libraries() {
    local key=$1
    is_done tests "$key" && return
    say 'what the tests run with: pytest, ONNX, OpenVINO, CoreML, mim'
    pip_install -r requirements/deploy.txt -r requirements/openvino.txt \
        -r requirements/coreml.txt -r requirements/tests.txt
    # With its dependencies it would pull setuptools below what we need.
    pip_install --no-deps openmim
    mark_done tests "$key"
}

# Prints the compute capabilities to build for, or nothing for the CPU.
visible_gpus() {
    "$VENV/bin/python" - <<'PY'
import os

import torch

count = torch.cuda.device_count() if torch.cuda.is_available() else 0
gpus = {'%d.%d' % torch.cuda.get_device_capability(i) for i in range(count)}
if not gpus and os.environ.get('FORCE_CUDA') == '1':
    gpus = {os.environ.get('TORCH_CUDA_ARCH_LIST', 'all')}
print(*sorted(gpus))
PY
}

check_compiler() {
    command -v "${CXX:-c++}" >/dev/null || fail \
        "no C++ compiler (${CXX:-c++}), which mmcv's operators need." \
        'Debian, Ubuntu: apt install g++'
    local include
    include=$("$VENV/bin/python" -c \
        'import sysconfig; print(sysconfig.get_path("include"))')
    [[ -f $include/Python.h ]] || fail \
        "no Python.h in $include, which mmcv's operators need." \
        'Debian, Ubuntu: apt install python3-dev'
}

# Prints the toolkit's folder. An nvcc on PATH may be a script that only calls
# the real one, so its headers have to be there as well.
find_toolkit() {
    local nvcc folder candidates=(/usr/local/cuda)
    if [[ -n ${CUDA_HOME:-} ]]; then
        candidates=("$CUDA_HOME")
    elif nvcc=$(command -v nvcc); then
        nvcc=$(readlink -f "$nvcc")
        candidates=("${nvcc%/bin/nvcc}" "${candidates[@]}")
    fi
    for folder in "${candidates[@]}"; do
        if [[ -x $folder/bin/nvcc && -f $folder/include/cuda_runtime.h ]]; then
            printf '%s\n' "$folder"
            break
        fi
    done
}

# The toolkit has to be there and of torch's major version. Sets CUDA_HOME and
# makes up for the library headers that a bare toolkit lacks.
prepare_cuda() {
    local wanted found
    CUDA_HOME=$(find_toolkit)
    wanted=$("$VENV/bin/python" -c 'import torch; print(torch.version.cuda)')
    local cpu='To go on without the GPU, set CUDA_VISIBLE_DEVICES= (empty).'
    [[ -n $CUDA_HOME ]] || fail \
        "CUDA operators are wanted for GPU $1, but no CUDA toolkit is found." \
        "Install CUDA $wanted's or set CUDA_HOME to it." "$cpu"
    found=$("$CUDA_HOME/bin/nvcc" --version |
        sed -n 's/.*release \([0-9.]*\),.*/\1/p')
    [[ ${found%%.*} == "${wanted%%.*}" ]] || fail \
        "nvcc in $CUDA_HOME is of CUDA $found, torch of CUDA $wanted." \
        "Set CUDA_HOME to a CUDA ${wanted%%.*} toolkit." "$cpu"
    export CUDA_HOME
    local header
    for header in cublas_v2.h cusolverDn.h cusparse.h; do
        [[ -f $CUDA_HOME/include/$header ]] && continue
        header=$(find "$VENV"/lib/python*/site-packages/nvidia \
            -path "*/include/$header" -print -quit 2>/dev/null || true)
        [[ -n $header ]] || continue
        header=$PWD/$(dirname "$header")
        [[ :${CPLUS_INCLUDE_PATH:-}: != *":$header:"* ]] || continue
        CPLUS_INCLUDE_PATH=$header${CPLUS_INCLUDE_PATH:+:$CPLUS_INCLUDE_PATH}
        NVCC_PREPEND_FLAGS="-I$header ${NVCC_PREPEND_FLAGS:-}"
        export CPLUS_INCLUDE_PATH NVCC_PREPEND_FLAGS
    done
}

has_mmcv_ops() {
    "$VENV/bin/python" -c 'import mmcv.ops' 2>/dev/null
}

install_mmcv() {
    local key=$1 gpus=$2 version source cuda=0
    is_done mmcv "$key" && return
    version=$(pinned mmcv)
    if [[ -z $gpus ]]; then
        say "mmcv $version: looking for a ready wheel"
        if pip_install --only-binary mmcv mmcv >"$STATE/mmcv.log" 2>&1 &&
            has_mmcv_ops; then
            say "mmcv $version: installed from a wheel"
            mark_done mmcv "$key"
            return
        fi
        say "mmcv $version: none; compiling it, some 6 minutes on two cores"
    else
        cuda=1
        prepare_cuda "$gpus"
        say "mmcv $version: compiling it with CUDA operators for GPU $gpus," \
            "some 70 minutes shared by $(nproc) cores"
    fi
    check_compiler
    # The folder stays until the end, so that a stopped build can go on.
    source=$STATE/mmcv-$version-cuda$cuda
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
        MMCV_WITH_OPS=1 FORCE_CUDA=$cuda MAX_JOBS=${MAX_JOBS:-$(nproc)} \
        compile mmcv "$VENV/bin/python" -m pip wheel --verbose --no-deps \
        --no-build-isolation --wheel-dir "$STATE" "./$source"
    pip install --no-deps --force-reinstall "$STATE/mmcv-$version"-*.whl
    has_mmcv_ops || fail 'mmcv was built, but its operators do not load:' \
        "$("$VENV/bin/python" -c 'import mmcv.ops' 2>&1 | tail -n 1)"
    rm -rf "$source" "$STATE/mmcv-$version"*.whl "$STATE/mmcv-$version.tar.gz"
    mark_done mmcv "$key"
}

install_extension() {
    local key=$1 gpus=$2
    [[ -f ext/selective_scan/setup.py ]] || return 0
    key+=" $(cd ext/selective_scan &&
        hash_files setup.py pyproject.toml selective_scan csrc)"
    is_done extension "$key" && return
    say 'the selective scan extension: compiling it'
    check_compiler
    [[ -z $gpus ]] || prepare_cuda "$gpus"
    MAX_JOBS=${MAX_JOBS:-$(nproc)} compile extension \
        "$VENV/bin/python" -m pip install --verbose --no-deps \
        --no-build-isolation ./ext/selective_scan
    mark_done extension "$key"
}

install_package() {
    local key=$1
    is_done package "$key" && return
    say 'mmmobilemamba itself, editable'
    pip install --quiet --no-deps --no-build-isolation --editable .
    mark_done package "$key"
}

[[ -z $WANTED || $WANTED == --tests ]] ||
    fail "unknown argument $WANTED; allowed is --tests"

step=1
make_venv

step=2
install_torch "$(grep -E '^(pip|setuptools|wheel|ninja|torch.*)==' \
    requirements/lock.txt | hash_of)${TORCH_INDEX:-}"

step=3
install_libraries "$(hash_files requirements)"
if [[ $WANTED == --tests ]]; then
    install_test_libraries "$(hash_files requirements)"
fi

step=4
gpus=$(visible_gpus)
# What was built for the GPU serves while the GPU is hidden, too.
if [[ -z $gpus && -f $STATE/gpus ]]; then
    gpus=$(<"$STATE/gpus")
fi
target="torch $(pinned torch), ${gpus:-cpu}"
install_mmcv "mmcv $(pinned mmcv), $target" "$gpus"
printf '%s\n' "$gpus" >"$STATE/gpus"

step=5
install_extension "$target" "$gpus"

step=6
install_package "$PWD $(hash_files setup.py pyproject.toml requirements \
    mmmobilemamba/version.py configs tools model-index.yml)"
if ((changed)); then
    "$VENV/bin/python" -W ignore tools/collect_env.py
fi
say "environment ready in $VENV"
