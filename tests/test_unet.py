"The UNet against diffusers: the same keys, the same shapes, the same numbers"
import copy
from dataclasses import replace

import pytest
import torch

from minidiff.denoise import Denoiser, eps
from minidiff.layers import time_features, zero_init
from minidiff.unet import SD15, SD21, SDXL, SDXL_REFINER, UNet, UNetConfig

import diffusers


def twin(c):
    "diffusers' network of the same config"
    common = dict(in_channels=c.in_channels, out_channels=c.out_channels, block_out_channels=c.channels, layers_per_block=c.layers,
                  norm_num_groups=c.groups)
    if not c.mid:
        n = len(c.channels)
        return diffusers.UNet2DModel(down_block_types=("DownBlock2D",) * n, up_block_types=("UpBlock2D",) * n, add_attention=False, **common)
    down = ["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in c.depth]
    up = ["CrossAttnUpBlock2D" if d else "UpBlock2D" for d in reversed(c.depth)]
    depth = tuple(d or 1 for d in c.depth[:-1]) + (c.mid,)
    extra = dict(addition_embed_type="text_time", addition_time_embed_dim=c.vec_time_dim, projection_class_embeddings_input_dim=c.vec_dim)
    net = diffusers.UNet2DConditionModel(
        down_block_types=tuple(down), up_block_types=tuple(up), transformer_layers_per_block=depth, attention_head_dim=c.heads,
        cross_attention_dim=c.ctx_dim or 8, use_linear_projection=c.linear_proj, **common, **(extra if c.vec_dim else {}))
    for m in net.modules():  # they have no name for transformer blocks without text, but their blocks can do without
        if hasattr(m, "attn2") and not c.ctx_dim: m.attn2 = m.norm2 = None
    return net


def shapes(module):
    return {k: tuple(v.shape) for k, v in module.state_dict().items()}


def shaken(module):
    "The same network in float64 with every parameter moved, so that no norm is 1 and no bias 0"
    torch.manual_seed(0)
    for p in module.parameters(): p.data.add_(0.1 * torch.randn_like(p))
    return module.double().eval()


@pytest.mark.parametrize("config,keys,count", [(SD15, 686, 859_520_964), (SD21, 686, 865_910_724), (SDXL, 1680, 2_567_463_684),
                                               (SDXL_REFINER, 1220, 2_259_526_660)])
def test_published_shapes(config, keys, count):
    with torch.device("meta"):
        ours, theirs = UNet(config), twin(config)
    assert shapes(ours) == shapes(theirs)
    assert len(shapes(ours)) == keys
    assert sum(p.numel() for p in ours.parameters()) == count


COURSE = UNetConfig(channels=(64, 128), depth=1, heads=4, ctx_dim=128, groups=16)
SMALL = {
    "course": COURSE,
    "sd": UNetConfig(channels=(32, 64, 64, 96), heads=(2, 4, 8, 4), ctx_dim=24, groups=16),
    "sd2": UNetConfig(channels=(32, 64), depth=(1, 0), heads=(2, 8), ctx_dim=20, linear_proj=True, layers=1),
    "xl": UNetConfig(channels=(32, 64, 96), depth=(0, 2, 3), heads=(1, 2, 3), ctx_dim=40, linear_proj=True, vec_dim=76, vec_time_dim=6),
    "refiner": UNetConfig(channels=(32, 64, 64), depth=(0, 2, 0), heads=(1, 2, 4), ctx_dim=16, linear_proj=True, vec_dim=30, vec_time_dim=4),
    "no text": UNetConfig(channels=(32, 64), depth=(0, 2), heads=(2, 4), ctx_dim=None, layers=1),
    "pixels": UNetConfig(in_channels=1, out_channels=1, channels=(32, 64, 96), layers=1, depth=0, ctx_dim=None),
}


def inputs(c, size):
    torch.manual_seed(1)
    x, t = torch.randn(2, c.in_channels, *size).double(), torch.tensor([3.7, 871.2])
    ctx = torch.randn(2, 7, c.ctx_dim).double() if c.ctx_dim else None
    return x, t, ctx, torch.randn(2, c.vec_dim).double() if c.vec_dim else None


def theirs_on(net, c, x, t, ctx, vec):
    if not c.mid: return net(x, t).sample
    if vec is None: return net(x, t, encoder_hidden_states=ctx).sample
    # their text_time embedding builds the vector from two parts; the wide one is passed straight through
    net.add_time_proj = torch.nn.Identity()
    return net(x, t, encoder_hidden_states=ctx, added_cond_kwargs=dict(text_embeds=vec[:, :10], time_ids=vec[:, 10:])).sample


@pytest.mark.parametrize("name, size", [(n, s) for n in SMALL for s in [(16, 16), (28, 20)] + [(13, 7)] * bool(SMALL[n].mid)])
def test_numbers(name, size):
    "Odd sizes too where theirs can take them (not without attention: ours are tried below)"
    c = SMALL[name]
    theirs = shaken(twin(c))
    ours = UNet(c).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x, t, ctx, vec = inputs(c, size)
    with torch.no_grad(): a, b = ours(x, t, ctx, vec), theirs_on(theirs, c, x, t, ctx, vec)
    assert a.shape == b.shape
    assert (a - b).norm() / b.norm() < 1e-12


@pytest.mark.parametrize("size", [(28, 28), (7, 5), (1, 1)])
def test_odd_sizes(size):
    c = SMALL["pixels"]
    assert UNet(c)(torch.randn(2, 1, *size), torch.rand(2)).shape == (2, 1, *size)


@pytest.mark.parametrize("break_it", ["resnet eps", "transformer eps"])
def test_the_comparison_sees_a_wrong_eps(break_it):
    theirs = shaken(twin(COURSE))
    ours = UNet(COURSE).double()
    ours.load_state_dict(theirs.state_dict())
    for m in ours.modules():
        if isinstance(m, torch.nn.GroupNorm) and m.eps == dict(resnet=1e-5, transformer=1e-6)[break_it.split()[0]]: m.eps = 1.1e-5 - m.eps
    x, t, ctx, vec = inputs(COURSE, (8, 8))
    with torch.no_grad(): a, b = ours(x, t, ctx), theirs(x, t, encoder_hidden_states=ctx).sample
    assert (a - b).norm() / b.norm() > 1e-8


def test_time_features_are_theirs():
    from diffusers.models.embeddings import get_timestep_embedding
    t = torch.tensor([0., 0.25, 12.5, 999.])
    assert torch.equal(time_features(t, 64), get_timestep_embedding(t, 64, flip_sin_to_cos=True, downscale_freq_shift=0))
    assert time_features(t.double(), 64).dtype == torch.float64 and time_features(t.long(), 64).dtype == torch.float32


def test_course_model_size():
    with torch.device("meta"): assert round(sum(p.numel() for p in UNet(COURSE).parameters()) / 1e6, 2) == 6.27


def test_float64_bf16_channels_last_and_gradients():
    torch.manual_seed(0)
    net = UNet(COURSE)
    x, t, ctx, _ = inputs(COURSE, (8, 8))
    x, ctx = x.float(), ctx.float()
    full = net(x, t, ctx)
    last = copy.deepcopy(net).to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), t, ctx)
    assert (last - full).abs().max() < 1e-4
    assert (copy.deepcopy(net).double()(x.double(), t, ctx.double()) - full).abs().max() < 1e-4
    with torch.autocast("cpu", torch.bfloat16): half = net(x, t, ctx)
    assert (half.float() - full).norm() / full.norm() < 0.05
    assert copy.deepcopy(net).bfloat16()(x.bfloat16(), t, ctx.bfloat16()).dtype == torch.bfloat16
    full.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_compiles_whole():
    net = UNet(SMALL["sd2"])
    x, t, ctx, _ = inputs(SMALL["sd2"], (8, 8))
    out = torch.compile(net, backend="aot_eager", fullgraph=True)(x.float(), t, ctx.float())
    assert (out - net(x.float(), t, ctx.float())).abs().max() < 1e-5


