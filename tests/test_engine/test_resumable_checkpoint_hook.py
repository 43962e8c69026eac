"""A training that stops and goes on ends as one that never stopped."""

import pytest
import torch
from mmengine.runner import Runner
from toy_training import LENGTH, StoppedError, toy_config


@pytest.fixture(autouse=True)
def wait_less(monkeypatch):
    """Shorten mmengine's rest between passes, and torch's for processes."""
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda x: None)
    monkeypatch.setattr('torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL', 1)


def start(work_dir, **kwargs):
    cfg = toy_config(work_dir, **kwargs)
    name = f'{work_dir.name}_{torch.randint(1 << 40, ()).item()}'
    runner = Runner(experiment_name=name, resume=True, **cfg)
    runner.train()
    return runner


def result(runner):
    """Everything that has to be equal, in one flat dict."""
    path = runner.message_hub.get_info('last_ckpt')
    content = torch.load(path, weights_only=False)
    found = {f'model.{k}': v for k, v in content['state_dict'].items()}
    found |= {f'ema.{k}': v for k, v in content['ema_state_dict'].items()}
    for index, state in content['optimizer']['state'].items():
        found |= {f'adam.{index}.{k}': v for k, v in state.items()}
    scalars = runner.message_hub.log_scalars
    for name in ('train/loss', 'train/lr', 'val/acc'):
        found[name] = torch.tensor(scalars[name].current())
    found['schedule'] = torch.tensor(
        [x['last_step'] for x in content['param_schedulers']]
    )
    return found


def check_equal(one, other):
    one, other = result(one), result(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


ALONE = dict(workers=0)
TWO = dict(workers=2)
STAYING = dict(workers=2, persistent=True)
THREE = dict(workers=3, persistent=True)
# Saved after each epoch, stopped within one.
EPOCH = dict(stop=2 * LENGTH + 3)
# Saved within an epoch, stopped elsewhere in it; and at its end.
WITHIN = dict(interval=3, by_epoch=False, stop=2 * LENGTH + 5)
AT_END = dict(interval=LENGTH, by_epoch=False, stop=LENGTH + 3)
# Loops that count iterations, over an endless order and a finite one.
ENDLESS = dict(loop='iter', length=30, stop=19, sampler='InfiniteSampler')
FINITE = dict(loop='iter', length=14, interval=3, stop=11)


@pytest.mark.parametrize(
    ('plan', 'loading'),
    [
        *((x, ALONE) for x in (EPOCH, WITHIN, AT_END, ENDLESS, FINITE)),
        *((x, STAYING) for x in (EPOCH, WITHIN, ENDLESS, FINITE)),
        (EPOCH, TWO),
        (FINITE, TWO),
        (WITHIN, THREE),
    ],
)
def test_same_end(tmp_path, plan, loading):
    plan = dict(plan, **loading)
    stop = plan.pop('stop')
    whole = start(tmp_path / 'whole', **plan)
    with pytest.raises(StoppedError):
        start(
            tmp_path / 'parts',
            hooks=[dict(type='StopHook', iteration=stop)],
            **plan,
        )
    check_equal(whole, start(tmp_path / 'parts', **plan))
