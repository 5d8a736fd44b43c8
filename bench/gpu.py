"""Parts 2 and 6 on one GPU, in about seven minutes: training in bf16, eager and compiled, with the share of the peak; text to image.

`python -m bench.gpu` needs CUDA and diffusers; `--tiny` runs the same lines on the CPU at toy sizes. Results: results/gpu_*.csv, or --out FOLDER."""
import copy, time
from pathlib import Path
import bench.tools as tools
from bench.tools import compare, options, report
import torch
from bench.pictures import captions, ours, saved, theirs
from bench.throughput import call, flops, inputs, latents, pixels, stepper
from minidiff.unet import SD15, UNetConfig

BF16 = torch.bfloat16
RULE = 3  # a step, forward and backward, costs three forwards


def finish(device):
    if device == "cuda": torch.cuda.synchronize()


def waited(run, device, times):
    "Seconds of one run, from a device at rest to a device at rest, as the mean of several"
    def once():
        finish(device)
        began = time.perf_counter()
        for _ in range(times): run()
        finish(device)
        return (time.perf_counter() - began) / times
    return once


def peak(device, side, dtype=BF16):
    "FLOP/s of a large matrix product"
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    return 2 * side ** 3 / compare({"matmul": waited(lambda: a @ b, device, 10)}, 5)["matmul"][0]


def training(name, nets, batch, side, device, rounds, times, top, compiled):
    "Rows: ours and theirs, eager and compiled, channels_last, AdamW, bf16 autocast"
    nets = {who: net.to(device, memory_format=torch.channels_last) for who, net in zip(("minidiff", "diffusers"), nets)}
    data = inputs(nets["minidiff"], batch, side, device, 77 if side == 64 else 32)  # Stable Diffusion's captions have 77 tokens
    data = (data[0].to(memory_format=torch.channels_last), *data[1:])
    work = flops(nets["minidiff"], (data[0][:2], data[1][:2], None if data[2] is None else data[2][:2], data[3][:2])) * batch / 2
    forms = {"eager": lambda net: net} | (dict(compiled=torch.compile) if compiled else {})
    rows = []
    for form, wrap in forms.items():
        runs = {}
        for who, net in nets.items():
            net = copy.deepcopy(net)
            stepping = stepper(wrapped(net, wrap), data, BF16, fused=device == "cuda")
            began = time.perf_counter()
            stepping()
            finish(device)
            first = time.perf_counter() - began
            print(f"{name}, {form}, {who}: first step {first:.1f} s", flush=True)
            runs[who] = waited(stepping, device, times)
        for who, (seconds, ratio) in compare(runs, rounds).items():
            rows.append({"network": name, "form": form, "who": who, "parameters": sum(p.numel() for p in nets[who].parameters()), "batch": batch, "images/s": batch / seconds,
                         "time / ours": ratio, "TFLOP/s": work / seconds / 1e12, "% of peak": 100 * work / seconds / top})
    return rows


def wrapped(net, wrap):
    "The compiled network, which still tells its config and parameters"
    out = wrap(net)
    if not hasattr(out, "config"): out.config = net.config
    return out


def forwards(nets, batch, side, device, rounds, times, top):
    "Rows: one evaluation of SD 1.5's UNet, bf16, ours and theirs"
    nets = {who: net.to(device, BF16, memory_format=torch.channels_last).eval() for who, net in zip(("minidiff", "diffusers"), nets)}
    x, t, ctx, _ = inputs(nets["minidiff"], batch, side, device, 77)
    x, ctx = x.to(BF16, memory_format=torch.channels_last), ctx.to(BF16)

    @torch.no_grad()
    def evaluate(net): call(net, x, t, ctx)
    with torch.device("meta"): work = flops(type(nets["minidiff"])(nets["minidiff"].config), (torch.empty(1, *x.shape[1:]), torch.empty(1), torch.empty(1, *ctx.shape[1:]), torch.empty(1, *x.shape[1:]))) / RULE * batch
    rows = []
    for who, (seconds, ratio) in compare({who: waited(lambda net=net: evaluate(net), device, times) for who, net in nets.items()}, rounds).items():
        rows.append({"network": "SD 1.5", "form": "forward", "who": who, "parameters": sum(p.numel() for p in nets[who].parameters()), "batch": batch, "images/s": batch / seconds,
                     "time / ours": ratio, "TFLOP/s": work / seconds / 1e12, "% of peak": 100 * work / seconds / top})
    return rows


def drawing(device, rounds, sizes):
    "Rows: text to image, ours and diffusers' pipeline on the same weights"
    draws, rows = {"minidiff": ours(device), "diffusers": theirs(saved(), device)}, []
    for n in sizes:
        def run(draw): return waited(lambda: draw(captions(n)).cpu(), device, 1)
        for who, (seconds, ratio) in compare({who: run(draw) for who, draw in draws.items()}, rounds).items():
            before, most = peak_memory(lambda: draws[who](captions(n)), device)
            rows.append({"who": who, "images": n, "seconds": seconds, "time / ours": ratio, "MB of the device's memory": (most - before) / 1e6})
    return rows


def peak_memory(call, device):
    "Bytes of the device's memory in use before a call, and at its peak"
    if device != "cuda": return 0, 0
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return before, torch.cuda.max_memory_allocated()


def main():
    args = options(__doc__, tiny=False, rounds=7, out="", compile=1)
    if args.out: tools.RESULTS = Path(args.out)
    device, tiny, began = "cpu" if args.tiny else "cuda", args.tiny, time.perf_counter()
    if not tiny and not torch.cuda.is_available(): raise SystemExit("no CUDA device: `--tiny` tries the script on the CPU")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = True
    rounds, times, top = (2, 1, peak(device, 256)) if tiny else (args.rounds, 10, peak(device, 8192))
    print(f"peak: {top / 1e12:.1f} TFLOP/s in bf16", flush=True)
    report("gpu_pictures", drawing(device, rounds, (1, 2) if tiny else (1, 64)))
    rows = training("pixels, no attention", pixels((8, 16) if tiny else (128, 256, 512), 1 if tiny else 2), 4 if tiny else 256, 32, device, rounds, times, top, compiled=args.compile and not tiny)
    report("gpu_training", rows)
    text = latents(UNetConfig(channels=(16, 32), depth=1, heads=2, ctx_dim=16, groups=8)) if tiny else latents()
    rows += training("latents 64-128, text", text, 4 if tiny else 512, 8, device, rounds, times, top, compiled=False)
    report("gpu_training", rows)
    if not tiny: rows += sd15(device, rounds, top)
    report("gpu_training", rows)
    print(f"{time.perf_counter() - began:.0f} s")


def sd15(device, rounds, top):
    "Stable Diffusion 1.5's UNet with random weights at 64x64 latents: forward at batch 2 and 16, and a training step at batch 8"
    with torch.device(device): nets = latents(SD15)
    rows = training("SD 1.5", [copy.deepcopy(net) for net in nets], 8, 64, device, 3, 2, top, compiled=False)
    for batch in (2, 16): rows += forwards(nets, batch, 64, device, rounds, 3, top)
    return rows


if __name__ == "__main__": main()
