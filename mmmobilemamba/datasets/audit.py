"""Walking a data set once, to find what is wrong before a long training."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from mmengine.dataset import Compose
from torch.utils.data import DataLoader, Dataset

from .checked_pipeline import run_steps
from .sample_checks import (
    LabelFaultError,
    SampleFaultError,
    flat_boxes,
    name_of,
)

# Where the labels of a loaded sample are.
_LABELS = ('gt_bboxes_labels', 'gt_seg_map', 'gt_label')


@dataclass
class SampleReport:
    """What was found in a sample.

    Args:
        name (str): Its file.
        fault (str): What is wrong, empty where nothing is.
        labels (dict[int, int]): How often each label occurs.
    """

    name: str
    fault: str
    labels: dict[int, int]


class AuditedDataset(Dataset):
    """Load samples without augmentation and report on each.

    Args:
        dataset (Dataset): Data set of mmengine, whatever its pipeline.
        loading (list[dict | callable]): The steps that load.
        num_classes (int, optional): Classes that the model has. Defaults to
            None, which leaves labels unchecked.
        ignore_index (int): Label of pixels that the loss passes over.
            Defaults to 255.
    """

    def __init__(
        self,
        dataset: Dataset,
        loading: list,
        num_classes: int | None = None,
        ignore_index: int = 255,
    ) -> None:
        self.dataset = dataset
        self.loading = Compose(loading).transforms
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> SampleReport:
        sample = self.dataset.get_data_info(index)
        name, labels = name_of(sample), {}
        fault = '; '.join(flat_boxes(sample).values())
        try:
            sample = run_steps(
                self.loading, sample, self.num_classes, self.ignore_index
            )
        except (SampleFaultError, LabelFaultError) as error:
            return SampleReport(name, str(error), labels)
        for key in _LABELS:
            if sample and sample.get(key) is not None:
                values = np.unique(np.asarray(sample[key]), return_counts=True)
                labels = {int(n): int(k) for n, k in zip(*values)}
                break
        return SampleReport(name, fault, labels)


def audit(
    dataset: AuditedDataset, num_workers: int = 0
) -> Iterator[SampleReport]:
    """Report on every sample, in the order of the data set.

    Args:
        dataset (AuditedDataset): Data set.
        num_workers (int): Processes that load. Defaults to 0, which loads in
            this one.

    Yields:
        SampleReport: What was found.
    """
    yield from DataLoader(dataset, batch_size=None, num_workers=num_workers)
