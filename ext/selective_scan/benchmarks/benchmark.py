"""Time the scans at the shapes of MobileMamba B1 and print a table.

Four ways to compute the bidirectional scan of all seven blocks: as a
composition (stack and flip, project, one scan over all directions, flip back,
add), token by token in PyTorch (reference), with ``selective_scan`` per
direction, which needs no flip (op 1), and with ``bidirectional_scan`` (op 2).
"""

import argparse

import selective_scan as ss
import torch
from torch.utils.benchmark import Timer

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
REFERENCE_TOKENS = 8192  # of a batch; more would take the reference minutes


def make_inputs(batch, inner, rank, length, device):
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
    first, second = (
        ss.selective_scan(
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
        for k in range(2)
    )
    return first + second


METHODS = {
    'composition': composition,
    'reference': ss.bidirectional_scan_reference,
    'op 1': operator_1,
    'op 2': ss.bidirectional_scan,
}


def seconds(function, *args, **kwargs):
    """Return the median time of a call, the GPU's where it works longer."""
    names = dict(function=function, args=args, kwargs=kwargs)
    timer = Timer(
        'function(*args, **kwargs)',
        globals=names,
        num_threads=torch.get_num_threads(),
    )
    return timer.blocked_autorange(min_run_time=0.5).median


def time_passes(function, inputs):
    """Return seconds of forward, and of forward with backward."""
    grad = torch.ones_like(inputs['u'])
    leaves = {k: v.detach().requires_grad_() for k, v in inputs.items()}

    def both():
        function(**leaves).backward(grad)
        for leaf in leaves.values():
            leaf.grad = None

    return seconds(function, **inputs), seconds(both)


def kept_bytes(function, inputs):
    """Count what autograd keeps from forward to backward, beyond inputs."""
    storages = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    leaves = {k: v.detach().requires_grad_() for k, v in inputs.items()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        y = function(**leaves)
    del y
    for x in inputs.values():
        storages.pop(x.untyped_storage().data_ptr(), None)
    return sum(storages.values())


class Bound:
    """The least time that a device needs for a scan, from measured rates."""

    def __init__(self, device):
        self.device = device
        if device == 'cuda':
            x = torch.empty(2**28, device=device)
            y = torch.empty_like(x)
            self.rate = 2 * x.nbytes / seconds(y.copy_, x)
            print(torch.cuda.get_device_name(), end=', copies ')
            print(f'{self.rate / 1e9:.0f} GB/s\n')
            return
        a, b = torch.rand(2, 1024, 1024)
        self.rate = 1024**3 / seconds(torch.mm, a, b)
        print(torch.get_num_threads(), 'threads,', ss.cpu_variant(), end=', ')
        print(f'{self.rate / 1e9:.0f} G FMA/s in a matrix product\n')

    def seconds(self, batch, inner, rank, length):
        """Bound one scan's forward, and forward with backward."""
        if self.device == 'cuda':  # bytes read and written
            values = 2 * inner + 2 * (rank + 2)
            both = values + 3 * inner + 4 * (rank + 2)
            scale = 4 * batch * length / self.rate
        else:
            # Per step two exps of 13 operations, log1p and the recurrence
            # with 15 and the rank's products. The backward pass does this
            # again, two more products and about 15 operations.
            values = 41 + rank
            both = 2 * values + 2 * rank + 15
            scale = 2 * batch * inner * length / self.rate
        return scale * values, scale * both


def time_networks(device, bound, methods, cases):
    """Print milliseconds an image of B1's seven scans."""
    print(
        '| image, batch | method | forward | x composition | x bound '
        '| fwd + bwd | x composition | x bound | kept MB |'
    )
    print('|---|---|---|---|---|---|---|---|---|')
    for height, width, batch in (CASES[index] for index in cases):
        base = None
        for method in methods:
            tokens = batch * height * width // 256
            if method == 'reference' and tokens > REFERENCE_TOKENS:
                continue
            times, least, kept = torch.zeros(2), torch.zeros(2), 0
            for inner, rank, stride, blocks in STAGES:
                length = -(-height // stride) * -(-width // stride)
                sizes = batch, inner, rank, length
                inputs = make_inputs(*sizes, device)
                scale = blocks * 1e3 / batch
                passes = time_passes(METHODS[method], inputs)
                times += scale * torch.tensor(passes)
                least += scale * torch.tensor(bound.seconds(*sizes))
                kept += blocks * kept_bytes(METHODS[method], inputs) / 2**20
            base = times if method == 'composition' else base
            print(f'| {height}x{width}, {batch} | {method} ', end='')
            for k in range(2):
                ratio = '-' if base is None else f'{base[k] / times[k]:.2f}'
                print(f'| {times[k]:.3f} ms | {ratio} ', end='')
                print(f'| {times[k] / least[k]:.1f} ', end='')
            print(f'| {kept:.1f} |', flush=True)


def time_scans(bound):
    """Print single scans of op 2 on a GPU, by type and layout."""
    print(
        '| batch, channels, rank, tokens | dtype | bound | contiguous '
        '| channels-last | bound f+b | contiguous | channels-last |'
    )
    print('|---|---|' + '---:|' * 6)
    for sizes in SCANS:
        for dtype in (torch.float32, torch.float16):
            inputs = make_inputs(*sizes, 'cuda')
            times = []
            for last in (False, True):
                for name in ('u', 'proj'):
                    x = inputs[name].to(dtype)
                    if last:
                        x = x.movedim(-1, 1).contiguous().movedim(1, -1)
                    inputs[name] = x
                times.append(time_passes(ss.bidirectional_scan, inputs))
            scale = torch.finfo(dtype).bits / 32
            least = [scale * t for t in bound.seconds(*sizes)]
            print(f'| {", ".join(map(str, sizes))} | {str(dtype)[6:]}', end='')
            for row in zip(least, *times):
                print(''.join(f' | {1e3 * t:.3f} ms' for t in row), end='')
            print(' |', flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--device', choices=['cpu', 'cuda'], action='append')
    parser.add_argument('--methods', nargs='+', choices=list(METHODS))
    parser.add_argument('--cases', type=int, nargs='+')
    parser.add_argument(
        '--scans',
        action='store_true',
        help='time single scans of op 2 on a GPU, by type and layout',
    )
    args = parser.parse_args()
    if args.scans:
        time_scans(Bound('cuda'))
        return
    devices = ['cpu'] + ['cuda'] * torch.cuda.is_available()
    for device in args.device or devices:
        methods = args.methods or METHODS
        cases = args.cases or range(len(CASES))
        time_networks(device, Bound(device), methods, cases)


if __name__ == '__main__':
    main()
