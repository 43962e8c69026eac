"""Comparing an exported detector with the model that it came from."""

from functools import partial

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from .box_parity import Boxes, Choice, Match, judge_ties, match_boxes
from .host_boxes import HostDetector, as_boxes, run_with_proposals
from .parity import Comparison
from .samples import paste_masks
from .session import Session

# A mask's pixel may flip where its probability is that near the threshold.
MASK_SLACK = 0.02


@torch.no_grad()
def compare_detector(
    name: str,
    model: nn.Module,
    session: Session,
    image: Tensor,
    pixels: Tensor,
    tolerance: float,
) -> Comparison:
    """Compare an exported detector with its model on a batch of pictures.

    Args:
        name (str): What is compared, for the report.
        model (nn.Module): Detector of MMDetection as it is evaluated.
        session (Session): The exported network.
        image (Tensor): Pictures (batch, channels, H, W) as the exported
            network takes them.
        pixels (Tensor): The same, normalised.
        tolerance (float): Largest relative error, of places as a share of
            the longer side.

    Returns:
        Comparison: What was found.
    """
    divisor = session.metadata['normalize']['pad_divisor']
    host = HostDetector(model, divisor, pixels)
    judge = _Judge(name, host, session.metadata, image, tolerance)
    got = session(image.numpy())
    wanted = host.predict()
    if all(judge.agrees(got, i, kept) for i, kept in enumerate(wanted)):
        for i, kept in enumerate(wanted):
            judge.add(got, i, kept)
    elif judge.two_stage:
        judge.two_stages(session)
    else:
        chosen = host.dense_choice(tolerance)
        for i, (kept, choice) in enumerate(chosen):
            judge.add(got, i, kept, choice)
    return judge.result


class _Judge:
    """Collects what a comparison finds, picture by picture."""

    def __init__(
        self,
        name: str,
        host: HostDetector,
        metadata: dict,
        image: Tensor,
        tolerance: float,
    ):
        self.host, self.image, self.tolerance = host, image, tolerance
        self.threshold = metadata.get('mask_threshold')
        self.two_stage = hasattr(host.model, 'roi_head')
        self.size = tuple(image.shape[2:])
        masks = None if self.threshold is None else 0
        self.result = Comparison(name, self.size, 0.0, boxes=0, masks=masks)

    def match(self, found: Boxes, kept: InstanceData) -> Match:
        wanted = as_boxes(kept)
        return match_boxes(found, wanted, max(self.size), self.tolerance)

    def agrees(self, got: dict, i: int, kept: InstanceData) -> bool:
        found = _boxes_of(got, i)
        pairs = len(self.match(found, kept).rows)
        return pairs == len(found) == len(kept)

    def add(
        self,
        got: dict,
        i: int,
        kept: InstanceData,
        choice: Choice | None = None,
    ) -> None:
        """Add what one picture shows."""
        found, result = _boxes_of(got, i), self.result
        match = self.match(found, kept)
        result.boxes += len(match.rows)
        result.error = max(result.error, match.error)
        if (found.scores.diff() > 0).any():
            result.problems.append('boxes are not sorted by score')
        if choice is not None:
            result.problems += self.judge(found, kept, match, choice)
        if result.masks is not None and match.rows:
            bad = self.differing_masks(got, i, found, kept, match)
            result.masks += len(match.rows) - bad
            if bad:
                result.problems.append(f'{bad} masks differ')

    def judge(
        self,
        found: Boxes,
        kept: InstanceData,
        match: Match,
        choice: Choice,
        groups: Tensor | None = None,
    ) -> list[str]:
        """Look for a tie behind every box that has no counterpart."""
        problems = judge_ties(
            found,
            as_boxes(kept),
            match,
            choice,
            max(self.size),
            self.tolerance,
            groups,
        )
        if not problems:
            self.result.ties += len(found) - len(match.rows)
        return problems

    def two_stages(self, session: Session) -> None:
        """Judge the proposals, then what comes of these proposals.

        Proposals that tie lead to other boxes, which the model must give too
        where it gets the same proposals.
        """
        found = run_with_proposals(session.path, self.image.numpy())
        if found is None:
            self.result.problems.append('boxes differ')
            return
        got, proposals, levels = found
        chosen = self.host.dense_choice(self.tolerance)
        for (kept, choice), mine, groups in zip(
            chosen, proposals, levels, strict=True
        ):
            match = self.match(mine, kept)
            problems = self.judge(mine, kept, match, choice, groups)
            self.result.problems += [f'proposals: {p}' for p in problems]
        chosen = self.host.second_stage(proposals, self.tolerance)
        for i, (kept, choice) in enumerate(chosen):
            self.add(got, i, kept, choice)

    def differing_masks(self, got, i, found, kept, match) -> int:
        """Count pairs of boxes whose masks are not the same."""
        there = got['labels'][i] >= 0
        # Below 0 it gives probabilities, in steps of 1 / 255.
        paste = partial(
            paste_masks, got['masks'][i][there], found.places, self.size
        )
        mine, shares = paste(self.threshold), paste(-1).float() / 255
        clear = (shares - self.threshold).abs() > MASK_SLACK
        differ = mine[match.rows] != kept.masks[match.columns]
        return int((differ & clear[match.rows]).flatten(1).any(1).sum())


def _boxes_of(got: dict[str, np.ndarray], i: int) -> Boxes:
    """Read the boxes of a picture from the outputs of a network."""
    there = got['labels'][i] >= 0
    return Boxes(
        *(
            torch.from_numpy(got[key][i][there])
            for key in ('boxes', 'scores', 'labels')
        )
    )
