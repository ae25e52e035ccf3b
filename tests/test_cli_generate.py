"""`hybridlab generate`: the model's own words, in whole characters, to the right stop, with the bytes that were kept."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from hybridlab.cli import generate, main
from hybridlab.cli.app import app
from hybridlab.cli.generate import Request, Source, UntilStop, go_on
from hybridlab.measure import account
from hybridlab.models import RWKV4, Decoder, DecoderConfig, HybridConfig, HybridLM, LanguageModel, RWKV4Config
from hybridlab.models.decoder_checkpoint import FOLDERS
from hybridlab.models.rwkv_checkpoint import RELEASED
from hybridlab.models.sampling import Sampling

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers comes with the extra `course`")

SCRIPT = Path(sys.executable).parent / "hybridlab"
PROMPT = "Once there was"
GREEDY = Sampling()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["generate", *arguments])


def byte_tokenizer(extra: Sequence[str] = ()) -> Any:
    """A token a byte: 256 of them, and <end>."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(["<end>", *extra])
    return made


def theirs(model: LanguageModel, layout: Any) -> dict[str, torch.Tensor]:
    """The weights by the names of a layout's files."""
    names = layout.expanded(model.config.layers)
    weights = model.state_dict()
    return {name: weights[ours].contiguous() for name, (ours,) in names.items() if ours in weights}


def loud(model: LanguageModel) -> LanguageModel:
    """The model with weights that make it say something else at every step."""
    for parameter in model.parameters():
        parameter.data.add_(0.5 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of one layer and a tokenizer of bytes, as transformers would lay them out."""
    torch.manual_seed(1)
    place = tmp_path_factory.mktemp("llama")
    model = loud(Decoder(DecoderConfig(257, 16, 1, heads=2, groups=1, ffn_width=24)))
    save_file(theirs(model, FOLDERS["llama"]), place / "model.safetensors")
    fields = {
        "model_type": "llama", "vocab_size": 257, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "intermediate_size": 24, "rms_norm_eps": model.config.norm_eps,
    }  # fmt: skip
    (place / "config.json").write_text(json.dumps(fields))
    byte_tokenizer().save(str(place / "tokenizer.json"))
    return place


def answer(folder: Path, count: int, **options: Any) -> str:
    """What the model itself adds to the prompt, as the tokenizer reads it."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(PROMPT).ids
    text = generate.load_checkpoint(folder).generate(torch.tensor([ids]), count, **options)[0].tolist()
    return tokenizer.decode(text)[len(PROMPT) :]


def test_text_goes_to_stdout_as_the_model_says_it_and_figures_to_stderr(folder: Path) -> None:
    found = run(str(folder), "--prompt", PROMPT, "--max-new-tokens", "40")
    assert found.exit_code == 0, found.output
    assert found.stdout == answer(folder, 40) + "\n"
    kept = account(generate.load_checkpoint(folder), len(PROMPT) + 39, dtype="float32")
    assert kept.kv_bytes > kept.state_bytes == 0
    assert f"prompt: {len(PROMPT)} tokens, " in found.stderr
    assert "new: 40 tokens, " in found.stderr
    assert f"kept after {len(PROMPT) + 39} tokens: cache {kept.kv_bytes:,} B, state 0 B" in found.stderr


def test_a_terminal_that_lacks_a_character_shows_another(folder: Path) -> None:
    said = answer(folder, 40)
    assert not said.isascii()
    found = CliRunner(charset="ascii").invoke(app, ["generate", str(folder), "--prompt", PROMPT, "--max-new-tokens", "40"])
    assert found.stdout == said.encode("ascii", "replace").decode() + "\n"


def test_draws_follow_the_seed_and_the_limits(folder: Path) -> None:
    drawn = ("--prompt", PROMPT, "--max-new-tokens", "30", "--temperature", "0.7", "--top-k", "9", "--top-p", "0.9")
    found = run(str(folder), *drawn, "--seed", "5").stdout
    assert found == answer(folder, 30, temperature=0.7, top_k=9, top_p=0.9, seed=5) + "\n"
    assert found != run(str(folder), *drawn, "--seed", "6").stdout


def test_stops_at_a_text_and_at_the_ids_that_end_one(folder: Path, tmp_path: Path) -> None:
    free = answer(folder, 60)
    for stop in (free[20:24], free[10]):
        found = run(str(folder), "--prompt", PROMPT, "--max-new-tokens", "60", "--stop", "never", "--stop", stop)
        assert found.stdout == free[: free.index(stop)] + "\n"
        assert "new: 60 tokens" not in found.stderr
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(PROMPT).ids
    said = generate.load_checkpoint(folder).generate(torch.tensor([ids]), 60)[0, len(ids) :].tolist()
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [256, said[25]]}))
    before = said[: said.index(said[25])]
    assert run(str(tmp_path), "--prompt", PROMPT).stdout == tokenizer.decode(ids + before)[len(PROMPT) :] + "\n"


