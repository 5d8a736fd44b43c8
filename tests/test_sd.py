"Stable Diffusion 1, 2, XL and refiner, tiny and with every parameter moved: both layouts, every pipeline, against diffusers and transformers"
import copy, importlib, json, math, random, struct, subprocess, sys
from dataclasses import replace
from pathlib import Path
import pytest, torch
import diffusers, transformers
from diffusers.loaders import single_file_utils as their_converter

import minidiff
from PIL import Image
from minidiff import checkpoint, keys, tokens
from minidiff.bpe import Tokenizer, train_bpe
from minidiff.checkpoint import text_config, unet_config
from minidiff.cli import main
from minidiff.tokens import clip_tokenizer, folder_tokenizer
from minidiff.core import to_pil, to_tensor
from minidiff.clip import CLIP_L, OPENCLIP_BIGG, CLIPTextConfig, TextEncoder
from minidiff.denoise import Denoiser
from minidiff.layers import time_features
from minidiff.noise import SD, karras, linear_betas_table, sigma_to_t, spaced, abar_to_sigma
from minidiff.sample import dpmpp_2m, euler, heun, last, lms
from minidiff.sd import StableDiffusion, guess_prediction, handover, load, save, schedule
from minidiff.unet import SD15, SD21, SDXL, SDXL_REFINER, UNet, UNetConfig
from minidiff.vae import SD_VAE, SDXL_VAE, VAE, VAEConfig
from minidiff.walk import chunks, conditions, first_step, inpainting, latent_mask, read, steps_of_span
from minidiff.weights import load_tensors, save_tensors

F64 = torch.float64
for library in (diffusers, transformers):
    library.logging.set_verbosity_error()
    getattr(library.logging, "disable_progress_bar", lambda: None)()

CAPTIONS = ["a red three", "a thick blue seven left of a thin green two"]
TOKENIZER = train_bpe(CAPTIONS * 3, 60, 77)
VOCAB = len(TOKENIZER.vocab)


# --- small models, every parameter moved so that no norm is 1 and no bias 0 -----------------------------------------

def shaken(module, seed=0, dtype=F64, size=.05):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters(): p.add_(size * torch.randn(p.shape, generator=g))
    return module.to(dtype).eval().requires_grad_(False)


def tower(width, heads, layers, seed, **more):
    return shaken(TextEncoder(CLIPTextConfig(vocab=VOCAB, width=width, layers=layers, heads=heads, **more)), seed)


@torch.no_grad()
def build(kind, dtype=F64):
    torch.manual_seed(0)
    vae = shaken(VAE(VAEConfig(channels=(32, 64), layers=1, scale=.13025 if kind in ("xl", "refiner") else .18215)), 1)
    vae.decoder.conv_out.weight.mul_(.3)  # few pixels beyond [-1,1], where clamping would hide differences
    first, second = TOKENIZER, Tokenizer(TOKENIZER.vocab, TOKENIZER.merges, 77, 0)
    if kind == "sd1":
        net, texts = UNetConfig(channels=(32, 64), depth=(1, 0), heads=8, ctx_dim=32), dict(text_encoder=tower(32, 4, 3, 2))
    elif kind == "sd2":
        net, texts = UNetConfig(channels=(64, 128), depth=(1, 1), heads=(1, 2), ctx_dim=64, linear_proj=True, layers=1), dict(text_encoder=tower(64, 1, 3, 2, act="gelu"))
    elif kind == "xl":
        net = UNetConfig(channels=(32, 64, 64), depth=(0, 1, 2), heads=(1, 2, 2), ctx_dim=96, linear_proj=True, vec_dim=112, vec_time_dim=8, layers=1)
        texts = dict(text_encoder=tower(32, 4, 3, 2), text_encoder_2=tower(64, 4, 4, 3, act="gelu", proj=64))
    else:
        net = UNetConfig(channels=(32, 64, 64), depth=(0, 2, 0), heads=(1, 2, 4), ctx_dim=64, linear_proj=True, vec_dim=104, vec_time_dim=8, layers=1)
        texts = dict(text_encoder_2=tower(64, 4, 4, 3, act="gelu", proj=64))
    tokenizers = {name: second if name.endswith("2") else first for name in texts}
    model = StableDiffusion(shaken(UNet(net), 4), vae, texts, tokenizers, "v_prediction" if kind == "sd2" else "epsilon", 32)
    for part in (model.denoise, model.vae, *texts.values()): part.to(dtype)
    return model


KINDS = ["sd1", "sd2", "xl", "refiner"]
MODELS = {}


def model_of(kind, dtype=F64):
    if (kind, dtype) not in MODELS: MODELS[kind, dtype] = build(kind, dtype)
    return MODELS[kind, dtype]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    "The four models as folders, in float64"
    root = tmp_path_factory.mktemp("models")
    for kind in KINDS: save(root / kind, model_of(kind))
    return root


def states(model):
    return dict(unet=model.denoise.net.state_dict(), vae=model.vae.state_dict(), **{k: t.state_dict() for k, t in model.texts.items()})


def assert_equal(a, b):
    "The same tensors, configs and tokenizers"
    for (name, x), (other, y) in zip(states(a).items(), states(b).items()):
        assert name == other and x.keys() == y.keys()
        assert all(torch.equal(x[k].to(y[k].dtype), y[k]) for k in x), name
    assert a.denoise.net.config == b.denoise.net.config and a.vae.config == b.vae.config
    assert {k: t.config for k, t in a.texts.items()} == {k: t.config for k, t in b.texts.items()}
    assert (a.prediction, a.size) == (b.prediction, b.size)
    for name, t in a.tokenizers.items(): assert torch.equal(t(CAPTIONS), b.tokenizers[name](CAPTIONS))


def unit(n=2, seed=5, size=16):
    return torch.randn(n, 4, size, size, generator=torch.Generator().manual_seed(seed)).double()


def rel(a, b): return ((a - b).norm() / b.norm()).item()


# --- published sizes, both layouts (checks 1, 2, 3, 5, 7, 10) -------------------------------------------------------

def their_unet(c):
    down = tuple("CrossAttnDownBlock2D" if d else "DownBlock2D" for d in c.depth)
    up = tuple("CrossAttnUpBlock2D" if d else "UpBlock2D" for d in reversed(c.depth))
    return dict(down_block_types=down, up_block_types=up, block_out_channels=c.channels, layers_per_block=c.layers,
                transformer_layers_per_block=[d or 1 for d in c.depth], addition_embed_type="text_time" if c.vec_dim else None, class_embed_type=None)


def converted(unet, vae, texts, config):
    "diffusers' own converter on our single file: unet, vae and the list of text towers, name -> tensor"
    file = keys.to_ldm(unet, vae, texts)
    out = [their_converter.convert_ldm_unet_checkpoint(file, their_unet(config)),
           their_converter.convert_ldm_vae_checkpoint(file, dict(down_block_types=vae.config.channels, up_block_types=vae.config.channels))]
    for i, text in enumerate(texts):
        xl = config.vec_dim is not None
        if text.config.act == "quick_gelu":
            out.append({"text_model." * (not k.startswith("text_model")) + k: v for k, v in their_converter.convert_ldm_clip_checkpoint(file).items()})
        else:
            class Like: config = type("C", (), dict(hidden_size=text.config.width))
            prefix = f"conditioner.embedders.{i}.model." if xl else "cond_stage_model.model."
            out.append(their_converter.convert_open_clip_checkpoint(Like, file, prefix=prefix))
    return out


PUBLISHED = {"SD 1.5": (SD15, SD_VAE, [CLIP_L]), "SD 2.1": (SD21, SD_VAE, [CLIPTextConfig(width=1024, layers=23, heads=16, act="gelu")]),
             "SDXL": (SDXL, SDXL_VAE, [CLIP_L, OPENCLIP_BIGG]), "refiner": (SDXL_REFINER, SDXL_VAE, [OPENCLIP_BIGG])}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_names_and_shapes_convert(name):
    "On the meta device: our single file has the names that diffusers' converter expects, and it gives back ours"
    config, vae_c, texts_c = PUBLISHED[name]
    with torch.device("meta"): unet, vae, texts = UNet(config), VAE(vae_c), [TextEncoder(c) for c in texts_c]
    ours, shapes = [m.state_dict() for m in (unet, vae, *texts)], lambda s: {k: tuple(v.shape) for k, v in s.items()}
    for a, b in zip(ours, converted(unet, vae, texts, config), strict=True): assert shapes(a) == shapes(b)
    file = keys.to_ldm(unet, vae, texts)
    a, b, c = keys.from_ldm(file)
    for mine, back in zip(ours, (a, b, *c), strict=True): assert shapes(mine) == shapes(back)
    assert unet_config(a) == config and [text_config(s) for s in c] == texts_c
    assert checkpoint.vae_config(b, xl=config.vec_dim is not None) == vae_c


