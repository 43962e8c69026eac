"""The backbone: structure, published values, training switches, errors."""

import pytest
import torch
from golden import cases, made_input, made_state_dict, relative_error
from mmengine.runner.checkpoint import load_state_dict
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmmobilemamba.checkpoints.key_map import from_published
from mmmobilemamba.models.backbones import MobileMamba
from mmmobilemamba.models.layers import SS2D
from mmmobilemamba.ops import find_extension

TINY = dict(channels=(32, 48, 64), depths=(1, 1, 1), kernel_sizes=(5, 3, 3))
BACKENDS = ['parallel', 'reference']
if find_extension().module is not None:
    BACKENDS.append('extension')


def made_backbone(variant: str, **kwargs) -> MobileMamba:
    """Load published weights as a host does, within a model."""
    model = MobileMamba(variant, **kwargs)
    state = {f'a.{k}': v for k, v in made_state_dict(variant).items()}
    load_state_dict(nn.ModuleDict({'a': model}), state, strict=True)
    return model.eval()


class TestPublishedNetwork:
    @pytest.mark.parametrize('backend', BACKENDS)
    @pytest.mark.parametrize('variant', list(cases()))
    @pytest.mark.parametrize(
        'layout', [torch.contiguous_format, torch.channels_last]
    )
    def test_golden_features(self, monkeypatch, backend, variant, layout):
        monkeypatch.setenv('MMMOBILEMAMBA_SCAN', backend)
        case = cases()[variant]
        model = made_backbone(variant).to(memory_format=layout)
        x = made_input(case)
        # As the third of three different images, and alone.
        batch = torch.cat((torch.randn_like(x), x.flip(-1), x))
        for _ in ('trained', 'deployed', 'deployed twice'):
            for images in (x, batch):
                with torch.no_grad():
                    outs = model(images.contiguous(memory_format=layout))
                wanted = case['features'][1:]
                for out, record in zip(outs, wanted, strict=True):
                    assert relative_error(out[-1:], record) < 1e-4
            model.switch_to_deploy()
        assert not any(isinstance(m, _BatchNorm) for m in model.modules())

    @pytest.mark.parametrize('backend', BACKENDS)
    def test_golden_gradients(self, monkeypatch, backend):
        monkeypatch.setenv('MMMOBILEMAMBA_SCAN', backend)
        known = {k: v for k, v in cases().items() if 'grad_norms' in v}
        assert known
        for variant, case in known.items():
            model = made_backbone(variant)
            outs = model(made_input(case))
            loss = sum(out.square().mean() for out in outs)
            loss.backward()
            assert abs(loss.item() / case['loss'] - 1) < 1e-4
            parameters = dict(model.named_parameters())
            for name, wanted in case['grad_norms'].items():
                got = parameters[from_published(name)].grad.norm().item()
                assert abs(got / wanted - 1) < 1e-3, name


