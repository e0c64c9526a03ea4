"""Early stop, health checks, shared noise and norms, log and checkpoints of the trainer, on models of a few weights."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import distributed, nn
from torch.utils.data import DataLoader, IterableDataset

from MedVAELib.errors import Cancelled, DeviceMemoryError, InputError, UsageError
from MedVAELib.listening import cancelled_by_signals
from MedVAELib.networks.across_processes import SyncedBatchNorm, batch_mean, gathered, with_synced_norms
from MedVAELib.progress import CancelToken, no_progress
from MedVAELib.training import processes as processes_module
from MedVAELib.training import trainer as trainer_module
from MedVAELib.training.health import PATIENCE, HealthChecks
from MedVAELib.training.processes import Processes, SharedNoise, data_processes, joined
from MedVAELib.training.run import forget_after, tensorboard
from MedVAELib.training.trainer import Trainer, TrainerConfig

CPU = torch.device("cpu")


class Line(nn.Module):
    """Fits one weight to 1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def loss(self, x, generator):
        return {"loss": ((self.weight - 1) * x).square().mean()}


def ones(start):
    while True:
        yield (torch.ones(4, 1),)


def trainer(folder, steps=40, model=None, **settings):
    config = TrainerConfig(steps=steps, batch=4, validate_every=2, checkpoint_every=4, precision="float32", **settings)
    return Trainer(model or Line(), config, folder, CPU)


def plateau(values):
    """A validation that gives these values one after the other, then the last for ever."""
    left = list(values)
    return lambda state, step: {"loss": left.pop(0) if len(left) > 1 else left[0]}


def test_early_stop_keeps_the_best_weights(tmp_path):
    run = trainer(tmp_path, patience=3)
    kept = []

    def validate(state, step):
        kept.append({name: value.clone() for name, value in state.items()})
        return {"loss": [3.0, 1.0, 2.0, 2.0, 2.0, 0.0][len(kept) - 1]}

    run.run(ones, validate, no_progress, CancelToken())
    assert run.step == 10 and len(kept) == 5
    assert torch.equal(run.averaged["weight"], kept[1]["weight"])
    again = trainer(tmp_path, patience=3)
    again.resume()
    again.run(ones, validate, no_progress, CancelToken())
    assert again.step == 10 and torch.equal(again.averaged["weight"], kept[1]["weight"])


def test_early_stop_goes_on_counting_after_a_resume(tmp_path):
    values = [3.0, 1.0, 2.0, 2.0, 2.0, 2.0]
    whole = trainer(tmp_path / "whole", patience=4)
    whole.run(ones, plateau(values), no_progress, CancelToken())
    cancel, broken = CancelToken(), trainer(tmp_path / "broken", patience=4)

    def validate(state, step, give=plateau(values)):  # noqa: B008
        if broken.step == 6:
            cancel.cancel()
        return give(state, step)

    with pytest.raises(Cancelled):
        broken.run(ones, validate, no_progress, cancel)
    resumed = trainer(tmp_path / "broken", patience=4)
    resumed.resume()
    assert (resumed.early.best, resumed.early.since) == (1.0, 1)
    resumed.run(ones, plateau(values[3:]), no_progress, CancelToken())
    assert resumed.step == whole.step == 12


@pytest.mark.parametrize("changed", [{"patience": 0}, {"patience": 3, "watch": "other"}])
def test_resumed_with_another_rule_the_earlier_best_does_not_count(tmp_path, changed):
    """Else the weights of all further training would be thrown away."""
    trainer(tmp_path, patience=3).run(ones, plateau([1.0, 2.0]), no_progress, CancelToken())
    again = trainer(tmp_path, **changed)
    again.resume()
    begun, values = again.step, iter(range(1000, 0, -1))
    again.run(ones, lambda state, step: {"loss": 9.0, "other": float(next(values))}, no_progress, CancelToken())
    assert begun < again.step == 40 and (not again.early.weights or again.early.step == 40)


@pytest.mark.parametrize("settings", [{"clip": 0.0}, {"clip": -1.0}, {"average": 1.0}, {"decay": 1.5}])
def test_settings_with_which_nothing_is_learned_are_refused(settings):
    with pytest.raises(ValueError, match="must be"):
        TrainerConfig(steps=1, **settings)


