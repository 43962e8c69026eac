"""Files into backbones: what is taken, what is refused, and why."""

import importlib.util
import pickle
import re
from pathlib import Path

import pytest
import torch
from golden import cases, made_input, made_state_dict, relative_error
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmmobilemamba.checkpoints.checkpoint import read_state_dict
from mmmobilemamba.checkpoints.key_map import state_dict_to_published
from mmmobilemamba.models.backbones import MobileMamba

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def published():
    return made_state_dict('t2')


@pytest.fixture(scope='module')
def converter():
    path = ROOT / 'tools' / 'model_converters' / 'mobilemamba_to_mm.py'
    spec = importlib.util.spec_from_file_location('mobilemamba_to_mm', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def pretrained(path, **kwargs) -> MobileMamba:
    """Build a t2 backbone as a config with a pretrained file does."""
    model = MODELS.build(
        dict(
            type='mmmobilemamba.MobileMamba',
            arch='t2',
            init_cfg=dict(type='Pretrained', checkpoint=str(path)),
            **kwargs,
        )
    )
    model.init_weights()
    return model


def assert_golden(model: MobileMamba) -> None:
    case = cases()['t2']
    with torch.no_grad():
        outs = model.eval()(made_input(case))
    for out, wanted in zip(outs, case['features'][1:], strict=True):
        assert relative_error(out, wanted) < 1e-4


def wrong(published: dict) -> dict:
    return {
        name: value + 1 if value.is_floating_point() else value
        for name, value in published.items()
        if 'filter' not in name
    }


@pytest.mark.parametrize(
    'pack',
    [
        lambda p: p,
        lambda p: {'net': p, 'epoch': 300},
        lambda p: {'net': wrong(p), 'net_E': p},
        lambda p: {
            'state_dict': {
                f'backbone.{k}': v
                for k, v in p.items()
                if not k.startswith('head.')
            }
            | {'neck.lateral_convs.0.conv.bias': torch.zeros(2)}
        },
        lambda p: {f'module.{k}': v for k, v in p.items()},
    ],
    ids=['top-level', 'net', 'net_E-preferred', 'dense', 'data-parallel'],
)
def test_published_file_as_it_is(tmp_path, published, pack):
    torch.save(pack(published), tmp_path / 'file.pth')
    assert_golden(pretrained(tmp_path / 'file.pth'))


def test_our_own_file_with_and_without_prefix(tmp_path, published):
    torch.save(published, tmp_path / 'published.pth')
    model = pretrained(tmp_path / 'published.pth')
    bare = model.state_dict()
    torch.save({'state_dict': bare}, tmp_path / 'bare.pth')
    assert_golden(pretrained(tmp_path / 'bare.pth'))
    whole = {f'backbone.{k}': v for k, v in bare.items()}
    whole['head.fc.weight'] = torch.zeros(10, 368)
    torch.save({'state_dict': whole}, tmp_path / 'whole.pth')
    assert_golden(pretrained(tmp_path / 'whole.pth'))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='absent.pth'):
        pretrained(tmp_path / 'absent.pth')


def test_foreign_file_is_refused(tmp_path):
    torch.save({'layer1.0.conv1.weight': torch.zeros(3)}, tmp_path / 'r.pth')
    with pytest.raises(ValueError, match='another network'):
        pretrained(tmp_path / 'r.pth')


def test_other_variant_is_refused(tmp_path):
    torch.save(made_state_dict('s6'), tmp_path / 's6.pth')
    with pytest.raises(ValueError, match=r'another shape.*\(24, 3, 3, 3\)'):
        pretrained(tmp_path / 's6.pth')


def test_incomplete_file_is_refused_untouched(tmp_path, published):
    name = 'blocks2.3.mixer.m.attn.global_op.global_atten.Ds'
    torch.save(
        {k: v for k, v in published.items() if k != name}, tmp_path / 'x.pth'
    )
    model = MobileMamba(
        't2',
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth')),
    )
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(
        ValueError, match='1 missing: stages.1.blocks.0.mixer.*ss2d.D'
    ):
        model.init_weights()
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_fused_file_needs_the_fused_backbone(tmp_path, published):
    torch.save(published, tmp_path / 'published.pth')
    model = pretrained(tmp_path / 'published.pth')
    model.switch_to_deploy()
    torch.save(model.state_dict(), tmp_path / 'fused.pth')
    with pytest.raises(ValueError, match='deploy=True'):
        pretrained(tmp_path / 'fused.pth')
    assert_golden(pretrained(tmp_path / 'fused.pth', deploy=True))


