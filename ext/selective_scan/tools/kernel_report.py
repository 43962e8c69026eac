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
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
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
    found = shutil.which(name) or shutil.which(f'{home}/bin/{name}')
    if found is None:
        try:
            import triton
        except ImportError:
            return None
        folder = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin'
        found = shutil.which(str(folder / name))
    return found


def run(*command):
    """Return what a command prints, or end with it where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f'{" ".join(command)}\n{done.stdout}{done.stderr}')
    return done.stdout + done.stderr


def compile_source(nvcc, source, arch, cache):
    """Compile one source, if it has changed.

    Returns:
        tuple[Path, str]: The machine code, and what ptxas said of it.
    """
    flags = ['-std=c++17', '-O3', f'-arch={arch}', '-lineinfo', '-cubin']
    flags += ['-Xptxas', '-v', '-Werror', 'all-warnings']
    flags += ['-Xcompiler', '-Wall,-Wextra']
    for path in include_paths():
        flags += ['-isystem', path]
    state = hashlib.sha256(f'{flags} {torch.__version__}'.encode())
    state.update(run(nvcc, '--version').encode())
    headers = [*SOURCES.iterdir(), *(ROOT / 'csrc' / 'common').iterdir()]
    headers = [path for path in headers if path.suffix in ('.h', '.cuh')]
    for path in [source, *sorted(headers)]:
        state.update(path.read_bytes())
    target = cache / f'{source.stem}-{state.hexdigest()[:16]}.cubin'
    log = target.with_suffix('.txt')
    if not log.exists():
        for old in cache.glob(f'{source.stem}-*'):
            old.unlink()
        text = run(nvcc, *flags, str(source), '-o', str(target))
        log.write_text(text)
    return target, log.read_text()


def parse_ptxas(text):
    """Return registers, spilled bytes and static shared memory by kernel."""
    found = {}
    for part in text.split("Compiling entry function '")[1:]:
        used = re.search(r'Used (\d+) registers', part)
        spills = re.search(r'(\d+) bytes spill stores, (\d+)', part)
        shared = re.search(r'(\d+) bytes smem', part)
        found[part.split("'")[0]] = dict(
            registers=int(used[1]),
            spills=int(spills[1]) + int(spills[2]),
            shared=int(shared[1]) if shared else 0,
        )
    return found


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
        name = part.split(':')[0]
        code, labels, branches, places, fresh = [], {}, [], [], True
        waiting = []
        for line in part.splitlines():
            place = re.search(r'//## File "([^"]+)", line (\d+)', line)
            if place:
                places = [] if fresh else places
                fresh = False
                places.append((Path(place[1]).name, int(place[2])))
                for more in re.findall(
                    r'inlined at "([^"]+)", line (\d+)', line
                ):
                    places.append((Path(more[0]).name, int(more[1])))
                continue
            label = re.match(r'(\.L_x_\d+):', line)
            if label:
                waiting.append(label[1])
                continue
            found = re.match(
                r'\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ +)?([A-Z][\w.]*)(.*)',
                line,
            )
            if not found or found[2] == 'NOP':
                continue
            fresh = True
            address = int(found[1], 16)
            for name_of in waiting:
                labels[name_of] = address
            waiting = []
            code.append((address, found[2]))
            target = re.search(r'`\((\.L_x_\d+)\)', found[3])
            if found[2].startswith('BRA') and target:
                branches.append((address, target[1], tuple(places)))
        loops = [
            (labels[label], address, where)
            for address, label, where in branches
            if label in labels and labels[label] < address
        ]
        kernels[name] = code, loops
    return kernels


def count(code, loops, trips, sizes):
    """Count instructions a thread by kind, loops as often as they run."""
    weights = []
    for first, last, places in loops:
        note = next((trips[p] for p in places if p in trips), '1')
        weights.append((first, last, eval(note, {}, dict(sizes))))
    counts = Counter()
    for address, name in code:
        weight = 1
        for first, last, times in weights:
            if first <= address <= last:
                weight *= times
        kind = next(k for k, v in KINDS.items() if re.match(f'(?:{v})', name))
        counts[kind] += weight
    return counts


def plan(nvcc, cache, backward):
    """Ask the launchers' own plan for the table's problem."""
    source = cache / 'plan.cpp'
    source.write_text(
        '#include <cstdio>\n#include <cstdlib>\n'
        f'#include "{SOURCES / "bidirectional.h"}"\n'
        'int main(int, char** a) {\n'
        '  const auto p = selective_scan::cuda::make_plan(atoi(a[1]),\n'
        '      atoi(a[2]), atoi(a[3]), atoi(a[4]), 2, atoi(a[5]),\n'
        '      {132, 232448});\n'
        '  printf("{\\"threads\\": %d, \\"pairs_log2\\": %d, \\"chunk\\": %d, '
        '\\"slots\\": %d, \\"shared\\": %d}", p.threads, p.pairs_log2,\n'
        '         p.tokens(), p.slots, p.shared);\n}\n'
    )
    program = cache / 'plan'
    run(nvcc, '-std=c++17', str(source), '-o', str(program))
    sizes = [*PROBLEM.values(), int(backward)]
    sizes = json.loads(run(str(program), *map(str, sizes)))
    sizes['warps'] = sizes['threads'] // 32
    sizes['runs'] = sizes['threads'] >> sizes['pairs_log2']
    sizes['width'] = 2 << sizes['pairs_log2']
    sizes['quads'] = sizes['slots'] // 4
    # The sums' loop is inside one of `warps` trips, or one warp's alone.
    sizes['folding'] = sizes['warps'] if backward else 1
    # Lanes that a token's rows take, two rows each.
    sizes['lanes'] = min(32, 1 << (sizes['slots'] - 1).bit_length())
    return sizes


def describe(symbol):
    """Return a kernel's name and template arguments, short."""
    text = run(shutil.which('c++filt') or 'c++filt', symbol).strip()
    found = re.search(
        r'cuda::(?:\(anonymous namespace\)::)?(\w+)<(.*)>\(', text
    )
    name, arguments = (found[1], found[2]) if found else (text, '')
    arguments = re.sub(r'selective_scan::cuda::|c10::|__nv_|__', '', arguments)
    return name, arguments


