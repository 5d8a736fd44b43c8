"""Part 3. How good after a fixed budget: FID of what each contender draws after training on MNIST for SECONDS of CPU time on each of its threads.

`python -m bench.quality` runs all; `python -m bench.quality --who minidiff --seconds 180 --seed 1` one. Each run adds a line to results/quality.csv.
The budget counts the CPU time of the whole process from the first training step to the last (time.process_time() / threads), so that other work on the
machine does not matter. Sampling is not counted, but its evaluations are told. One judge for all: the features of minidiff's digit classifier."""
import csv, itertools, math, statistics, time
from types import SimpleNamespace
from bench.tools import RESULTS, THREADS, options, report
import torch
import torch.nn.functional as F
from minidiff import load
from minidiff.core import show_images
from minidiff.data import mnist
from minidiff.denoise import Denoiser, flow
from minidiff.layers import Downsample, ResBlock, TimeEmbedding, Upsample, time_features, zero_init
from minidiff.metrics import fid
from minidiff.muon import Muon
from minidiff.noise import karras, logit_normal_flow
from minidiff.sample import SAMPLERS, last
from minidiff.train import EMA, Trainer, adamw
from minidiff.unet import UNet, UNetConfig


WALKS = {"ancestral": SAMPLERS["ddpm"], "heun": SAMPLERS["heun"]}


class ByBudget(Trainer):
    "The course's trainer, told from outside how much of its budget is spent"
    done = 0.


class Patched(torch.nn.Module):
    "A network on pictures, seen as 2x2 pixels in each of fewer places: [B,1,28,28] <-> [B,4,14,14]"
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, t): return F.pixel_shuffle(self.net(F.pixel_unshuffle(x, 2), t), 2)


def trained(net, size, lr, warmup, decay, sampler, steps, sigma_max=80., opt=adamw, amp=None):
    "A network trained as in chapter 7: velocity target, logit-normal times, AdamW with warm-up and linear decay, averaged weights; its estimates are held in [-1,1]"
    denoise = Denoiser(net, flow, amp=amp)
    trainer = ByBudget(denoise, steps=1, lr=lr, warmup=warmup, decay=decay, opt=opt)

    def step(x, done):
        trainer.done = done
        trainer.update(denoise.loss(x, logit_normal_flow(len(x)), torch.randn_like(x)).mean())

    def estimate(x, sigma): return trainer.ema.model(x, sigma).clamp(-1, 1)

    def draw(n): return last(WALKS[sampler](estimate, sigma_max * torch.randn(n, 1, 28, 28), karras(steps, .02, sigma_max)))
    return SimpleNamespace(model=net, size=size, step=step, draw=draw, sampler=f"{sampler} {steps}", evaluations=2 * steps - 1 if sampler == "heun" else steps)


def ours(channels=(32, 64), patch=True, size=32, lr=3e-3, warmup=50, decay=.99, sampler="ancestral", steps=40, sigma_max=80., opt=adamw, amp=None):
    "minidiff's UNet, sized for minutes: pictures as 14x14 places of 2x2 pixels, small batches, a high rate; 40 ancestral steps"
    side = 4 if patch else 1
    net = zero_init(UNet(UNetConfig(in_channels=side, out_channels=side, channels=channels, layers=1, depth=0, mid_depth=0, ctx_dim=None, groups=8)))
    return trained(Patched(net) if patch else net, size, lr, warmup, decay, sampler, steps, sigma_max=sigma_max, opt=opt, amp=amp)