@pytest.mark.parametrize(
    'content',
    [b'', b'no pickle', pickle.dumps([1, 2], protocol=2)],
    ids=['empty', 'text', 'list'],
)
def test_file_that_is_no_checkpoint(tmp_path, content):
    (tmp_path / 'x.pth').write_bytes(content)
    with pytest.raises(ValueError, match='x.pth'):
        read_state_dict(tmp_path / 'x.pth')


class Attack:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_code_in_a_file_is_not_run(tmp_path, published):
    mark = tmp_path / 'ran'
    torch.save({**published, 'x': Attack(mark)}, tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match='evil.pth.*read safely'):
        pretrained(tmp_path / 'evil.pth')
    assert not mark.exists()


class TestConverter:
    def test_classifier_there_and_back(self, tmp_path, published, converter):
        src, dst = str(tmp_path / 'src.pth'), str(tmp_path / 'dst.pth')
        torch.save({'net_E': published}, src)
        assert converter([src, dst]) == 0
        content = torch.load(dst, weights_only=True)
        assert content['meta']['arch'] == 't2'
        assert {'head.bn.weight', 'head.fc.bias'} < set(content['state_dict'])
        assert_golden(pretrained(dst))
        back = str(tmp_path / 'back.pth')
        assert converter([dst, back, '--reverse']) == 0
        again = torch.load(back, weights_only=True)
        assert again.keys() == published.keys()
        assert all(torch.equal(again[k], published[k]) for k in again)

    def test_dense_model(self, tmp_path, converter):
        pytest.importorskip('mmdet')
        config = Config.fromfile(
            ROOT / 'configs/det/mask_rcnn'
            '/mask-rcnn_mobilemamba-b1_fpn_1x_coco.py'
        )
        with DefaultScope.overwrite_default_scope('mmdet'):
            model = MODELS.build(config.model)
        src, dst = str(tmp_path / 'src.pth'), str(tmp_path / 'dst.pth')
        content = state_dict_to_published(model.state_dict())
        assert 'neck.extra_trans_convs.0.conv.weight' in content
        torch.save({'state_dict': content}, src)
        assert converter([src, dst]) == 0
        ours = torch.load(dst, weights_only=True)['state_dict']
        model.load_state_dict(ours, strict=True)
        back = str(tmp_path / 'back.pth')
        assert converter([dst, back, '--reverse']) == 0
        again = torch.load(back, weights_only=True)
        assert again.keys() == content.keys()

    def test_container_by_hand(self, tmp_path, published, converter):
        src, dst = str(tmp_path / 'src.pth'), str(tmp_path / 'dst.pth')
        torch.save({'net': published, 'net_E': wrong(published)}, src)
        assert converter([src, dst, '--container', 'net']) == 0
        assert_golden(pretrained(dst))

    def test_refuses_to_overwrite(self, tmp_path, published, converter):
        src, dst = tmp_path / 'src.pth', tmp_path / 'dst.pth'
        torch.save(published, src)
        dst.write_text('mine')
        assert converter([str(src), str(dst)]) == 1
        assert dst.read_text() == 'mine'
        assert converter([str(src), str(dst), '--overwrite']) == 0
        assert_golden(pretrained(dst))

    @pytest.mark.parametrize(
        'spoil,message',
        [
            (lambda p: p.pop('blocks1.0.dw0.m.bn.bias'), 'dw0.bn.bias'),
            (lambda p: p.update({'blocks1.0.x': torch.zeros(1)}), 'blocks1'),
            (
                lambda p: p.update({'patch_embed.6.c.weight': torch.zeros(8)}),
                r'\(8, 272, 368\)',
            ),
        ],
    )
    def test_says_what_does_not_fit(
        self, tmp_path, published, converter, capsys, spoil, message
    ):
        content = dict(published)
        spoil(content)
        src, dst = tmp_path / 'src.pth', tmp_path / 'dst.pth'
        torch.save(content, src)
        assert converter([str(src), str(dst)]) == 1
        assert not dst.exists() and list(tmp_path.iterdir()) == [src]
        assert re.search(message, capsys.readouterr().err)
