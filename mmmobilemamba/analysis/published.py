"""Published accuracies, to stand beside measured speed and marked as such.

ImageNet-1K top-1 on validation images, from each network's own paper, for
training on ImageNet-1K alone; ``recipe`` says where it was more than
supervised training.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """What a paper says of a network.

    Args:
        name (str): Name in that paper.
        family (str): Networks that a plot joins by a line.
        size (int): Side of the test images in pixels.
        top1 (float): Top-1 accuracy in per cent.
        source (str): The paper.
        recipe (str): What the training had beyond labels. Defaults to ''.
    """

    name: str
    family: str
    size: int
    top1: float
    source: str
    recipe: str = ''


def _family(kind, family, source, rows, recipe='') -> dict[str, Published]:
    return {
        f'{kind}:{key}': Published(name, family, size, top1, source, recipe)
        for key, name, size, top1 in rows
    }


PUBLISHED = {
    **_family(
        'mobilemamba',
        'MobileMamba',
        'arXiv:2411.15941',
        [
            ('t2', 'MobileMamba-T2', 192, 73.6),
            ('t4', 'MobileMamba-T4', 192, 76.1),
            ('s6', 'MobileMamba-S6', 224, 78.0),
            ('b1', 'MobileMamba-B1', 256, 79.9),
            ('b2', 'MobileMamba-B2', 384, 81.6),
            ('b4', 'MobileMamba-B4', 512, 82.5),
        ],
    ),
    **_family(
        'timm',
        'EfficientViT',
        'arXiv:2305.07027',
        [
            ('efficientvit_m2', 'EfficientViT-M2', 224, 70.8),
            ('efficientvit_m4', 'EfficientViT-M4', 224, 74.3),
            ('efficientvit_m5', 'EfficientViT-M5', 224, 77.1),
        ],
    ),
    **_family(
        'timm',
        'SHViT',
        'arXiv:2401.16456',
        [
            ('shvit_s1', 'SHViT-S1', 224, 72.8),
            ('shvit_s2', 'SHViT-S2', 224, 75.2),
            ('shvit_s3', 'SHViT-S3', 224, 77.4),
            ('shvit_s4', 'SHViT-S4', 256, 79.4),
        ],
    ),
    **_family(
        'timm',
        'MobileNetV2',
        'arXiv:1801.04381',
        [('mobilenetv2_100', 'MobileNetV2', 224, 72.0)],
    ),
    **_family(
        'timm',
        'MobileNetV4',
        'arXiv:2404.10518',
        [
            ('mobilenetv4_conv_small', 'MobileNetV4-Conv-S', 224, 73.8),
            ('mobilenetv4_conv_medium', 'MobileNetV4-Conv-M', 256, 79.9),
        ],
    ),
    **_family(
        'timm',
        'RepViT',
        'arXiv:2307.09283',
        [
            ('repvit_m0_9', 'RepViT-M0.9', 224, 78.7),
            ('repvit_m1_0', 'RepViT-M1.0', 224, 80.0),
            ('repvit_m1_1', 'RepViT-M1.1', 224, 80.7),
        ],
        recipe='distilled',
    ),
    **_family(
        'timm',
        'StarNet',
        'arXiv:2403.19967',
        [
            ('starnet_s1', 'StarNet-S1', 224, 73.5),
            ('starnet_s2', 'StarNet-S2', 224, 74.8),
            ('starnet_s3', 'StarNet-S3', 224, 77.3),
            ('starnet_s4', 'StarNet-S4', 224, 78.4),
        ],
    ),
    **_family(
        'timm',
        'FasterNet',
        'arXiv:2303.03667',
        [
            ('fasternet_t0', 'FasterNet-T0', 224, 71.9),
            ('fasternet_t1', 'FasterNet-T1', 224, 76.2),
            ('fasternet_t2', 'FasterNet-T2', 224, 78.9),
        ],
    ),
    **_family(
        'timm',
        'MobileViTv2',
        'arXiv:2206.02680',
        [
            ('mobilevitv2_050', 'MobileViTv2-0.5', 256, 70.2),
            ('mobilevitv2_075', 'MobileViTv2-0.75', 256, 75.6),
            ('mobilevitv2_100', 'MobileViTv2-1.0', 256, 78.1),
        ],
    ),
    **_family(
        'timm',
        'EdgeNeXt',
        'arXiv:2206.10589',
        [
            ('edgenext_xx_small', 'EdgeNeXt-XXS', 256, 71.2),
            ('edgenext_x_small', 'EdgeNeXt-XS', 256, 75.0),
            ('edgenext_small', 'EdgeNeXt-S', 256, 79.4),
        ],
    ),
    **_family(
        'timm',
        'FastViT',
        'arXiv:2303.14189',
        [
            ('fastvit_t8', 'FastViT-T8', 256, 75.6),
            ('fastvit_t12', 'FastViT-T12', 256, 79.1),
        ],
    ),
    **_family(
        'timm',
        'MambaOut',
        'arXiv:2405.07992',
        [('mambaout_femto', 'MambaOut-Femto', 224, 78.9)],
    ),
}

# The paper's efficiency table with the peers of its figures; B2 is B1's
# network at a size between the two that are here.
PAPER_MODELS = tuple(
    f'{key}@{entry.size}'
    for key, entry in PUBLISHED.items()
    if key != 'mobilemamba:b2'
)

# Ours beside the peer of a like accuracy.
PAPER_PAIRS = (
    ('mobilemamba:t2@192', 'timm:efficientvit_m4@224'),
    ('mobilemamba:s6@224', 'timm:efficientvit_m5@224'),
    ('mobilemamba:b1@256', 'timm:shvit_s4@256'),
)
