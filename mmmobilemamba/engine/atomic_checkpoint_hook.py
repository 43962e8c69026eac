"""Checkpoints that are whole whatever happens while they are written."""

import os.path as osp
import shutil
from collections import deque
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmmobilemamba.checkpoints.atomic import atomic_write, remove_drafts

_BACKEND = 'mmmobilemamba.atomic'


class UnsavedError(OSError):
    """The result of a training could not be written."""


class AtomicBackend(LocalBackend):
    """Write local files whole or not at all."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file."""
        with atomic_write(filepath) as draft:
            draft.write_bytes(obj)


register_backend(_BACKEND, AtomicBackend, force=True)


class AtomicCheckpointHook(CheckpointHook):
    """Save checkpoints whole or not at all, and lose none that was saved.

    mmengine's hook writes into the file itself, and removes an old checkpoint
    before the new one is there. Here a file on a local disk takes its name
    when it is complete and synced; ``last_checkpoint`` follows it, and the
    removal of older ones follows that.

    Where a file cannot be written, because the disk is full, say, a warning
    tells why, and training goes on: space may be there again before the next
    one is due. A training that ends with its last checkpoint or its best one
    unsaved ends with an error.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        # Last checkpoint or best one -> why it is not on the disk.
        self._unsaved: dict[str, str] = {}

    def before_train(self, runner: Runner) -> None:
        """Settle how files are written, and clear away unfinished ones."""
        if self.file_client_args is None and self.backend_args is None:
            if '://' not in str(self.out_dir or runner.work_dir):
                self.backend_args = dict(backend=_BACKEND)
        super().before_train(runner)
        if self._is_atomic and is_main_process():
            for folder in {str(self.out_dir), runner.work_dir}:
                for name in remove_drafts(folder):
                    runner.logger.info(f'Removed an unfinished {name}.')

    def after_train(self, runner: Runner) -> None:
        """End with an error where the result is not on the disk."""
        if self._unsaved:
            raise UnsavedError(' '.join(self._unsaved.values()))
        super().after_train(runner)

    @property
    def _is_atomic(self) -> bool:
        return isinstance(self.file_backend, AtomicBackend)

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
            while len(ids) > self.max_keep_ckpts:
                name = self.filename_tmpl.format(ids.pop(0))
                self._remove(osp.join(self.out_dir, name))
            self.keep_ckpt_ids = deque(ids, self.max_keep_ckpts)
            self._remember(runner, path, ids)

    def _remember(self, runner: Runner, path: str | None, ids: list) -> None:
        runner.message_hub.update_info('last_ckpt', path)
        if self.max_keep_ckpts > 0:
            runner.message_hub.update_info('keep_ckpt_ids', list(ids))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not (self.save_best and self._is_atomic):
            super()._save_best_checkpoint(runner, metrics)
            return
        info = runner.message_hub.runtime_info
        known = {k: info[k] for k in info if k.startswith('best_')}
        before = self._best_paths
        # What the base class does not know of it does not remove.
        self._best_paths = dict.fromkeys(before)
        try:
            super()._save_best_checkpoint(runner, metrics)
        except OSError as error:
            for key in [k for k in info if k.startswith('best_')]:
                runner.message_hub.pop_info(key)
            runner.message_hub.update_info_dict(known)
            self._best_paths = before
            self._warn(runner, 'best', 'the best checkpoint', error)
            return
        after = self._best_paths
        for key, path in before.items():
            if after[key] is None:
                after[key] = path
                continue
            self._unsaved.pop('best', None)
            if path not in (None, after[key]):
                self._remove(path)
        self._best_paths = after

    @property
    def _best_paths(self) -> dict[str, str | None]:
        """Best checkpoint of each metric, which mmengine keeps in two ways."""
        if len(self.key_indicators) == 1:
            return dict(only=self.best_ckpt_path)
        return dict(self.best_ckpt_path_dict)

    @_best_paths.setter
    def _best_paths(self, paths: dict[str, str | None]) -> None:
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = paths['only']
        else:
            self.best_ckpt_path_dict = paths

    def _remove(self, path: str) -> None:
        if not is_main_process():
            return
        if osp.isdir(path):  # pieces of a sharded model
            shutil.rmtree(path)
        elif osp.exists(path):
            self.file_backend.remove(path)

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
