"""MMSegmentation's visualizer without a list of all pixels of a class.

Imported when the registry is first asked for a visualizer of ours.
"""

import cv2
import numpy as np
from mmengine.structures import PixelData
from mmseg.visualization import SegLocalVisualizer as HostVisualizer

from mmmobilemamba.registry import VISUALIZERS


@VISUALIZERS.register_module()
class SegLocalVisualizer(HostVisualizer):
    """Draw what MMSegmentation draws in the memory of a few images.

    Its own takes 10 GiB for 12 megapixels and 150 classes. Arguments are those
    of ``mmseg.SegLocalVisualizer``.
    """

    def _draw_sem_seg(
        self,
        image: np.ndarray,
        sem_seg: PixelData,
        classes: list[str],
        palette: list[list[int]],
        with_labels: bool = True,
    ) -> np.ndarray:
        """Draw a label map (1, H, W) and its names over an RGB image."""
        labels = np.asarray(sem_seg.cpu().data[0])
        found = np.unique(labels)[::-1]
        colors = np.zeros((max(len(classes), int(found[0]) + 1), 3), np.uint8)
        colors[: len(classes)] = palette[: len(classes)]
        mask = colors[labels]
        side = min(labels.shape)
        font, scale = cv2.FONT_HERSHEY_SIMPLEX, side / 500
        thickness = 1 if side < 300 else 2
        for label in found[found < len(classes)] if with_labels else ():
            # Where MMSegmentation puts it: the middle of its fullest row.
            inside = labels == label
            y = inside.sum(1).argmax()
            columns = inside[y].nonzero()[0]
            place = int(columns[len(columns) // 2]), int(y)
            text, color = classes[label], palette[label]
            size, base = cv2.getTextSize(text, font, scale, thickness)
            corner = place[0] + size[0] + base, place[1] + size[1] + base
            cv2.rectangle(mask, place, corner, color, -1)
            cv2.rectangle(mask, place, corner, (0, 0, 0), thickness)
            place = place[0], place[1] + size[1]
            white = (255, 255, 255)
            cv2.putText(mask, text, place, font, scale, white, thickness, 2)
        drawn = cv2.addWeighted(image, 1 - self.alpha, mask, self.alpha, 0)
        self.set_image(drawn)
        return drawn