class TestStructure:
    @pytest.mark.parametrize(
        'fields,params',
        [
            (dict(scan_directions=4, ssm_ratio=1), 14.1),
            (dict(ssm_ratio=1, d_state=16), 14.1),
            (dict(kernel_sizes=(7, 7, 7)), 15.2),
            (dict(wavelet_levels=0), 14.9),
            (dict(local_splits=3), 15.0),
        ],
    )
    def test_published_ablations(self, fields, params):
        arch = dict(channels=(192, 384, 448), depths=(1, 2, 2), **fields)
        model = MobileMamba(arch)
        # The published counts hold the head, and fixed filters of 0.05 M.
        count = sum(p.numel() for p in model.parameters()) + 449 * 1000 + 896
        assert count / 1e6 == pytest.approx(params, abs=0.1)

    def test_four_directions_see_the_transposed_map(self):
        # With row and column weights exchanged, the transposed image
        # gives the transposed result. A and D begin as equal ones.
        layer = SS2D(16, scan_directions=4).eval()
        state = layer.state_dict()
        for name in ('x_proj_weight', 'dt_proj_weight', 'dt_proj_bias'):
            state[name] = state[name][[1, 0, 3, 2]]
        state['dwconv.weight'] = state['dwconv.weight'].transpose(2, 3)
        other = SS2D(16, scan_directions=4).eval()
        other.load_state_dict(state)
        x = torch.randn(2, 16, 5, 8)
        torch.testing.assert_close(other(x.mT).mT, layer(x))

    @pytest.mark.parametrize('indices', [(0, 1), (-1,), (1, -1)])
    def test_out_indices(self, indices):
        model = MobileMamba(TINY, out_indices=indices).eval()
        widths = [m.shape[1] for m in model(torch.randn(1, 3, 64, 64))]
        assert widths == [TINY['channels'][i] for i in indices]
        assert widths == model.out_channels

    def test_norms_and_channels_of_the_config(self):
        norm_cfg = dict(type='BN', eps=1e-3, requires_grad=False)
        model = MobileMamba(TINY, in_channels=5, norm_cfg=norm_cfg)
        for norm in [m for m in model.modules() if isinstance(m, _BatchNorm)]:
            assert norm.eps == 1e-3 and not norm.weight.requires_grad
        # A residual branch still begins as nothing.
        assert not model.stages[0].blocks[0].dw0.bn.weight.any()
        model.switch_to_deploy()
        model.eval()(torch.randn(1, 5, 64, 64))


class TestTraining:
    def test_every_parameter_learns(self):
        model = made_backbone('t2', drop_path_rate=0).train()
        outs = model(torch.randn(2, 3, 96, 64))
        sum(out.square().mean() for out in outs).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.any(), name

    @pytest.mark.parametrize('frozen', [-1, 0, 1, 2, 3])
    def test_frozen_stages(self, frozen):
        model = MobileMamba(TINY, frozen_stages=frozen).train()
        for _ in ('trained', 'deployed'):
            for i, part in enumerate([model.stem, *model.stages]):
                trains = i > frozen
                assert {p.requires_grad for p in part.parameters()} == {trains}
                for module in part.modules():
                    if isinstance(module, _BatchNorm):
                        assert module.training == trains
            model.switch_to_deploy()

    def test_unread_stages_are_kept_out_of_training(self):
        model = MobileMamba(TINY, out_indices=(0, 1)).train()
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad != name.startswith('stages.2.')

    def test_norm_eval(self):
        for module in MobileMamba(TINY, norm_eval=True).train().modules():
            assert not (isinstance(module, _BatchNorm) and module.training)

    def test_drop_path_rises_over_all_blocks(self):
        model = MobileMamba({**TINY, 'depths': (2, 1, 2)}, drop_path_rate=0.4)
        blocks = [block for stage in model.stages for block in stage.blocks]
        rates = [getattr(b.drop_path, 'drop_prob', 0.0) for b in blocks]
        assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    'fields,kwargs,named',
    [
        ('b3', {}, "'b3'.*t2, t4, s6, b1, b2, b4"),
        (dict(width=3), {}, 'width'),
        (dict(depths=(1, 1)), {}, 'depths.*three'),
        (dict(kernel_sizes=(4, 3, 3)), {}, 'kernel_sizes.*odd'),
        (dict(scan_directions=3), {}, 'scan_directions'),
        (dict(local_splits=4), {}, 'local_splits'),
        (dict(global_ratios=(1,) * 3, channels=(40,) * 3), {}, '=1 of 40'),
        ({}, dict(out_indices=(0, 3)), 'out_indices.*-3 to 2'),
        ({}, dict(out_indices=(2, 0)), 'out_indices'),
        ({}, dict(frozen_stages=4), 'frozen_stages.*4'),
        ({}, dict(norm_cfg=dict(type='LN')), 'norm_cfg.*LN'),
    ],
)
def test_bad_arguments(fields, kwargs, named):
    arch = fields if isinstance(fields, str) else {**TINY, **fields}
    with pytest.raises(ValueError, match=named):
        MobileMamba(arch, **kwargs)


def test_small_image():
    with pytest.raises(ValueError, match='31x64'):
        MobileMamba(TINY)(torch.randn(2, 3, 31, 64))
