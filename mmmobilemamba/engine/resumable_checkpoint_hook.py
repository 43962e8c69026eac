"""Checkpoints from which a training goes on exactly."""

import os
import os.path as osp
import shutil
from collections import deque
from copy import copy
from pathlib import Path

from mmengine.dist import (
    all_gather_object,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from mmmobilemamba.checkpoints.atomic import atomic_write, remove_drafts
from mmmobilemamba.checkpoints.safe_loading import allow_mmengine_checkpoints
from mmmobilemamba.checkpoints.start import settle_start
from mmmobilemamba.registry import HOOKS

from .train_data import TrainData, get_random_states, set_random_states

_BACKEND = 'mmmobilemamba.atomic'
# Entry of a checkpoint that holds what mmengine does not save.
_ENTRY = 'resumable'


class UnsavedError(OSError):
    """The result of a training could not be written."""


class AtomicBackend(LocalBackend):
    """Write local files whole or not at all; the hook removes old ones."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file."""
        with atomic_write(filepath) as draft:
            draft.write_bytes(obj)

    def remove(self, filepath: str | Path) -> None:
        """Keep a file, since mmengine removes it before the next is there."""

    rmtree = remove


register_backend(_BACKEND, AtomicBackend, force=True)


@HOOKS.register_module()
class ResumableCheckpointHook(CheckpointHook):
    """Save checkpoints from which a training goes on as if never stopped.

    It takes the place of ``CheckpointHook``, with the same arguments::

        default_hooks = dict(
            checkpoint=dict(type='mmmobilemamba.ResumableCheckpointHook'))

    - A file on a local disk takes its name when it is complete and synced;
      ``last_checkpoint`` follows it, and the removal of older ones follows
      that. Where a file cannot be written, because the disk is full, say, a
      warning tells why, and training goes on: space may be there again before
      the next one is due. A training whose last or best one is not on the
      disk at its end is an UnsavedError.
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
        # Last checkpoint or best one -> why it is not on the disk.
        self._unsaved: dict[str, str] = {}

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
        if self.file_client_args is None and self.backend_args is None:
            if '://' not in str(self.out_dir or runner.work_dir):
                self.backend_args = dict(backend=_BACKEND)
        kept = list(runner.message_hub.runtime_info.get('keep_ckpt_ids', ()))
        super().before_train(runner)
        if self._is_atomic and is_main_process():
            if self.max_keep_ckpts > 0:
                self._remove_steps(kept[: -self.max_keep_ckpts])
            for folder in {str(self.out_dir), runner.work_dir}:
                for name in remove_drafts(folder):
                    runner.logger.info(f'Removed an unfinished {name}.')
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

    def after_train(self, runner: Runner) -> None:
        """End with an error where the result is not on the disk."""
        if self._unsaved:
            raise UnsavedError(' '.join(self._unsaved.values()))
        super().after_train(runner)

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

    @property
    def _is_atomic(self) -> bool:
        return isinstance(self.file_backend, AtomicBackend)

    def _save_checkpoint(self, runner: Runner) -> None:
        self._gather(runner)
        super()._save_checkpoint(runner)

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict
    ) -> None:
        if not self._is_atomic:
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        before = runner.message_hub.runtime_info.get('last_ckpt')
        name = self.filename_tmpl.format(step)
        path = osp.join(self.out_dir, name)
        kept = list(self.keep_ckpt_ids) if self.max_keep_ckpts > 0 else []
        ids = kept if kept[-1:] == [step] else [*kept, step]
        # With those still to be removed: a run that is killed before leaves
        # them to the one that goes on.
        self._remember(runner, path, ids)
        try:
            runner.save_checkpoint(
                self.out_dir,
                name,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                pointer = Path(runner.work_dir, 'last_checkpoint')
                with atomic_write(pointer) as draft:
                    draft.write_text(path)
        except OSError as error:
            self._remember(runner, before, kept)
            self._warn(runner, 'last', path, error)
            return
        self._unsaved.pop('last', None)
        self.last_ckpt = path
        if self.max_keep_ckpts > 0:
            self._remove_steps(ids[: -self.max_keep_ckpts])
            self.keep_ckpt_ids = deque(ids, self.max_keep_ckpts)
            self._remember(runner, path, self.keep_ckpt_ids)

    def _remember(self, runner: Runner, path: str | None, ids) -> None:
        runner.message_hub.update_info('last_ckpt', path)
        if self.max_keep_ckpts > 0:
            runner.message_hub.update_info('keep_ckpt_ids', list(ids))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not (self.save_best and self._is_atomic):
            super()._save_best_checkpoint(runner, metrics)
            return
        info = runner.message_hub.runtime_info
        known = {k: info[k] for k in info if k.startswith('best_')}
        # mmengine keeps one path, or one for each of several metrics.
        names = {'best_ckpt_path', 'best_ckpt_path_dict'} & vars(self).keys()
        before = {name: copy(vars(self)[name]) for name in names}
        try:
            super()._save_best_checkpoint(runner, metrics)
        except OSError as error:
            for key in [k for k in info if k.startswith('best_')]:
                runner.message_hub.pop_info(key)
            runner.message_hub.update_info_dict(known)
            vars(self).update(before)
            self._warn(runner, 'best', 'the best checkpoint', error)
            return
        after = {name: vars(self)[name] for name in names}
        if after != before:
            self._unsaved.pop('best', None)
            self._remove(_paths(before) - _paths(after))

    def _remove_steps(self, steps: list[int]) -> None:
        names = map(self.filename_tmpl.format, steps)
        self._remove({osp.join(self.out_dir, name) for name in names})

    def _remove(self, paths: set[str]) -> None:
        for path in paths if is_main_process() else ():
            if osp.isdir(path):  # pieces of a sharded model
                shutil.rmtree(path)
            elif osp.exists(path):
                os.remove(path)

    def _warn(
        self, runner: Runner, kind: str, what: str, error: OSError
    ) -> None:
        try:
            free = shutil.disk_usage(self.out_dir).free / 2**20
            room = f', {free:.1f} MiB are free in {self.out_dir}'
        except OSError:
            room = ''
        last = runner.message_hub.runtime_info.get('last_ckpt')
        whole = (
            f'the last whole checkpoint is {last}'
            if last
            else 'there is no checkpoint yet'
        )
        reason = error.strerror or str(error)
        self._unsaved[kind] = f'{what} is not saved: {reason}{room}; {whole}.'
        runner.logger.warning(
            f'{self._unsaved[kind]} Training goes on, and saves again when '
            'the next one is due.'
        )

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
        states = self._loaded.get('states') or []
        batches = len(runner.train_loop.dataloader)
        if not states:
            reason = 'the checkpoint has no random states'
        elif len(states) != get_world_size():
            reason = (
                f'it ran in {len(states)} processes, now in {get_world_size()}'
            )
        elif (length := self._loaded['position']['length']) != batches:
            reason = f'an epoch had {length} batches, now {batches}'
        else:
            return
        self._loaded = {}
        runner.logger.warning(
            'The training goes on, but not with the random numbers and the '
            f'order of the data that it would have had: {reason}.'
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


def _paths(best: dict) -> set[str]:
    found = {best.get('best_ckpt_path')}
    return found.union(best.get('best_ckpt_path_dict', {}).values()) - {None}


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