@pytest.mark.parametrize("kind", KINDS)
def test_converter_gives_identical_tensors(kind):
    model = model_of(kind)
    for ours, theirs in zip(states(model).values(), converted(model.denoise.net, model.vae, list(model.texts.values()), model.denoise.net.config), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(v, theirs[k]) for k, v in ours.items())


@pytest.mark.parametrize("kind", KINDS)
def test_both_layouts_come_back(kind, folders, tmp_path):
    model = model_of(kind)
    assert_equal(load(folders / kind, F64), model)
    save(tmp_path / "one.safetensors", model)
    assert_equal(load(tmp_path / "one.safetensors", F64, tokenizer=folders / kind), model)
    half = load(folders / kind, torch.bfloat16)
    assert half.denoise.net.conv_in.weight.dtype == torch.bfloat16 and half.vae.quant_conv.weight.dtype == torch.float32
    save(tmp_path / "half", model, half=True)
    file = next((tmp_path / "half" / "unet").glob("*.safetensors"))
    assert file.stat().st_size < .3 * next((folders / kind / "unet").glob("*.safetensors")).stat().st_size
    assert load(tmp_path / "half").denoise.net.conv_in.weight.dtype == torch.float32


# --- other people's files -------------------------------------------------------------------------------------------

def foreign(kind, **more):
    "A single file as others write it: no note of ours, and what old files carry besides"
    model = model_of(kind)
    junk = {"model_ema.decay": torch.ones(()), "model_ema.diffusion_modeltime_embed0weight": torch.ones(3), "betas": torch.ones(1000), "alphas_cumprod": torch.ones(1000),
            "global_step": torch.tensor(7), "first_stage_model.loss.logvar": torch.ones(()), "cond_stage_model.model.logit_scale": torch.ones(()) if kind == "sd2" else torch.zeros(1)}
    return keys.to_ldm(model.denoise.net, model.vae, list(model.texts.values())) | junk | more


def write(path, state):
    save_tensors(path, {k: v.clone() for k, v in state.items()})
    return path


