"""Part 2. Training, images a second: our UNet and diffusers' of the same plan, weights and outputs, on this CPU, with the share of its peak.

The GPU's part is in bench.gpu."""
import copy, time
from bench.tools import THREADS, compare, options, report
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode
from minidiff.unet import UNet, UNetConfig


def pixels(channels, layers=1):
    "A UNet without attention over grey pictures: (ours, diffusers' UNet2DModel with the same weights)"
    from diffusers import UNet2DModel
    ours = UNet(UNetConfig(in_channels=1, out_channels=1, channels=channels, layers=layers, depth=0, mid_depth=0, ctx_dim=None, groups=8))
    n = len(channels)
    theirs = UNet2DModel(in_channels=1, out_channels=1, layers_per_block=layers, block_out_channels=channels, norm_num_groups=8, add_attention=False,
                         down_block_types=["DownBlock2D"] * n, up_block_types=["UpBlock2D"] * n)
    return ours, same(ours, theirs)


def latents(config=UNetConfig(channels=(64, 128), depth=1, heads=4, ctx_dim=128, groups=16)):
    "The course's text-to-image UNet: (ours, diffusers' UNet2DConditionModel with the same weights)"
    ours = UNet(config)
    return ours, same(ours, their_unet(config))


def their_unet(config):
    "diffusers' UNet2DConditionModel of our `UNetConfig`"
    from diffusers import UNet2DConditionModel
    cross = [d > 0 for d in config.depth]
    return UNet2DConditionModel(in_channels=config.in_channels, out_channels=config.out_channels, layers_per_block=config.layers, block_out_channels=config.channels,
                                cross_attention_dim=config.ctx_dim, attention_head_dim=config.heads, norm_num_groups=config.groups,
                                down_block_types=["CrossAttnDownBlock2D" if c else "DownBlock2D" for c in cross],
                                up_block_types=["CrossAttnUpBlock2D" if c else "UpBlock2D" for c in reversed(cross)])


def same(ours, theirs):
    "Their network with our weights: names, shapes and number of parameters must be the same, or this raises"
    theirs.load_state_dict(ours.state_dict())
    return theirs


def inputs(net, batch, side, device="cpu", tokens=32):
    "(x, t, ctx or None, target) for a network of either kind"
    c, draw = net.config, lambda *shape: torch.randn(*shape, device=device)
    ctx = draw(batch, tokens, c.ctx_dim) if c.ctx_dim else None
    return draw(batch, c.in_channels, side, side), 999 * torch.rand(batch, device=device), ctx, draw(batch, c.out_channels, side, side)


def call(net, x, t, ctx):
    "The output of our network or of theirs"
    out = net(x, t) if ctx is None else net(x, t, ctx)
    return out if torch.is_tensor(out) else out.sample


def stepper(net, data, amp=None, fused=False):
    "One training step: forward, squared error, backward, AdamW"
    x, t, ctx, target = data
    opt = torch.optim.AdamW(net.parameters(), 1e-4, fused=fused)

    def step():
        with torch.autocast(x.device.type, amp, enabled=amp is not None): loss = F.mse_loss(call(net, x, t, ctx).float(), target)
        loss.backward()
        opt.step()
        opt.zero_grad(set_to_none=True)
    return step


def flops(net, data):
    "Floating-point operations of a step, forward and backward, convolutions and matrix products (a multiply-add is two)"
    x, t, ctx, target = data
    with FlopCounterMode(display=False) as counter: F.mse_loss(call(net, x, t, ctx), target).backward()
    net.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def peak(rounds=9):
    "FLOP/s of these threads, by their CPU time, in the quickest of five: products of square matrices, and 3x3 convolutions in both layouts"
    work, runs = {}, {}

    def add(name, flop, product):
        def run():
            began = time.process_time()
            product()
            return (time.process_time() - began) / THREADS
        work[name], runs[name] = flop, run
    for side in (512, 1024, 2048):
        a = torch.randn(side, side)
        add(f"matrices {side}", 2 * side ** 3, lambda a=a: a @ a)
    for layout in (torch.contiguous_format, torch.channels_last):
        x, w = (torch.randn(*shape).to(memory_format=layout) for shape in ((32, 256, 14, 14), (256, 256, 3, 3)))
        add(f"convolution, {layout}", 2 * w.numel() * 32 * 14 * 14, lambda x=x, w=w: F.conv2d(x, w, padding=1))
    found = {name: work[name] / seconds for name, (seconds, _) in compare(runs, rounds).items()}
    print("peak, GFLOP/s:", ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in found.items()))
    return max(found.values())


def main():
    args = options(__doc__, rounds=7, batch=64)
    rows, top = [], peak()
    for name, (ours, theirs), side in [("pixels 24-48-64", pixels((24, 48, 64)), 28), ("pixels 32-64-96", pixels((32, 64, 96)), 28), ("latents 64-128, attention, text", latents(), 8)]:
        data = inputs(ours, args.batch, side)
        with torch.no_grad(): off = (call(ours, *data[:3]) - call(theirs, *data[:3])).abs().max()
        assert off < 1e-4, f"{name}: outputs differ by {off}"
        count, last = flops(ours, data), lambda net: copy.deepcopy(net).to(memory_format=torch.channels_last)
        for layout, change in (("", lambda net: net), (", channels_last", last)):  # each network against the other in the same layout
            nets = {f"minidiff{layout}": change(ours), f"diffusers{layout}": change(theirs)}
            for who, (seconds, ratio) in compare({who: stepper(net, data) for who, net in nets.items()}, args.rounds).items():
                rows.append({"network": name, "who": who, "parameters": sum(p.numel() for p in ours.parameters()), "images/s": args.batch / seconds,
                             "time / ours": ratio, "GFLOP a step": count / 1e9, "% of peak": 100 * count / seconds / top})
    report("throughput", rows)


if __name__ == "__main__": main()
