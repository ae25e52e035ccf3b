"""The command line: what it prints, how it exits, and what it never does: write over a learner's work."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

import hybridlab.cli.app as commands
from hybridlab import __version__
from hybridlab.cli import lab, main, places
from hybridlab.cli.app import app
from hybridlab.cli.places import exercise, repository, start_chapter, start_exercise
from hybridlab.measure import account

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = Path(sys.executable).parent / "hybridlab"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def status(*arguments: str) -> int:
    """The exit status of the whole command, with its own handling of errors."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code or 0


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A course of one chapter and two exercises."""
    for name in ("chapters/00_start_here", "exercises/03_rwkv", "exercises/11_full_models"):
        path = tmp_path / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"content of {name}")
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


# What every command shares


def test_version() -> None:
    assert run("--version").stdout.strip() == __version__


def test_commands_are_those_that_exist() -> None:
    assert {command.callback.__name__ for command in app.registered_commands} == {
        "lab", "start", "doctor", "check", "memory", "plan", "bench", "train", "generate",
    }  # fmt: skip


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["bench", "--help"], ["lab", "--help"]], ids=" ".join)
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from hybridlab.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numba', 'triton', 'numpy'} & set(sys.modules), 'heavy imports'\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "wkv9"], "unknown op 'wkv9'"),
        (["check", "wkv6", "--models"], "name an op or give --models"),
        (["memory", "gpt-5", "--context", "8"], "unknown preset 'gpt-5'"),
        (["memory", "rwkv4-169m", "--context", "0"], "context must be"),
        (["memory", "rwkv4-169m", "--context", "8", "--json", "--csv"], "--json or --csv, not both"),
        (["bench", "--op", "wkv9"], "unknown op 'wkv9'"),
        (["start", "99"], "there is no exercise '99'; there are: 01_attention, 02_linear_recurrence, 03_rwkv"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_wrong_argument_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(*arguments) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert error.startswith("hybridlab: ")
    assert "\n" not in error
    assert "Traceback" not in error


def test_unknown_command_is_status_2() -> None:
    assert status("degenerate") == 2


def test_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(places, "start_exercise", interrupted)
    assert status("start", "03") == 130


@pytest.mark.minutes
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_ctrl_c_in_the_middle_of_work_leaves_no_traceback() -> None:
    process = subprocess.Popen([SCRIPT, "bench"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(8)  # into work of minutes, or still importing: both must end the same way
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error


# check, doctor


def test_check_compares_an_op() -> None:
    found = run("check", "attention")
    assert found.exit_code == 0, found.output
    assert "attention" in found.stdout
    assert "FAIL" not in found.stdout


def test_check_exits_with_1_when_a_row_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from hybridlab.measure import equivalence

    monkeypatch.setitem(equivalence.LIMITS, next(iter(equivalence.LIMITS)), 0.0)
    found = run("check", "attention")
    assert found.exit_code == 1
    assert "FAIL" in found.stdout


@pytest.mark.minutes
def test_check_models_prints_a_card_for_each() -> None:
    from hybridlab.measure.tiny import TINY

    found = run("check", "--models")
    assert found.exit_code == 0, found.output
    assert found.stdout.count("step == full") == len(TINY)


def test_doctor_exits_with_0_where_the_course_runs() -> None:
    found = run("doctor")
    assert found.exit_code == 0, found.output
    assert "The course can run here." in found.stdout


def test_doctor_exits_with_1_and_shows_remedies_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from hybridlab.cli import facts

    monkeypatch.setattr(facts, "gather", lambda: facts.Facts(python=(3, 9, 0)))
    found = run("doctor")
    assert found.exit_code == 1
    assert "The course cannot run here" in found.stdout
    assert "-e '.[course]'" in found.stdout  # not swallowed as markup


# memory


def test_memory_prints_exact_bytes() -> None:
    kept = account("llama-3.1-8b", 4096).kv_bytes
    found = run("memory", "llama-3.1-8b", "rwkv4-169m", "--context", "4096")
    assert found.exit_code == 0, found.output
    assert f"{kept:,}" in found.stdout
    assert "rwkv4-169m" in found.stdout


@pytest.mark.parametrize("width", [40, 60, 120])
def test_memory_breaks_no_number_at_any_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_console", lambda: Console(width=width, highlight=False))
    found = run("memory", "llama-3.1-8b", "rwkv4-169m", "finch-3.1b", "--context", "262144")
    assert found.exit_code == 0, found.output
    for name in ("llama-3.1-8b", "rwkv4-169m", "finch-3.1b"):
        kept = account(name, 262_144)
        assert name in found.stdout
        assert all(f"{number:,}" in found.stdout for number in (kept.parameters, kept.total_bytes, kept.flops_per_token))
    assert found.stdout.count("kept after") == 1


def test_memory_as_json_is_the_account() -> None:
    arguments = ("--context", "100", "--batch", "2", "--dtype", "float32", "--state-dtype", "bfloat16", "--json")
    found = json.loads(run("memory", "finch-1.6b", *arguments).stdout)
    assert found == [json.loads(json.dumps(account("finch-1.6b", 100, 2, "float32", "bfloat16").as_dict()))]


def test_memory_as_csv_has_a_line_a_model_or_a_layer() -> None:
    models = list(csv.DictReader(io.StringIO(run("memory", "rwkv4-169m", "--context", "9", "--csv").stdout)))
    parts = list(csv.DictReader(io.StringIO(run("memory", "rwkv4-169m", "--context", "9", "--csv", "--layers").stdout)))
    assert [row["model"] for row in models] == ["rwkv4-169m"]
    assert len(parts) > 12
    assert sum(int(row["state_bytes"]) for row in parts) == int(models[0]["state_bytes"])


# bench


@pytest.mark.minutes
def test_bench_prints_tables_and_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hybridlab.measure import bench

    monkeypatch.setattr(bench, "QUICK_LENGTHS", (16,))
    found = run("bench", "--op", "wkv6", "--quick", "--threads", "1", "--out", str(tmp_path))
    assert found.exit_code == 0, found.output
    assert "targets at T=1024" in found.stdout
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".md"]


UNWRITABLE = {
    "a file": lambda folder: folder / "file",
    "below a file": lambda folder: folder / "file" / "results",
    "a folder that takes nothing": lambda folder: Path("/proc/self"),
}


@pytest.mark.parametrize("place", UNWRITABLE.values(), ids=UNWRITABLE)
def test_bench_refuses_a_folder_before_it_measures(place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from hybridlab.measure import bench

    (tmp_path / "file").touch()
    monkeypatch.setattr(bench, "benchmark", lambda *_, **__: pytest.fail("measured first"))
    folder = place(tmp_path)
    if not (folder.exists() or tmp_path in folder.parents):
        pytest.skip("this system has no folder that even root cannot write to")
    assert status("bench", "--op", "wkv6", "--out", str(folder)) == 2
    assert f"cannot write to --out {folder}" in capsys.readouterr().err


# start


@pytest.mark.parametrize("wanted", ["3", "03", "03_rwkv", "03_rwkv.ipynb"])
def test_exercise_is_found_by_number_or_name(course: Path, wanted: str) -> None:
    assert exercise(course, wanted).name == "03_rwkv.ipynb"


@pytest.mark.parametrize("wanted", ["7", "1", "rwkv", "../03_rwkv", "003", ""])
def test_wrong_exercise_lists_what_exists(course: Path, wanted: str) -> None:
    with pytest.raises(ValueError, match="there are: 03_rwkv, 11_full_models"):
        exercise(course, wanted)


def test_start_copies_and_never_writes_over(course: Path) -> None:
    copy, new = start_exercise(course, "3")
    assert (copy, new) == (course / "my_work" / "03_rwkv.ipynb", True)
    assert copy.read_text() == "content of exercises/03_rwkv"
    copy.write_text("a learner's work")
    assert start_exercise(course, "3") == (copy, False)
    assert copy.read_text() == "a learner's work"


def test_copy_that_appears_meanwhile_is_not_written_over(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, _ = start_exercise(course, "3")
    copy.write_text("a learner's work")
    monkeypatch.setattr(places.Path, "exists", lambda path: False)
    with pytest.raises(ValueError, match="cannot write"):
        start_exercise(course, "3")
    assert copy.read_text() == "a learner's work"


def test_start_says_how_to_go_on(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "repository", lambda: course)
    first, second = run("start", "3"), run("start", "3")
    assert first.exit_code == 0
    assert "pytest --nbval --nbval-current-env my_work/03_rwkv.ipynb" in first.stdout
    assert second.exit_code == 1
    assert "rename it" in second.stdout


def test_folder_that_cannot_be_written_to(course: Path) -> None:
    (course / "my_work").write_text("a file where the folder should be")
    with pytest.raises(ValueError, match=r"cannot write .*03_rwkv\.ipynb.*copy"):
        start_exercise(course, "3")


@pytest.mark.skipif(lab.is_superuser(), reason="root writes everywhere")
def test_read_only_folder(course: Path) -> None:
    course.chmod(0o555)
    try:
        with pytest.raises(ValueError, match="Permission denied"):
            start_exercise(course, "3")
    finally:
        course.chmod(0o755)


# lab


def test_course_is_found_beside_the_package_and_around_the_current_folder(course: Path, tmp_path: Path) -> None:
    elsewhere = Path(sys.prefix)
    assert repository(current=elsewhere) == ROOT
    assert repository(beside=elsewhere, current=course / "chapters") == course


def test_installed_package_alone_has_no_course(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="clone the repository"):
        repository(beside=tmp_path, current=tmp_path)


def test_missing_start_chapter_is_named(course: Path) -> None:
    assert start_chapter(course).as_posix() == "chapters/00_start_here.ipynb"
    (course / "chapters" / "00_start_here.ipynb").unlink()
    with pytest.raises(ValueError, match=r"chapters/00_start_here\.ipynb is not in"):
        start_chapter(course)


@pytest.fixture
def command(course: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `hybridlab lab` would turn into, as root does not matter."""
    caught: list[str] = []
    monkeypatch.setattr(places, "repository", lambda: course)
    monkeypatch.setattr(lab, "is_superuser", lambda: False)
    monkeypatch.setattr(lab, "become", lambda command: caught.extend(command) or 0)
    return caught


