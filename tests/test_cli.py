"The command line, as a user meets it: pictures with their settings inside, warnings, one clear line and exit code 2."
import json, os, subprocess, sys
import pytest, torch
from PIL import Image

import minidiff
from minidiff import laptop, load
from minidiff.cli import main
from minidiff.clip import CLIPImageConfig, CLIPTextConfig
from minidiff.laptop import Part
from minidiff.pipeline import SHIPPED
from minidiff.recipes import make
from minidiff.train import adamw
from minidiff.unet import UNetConfig


def shell(*words, cwd=None):
    return subprocess.run([sys.executable, "-c", "from minidiff.cli import main; main()", *words], cwd=cwd, capture_output=True, text=True, timeout=400)


def fails(capsys, *words):
    with pytest.raises(SystemExit) as e: main(list(words))
    err = capsys.readouterr().err
    assert e.value.code == 2 and len(err.strip().splitlines()) == 1, err
    return err.strip().splitlines()[-1]


def test_sample_writes_a_labelled_png_with_its_settings(tmp_path, capsys):
    out = tmp_path / "new" / "a.png"
    main(["sample", "a red three", "two blue ones", "--n", "2", "--steps", "3", "--seed", "7", "--scale", "2.5", "--negative", "a thin digit", "-o", str(out)])
    picture = Image.open(out)
    assert picture.width > 2 * 64 and picture.height > 64
    assert json.loads(picture.text["caption"]) == ["a red three", "two blue ones"] and picture.text["seed"] == "7" and picture.text["scale"] == "2.5" and picture.text["negative"] == "a thin digit"
    assert "4 pictures" in capsys.readouterr().out


def test_unknown_words_warn_and_still_draw(tmp_path, capsys):
    main(["sample", "a purple three", "--steps", "2", "-o", str(tmp_path / "a.png")])
    err = capsys.readouterr().err
    assert "'purple'" in err and "magenta" in err and (tmp_path / "a.png").exists()


@pytest.mark.parametrize("words, says", [
    (("sample", "a red three", "--steps", "0"), "'0'"), (("sample", "a red three", "--scale", "many"), "'many'"), (("sample", "a red three", "--size", "32"), "--model"), (("sample", "a red three", "--model", "nowhere", "--weights", "runs"), "--weights"), (("train", "all", "--steps", "3"), "--minutes"), (("sample", "a red three", "--scale", "nan"), "'nan'"),
    (("sample", "a red three", "--sampler", "magic"), "magic"), (("sample", "a red three", "--eta", "1"), "euler"), (("sample",), "CAPTION"),
    (("sample", "a red three", "--n", "-1"), "'-1'"), (("train", "everything"), "everything"), (("evaluate", "--n", "0"), "'0'"), (("sample", "a red three", "--device", "toaster"), "toaster"),
    (("sample", "a red three", "--weights", "/nowhere"), "/nowhere")])
def test_one_clear_line(tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    assert says in fails(capsys, *words)


def test_unwritable_output(tmp_path, capsys):
    assert str(tmp_path) in fails(capsys, "sample", "a red three", "-o", str(tmp_path))
    (tmp_path / "file").write_text("")
    assert "file" in fails(capsys, "sample", "a red three", "-o", str(tmp_path / "file" / "a.png"))


def test_from_the_shell(tmp_path):
    assert shell("--version").stdout.startswith("minidiff 0.")
    done = shell("sample", "a red three", "--steps", "2", cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "out.png").exists()


def test_progress_bar_in_a_terminal(tmp_path):
    "The same command under a pseudo-terminal draws its bar and ends well"
    import pty
    pid, fd = pty.fork()
    if not pid: os.execv(sys.executable, [sys.executable, "-c", "from minidiff.cli import main; main()", "sample", "a red three", "--steps", "5", "-o", str(tmp_path / "a.png")])
    shown = b""
    try:
        while part := os.read(fd, 4096): shown += part
    except OSError: pass  # Linux ends a closed terminal so
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown.decode()
    assert b"100.00%" in shown and b"1 picture" in shown and (tmp_path / "a.png").exists()


def test_train_resumes_and_its_weights_draw(tmp_path):
    "A killed run goes on; the parts that it made work together"
    words = ["--size", "8", "--pool", "1000", "-o", str(tmp_path)]
    for part, steps in (("vae", "3"), ("clip", "3")):
        done = shell("train", part, "--steps", steps, *words)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"{part}.safetensors").exists() and "seconds" in (tmp_path / f"{part}.md").read_text()
    done = shell("train", "unet", "--steps", "4", *words)
    assert done.returncode == 0, done.stderr
    done = shell("sample", "a red three", "--weights", str(tmp_path), "-o", str(tmp_path / "a.png"))
    assert done.returncode == 0 and (tmp_path / "a.png").exists(), done.stderr


