"""An interpreter that was asked for too late: seen, and said, instead of an error from inside a kernel."""

import sys
from types import SimpleNamespace

import pytest
import torch

from hybridlab.interpreter import triton_interprets
from hybridlab.ops import dispatch


@pytest.mark.parametrize(("kind", "interprets"), [("InterpretedFunction", True), ("JITFunction", False)])
def test_triton_imported_without_its_interpreter_is_seen(
    kind: str, interprets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    language = SimpleNamespace(sum=type(kind, (), {})())
    monkeypatch.setitem(sys.modules, "triton.language", language)
    assert triton_interprets() is interprets


def test_real_triton_is_seen_as_it_was_imported() -> None:
    pytest.importorskip("triton", reason="Triton exists for Linux only")
    import triton.language  # noqa: F401
    from triton import knobs

    assert triton_interprets() is knobs.runtime.interpret


def test_kernel_that_cannot_be_interpreted_any_more_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "TRITON_INSTALLED", True)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setitem(sys.modules, "triton.language", SimpleNamespace(sum=len))
    assert "was set after something had imported triton" in dispatch.obstacle("triton", "cpu", torch.float32)
    monkeypatch.delitem(sys.modules, "triton.language")
    assert dispatch.obstacle("triton", "cpu", torch.float32) == ""
