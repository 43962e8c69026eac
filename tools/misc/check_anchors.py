"""Count the anchors that learn the boxes of a config's data, by class."""

import argparse
from collections.abc import Iterator, Sequence

from mmengine.registry import DATASETS, init_default_scope
from rich.progress import track

from mmmobilemamba.analysis.anchor_matches import (
    anchor_head,
    count_matches,
    list_matches,
)
from mmmobilemamba.analysis.comparison import check_least
from mmmobilemamba.apis.command_line import add_cfg_options, user_errors
from mmmobilemamba.apis.config import load_config
from mmmobilemamba.apis.inference import build_model
from mmmobilemamba.datasets.data_paths import check_data


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of a detector with anchors')
    parser.add_argument(
        '--samples',
        type=int,
        default=500,
        help='pictures of the training to look at; default: %(default)s',
    )
    add_cfg_options(parser)
    return parser


def read_samples(dataset, count: int) -> Iterator:
    """Yield the annotations of samples, spread over the data set."""
    count = min(count, len(dataset))
    for number in track(range(count), 'Matching'):
        sample = dataset[number * len(dataset) // count]
        yield sample['data_samples']


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    with user_errors(parser):
        check_least(vars(args), dict(samples=1))
        cfg = load_config(args.config, args.cfg_options)
        model = build_model(cfg)
        head = anchor_head(model)
        check_data(cfg, ('train',))
        init_default_scope(cfg.default_scope)
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    divisor = getattr(model.data_preprocessor, 'pad_size_divisor', 1)
    found = count_matches(head, read_samples(dataset, args.samples), divisor)
    classes = dataset.metainfo['classes']
    for line in list_matches(found, classes):
        print(line)
    poor = [classes[label] for label, m in found.items() if m.poor > 0.5]
    if poor:
        print(
            'Most boxes of '
            + ', '.join(sorted(poor))
            + ' are learned by one anchor or none: begin with smaller anchors '
            'or match at a lower IoU.'
        )


if __name__ == '__main__':
    main()
