"""Time the scans at the shapes of MobileMamba B1 and print a table.

Five ways to compute the bidirectional scan of all seven blocks: token by
token in PyTorch (reference), by doubling in PyTorch (parallel), as a
composition (stack and flip, project, one scan over all directions, flip back,
add), with ``selective_scan`` per direction, which needs no flip (op 1), and
with ``bidirectional_scan`` (op 2).
"""

import argparse
import platform
import time
from functools import partial

import selective_scan as ss
import torch
import torch.nn.functional as F

# Per stage of B1: inner channels, rank, stride in pixels, blocks.
STAGES = [(320, 10, 16, 2), (512, 16, 32, 3), (544, 17, 64, 2)]
# Image height and width in pixels, batch.
CASES = [
    (256, 256, 1),
    (256, 256, 16),
    (256, 256, 256),
    (512, 512, 8),
    (800, 1344, 2),
]
# Single scans for --scans: batch, inner channels, rank, tokens.
SCANS = [
    (256, 320, 10, 256),
    (256, 512, 16, 64),
    (256, 544, 17, 16),
    (32, 320, 10, 1024),
    (8, 320, 10, 4200),
    (8, 512, 16, 1050),
    (1, 320, 10, 4200),
]
METHODS = ['reference', 'parallel', 'composition', 'op 1', 'op 2']


def parallel_scan(u, delta, A, B, C, D):
    """Scan with one state and one group in log2(length) doubling steps."""
    decay = torch.exp(delta * A)
    hidden = delta * B * u
    length = u.shape[-1]
    distance = 1
    while distance < length:
        before = F.pad(hidden, (distance, 0))[..., :length]
        hidden = hidden + decay * before
        decay = decay * F.pad(decay, (distance, 0), value=1.0)[..., :length]
        distance *= 2
    return C * hidden + D * u


