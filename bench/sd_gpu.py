"""Stable Diffusion 1.5 on one GPU against diffusers: its UNet, and the whole 20-step call at 512x512. Random weights, shared by both.

    python bench/sd_gpu.py            # one table, about 4 minutes a type (--types float16) on one H100
    python bench/sd_gpu.py --tiny     # a small model on the CPU: does the script work?

Each row: milliseconds of the best of several calls, ours and theirs one after the other, peak memory, and the share of the GPU's half-precision peak that the UNet's
multiply-adds reach (peak measured here by a large matrix product). eager and torch.compile (reduce-overhead for the UNet alone).
"""
import argparse, time
import torch
from minidiff.clip import CLIP_L, CLIPTextConfig, TextEncoder
from minidiff.sd import StableDiffusion
from minidiff.unet import SD15, UNet, UNetConfig
from minidiff.vae import SD_VAE, VAE, VAEConfig

SEED = 0


class Ids:
    "A tokenizer that gives every text the same ids: speed does not depend on words"
    max_length, bos, eos, pad_id = 77, 49406, 49407, 49407
    def encode(self, text): return [320, 1125, 539]


def built(cls, config, device, dtype):
    "A module with small random weights, made where it will run"
    with torch.device("meta"): module = cls(config)
    g = torch.Generator(device).manual_seed(SEED)
    state = {k: (torch.randn(v.shape, generator=g, device=device) * v[0].numel() ** -.5 if v.ndim > 1 else torch.full(v.shape, float(k.endswith("weight")), device=device)).to(dtype)
             for k, v in module.state_dict().items()}
    module.load_state_dict(state, assign=True)
    return module.eval().requires_grad_(False)


def sync(device):
    if device == "cuda": torch.cuda.synchronize()


def measure(call, device, n=5, warm=2, seconds=12):
    "(milliseconds of the quickest call, GiB at the peak)"
    for _ in range(warm): call()
    sync(device)
    if device == "cuda": torch.cuda.reset_peak_memory_stats()
    times, begun = [], time.perf_counter()
    while len(times) < n and (not times or time.perf_counter() - begun < seconds):
        t = time.perf_counter()
        call()
        sync(device)
        times.append(time.perf_counter() - t)
    return 1000 * min(times), torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.


def peak_flops(device, dtype):
    "Multiply-adds times two a second of a large matrix product"
    n = 8192 if device == "cuda" else 512
    a, b = torch.randn(2, n, n, device=device, dtype=dtype)
    ms, _ = measure(lambda: a @ b, device, n=20)
    return 2 * n**3 / ms * 1000


def flops(net, inputs):
    from torch.utils.flop_counter import FlopCounterMode
    with FlopCounterMode(display=False) as counter, torch.no_grad(): net(*inputs)
    return counter.get_total_flops()


