"""Chapter 18's numbers that need many pictures: the little SDXL with and without each of its ideas, and with its refiner.

    python -m bench.sdxl --device cuda --out shots     # minutes on one GPU; --weights nbs/models, --n pictures a prompt
    python -m bench.sdxl --tiny                        # does the script work? On a CPU, seconds
"""
import argparse, itertools, time
from pathlib import Path
import torch
from minidiff import load
from minidiff.core import to_pil
from minidiff.data import scenes
from minidiff.digiteval import digiteval, real_scenes_accuracy
from minidiff.guide import cfg
from minidiff.latent import seeded_noise, start
from minidiff.metrics import fid
from minidiff.noise import SD, sigma_to_t, spaced
from minidiff.sample import dpmpp_2m, last
from minidiff.sd import conditions
from minidiff.weights import load_model, read_config
from minidiff.clip import CLIPTextConfig
from minidiff.unet import UNetConfig
from minidiff.xl import SECOND, XL, altered_scenes, little_sdxl, xl_losses, xl_pool

TOLD = dict(all=(1, 1, 1, 1), no_first=(0, 1, 1, 1), no_second=(1, 0, 1, 1), no_pooled=(1, 1, 0, 1), first_alone=(1, 0, 0, 1), second_alone=(0, 1, 0, 1),
            pooled_alone=(0, 0, 1, 1), no_numbers=(1, 1, 1, 0), no_text=(0, 0, 0, 1))


def keeping(cond, first, second, pooled, numbers):
    "The condition with some of its four parts silenced (0)"
    (a, b), (c, d) = cond["ctx"].split([cond["ctx"].shape[2] - SECOND.width, SECOND.width], 2), cond["vec"].split([SECOND.proj, cond["vec"].shape[1] - SECOND.proj], 1)
    return dict(ctx=torch.cat([first * a, second * b], 2), vec=torch.cat([pooled * c, numbers * d], 1))


def guided(model, captions, keep, scale, **numbers):
    "The model's guided denoiser"
    return cfg(model.denoise, *(keeping(c, *keep) for c in conditions(model, captions, (64, 64), **numbers)), scale)


def relay(first, second, at):
    "One denoiser of two: `second` for the last 1 - at of the training steps"
    return lambda x, sigma: (first if sigma_to_t(torch.tensor(sigma)) >= round(1000 - 1000 * at) else second)(x, sigma)


@torch.no_grad()
def draw(model, captions, keep=(1, 1, 1, 1), scale=4., steps=20, seed=0, refiner=None, at=.8, refiner_scale=None, **numbers):
    "Pictures [B,3,64,64]"
    denoise = guided(model, captions, keep, scale, **numbers)
    if refiner: denoise = relay(denoise, guided(refiner, captions, keep, scale if refiner_scale is None else refiner_scale, **numbers), at)
    sigmas = spaced(steps).to(model.device)
    z = last(dpmpp_2m(denoise, start(seeded_noise(range(seed, seed + len(captions)), (4, 8, 8), model.device)(), sigmas), sigmas))
    return model.vae.decode(z).clamp(-1, 1)


def many(model, captions, seed=0, batch=250, **knobs):
    "`draw` in batches"
    return torch.cat([draw(model, captions[i:i + batch], seed=seed + i, **knobs) for i in range(0, len(captions), batch)])


def sharpness(x): return (x[..., 1:] - x[..., :-1]).abs().mean().item()


def centres(x, ground):
    "Row and column of each picture's centre of ink [n,2]; ground: its background"
    ink = (x - ground).abs().amax(1)
    ink = ink * (ink > .3)
    at = torch.arange(64, device=x.device).float()
    return torch.stack([(ink.sum(2) * at).sum(1), (ink.sum(1) * at).sum(1)], 1) / ink.sum((1, 2)).clamp(min=1e-6)[:, None]


def marks(draw, judge, n, size):
    "DigitEval's overall mark and its six tasks', percent"
    score = digiteval(draw, judge, n, batch=240, n=size)
    return "  ".join(f"{task} {100 * score[task, 'all'].share:.1f}" for task in ("overall", "single digit", "two digits", "counting", "colours", "position", "colour attribution"))


