"""A kill at any moment leaves a checkpoint to go on from."""

from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf

from tests.training.tiny_recipe import TINY
from training.checkpoints import restore, save
from training.progress import start
from training.run_folder import RunError, read_state

END = replace(start(TINY), step=3)


class KilledError(Exception):
    pass


def test_a_save_at_the_step_of_the_last_one_harms_it_only_when_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tf.Variable(1.0)
    checkpoint = tf.train.Checkpoint(weights=weights)
    save(tmp_path, checkpoint, END)

    write = checkpoint.write

    def killed(path: str) -> None:
        write(path)
        raise KilledError

    weights.assign(2.0)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write", killed)
        with pytest.raises(KilledError):
            save(tmp_path, checkpoint, END)
    assert restore(tmp_path, checkpoint)
    assert weights.numpy() == 1.0

    weights.assign(3.0)
    save(tmp_path, checkpoint, END)
    weights.assign(4.0)
    assert restore(tmp_path, checkpoint)
    assert weights.numpy() == 3.0
    assert len(list(tmp_path.glob("state-*"))) == 1


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    checkpoint = tf.train.Checkpoint(weights=tf.Variable(1.0))
    assert not restore(tmp_path, checkpoint)
    save(tmp_path, checkpoint, END)
    state = read_state(tmp_path)
    assert state is not None
    (tmp_path / state[0] / "checkpoint.index").unlink()
    with pytest.raises(RunError, match=f"{state[0]} cannot be read"):
        restore(tmp_path, checkpoint)
