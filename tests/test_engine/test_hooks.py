from types import SimpleNamespace

import pytest
from mmengine.logging import MessageHub

from mmmobilemamba.engine import ThroughputHook


def test_throughput_is_a_mean_over_the_last_iterations():
    hub = MessageHub('throughput')
    hook = ThroughputHook(window=2)
    runner = SimpleNamespace(message_hub=hub)
    for seconds in (9.0, 1.0, 3.0):
        hub.update_scalar('train/time', seconds)
        hook.after_train_iter(runner, 0, data_batch=dict(inputs=[None] * 8))
    assert hub.get_scalar('train/images_per_s').current() == 8 / 2.0


def test_throughput_of_several_processes(monkeypatch):
    monkeypatch.setattr('mmmobilemamba.engine.hooks.get_world_size', lambda: 4)
    hub = MessageHub('throughput of several')
    hub.update_scalar('train/time', 0.5)
    ThroughputHook().after_train_iter(
        SimpleNamespace(message_hub=hub), 0, data_batch=dict(inputs=[None] * 8)
    )
    assert hub.get_scalar('train/images_per_s').current() == 64


def test_window_is_checked():
    with pytest.raises(ValueError, match='window must be at least 1, got 0'):
        ThroughputHook(window=0)