def test_special_tokens_stop_by_their_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = generate.load_checkpoint(folder)
    monkeypatch.setattr(model.head, "forward", lambda x: torch.eye(257)[256].expand(len(x), -1))
    monkeypatch.setattr(generate, "load_checkpoint", lambda *_, **__: model)
    for stop, count in (("<end>", 1), ("<", 5)):
        found = run(str(folder), "--prompt", PROMPT, "--max-new-tokens", "5", "--stop", stop)
        assert (found.stdout, f"new: {count} tokens" in found.stderr) == ("\n", True)


def test_any_cut_of_a_text_ends_at_the_first_stop() -> None:
    text, stops = "aabaabaaab, and on and on", ("aaab", "on an", "zz")
    for first in range(len(text)):
        for second in range(first, len(text)):
            until, shown = UntilStop(stops), ""
            for piece in (text[:first], text[first:second], text[second:]):
                shown += "" if until.ended else until.push(piece)
            assert (shown, until.held, until.ended) == ("aabaab", "", True)
    until = UntilStop(("stop",))
    assert [until.push(piece) for piece in ("a st", "o", "re st")] == ["a ", "", "store "]
    assert (until.held, until.ended) == ("st", False)


def test_what_is_held_back_is_shown_in_the_end(folder: Path) -> None:
    free = answer(folder, 30)
    found = run(str(folder), "--prompt", PROMPT, "--max-new-tokens", "30", "--stop", free[-2:] + "\0")
    assert found.stdout == free + "\n"


