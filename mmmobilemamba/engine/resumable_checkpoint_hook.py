"""Checkpoints from which a training goes on exactly."""

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from mmmobilemamba.checkpoints.safe_loading import allow_mmengine_checkpoints
from mmmobilemamba.checkpoints.start import settle_start
from mmmobilemamba.registry import HOOKS

from .atomic_checkpoint_hook import AtomicCheckpointHook
from .random_states import get_random_states, set_random_states
from .train_data import TrainData

# Entry of a checkpoint that holds what mmengine does not save.
_ENTRY = 'resumable'


@HOOKS.register_module()
class ResumableCheckpointHook(AtomicCheckpointHook):
    """Save checkpoints from which a training goes on as if never stopped.

    It takes the place of ``CheckpointHook``, with the same arguments::

        default_hooks = dict(
            checkpoint=dict(type='mmmobilemamba.ResumableCheckpointHook'))

    - Files are written whole or not at all, and an old one goes after the new
      one is there. One that cannot be written is a warning; a training whose
      last or best one is not on the disk at its end is an error.
    - A checkpoint keeps the random states of all processes, the running
      statistics of each, and the place in the data, in the middle of an epoch
      as well. Random numbers of worker processes follow from the seed and the
      number of the batch. Validation leaves no trace in the random states.
    - A resumed run makes up for a validation that was due.
    - ``resume=True`` alone takes the newest checkpoint that is whole and
      fits, and names those that it skips.

    Args:
        *args: Arguments of :class:`mmengine.hooks.CheckpointHook`.
        **kwargs: The same.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._data: TrainData | None = None
        self._loaded: dict = {}
        self._states: list[dict] = []
        self._before_val: dict | None = None

    def before_run(self, runner: Runner) -> None:
        """Choose the checkpoint to resume from where none is named."""
        # FlexibleRunner comes here too late: train.py has chosen before.
        if runner._resume and not runner._has_loaded:
            allow_mmengine_checkpoints()
            settle_start(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what the training is to go on with."""
        if runner._resume:
            self._loaded = checkpoint.get(_ENTRY) or dict(missing=True)

    def before_train(self, runner: Runner) -> None:
        """Go to the place in the data, and make up for a validation."""
        super().before_train(runner)
        reason = TrainData.obstacle(runner)
        if reason:
            runner.logger.warning(
                'A resumed training will see other random numbers than an '
                f'uninterrupted one: {reason}.'
            )
        else:
            self._check_loaded(runner)
            self._data = TrainData(runner, self._loaded.get('position'))
        if self._validation_is_due(runner):
            runner.logger.info('Validating, which the last run had yet to do.')
            self._restore(runner)
            runner.val_loop.run()

    def before_train_epoch(self, runner: Runner) -> None:
        """Take up the random states, right before the first batch."""
        if self._data is not None:
            self._data.start_pass(runner)
        self._restore(runner)
        self._loaded = {}

    def before_val(self, runner: Runner) -> None:
        """Remember the random states."""
        self._before_val = get_random_states()

    def after_val(self, runner: Runner) -> None:
        """Go back to the random states of the training."""
        set_random_states(self._before_val)
        self._before_val = None

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        """Save the best checkpoint."""
        if self.save_best:
            self._gather(runner)
        super().after_val_epoch(runner, metrics)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add what mmengine does not save."""
        # The best one has no optimizer: nothing goes on from it.
        if self._data is None or 'optimizer' not in checkpoint:
            return
        meta = checkpoint['meta']
        checkpoint[_ENTRY] = dict(
            states=self._states,
            position=self._data.position(meta['epoch'], meta['iter']),
            validated=self._before_val is not None,
        )

    def _save_checkpoint(self, runner: Runner) -> None:
        self._gather(runner)
        super()._save_checkpoint(runner)

    def _gather(self, runner: Runner) -> None:
        """Collect the states of all processes; only one of them saves."""
        states = self._before_val or get_random_states()
        if get_rank() > 0:
            own = {k: v.cpu() for k, v in _statistics(runner).items()}
            states = dict(states, statistics=own)
        self._states = all_gather_object(states)

    def _restore(self, runner: Runner) -> None:
        states = self._loaded.get('states')
        if not states:
            return
        mine = states[get_rank()]
        set_random_states(mine)
        own = _statistics(runner)
        for name, value in mine.get('statistics', {}).items():
            own[name].copy_(value)

    def _check_loaded(self, runner: Runner) -> None:
        """Drop what belongs to other data or another number of processes."""
        if not self._loaded:
            return
        reason = ''
        position = self._loaded.get('position') or {}
        states = self._loaded.get('states') or []
        batches = len(runner.train_loop.dataloader)
        if not states:
            reason = 'the checkpoint has no random states'
        elif len(states) != get_world_size():
            reason = (
                f'it ran in {len(states)} processes, now in {get_world_size()}'
            )
        elif position['length'] != batches:
            reason = (
                f'an epoch had {position["length"]} batches, now {batches}'
            )
        if reason:
            self._loaded = {}
            runner.logger.warning(
                'The training goes on, but not with the random numbers and '
                f'the order of the data that it would have had: {reason}.'
            )

    def _validation_is_due(self, runner: Runner) -> bool:
        """Tell whether the loop would validate where the checkpoint ends."""
        if self._loaded.get('validated', True) or runner.val_loop is None:
            return False
        loop = runner.train_loop
        done, last = runner.iter, runner.max_iters
        if isinstance(loop, EpochBasedTrainLoop):
            if self._loaded['position']['skip']:
                return False
            done, last = runner.epoch, runner.max_epochs
        loop._decide_current_val_interval()
        return done >= loop.val_begin and (
            done % loop.val_interval == 0 or done == last
        )


def _statistics(runner: Runner) -> dict[str, Tensor]:
    """Return the running statistics of norms, which each process has.

    A checkpoint holds those of the first process, and the others validate
    with their own.
    """
    return {
        f'{name}.{key}': value
        for name, module in runner.model.named_modules()
        if isinstance(module, _NormBase)
        for key, value in module.named_buffers(recurse=False)
    }