def their_unet(unet, tiny):
    from diffusers import UNet2DConditionModel
    c = unet.config
    shape = dict(block_out_channels=c.channels, layers_per_block=c.layers, cross_attention_dim=c.ctx_dim, attention_head_dim=c.heads, norm_num_groups=c.groups,
                 down_block_types=["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in c.depth], up_block_types=["CrossAttnUpBlock2D" if d else "UpBlock2D" for d in c.depth[::-1]])
    with torch.device("meta"): net = UNet2DConditionModel(**shape)
    net.load_state_dict(unet.state_dict(), assign=True)
    return net.eval().requires_grad_(False)


def their_vae(vae):
    from diffusers import AutoencoderKL
    c = vae.config
    n = len(c.channels)
    with torch.device("meta"): net = AutoencoderKL(block_out_channels=c.channels, layers_per_block=c.layers, down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n)
    net.load_state_dict(vae.state_dict(), assign=True)
    return net.eval().requires_grad_(False)


def their_text(config, device, dtype):
    from transformers import CLIPTextConfig, CLIPTextModel
    shape = CLIPTextConfig(vocab_size=config.vocab, hidden_size=config.width, intermediate_size=4 * config.width, num_hidden_layers=config.layers, num_attention_heads=config.heads, hidden_act=config.act)
    return CLIPTextModel(shape).to(device, dtype).eval().requires_grad_(False)


@torch.no_grad()
def their_call(text, unet, vae, ids, noise, steps, dtype):
    "What StableDiffusionPipeline does with tokenized texts [2B,77]: reads them, DPM++ 2M with guidance, decodes in the VAE's own type"
    from diffusers import DPMSolverMultistepScheduler
    s = DPMSolverMultistepScheduler(beta_schedule="scaled_linear", beta_start=.00085, beta_end=.012, timestep_spacing="trailing")
    s.set_timesteps(steps, device=noise.device)
    x, ctx = noise.to(dtype), text(ids)[0]
    for t in s.timesteps:
        u, c = unet(torch.cat([x, x]), t, encoder_hidden_states=ctx, return_dict=False)[0].chunk(2)
        x = s.step(u + 7.5 * (c - u), t, x, return_dict=False)[0]
    return vae.decode((x / .18215).to(vae.dtype), return_dict=False)[0]


@torch.no_grad()
def main(tiny, types):
    device = "cpu" if tiny else "cuda"
    begun, side, steps = time.time(), 16 if tiny else 64, 2 if tiny else 20
    unet_c = UNetConfig(channels=(32, 64), depth=(1, 0), heads=4, ctx_dim=32) if tiny else SD15
    vae_c = VAEConfig(channels=(32, 32, 32, 32)) if tiny else SD_VAE
    text_c = CLIPTextConfig(width=32, layers=2, heads=4) if tiny else CLIP_L
    print(torch.cuda.get_device_name() if device == "cuda" else "CPU", "torch", torch.__version__)
    print(f"{'what':12}{'who':10}{'type':10}{'mode':9}{'batch':>6}{'ms':>10}{'GiB':>7}{'of peak':>9}", flush=True)
    for dtype in (getattr(torch, t) for t in types):
        name, peak = str(dtype)[6:], peak_flops(device, dtype)
        print(f"a matrix product: {peak / 1e12:.1f} TFLOP/s in {name}", flush=True)
        unet = built(UNet, unet_c, device, dtype)
        vae, text = built(VAE, vae_c, device, torch.float32), built(TextEncoder, text_c, device, dtype)
        model = StableDiffusion(unet, vae, dict(text_encoder=text), dict(text_encoder=Ids()), size=side * 8)
        theirs, their_decoder, their_reader = their_unet(unet, tiny), their_vae(vae), their_text(text_c, device, dtype)
        for mode in ("eager", "compiled"):
            if mode == "compiled":
                if tiny: break
                for net in (unet, theirs): net.to(memory_format=torch.channels_last)
                fast, their_fast = (torch.compile(net, mode="reduce-overhead") for net in (unet, theirs))
            else: fast, their_fast = unet, theirs
            for batch in (1, 8) if not (mode == "compiled" and dtype == torch.float16) else (8,):
                rows = 2 * batch
                x, t = torch.randn(rows, 4, side, side, device=device, dtype=dtype), torch.full((rows,), 500., device=device)
                ctx = torch.randn(rows, 77, unet_c.ctx_dim, device=device, dtype=dtype)
                if mode == "compiled": x = x.to(memory_format=torch.channels_last)
                work = flops(unet, (x, t, ctx))
                for who, call in dict(minidiff=lambda: fast(x, t, ctx), diffusers=lambda: their_fast(x, t, encoder_hidden_states=ctx, return_dict=False)).items():
                    ms, gib = measure(call, device, 20, 4)
                    print(f"{'UNet':12}{who:10}{name:10}{mode:9}{batch:6}{ms:10.2f}{gib:7.2f}{work / ms * 1000 / peak:9.1%}", flush=True)
                if time.time() - begun > 400: print("out of time: the whole call left out"); continue
                noise, ids = torch.randn(batch, 4, side, side, device=device), torch.full((rows, 77), 320, device=device)
                model.denoise.net = fast
                calls = dict(minidiff=lambda: model.images(["a"] * batch, steps=steps, noise=noise), diffusers=lambda: their_call(their_reader, their_fast, their_decoder, ids, noise, steps, dtype))
                for who, call in calls.items():
                    ms, gib = measure(call, device, 3, 1)
                    print(f"{f'{steps} steps':12}{who:10}{name:10}{mode:9}{batch:6}{ms:10.0f}{gib:7.2f}{work * steps / ms * 1000 / peak:9.1%}", flush=True)
        del model, unet, theirs, vae, their_decoder, their_reader, fast, their_fast
        if device == "cuda": torch.compiler.reset(); torch.cuda.empty_cache()
    print(f"{time.time() - begun:.0f} s in all")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a small model on the CPU")
    parser.add_argument("--types", nargs="+", choices=("float16", "bfloat16"), default=["float16", "bfloat16"])
    args = parser.parse_args()
    main(args.tiny, args.types[-1:] if args.tiny else args.types)
