"The shipped text-to-image model: its knobs, its parts, and diffusers opening it with equal images."
import pytest, torch
import minidiff
from minidiff import pipeline
from minidiff.noise import SD, spaced, t_to_sigma

CAPTIONS = ["a red three above a blue seven", "two white zeros on a navy background"]


@pytest.fixture(scope="module")
def model(): return minidiff.load("scenes")


def test_three_lines(model):
    pictures = model.generate(["a red three", "two blue ones"], seed=0, steps=4)
    assert len(pictures) == 2 and pictures[0].size == (64, 64) and pictures._repr_png_()[:4] == b"\x89PNG"


@pytest.mark.parametrize("knobs", [dict(steps=4), dict(steps=4, sampler="euler", eta=1.)])
def test_pictures_do_not_depend_on_the_batch(knobs, monkeypatch):
    "In float64: over the walk float32's rounding, which does depend on the batch, can grow to 2e-4"
    model = minidiff.load("scenes")
    for part in (model.text, model.denoise, model.vae): part.double()
    def doubled(*args, draw=pipeline.seeded_noise):
        noise = draw(*args)
        return lambda x=None: noise(x).double()
    monkeypatch.setattr(pipeline, "seeded_noise", doubled)
    together = model.images(["a red three"] * 3, seed=5, **knobs)
    alone = torch.cat([model.images("a red three", seed=5 + i, **knobs) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)
    assert (together[0] - together[1]).abs().max() > .5


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "ddpm"])
def test_same_seed_same_pictures(model, sampler):
    knobs = dict(steps=3, sampler=sampler)
    assert torch.equal(model.images(CAPTIONS, seed=3, **knobs), model.images(CAPTIONS, seed=3, **knobs))
    assert not torch.equal(model.images(CAPTIONS, seed=3, **knobs), model.images(CAPTIONS, seed=4, **knobs))


def test_steps_can_be_watched(model):
    seen = list(model.steps(CAPTIONS, steps=5))
    assert len(seen) == 5 and seen[0].shape == (2, 4, 8, 8)
    assert torch.equal(model.decode(seen[-1]), model.images(CAPTIONS, steps=5))


def test_guidance_moves_toward_the_caption(model):
    "scale 1 is the conditional model itself; a negative prompt changes the picture"
    plain = model.images(CAPTIONS, steps=4, scale=1.)
    assert (plain - model.images(CAPTIONS, steps=4, scale=4.)).abs().mean() > .01
    assert (model.images(CAPTIONS, steps=4) - model.images(CAPTIONS, steps=4, negative="a thick digit")).abs().mean() > .001


@pytest.mark.parametrize("knobs, says", [(dict(steps=0), "steps"), (dict(sampler="magic"), "magic"), (dict(eta=.5), "euler"), (dict(steps=4000), "4000")])
def test_bad_knobs(model, knobs, says):
    with pytest.raises(ValueError, match=says): model.images(CAPTIONS, **knobs)


def test_unknown_names():
    with pytest.raises(ValueError, match="sdxl"): minidiff.load("sdxl")
    with pytest.raises(FileNotFoundError, match="vae"): minidiff.load("vae", folder="/nowhere")


def test_altered_weights_are_refused(tmp_path, monkeypatch):
    import shutil
    from minidiff import pipeline
    shutil.copytree(pipeline.SHIPPED, tmp_path / "shipped")
    monkeypatch.setattr(pipeline, "SHIPPED", tmp_path / "shipped")
    data = bytearray((tmp_path / "shipped" / "vae.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "shipped" / "vae.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="sha256"): minidiff.load("vae")


def test_latents_have_unit_variance(model):
    from minidiff.data import scenes
    z = model.vae.encode(scenes(256, seed=0, train=False, captions=False).images)
    assert abs(z.std() - 1) < .05


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    from minidiff.pipeline import save_diffusers
    path = tmp_path_factory.mktemp("saved")
    save_diffusers(model, path)
    return path


def opened(folder):
    from diffusers import StableDiffusionPipeline
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("sampler, name, options", [
    ("dpmpp_2m", None, {}), ("euler", "DDIMScheduler", dict(set_alpha_to_one=True, clip_sample=False)), ("heun", "HeunDiscreteScheduler", {}), ("euler", "EulerDiscreteScheduler", {})])
def test_diffusers_draws_the_same(model, folder, sampler, name, options):
    "Same weights, same start noise, 10 guided steps: at most 1e-3 apart in [0,1]"
    import diffusers
    pipe = opened(folder)
    if name:
        config = {k: v for k, v in pipe.scheduler.config.items() if k in ("beta_start", "beta_end", "beta_schedule", "prediction_type", "num_train_timesteps")}
        pipe.scheduler = getattr(diffusers, name)(**config, timestep_spacing="trailing", **options)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sigma = spaced(10, SD)[0]
    pipe.scheduler.set_timesteps(10)
    latents = noise * ((1 + sigma**2)**.5 / pipe.scheduler.init_noise_sigma if pipe.scheduler.init_noise_sigma != 1 else 1)
    theirs = pipe(CAPTIONS, num_inference_steps=10, guidance_scale=4., latents=latents, output_type="pt", height=64, width=64).images
    from minidiff import pipeline
    ours = model_images(model, noise, sampler)
    assert theirs.shape == ours.shape and (theirs - ours).abs().max() <= 1e-3


@torch.no_grad()
def model_images(model, noise, sampler):
    "What model.images does, from noise that the test chose, in [0,1]"
    from minidiff.guide import cfg
    from minidiff.latent import generate
    from minidiff.sample import SAMPLERS
    denoise = cfg(model.denoise, model.context(CAPTIONS), model.context(["", ""]), 4.)
    return generate(denoise, model.vae, noise, spaced(10, SD), SAMPLERS[sampler]).clamp(-1, 1) / 2 + .5


def test_transformers_reads_the_tokenizer(model, folder):
    from minidiff.data import scenes
    pipe, captions = opened(folder), scenes(200, seed=9).captions
    theirs = pipe.tokenizer(captions, padding="max_length", max_length=model.tokenizer.max_length, truncation=True, return_tensors="pt").input_ids
    assert torch.equal(theirs, model.tokenizer(captions))
