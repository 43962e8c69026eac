"""A data pipeline that says which file is at fault, and goes on without it."""

import logging
from collections.abc import Sequence

import torch
from mmengine.dataset import Compose
from mmengine.dist import get_rank
from mmengine.logging import print_log

from ..registry import TRANSFORMS
from .sample_checks import (
    LabelFaultError,
    SampleFaultError,
    flat_boxes,
    name_of,
    run_steps,
)

# So many faulty samples one after the other are no coincidence.
_MAX_IN_A_ROW = 20
# Samples told apart: a byte each, shared by the processes that load.
_CAPACITY = 1 << 20
_NAMED, _LEFT_OUT = 1, 2


class DataFaultError(RuntimeError):
    """The data cannot be trained on; the message has one line."""


@TRANSFORMS.register_module()
class CheckedPipeline:
    """Run a pipeline, leave out samples that cannot be read, and name them.

    What the steps called ``Load...`` give is checked as soon as it is there:
    files that are cut off, images and masks of different sizes. A data set of
    mmengine takes another sample in place of one that is left out, drawn from
    the random state of the loading process, so that equal seeds give equal
    samples. Labels that the model has no class for are an error, as are too
    many faults.

    Args:
        transforms (Sequence[dict | callable]): Steps of the pipeline.
        num_classes (int, optional): Classes that the model has; labels are
            not checked without. Defaults to None.
        ignore_index (int): Label of pixels that the loss passes over.
            Defaults to 255.
        max_faulty (int): Different samples to leave out before it is an
            error; 0, for evaluation, allows none. Defaults to 50.
        drop_flat_boxes (bool): Whether to go without objects whose boxes have
            no area. An evaluation keeps them, or its metric would be another
            one. Defaults to True.
    """

    def __init__(
        self,
        transforms: Sequence,
        num_classes: int | None = None,
        ignore_index: int = 255,
        max_faulty: int = 50,
        drop_flat_boxes: bool = True,
    ) -> None:
        self.transforms = Compose(transforms).transforms
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.max_faulty = max_faulty
        self.drop_flat_boxes = drop_flat_boxes
        self._in_a_row = 0
        self._seen = torch.zeros(_CAPACITY, dtype=torch.uint8).share_memory_()

    def __call__(self, results: dict) -> dict | None:
        """Run the steps.

        Args:
            results (dict): Sample of the data set.

        Returns:
            dict: The sample after the last step, or None where it is left
            out.

        Raises:
            DataFaultError: A label has no class, or there are too many
                faults.
            RuntimeError: A step after loading failed.
        """
        name = name_of(results)
        index = results.get('sample_idx', 0) % _CAPACITY
        if self.drop_flat_boxes:
            self._drop_boxes(name, index, results)
        try:
            results = run_steps(
                self.transforms, results, self.num_classes, self.ignore_index
            )
        except LabelFaultError as fault:
            raise DataFaultError(f'{name}: {fault}.') from None
        except SampleFaultError as fault:
            self._leave_out(name, index, str(fault))
            return None
        self._in_a_row = 0
        return results

    def _leave_out(self, name: str, index: int, reason: str) -> None:
        if self.max_faulty <= 0:
            raise DataFaultError(f'{name}: {reason}.')
        self._in_a_row += 1
        new = self._seen[index] != _LEFT_OUT
        self._seen[index] = _LEFT_OUT
        count = int((self._seen == _LEFT_OUT).sum())
        if count > self.max_faulty or self._in_a_row > _MAX_IN_A_ROW:
            many = (
                f'{count} samples'
                if count > self.max_faulty
                else f'{self._in_a_row} samples in a row'
            )
            raise DataFaultError(
                f'{many} cannot be used, the last one is {name}: {reason}.'
            )
        if new:
            _warn(
                f'{name} is left out, another sample takes its place: '
                f'{reason}. ({count} so far, {self.max_faulty} allowed)'
            )

    def _drop_boxes(self, name: str, index: int, results: dict) -> None:
        """Train on the other objects of the image."""
        flat = flat_boxes(results)
        if not flat:
            return
        instances = results['instances']
        results['instances'] = [
            x for number, x in enumerate(instances) if number not in flat
        ]
        if not self._seen[index]:
            self._seen[index] = _NAMED
            _warn(
                f'{name} is used without {len(flat)} of its '
                f'{len(instances)} objects: {next(iter(flat.values()))}.'
            )

    def __repr__(self) -> str:
        steps = ''.join(f'    {step}\n' for step in self.transforms)
        return f'{type(self).__name__}(\n{steps})'


def _warn(text: str) -> None:
    # The loggers of other processes than the first say errors alone.
    level = logging.ERROR if get_rank() else logging.WARNING
    print_log(text, logger='current', level=level)
