"One loss in four targets, Tweedie's formula, the ideal denoiser, half precision and hostile input"
import pytest, torch
from torch import nn
from minidiff.denoise import clean, eps, v, flow, edm, expand, log_time, Denoiser, score, ideal_denoiser

F64 = torch.float64
PARAMS = [eps, clean, v, flow, edm]


class Affine(nn.Module):
    "A stand-in for a net, that knows its inputs"
    def __init__(self):
        super().__init__()
        self.w = nn.Linear(1, 1)
    def forward(self, x, t, ctx=None):
        self.seen = x, t, ctx
        return self.w(x[..., None])[..., 0]


@pytest.mark.parametrize("param", PARAMS)
def test_input_is_scaled_and_target_as_named(param):
    s = torch.tensor([.01, .3, 1., 7., 80.], dtype=F64).view(-1, 1, 1, 1)
    g = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 5, 1, 8, 8, dtype=F64, generator=g)
    c_skip, c_out, c_in = param(s)
    assert c_skip.shape == c_out.shape == c_in.shape == s.shape
    target = (x0 - c_skip*(x0 + s*noise))/c_out
    named = dict(eps=noise, clean=x0, v=(noise - s*x0)/(1 + s**2).sqrt(), flow=noise - x0)
    if param is edm:
        named["edm"] = (s*x0 - .25*noise/1)/(.5*(s**2 + .25).sqrt())
    assert (target - named[param.__name__]).abs().max() < 1e-8


@pytest.mark.parametrize("param", PARAMS)
def test_all_targets_are_one_loss(param):
    "Dividing by c_out^2 turns each target's MSE into the MSE of x0, whatever the denoiser"
    g = torch.Generator().manual_seed(1)
    x0, noise = torch.randn(2, 6, 1, 4, 4, dtype=F64, generator=g)
    s = torch.logspace(-2, 1.5, 6, dtype=F64)
    model = Denoiser(Affine().double(), param)
    error = (model(x0 + expand(s, x0)*noise, s) - x0).square().flatten(1).mean(1)
    c_out = param(s)[1]
    assert (model.loss(x0, s, noise)*c_out**2/error - 1).abs().max() < 1e-9


@pytest.mark.parametrize("param", PARAMS)
def test_a_perfect_net_is_a_perfect_denoiser(param):
    x0, noise = torch.randn(2, 3, 1, 4, 4, dtype=F64, generator=torch.Generator().manual_seed(2))
    s = torch.tensor([.1, 1., 10.], dtype=F64)
    c_skip, c_out, c_in = param(expand(s, x0))
    x = x0 + expand(s, x0)*noise
    model = Denoiser(lambda x_in, t: (x0 - c_skip*x)/c_out, param)
    assert (model(x, s) - x0).abs().max() < 1e-12
    assert model.loss(x0, s, noise).max() < 1e-20


@pytest.mark.parametrize("param", PARAMS)
def test_params_take_floats(param):
    want = [c.item() for c in param(torch.tensor(3., dtype=F64))]
    assert list(param(3.)) == pytest.approx(want)


def test_sigma_in_every_form():
    x = torch.randn(3, 1, 4, 4, dtype=F64)
    model = Denoiser(Affine().double(), v)
    want = model(x, 2.)
    for s in (2, torch.tensor(2.), torch.tensor([2.]), torch.full((3,), 2.), torch.full((3, 1, 1, 1), 2.)):
        assert torch.equal(model(x, s), want)
        assert expand(s, x).shape == (3, 1, 1, 1) and expand(s, x).dtype == F64
    assert model.net.seen[1].shape == (3,)
    assert (model.net.seen[1] - log_time(torch.tensor(2., dtype=F64))).abs().max() == 0


def test_sigma_of_the_wrong_length():
    x = torch.randn(3, 1, 4, 4)
    for s in (torch.ones(2), torch.ones(4), torch.ones(0)):
        with pytest.raises(ValueError, match="batch of 3"): expand(s, x)
    with pytest.raises(TypeError): expand("high", x)


def test_half_precision_inside_only():
    x = torch.randn(2, 1, 4, 4)
    for amp in (None, torch.bfloat16):
        model = Denoiser(Affine(), edm, amp=amp)
        out = model(x, 1.)
        assert out.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        assert model.loss(x, torch.ones(2), x).dtype == torch.float32
        assert model(x.bfloat16(), 1.).dtype == torch.float32
    assert Denoiser(Affine().double(), edm)(x.double(), 1.).dtype == F64


def test_conditions_reach_the_net():
    model = Denoiser(Affine(), eps)
    ctx = torch.ones(2, 5)
    model(torch.zeros(2, 1, 4, 4), 1., ctx=ctx)
    assert model.net.seen[2] is ctx
    with pytest.raises(TypeError): model(torch.zeros(2, 1, 4, 4), 1., colour="red")


def test_tweedie_on_a_gaussian():
    x = torch.linspace(-3, 3, 7, dtype=F64)[:, None].requires_grad_()
    sigma, std = .7, .5
    log_p = -x.square()/(2*(std**2 + sigma**2))
    want, = torch.autograd.grad(log_p.sum(), x)
    got = score(lambda x, s: x*std**2/(std**2 + s**2), x, sigma)
    assert (got - want).abs().max() < 1e-12


def test_ideal_denoiser_is_the_gradient_of_the_log_density():
    g = torch.Generator().manual_seed(3)
    data = torch.randn(50, 1, 3, 3, dtype=F64, generator=g)
    x = torch.randn(7, 1, 3, 3, dtype=F64, generator=g).requires_grad_()
    sigma = torch.tensor([.3, .5, 1., 2., 4., 8., 80.], dtype=F64)
    d2 = torch.cdist(x.flatten(1), data.flatten(1)).square()
    want, = torch.autograd.grad((-d2/(2*sigma[:, None]**2)).logsumexp(1).sum(), x)
    denoise = ideal_denoiser(data, rows=3)
    assert (score(denoise, x, sigma) - want).abs().max() < 1e-10


def test_ideal_denoiser_limits():
    data = torch.randn(40, 1, 5, 5, generator=torch.Generator().manual_seed(4))
    denoise = ideal_denoiser(data)
    assert (denoise(data[:8] + .01*torch.randn(8, 1, 5, 5), .01) - data[:8]).abs().max() < 1e-5
    assert (denoise(1e4*torch.randn(3, 1, 5, 5), 1e4) - data.mean(0)).abs().max() < 1e-2
    assert denoise(data[:5].double(), 1.).dtype == F64


def test_denoiser_is_a_module():
    model = Denoiser(Affine(), edm)
    assert set(model.state_dict()) == {"net.w.weight", "net.w.bias"}
    model.loss(torch.randn(4, 1, 2, 2), torch.rand(4), torch.randn(4, 1, 2, 2)).mean().backward()
    assert model.net.w.weight.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ideal_denoiser_computes_in_float32(dtype):
    data = torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    x = data[:2].to(dtype)
    out = ideal_denoiser(data)(x, .5)
    assert out.dtype == torch.float32 and (out - data[:2]).abs().max() < 1e-3
