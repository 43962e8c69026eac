"""Report what the compiler made of the CUDA kernels; no GPU is needed.

For each instance: registers, spilled bytes, shared memory, barriers, and for
the kernels of one state instructions a step by kind, a step being one token,
channel and direction. Instructions are those of the machine code; a loop's
count as often as the comment ``trips:`` beside it says for the problem at the
top of the table. Warnings are errors, and a kernel of one state that spills is
one. What has not changed since the last time is not compiled again.
"""

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / 'csrc' / 'cuda'
# Of the table, in two directions.
PROBLEM = dict(batch=256, channels=320, tokens=256, rank=10)
KINDS = {
    'float': r'F(FMA|MUL|ADD|MNMX|SEL|SETP|CHK)|H\w+2|F2FP?|I2F|F2I|D\w+',
    'exp, 1/x': 'MUFU',
    'move': r'U?MOV|IMAD\.MOV|CS2R|S2U?R|R2UR|PRMT|U?SEL|R2P|P2R',
    'integer multiply-add': r'U?IMAD',
    'shared': r'LDS|STS|SHFL',
    'global': r'LDG|STG|LDL|STL|LDC|ULDC|LD|ST',
    'branch, barrier': r'BRA|BSSY|BSYNC|BAR|EXIT|WARPSYNC|RET|CALL|NANOSLEEP',
    'other integer': '',
}


def find_tool(name):
    """Return the path of a tool of the toolkit or of triton, or None."""
    home = os.environ.get('CUDA_HOME', '/usr/local/cuda')
    folders = [os.environ.get('PATH', ''), f'{home}/bin']
    triton = importlib.util.find_spec('triton')
    if triton is not None:
        folder = Path(triton.origin).parent / 'backends' / 'nvidia' / 'bin'
        folders.append(str(folder))
    return shutil.which(name, path=os.pathsep.join(folders))


def run(*command):
    """Return what a command prints, or end with it where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f'{" ".join(command)}\n{done.stdout}{done.stderr}')
    return done.stdout + done.stderr


def compile_source(nvcc, source, arch, cache):
    """Return the machine code's path, and what ptxas said of it."""
    flags = ['-std=c++17', '-O3', f'-arch={arch}', '-lineinfo', '-cubin']
    flags += ['-Xptxas', '-v', '-Werror', 'all-warnings']
    flags += ['-Xcompiler', '-Wall,-Wextra']
    for path in include_paths():
        flags += ['-isystem', path]
    state = hashlib.sha256(f'{nvcc} {flags} {torch.__version__}'.encode())
    for path in [source, *sorted(source.parents[1].rglob('*.*h'))]:
        state.update(path.read_bytes())
    target = cache / f'{source.stem}-{state.hexdigest()[:16]}.cubin'
    log = target.with_suffix('.txt')
    if not log.exists():
        for old in cache.glob(f'{source.stem}-*'):
            old.unlink()
        log.write_text(run(nvcc, *flags, str(source), '-o', str(target)))
    return target, log.read_text()


def read_trips():
    """Return the ``trips:`` comments by file name and line of the loop."""
    trips = {}
    for path in SOURCES.iterdir():
        note = None
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found = re.search(r'// trips: (.*)', line)
            if found:
                note = found[1]
            elif note and not line.startswith('#'):
                trips[path.name, number] = note
                note = None
    return trips


def parse_code(text):
    """Return each kernel's instructions and loops from nvdisasm's output.

    Returns:
        dict[str, tuple]: By kernel, instructions as (address, name), and
        loops as (first address, last address, places of the source).
    """
    kernels = {}
    for part in re.split(r'\n\.text\.', text)[1:]:
        code, labels, branches, places, fresh = [], {}, [], [], True
        for line in part.splitlines():
            if '//## File' in line:  # of the next instruction, inlined or not
                found = re.findall(r'"([^"]+)", line (\d+)', line)
                found = [(Path(file).name, int(n)) for file, n in found]
                places = found if fresh else places + found
                fresh = False
                continue
            label = re.match(r'(\.L_x_\d+):', line)
            if label:
                labels[label[1]] = len(code)
                continue
            found = re.match(
                r'\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ +)?([A-Z][\w.]*)(.*)',
                line,
            )
            if found and found[2] != 'NOP':
                fresh = True
                target = re.search(r'`\((\.L_x_\d+)\)', found[3])
                if found[2].startswith('BRA') and target:
                    branches.append((len(code), target[1], places))
                code.append(found[2])
        loops = [
            (labels[label], last, where)
            for last, label, where in branches
            if labels.get(label, last) < last
        ]
        kernels[part.split(':')[0]] = code, loops
    return kernels