def test_zero_init_starts_from_zero():
    net = zero_init(UNet(COURSE))
    x, t, ctx, _ = inputs(COURSE, (8, 8))
    assert not net(x.float(), t, ctx.float()).any()
    loss = Denoiser(net, eps).loss(x.float(), torch.tensor([1., 2.]), torch.randn(2, 4, 8, 8), ctx=ctx.float())
    loss.mean().backward()
    assert net.conv_out.weight.grad.abs().max() > 0


@pytest.mark.parametrize("bad,word", [
    (dict(channels=(64, 100)), "100"), (dict(channels=(64, 128), groups=48), "48"), (dict(heads=(4, 3)), "3 heads"), (dict(heads=(4, 4, 4)), "heads"),
    (dict(depth=(1, 1, 1)), "depth"), (dict(depth=0), "ctx_dim"), (dict(layers=0), "layers"), (dict(channels=()), "channels"),
    (dict(heads=(4, 0)), "heads"), (dict(depth=(1, -1)), "depth")])
def test_bad_configs_are_refused(bad, word):
    with pytest.raises(ValueError, match=word): replace(COURSE, **bad)


@pytest.mark.parametrize("bad,word", [
    (dict(x=torch.zeros(2, 3, 8, 8)), "x is"), (dict(x=torch.zeros(4, 8, 8)), "x is"), (dict(t=torch.zeros(3)), "t is"), (dict(t=torch.zeros(())), "t is"),
    (dict(t=3.), "t is"), (dict(ctx=None), "ctx is"), (dict(ctx=torch.zeros(2, 7, 100)), "ctx is"), (dict(ctx=torch.zeros(1, 7, 128)), "ctx is"),
    (dict(ctx=torch.zeros(2, 128)), "ctx is"), (dict(vec=torch.zeros(2, 5)), "vec is")])
def test_bad_inputs_are_refused(bad, word):
    good = dict(x=torch.zeros(2, 4, 8, 8), t=torch.zeros(2), ctx=torch.zeros(2, 7, 128))
    with pytest.raises(ValueError, match=word): UNet(COURSE)(**{**good, **bad})


@pytest.mark.parametrize("name", ["sd", "xl", "refiner"])
def test_numbers_in_float32(name):
    "With their own sines, of the time and of SDXL's five or six numbers"
    c = SMALL[name]
    theirs, ours = shaken(twin(c)).float(), UNet(c)
    ours.load_state_dict(theirs.state_dict())
    x, t, ctx, _ = inputs(c, (16, 16))
    x, ctx, vec, more = x.float(), ctx.float(), None, {}
    if c.vec_dim:
        told = torch.tensor([[1024., 768, 0, 17, 1024, 1024], [300, 200, 5, 0, 512, 640]])[:, :6 if name == "xl" else 5]
        pooled = torch.randn(2, c.vec_dim - told.shape[1] * c.vec_time_dim)
        vec = torch.cat([pooled, time_features(told.flatten(), c.vec_time_dim).view(2, -1)], 1)
        more = dict(added_cond_kwargs=dict(text_embeds=pooled, time_ids=told))
    with torch.no_grad(): a, b = ours(x, t, ctx, vec), theirs(x, t, encoder_hidden_states=ctx, **more).sample
    assert (a - b).norm() / b.norm() <= 5e-6
