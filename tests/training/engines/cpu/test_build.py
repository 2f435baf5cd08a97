from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from mechproc.errors import ConfigError
from mechproc.training.engines.cpu import build

MODERN = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"}
TINY = 'extern "C" int mechproc_lanes() { return LANES; }'

try:
    build.library()
    WORKS = True
except build.KernelUnavailableError:
    WORKS = False
needs_compiler = pytest.mark.skipif(not WORKS, reason="the CPU kernel cannot be built here")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, a source that compiles at once, and a CPU with everything."""
    (tmp_path / "tiny.cpp").write_text(TINY)
    monkeypatch.setattr(build, "SOURCE", tmp_path / "tiny.cpp")
    monkeypatch.setattr(build, "cpu_flags", lambda: MODERN)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mechproc"


def refused(**kwargs: int) -> str:
    with pytest.raises(build.KernelUnavailableError) as error:
        build.library(**kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_lanes_follow_the_cpu():
    assert build.widest(MODERN) == 16
    assert build.widest(MODERN - {"avx512dq"}) == 8
    for missing in ("avx2", "fma"):
        with pytest.raises(build.KernelUnavailableError, match="AVX2"):
            build.widest(MODERN - {missing})


@needs_compiler
def test_the_environment_may_ask_for_fewer_lanes(cache: Path, monkeypatch: pytest.MonkeyPatch):
    assert build.library().mechproc_lanes() == 16
    monkeypatch.setenv(build.LANES, "8")
    assert build.library().mechproc_lanes() == 8 and build.library(16).mechproc_lanes() == 16
    monkeypatch.setenv(build.LANES, "16")
    monkeypatch.setattr(build, "cpu_flags", lambda: MODERN - {"avx512f"})
    assert "cannot use 16 SIMD lanes on this CPU (it has 8)" in refused()
    monkeypatch.setenv(build.LANES, "12")
    with pytest.raises(ConfigError, match="MECHPROC_LANES = '12' is not allowed: one of 16, 8"):
        build.library()


@needs_compiler
def test_it_is_built_once_and_read_from_the_cache_afterwards(cache: Path, monkeypatch: pytest.MonkeyPatch):
    assert build.library(8).mechproc_lanes() == 8
    (file,) = cache.iterdir()
    monkeypatch.setenv("PATH", "")  # no compiler any more
    assert build.library(8).mechproc_lanes() == 8
    assert list(cache.iterdir()) == [file]


@needs_compiler
def test_another_source_or_width_is_another_file(cache: Path):
    build.library(8), build.library(16)
    build.SOURCE.write_text(TINY + "\n")
    build.library(8)
    assert len(list(cache.iterdir())) == 3


@needs_compiler
def test_a_damaged_file_is_built_again(cache: Path):
    cache.mkdir(parents=True)
    build.kernel_path(8).write_bytes(b"\x7fELF and no more")
    assert build.library(8).mechproc_lanes() == 8


def test_without_a_compiler_the_reason_names_one(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    assert "needs a C++ compiler" in refused()
    assert not list(cache.glob("*"))


def test_an_old_cpu_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(build, "cpu_flags", lambda: {"sse2", "avx"})
    assert "AVX2" in refused()
    monkeypatch.setattr(build, "cpu_flags", lambda: MODERN - {"avx512f"})
    assert "16 SIMD lanes" in refused(lanes=16)
    assert "5 SIMD lanes" in refused(lanes=5)


@needs_compiler
def test_a_cache_that_cannot_be_written_is_refused(cache: Path):
    cache.parent.mkdir()
    cache.write_text("a file stands where the folder should be")
    assert f"cannot be kept in {cache}" in refused()


@needs_compiler
def test_an_error_of_the_compiler_is_one_line_and_leaves_nothing(cache: Path):
    build.SOURCE.write_text("int f() { return missing; }")
    assert "error: " in refused() and "missing" in refused()
    assert list(cache.iterdir()) == []


def _build(start, results) -> None:
    start.wait(20)
    results.put(build.library(8).mechproc_lanes())


@needs_compiler
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes_may_build_at_the_same_time(cache: Path):
    context = multiprocessing.get_context("fork")  # so that the children see the patched source
    start, results = context.Barrier(3), context.Queue()
    children = [context.Process(target=_build, args=(start, results)) for _ in range(3)]
    for child in children:
        child.start()
    try:
        assert [results.get(timeout=60) for _ in children] == [8, 8, 8]
    finally:
        for child in children:
            child.kill()
            child.join()
    assert len(list(cache.iterdir())) == 1