def sheet(folder, name, x, captions=None, cols=8):
    "Save pictures as one PNG"
    if not folder: return
    Path(folder).mkdir(parents=True, exist_ok=True)
    rows = [torch.cat(list(x[i:i + cols].cpu()), 2) for i in range(0, len(x) - len(x) % cols, cols)]
    picture = to_pil(torch.cat(rows, 1))
    picture.resize((2 * picture.width, 2 * picture.height)).save(Path(folder) / f"{name}.png")


@torch.no_grad()
def from_real(model, refiner, x, captions, t=199, steps=4):
    "PSNR of real pictures noised to training step t and walked back, by either model alone, guidance off"
    z = model.vae.encode(x)
    sigmas = torch.cat([SD[torch.linspace(t, 0, steps + 1).round().long()[:-1]], torch.zeros(1)]).to(x.device)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).to(z)
    ceiling, found = model.vae.decode(z), []
    for m in (model, refiner):
        back = last(dpmpp_2m(guided(m, captions, (1, 1, 1, 1), 1), z + sigmas[0] * noise, sigmas))
        found.append((10 * torch.log10(4 / (m.vae.decode(back) - ceiling).square().flatten(1).mean(1))).mean().item())
        found.append((back - z).square().mean().item())
    return found


def main(args):
    device, began = args.device, time.time()
    folder = Path(args.weights)
    base, refiner, judge = little_sdxl(folder / "xl.safetensors", device), little_sdxl(folder / "xl_refiner.safetensors", device), load("judge", device=device)
    say = lambda *words: print(f"[{time.time() - began:5.0f} s]", *words, flush=True)

    ts = [0, 25, 50, 100, 150, 199, 250, 300, 400, 500, 700, 900]
    pool = xl_pool(200 if args.tiny else 2000, 0, device, base.vae, load("tokenizer"), train=False)
    build = lambda m: XL(read_config(UNetConfig, m["config"]), read_config(CLIPTextConfig, m["text_config"]))
    losses = [xl_losses(load_model(folder / f"{name}.safetensors", build).to(device), base.texts["text_encoder"], pool, ts) for name in ("xl", "xl_refiner")]
    for t, a, b in zip(ts, *losses): say(f"loss at t {t:3}: base {a:.4f}, refiner {b:.4f}")

    some = scenes(16, seed=11, train=False, device=device)
    sheet(args.out, "captions", draw(base, some.captions, seed=0))
    sheet(args.out, "captions_refined", draw(base, some.captions, seed=0, refiner=refiner))
    for i, c in enumerate(some.captions): say("caption", i, c)

    n, size = args.n, 2 if args.tiny else 80
    whole, seeds = load(device=device), itertools.count(0, 1000)
    knobs = lambda **k: (lambda captions: draw(base, captions, seed=next(seeds), **k))
    say("real            ", "  ".join(f"{100 * v.share:.1f}" for (t, s), v in real_scenes_accuracy(judge, n=size).items() if s == "all"))
    say("chapter 16's    ", marks(lambda captions: whole.images(captions, seed=next(seeds)), judge, n, size))
    for name, keep in TOLD.items(): say(f"{name:16}", marks(knobs(keep=keep), judge, n, size))
    for scale in (1., 2., 3., 6.): say(f"scale {scale:<10g}", marks(knobs(scale=scale), judge, n, size))
    for top in ((0, 0), (12, 0), (12, 12), (24, 24)): say(f"told crop {top!s:9}", marks(knobs(crop=top), judge, n, size))
    for s in (16, 32): say(f"told size {s:<7}", marks(knobs(original=(s, s)), judge, n, size))
    for at in (.8, .9): say(f"refiner from {at}", marks(knobs(refiner=refiner, at=at), judge, n, size))
    say("refiner, no cfg ", marks(knobs(refiner=refiner, refiner_scale=1), judge, n, size))

    many_n = 250 if args.tiny else args.fid
    a, b = (scenes(many_n, seed=s, train=False, device=device) for s in (1, 2))
    features = lambda x: torch.cat([judge.features(p) for p in x.split(250)]).detach().cpu()
    with torch.no_grad(): there = torch.cat([base.vae.decode(base.vae.encode(p)).clamp(-1, 1) for p in b.images.split(250)])
    fb = features(b.images)
    say(f"FID of {many_n}: real against real {fid(features(a.images), fb):.2f}, through the VAE {fid(features(there), fb):.2f}; sharpness real {sharpness(b.images):.4f}, VAE {sharpness(there):.4f}")
    for scale in (4.,) if args.tiny else (1., 2., 4.):
        for steps in (2,) if args.tiny else (10, 20):
            x, y = many(base, a.captions, scale=scale, steps=steps), many(base, a.captions, scale=scale, steps=steps, refiner=refiner)
            say(f"scale {scale:g}, {steps} steps: FID base {fid(features(x), fb):.2f}, with refiner {fid(features(y), fb):.2f}; sharpness {sharpness(x):.4f}, {sharpness(y):.4f}")
    x = many(base, a.captions, keep=(1, 1, 1, 0), steps=2 if args.tiny else 20)
    say(f"numbers not told: FID {fid(features(x), fb):.2f}, sharpness {sharpness(x):.4f}")
    rows = 20 if args.tiny else 1000
    for t in (50, 100, 199):
        p, e, q, f = from_real(base, refiner, b.images[:rows], b.captions[:rows], t)
        say(f"real pictures noised to t {t} and back: base {p:.3f} dB ({e:.5f} in latents), refiner {q:.3f} dB ({f:.5f})")

    texts = [f"a {c} {d} on a black background" for c, d in itertools.product(("red", "yellow", "green", "blue", "white"), ("two", "three", "five", "eight", "nine"))] * 8
    if args.tiny: texts = texts[:8]
    ground = -torch.ones(1, 3, 1, 1, device=device)
    full = altered_scenes(500, 3, device, False, torch.tensor([[64, 64, 0, 0, 64, 64]]).expand(500, -1)).images
    for s in (16, 80) if args.tiny else (16, 20, 24, 32, 40, 48, 56, 64, 80):
        x, told = many(base, texts, original=(s, s)), torch.tensor([[s, s, 0, 0, 64, 64]]).expand(500, -1)
        real = sharpness(altered_scenes(500, 3, device, False, told).images) if s <= 64 else float("nan")
        y = many(base, a.captions[:rows], original=(s, s))
        say(f"told size {s}: sharpness {sharpness(x):.4f}, of scenes {sharpness(y):.4f}, real scenes of that size {real:.4f} (full {sharpness(full):.4f})")
        sheet(args.out, f"size_{s}", x[:8])
    x = many(base, texts, keep=(1, 1, 1, 0))
    say(f"size not told: sharpness {sharpness(x):.4f}")
    for top, left in ((0, 0),) if args.tiny else ((0, 0), (8, 0), (16, 0), (24, 0), (0, 24), (24, 24), (32, 0)):
        x = many(base, texts, crop=(top, left))
        c = centres(x, ground)
        say(f"told top {top:2}, left {left:2}: centre of ink {[round(v, 1) for v in c.mean(0).tolist()]} +- {[round(v, 1) for v in c.std(0).tolist()]}")
        sheet(args.out, f"crop_{top}_{left}", x[:8])
    x = many(base, texts, keep=(1, 1, 1, 0))
    c = centres(x, ground)
    say(f"crop not told: centre of ink {[round(v, 1) for v in c.mean(0).tolist()]} +- {[round(v, 1) for v in c.std(0).tolist()]}")
    sheet(args.out, "not_told", x[:16])
    say("done")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", default="nbs/models")
    parser.add_argument("--out")
    parser.add_argument("--n", type=int, default=2, help="pictures of each of DigitEval's 480 prompts")
    parser.add_argument("--fid", type=int, default=5000)
    parser.add_argument("--tiny", action="store_true")
    main(parser.parse_args())