def test_data_that_fail_because_the_run_is_cancelled_are_no_failure(tmp_path):
    """Processes that make them may hear the signal, too, and end."""
    cancel = CancelToken()

    def killed(start):
        yield from (next(ones(0)) for _ in range(3))
        cancel.cancel()
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Terminated.")

    run = trainer(tmp_path)
    with pytest.raises(Cancelled):
        run.run(killed, plateau([1.0]), no_progress, cancel)
    assert run.checkpoint.exists() and run.step == 3


def test_values_of_the_warm_up_do_not_count(tmp_path):
    config = TrainerConfig(steps=20, batch=4, validate_every=2, patience=2)
    run = Trainer(Line(), config, tmp_path, CPU, warm_up=6)
    run.run(ones, plateau([0.0, 0.0, 0.0, 2.0, 3.0, 3.0]), no_progress, CancelToken())
    assert run.early.step == 8 and run.step == 12


def test_the_watched_value_must_be_there(tmp_path):
    with pytest.raises(InputError, match="trainer.watch names 'dice', but a validation gives loss"):
        trainer(tmp_path, patience=1, watch="dice").run(ones, plateau([1.0]), no_progress, CancelToken())


class Ill(Line):
    def health(self, terms):
        return "The codebook collapsed." if terms["loss"] < 10 else None


@pytest.mark.parametrize(("model", "values", "grace", "words"), [
    (Ill(), {}, 15, "Stopped at step 40: The codebook collapsed."),
    (Line(), {"active_units": 0.0}, 5, "Stopped at step 10: The posterior collapsed: .* Lower beta or learning_rate"),
])
def test_an_ill_run_ends_with_one_sentence(tmp_path, model, values, grace, words):
    run = trainer(tmp_path, steps=100, model=model)
    run.watch_health(grace)
    with pytest.raises(InputError, match=words) as error:
        run.run(ones, lambda state, step: {"loss": 1.0} | values, no_progress, CancelToken())
    assert "\n" not in str(error.value)


def test_weights_that_no_bundle_holds_have_diverged(tmp_path):
    with pytest.raises(InputError, match="Training diverged: .* lower learning_rate and start anew"):
        trainer(tmp_path, steps=3, learning_rate=1e6, average=0.0).run(ones, plateau([1.0]), no_progress, CancelToken())


