"""Networks of timm as backbones: layout, freezing, files, errors."""

import copy

import pytest
import torch
from mmengine.registry import MODELS
from torch.nn.modules.batchnorm import _BatchNorm

from mmmobilemamba.models import TIMMBackbone

timm = pytest.importorskip('timm')

# Published parameters in millions and MACs in billions at 224 px, of the
# classifier (arXiv:2405.07992).
MAMBAOUT = {
    'mambaout_femto': (7.3, 1.2),
    'mambaout_tiny': (26.5, 4.5),
    'mambaout_small': (48.5, 9.0),
    'mambaout_base': (84.8, 15.8),
}
# Strides 16 to 64, 2 to 32, 4 to 32 in NHWC, features behind a module.
LAYOUTS = {
    'efficientvit_m0': [16, 32, 64],
    'mobilenetv2_050': [2, 4, 8, 16, 32],
    'mambaout_femto': [4, 8, 16, 32],
    'resnet18': [2, 4, 8, 16, 32],
}


def pretrained(path, **kwargs):
    return dict(type='Pretrained', checkpoint=str(path), **kwargs)


def trained_parts(model):
    return {n for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize('name', LAYOUTS)
def test_maps(name):
    model = TIMMBackbone(name).eval()
    assert model.out_strides == LAYOUTS[name]
    with torch.no_grad():
        for height, width in ((128, 192), (100, 132)):
            maps = model(torch.rand(2, 3, height, width))
            assert isinstance(maps, tuple)
            assert [tuple(m.shape) for m in maps] == [
                (2, channels, -(-height // stride), -(-width // stride))
                for channels, stride in zip(
                    model.out_channels, model.out_strides, strict=True
                )
            ]
            assert all(m.is_contiguous() for m in maps)


@pytest.mark.parametrize('name', MAMBAOUT)
def test_mambaout_has_the_published_size(name):
    from mmmobilemamba.analysis.complexity import count_complexity

    params, macs = MAMBAOUT[name]
    with torch.device('meta'):
        cost = count_complexity(timm.create_model(name), (224, 224))
    assert cost.params / 1e6 == pytest.approx(params, abs=0.05)
    assert cost.macs / 1e9 == pytest.approx(macs, abs=0.06)


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
def test_builds_in_every_library(scope):
    pytest.importorskip(scope)
    registry = __import__(f'{scope}.registry', fromlist=['MODELS']).MODELS
    model = registry.build(
        dict(type='mmmobilemamba.TIMMBackbone', model_name='mambaout_femto')
    )
    assert isinstance(model, TIMMBackbone)
    assert MODELS.get('mmmobilemamba.TIMMBackbone') is TIMMBackbone


def test_out_indices():
    model = TIMMBackbone('mambaout_femto', out_indices=(-3, 2))
    assert model.out_indices == (1, 2)
    assert model.out_channels == [96, 192]
    assert len(model.feature_info) == 4


@pytest.mark.parametrize('name', LAYOUTS)
def test_every_trained_parameter_gets_a_gradient(name):
    """Unread ones would stop a distributed training."""
    model = TIMMBackbone(name, out_indices=(0, 1)).train()
    maps = model(torch.rand(2, 3, 128, 128))
    sum(m.square().mean() for m in maps).backward()
    for key, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), key
    assert trained_parts(model)


@pytest.mark.parametrize(
    'name, stages',
    [
        ('mambaout_femto', ['stem', 'stages_0', 'stages_1']),
        ('efficientvit_m0', ['patch_embed', 'stages_0', 'stages_1']),
        # level 0 is the activation behind the stem
        ('resnet18', ['conv1 bn1', 'act1', 'layer1']),
        ('mobilenetv2_050', ['conv_stem bn1', 'blocks.0', 'blocks.1']),
    ],
)
def test_frozen_stages(name, stages):
    everything = trained_parts(TIMMBackbone(name))
    prefixes = []
    for frozen, names in enumerate(['', *stages], start=-1):
        prefixes += [f'timm_model.{part}' for part in names.split()]
        model = TIMMBackbone(name, frozen_stages=frozen).train()
        still = {n for n in everything if n.startswith(tuple(prefixes))}
        assert trained_parts(model) == everything - still
        for module_name, module in model.named_modules():
            if isinstance(module, _BatchNorm):
                held = f'{module_name}.'.startswith(tuple(prefixes))
                assert module.training is not held, module_name
    assert still


def test_norm_eval_and_train_returns_itself():
    model = TIMMBackbone('mobilenetv2_050', norm_eval=True)
    assert model.train() is model
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    assert norms and not any(norm.training for norm in norms)
    assert model.timm_model.training


def test_settings_reach_the_network():
    model = TIMMBackbone(
        'mambaout_femto', in_channels=4, drop_path_rate=0.3, with_cp=True
    )
    drops = [
        m.drop_prob for m in model.modules() if type(m).__name__ == 'DropPath'
    ]
    assert max(drops) == pytest.approx(0.3)
    maps = model(torch.rand(2, 4, 64, 64))
    sum(m.square().mean() for m in maps).backward()


class TestFiles:
    @pytest.mark.parametrize('name', LAYOUTS)
    @pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
    def test_file_of_timm(self, name, suffix, tmp_path):
        """The classifier and its size do not matter, all else arrives."""
        whole = timm.create_model(name, num_classes=7).eval()
        path = tmp_path / f'x.{suffix}'
        if suffix == 'pth':
            torch.save(whole.state_dict(), path)
        else:
            from safetensors.torch import save_file

            save_file(
                {k: v.contiguous() for k, v in whole.state_dict().items()},
                path,
            )
        model = TIMMBackbone(name, init_cfg=pretrained(path))
        model.init_weights()
        model.eval()
        x = torch.rand(1, 3, 224, 224)
        with torch.no_grad():
            wanted = whole.forward_intermediates(
                x, indices=list(model.out_indices), intermediates_only=True
            )
            for ours, theirs in zip(model(x), wanted, strict=True):
                assert torch.equal(ours, theirs)

    @pytest.mark.parametrize('prefix', ['backbone.', 'backbone.backbone.'])
    def test_file_of_a_detector(self, prefix, tmp_path):
        """A backbone with fewer stages takes it as well."""
        source = TIMMBackbone('mambaout_femto')
        state = {prefix + k: v for k, v in source.state_dict().items()}
        state[prefix.replace('backbone.', '', 1) + 'neck.x'] = torch.ones(1)
        state['rpn_head.x'] = torch.ones(1)
        torch.save(dict(state_dict=state), tmp_path / 'x.pth')
        model = TIMMBackbone(
            'mambaout_femto',
            out_indices=(0, 1),
            init_cfg=pretrained(tmp_path / 'x.pth'),
        )
        model.init_weights()
        for name, value in model.state_dict().items():
            assert torch.equal(value, source.state_dict()[name]), name

    def test_file_of_the_authors(self, tmp_path):
        """MambaOut's own names, which timm translates."""
        whole = timm.create_model('mambaout_femto')
        state = {}
        for name, value in whole.state_dict().items():
            name = name.replace('stem.', 'downsample_layers.0.')
            for stage in range(1, 4):
                name = name.replace(
                    f'stages.{stage}.downsample', f'downsample_layers.{stage}'
                )
            state[name.replace('.blocks.', '.')] = value
        torch.save(state, tmp_path / 'x.pth')
        model = TIMMBackbone(
            'mambaout_femto', init_cfg=pretrained(tmp_path / 'x.pth')
        )
        model.init_weights()
        assert torch.equal(
            model.timm_model['stages_2'].downsample.conv.weight,
            whole.stages[2].downsample.conv.weight,
        )

    @pytest.mark.parametrize(
        'foreign, named',
        [
            ('resnet18', 'stem.conv1.weight'),
            ('mambaout_tiny', 'of another shape'),
        ],
    )
    def test_file_of_another_network(self, foreign, named, tmp_path):
        state = timm.create_model(foreign).state_dict()
        torch.save(state, tmp_path / 'x.pth')
        model = TIMMBackbone(
            'mambaout_femto', init_cfg=pretrained(tmp_path / 'x.pth')
        )
        with pytest.raises(ValueError, match='mambaout_femto.*does not') as e:
            model.init_weights()
        assert named in str(e.value)

    def test_missing_tensor_and_file(self, tmp_path):
        state = timm.create_model('resnet18').state_dict()
        del state['layer3.0.conv1.weight']
        torch.save(state, tmp_path / 'x.pth')
        model = TIMMBackbone(
            'resnet18', init_cfg=pretrained(tmp_path / 'x.pth')
        )
        with pytest.raises(ValueError, match='layer3.0.conv1.weight'):
            model.init_weights()
        model.init_cfg = pretrained(tmp_path / 'none.pth')
        with pytest.raises(FileNotFoundError, match='none.pth'):
            model.init_weights()

    def test_building_fetches_nothing(self, monkeypatch):
        """Only initialising does, and a resumed run need not."""
        asked = []
        create = timm.create_model

        def record(name, pretrained=False, **kwargs):
            asked.append(pretrained)
            return create(name, **kwargs)

        monkeypatch.setattr(timm, 'create_model', record)
        model = TIMMBackbone('resnet18', pretrained=True)
        assert not any(asked)
        before = model.timm_model.conv1.weight.clone()
        model.init_weights()
        assert asked[-1] is True
        assert not torch.equal(before, model.timm_model.conv1.weight)


def test_init_weights_keeps_the_initial_values_of_timm():
    model = TIMMBackbone('resnet18')
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.init_weights()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_layer_depth():
    model = TIMMBackbone('mambaout_femto')
    depths = [
        model.get_layer_depth(f'backbone.{name}', 'backbone.')
        for name, _ in model.named_parameters()
    ]
    # The stem, 18 blocks and whatever follows the backbone.
    assert {count for _, count in depths} == {20}
    assert [depth for depth, _ in depths] == sorted(d for d, _ in depths)
    assert {depth for depth, _ in depths} == set(range(19))
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (19, 20)


def test_deploy_computes_the_same():
    torch.manual_seed(0)
    model = TIMMBackbone('efficientvit_m0').eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.8, 1.2)
            module.weight.data.uniform_(0.8, 1.2)
    x = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        before = model(x)
        for _ in range(2):
            model.switch_to_deploy()
        after = model(x)
    assert not any(isinstance(m, _BatchNorm) for m in model.modules())
    for ours, theirs in zip(after, before, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    'error, named, kwargs',
    [
        (ValueError, 'mean.*mambaout_femto', dict(model_name='mambaout_femt')),
        (ValueError, 'efficientvit_m5', dict(model_name='EfficientViT-M7')),
        (TypeError, 'model_name', dict(model_name=3)),
        (ValueError, 'out_indices.*-4 to 3', dict(out_indices=(0, 4))),
        (ValueError, 'rising', dict(out_indices=(2, 1))),
        (TypeError, 'out_indices', dict(out_indices=1.5)),
        (ValueError, 'frozen_stages must be -1 to 4', dict(frozen_stages=5)),
        (TypeError, 'features_only', dict(features_only=True)),
        (TypeError, 'init_cfg', dict(pretrained='x.pth')),
        (TypeError, 'no_such', dict(no_such=1)),
    ],
)
def test_bad_arguments(error, named, kwargs):
    with pytest.raises(error, match=named):
        TIMMBackbone(**{'model_name': 'mambaout_femto', **kwargs})


def test_network_that_is_built_for_one_size():
    model = TIMMBackbone('swin_tiny_patch4_window7_224', img_size=(64, 96))
    with torch.no_grad():
        maps = model.eval()(torch.rand(1, 3, 64, 96))
        assert [m.shape[3] for m in maps] == [24, 12, 6, 3]
        with pytest.raises(ValueError, match='64x96 pixels, got 64x64'):
            model(torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match='efficientformer_l1.*128x128'):
        TIMMBackbone('efficientformer_l1', img_size=128)


def test_tables_of_offsets_follow_the_picture():
    name = 'efficientformerv2_s0'
    torch.manual_seed(0)
    model = TIMMBackbone(name, img_size=(128, 192)).eval()
    small = timm.create_model(name, img_size=(64, 96), features_only=True)
    names = set(model.state_dict())
    state = model.timm_model.state_dict()
    cropped = small.state_dict()
    for key, table in state.items():
        if not key.endswith('attention_biases'):
            cropped[key] = table
            continue
        torch.nn.init.normal_(table)
        # The table is as large as the map; strides 16 and 32 have some.
        side = (8, 12) if table.shape[1] == 96 else (4, 6)
        half = [n // 2 for n in side]
        table = table.unflatten(1, side)[:, : half[0], : half[1]]
        cropped[key] = table.flatten(1)
    small.load_state_dict(cropped)
    with torch.no_grad():
        x = torch.rand(1, 3, 64, 96)
        for a, b in zip(model(x), small.eval()(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    model.train()
    for size in ((224, 160), (97, 131)):
        maps = model(torch.rand(2, 3, *size))
        for m, stride in zip(maps, model.out_strides, strict=True):
            assert tuple(m.shape[2:]) == tuple(-(-n // stride) for n in size)
        sum(m.mean() for m in maps).backward()
    assert set(model.state_dict()) == names
    copy.deepcopy(model)(torch.rand(2, 3, 64, 64))


def test_stages_that_are_no_modules_cannot_be_frozen():
    assert TIMMBackbone('hrnet_w18_small').out_strides == [2, 4, 8, 16, 32]
    with pytest.raises(ValueError, match='frozen_stages must be -1'):
        TIMMBackbone('hrnet_w18_small', frozen_stages=1)


def test_missing_timm(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'timm', None)
    with pytest.raises(ImportError, match='pip install timm'):
        TIMMBackbone('resnet18')