def test_bytes_kept_after_each_step_are_those_of_the_account(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = HybridLM(HybridConfig(257, 16, pattern="RWA", head_width=8, window=4))
    monkeypatch.setattr(generate, "load_checkpoint", lambda *_, **__: model)
    record = go_on(Source(folder, backend="naive"), Request("abc", 6, GREEDY), lambda text: None)
    assert [cost.tokens for cost in record.costs] == [3, 4, 5, 6, 7, 8]
    for cost in record.costs:
        expected = account(model, cost.tokens, dtype="float32")
        assert 0 < expected.kv_bytes == cost.cache_bytes
        assert 0 < expected.state_bytes == cost.state_bytes
        assert cost.seconds > 0


def test_rwkv_reads_its_own_files_with_its_own_vocabulary(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = loud(RWKV4(RWKV4Config(300, 16, 2, attention_width=16, ffn_width=32)))
    torch.save(theirs(model, RELEASED[0]), tmp_path / "rwkv.pth")
    lines = [f"{byte + 1} {bytes([byte])!r} 1" for byte in range(256)] + ["257 'ab' 2"]
    (tmp_path / "vocab.txt").write_text("\n".join(lines))
    arguments = (str(tmp_path / "rwkv.pth"), "--prompt", "cab", "--max-new-tokens", "30", "--backend", "naive")
    ids = model.generate(torch.tensor([[ord("c") + 1, 257]]), 30)[0, 2:].tolist()
    words = {byte + 1: bytes([byte]) for byte in range(256)} | {257: b"ab"}
    expected = b"".join(words.get(index, b"") for index in ids).decode(errors="replace")
    assert len(set(ids)) > 5
    assert run(*arguments, "--vocab", str(tmp_path / "vocab.txt")).stdout == expected + "\n"
    with torch.no_grad():
        model.head.weight.zero_()  # the likeliest is id 0 now
    torch.save(theirs(model, RELEASED[0]), tmp_path / "rwkv.pth")
    assert "new: 1 tokens" in run(*arguments, "--vocab", str(tmp_path / "vocab.txt")).stderr


def test_memory_draws_a_picture(folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / "new" / "kept.png"
    for count in ("8", "1"):
        found = run(str(folder), "--prompt", PROMPT, "--max-new-tokens", count, "--memory", str(picture))
        assert found.exit_code == 0, found.output
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert f"wrote {picture}" in found.stderr
        picture.unlink()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a wrong argument ends with, and status 2."""
    with pytest.raises(SystemExit) as ended:
        main(["generate", *arguments])
    assert ended.value.code == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.count("\n") == 1
    return found.err


PROMPTED = ("--prompt", PROMPT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", *PROMPTED), "no such file or folder: nowhere"),
        (("rwkv4-169m", *PROMPTED), "rwkv4-169m is a preset, and a preset has no weights"),
        ((".", *PROMPTED), "no tokenizer.json in ."),
        (("LLAMA", "--prompt", ""), "the prompt is empty"),
        (("LLAMA", "--prompt", "\udcff"), "not UTF-8"),
        (("LLAMA", *PROMPTED, "--stop", ""), "a stop is an empty text"),
        (("LLAMA", *PROMPTED, "--max-new-tokens", "0"), "max_new_tokens must be an int of at least 1"),
        (("LLAMA", *PROMPTED, "--temperature", "-1"), "temperature must be"),
        (("LLAMA", *PROMPTED, "--top-k", "3"), "top_k and top_p need a temperature above 0"),
        (("LLAMA", *PROMPTED, "--dtype", "int8"), "dtype must be one of float64, float32, bfloat16, float16, got 'int8'"),
        (("LLAMA", *PROMPTED, "--device", "tpu"), "device must be cpu or cuda"),
        (("LLAMA", *PROMPTED, "--backend", "fast"), "unknown backend 'fast'"),
        (("LLAMA", *PROMPTED, "--vocab", "nowhere.txt"), "no such file: nowhere.txt"),
        (("LLAMA", *PROMPTED, "--memory", "kept.svg"), "--memory must be a .png file, got kept.svg"),
        (("LLAMA", *PROMPTED, "--memory", "LLAMA/config.json/kept.png"), "cannot write --memory to"),
    ],
    ids=lambda x: " ".join(x[:1] + x[3:]).encode("ascii", "replace").decode() if isinstance(x, tuple) else "",
)
def test_wrong_arguments(arguments: tuple[str, ...], message: str, folder: Path, capsys: Any) -> None:
    assert message in refused(capsys, *(argument.replace("LLAMA", str(folder)) for argument in arguments))


def test_a_vocabulary_that_does_not_fit_the_model(folder: Path, tmp_path: Path, capsys: Any) -> None:
    byte_tokenizer(["<more>"]).save(str(tmp_path / "larger.json"))
    error = refused(capsys, str(folder), *PROMPTED, "--vocab", str(tmp_path / "larger.json"))
    assert "the tokenizer has ids up to 257, the model only up to 256" in error


def test_without_matplotlib_nothing_is_loaded_first(
    folder: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "hybridlab.cli.memory_picture", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    monkeypatch.setattr(generate, "load_checkpoint", lambda *_, **__: pytest.fail("loaded first"))
    error = refused(capsys, str(folder), *PROMPTED, "--memory", str(tmp_path / "kept.png"))
    assert "--memory needs matplotlib" in error
    assert "pip install" in error


def test_ctrl_c_leaves_what_was_said(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = generate.steps

    def interrupted(*arguments: Any) -> Any:
        for count, step in enumerate(whole(*arguments)):
            if count == 7:
                raise KeyboardInterrupt
            yield step

    monkeypatch.setattr(generate, "steps", interrupted)
    picture = tmp_path / "kept.png"
    found = run(str(folder), *PROMPTED, "--stop", "never", "--memory", str(picture))
    assert found.exit_code == 130
    assert found.stdout == answer(folder, 7) + "\n"
    assert "new: 7 tokens" in found.stderr
    assert picture.exists()


@pytest.mark.minutes
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_ctrl_c_in_the_middle_and_a_reader_that_goes_away(folder: Path) -> None:
    command = [str(SCRIPT), "generate", str(folder), *PROMPTED, "--max-new-tokens", "1000000"]
    for interrupt in (True, False):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        said = process.stdout.read(20)  # text comes while it is made
        if interrupt:
            process.send_signal(signal.SIGINT)
            rest, error = process.communicate(timeout=120)
            assert process.returncode == 130
            assert (said + rest).decode().startswith(answer(folder, 12)[:8])
            assert b"kept after" in error
        else:
            process.stdout.close()
            assert process.wait(timeout=120) == 1
            error = process.stderr.read()  # type: ignore[union-attr]
        assert b"Traceback" not in error


@pytest.mark.minutes
def test_a_model_trained_on_text_and_written_by_transformers_says_what_it_says_there(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from hybridlab.tasks.text import decode, python_source, random_pieces
    from hybridlab.tasks.train import train

    text = decode(python_source().train)[:200_000]
    tokenizer = byte_tokenizer()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<end>"], initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    )
    tokenizer.train_from_iterator([text], trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = transformers.LlamaConfig(
        vocab_size=400, hidden_size=64, num_hidden_layers=2, intermediate_size=128, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    ids = torch.tensor(tokenizer.encode(text).ids)
    log = train(model, lambda source: random_pieces(ids, 8, 64, source), steps=150)
    assert log[-1].loss < 4.2 < log[0].loss  # ln 400 = 6.0 is a guess
    model.eval().save_pretrained(tmp_path)
    prompt = tokenizer.encode("    def read(self").ids
    said = model.generate(torch.tensor([prompt]), max_new_tokens=40, do_sample=False)[0, len(prompt) :].tolist()
    command = [str(SCRIPT), "generate", str(tmp_path), "--prompt", "    def read(self", "--max-new-tokens", "40"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout == tokenizer.decode(said) + "\n"
    assert "tokens/s" in ended.stderr
    assert len(set(said)) > 3
