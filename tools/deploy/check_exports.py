"""Export models at their real sizes and compare each with its file.

Each runs in a process of its own, one after the other. A model whose result is
in the folder already is left out. Without a checkpoint the weights are random,
with norms and scores of a trained network's scale.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmmobilemamba.apis.command_line import user_errors

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
# Every network of the paper, and the peer of its own family.
MODELS = (
    *(
        f'cls/mobilemamba/mobilemamba-{name}_8xb128-300e_in1k-{side}px.py'
        for name, side in (
            ('t2', 192),
            ('t4', 192),
            ('s6', 224),
            ('b1', 256),
            ('b2', 384),
            ('b4', 512),
        )
    ),
    'cls/mambaout/mambaout-femto_8xb512-300e_in1k-224px.py',
    'det/ssd/ssdlite_mobilemamba-b1_8xb24-600e_coco-320px.py',
    'det/ssd/ssdlite_mobilemamba-b1_8xb24-600e_coco-512px.py',
    'det/retinanet/retinanet_mobilemamba-b1_fpn_1x_coco.py',
    'det/faster_rcnn/faster-rcnn_mobilemamba-b1_fpn_1x_coco.py',
    'det/mask_rcnn/mask-rcnn_mobilemamba-b1_fpn_1x_coco.py',
    'seg/sem_fpn/fpn_mobilemamba-b4_4xb8-160k_ade20k-512x512.py',
    'seg/deeplabv3/deeplabv3_mobilemamba-b4_4xb8-80k_ade20k-512x512.py',
    'seg/pspnet/pspnet_mobilemamba-b4_4xb8-80k_ade20k-512x512.py',
    'seg/segformer/segformer_mobilemamba-b4_4xb8-160k_ade20k-512x512.py',
    'seg/upernet/upernet_mobilemamba-b4_4xb4-160k_ade20k-512x512.py',
)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'models',
        nargs='*',
        metavar='CONFIG[=CHECKPOINT]',
        help='models to export; by default one config of each network',
    )
    parser.add_argument(
        '--out-dir',
        default='work_dirs/exports',
        help='folder for results and table; default: %(default)s',
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help="pixels of a picture; default: those of each config's test, of "
        'detectors 800x1344',
    )
    parser.add_argument(
        '--opset', type=int, default=17, help='default: %(default)s'
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='of random weights; default: %(default)s',
    )
    parser.add_argument(
        '--keep', action='store_true', help='leave the exported files there'
    )
    return parser


def read_jobs(args: argparse.Namespace) -> list:
    """Return the models that were asked for; refuse what cannot be run."""
    from mmmobilemamba.checkpoints.checkpoint import check_checkpoint_file
    from mmmobilemamba.deploy.export import ExportOptions
    from mmmobilemamba.deploy.survey import Job

    size = tuple(args.size) if args.size else None
    ExportOptions(size=size, opset=args.opset).check_ranges()
    jobs = []
    for name in args.models or [str(CONFIGS / model) for model in MODELS]:
        config, _, checkpoint = name.partition('=')
        if not Path(config).is_file():
            raise FileNotFoundError(f'Config {config} does not exist.')
        if checkpoint:
            check_checkpoint_file(checkpoint)
        job = Job(config, size, checkpoint or None, args.seed, args.opset)
        if job.name in {other.name for other in jobs}:
            raise ValueError(f'{job.name} is given twice.')
        jobs.append(job)
    return jobs


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    with user_errors(parser):
        # Its requirements are an extra of their own.
        from mmmobilemamba.checkpoints.atomic import atomic_write
        from mmmobilemamba.deploy import survey

        jobs = read_jobs(args)
        folder = Path(args.out_dir)
        folder.mkdir(parents=True, exist_ok=True)
        rows, failed = [], []
        for number, job in enumerate(jobs, 1):
            print(f'{number}/{len(jobs)} {job.name}', file=sys.stderr)
            try:
                row = survey.finished(job, folder)
                row = row or survey.check_in_process(job, folder, args.keep)
            except (ValueError, ChildProcessError) as error:
                print(error, file=sys.stderr)
                failed.append(job.name)
                continue
            rows.append(row)
        table = survey.markdown(rows)
        with atomic_write(folder / 'exports.md') as draft:
            draft.write_text(table)
        print(f'{table}\nResults are in {folder}')
        if failed:
            raise ValueError(
                f'{len(failed)} of {len(jobs)} models failed: '
                f'{", ".join(failed)}'
            )


if __name__ == '__main__':
    main()