class Plain(torch.nn.Module):
    "A small UNet of 32, 64 and 96 channels, one residual block a level each way: the size that a budget of minutes asks for, without other tricks. convs=False: pixels are repeated and no more"
    def __init__(self, channels=(32, 64, 96), convs=True):
        super().__init__()
        a, b, c = channels
        self.time = TimeEmbedding(a, 128)
        self.conv_in, self.conv_out = torch.nn.Conv2d(1, a, 3, padding=1), torch.nn.Conv2d(a, 1, 3, padding=1)
        block = lambda i, o: ResBlock(i, o, 128, groups=8)
        self.down = torch.nn.ModuleList([block(a, a), block(a, b), block(b, c)])
        self.up = torch.nn.ModuleList([block(2 * c, c), block(c + b, b), block(b + a, a)])
        self.smaller = torch.nn.ModuleList([Downsample(a), Downsample(b), torch.nn.Identity()])
        self.larger = torch.nn.ModuleList([torch.nn.Identity(), *(Upsample(i) if convs else torch.nn.Upsample(scale_factor=2.) for i in (c, b))])

    def forward(self, x, t):
        x, emb, skips = self.conv_in(x), F.silu(self.time(time_features(t, 32))), []
        for block, smaller in zip(self.down, self.smaller):
            x = block(x, emb)
            skips.append(x)
            x = smaller(x)
        for block, larger in zip(self.up, self.larger): x = block(torch.cat([larger(x), skips.pop()], 1), emb)
        return self.conv_out(x)


def plain(convs=True):
    return trained(zero_init(Plain(convs=convs)), size=128, lr=2e-3, warmup=50, decay=.99, sampler="heun", steps=20)


class Toy(torch.nn.Module):
    "A UNet without time, normalisation or residuals, whose skips are added: what the Hugging Face course begins with"
    def __init__(self):
        super().__init__()
        conv = lambda i, o: torch.nn.Conv2d(i, o, 5, padding=2)
        self.down = torch.nn.ModuleList([conv(1, 32), conv(32, 64), conv(64, 64)])
        self.up = torch.nn.ModuleList([conv(64, 64), conv(64, 32), conv(32, 1)])

    def forward(self, x):
        skips = []
        for i, layer in enumerate(self.down):
            x = F.silu(layer(x))
            if i < 2:
                skips.append(x)
                x = F.max_pool2d(x, 2)
        for i, layer in enumerate(self.up):
            if i: x = F.interpolate(x, scale_factor=2) + skips.pop()
            x = F.silu(layer(x)) if i < 2 else layer(x)
        return x


def decayed(opt, lr, n, done, warmup=50):
    "Warm-up, then half a cosine to 0 by the share of the budget: kinder to a peer than a constant rate"
    for group in opt.param_groups: group["lr"] = lr * min((n + 1) / warmup, .5 * (1 + math.cos(math.pi * done)))


def toy(steps=40):
    "Pictures in [0,1], noise mixed in by a uniform share, the target is the clean picture; drawn by moving 1/(steps left) of the way"
    net, count = Toy(), itertools.count()
    opt = torch.optim.Adam(net.parameters(), 1e-3)

    def step(x, done):
        decayed(opt, 1e-3, next(count), done)
        x = (x + 1) / 2
        amount = torch.rand(len(x), 1, 1, 1)
        descend(opt, F.mse_loss(net(torch.lerp(x, torch.rand_like(x), amount)), x))

    @torch.no_grad()
    def draw(n):
        x = torch.rand(n, 1, 28, 28)
        for i in range(steps): x = torch.lerp(x, net(x), 1 / (steps - i))
        return 2 * x - 1
    return SimpleNamespace(model=net, size=128, step=step, draw=draw, sampler=f"its mix {steps}", evaluations=steps)


def descend(opt, loss, clip=None):
    opt.zero_grad()
    loss.backward()
    if clip: torch.nn.utils.clip_grad_norm_([p for group in opt.param_groups for p in group["params"]], clip)
    opt.step()


