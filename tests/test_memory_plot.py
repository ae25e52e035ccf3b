"""The picture of accounts shows their numbers, and `hybridlab memory --plot` writes it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hybridlab.cli import main
from hybridlab.cli.app import app
from hybridlab.measure import account
from hybridlab.measure.memory_plot import plot_accounts
from hybridlab.measure.tiny import TINY
from hybridlab.measure.units import parse_size, readable

GIB = 2**30


def test_bars_are_the_bytes() -> None:
    accounts = [account(TINY[name](), 9) for name in ("Griffin", "Decoder")]
    kept, held = plot_accounts(accounts, {"1 KiB": 1024}).axes
    found = {bars.get_label(): [bar.get_width() for bar in bars] for bars in kept.containers}
    assert found == {
        "cache": [x.kv_bytes for x in accounts],
        "recurrent state": [x.recurrent_bytes for x in accounts],
        "conv and shift state": [x.conv_bytes for x in accounts],
    }
    weights, states = ([bar.get_width() * GIB for bar in bars] for bars in held.containers)
    assert weights == [x.weight_bytes for x in accounts]
    assert states == [x.total_bytes for x in accounts]
    assert [bar.get_x() * GIB for bar in held.containers[1]] == weights, "what is kept lies on top of the weights"
    assert [line.get_xdata()[0] * GIB for line in held.lines] == [1024]
    assert kept.get_xscale() == "log"
    assert "logarithmic" in kept.get_xlabel()


def test_accounts_must_be_comparable() -> None:
    accounts = [account(TINY["Decoder"](), context) for context in (8, 9)]
    for wrong in (accounts, []):
        with pytest.raises(ValueError, match="accounts must be of one context, batch and dtype, got"):
            plot_accounts(wrong)


def test_the_command_writes_a_picture_and_leaves_stdout_to_numbers(tmp_path: Path) -> None:
    file = tmp_path / "memory.png"
    arguments = ["memory", "rwkv4-169m", "--context", "9", "--json", "--plot", "--out", str(file), "--limit", "24 GiB"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    assert file.read_bytes().startswith(b"\x89PNG")
    assert json.loads(found.stdout)[0]["recurrent_bytes"] == account("rwkv4-169m", 9).recurrent_bytes
    assert str(file) in found.stderr


def test_the_picture_has_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["memory", "rwkv4-169m", "--context", "9", "--plot"]).exit_code == 0
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "24 GiB"], "--limit is a line in the picture that --plot draws"),
        (["--plot", "--limit", "24"], "a size is a number and a unit"),
        (["--plot", "--out", "missing/x.png"], "cannot write to --out missing/x.png: No such file"),
        (["--plot", "--out", "x.doc"], "'doc' is not supported"),
    ],
    ids=["limit alone", "limit without a unit", "no folder", "no picture"],
)
def test_wrong_options(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["memory", "rwkv4-169m", "--context", "9", *options])
    assert (end.value.code, message in capsys.readouterr().err) == (2, True)


def test_sizes_as_people_write_them() -> None:
    assert [parse_size(text) for text in ("24 GiB", "80GB", " 1.5 kib ", "7 B")] == [24 * GIB, 80 * 10**9, 1536, 7]
    assert [readable(count) for count in (1023, 1024, 3 * GIB // 2, 5 * 2**40)] == [
        "1023 B",
        "1.00 KiB",
        "1.50 GiB",
        "5.00 TiB",
    ]
    for wrong in ("24", "GiB", "0 GiB", "-1 GiB", "1.2.3 GiB", "24 GiBi", "nan GiB"):
        with pytest.raises(ValueError, match="a size is a number and a unit"):
            parse_size(wrong)