def make_inputs(inner, rank, length, batch, device):
    """Make contiguous inputs of one scan, in the usual ranges."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape):
        return torch.rand(shape, generator=generator).to(device)

    return dict(
        u=rand(batch, inner, length) * 2 - 1,
        proj=rand(batch, 2, rank + 2, length) * 2 - 1,
        dt_proj=rand(2, inner, rank) * 0.1,
        dt_bias=rand(2, inner) * 0.1,
        A=-torch.exp(rand(2, inner, 1) - 0.5),
        D=rand(2, inner) + 0.5,
    )


def make_delta(proj, dt_proj, dt_bias):
    """Make softplus(dt_proj @ dt + dt_bias) of one direction in memory."""
    dt = proj[:, : dt_proj.shape[1]]
    return F.softplus(dt_proj @ dt + dt_bias[:, None])


def per_direction(scan, u, proj, dt_proj, dt_bias, A, D):
    """Flip, scan and flip back each direction with a scan in PyTorch."""
    y = None
    for k in range(2):
        x, rows = (u.flip(-1), proj[:, k].flip(-1)) if k else (u, proj[:, k])
        delta = make_delta(rows, dt_proj[k], dt_bias[k])
        B, C = rows[:, -2:-1], rows[:, -1:]
        out = scan(x, delta, A[k], B, C, D[k])
        y = y + out.flip(-1) if k else out
    return y


def reference(u, proj, dt_proj, dt_bias, A, D):
    return ss.bidirectional_scan_reference(u, proj, dt_proj, dt_bias, A, D)


def parallel(u, proj, dt_proj, dt_bias, A, D):
    def scan(x, delta, A, B, C, D):
        return parallel_scan(x, delta, A, B, C, D[:, None])

    return per_direction(scan, u, proj, dt_proj, dt_bias, A, D)


def composition(u, proj, dt_proj, dt_bias, A, D):
    """Stack and flip, project, scan both at once, flip back and add."""
    batch, inner, length = u.shape
    rank = dt_proj.shape[2]
    stacked = torch.stack([u, u.flip(-1)], dim=1)
    rows = torch.stack([proj[:, 0], proj[:, 1].flip(-1)], dim=1)
    dt, B, C = rows.split([rank, 1, 1], dim=2)
    delta = torch.einsum('bkrl,kdr->bkdl', dt, dt_proj)
    y = ss.selective_scan(
        stacked.reshape(batch, 2 * inner, length),
        delta.reshape(batch, 2 * inner, length),
        A.reshape(2 * inner, 1),
        B.contiguous(),
        C.contiguous(),
        D.reshape(-1),
        dt_bias.reshape(-1),
        delta_softplus=True,
    ).view(batch, 2, inner, length)
    return y[:, 0] + y[:, 1].flip(-1)


def operator_1(u, proj, dt_proj, dt_bias, A, D):
    """Project and scan each direction; the scan itself runs backwards."""
    rank = dt_proj.shape[2]
    y = None
    for k in range(2):
        out = ss.selective_scan(
            u,
            dt_proj[k] @ proj[:, k, :rank],
            A[k],
            proj[:, k, None, rank : rank + 1],
            proj[:, k, None, rank + 1 :],
            D[k],
            dt_bias[k],
            delta_softplus=True,
            reverse=k == 1,
        )
        y = out if y is None else y + out
    return y


FUNCTIONS = dict(
    zip(
        METHODS,
        [reference, parallel, composition, operator_1, ss.bidirectional_scan],
        strict=True,
    )
)


def seconds(function, device, minimum=0.5):
    """Return the best time of several calls, the least disturbed one."""
    times = []
    started = time.perf_counter()
    while len(times) < 4 or time.perf_counter() - started < minimum:
        if device == 'cuda':
            torch.cuda.synchronize()
        begin = time.perf_counter()
        function()
        if device == 'cuda':
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
        if times[0] > 5:
            break
    return min(times)


def forward(function, inputs):
    with torch.no_grad():
        function(**inputs)


def forward_backward(function, inputs, grad):
    leaves = {k: v.detach().requires_grad_() for k, v in inputs.items()}
    function(**leaves).backward(grad)


def kept_bytes(function, inputs):
    """Count what autograd keeps from forward to backward, beyond inputs."""
    storages = {}
    own = {x.untyped_storage().data_ptr() for x in inputs.values()}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    leaves = {k: v.detach().requires_grad_() for k, v in inputs.items()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        y = function(**leaves)
    del y
    return sum(storages.values())


class Bound:
    """The least time that a device needs for a scan, from measured rates."""

    def __init__(self, device):
        self.device = device
        if device == 'cuda':
            x = torch.empty(2**28, device=device)
            y = torch.empty_like(x)
            rate = seconds(partial(y.copy_, x), device)
            self.bandwidth = 2 * x.nbytes / rate
            self.text = f'copy {self.bandwidth / 1e9:.0f} GB/s'
            return
        size = 1024
        a, b = torch.rand(size, size), torch.rand(size, size)
        c = torch.empty(size, size)
        rate = seconds(partial(torch.mm, a, b, out=c), device, 2.0)
        self.fmas = size**3 / rate
        self.text = f'{self.fmas / 1e9:.0f} G FMA/s in a matrix product'

    def seconds(self, inner, rank, length, batch, backward):
        """Bound one scan, forward or forward with backward."""
        if self.device == 'cuda':
            values = batch * length * (2 * inner + 2 * (rank + 2))
            if backward:
                values += batch * length * (3 * inner + 4 * (rank + 2))
            return 4 * values / self.bandwidth
        # Per step two exps of 13 operations, log1p and the recurrence with
        # 15 and the rank's products. The backward pass does this again, two
        # more products and about 15 operations.
        steps = 2 * batch * inner * length
        operations = 41 + rank
        if backward:
            operations = 2 * operations + 2 * rank + 15
        return steps * operations / self.fmas


def measure(device, case, method, bound):
    """Time one method over B1's seven scans.

    Returns:
        dict: Milliseconds an image of forward, forward with backward and the
        bounds of both; MB kept for the backward pass.
    """
    height, width, batch = case
    totals = dict(forward=0.0, both=0.0, bound=0.0, bound_both=0.0, kept=0.0)
    function = FUNCTIONS[method]
    for inner, rank, stride, blocks in STAGES:
        length = -(-height // stride) * -(-width // stride)
        inputs = make_inputs(inner, rank, length, batch, device)
        grad = torch.randn_like(inputs['u'])
        scale = blocks * 1e3 / batch
        totals['forward'] += scale * seconds(
            partial(forward, function, inputs), device
        )
        totals['both'] += scale * seconds(
            partial(forward_backward, function, inputs, grad), device
        )
        sizes = (inner, rank, length, batch)
        totals['bound'] += scale * bound.seconds(*sizes, False)
        totals['bound_both'] += scale * bound.seconds(*sizes, True)
        totals['kept'] += blocks * kept_bytes(function, inputs) / 2**20
    return totals


def event_seconds(function, calls=50):
    """Return the median time of a function on the GPU, without its start."""
    function()
    pairs = []
    for _ in range(calls):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        function()
        end.record()
        pairs.append((begin, end))
    torch.cuda.synchronize()
    times = sorted(begin.elapsed_time(end) for begin, end in pairs)
    return times[calls // 2] / 1e3


def time_scans(bound):
    """Print single scans of op 2 on a GPU, by type and layout."""
    print(
        '| batch, channels, rank, tokens | dtype | bound | contiguous '
        '| channels-last | bound f+b | contiguous | channels-last |'
    )
    print('|---|---|' + '---:|' * 6)
    for batch, inner, rank, length in SCANS:
        for dtype in (torch.float32, torch.float16):
            inputs = make_inputs(inner, rank, length, batch, 'cuda')
            times = []
            for last in (False, True):
                for name in ('u', 'proj'):
                    x = inputs[name].to(dtype)
                    if last:
                        x = x.movedim(-1, 1).contiguous().movedim(1, -1)
                    inputs[name] = x
                grad = torch.ones_like(inputs['u'])
                function = FUNCTIONS['op 2']
                times += [
                    event_seconds(partial(forward, function, inputs)),
                    event_seconds(
                        partial(forward_backward, function, inputs, grad)
                    ),
                ]
            scale = torch.finfo(dtype).bits / 32 * 1e3
            least = [
                scale * bound.seconds(inner, rank, length, batch, backward)
                for backward in (False, True)
            ]
            one, both, one_last, both_last = (f'{1e3 * t:.3f}' for t in times)
            print(
                f'| {batch}, {inner}, {rank}, {length} | {str(dtype)[6:]} '
                f'| {least[0]:.3f} ms | {one} | {one_last} '
                f'| {least[1]:.3f} ms | {both} | {both_last} |',
                flush=True,
            )


def too_large(device, case, method):
    """Tell whether a plain PyTorch method would take minutes or all memory."""
    height, width, batch = case
    tokens = batch * height * width // 256
    limits = {
        'cpu': dict(reference=4096, parallel=8192),
        'cuda': dict(reference=8192, parallel=65536),
    }
    return tokens > limits[device].get(method, tokens)


def describe(device):
    if device == 'cuda':
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    if platform.system() == 'Linux':
        with open('/proc/cpuinfo') as file:
            models = [x for x in file if x.startswith('model name')]
        if models:
            name = models[0].split(':')[1].strip()
    return f'{name}, {torch.get_num_threads()} threads, {ss.cpu_variant()}'


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--device', choices=['cpu', 'cuda'], action='append')
    parser.add_argument(
        '--methods', nargs='+', choices=METHODS, default=METHODS
    )
    parser.add_argument(
        '--cases', type=int, nargs='+', default=range(len(CASES))
    )
    parser.add_argument(
        '--scans',
        action='store_true',
        help='time single scans of op 2 on a GPU, by type and layout',
    )
    args = parser.parse_args()
    if args.scans:
        bound = Bound('cuda')
        print(f'{describe("cuda")}; {bound.text}\n')
        time_scans(bound)
        return
    devices = args.device or (
        ['cpu'] + (['cuda'] if torch.cuda.is_available() else [])
    )
    for device in devices:
        bound = Bound(device)
        print(f'{device}: {describe(device)}; torch {torch.__version__}')
        print(f'measured rates: {bound.text}\n')
        print(
            '| image, batch | method | forward | x composition | x bound '
            '| fwd + bwd | x composition | x bound | kept MB |'
        )
        print('|---|---|---|---|---|---|---|---|---|')
        for index in args.cases:
            case = CASES[index]
            label = f'{case[0]}x{case[1]}, {case[2]}'
            rows = {}
            for method in args.methods:
                if too_large(device, case, method):
                    continue
                rows[method] = measure(device, case, method, bound)
            base = rows.get('composition')
            for method, row in rows.items():
                ratio = [
                    f'{base[key] / row[key]:.2f}' if base else '-'
                    for key in ('forward', 'both')
                ]
                print(
                    f'| {label} | {method} | {row["forward"]:.3f} ms '
                    f'| {ratio[0]} | {row["forward"] / row["bound"]:.1f} '
                    f'| {row["both"]:.3f} ms | {ratio[1]} '
                    f'| {row["both"] / row["bound_both"]:.1f} '
                    f'| {row["kept"]:.1f} |',
                    flush=True,
                )
        print()


if __name__ == '__main__':
    main()