def test_file_without_a_note_is_told_by_its_weights(folders, tmp_path):
    model = model_of("sd2")
    a = load(write(tmp_path / "a.safetensors", foreign("sd2")), F64, tokenizer=folders / "sd2", prediction="v_prediction")
    assert_equal(a, StableDiffusion(model.denoise.net, model.vae, model.texts, model.tokenizers, "v_prediction", 96 * 2))
    told = foreign("sd1", **{"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77.)[None]})
    b = load(write(tmp_path / "b.safetensors", told), F64, tokenizer=folders / "sd1" / "tokenizer")
    assert b.denoise.net.config == model_of("sd1").denoise.net.config and b.prediction == "epsilon" and b.size == 64 * 2
    assert b.vae.config.scale == .18215


def test_old_and_new_names_of_the_text_tower(folders, tmp_path):
    "transformers 5.6 and later write no `text_model.`; so did some files of 2022"
    model, old = model_of("sd1"), foreign("sd1")
    flat = {k.replace("transformer.text_model.", "transformer."): v for k, v in old.items()}
    a, b = (load(write(tmp_path / f"{n}.safetensors", s), F64, tokenizer=folders / "sd1") for n, s in (("old", old), ("flat", flat)))
    assert all(torch.equal(v, b.texts["text_encoder"].state_dict()[k]) for k, v in a.texts["text_encoder"].state_dict().items())
    import shutil
    shutil.copytree(folders / "sd1", tmp_path / "flat")
    file = tmp_path / "flat" / "text_encoder" / "model.safetensors"
    write(file, {k.removeprefix("text_model."): v for k, v in load_tensors(file)[0].items()} | {"embeddings.position_ids": torch.arange(77)[None]})
    assert_equal(load(tmp_path / "flat", F64), model)


def test_vae_names_of_2022_and_shards(folders, tmp_path):
    import shutil
    shutil.copytree(folders / "sd1", tmp_path / "m")
    file = tmp_path / "m" / "vae" / "diffusion_pytorch_model.safetensors"
    state, old = load_tensors(file)[0], dict(to_q="query", to_k="key", to_v="value")
    renamed = {}
    for k, v in state.items():
        for new, was in (old | {"to_out.0": "proj_attn"}).items(): k = k.replace(f".{new}.", f".{was}.")
        renamed[k] = v
    assert renamed.keys() != state.keys()
    write(file, renamed)
    unet = tmp_path / "m" / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_tensors(unet)[0]
    names = list(state)
    write(unet.with_name("x-00001-of-00002.safetensors"), {k: state[k] for k in names[::2]})
    write(unet.with_name("x-00002-of-00002.safetensors"), {k: state[k] for k in names[1::2]})
    unet.unlink()
    index = {k: f"x-0000{1 + i % 2}-of-00002.safetensors" for i, k in enumerate(names)}
    unet.with_name("diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(dict(weight_map=index)))
    write(tmp_path / "m" / "vae" / "diffusion_pytorch_model.non_ema.safetensors", {})
    assert_equal(load(tmp_path / "m", F64), model_of("sd1"))
    text = tmp_path / "m" / "text_encoder" / "model.safetensors"
    text.rename(text.with_name("model.fp16.safetensors"))
    assert_equal(load(tmp_path / "m", F64), model_of("sd1"))


def test_sd2_single_file_loses_its_24th_layer(tmp_path):
    "Its UNet was trained on the states of layer 23, and folders leave the last out"
    state = {f"text_model.encoder.layers.{i}.layer_norm1.bias": torch.full((4,), float(i)) for i in range(24)} | {"text_model.final_layer_norm.bias": torch.ones(4)}
    checkpoint.drop_last(state)
    assert checkpoint.count(state, "text_model.encoder.layers") == 23 and len(state) == 24
    checkpoint.drop_last(state)
    assert len(state) == 24


def test_prediction_is_found_out():
    "A net that returns its input predicts the noise; one that returns nearly nothing of it, v"
    net = model_of("sd2").denoise.net
    class Same(torch.nn.Module):
        config, conv_in = net.config, net.conv_in
        def forward(self, x, t, ctx): return x + .2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x)
    assert guess_prediction(Same()) == "epsilon" and guess_prediction(net) == "v_prediction"
    assert guess_prediction(minidiff.load("unet")) == "v_prediction"  # a trained one: ours


@pytest.mark.parametrize("mark", ["ztsnr", "edm_mean", "edm_vpred.sigma_max"])
def test_marks_of_other_noise_levels_are_refused(tmp_path, mark):
    with pytest.raises(ValueError, match=f"other noise levels.*{mark}"): load(write(tmp_path / "a.safetensors", foreign("sd1", **{mark: torch.zeros(0)})))


def test_v_pred_mark(folders, tmp_path):
    "SDXL finetunes that predict v carry an empty tensor of that name"
    state = foreign("sd1", v_pred=torch.zeros(0))
    model = load(write(tmp_path / "v.safetensors", state), tokenizer=folders / "sd1")
    assert model.prediction == "v_prediction" and model.size == 64 * 2  # the tiny VAE's factor; 96 latents are SD 2's


# --- what is refused ------------------------------------------------------------------------------------------------

def test_pickles_are_refused(tmp_path):
    for name in ("model.ckpt", "model.safetensors", "model.pt"):
        torch.save({"a": torch.ones(2)}, tmp_path / name)
        with pytest.raises(ValueError, match="pickle.*safetensors.*weights_only"): load(tmp_path / name)
    (tmp_path / "m" / "unet").mkdir(parents=True)
    (tmp_path / "m" / "vae").mkdir()
    torch.save({}, tmp_path / "m" / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="pickle"): load(tmp_path / "m")


@pytest.mark.parametrize("begins", [b"\x80", b"PK"])
def test_a_header_of_any_length_is_no_pickle(folders, tmp_path, begins):
    "The length of a header may begin a file as a pickle or a zip archive begins"
    path = write(tmp_path / "m.safetensors", foreign("sd1"))
    raw = path.read_bytes()
    n, size = struct.unpack("<Q", raw[:8])[0], 256 ** len(begins)
    header = raw[8:8 + n] + b" " * ((int.from_bytes(begins, "little") - n) % size)
    path.write_bytes(struct.pack("<Q", len(header)) + header + raw[8 + n:])
    assert path.read_bytes().startswith(begins)
    load(path, tokenizer=folders / "sd1")


@pytest.mark.parametrize("name", ["model.diffusion_model.input_blocks.1000000000.0.op.weight", "first_stage_model.encoder.down.1000000000.block.0.conv1.weight",
                                  "cond_stage_model.model.transformer.resblocks.1000000000.ln_1.weight"])
def test_a_number_in_a_name_builds_no_endless_table(folders, tmp_path, name):
    with pytest.raises(ValueError, match="1000000000"): load(write(tmp_path / "m.safetensors", foreign("sd1", **{name: torch.zeros(1)})), tokenizer=folders / "sd1")


def test_parts_that_do_not_fit_together(folders, tmp_path):
    import shutil
    shutil.copytree(folders / "xl", tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "text_encoder_2")
    with pytest.raises(ValueError, match="text 96 wide.*give 32"): load(tmp_path / "half")
    shutil.copytree(folders / "sd1", tmp_path / "odd")
    config = tmp_path / "odd" / "text_encoder" / "config.json"
    told = json.loads(config.read_text())
    config.write_text(json.dumps(told | dict(hidden_act="swish")))
    with pytest.raises(ValueError, match="swish"): load(tmp_path / "odd")
    config.write_text(json.dumps(told))
    unet = tmp_path / "odd" / "unet" / "config.json"
    unet.write_text(json.dumps(json.loads(unet.read_text()) | dict(norm_num_groups=0)))
    with pytest.raises(ValueError, match="groups=0"): load(tmp_path / "odd")
    for note in ("[]", "null", '{"unet": 3}'):
        save_tensors(tmp_path / "n.safetensors", foreign("sd1"), minidiff=note)
        with pytest.raises(ValueError, match="object"): load(tmp_path / "n.safetensors", tokenizer=folders / "sd1")
    model = copy.copy(model_of("sd1"))
    model.denoise = Denoiser(UNet(replace(model_of("sd1").denoise.net.config, in_channels=9)), None)
    save(tmp_path / "paint.safetensors", model)
    with pytest.raises(ValueError, match="9 channels"): load(tmp_path / "paint.safetensors", tokenizer=folders / "sd1")
    with pytest.raises(FileNotFoundError, match="tokenizer at"): load(folders / "sd1", tokenizer=tmp_path / "nowhere")


def test_misfits_are_counted_and_listed(folders, tmp_path):
    state = foreign("sd1")
    gone = [k for k in state if ".attn1." in k]
    for k in gone: del state[k]
    state["model.diffusion_model.input_blocks.1.0.in_layers.0.weight"] = torch.zeros(5)
    state["model.diffusion_model.lora.up"] = torch.zeros(5)
    with pytest.raises(ValueError) as e: load(write(tmp_path / "bad.safetensors", state), tokenizer=folders / "sd1")
    text = str(e.value)
    assert f"{len(gone)} missing" in text and text.count(".attn1.") == 10 and ", ..." in text
    assert "1 extra: lora.up" in text and "1 misshapen: down_blocks.0.resnets.0.norm1.weight [5] float32, expected [32]" in text


@pytest.mark.parametrize("kind, key, shape, says", [
    ("sd1", "model.diffusion_model.input_blocks.0.0.weight", (5,), "conv_in.weight has the shape"), ("sd1", "model.diffusion_model.out.2.weight", (), "conv_out.weight has the shape"),
    ("xl", "model.diffusion_model.label_emb.0.0.weight", (3,), "add_embedding.linear_1.weight has the shape"),
    ("sd1", "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight", (7,), "attn2.to_k.weight has the shape"),
    ("sd1", "first_stage_model.encoder.conv_in.weight", (), "encoder.conv_in.weight has the shape"),
    ("sd1", "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", (7, 2, 2), "token_embedding.weight has the shape"),
    ("sd1", "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight", (), "position_embedding.weight has the shape"),
    ("xl", "conditioner.embedders.1.model.text_projection", (3,), "text_projection.weight has the shape"),
    ("sd2", "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight", (), "3 missing: .*layers.0.self_attn.q_proj.weight"),
    ("sd1", "model.diffusion_model.input_blocks.x.0.op.weight", (1,), "1 extra: input_blocks.x.0.op.weight"), ("sd1", "first_stage_model.encoder.down.lora.weight", (1,), "1 extra: encoder.down.lora.weight"),
    ("sd1", "cond_stage_model.transformer.text_model.encoder.layers.foo.w", (1,), "1 extra: text_model.encoder.layers.foo.w")])
def test_a_tensor_of_another_shape_or_name(folders, tmp_path, kind, key, shape, says):
    "The config is read from some of these: their error too names file and tensor"
    with pytest.raises(ValueError, match=f"bad.safetensors.*{says}"): load(write(tmp_path / "bad.safetensors", foreign(kind) | {key: torch.zeros(shape)}), tokenizer=folders / kind)


def test_numbers_that_are_no_floats(folders, tmp_path):
    state = foreign("sd1")
    state["model.diffusion_model.out.0.weight"] = state["model.diffusion_model.out.0.weight"].to(torch.int8)
    with pytest.raises(ValueError, match="conv_norm_out.weight .* int8"): load(write(tmp_path / "bad.safetensors", state), tokenizer=folders / "sd1")


def changed(folder, **told):
    "Change some of a part's JSON"
    path = folder / ("scheduler_config.json" if folder.name == "scheduler" else "tokenizer_config.json" if folder.name == "tokenizer" else "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | told))


@pytest.mark.parametrize("part, told, says", [
    ("unet", dict(attention_head_dim=8.), "number"), ("vae", dict(norm_num_groups=32.), "vae says norm_num_groups=32.0"), ("text_encoder", dict(num_attention_heads=True), "num_attention_heads=True"), ("unet", dict(norm_num_groups=None), "number"), ("vae", dict(scaling_factor=None), "number"), ("text_encoder", dict(num_attention_heads=3), "divide"),
    ("unet", dict(flip_sin_to_cos=False), "flip_sin"), ("unet", dict(norm_eps=1e-3), "norm_eps"), ("vae", dict(shift_factor=.5), "shift_factor"), ("scheduler", dict(trained_betas=[.1]), "trained_betas"),
    ("unet", dict(mid_block_scale_factor=2.), "mid_block"), ("unet", dict(center_input_sample=True), "center"), ("text_encoder", dict(layer_norm_eps=1e-6), "text_encoder.*layer_norm"),
    ("tokenizer", dict(model_max_length=2), "2 ids long"), ("unet", dict(sample_size=15.5), None), ("unet", dict(sample_size=[16, 24]), None), ("tokenizer", dict(model_max_length=None), None)])
def test_what_configs_may_say(folders, tmp_path, part, told, says):
    import shutil
    shutil.copytree(folders / "sd1", tmp_path / "m")
    changed(tmp_path / "m" / part, **told)
    if says:
        with pytest.raises(ValueError, match=f"{tmp_path.name}.*{says}" if part != "tokenizer" else says): load(tmp_path / "m")
    else:
        model = load(tmp_path / "m")
        f, size = model.vae.config.factor, told.get("sample_size", 16)
        assert model.images("a red three", steps=1).shape[-2:] == ((16 * f, 24 * f) if isinstance(size, list) else (int(size) * f, int(size) * f))


@pytest.mark.parametrize("name", ["m", "m.safetensors", "m.SAFETENSORS"])
def test_a_size_of_two_sides_comes_back(tmp_path, name):
    model = with_clips_vocabulary("sd1") if "." in name else copy.copy(model_of("sd1"))
    model.size = (32, 48)
    save(tmp_path / name, model)
    assert load(tmp_path / name).size == (32, 48)
    for end in (".ckpt", ".bin"):
        with pytest.raises(ValueError, match="no pickles"): save(tmp_path / f"m{end}", model)


def test_a_folder_written_over(folders, tmp_path):
    "What another model left in it is not this one's"
    save(tmp_path / "m", model_of("xl"))
    save(tmp_path / "m", model_of("sd1"))
    assert_equal(load(tmp_path / "m", F64), model_of("sd1"))


def test_whether_the_blank_is_zeros(tmp_path):
    "A base that says no reads the empty text, here and after coming back"
    save(tmp_path / "m", model_of("xl"))
    index = tmp_path / "m" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | dict(force_zeros_for_empty_prompt=False)))
    model, knobs = load(tmp_path / "m", F64), dict(steps=3)
    assert torch.equal(model.images(CAPTIONS, **knobs), model_of("xl").images(CAPTIONS, negative="", **knobs))
    save(tmp_path / "n", model)
    assert not load(tmp_path / "n").zeros and model_of("xl").zeros


def test_files_of_a_part(folders, tmp_path):
    import shutil
    shutil.copytree(folders / "sd1", tmp_path / "m")
    unet = tmp_path / "m" / "unet"
    index = unet / "diffusion_pytorch_model.safetensors.index.fp16.json"
    index.write_text('{"weight_map": {"a": "gone.safetensors"}}')
    load(tmp_path / "m")  # the whole file is there
    whole = unet / "diffusion_pytorch_model.safetensors"
    whole.rename(unet / "one.safetensors")
    with pytest.raises(FileNotFoundError, match="gone.safetensors"): load(tmp_path / "m")
    index.write_text('{"weight_map": {"a": "one.safetensors"}}')
    load(tmp_path / "m")
    index.write_text('{"weight_map": [1]}')
    with pytest.raises(ValueError, match="weight_map"): load(tmp_path / "m")
    index.unlink()
    torch.save({}, whole)
    with pytest.raises(ValueError, match="is a pickle"): load(tmp_path / "m")
    whole.rename(unet / "model.pt")
    with pytest.raises(ValueError, match="is a pickle"): load(tmp_path / "m")
    (tmp_path / "m" / "unet" / "model.pt").unlink()
    with pytest.raises(FileNotFoundError, match="complete"): load(tmp_path / "m")


@pytest.mark.parametrize("lacks", ["model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.middle_block.1.proj_in.weight", "first_stage_model.encoder.conv_in.weight",
                                   "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", "cond_stage", "first_stage"])
def test_parts_missing(folders, tmp_path, lacks):
    state = {k: v for k, v in foreign("sd1").items() if not k.startswith(lacks)}
    with pytest.raises(ValueError, match="lacks|holds no|text tower|missing"): load(write(tmp_path / "bad.safetensors", state), tokenizer=folders / "sd1")


def hostile(path, header, data=b"", length=None):
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


def test_hostile_headers(tmp_path):
    good = json.dumps({"a": dict(dtype="F32", shape=[2], data_offsets=[0, 8])}).encode()
    for i, path in enumerate([
            hostile(tmp_path / "0.safetensors", good, b"\0" * 4), hostile(tmp_path / "1.safetensors", good, b"\0" * 80), hostile(tmp_path / "2.safetensors", good, length=2**62),
            hostile(tmp_path / "3.safetensors", b"[" * 100_000), hostile(tmp_path / "4.safetensors", b"\xff" * 40), hostile(tmp_path / "5.safetensors", good.replace(b"[2]", b"[99999999999]"), b"\0" * 8),
            hostile(tmp_path / "6.safetensors", good.replace(b"[0, 8]", b"[8, 0]"), b"\0" * 8), hostile(tmp_path / "7.safetensors", good.replace(b"F32", b"F99"), b"\0" * 8),
            hostile(tmp_path / "8.safetensors", good.replace(b"[2]", b"[-2]"), b"\0" * 8), hostile(tmp_path / "9.safetensors", b"{}"), hostile(tmp_path / "10.safetensors", b"")]):
        with pytest.raises(ValueError, match=path.name): load(path)
    (tmp_path / "empty.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="empty"): load(tmp_path / "empty.safetensors")
    with pytest.raises(FileNotFoundError, match="nowhere"): load(tmp_path / "nowhere.safetensors")


def test_truncated_file(folders, tmp_path):
    path = write(tmp_path / "cut.safetensors", foreign("sd1"))
    whole = path.read_bytes()
    for n in (7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:n])
        with pytest.raises(ValueError, match="cut.safetensors"): load(path)


def test_bad_json_and_bad_values(folders, tmp_path):
    import shutil
    shutil.copytree(folders / "sd1", tmp_path / "m")
    config = tmp_path / "m" / "unet" / "config.json"
    for text in ("{", "[1]", ""):
        config.write_text(text)
        with pytest.raises(ValueError, match="config.json"): load(tmp_path / "m")
    config.unlink()
    load(tmp_path / "m")  # the weights tell
    told = json.loads((folders / "sd1" / "scheduler" / "scheduler_config.json").read_text())
    scheduler = tmp_path / "m" / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(told | dict(beta_schedule="linear")))
    with pytest.raises(ValueError, match="scheduler differs"): load(tmp_path / "m")
    scheduler.write_text(json.dumps(told | dict(prediction_type="sample")))
    with pytest.raises(ValueError, match="sample"): load(tmp_path / "m")
    shutil.rmtree(tmp_path / "m" / "vae")
    with pytest.raises(FileNotFoundError, match="vae"): load(tmp_path / "m")
    save_tensors(tmp_path / "n.safetensors", foreign("sd1"), minidiff="{")
    with pytest.raises(ValueError, match="not JSON"): load(tmp_path / "n.safetensors")
    save_tensors(tmp_path / "flux.safetensors", {"double_blocks.0.img_attn.qkv.weight": torch.zeros(2)})
    with pytest.raises(ValueError, match="double_blocks"): load(tmp_path / "flux.safetensors")


