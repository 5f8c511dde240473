from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.config.shared import Device, DType, RuntimeConfig
from pipeline.errors import ConfigError
from pipeline.runtime import environment as module
from pipeline.runtime.allocator import keep_memory
from pipeline.runtime.environment import cuda_version, environment, gpus, project_root, source_state
from pipeline.runtime.seeds import seed_everything
from pipeline.runtime.signals import StopRequest

ROOT = Path(__file__).resolve().parents[3]


def run_python(code: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **changes},
    )


def test_the_runtime_imports_without_torch() -> None:
    modules = ", ".join(f"pipeline.runtime.{path.stem}" for path in (ROOT / "pipeline/runtime").glob("[a-z]*.py"))
    code = f"import sys, {modules}\npipeline.runtime.environment.environment()\nassert 'torch' not in sys.modules"
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_the_first_signal_is_noted_and_the_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        assert stop.signal_number is None
        with pytest.raises(ValueError, match="no signal"):
            stop.interrupted("too early")
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal_number == signal.SIGTERM
        assert stop.interrupted("stopped").exit_status == 143
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_the_process_at_once(number: signal.Signals) -> None:
    done = run_python(
        "import os, time\nfrom pipeline.runtime.signals import StopRequest\n"
        f"with StopRequest():\n    os.kill(os.getpid(), {int(number)})\n    print('still here', flush=True)\n"
        f"    os.kill(os.getpid(), {int(number)})\n    time.sleep(60)\n    print('too late')\n"
    )
    assert done.returncode == -number
    assert done.stdout == "still here\n"


def test_peak_memory_sees_what_was_used_and_freed() -> None:
    done = run_python(  # in a process of its own: this one may have been far larger before
        "import os\nfrom pipeline.runtime.memory import peak_memory_bytes\n"
        "before = peak_memory_bytes()\nblock = bytearray(os.urandom(1 << 20)) * 256\n"
        "used = len(block)\ndel block\nprint(before, peak_memory_bytes() - before, used)\n"
    )
    before, grown, used = map(int, done.stdout.split())
    assert used == 256 << 20
    assert 200 << 20 < grown < 300 << 20
    assert before > 10 << 20


def test_peak_memory_can_be_counted_from_now_on() -> None:
    done = run_python(
        "import os\nfrom pipeline.runtime.memory import peak_memory_bytes, reset_peak_memory\n"
        "block = bytearray(os.urandom(1 << 20)) * 256\ndel block\nloading = peak_memory_bytes()\n"
        "print(reset_peak_memory())\nafter = peak_memory_bytes()\nblock = bytearray(os.urandom(1 << 20)) * 64\n"
        "print(loading - after, peak_memory_bytes() - after)\n"
    )
    told, freed, grown = done.stdout.split()
    assert told == "True"
    assert int(freed) > 200 << 20  # what was used before and given back is no longer in it
    assert 56 << 20 < int(grown) < 90 << 20


@pytest.mark.slow
def test_peak_memory_is_not_that_of_the_parent() -> None:
    block = bytearray(b"x") * (512 << 20)
    done = run_python("from pipeline.runtime.memory import peak_memory_bytes; print(peak_memory_bytes())")
    del block
    assert 0 < int(done.stdout) < 256 << 20


def test_one_seed_sets_every_source() -> None:
    import torch

    def draw(seed: int) -> tuple[float, float, float]:
        seed_everything(seed)
        return random.random(), float(np.random.random()), float(torch.rand(()))

    assert draw(2**40 + 3) == draw(2**40 + 3)
    assert all(a != b for a, b in zip(draw(1), draw(2), strict=True))


def test_sums_are_wider_than_what_a_model_computes_in() -> None:
    """On an Apple device, which this cannot run on, the values would be moved to the CPU first."""
    import torch

    from pipeline.runtime.precision import float64

    values = torch.tensor([2.0**24, 1.0])
    assert values.sum().item() == 2**24, "fp32 loses the one"
    assert float64(values).sum().item() == 2**24 + 1
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        narrow = torch.tensor([0.1, -3.0], dtype=dtype)
        wide = float64(narrow)
        assert wide.dtype == torch.float64
        assert wide.tolist() == narrow.tolist()


def test_a_device_that_is_not_there_is_refused_by_its_key() -> None:
    import torch

    from pipeline.runtime.device import choose_device

    assert choose_device(RuntimeConfig(device=Device.cpu)).type == "cpu"
    there = {Device.cuda: torch.cuda.is_available(), Device.mps: torch.backends.mps.is_available()}
    missing = next(device for device, is_there in there.items() if not is_there)
    with pytest.raises(ConfigError, match=r"runtime\.device is .*runtime\.device=auto"):
        choose_device(RuntimeConfig(device=missing))