def test_train_all_goes_on_and_shows_its_marks(tmp_path, monkeypatch, capsys):
    small = CLIPTextConfig(width=16, layers=1, heads=2, context=32)
    parts = (Part("vae", .3, dict(pool=1000, size=4, channels=(8, 8, 8, 8), groups=2)),
             Part("clip", .3, dict(pool=1000, size=8, text=small, image=CLIPImageConfig(patch=16, width=16, layers=1, heads=2))),
             Part("unet", .3, dict(pool=1000, size=4, tune=True, config=UNetConfig(channels=(16, 16), layers=1, depth=(0, 1), heads=(2, 2), ctx_dim=16, groups=8))))
    monkeypatch.setitem(laptop.PLANS, "cpu", parts)
    assert next(share for part, share, _ in laptop.make_all(tmp_path, minutes=.05) if part == "clip") >= .3  # the lid is closed here
    vae = (tmp_path / "vae.safetensors").read_bytes()
    main(["train", "all", "--minutes", ".05", "-o", str(tmp_path)])
    out = capsys.readouterr().out
    assert "vae" not in out.split("minutes left")[0] and "overall" in out and "FID" in out
    assert vae == (tmp_path / "vae.safetensors").read_bytes() and not list(tmp_path.glob("*.checkpoint*"))
    assert "minidiff train all --device cpu --minutes 0.05" in (tmp_path / "unet.md").read_text()
    assert Image.open(tmp_path / "samples.png").width > 64
    frozen, tuned = load("clip", tmp_path).text_model.state_dict(), load("scenes", tmp_path).text.text_model.state_dict()
    assert any(not torch.equal(frozen[k], tuned[k]) for k in frozen), "the text tower did not learn with the UNet"
    for _ in make("unet", tmp_path, steps=1, pool=1000, size=4, opt=adamw, config=parts[2].knobs["config"]): pass
    card = (tmp_path / "unet.md").read_text()
    assert "optimiser: AdamW" in card and 'command: make("unet", folder, "cpu", steps=1, pool=1000, size=4, config=UNetConfig(' in card, "not the recipe's own, and not to be had from the shell"
    assert not (tmp_path / "text.safetensors").exists(), "a UNet of the frozen tower would be read with another"


def test_save(tmp_path):
    main(["save", str(tmp_path / "model")])
    assert {p.name for p in (tmp_path / "model").iterdir()} == {"model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler"}


def test_save_as_one_file(tmp_path, capsys):
    from minidiff import sd
    main(["save", str(tmp_path / "m.safetensors"), "--weights", str(SHIPPED)])
    said = capsys.readouterr().out
    assert eval(said.split("open it with ")[1], dict(minidiff=minidiff)).generate("a red three", steps=1)  # the line that it prints
    main(["save", str(tmp_path / "model")])
    a, b = (sd.load(tmp_path / name, tokenizer=tmp_path / "model").images("a red three", steps=2) for name in ("m.safetensors", "model"))
    assert torch.equal(a, b)


def test_sample_from_a_stable_diffusion(tmp_path, capsys):
    "`--model` opens a folder; what is no model is one clear line"
    main(["save", str(tmp_path / "model")])
    main(["sample", "a photograph of a fox", "--model", str(tmp_path / "model"), "--steps", "2", "-o", str(tmp_path / "a.png")])
    assert Image.open(tmp_path / "a.png").text["model"] == str(tmp_path / "model") and "never seen" not in capsys.readouterr().err
    assert "negative" not in Image.open(tmp_path / "a.png").text, "the word None is not what was asked for"
    assert "ends in .png" in fails(capsys, "sample", "a red three", "-o", str(tmp_path / "a.jpg"))
    (tmp_path / "m.ckpt").write_bytes(b"PK")
    assert "pickle" in fails(capsys, "sample", "x", "--model", str(tmp_path / "m.ckpt"))
    assert "/nowhere" in fails(capsys, "sample", "x", "--model", "/nowhere")


@pytest.mark.parametrize("words", [("train", "digits", "--weights", "x"), ("save", "x", "--device", "cpu"), ("train", "digits", "--steps", "3", "--minutes", "2")])
def test_options_that_would_not_be_heard(words, capsys):
    assert "arguments" in (said := fails(capsys, *words)) or "not allowed" in said


def test_what_a_recipe_is_told(tmp_path):
    with pytest.raises(ValueError, match="foo"): next(make("foo", tmp_path))
    with pytest.raises(ValueError, match="multiples of"): next(make("clip", tmp_path, steps=1, size=10))
    for _ in make("digits", tmp_path, steps=2, size=4, pool=8, lr=1e-5): pass
    assert "--lr 1e-05" in (tmp_path / "digits.md").read_text() or "lr=1e-05" in (tmp_path / "digits.md").read_text()


@pytest.mark.parametrize("part", ["digits", "classifier"])
def test_a_pool_is_so_many_digits(tmp_path, part):
    for pool in (8, 64):
        for _ in make(part, tmp_path / str(pool), steps=2, size=4, pool=pool): pass
    a, b = (next(load(part, tmp_path / str(pool)).parameters()) for pool in (8, 64))
    assert not torch.equal(a, b)


def test_weights_of_another_program(tmp_path):
    from minidiff.weights import load_tensors, save_tensors
    save_tensors(tmp_path / "unet.safetensors", {"a": torch.zeros(1)})
    with pytest.raises(ValueError, match="another program"): load("unet", tmp_path)
    with pytest.raises(OSError): save_tensors("/proc/x.safetensors", {"a": torch.zeros(1)})