def count(code, loops, trips, sizes):
    """Count instructions a thread by kind, loops as often as they run."""
    weights = [1] * len(code)
    for first, last, places in loops:
        note = next((trips[p] for p in places if p in trips), '1')
        for k in range(first, last + 1):
            weights[k] *= eval(note, {}, dict(sizes))
    counts = dict.fromkeys(KINDS, 0)
    for name, weight in zip(code, weights):
        kind = next(k for k, v in KINDS.items() if re.match(f'(?:{v})', name))
        counts[kind] += weight
    return counts


def plan(nvcc, cache, backward):
    """Ask the launchers' own plan for the table's problem."""
    source, program = cache / 'plan.cpp', cache / 'plan'
    source.write_text(
        '#include <cstdio>\n#include <cstdlib>\n'
        f'#include "{SOURCES / "bidirectional.h"}"\n'
        'int main(int, char** a) {\n'
        '  const auto p = selective_scan::cuda::make_plan(atoi(a[1]),\n'
        '      atoi(a[2]), atoi(a[3]), atoi(a[4]), 2, atoi(a[5]),\n'
        '      {132, 232448});\n'
        '  printf("%d %d %d %d %d", p.threads, p.pairs_log2, p.tokens(),\n'
        '         p.slots, p.shared);\n}\n'
    )
    run(nvcc, '-std=c++17', str(source), '-o', str(program))
    values = run(str(program), *map(str, [*PROBLEM.values(), int(backward)]))
    threads, pairs_log2, chunk, slots, shared = map(int, values.split())
    return dict(
        threads=threads,
        chunk=chunk,
        slots=slots,
        shared=shared,
        warps=threads // 32,
        runs=threads >> pairs_log2,
        width=2 << pairs_log2,
        quads=slots // 4,
        # The sums' loop is inside one of `warps` trips, or one warp's alone.
        folding=threads // 32 if backward else 1,
        # Lanes that a token's rows take, two rows each.
        lanes=min(32, 1 << (slots - 1).bit_length()),
    )


def describe(symbol):
    """Return a kernel's name and template arguments, short."""
    text = run(shutil.which('c++filt') or 'c++filt', symbol).strip()
    found = re.search(
        r'cuda::(?:\(anonymous namespace\)::)?(\w+)<(.*)>\(', text
    )
    name, arguments = (found[1], found[2]) if found else (text, '')
    arguments = re.sub(r'selective_scan::cuda::|c10::|__nv_|__', '', arguments)
    return name, arguments


def report(arch, cache):
    """Print the table; return the number of one-state kernels that spill."""
    nvcc, nvdisasm = find_tool('nvcc'), find_tool('nvdisasm')
    if nvcc is None:
        sys.exit('nvcc is not found: set CUDA_HOME to the CUDA toolkit.')
    cache.mkdir(parents=True, exist_ok=True)
    columns = ['kernel', 'registers', 'spills', 'shared', 'barriers']
    columns += ['instructions', 'a step', *KINDS]
    print('| ' + ' | '.join(columns) + ' |')
    print('|---|' + '---:|' * (len(columns) - 1))
    trips, spilled = read_trips(), 0
    plans = {
        'bidirectional_forward': plan(nvcc, cache, False),
        'bidirectional_backward': plan(nvcc, cache, True),
    }
    for source in sorted(SOURCES.glob('*.cu')):
        target, log = compile_source(nvcc, source, arch, cache)
        code = {}
        if nvdisasm is not None:
            options = '--print-line-info-inline', str(target)
            code = parse_code(run(nvdisasm, *options))
        for part in log.split("Compiling entry function '")[1:]:
            symbol = part.split("'")[0]
            name, arguments = describe(symbol)
            registers = re.search(r'Used (\d+) registers', part)[1]
            spills = re.search(r'(\d+) bytes spill stores, (\d+)', part)
            spills = int(spills[1]) + int(spills[2])
            instructions, loops = code.get(symbol, ([], []))
            shared, steps = '-', ['-'] * (len(KINDS) + 1)
            if name in plans:
                spilled += spills > 0
                sizes = dict(plans[name], paired=', true' in arguments)
                shared = sizes['shared']
            if name in plans and instructions:
                counts = count(instructions, loops, trips, sizes)
                # 8 tokens, two channels, two directions
                steps = [n / 32 for n in counts.values()]
                steps = [f'{n:.1f}' for n in (sum(steps), *steps)]
            barriers = sum(x.startswith('BAR') for x in instructions)
            row = [f'{name}<{arguments}>', registers, spills, shared]
            row += [barriers, len(instructions), *steps]
            print('| ' + ' | '.join(map(str, row)) + ' |', flush=True)
    return spilled


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--arch', default='sm_90', help='as nvcc names it')
    parser.add_argument(
        '--cache',
        type=Path,
        default=ROOT / 'build' / 'kernel_report',
        help='folder for the compiled kernels',
    )
    args = parser.parse_args()
    spilled = report(args.arch, args.cache)
    if spilled:
        sys.exit(f'{spilled} kernels of one state spill.')


if __name__ == '__main__':
    main()
