"""Stable Diffusion 1.5 on one GPU against diffusers: its UNet, and the whole call of 20 guided steps at 512x512, texts read and pictures decoded. Random weights, shared by both.

`python -m bench.sd_gpu --types float16` takes about six minutes a type; `--tiny` runs the same lines on the CPU with a small model. Ours and theirs take turns. Eager, and both UNets under
torch.compile(mode="reduce-overhead"). Results: results/sd_gpu.csv, or --out FOLDER."""
import time
from pathlib import Path
import bench.tools as tools
from bench.gpu import peak, peak_memory, waited
from bench.throughput import their_unet
from bench.tools import compare, options, report
import torch
from minidiff.bpe import Tokenizer
from minidiff.clip import CLIP_L, CLIPTextConfig, TextEncoder
from minidiff.sd import StableDiffusion
from minidiff.unet import SD15, UNet, UNetConfig
from minidiff.vae import SD_VAE, VAE, VAEConfig

SEED = 0


class Ids(Tokenizer):
    "A tokenizer that gives every text the same ids: speed does not depend on words"
    max_length, bos, eos, pad_id = 77, 49406, 49407, 49407
    def __init__(self): pass
    def encode(self, text): return [320, 1125, 539]


def built(cls, config, device, dtype):
    "A module with small random weights, made where it will run"
    with torch.device("meta"): module = cls(config)
    g = torch.Generator(device).manual_seed(SEED)
    state = {k: (torch.randn(v.shape, generator=g, device=device) * v[0].numel() ** -.5 if v.ndim > 1 else torch.full(v.shape, float(k.endswith("weight")), device=device)).to(dtype)
             for k, v in module.state_dict().items()}
    module.load_state_dict(state, assign=True)
    return module.eval().requires_grad_(False)


def flops(net, inputs):
    from torch.utils.flop_counter import FlopCounterMode
    with FlopCounterMode(display=False) as counter, torch.no_grad(): net(*inputs)
    return counter.get_total_flops()


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
def rows_of(dtype, device, tiny, batches, modes):
    "Rows of one number type: the UNet, then the whole call, at each batch, eager and compiled"
    side, steps, rounds = (16, 2, 1) if tiny else (64, 20, 5)
    unet_c = UNetConfig(channels=(32, 64), depth=(1, 0), heads=4, ctx_dim=32) if tiny else SD15
    vae_c = VAEConfig(channels=(32, 32, 32, 32)) if tiny else SD_VAE
    text_c = CLIPTextConfig(width=32, layers=2, heads=4) if tiny else CLIP_L
    unet, vae, text = built(UNet, unet_c, device, dtype), built(VAE, vae_c, device, torch.float32), built(TextEncoder, text_c, device, dtype)
    model = StableDiffusion(unet, vae, dict(text_encoder=text), dict(text_encoder=Ids()), size=side * 8)
    with torch.device("meta"): theirs = their_unet(unet_c)
    theirs.load_state_dict(unet.state_dict(), assign=True)
    theirs.eval().requires_grad_(False)
    their_decoder, their_reader = their_vae(vae), their_text(text_c, device, dtype)
    top = peak(device, 512 if tiny else 8192, dtype)
    print(f"a matrix product: {top / 1e12:.1f} TFLOP/s in {dtype}", flush=True)
    for mode in modes:
        if mode == "compiled":
            for net in (unet, theirs): net.to(memory_format=torch.channels_last)
        fast, their_fast = (torch.compile(net, mode="reduce-overhead", dynamic=False) if mode == "compiled" else net for net in (unet, theirs))
        model.denoise.net = fast
        for batch in batches:
            x, t = torch.randn(2 * batch, 4, side, side, device=device, dtype=dtype), torch.full((2 * batch,), 500., device=device)
            if mode == "compiled": x = x.to(memory_format=torch.channels_last)
            ctx, ids = torch.randn(2 * batch, 77, unet_c.ctx_dim, device=device, dtype=dtype), torch.full((2 * batch, 77), 320, device=device)
            noise, work = torch.randn(batch, 4, side, side, device=device), flops(unet, (x, t, ctx))
            alone = dict(minidiff=lambda: fast(x, t, ctx), diffusers=lambda: their_fast(x, t, encoder_hidden_states=ctx, return_dict=False))
            whole = dict(minidiff=lambda: model.images(["a"] * batch, steps=steps, noise=noise), diffusers=lambda: their_call(their_reader, their_fast, their_decoder, ids, noise, steps, dtype))
            for what, calls, n, times in (("UNet", alone, 1, 5), (f"{steps} steps", whole, steps, 1)):
                for who, (seconds, ratio) in compare({who: waited(call, device, times) for who, call in calls.items()}, rounds).items():
                    yield {"what": what, "who": who, "type": str(dtype)[6:], "mode": mode, "batch": batch, "ms": 1000 * seconds, "time / ours": ratio, "GiB at the peak": peak_memory(calls[who], device)[1] / 2**30, "% of peak": 100 * work * n / seconds / top}


def main():
    args = options(__doc__, tiny=False, types=["float16", "bfloat16"], batches=[1, 8], modes=["eager", "compiled"], out="")
    if args.out: tools.RESULTS = Path(args.out)
    if not args.tiny and not torch.cuda.is_available(): raise SystemExit("no CUDA device: `--tiny` tries the script on the CPU")
    rows, began = [], time.perf_counter()
    for name in args.types:
        for row in rows_of(getattr(torch, name), "cpu" if args.tiny else "cuda", args.tiny, args.batches, ["eager"] if args.tiny else args.modes):
            rows.append(row)
            print(*(f"{v:.4g}" if isinstance(v, float) else v for v in row.values()), flush=True)
        if not args.tiny:
            torch.compiler.reset()
            torch.cuda.empty_cache()
    report("sd_gpu", rows)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__": main()