def report(args):
    """Print the table.

    Returns:
        int: Number of kernels of one state that spill.
    """
    nvcc, nvdisasm = find_tool('nvcc'), find_tool('nvdisasm')
    if nvcc is None:
        sys.exit('nvcc is not found: set CUDA_HOME to the CUDA toolkit.')
    args.cache.mkdir(parents=True, exist_ok=True)
    trips, spilled = read_trips(), 0
    columns = ['kernel', 'registers', 'spills', 'shared', 'barriers']
    columns += ['instructions', 'a step', *KINDS]
    print('| ' + ' | '.join(columns) + ' |')
    print('|---|' + '---:|' * (len(columns) - 1))
    plans = {}
    for source in sorted(SOURCES.glob('*.cu')):
        target, log = compile_source(nvcc, source, args.arch, args.cache)
        code = {}
        if nvdisasm is not None:
            code = parse_code(
                run(nvdisasm, '--print-line-info-inline', str(target))
            )
        for symbol, facts in parse_ptxas(log).items():
            name, arguments = describe(symbol)
            instructions, loops = code.get(symbol, ([], []))
            barriers = sum(x.startswith('BAR') for _, x in instructions)
            shared, steps = facts['shared'], []
            pieces = arguments.split(', ')
            if name in ('bidirectional_forward', 'bidirectional_backward'):
                backward = name == 'bidirectional_backward'
                if backward not in plans:
                    plans[backward] = plan(nvcc, args.cache, backward)
                sizes = dict(plans[backward], paired=pieces[1] == 'true')
                shared = sizes['shared']
                if instructions:
                    counts = count(instructions, loops, trips, sizes)
                    # 8 tokens, two channels, two directions
                    counts = {k: counts[k] / 32 for k in KINDS}
                    steps = [sum(counts.values()), *counts.values()]
                spilled += facts['spills'] > 0
            row = [f'{name}<{arguments}>', facts['registers']]
            row += [facts['spills'], shared, barriers, len(instructions)]
            row += [f'{x:.1f}' for x in steps] or ['-'] * (len(KINDS) + 1)
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
    spilled = report(parser.parse_args())
    if spilled:
        sys.exit(f'{spilled} kernels of one state spill.')


if __name__ == '__main__':
    main()