def diffusers(layers, target, attention=2, size=128, lr=1e-3, channels=(32, 64, 64), patch=1, opt=lambda net, lr: torch.optim.AdamW(net.parameters(), lr)):
    """UNet2DModel of the Hugging Face course, or cut to the budget (one layer, attention at the coarsest level only). DDPM's training, squared cosine, gradients clipped as
    in its training script; patch=2: pictures as 14x14 places of 2x2 pixels; DPM++(2M) from the level that its documentation asks for with this schedule, estimates held in [-1,1]"""
    from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
    from diffusers.training_utils import EMAModel
    plain, attn = len(channels) - attention, attention
    net = UNet2DModel(sample_size=28 // patch, in_channels=patch ** 2, out_channels=patch ** 2, layers_per_block=layers, block_out_channels=channels,
                      down_block_types=["DownBlock2D"] * plain + ["AttnDownBlock2D"] * attn, up_block_types=["AttnUpBlock2D"] * attn + ["UpBlock2D"] * plain)
    noising = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", prediction_type=target)
    opt, ema, count = opt(net, lr), EMAModel(net.parameters(), use_ema_warmup=True, power=.75), itertools.count()

    def predict(x, t): return F.pixel_shuffle(net(F.pixel_unshuffle(x, patch), t).sample, patch)

    def step(x, done):
        decayed(opt, lr, next(count), done)
        noise, t = torch.randn_like(x), torch.randint(1000, (len(x),))
        want = noise if target == "epsilon" else noising.get_velocity(x, noise, t)
        descend(opt, F.mse_loss(predict(noising.add_noise(x, noise, t), t), want), clip=1.)
        ema.step(net.parameters())

    @torch.no_grad()
    def draw(n, steps=40):
        ema.store(net.parameters())
        ema.copy_to(net.parameters())
        scheduler = DPMSolverMultistepScheduler.from_config(noising.config, thresholding=True, sample_max_value=1., lambda_min_clipped=-5.1)
        scheduler.set_timesteps(steps)
        x = torch.randn(n, 1, 28, 28)
        for t in scheduler.timesteps: x = scheduler.step(predict(x, t), t, x).prev_sample
        ema.restore(net.parameters())
        return x
    return SimpleNamespace(model=net, size=size, step=step, draw=draw, sampler="DPM++(2M) 40", evaluations=40)


def lucidrains(lr=1e-3):
    "denoising-diffusion-pytorch: v target, sigmoid schedule, its EMA, clipped gradients and batches of 32 as in its own Trainer's example; DDIM in 50 steps"
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA
    diffusion = GaussianDiffusion(Unet(dim=32, dim_mults=(1, 2, 4), channels=1, flash_attn=False), image_size=28, timesteps=1000, sampling_timesteps=50, objective="pred_v")
    opt, ema, count = torch.optim.Adam(diffusion.parameters(), lr, betas=(.9, .99)), EMA(diffusion, beta=.995, update_every=10), itertools.count()

    def step(x, done):
        decayed(opt, lr, next(count), done)
        descend(opt, diffusion((x + 1) / 2), clip=1.)
        ema.update()

    def draw(n): return 2 * ema.ema_model.sample(n).clone() - 1
    return SimpleNamespace(model=diffusion.model, size=32, step=step, draw=draw, sampler="DDIM 50", evaluations=50)


def smalldiffusion(ch, lr=7e-4):
    "smalldiffusion's example for 28x28 (64 channels), or cut to the budget (32); its accelerated sampler, gam 1.6"
    from smalldiffusion import ScheduleLogLinear, Scaled, Unet, samples
    net, schedule = Scaled(Unet)(28, 1, 1, ch=ch, ch_mult=(1, 1, 2), attn_resolutions=(14,)), ScheduleLogLinear(N=800, sigma_min=.01, sigma_max=20)
    opt, ema, count = torch.optim.AdamW(net.parameters(), lr), EMA(net, .999), itertools.count()

    def step(x, done):
        decayed(opt, lr, next(count), done)
        sigma, noise = schedule.sample_batch(x).view(-1, 1, 1, 1), torch.randn_like(x)
        descend(opt, net.get_loss(x, sigma, noise))
        ema.update(net)

    def draw(n): return last(samples(ema.model, schedule.sample_sigmas(40), gam=1.6, batchsize=n))
    return SimpleNamespace(model=net, size=128, step=step, draw=draw, sampler="accelerated 40", evaluations=40)


