"""Networks of timm as backbones: layout, freezing, files, errors."""

import re

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from mmmobilemamba.models import MobileMamba, TIMMBackbone

timm = pytest.importorskip('timm')
safetensors = pytest.importorskip('safetensors.torch')

# Strides 16 to 64, 2 to 32, 4 to 32 in NHWC, features behind a module.
LAYOUTS = {
    'efficientvit_m0': [16, 32, 64],
    'mobilenetv2_050': [2, 4, 8, 16, 32],
    'mambaout_femto': [4, 8, 16, 32],
    'resnet18': [2, 4, 8, 16, 32],
}


def filled(name, path, **kwargs):
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    model = TIMMBackbone(name, init_cfg=init_cfg, **kwargs)
    model.init_weights()
    return model


@pytest.mark.parametrize('name', LAYOUTS)
def test_maps_and_gradients(name):
    """NCHW of the announced strides; unread parameters are not trained."""
    model = TIMMBackbone(name).eval()
    assert model.out_strides == LAYOUTS[name]
    with torch.no_grad():
        maps = model(torch.rand(2, 3, 100, 132))
    known = zip(model.out_channels, model.out_strides, strict=True)
    for m, (channels, stride) in zip(maps, known, strict=True):
        assert m.shape == (2, channels, -(-100 // stride), -(-132 // stride))
        assert m.is_contiguous()
    model = TIMMBackbone(name, out_indices=(0, -len(LAYOUTS[name]) + 1))
    sum(m.sum() for m in model.train()(torch.rand(2, 3, 128, 128))).backward()
    for key, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), key


def test_strides_are_those_of_the_maps():
    """timm announces 32 for the last level of a dilated network."""
    model = TIMMBackbone('resnet18', output_stride=8, out_indices=(2, 4))
    maps = model.eval()(torch.rand(1, 3, 64, 96))
    assert model.out_strides == [96 // m.shape[3] for m in maps] == [8, 8]


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
    still = ()
    for frozen, names in enumerate(stages):
        for part in names.split():
            still += (f'timm_model.{part}', f'timm_model.model.{part}')
        model = TIMMBackbone(name, frozen_stages=frozen).train()
        for key, parameter in model.named_parameters():
            assert parameter.requires_grad is not key.startswith(still), key
        for key, module in model.named_modules():
            if isinstance(module, _BatchNorm):
                assert module.training is not key.startswith(still), key


@pytest.mark.parametrize(
    'backbone, name', [(TIMMBackbone, 'resnet18'), (MobileMamba, 't2')]
)
def test_recomputing_changes_nothing(backbone, name):
    """Neither gradients nor, by a second update, the averages of norms."""
    x, states = torch.rand(4, 3, 64, 64), []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = backbone(name, with_cp=with_cp).train()
        sum(m.square().mean() for m in model(x)).backward()
        grads = {k: p.grad for k, p in model.named_parameters()}
        states.append((grads, model.state_dict()))
    for plain, recomputed in zip(*states, strict=True):
        torch.testing.assert_close(recomputed, plain)


class TestFiles:
    @pytest.mark.parametrize('name', LAYOUTS)
    def test_file_of_timm(self, name, tmp_path):
        """The classifier and its size do not matter, all else arrives."""
        whole = timm.create_model(name, num_classes=7).eval()
        safe = name == 'resnet18'
        path = tmp_path / ('x.safetensors' if safe else 'x.pth')
        save = safetensors.save_file if safe else torch.save
        save(whole.state_dict(), path)
        model = filled(name, path)
        x = torch.rand(1, 3, 224, 224)
        with torch.no_grad():
            wanted = whole.forward_intermediates(
                x, indices=list(model.out_indices), intermediates_only=True
            )
            for ours, theirs in zip(model.eval()(x), wanted, strict=True):
                assert torch.equal(ours, theirs)

    def test_file_of_a_detector(self, tmp_path):
        """A backbone with fewer stages takes it as well."""
        state = TIMMBackbone('mambaout_femto').state_dict()
        saved = {f'backbone.backbone.{k}': v for k, v in state.items()}
        saved['backbone.neck.x'] = saved['rpn_head.x'] = torch.ones(1)
        path = tmp_path / 'x.pth'
        torch.save(dict(state_dict=saved), path)
        model = filled('mambaout_femto', path, out_indices=(0, 1))
        for name, value in model.state_dict().items():
            assert torch.equal(value, state[name]), name

    def test_file_of_the_authors(self, tmp_path):
        """MambaOut's own names, which timm translates."""
        whole = timm.create_model('mambaout_femto')
        state = {}
        stage, theirs = r'stages\.(\d)\.downsample', r'downsample_layers.\1'
        for name, value in whole.state_dict().items():
            name = name.replace('stem.', 'downsample_layers.0.')
            name = re.sub(stage, theirs, name)
            state[name.replace('.blocks.', '.')] = value
        torch.save(state, tmp_path / 'x.pth')
        ours = filled('mambaout_femto', tmp_path / 'x.pth').timm_model
        wanted = whole.stages[2].downsample.conv.weight
        assert torch.equal(ours['stages_2'].downsample.conv.weight, wanted)

    def test_file_that_does_not_fit(self, tmp_path):
        state = timm.create_model('resnet18').state_dict()
        del state['layer3.0.conv1.weight']
        torch.save(state, tmp_path / 'x.pth')
        for name in ('resnet18', 'mambaout_femto', 'resnet34'):
            with pytest.raises(ValueError, match=f'x.pth.*{name}') as error:
                filled(name, tmp_path / 'x.pth')
            if name == 'resnet18':
                assert 'layer3.0.conv1.weight' in str(error.value)

    def test_building_fetches_nothing(self, monkeypatch):
        """Only initialising does, and a resumed run need not."""

        def fetch(*args, **kwargs):
            raise ConnectionError('downloads')

        monkeypatch.setattr('timm.models._builder.load_pretrained', fetch)
        model = TIMMBackbone('resnet18', pretrained=True)
        with pytest.raises(ConnectionError):
            model.init_weights()


def test_layer_depth():
    model = TIMMBackbone('mambaout_femto')
    names = [f'backbone.{name}' for name, _ in model.named_parameters()]
    depths = [model.get_layer_depth(name, 'backbone.') for name in names]
    # The stem, 18 blocks and whatever follows the backbone.
    assert depths == sorted(depths)
    assert set(depths) == {(depth, 20) for depth in range(19)}
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (19, 20)


def test_deploy_fuses_norms_once():
    model = TIMMBackbone('efficientvit_m0').eval()
    model.switch_to_deploy()
    model.switch_to_deploy()
    assert not any(isinstance(m, _BatchNorm) for m in model.modules())
    model(torch.rand(1, 3, 128, 128))


@pytest.mark.parametrize(
    'error, named, kwargs',
    [
        (RuntimeError, 'mambaout_femt', dict(model_name='mambaout_femt')),
        (ValueError, 'out_indices.*-4 to 3', dict(out_indices=(0, 4))),
        (TypeError, 'features_only', dict(features_only=True)),
        (ValueError, 'frozen_stages.*5', dict(frozen_stages=5)),
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
        with pytest.raises(ValueError, match=r'\(64, 96\).*\(64, 64\)'):
            model(torch.rand(1, 3, 64, 64))