def test_lab_opens_the_start_chapter(course: Path, command: list[str]) -> None:
    assert run("lab").exit_code == 0
    assert command == [
        sys.executable, "-m", "jupyterlab",
        f"--ServerApp.root_dir={course}", "--LabApp.default_url=/lab/tree/chapters/00_start_here.ipynb",
        f"--LabApp.app_settings_dir={lab.SETTINGS}",
    ]  # fmt: skip


def test_lab_passes_on_what_it_is_given(command: list[str]) -> None:
    assert run("lab", "--no-browser", "--port", "9999", "--", "--debug", "--IdentityProvider.token=x").exit_code == 0
    assert command[6:] == [
        "--no-browser", "--ServerApp.port=9999", "--ServerApp.port_retries=0", "--debug", "--IdentityProvider.token=x",
    ]  # fmt: skip


def test_lab_as_root_allows_it(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "is_superuser", lambda: True)
    run("lab")
    assert "--allow-root" in command


def test_idle_threads_sleep_unless_told_otherwise(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for said, found in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        if said is not None:
            monkeypatch.setenv("OMP_WAIT_POLICY", said)
        run("lab")
        assert os.environ["OMP_WAIT_POLICY"] == found


def test_lab_without_jupyterlab_says_how_to_get_it(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab.importlib.util, "find_spec", lambda name: None)
    assert status("lab") == 2
    assert not command


def test_lab_without_a_place_to_write_says_what_to_set(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()  # no folder can be made below a file, even by root
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "file" / "runtime"))
    assert status("lab") == 2
    assert "set JUPYTER_RUNTIME_DIR, or HOME, to a folder of your own" in capsys.readouterr().err
    assert not command
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "new" / "runtime"))
    assert run("lab").exit_code == 0


def test_where_a_process_cannot_become_another_lab_returns_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab.os, "name", "nt")
    assert lab.become([sys.executable, "-c", "raise SystemExit(7)"]) == 7


@pytest.mark.minutes
def test_lab_really_serves_the_start_chapter_and_ends_with_the_command(tmp_path: Path) -> None:
    pytest.importorskip("playwright", reason="lab_server needs playwright: it comes with the extra `dev`")
    from lab_server import running_lab

    with running_lab([str(SCRIPT), "lab", "--no-browser", "--"], tmp_path, tmp_path / "private") as server:
        chapter = server.call("/api/contents/chapters/00_start_here.ipynb?content=0")
        address = server.url
    assert chapter["type"] == "notebook"
    with pytest.raises(OSError, match=r"refused|reset"):
        server.call("/api/status")
    assert address.startswith("http://127.0.0.1:")
