"""Checkpoints from which a training goes on exactly."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
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

from mmmobilemamba.checkpoints.atomic import atomic_write, remove_drafts
from mmmobilemamba.checkpoints.safe_loading import allow_mmengine_checkpoints
from mmmobilemamba.checkpoints.start import settle_start
from mmmobilemamba.registry import HOOKS

from .train_data import TrainData, get_random_states, set_random_states

_BACKEND = 'mmmobilemamba.atomic'
# Entry of a checkpoint that holds what mmengine does not save.
_ENTRY = 'resume_state'


class UnsavedError(OSError):
    """The result of a training could not be written."""


class AtomicBackend(LocalBackend):
    """Write local files whole or not at all, and note which ones to remove.

    mmengine removes an old checkpoint before the next one is there.
    """

    def __init__(self) -> None:
        self.outdated: list[Path] = []

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file."""
        with atomic_write(filepath) as draft:
            draft.write_bytes(obj)

    def remove(self, filepath: str | Path) -> None:
        """Note a file, or a folder that holds a checkpoint in pieces."""
        self.outdated.append(Path(filepath))

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
      that. Where one cannot be written, because the disk is full, say, a
      warning tells why, and training goes on. A training whose last or best
      one is not on the disk at its end is an UnsavedError.
    - A checkpoint keeps the random states of all processes, the running
      statistics of each, and the place in the data, in the middle of an epoch
      as well. Random numbers of worker processes follow from the seed and the
      number of the batch. Validation leaves no trace in the random states.
    - A resumed run makes up for a validation that was due.
    - ``resume=True`` alone takes the newest checkpoint that is whole and
      fits, and names those that it skips.

    Args:
        *args, **kwargs: Arguments of ``CheckpointHook``.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._data: TrainData | None = None
        self._loaded: dict = {}
        self._states: list[dict] = []
        self._before_val: dict | None = None
        # Old checkpoints to remove once the last one is whole.
        self._outdated: list[Path] = []
        # Last checkpoint or best one -> why it is not on the disk.
        self._unsaved: dict[str, str] = {}

    def before_run(self, runner: Runner) -> None:
        """Choose the checkpoint to resume from where none is named."""
        # FlexibleRunner comes here too late: train.py has chosen before.
        if runner._resume and not runner._has_loaded:
            allow_mmengine_checkpoints()
            if runner._load_from is None:
                settle_start(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what the training is to go on with."""
        if runner._resume:
            self._loaded = checkpoint.get(_ENTRY) or dict(states=[])

    def before_train(self, runner: Runner) -> None:
        """Go to the place in the data, and make up for a validation."""
        if self.file_client_args is None and self.backend_args is None:
            if '://' not in str(self.out_dir or runner.work_dir):
                self.backend_args = dict(backend=_BACKEND)
        super().before_train(runner)
        if is_main_process():
            self._outdated = getattr(self.file_backend, 'outdated', [])
            names = self._loaded.get('outdated', ())
            there = Path(self.out_dir).glob('*')
            self._outdated += [path for path in there if path.name in names]
            self._clear_away()
            for name in remove_drafts(self.out_dir):
                runner.logger.info(f'Removed an unfinished {name}.')
        if TrainData.can_follow(runner):
            self._check_loaded(runner)
            self._data = TrainData(runner, self._loaded.get('position', {}))
        else:
            runner.logger.warning(
                'A resumed training will see other random numbers than an '
                'uninterrupted one: the loop, the sampler or the data set is '
                "not of mmengine's kind."
            )
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

    def after_train(self, runner: Runner) -> None:
        """End with an error where the result is not on the disk."""
        if self._unsaved:
            raise UnsavedError(' '.join(self._unsaved.values()))
        self._clear_away()
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
            # A run that is killed before leaves them to the one that goes on.
            outdated=[path.name for path in self._outdated],
        )

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict
    ) -> None:
        # Only one process saves the states of all.
        states = self._before_val or get_random_states()
        if get_rank() > 0:
            buffers = runner.model.named_buffers()
            states = dict(states, buffers={k: v.cpu() for k, v in buffers})
        self._states = all_gather_object(states)
        name = self.filename_tmpl.format(step)
        with self._as_before_if_unsaved(runner, 'last', name):
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        with self._as_before_if_unsaved(runner, 'best', 'the best checkpoint'):
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _as_before_if_unsaved(
        self, runner: Runner, kind: str, name: str
    ) -> Iterator[None]:
        """Warn where a file cannot be written, and take back what is noted."""
        # mmengine's hook notes a file before it writes it.
        kinds = ('last_ckpt', 'keep_ckpt', 'best_ckpt')
        notes = deepcopy(
            {k: v for k, v in vars(self).items() if k.startswith(kinds)}
        )
        info = runner.message_hub.runtime_info
        known = dict(info)
        count = len(self._outdated)
        try:
            yield
        except OSError as error:
            vars(self).update(notes)
            info.clear()
            info.update(known)
            del self._outdated[count:]
            reason = error.strerror or str(error)
            with suppress(OSError):
                free = shutil.disk_usage(self.out_dir).free / 2**20
                reason += f', {free:.1f} MiB are free in {self.out_dir}'
            self._unsaved[kind] = (
                f'{name} is not saved: {reason}; the last whole checkpoint: '
                f'{known.get("last_ckpt") or "none yet"}.'
            )
            runner.logger.warning(
                f'{self._unsaved[kind]} Training goes on, and saves again '
                'when the next one is due.'
            )
            return
        if any(vars(self)[k] != v for k, v in notes.items()):
            self._unsaved.pop(kind, None)
        # An older best one stays until the last one names the new.
        if kind == 'last':
            self._clear_away()

    def _clear_away(self) -> None:
        for path in self._outdated:
            if path.is_dir():
                shutil.rmtree(path)
            elif path.exists():
                os.unlink(path)
        self._outdated.clear()

    def _restore(self, runner: Runner) -> None:
        """Set the random states and buffers of this process."""
        if not self._loaded.get('states'):
            return
        mine = self._loaded['states'][get_rank()]
        set_random_states(mine)
        for name, value in mine.get('buffers', {}).items():
            runner.model.get_buffer(name).copy_(value)

    def _check_loaded(self, runner: Runner) -> None:
        """Drop what belongs to other data or another number of processes."""
        if not self._loaded:
            return
        length = self._loaded.get('position', {}).get('length')
        had = len(self._loaded['states']), length
        now = get_world_size(), len(runner.train_loop.dataloader)
        if had != now:
            self._loaded = {}
            runner.logger.warning(
                'The training goes on, but not with the random numbers and '
                'the order of the data that it would have had: the checkpoint '
                f'is of {had[0]} processes with {had[1]} batches in an epoch, '
                f'and this run of {now[0]} with {now[1]}.'
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