def test_the_probe_takes_the_faster_format_once_and_draws_no_random_numbers() -> None:
    import torch

    from pipeline.runtime.device import SPEEDUP_WORTH_HAVING, probe_dtype

    state = torch.random.get_rng_state()
    probe = probe_dtype(torch.device("cpu"))
    faster = probe.bfloat16_gflops > SPEEDUP_WORTH_HAVING * probe.float32_gflops
    assert probe.dtype is (DType.bfloat16 if faster else DType.float32)
    assert min(probe.float32_gflops, probe.bfloat16_gflops) > 0
    assert probe_dtype(torch.device("cpu")) is probe
    assert torch.equal(state, torch.random.get_rng_state())
    assert str(probe).startswith(probe.dtype.value)


def test_the_environment_names_versions_and_fits_into_a_manifest() -> None:
    facts = json.loads(json.dumps(environment()))
    import torch

    # A build for CUDA tells of it (2.13.0+cu130) in one of the two places.
    assert facts["libraries"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert facts["cpu"]
    assert facts["python"] == sys.version.split()[0]


def test_the_state_of_the_source(tmp_path: Path) -> None:
    assert source_state(tmp_path) is None

    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
            check=True, capture_output=True,
        )  # fmt: skip

    git("init")
    assert source_state(tmp_path) is None  # no commit yet
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-m", "first")
    clean = source_state(tmp_path)
    assert clean is not None
    assert clean["dirty"] is False
    assert len(str(clean["commit"])) == 40
    (tmp_path / "file").write_text("b")
    assert source_state(tmp_path) == {**clean, "dirty": True}


def test_the_repository_of_the_user_is_told_from_that_of_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project_root(ROOT / "tests") is None
    assert project_root(tmp_path) is None
    monkeypatch.chdir(tmp_path)
    assert environment()["project"] is None
    named = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init"], [*named, "commit", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *words], check=True, capture_output=True)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "run.log").write_text("not known to git", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "outputs")
    assert project_root(Path.cwd()) == tmp_path
    told = environment()
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert told["project"] == {"commit": head, "dirty": False}
    assert told["source"] != told["project"]


def test_the_environment_names_gpus_and_cuda_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == {"gpus": [], "gpu_driver": None}
    asks = tmp_path / "nvidia-smi"
    asks.write_text("#!/bin/sh\necho 'NVIDIA H200, 580.65.06'\necho 'One, with a comma, 580.65.06'\n", encoding="utf-8")
    asks.chmod(0o755)
    assert gpus() == {"gpus": ["NVIDIA H200", "One, with a comma"], "gpu_driver": "580.65.06"}
    asks.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n", encoding="utf-8")
    assert gpus() == {"gpus": [], "gpu_driver": None}

    import torch

    assert cuda_version() == torch.version.cuda
    said = {"Optional[str] = '13.0'": "13.0", "Optional[str] = None": None}
    monkeypatch.setattr(module, "find_spec", lambda name: SimpleNamespace(origin=str(tmp_path / "__init__.py")))
    for value, version in said.items():
        text = f"debug = False\ncuda: {value}\nhip: Optional[str] = '6.4'\n"
        (tmp_path / "version.py").write_text(text, encoding="utf-8")
        assert cuda_version() == version
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert cuda_version() is None


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc's mallopt")
def test_large_blocks_are_reused_after_keep_memory() -> None:
    """Counted in page faults: 20 times 64 MB are 16,384 pages each where every block is mapped anew."""
    code = (
        "import resource, sys, numpy\nfrom pipeline.runtime.allocator import keep_memory\n"
        "if sys.argv[1:] == ['keep']: assert keep_memory()\n"
        "numpy.ones(1 << 26, dtype=numpy.uint8)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(20): numpy.ones(1 << 26, dtype=numpy.uint8)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    faults = {}
    for mode in ("keep", "plain"):
        done = subprocess.run(
            [sys.executable, "-c", code, mode], capture_output=True, text=True, check=True, cwd=ROOT,
            env={**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0", "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        faults[mode] = int(done.stdout)
    assert faults["plain"] > 100 * max(faults["keep"], 1)


def test_keep_memory_says_whether_it_worked() -> None:
    assert keep_memory() is sys.platform.startswith("linux")