WHO = {
    "minidiff": ours,
    "minidiff, 28x28 places": lambda: ours(patch=False),
    "minidiff, batches of 128": lambda: ours(size=128),
    "minidiff, Muon": lambda: ours(opt=Muon),
    "minidiff, Muon, from sigma 20": lambda: ours(opt=Muon, decay=.995, sigma_max=20.),
    "minidiff, Muon, bfloat16": lambda: ours(opt=Muon, amp=torch.bfloat16),
    "minidiff, Heun": lambda: ours(sampler="heun", steps=20),
    "minidiff, shipped size": lambda: ours(channels=(24, 48, 64), patch=False, size=64),
    "minidiff, shipped size, Muon": lambda: ours(channels=(24, 48, 64), patch=False, size=64, opt=Muon),
    "plain 32-64-96": plain,
    "plain 32-64-96, 0.79 M": lambda: plain(convs=False),
    "toy UNet, x0": toy,
    "diffusers cut, v": lambda: diffusers(1, "v_prediction", attention=1),
    "diffusers cut, v, batch 32": lambda: diffusers(1, "v_prediction", attention=1, size=32),
    "diffusers cut, v, batch 32, 14x14 places": lambda: diffusers(1, "v_prediction", attention=1, size=32, channels=(32, 64), patch=2),
    "diffusers cut, v, batch 32, 14x14 places, Muon": lambda: diffusers(1, "v_prediction", attention=1, size=32, lr=3e-3, channels=(32, 64), patch=2, opt=Muon),
    "diffusers cut, eps": lambda: diffusers(1, "epsilon", attention=1),
    "diffusers course, eps": lambda: diffusers(2, "epsilon"),
    "denoising-diffusion-pytorch, v": lucidrains,
    "smalldiffusion cut": lambda: smalldiffusion(32),
    "smalldiffusion example": lambda: smalldiffusion(64)}


def run(who, seconds, seed, n, drawing, pictures=None):
    "Train, draw (on `drawing` threads), judge: one row of the table"
    torch.manual_seed(seed)
    images, test = mnist().images, mnist(False).images[torch.randperm(10_000)]
    contender, rng, steps = WHO[who](), torch.Generator().manual_seed(seed), 0
    began, wall = time.process_time(), time.perf_counter()
    while (spent := (time.process_time() - began) / THREADS) < seconds:
        contender.step(images[torch.randint(len(images), (contender.size,), generator=rng)], spent / seconds)
        steps += 1
    wall = time.perf_counter() - wall
    torch.manual_seed(seed)
    torch.set_num_threads(drawing)
    drawn = torch.cat([contender.draw(250) for _ in range(0, n, 250)])
    eyes = load("classifier")
    with torch.no_grad(): real, made, floor = (torch.cat([eyes.features(part) for part in x.split(500)]) for x in (images, drawn, test[:n]))
    torch.set_num_threads(THREADS)
    if pictures: show_images(drawn[:32], cols=16).save(pictures)
    return {"who": who, "seconds": seconds, "threads": THREADS, "seed": seed, "parameters": sum(p.numel() for p in contender.model.parameters()), "steps": steps,
            "images/s": steps * contender.size / spent, "wall s": wall, "sampler": contender.sampler, "evaluations": contender.evaluations, "n": n, "FID": fid(real, made), "floor": fid(real, floor)}


def main():
    args = options(__doc__, who=list(WHO), seconds=[180, 600], seed=[0, 1, 2], n=2000, drawing=THREADS, pictures="")
    for seconds, seed, who in itertools.product(args.seconds, args.seed, args.who): report("quality", [run(who, seconds, seed, args.n, args.drawing, args.pictures)], add=True)
    summary()


def summary():
    "All rows of results/quality.csv, by machine and budget: median, least and most FID of the runs, and the median as a multiple of ours"
    runs = {}
    with open(RESULTS / "quality.csv", newline="") as file:
        for row in csv.DictReader(file): runs.setdefault((row["where"].split(";")[0], float(row["seconds"]), row["n"], row["who"]), []).append(float(row["FID"]))
    for (machine, seconds, n, who), fids in sorted(runs.items()):
        mine = runs.get((machine, seconds, n, "minidiff"))
        print(f"{machine}  {seconds:5.0f} s  {n:>5} pictures  {who:42} FID {statistics.median(fids):6.1f} ({min(fids):.1f} to {max(fids):.1f}, {len(fids)} runs)"
              + (f"  {statistics.median(fids) / statistics.median(mine):5.2f} x ours" if mine else ""))


if __name__ == "__main__": main()
