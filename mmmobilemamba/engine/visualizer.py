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
        found = np.unique(labels)
        found = found[found < len(classes)].astype(int)[::-1]
        mask = np.zeros_like(image, dtype=np.uint8)
        places = {}
        for label in found:
            inside = labels == label
            mask[inside] = palette[label]
            # Where MMSegmentation puts it: the middle of its fullest row.
            y = inside.sum(1).argmax()
            columns = inside[y].nonzero()[0]
            places[label] = int(columns[len(columns) // 2]), int(y)
        for label, place in places.items() if with_labels else ():
            self._write(mask, classes[label], place, palette[label])
        drawn = cv2.addWeighted(image, 1 - self.alpha, mask, self.alpha, 0)
        self.set_image(drawn)
        return drawn

    @staticmethod
    def _write(
        mask: np.ndarray, text: str, place: tuple[int, int], color: list[int]
    ) -> None:
        """Write a name in a box whose upper left corner is a place."""
        side = min(mask.shape[:2])
        thickness = 1 if side < 300 else 2
        font, scale = cv2.FONT_HERSHEY_SIMPLEX, side / 500
        (width, height), base = cv2.getTextSize(text, font, scale, thickness)
        x, y = place
        corner = x + width + base, y + height + base
        cv2.rectangle(mask, place, corner, color, -1)
        cv2.rectangle(mask, place, corner, (0, 0, 0), thickness)
        cv2.putText(
            mask,
            text,
            (x, y + height),
            font,
            scale,
            (255, 255, 255),
            thickness,
            2,
        )