def test_divergence_is_told_from_a_bad_moment():
    checks = HealthChecks(Line(), grace=0)
    for step, loss in enumerate([1.0, 0.5, 100.0, 0.4, 100.0, 100.0], 1):
        checks.training(step, {"loss": loss})
    again = HealthChecks(Line(), grace=0)
    again.load_state(json.loads(json.dumps(checks.state())))
    assert again.bad["training"] == PATIENCE - 1
    with pytest.raises(InputError, match="diverges: the loss is 100 after 0.4"):
        again.training(7, {"loss": 100.0})


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True)])
def test_bfloat16_is_for_gpus_that_have_it(tmp_path, monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    run = Trainer(Line(), TrainerConfig(steps=1), tmp_path, CPU)
    run.device = torch.device("cuda", 0)
    assert run._half_is_fast() is expected


def test_running_out_of_memory_says_what_to_do(tmp_path):
    class Greedy(Line):
        def loss(self, x, generator):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(DeviceMemoryError, match="lower trainer.batch"):
        trainer(tmp_path, model=Greedy()).run(ones, plateau([1.0]), no_progress, CancelToken())


def test_what_a_killed_run_logged_after_its_checkpoint_is_not_there_twice(tmp_path):
    run = trainer(tmp_path, steps=8)
    run.run(ones, plateau([1.0]), no_progress, CancelToken())
    log = tmp_path / "log.jsonl"
    before = log.read_text()
    log.write_text(before + '{"step": 10, "loss": 1.0}\n{"step": 12, "lo')
    longer = trainer(tmp_path, steps=16)
    longer.resume()
    assert log.read_text() == before
    longer.run(ones, plateau([1.0]), no_progress, CancelToken())
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == sorted(steps) and steps[-1] == 16


@pytest.mark.parametrize(("damage", "words"), [
    (lambda file: file.write_bytes(file.read_bytes()[:200]), "is damaged"),
    (lambda file: torch.save({"model": {"other": torch.zeros(1)}}, file), "another model"),
    (lambda file: file.unlink(), "nothing to resume"),
])
def test_unusable_checkpoints_are_one_sentence(tmp_path, damage, words):
    trainer(tmp_path, steps=4).run(ones, plateau([1.0]), no_progress, CancelToken())
    damage(tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match=words) as error:
        trainer(tmp_path).resume()
    assert "\n" not in str(error.value)


def test_the_noise_of_a_share_is_that_of_the_whole_batch():
    whole = torch.Generator().manual_seed(3)
    expected = torch.randn((8, 5), generator=whole), torch.rand(16, 2, generator=whole), torch.randn(3, generator=whole)
    parts = []
    for rank in range(2):
        generator = torch.Generator().manual_seed(3)
        with SharedNoise(Processes(rank, 2), generator, rows=4):
            parts.append((torch.randn((4, 5), generator=generator), torch.rand(8, 2, generator=generator),
                          torch.randn(3, generator=generator)))
    for (first, second), one in zip(zip(*parts, strict=True), expected, strict=True):
        together = torch.cat([first, second]) if len(one) > 3 else first
        assert torch.equal(together, one) and (len(one) > 3 or torch.equal(first, second))


def test_one_process_is_what_plain_torch_is():
    processes, values = Processes.current(), torch.arange(8.0).reshape(4, 2)
    assert processes.first and torch.equal(processes.share(values), values)
    assert torch.equal(batch_mean(values), values.mean(0)) and gathered(values) is values
    assert processes.any(True, CPU) and processes.from_first(2.5, CPU) == 2.5
    with joined("cpu") as told:
        assert told == ("cpu", True)
    plain = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
    synced = with_synced_norms(nn.Sequential(plain[0], nn.BatchNorm2d(3)))
    assert isinstance(synced[1], SyncedBatchNorm) and synced.state_dict().keys() == plain.state_dict().keys()
    image = torch.randn(2, 1, 6, 6)
    assert torch.equal(plain(image), synced(image))


@pytest.mark.parametrize(("free_mb", "beside_cpu", "beside_gpu"), [(64, 0, 0), (8192, 1, 3)])
def test_no_process_makes_data_that_it_has_no_room_to_hand_on(tmp_path, monkeypatch, caplog, free_mb, beside_cpu,
                                                              beside_gpu):
    """A container has 64 MB by default, and a process that does not get rid of a batch goes silent."""
    monkeypatch.setattr(processes_module, "_SHARED_MEMORY", str(tmp_path))
    monkeypatch.setattr(processes_module.shutil, "disk_usage", lambda place: SimpleNamespace(free=free_mb << 20))
    monkeypatch.setattr(processes_module, "usable_cores", lambda: 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as torchrun says, and means the threads of one process
    assert data_processes(CPU) == beside_cpu and data_processes(torch.device("cuda", 0)) == beside_gpu
    assert ("64 are free" in caplog.text) == (not beside_cpu)


@pytest.mark.parametrize(("device", "nccl", "backend"), [("cuda", True, "nccl"), ("cuda", False, "gloo"),
                                                         ("cpu", True, "gloo")])
def test_gpus_exchange_through_gloo_where_there_is_no_nccl(monkeypatch, device, nccl, backend):
    used = []
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr(distributed, "is_nccl_available", lambda: nccl)
    monkeypatch.setattr(distributed, "init_process_group", lambda name, timeout: used.append(name))
    monkeypatch.setattr(distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda name: None)
    with joined(device) as told:
        assert told == ("cuda:0" if device == "cuda" else "cpu", True)
    assert used == [backend]


def test_early_stop_is_told_and_logged_once(tmp_path):
    told = []
    for resume in (False, True):
        run = trainer(tmp_path, patience=2)
        if resume:
            run.resume()
        run.run(ones, plateau([3.0, 1.0, 2.0]), lambda stage, fraction, message="": told.append(message), CancelToken())
        assert told[-1] == "stopped early at step 8, weights of step 4"
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["stopped_early_weights_of"] for line in lines if "stopped_early_weights_of" in line] == [4]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"),
                                   RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos")])
def test_a_full_disk_is_one_sentence_and_leaves_the_checkpoint_of_before(tmp_path, monkeypatch, error):
    def full(state, path):
        path.write_bytes(b"half")
        raise error

    run = trainer(tmp_path)
    run.save()
    before = (tmp_path / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UsageError, match="cannot be written .*make room"):
        run.save()
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("refused", [(12, 20, 24), (40,), (2, 4, 6)])
def test_a_file_that_is_held_for_a_while_ends_no_training(tmp_path, monkeypatch, refused):
    """But one that could never be written does, and one that cannot be written at the end."""
    run, written = trainer(tmp_path), {}

    def of(file, real, *arguments, **options):
        if run.step in refused and str(arguments[-1 if file == "checkpoint.pt" else 0]).endswith(file):
            raise PermissionError(13, "in use", str(tmp_path / file))
        written.setdefault(file, []).append(run.step)
        return real(*arguments, **options)

    monkeypatch.setattr(os, "replace", partial(of, "checkpoint.pt", os.replace))
    monkeypatch.setattr(trainer_module, "open", partial(of, "log.jsonl", open), raising=False)
    if refused[0] in (2, 40):
        with pytest.raises(UsageError, match="in use"):
            run.run(ones, plateau([1.0]), no_progress, CancelToken())
        return
    run.run(ones, plateau([1.0]), no_progress, CancelToken())
    assert written["checkpoint.pt"] == [step for step in range(4, 41, 4) if step not in refused]
    lines = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == sorted(lines) and set(range(2, 41, 2)) <= set(lines)


@pytest.mark.parametrize(("saved", "words"), [(False, "and start anew"), (True, "and resume")])
def test_after_a_divergence_only_a_checkpoint_can_be_resumed(tmp_path, saved, words):
    def broken(start):
        while True:
            yield (torch.full((4, 1), float("nan")),)

    run = trainer(tmp_path)
    if saved:
        run.save()
    with pytest.raises(InputError, match=words):
        run.run(broken, plateau([1.0]), no_progress, CancelToken())


def test_a_stream_that_is_cancelled_while_it_makes_data_keeps_a_checkpoint(tmp_path):
    closed = []

    def slow(start):
        try:
            yield from (next(ones(0)) for _ in range(3))
            raise Cancelled
        finally:
            closed.append(True)

    with pytest.raises(Cancelled):
        trainer(tmp_path).run(slow, plateau([1.0]), no_progress, CancelToken())
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3 and closed == [True]


class Numbers(IterableDataset):
    def __iter__(self):
        yield from ([os.getpid(), number] for number in range(50))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_what_tells_the_whole_group_to_end_leaves_the_loaders_to_this_process():
    with cancelled_by_signals() as cancel:
        numbers = iter(DataLoader(Numbers(), batch_size=None, num_workers=1, timeout=60))
        worker, _ = next(numbers)
        os.kill(worker, signal.SIGTERM)
        os.kill(worker, signal.SIGINT)
        for _ in range(2):  # as `timeout` does: to the process, then to its group
            os.kill(os.getpid(), signal.SIGTERM)
        assert cancel.cancelled and [number for _, number in numbers] == list(range(1, 50))
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_tensorboard_has_every_validation_at_its_step(tmp_path, monkeypatch):
    """Also after a run that was killed beyond its last checkpoint: what it added comes again."""
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.summary.writer import event_file_writer

    # Files of one second are read in the order of these numbers, as text.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(100))

    def validate(state, step):
        tensorboard(tmp_path, step, {"loss": step}, {"picture": np.zeros((2, 2), np.float32)})
        return {"loss": step}

    trainer(tmp_path, steps=14).run(ones, validate, no_progress, CancelToken())
    validate({}, 16)
    resumed = trainer(tmp_path, steps=17)
    resumed.resume()
    forget_after(tmp_path, resumed.step)
    resumed.run(ones, validate, no_progress, CancelToken())
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("validation/loss")] == [2, 4, 6, 8, 10, 12, 14, 16, 17]
    assert [event.value for event in events.Scalars("validation/loss")] == [2, 4, 6, 8, 10, 12, 14, 16, 17]
    assert {event.step for event in events.Scalars("training/loss")} == {10, 14, 17}
    assert [event.step for event in events.Images("picture")][-1] == 17