# --- memory ---------------------------------------------------------------------------------------------------------

PEAK = """
import sys, torch
from minidiff.sd import load
def rss(key): return int(next(l for l in open("/proc/self/status") if l.startswith(key)).split()[1]) / 1024
before, all_before = rss("RssAnon"), rss("VmRSS")
model = load(sys.argv[1], getattr(torch, sys.argv[2]), tokenizer=sys.argv[3])
print(rss("RssAnon") - before, rss("VmHWM") - all_before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own account of memory")
def test_memory_is_one_copy(folders, tmp_path):
    "Weights of the file's type are mapped, not copied; of another type, converted once"
    big = replace(model_of("sd1").denoise.net.config, channels=(256, 512), groups=32)
    model = copy.copy(model_of("sd1"))
    model.denoise = Denoiser(UNet(big), None)
    save(tmp_path / "m.safetensors", model, half=True)
    size = (tmp_path / "m.safetensors").stat().st_size / 2**20
    for dtype, copies, most in (("float16", .5, 1.9), ("float32", 2.3, 4.6)):  # at its peak the mapped file counts too; one copy more would be 2.3 and 5.6
        out = subprocess.run([sys.executable, "-c", PEAK, tmp_path / "m.safetensors", dtype, folders / "sd1"], capture_output=True, text=True)
        assert out.returncode == 0, out.stderr
        after, peak = map(float, out.stdout.split())
        assert after < copies * size + 40 and peak < most * size, (dtype, size, out.stdout)


# --- tokenizers (checks 8, 9) ---------------------------------------------------------------------------------------

def test_clip_vocabulary_is_the_published_one(tmp_path):
    "vocab.json and merges.txt of the published Stable Diffusion folders, by their sha256"
    import hashlib
    t = clip_tokenizer()
    assert len(t.vocab) == 49408 and len(t.merges) == 48894
    digest = lambda text: hashlib.sha256(text.encode()).hexdigest()
    assert digest(json.dumps(t.vocab, ensure_ascii=False, indent=2, sort_keys=True) + "\n").startswith("e089ad92")
    assert digest("#version: 0.2\n" + "\n".join(map(" ".join, t.merges)) + "\n").startswith("9fd691f7")
    assert clip_tokenizer(0)("hi")[0, -1] == 0 and t("hi")[0, -1] == 49407


def test_openai_tokenizer():
    "Their own, loaded alone: equal but for what ftfy and html.unescape change before it"
    from importlib.util import find_spec, module_from_spec, spec_from_file_location
    path = Path(find_spec("clip").submodule_search_locations[0]) / "simple_tokenizer.py"
    spec = spec_from_file_location("openai_tokenizer", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    theirs, ours = module.SimpleTokenizer(), clip_tokenizer()
    for text in CAPTIONS + ["It's 3 o'clock!!  caf\u00e9 na\u00efve \U0001f600", "\u65e5\u672c\u8a9e \u30c6\u30b9\u30c8", "masterpiece, (best quality:1.3)", "http://x.y/?z=1"]:
        assert ours.encode(text) == theirs.encode(text), text
    rng, letters = random.Random(0), "abcxyzABCXYZ0123456789 '.,!?-_()[]:;/\\@#$%*+=~^|<> \n\téßж日本😀"
    for text in ("".join(rng.choices(letters, k=rng.randrange(60))) for _ in range(1000)): assert ours.encode(text) == theirs.encode(text), text
    for text in ("a &amp; b", "\u201cquoted\u201d"): assert ours.encode(text) != theirs.encode(text)


def test_second_tokenizer_pads_with_0_and_tokenizer_json(folders, tmp_path):
    import shutil
    model = load(folders / "xl", F64)
    a, b = (t(["a red three"]) for t in model.tokenizers.values())
    assert a[0, -1] == TOKENIZER.eos and b[0, -1] == 0 and torch.equal(a[0, :5], b[0, :5])
    pipe = transformers.CLIPTokenizer.from_pretrained(folders / "xl" / "tokenizer_2")
    assert torch.equal(b, pipe(["a red three"], padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids)
    pipe.save_pretrained(tmp_path / "new")  # transformers 5: one tokenizer.json
    for name in ("vocab.json", "merges.txt"): (tmp_path / "new" / name).unlink(missing_ok=True)
    again = folder_tokenizer(tmp_path / "new")
    assert torch.equal(again(CAPTIONS), model.tokenizers["text_encoder_2"](CAPTIONS)) and again.pad_id == 0


def test_single_file_without_a_vocabulary_names_the_package(tmp_path, folders, monkeypatch):
    path = write(tmp_path / "m.safetensors", foreign("sd1"))
    with pytest.raises(ValueError, match="tokenizer"): load(path)  # CLIP's own has other ids than this tiny tower
    monkeypatch.setattr(tokens, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="clip-anytorch"): load(path)
    (tmp_path / "other.json").write_text("{}")  # somebody's, but no tokenizer
    with pytest.raises(FileNotFoundError, match="no tokenizer at"): load(path, tokenizer=tmp_path)


def with_clips_vocabulary(kind):
    "A tiny model whose text towers read CLIP's own ids, as those of every single file do"
    model = copy.copy(model_of(kind))
    model.texts = {k: shaken(TextEncoder(replace(t.config, vocab=49408, layers=2))) for k, t in model.texts.items()}
    model.tokenizers = {k: clip_tokenizer(0 if k.endswith("2") else None) for k in model.texts}
    return model


def test_single_file_gets_clips_own_vocabulary(tmp_path):
    model = with_clips_vocabulary("xl")
    save(tmp_path / "m.safetensors", model)
    assert_equal(load(tmp_path / "m.safetensors", F64), model)


@pytest.mark.parametrize("kind", ["sd1", "xl"])
def test_command_draws_from_a_single_file(kind, tmp_path):
    "`minidiff sample --model FILE.safetensors` writes one PNG of the size asked for: the picture that `load` and `generate` give"
    file, out = str(tmp_path / "m.safetensors"), tmp_path / "a.png"
    save(file, with_clips_vocabulary(kind))
    main(["sample", "a photograph of a fox", "--model", file, "--size", "48", "--steps", "3", "--seed", "7", "-o", str(out)])
    ours, = load(file).generate("a photograph of a fox", size=48, steps=3, seed=7)
    drawn = Image.open(out)
    assert drawn.format == "PNG" and drawn.size == (48, 48) and drawn.mode == ours.mode and drawn.tobytes() == ours.tobytes()
    assert len(ours.getcolors(48 * 48)) > 48, "a picture of one colour would prove nothing"


# --- whole pipelines in float64 (checks 6, 7, 21, 22) ---------------------------------------------------------------

class Torch64:
    "torch, but its float32 is float64: so that diffusers' own casts to float32 lose nothing"
    float32 = F64
    def __getattr__(self, name): return getattr(torch, name)


SPACING = "leading"


class Fed(diffusers.EulerDiscreteScheduler):
    "Their Euler with our noise levels and times, unrounded"
    def set_timesteps(self, num_inference_steps=None, device=None, **_):
        super().set_timesteps(num_inference_steps, device=device)
        self.sigmas = schedule(num_inference_steps, SPACING).double()
        self.timesteps = sigma_to_t(self.sigmas[:-1])


@pytest.fixture
def theirs(monkeypatch, folders):
    "kind, name of a pipeline, noise -> their pipeline on our folder in float64"
    monkeypatch.setattr(importlib.import_module("diffusers.schedulers.scheduling_euler_discrete"), "torch", Torch64())
    monkeypatch.setattr(importlib.import_module("diffusers.models.embeddings"), "get_timestep_embedding", lambda t, dim, **_: time_features(t.double(), dim))
    monkeypatch.setattr(transformers.CLIPTextModel, "text_model", property(lambda s: s), raising=False)  # 5.6 and later lost it, clip_skip needs it

    def opened(kind, name=None, noise=None):
        pipe = getattr(diffusers, name or "DiffusionPipeline").from_pretrained(folders / kind, torch_dtype=F64, local_files_only=True, **({} if kind in ("xl", "refiner") else dict(safety_checker=None)))
        prediction = model_of(kind).prediction
        pipe.scheduler = Fed(beta_schedule="scaled_linear", beta_start=.00085, beta_end=.012, timestep_spacing="leading", steps_offset=1, prediction_type=prediction)
        pipe.set_progress_bar_config(disable=True)
        pipe.vae.register_to_config(force_upcast=False)  # or it would encode in float32
        module = importlib.import_module(type(pipe).__module__)
        monkeypatch.setattr(module, "randn_tensor", lambda *a, **k: noise, raising=False)
        monkeypatch.setattr(module, "retrieve_latents", lambda out, **k: out.latent_dist.mode(), raising=False)
        return pipe
    return opened


def close(ours, theirs, tol=1e-9):
    assert ours.dtype == theirs.dtype == F64 and ours.shape == theirs.shape
    inside = ((ours > -1) & (ours < 1)).double().mean()
    assert inside > .5, "too much is clamped to compare"
    assert (ours / 2 + .5 - theirs).abs().max() <= tol
    assert ours.std() > .01


KNOBS = dict(num_inference_steps=5, output_type="pt", height=32, width=32)
OURS = dict(steps=5, sampler="euler", spacing=SPACING)


@pytest.mark.parametrize("kind", ["sd1", "sd2", "xl"])
@pytest.mark.parametrize("negative", [None, "", "a thin green two"])
def test_text_to_image(theirs, kind, negative):
    pipe, noise = theirs(kind), unit()
    want = pipe(CAPTIONS, latents=noise, guidance_scale=4., negative_prompt=negative and [negative] * 2 if negative is None else [negative] * 2, **KNOBS).images
    close(model_of(kind).images(CAPTIONS, noise=noise, scale=4., negative=negative, **OURS), want)


def test_defaults_of_guidance(theirs):
    for kind in ("sd1", "xl"):
        want = theirs(kind)(CAPTIONS, latents=unit(), **KNOBS).images
        close(model_of(kind).images(CAPTIONS, noise=unit(), **OURS), want)


@pytest.mark.parametrize("kind, skip", [("sd1", 1), ("sd1", 2), ("xl", 1), ("xl", 2)])
def test_clip_skip(theirs, kind, skip):
    "Without guidance, because diffusers skips layers for the caption alone; here, as in the interfaces, for the negative text too"
    want = theirs(kind)(CAPTIONS, latents=unit(), guidance_scale=1., clip_skip=skip, **KNOBS).images
    got = model_of(kind).images(CAPTIONS, noise=unit(), scale=1., clip_skip=skip, **OURS)
    close(got, want)
    assert (got - model_of(kind).images(CAPTIONS, noise=unit(), scale=1., **OURS)).abs().max() > 1e-4


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_clip_skip_is_the_norm_of_an_earlier_state(theirs, skip):
    pipe = theirs("sd1")
    ids = TOKENIZER(CAPTIONS)
    with torch.no_grad():
        states = pipe.text_encoder(ids, output_hidden_states=True).hidden_states
        want = pipe.text_encoder.final_layer_norm(states[-(skip + 1)])
        assert torch.equal(read(model_of("sd1"), CAPTIONS, 1, skip)[0], want) or rel(read(model_of("sd1"), CAPTIONS, 1, skip)[0], want) < 1e-13


def test_sdxl_sizes_and_crops(theirs):
    want = theirs("xl")(CAPTIONS, latents=unit(), original_size=(300, 200), crops_coords_top_left=(17, 5), target_size=(64, 48), guidance_scale=3., **KNOBS).images
    got = model_of("xl").images(CAPTIONS, noise=unit(), original=(300, 200), crop=(17, 5), target=(64, 48), scale=3., **OURS)
    close(got, want)
    assert (got - model_of("xl").images(CAPTIONS, noise=unit(), scale=3., **OURS)).abs().max() > 1e-4


PICTURE = torch.randint(0, 256, (1, 3, 32, 32), generator=torch.Generator().manual_seed(0)).double() / 128 - 1


@pytest.mark.parametrize("kind, name", [("sd1", "StableDiffusionImg2ImgPipeline"), ("xl", "StableDiffusionXLImg2ImgPipeline"), ("refiner", "StableDiffusionXLImg2ImgPipeline")])
@pytest.mark.parametrize("strength", [.4, .85])
def test_image_to_image(theirs, kind, name, strength):
    noise = unit()
    knobs = {k: v for k, v in KNOBS.items() if k not in ("height", "width")}
    want = theirs(kind, name, noise)(CAPTIONS, image=(PICTURE / 2 + .5).expand(2, -1, -1, -1), strength=strength, guidance_scale=3., **knobs).images
    close(model_of(kind).images(CAPTIONS, noise=noise, image=PICTURE, strength=strength, scale=3., **OURS), want)


@pytest.mark.parametrize("kind, name", [("sd1", "StableDiffusionInpaintPipeline"), ("xl", "StableDiffusionXLInpaintPipeline")])
def test_inpainting(theirs, kind, name):
    noise, mask = unit(), torch.zeros(1, 1, 32, 32)
    mask[..., 8:24, 10:] = 1
    want = theirs(kind, name, noise)(CAPTIONS, image=(PICTURE / 2 + .5).expand(2, -1, -1, -1), mask_image=mask.expand(2, -1, -1, -1), strength=.8, guidance_scale=3., **KNOBS).images
    got = model_of(kind).images(CAPTIONS, noise=noise, image=PICTURE, mask=mask, strength=.8, scale=3., **OURS)
    close(got, want)
    z = last(model_of(kind).steps(CAPTIONS, noise=noise, image=PICTURE, mask=mask, strength=1., scale=3., steps=5))
    keep = 1 - latent_mask(mask, z)
    assert ((z - model_of(kind).encode(PICTURE)) * keep).abs().max() < 1e-12 and ((z - model_of(kind).encode(PICTURE)) * (1 - keep)).abs().max() > .1


@pytest.mark.parametrize("at", [.5, .8])
def test_base_and_refiner(theirs, at):
    noise, steps = unit(), dict(num_inference_steps=10, guidance_scale=3.)
    half = theirs("xl")(CAPTIONS, latents=noise, denoising_end=at, output_type="latent", height=32, width=32, **steps).images
    want = theirs("refiner", "StableDiffusionXLImg2ImgPipeline")(CAPTIONS, image=half, denoising_start=at, original_size=(32, 32), target_size=(32, 32), output_type="pt", **steps).images
    base, refiner = model_of("xl"), model_of("refiner")
    every = list(handover(base, refiner, CAPTIONS, at, noise=noise, scale=3., **OURS | dict(steps=10)))
    assert len(every) == 10 and (every[round(10 * at) - 1] - half).abs().max() < 1e-9
    close(refiner.decode(every[-1]), want)


def test_hidden_states_and_pooled(folders):
    "Both towers of SDXL against transformers: every layer, last, pooled and projected"
    model = model_of("xl")
    for name, cls in (("text_encoder", transformers.CLIPTextModel), ("text_encoder_2", transformers.CLIPTextModelWithProjection)):
        their_tower = cls.from_pretrained(folders / "xl" / name, dtype=F64, local_files_only=True)
        ids = model.tokenizers[name](CAPTIONS)
        with torch.no_grad(): a, b = model.texts[name](ids), their_tower(ids, output_hidden_states=True)
        assert all(rel(x, y) <= 1e-12 for x, y in zip(a.hidden, b.hidden_states, strict=True)) and rel(a.last, b.last_hidden_state) <= 1e-12
        assert rel(a.pooled, b.text_embeds if name.endswith("2") else b.pooler_output) <= 1e-12


# --- the same pictures from what diffusers opens, in float32 (check 11) ---------------------------------------------

@pytest.mark.parametrize("kind", KINDS)
def test_diffusers_opens_both_layouts(kind, tmp_path, monkeypatch):
    "Folder and single file: their pictures bit-equal to each other, and ours within 1e-4 in [0,1]"
    model = model_of(kind, torch.float32)
    save(tmp_path / "folder", model)
    save(tmp_path / "one.safetensors", model)
    cls = getattr(diffusers, dict(xl="StableDiffusionXLPipeline", refiner="StableDiffusionXLImg2ImgPipeline").get(kind, "StableDiffusionPipeline"))
    more = {} if kind in ("xl", "refiner") else dict(safety_checker=None)
    noise, start = unit().float(), PICTURE.float().expand(2, -1, -1, -1)
    knobs, ours = (KNOBS | dict(latents=noise), dict(noise=noise)) if kind != "refiner" else (dict(num_inference_steps=5, output_type="pt", image=model.encode(start), strength=.6), dict(image=start, strength=.6, noise=noise))
    a = cls.from_pretrained(tmp_path / "folder", local_files_only=True, **more)
    b = cls.from_single_file(str(tmp_path / "one.safetensors"), config=str(tmp_path / "folder"), local_files_only=True, **more)
    monkeypatch.setattr(importlib.import_module(type(a).__module__), "randn_tensor", lambda *args, **kwargs: noise, raising=False)
    pictures = []
    for pipe in (a, b):
        pipe.set_progress_bar_config(disable=True)
        pictures.append(pipe(CAPTIONS, guidance_scale=3., **knobs).images)
    assert torch.equal(*pictures)
    for path, tokenizer in ((tmp_path / "folder", None), (tmp_path / "one.safetensors", tmp_path / "folder")):
        drawn = load(path, tokenizer=tokenizer).images(CAPTIONS, scale=3., steps=5, **ours)
        assert (drawn / 2 + .5 - pictures[0]).abs().max() <= 1e-4


def test_the_course_model_opens_here(tmp_path):
    "What chapter 16 writes, this chapter opens: the same pictures"
    import minidiff
    from minidiff.pipeline import save_diffusers
    scenes = minidiff.load("scenes")
    save_diffusers(scenes, tmp_path / "scenes")
    model = load(tmp_path / "scenes")
    assert model.size == 64 and model.prediction == "v_prediction"
    assert (model.images(CAPTIONS, steps=5, scale=4.) - scenes.images(CAPTIONS, steps=5)).abs().max() < 1e-4


# --- what walk promises ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["sd1", "xl"])
@pytest.mark.parametrize("sampler, eta", [("dpmpp_2m", 0.), ("euler", 1.), ("ddpm", 0.), ("heun", 0.)])
def test_seeds_do_not_depend_on_the_batch(kind, sampler, eta):
    model, knobs = model_of(kind), dict(steps=3, sampler=sampler, eta=eta)
    together = model.images(CAPTIONS, seed=7, **knobs)
    alone = torch.cat([model.images(c, seed=7 + i, **knobs) for i, c in enumerate(CAPTIONS)])
    assert (together - alone).abs().max() < 1e-9 and not torch.equal(together[0], together[1])
    assert torch.equal(together, model.images(CAPTIONS, seed=7, **knobs))


def test_handover_to_itself_is_one_walk():
    model, knobs = model_of("xl"), dict(seed=3, steps=6, sampler="euler", eta=1.)
    a, b = list(model.steps(CAPTIONS, **knobs)), list(handover(model, model, CAPTIONS, .5, **knobs))
    assert len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b))
    for at in (0., 1.):
        with pytest.raises(ValueError, match="at"): next(handover(model, model, CAPTIONS, at, **knobs))


@pytest.mark.parametrize("mask", [None, torch.ones(1, 1, 32, 32).triu()])
def test_handover_to_itself_from_an_image(mask):
    "Fresh noise too is that of the one walk"
    model, knobs = model_of("xl"), dict(seed=3, steps=10, sampler="ddpm", image=PICTURE, strength=.7, mask=mask)
    assert torch.equal(last(model.steps(CAPTIONS, **knobs)), last(handover(model, model, CAPTIONS, .5, **knobs)))


def test_handover_knows_before_the_first_step():
    base, refiner = copy.copy(model_of("xl")), copy.copy(model_of("refiner"))
    base.steps = lambda *_, **__: pytest.fail("the base has begun")
    with pytest.raises(ValueError, match="more steps"): next(handover(base, refiner, CAPTIONS, steps=4))
    with pytest.raises(ValueError, match="z and span"): next(handover(base, refiner, CAPTIONS, z=torch.zeros(2, 4, 16, 16)))
    for first, second in ((refiner, base), (model_of("sd1"), refiner), (base, model_of("sd1"))):
        with pytest.raises(ValueError, match="in this order"): next(handover(first, second, CAPTIONS))


def test_handover_is_of_the_bases_size():
    base, refiner = model_of("xl"), copy.copy(model_of("refiner"))
    refiner.size = 64
    captions = (c for c in CAPTIONS)
    assert torch.equal(last(handover(base, refiner, captions, steps=10)), last(handover(base, model_of("refiner"), CAPTIONS, steps=10)))
    with pytest.raises(ValueError, match="more strength"): next(handover(base, refiner, CAPTIONS, steps=10, image=PICTURE, strength=.1))


def test_a_schedule_of_your_own_has_its_own_number_of_steps():
    model, sigmas = model_of("sd1"), schedule(4)
    assert torch.equal(schedule(4, sigmas.tolist()), sigmas)
    knobs = dict(image=PICTURE, strength=.5, sampler="euler")
    assert len(list(model.steps(CAPTIONS, spacing=sigmas, **knobs))) == 2
    assert torch.equal(model.images(CAPTIONS, spacing=sigmas, **knobs), model.images(CAPTIONS, steps=4, **knobs))


def test_steps_are_a_generator():
    model, n = model_of("sd1"), 0
    calls = []
    model.denoise.net.register_forward_hook(hook := lambda *a: calls.append(1))
    for z in model.steps(CAPTIONS, steps=4):
        n += 1
        assert len(calls) == n and z.shape == (2, 4, 16, 16) and not z.requires_grad
        if n == 2: break
    model.denoise.net._forward_hooks.clear()


def test_long_texts():
    "Chunks of 75, each read alone, states end to end; the pooled state is the first chunk's; a short text in a long batch is padded with empty chunks"
    model, words = model_of("xl"), "a red three left of a thick blue seven " * 20
    ids = TOKENIZER.encode(words)
    n = math.ceil(len(ids) / 75)
    assert n >= 3
    ctx, pooled = read(model, [words, "a red three"], n, 0)
    assert ctx.shape == (2, 77 * n, 96)
    for i in range(n):
        part = ids[75 * i:75 * (i + 1)]
        row = torch.tensor([[TOKENIZER.bos, *part, TOKENIZER.eos] + [TOKENIZER.eos] * (75 - len(part))])
        assert rel(ctx[:1, 77 * i:77 * (i + 1), :32], model.texts["text_encoder"](row).hidden[-2]) < 1e-12
    short, short_pooled = read(model, ["a red three"], 1, 0)
    empty, _ = read(model, [""], 1, 0)
    assert rel(ctx[1:, :77], short) < 1e-12 and rel(ctx[1:, 77:154], empty) < 1e-12 and rel(pooled[1:], short_pooled) < 1e-12
    cond, uncond = conditions(model, [words], (32, 32))
    assert cond["ctx"].shape == uncond["ctx"].shape and not uncond["ctx"].any() and not uncond["vec"][:, :64].any()
    assert model.images(["a red three"], negative=words, steps=2).isfinite().all()
    assert torch.equal(chunks(TOKENIZER, CAPTIONS)[:, 0], TOKENIZER(CAPTIONS))


def test_negative_prompts_one_each():
    model = model_of("sd1")
    both = model.images(CAPTIONS, negative=["a three", "a two"], steps=3)
    alone = torch.cat([model.images(c, seed=i, negative=n, steps=3) for i, (c, n) in enumerate(zip(CAPTIONS, ["a three", "a two"]))])
    assert (both - alone).abs().max() < 1e-9
    with pytest.raises(ValueError, match="negative"): model.images(CAPTIONS, negative=["a three"], steps=3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["sd1", "xl"])
def test_half_precision(folders, kind, dtype):
    "The UNet in half, what is outside in float32, the VAE in float32: close to the whole"
    model, exact = load(folders / kind, dtype), load(folders / kind)
    zs = list(model.steps(CAPTIONS, steps=4, scale=2.))
    assert zs[-1].dtype == torch.float32 and model.decode(zs[-1]).dtype == torch.float32
    want = last(exact.steps(CAPTIONS, steps=4, scale=2.))
    assert rel(zs[-1], want) < (.2 if dtype == torch.bfloat16 else .03)


def test_sizes():
    model = model_of("sd1")
    assert model.images("a red three", steps=2, size=(16, 40)).shape == (1, 3, 16, 40)
    assert model.images("a red three", steps=2, image=torch.zeros(1, 3, 24, 16), strength=.5).shape == (1, 3, 24, 16)
    assert model.images("a red three", steps=2).shape == (1, 3, 32, 32)
    numbers = dict(original=48, crop=8, target=(32, 32), clip_skip=None)
    assert torch.equal(model_of("xl").images("a red three", steps=2, **numbers), model_of("xl").images("a red three", steps=2, original=(48, 48), crop=(8, 8)))
    pictures = model.generate(CAPTIONS, steps=2)
    assert pictures[0].size == (32, 32) and pictures.titles == CAPTIONS


@pytest.mark.parametrize("bad, says", [
    (dict(sampler="magic"), "magic"), (dict(spacing="sideways"), "sideways.*karras"), (dict(steps=0), "steps|step"), (dict(eta=.5), "euler"), (dict(size=33), "33x33"), (dict(size=(0, 32)), "0x32"),
    (dict(image=PICTURE, strength=0.), "strength"), (dict(image=PICTURE, strength=1.2), "strength"), (dict(image=PICTURE, strength=.1, steps=5), "strength"), (dict(mask=torch.ones(1, 1, 32, 32)), "image"),
    (dict(image=PICTURE, mask=torch.ones(1, 32, 32)), "mask"), (dict(span=(.8, .2)), "span"), (dict(span=(.5, 1.)), "latents z"), (dict(clip_skip=9), "clip_skip"), (dict(clip_skip=-1), "clip_skip"),
    (dict(image=torch.zeros(1, 3, 31, 32)), "31x32"), (dict(image=torch.zeros(3, 3, 32, 32)), "3 images for 2"), (dict(image=PICTURE, mask=torch.ones(1, 1, 16, 16)), "mask"),
    (dict(image=PICTURE, size=48), "32, 32. pixels"), (dict(z=torch.zeros(1, 4, 16, 16), span=(.5, 1.)), "latents z.*1, 4.*2, 4"), (dict(z=torch.zeros(2, 4, 8, 8), span=(.5, 1.)), "latents z"),
    (dict(scale=math.nan), "scale nan"), (dict(noise=torch.zeros(2, 4, 8, 8)), "noise"), (dict(image=PICTURE, strength=.2, span=(0., .5)), "no step"), (dict(spacing=torch.tensor([1., 2., 0.]), sampler="euler"), "decrease"),
    (dict(size=0), "0x0"), (dict(size=32.), "size=32.0"), (dict(size=(32, 32, 32)), "size="), (dict(original="48"), "original='48'"), (dict(crop=(0,)), "crop="), (dict(target=[8, .5]), "target="), (dict(aesthetic=6.), "aesthetic=6.0"),
    (dict(image=to_pil(PICTURE[0])), "image is a Image"), (dict(image=PICTURE[0]), r"image is \[3, 32, 32\]"), (dict(image=PICTURE[:, :1]), r"image is \[1, 1, 32, 32\]"), (dict(image=(PICTURE * 127.5 + 127.5).byte()), "up to 2"),
    (dict(image=PICTURE, mask=to_pil(PICTURE[0])), "mask is a Image"), (dict(image=torch.zeros(0, 3, 32, 32)), "image is"), (dict(image=PICTURE, mask=torch.ones(3, 1, 32, 32)), "3 masks for 2")])
@pytest.mark.parametrize("kind", ["sd1", "refiner"])
def test_bad_knobs(kind, bad, says):
    with pytest.raises(ValueError, match=says): model_of(kind).images(CAPTIONS, **bad)


def test_a_pil_picture_is_a_picture():
    "As the message says"
    model, picture = model_of("sd1"), to_pil(PICTURE[0])
    assert model.images(CAPTIONS, steps=2, image=to_tensor(picture)[None], mask=to_tensor(picture.convert("L"))[None]).shape == (2, 3, 32, 32)


def test_inpainting_with_a_sigma_for_each_picture():
    "As many pictures as columns, where a row of sigmas could be taken for the columns'"
    z, noise, x = (unit(n=8, seed=i, size=8) for i in range(3))
    mask, sigmas, seen = torch.zeros(1, 1, 8, 8).double(), torch.linspace(.1, 9, 8).double(), []
    inpainting(lambda x, s: seen.append(x) or x, z, mask, noise)(x, sigmas)
    assert torch.allclose(seen[0], z + sigmas[:, None, None, None] * noise)


def test_types_are_chosen_when_a_model_is_opened(folders):
    with pytest.raises(ValueError, match="dtype=torch.float16"): model_of("sd1").to(torch.float16)
    for dtype in (torch.int8, "float16"):
        with pytest.raises(ValueError, match="dtype"): load(folders / "sd1", dtype)


def test_no_captions():
    with pytest.raises(ValueError, match="captions"): model_of("sd1").images([])


# --- noise levels (check 13) and schedulers' goldens (check 17) -----------------------------------------------------

@pytest.mark.parametrize("spacing, golden", [
    ("leading", [5.1344, 2.2929, 1.1682, .5741, .0413, 0]), ("trailing", [14.6146, 5.0878, 2.2765, 1.1606, .5693, 0]), ("linspace", [14.6146, 4.0861, 1.6156, .6952, .0292, 0]),
    ("sgm_uniform", [14.6146, 5.0924, 2.2797, 1.1629, .5712, 0]), ("karras", [14.6146, 4.7965, 1.2741, .2480, .0292, 0]), ("exponential", [14.6146, 3.0890, .6529, .1380, .0292, 0])])
def test_spacings(spacing, golden):
    "ComfyUI's normal, simple and ddim_uniform are linspace, trailing and leading"
    assert (schedule(5, spacing) - torch.tensor(golden)).abs().max() < 6e-5


DUMMY = (torch.arange(768).reshape(3, 8, 8, 4) / 768).permute(3, 0, 1, 2).double()


def dummy(table, clip=False, prediction="epsilon"):
    "diffusers' test model x*t/(t+1) as a denoiser"
    def denoise(x, s):
        t, c = sigma_to_t(torch.tensor(s, dtype=F64), table), (1 + s * s) ** -.5
        out = x * c * t / (t + 1)
        x0 = x * c * c - s * c * out if prediction == "v" else x - s * out
        return x0.clamp(-1, 1) if clip else x0
    return denoise


LINEAR = linear_betas_table(1100)


@pytest.mark.parametrize("eta, sigmas, prediction, total, mean", [
    (0., spaced(10, LINEAR, "linspace"), "epsilon", 10.0807, .0131), (0., karras(10, LINEAR[0].item(), LINEAR[-1].item()), "epsilon", 124.5230, .1621),
    (1., spaced(10, LINEAR, "linspace"), "epsilon", 152.3192, .1983), (1., spaced(10, LINEAR, "linspace"), "v", 108.4439, .1412)])
def test_goldens_of_diffusers_own_tests(eta, sigmas, prediction, total, mean):
    "Their tests hand the scaled sample on to the next step, so a step at a time, with x/sqrt(1+sigma^2) before each"
    # diffusers' tests have a golden for PNDM too; it is not here because minidiff does not have that sampler
    g = torch.Generator().manual_seed(0)
    x, steps = DUMMY * sigmas[0].double(), sigmas.double().tolist()
    def denoise(x, s):
        t = sigma_to_t(torch.tensor(s, dtype=F64), LINEAR)
        out = x * t / (t + 1)
        return x / (1 + s * s) - s * (1 + s * s) ** -.5 * out if prediction == "v" else x - s * out
    for s, s2 in zip(steps, steps[1:]):
        fresh = torch.randn(x.shape, generator=g).double()
        x = next(euler(denoise, x * (1 + s * s) ** -.5, [s, s2, 0.] if s2 else [s, 0.], eta=eta, noise=lambda x: fresh))
    assert abs(x.abs().sum() - total) < 1e-2 and abs(x.abs().mean() - mean) < 1e-4


@pytest.mark.parametrize("prediction, total, mean", [("epsilon", 258.9606, .3372), ("v", 202.0296, .2631)])
def test_golden_of_ddpm(prediction, total, mean):
    "All 1000 steps, x0 clipped, fixed_small variance: Euler with eta 1"
    table, g = linear_betas_table(1000), torch.Generator().manual_seed(0)
    sigmas = torch.cat([table.flip(0), torch.zeros(1)])
    x = DUMMY * (1 + table[-1].double() ** 2) ** .5
    x = last(euler(dummy(table, True, prediction), x, sigmas, eta=1., noise=lambda x: torch.randn(x.shape, generator=g).double()))
    assert abs(x.abs().sum() - total) < 2e-3 and abs(x.abs().mean() - mean) < 1e-4


@pytest.mark.parametrize("prediction, total, mean", [("epsilon", 172.0067, .223967), ("v", 52.5302, .0684)])
def test_golden_of_ddim(prediction, total, mean):
    "Ten steps, from 900 to 0, x0 clipped, the last to abar 1: Euler"
    table = linear_betas_table(1000)
    sigmas = torch.cat([table[torch.arange(900, -1, -100)], torch.zeros(1)])
    x = last(euler(dummy(table, True, prediction), DUMMY * (1 + sigmas[0].double() ** 2) ** .5, sigmas))
    assert abs(x.abs().sum() - total) < 1e-3 and abs(x.abs().mean() - mean) < 1e-4


@pytest.mark.parametrize("to_one, total", [(True, 149.8295), (False, 149.0784)])
def test_golden_of_ddim_from_beta_one_hundredth(to_one, total):
    "The same from another table; to the table's first level instead of to abar 1, the last step stays where it is"
    table = linear_betas_table(1000, .01, .02)
    sigmas = torch.cat([table[torch.arange(900, -1, -100)], torch.zeros(1)])
    x = list(euler(dummy(table, True), DUMMY * (1 + sigmas[0].double() ** 2) ** .5, sigmas))[-1 if to_one else -2]
    if not to_one: x = x * (1 + sigmas[-2].double() ** 2) ** -.5
    assert abs(x.abs().sum() - total) < 1e-3


def test_goldens_of_the_variances():
    "DDPM at 487 and 999, DDIM from 420 to 400 and from 980 to 960: the fresh noise of a step, back in their coordinates"
    abar = (1 - torch.linspace(1e-4, .02, 1000, dtype=F64)).cumprod(0)
    def variance(t, before):
        s, s2 = abar_to_sigma(abar[t]), abar_to_sigma(abar[before])
        return (s2**2 * (1 - (s2 / s) ** 2) * abar[before]).item()
    for t, before, golden in ((487, 486, .00979), (999, 998, .02), (420, 400, .14771), (980, 960, .32460)): assert abs(variance(t, before) - golden) < 1e-5


# --- guidance of Gaussians (check 19), time (check 28) ---------------------------------------------------------------

def test_variance_of_guided_gaussians():
    "p = N(0,2), p(.|c) = N(0,1): 2^(1-scale), by Heun with the error of its order taken out"
    from minidiff.guide import extrapolate
    for scale in (2., 3.):
        def guided(x, s): return extrapolate(x / (1 + s * s), 2 * x / (2 + s * s), scale)
        def end(n):
            sigmas = karras(n, 1e-4, 2000., rho=12)
            return last(heun(guided, sigmas[:1].double(), sigmas)).item() ** 2
        a, b = end(400), end(800)
        assert abs(b + (b - a) / 3 - 2 ** (1 - scale)) < 1e-4


def test_time_features():
    from diffusers.models.embeddings import get_timestep_embedding
    t = torch.linspace(0, 1024, 57)
    for dim in (256, 320): assert (time_features(t, dim) - get_timestep_embedding(t, dim, flip_sin_to_cos=True, downscale_freq_shift=0)).abs().max() <= 1e-7


@pytest.mark.parametrize("prediction, end, golden", [("epsilon", True, .3301), ("v", True, .2251), ("epsilon", False, .2409), ("v", False, .0985)])
def test_goldens_of_dpmpp_2m(prediction, end, golden):
    "10 steps to the table's lowest level (final_sigmas_type sigma_min), or to zero"
    table = linear_betas_table(1000)
    levels = table[torch.linspace(999, 0, 11).round().long()[:-1]]
    sigmas = torch.cat([levels, table[:1], torch.zeros(1)] if end else [levels, torch.zeros(1)])
    x = list(dpmpp_2m(dummy(table, prediction=prediction), DUMMY * (1 + levels[0].double()**2) ** .5, sigmas))[9]
    assert abs(x.abs().mean() * (1 + sigmas[10].double()**2) ** -.5 - golden) < 1e-4


def test_golden_of_heun():
    "Their test hands the scaled sample on, and scales again before a step's second call"
    sigmas = spaced(10, LINEAR, "linspace").double().tolist()
    x = DUMMY * sigmas[0]
    for s, s2 in zip(sigmas, sigmas[1:]):
        scales = iter([1., (1 + s2 * s2) ** -.5])
        def denoise(x, s):
            t = sigma_to_t(torch.tensor(s, dtype=F64), LINEAR)
            return x - s * x * next(scales) * t / (t + 1)
        x = next(heun(denoise, x * (1 + s * s) ** -.5, [s, s2, 0.] if s2 else [s, 0.]))
    assert abs(x.abs().sum() - .1233) < 1e-3


def test_golden_of_lms():
    "Their test hands the scaled sample on, while the slopes remembered stay as they were"
    def denoise(x, s):
        t = sigma_to_t(torch.tensor(s, dtype=F64), LINEAR)
        return x - s * x * t / (t + 1)
    first, *rest = spaced(10, LINEAR, "linspace").double().tolist()
    for s, x in zip(rest, lms(denoise, DUMMY * first * (1 + first**2) ** -.5, [first, *rest])): x.mul_((1 + s * s) ** -.5)
    assert abs(x.abs().sum() - 1006.388) < 1e-2 and abs(x.abs().mean() - 1.3104) < 1e-4


def test_openclips_towers_pad_with_0(tmp_path):
    "SD 2's too; its published folder says so in special_tokens_map.json alone, which transformers reads last"
    tower = lambda act: TextEncoder(CLIPTextConfig(vocab=49408, width=64, layers=1, heads=1, act=act))
    assert [tokens.find_tokenizer("text_encoder", None, tower(act)).pad_id for act in ("quick_gelu", "gelu")] == [49407, 0]
    TOKENIZER.save(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(dict(pad_token=TOKENIZER.pieces[0])))
    assert folder_tokenizer(tmp_path).pad_id == transformers.CLIPTokenizer.from_pretrained(tmp_path).pad_token_id == 0
