"""Time the scans at the shapes of MobileMamba B1 and print a table.

Four ways to compute the bidirectional scan of all seven blocks: as a
composition with flips, token by token in PyTorch (reference), by one
``selective_scan`` per direction (op 1), and by ``bidirectional_scan`` (op 2).
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
REFERENCE_PIXELS = 2**21  # of a batch; more would take the reference minutes


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
    timer = Timer(
        'function(*args, **kwargs)',
        globals=dict(function=function, args=args, kwargs=kwargs),
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
        function(**leaves)
    for x in inputs.values():
        storages.pop(x.untyped_storage().data_ptr(), None)
    return sum(storages.values())


def print_row(*cells):
    print('|', ' | '.join(cells), '|', flush=True)


def time_networks(device):
    """Print milliseconds an image of B1's seven scans."""
    print_row('image, batch', 'method', 'forward', 'fwd + bwd', 'kept MB')
    print_row(*['---'] * 5)
    for height, width, batch in CASES:
        for method, function in METHODS.items():
            pixels = batch * height * width
            if method == 'reference' and pixels > REFERENCE_PIXELS:
                continue
            times, kept = torch.zeros(2), 0
            for inner, rank, stride, blocks in STAGES:
                length = -(-height // stride) * -(-width // stride)
                inputs = make_inputs(batch, inner, rank, length, device)
                passes = torch.tensor(time_passes(function, inputs))
                times += blocks * 1e3 / batch * passes
                kept += blocks * kept_bytes(function, inputs) / 2**20
            cells = [f'{time:.3f} ms' for time in times]
            case = f'{height}x{width}, {batch}'
            print_row(case, method, *cells, f'{kept:.1f}')


def time_scans():
    """Print single scans of op 2 on a GPU, by type and layout.

    The bound is the time that copies take to read and write as many bytes.
    """
    x = torch.empty(2**28, device='cuda')
    y = torch.empty_like(x)
    rate = 2 * x.nbytes / seconds(y.copy_, x)
    print(f'{torch.cuda.get_device_name()}, copies {rate / 1e9:.0f} GB/s\n')
    columns = ['batch, channels, rank, tokens', 'dtype', 'bound', 'contiguous']
    columns += ['channels-last', 'bound f+b', 'contiguous', 'channels-last']
    print_row(*columns)
    print_row(*['---'] * len(columns))
    for batch, inner, rank, length in SCANS:
        for dtype in (torch.float32, torch.float16):
            inputs = make_inputs(batch, inner, rank, length, 'cuda')
            times = []
            for last in (False, True):
                for name in ('u', 'proj'):
                    x = inputs[name].to(dtype)
                    if last:
                        x = x.movedim(-1, 1).contiguous().movedim(1, -1)
                    inputs[name] = x
                times.append(time_passes(ss.bidirectional_scan, inputs))
            values = 2 * inner + 2 * (rank + 2)
            both = values + 3 * inner + 4 * (rank + 2)
            scale = dtype.itemsize * batch * length / rate
            rows = zip((scale * values, scale * both), *times)
            cells = [f'{1e3 * time:.3f} ms' for row in rows for time in row]
            sizes = f'{batch}, {inner}, {rank}, {length}'
            print_row(sizes, str(dtype)[6:], *cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--device', choices=['cpu', 'cuda'], action='append')
    help = 'time single scans of op 2 on a GPU, by type and layout'
    parser.add_argument('--scans', action='store_true', help=help)
    args = parser.parse_args()
    wanted = args.scans or 'cuda' in (args.device or ())
    if wanted and not torch.cuda.is_available():
        parser.error('torch sees no GPU')
    if args.scans:
        time_scans()
        return
    devices = ['cpu'] + ['cuda'] * torch.cuda.is_available()
    print(f'CPU: {torch.get_num_threads()} threads, {ss.cpu_variant()}')
    for device in args.device or devices:
        print(f'\n{device}\n')
        time_networks(device)


if __name__ == '__main__':
    main()
