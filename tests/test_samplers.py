"Every sampler against diffusers, textbook formulas and exact solutions, on a denoiser known in closed form, in float64"
import importlib.util, math, sys, types
import pytest, torch
from functools import partial
from minidiff.noise import SD, abar_to_sigma, exponential, karras, spaced
from minidiff.sample import adams, euler, heun, dpmpp_2m, lms, last, pairs, SAMPLERS

F64 = torch.float64
MEANS = torch.tensor([[-1., .5], [.8, .9], [.3, -1.]], dtype=F64)
WEIGHTS = torch.tensor([.5, .3, .2], dtype=F64)


def mixture(x, sigma, std=.25):
    "Exact denoiser of a mixture of three Gaussians in the plane; x [B,2]"
    mu, var = MEANS.to(x), std**2 + sigma**2
    w = (WEIGHTS.to(x).log() - torch.cdist(x, mu).square()/(2*var)).softmax(1)
    return x + sigma**2*(w@mu - x)/var


def gaussian(x, sigma, mean=.4, std=.5):
    return mean + std**2/(std**2 + sigma**2)*(x - mean)


def start(sigmas, n=64, seed=0):
    return sigmas[0].item()*torch.randn(n, 2, dtype=F64, generator=torch.Generator().manual_seed(seed))


def noises(n, like, seed=1):
    return list(torch.randn(n, *like.shape, dtype=F64, generator=torch.Generator().manual_seed(seed)))


class Torch64:
    "torch, but its float32 is float64: so that diffusers' own casts to float32 lose nothing"
    float32 = F64
    def __getattr__(self, name): return getattr(torch, name)


def feed(monkeypatch, name, sigmas, **kwargs):
    "A diffusers scheduler with exactly these noise levels, working in float64"
    module = importlib.import_module(f"diffusers.schedulers.scheduling_{name}")
    cls = next(c for n, c in vars(module).items() if n.endswith("Scheduler") and c.__module__ == module.__name__)
    sched = cls(num_train_timesteps=1000, beta_schedule="scaled_linear", beta_start=.00085, beta_end=.012, **kwargs)
    sched.set_timesteps(len(sigmas) - 1)
    sched.sigmas, sched.is_scale_input_called = sigmas.double(), True
    monkeypatch.setattr(module, "torch", Torch64())
    return sched, module


def worst(a, b): return (a.double() - b.double()).abs().max().item()


# --- against diffusers ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("eta", [0., .5, 1.])
def test_euler_is_diffusers_ddim(eta):
    "DDIMScheduler works in variance-preserving coordinates and eps: same numbers after x = x_vp/sqrt(abar)"
    from diffusers import DDIMScheduler
    sched = DDIMScheduler(beta_schedule="scaled_linear", beta_start=.00085, beta_end=.012, clip_sample=False,
                          set_alpha_to_one=True, timestep_spacing="trailing")
    sched.alphas_cumprod = sched.alphas_cumprod.double()
    sched.final_alpha_cumprod = torch.tensor(1., dtype=F64)
    sched.set_timesteps(20)
    abars = sched.alphas_cumprod[sched.timesteps]
    sigmas = torch.cat([abar_to_sigma(abars), torch.zeros(1, dtype=F64)])
    x = start(sigmas)
    fresh = noises(20, x)
    ours = list(euler(mixture, x, sigmas, eta=eta, noise=lambda x, it=iter(fresh): next(it)))
    y = x*abars[0].sqrt()
    for t, a, s, eps, want in zip(sched.timesteps, abars, sigmas, fresh, ours):
        x_ve = y/a.sqrt()
        out = (x_ve - mixture(x_ve, s.item()))/s
        y = sched.step(out, t, y, eta=eta, variance_noise=eps).prev_sample
        i = (sched.timesteps == t).nonzero().item()
        a2 = abars[i+1] if i + 1 < len(abars) else torch.tensor(1., dtype=F64)
        assert worst(y/a2.sqrt(), want) < 1e-10
    assert y.dtype == F64


def follow(sched, x, ours):
    "diffusers' loop for the schedulers whose state is x0 + sigma*eps, compared with ours at the end"
    for t in sched.timesteps:
        sigma = sched.sigmas[sched.step_index or 0].item()
        x = sched.step((x - mixture(x, sigma))/sigma, t, x).prev_sample
        assert x.dtype == F64
    assert worst(x, last(ours)) < 1e-10


@pytest.mark.parametrize("n", [5, 20])
def test_euler_is_diffusers_euler(monkeypatch, n):
    sigmas = karras(n, SD[0].item(), SD[-1].item())
    sched, _ = feed(monkeypatch, "euler_discrete", sigmas)
    follow(sched, start(sigmas), euler(mixture, start(sigmas), sigmas))


def test_eta_1_is_diffusers_euler_ancestral(monkeypatch):
    sigmas = karras(20, SD[0].item(), SD[-1].item())
    sched, module = feed(monkeypatch, "euler_ancestral_discrete", sigmas)
    fresh = noises(20, start(sigmas))
    monkeypatch.setattr(module, "randn_tensor", lambda shape, it=iter(fresh), **k: next(it))
    follow(sched, start(sigmas), euler(mixture, start(sigmas), sigmas, eta=1., noise=lambda x, it=iter(fresh): next(it)))


def test_heun_is_diffusers_heun(monkeypatch):
    sigmas = karras(20, SD[0].item(), SD[-1].item())
    sched, _ = feed(monkeypatch, "heun_discrete", sigmas)
    s = sigmas.double()
    sched.sigmas = torch.cat([s[:1], s[1:-1].repeat_interleave(2), s[-1:]])
    assert len(sched.sigmas) == len(sched.timesteps) + 1
    follow(sched, start(sigmas), heun(mixture, start(sigmas), sigmas))


@pytest.mark.parametrize("n", [2, 5, 20])
def test_dpmpp_2m_is_diffusers_multistep(monkeypatch, n):
    "Its state is variance-preserving: x_vp = x/sqrt(1+sigma^2)"
    sigmas = karras(n, SD[0].item(), SD[-1].item())
    sched, _ = feed(monkeypatch, "dpmsolver_multistep", sigmas, algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint",
                    final_sigmas_type="zero", euler_at_final=True, prediction_type="sample")
    y = start(sigmas)/(1 + sigmas[0].double()**2).sqrt()
    for s, t in zip(sigmas.double(), sched.timesteps):
        y = sched.step(mixture(y*(1 + s**2).sqrt(), s.item()), t, y).prev_sample
    assert worst(y, last(dpmpp_2m(mixture, start(sigmas), sigmas))) < 1e-10


def test_lms_is_diffusers_lms(monkeypatch):
    sigmas = karras(20, SD[0].item(), SD[-1].item())
    sched, _ = feed(monkeypatch, "lms_discrete", sigmas)
    follow(sched, start(sigmas), lms(mixture, start(sigmas), sigmas))


# --- against k-diffusion --------------------------------------------------------------------------------------------

def k_diffusion(module):
    "A module of k-diffusion, without its package's __init__, which asks for more"
    if "k_diffusion" not in sys.modules:
        spec = importlib.util.find_spec("k_diffusion")
        sys.modules["k_diffusion"] = package = types.ModuleType("k_diffusion")
        package.__path__, package.__spec__ = spec.submodule_search_locations, spec
    return importlib.import_module(f"k_diffusion.{module}")


@pytest.mark.parametrize("name, sampler, eta", [
    ("euler", euler, None), ("euler_ancestral", euler, .5), ("euler_ancestral", euler, 1.), ("heun", heun, None), ("dpmpp_2m", dpmpp_2m, None), ("lms", lms, None)])
def test_samplers_are_k_diffusions(name, sampler, eta):
    "Its own functions, the same levels and noise: the same walk"
    sigmas = karras(20, SD[0].item(), SD[-1].item()).double()
    x, fresh = start(sigmas), noises(20, start(sigmas))
    knobs = lambda noise: {} if eta is None else {"eta": eta, noise: lambda *_, it=iter(fresh): next(it)}
    theirs = getattr(k_diffusion("sampling"), f"sample_{name}")(lambda x, s: mixture(x, s[0].item()), x, sigmas, disable=True, **knobs("noise_sampler"))
    assert worst(theirs, last(sampler(mixture, x, sigmas, **knobs("noise")))) < 1e-12


def test_schedules_are_k_diffusions():
    k, ends = k_diffusion("sampling"), (SD[0].item(), SD[-1].item())
    assert torch.allclose(k.get_sigmas_karras(20, *ends), karras(20, *ends).float(), rtol=1e-5)
    assert torch.allclose(k.get_sigmas_exponential(20, *ends), exponential(20, *ends).float(), rtol=1e-5)
    theirs = k_diffusion("external").DiscreteSchedule(SD.float(), quantize=False).get_sigmas(20)
    assert (theirs - spaced(20, SD, "linspace")).abs().max() < 5e-6


# --- against the textbook -------------------------------------------------------------------------------------------

def test_eta_1_is_the_ddpm_posterior():
    "DDPM's q(x_{t-1}|x_t,x0), arXiv:2006.11239 eqs. 6-7, with betas, step by step"
    betas = torch.linspace(1e-4, .02, 1000, dtype=F64)
    abar = (1 - betas).cumprod(0)
    steps = [999, 998, 997, 500, 499, 10, 1]
    for t in steps:
        sigmas = torch.cat([abar_to_sigma(abar[[t, t-1]]), torch.zeros(1, dtype=F64)])
        x = start(sigmas)
        eps, = noises(1, x)
        ours = next(iter(euler(mixture, x, sigmas, eta=1., noise=lambda x: eps)))
        x_t, x0 = abar[t].sqrt()*x, mixture(x, sigmas[0].item())
        mean = (abar[t-1].sqrt()*betas[t]*x0 + (1 - betas[t]).sqrt()*(1 - abar[t-1])*x_t)/(1 - abar[t])
        std = (betas[t]*(1 - abar[t-1])/(1 - abar[t])).sqrt()
        assert worst((mean + std*eps)/abar[t-1].sqrt(), ours) < 1e-10


def test_heun_is_the_butcher_tableau():
    "Explicit trapezoid of dx/dsigma = (x - denoised)/sigma, with a last Euler step"
    f = lambda x, s: (x - mixture(x, s))/s
    sigmas = karras(10)
    x = y = start(sigmas)
    for s, s2 in zip(sigmas.double().tolist()[:-1], sigmas.double().tolist()[1:]):
        k1 = f(y, s)
        k2 = f(y + (s2 - s)*k1, s2) if s2 else k1
        y = y + (s2 - s)*(k1 + k2)/2
    assert worst(last(heun(mixture, x, sigmas)), y) < 1e-12


@pytest.mark.parametrize("sampler, order", [(euler, 1), (heun, 2), (dpmpp_2m, 2), (partial(lms, order=1), 1), (partial(lms, order=2), 2)])
def test_order_of_convergence_on_the_exact_solution(sampler, order):
    "For Gaussian data x(s) = mean + (x(s0) - mean)*sqrt((d^2+s^2)/(d^2+s0^2)) solves the ODE exactly"
    def error(n):
        sigmas = karras(n, .02, 10.)
        x = start(sigmas)
        exact = .4 + (x - .4)*math.sqrt((.25 + sigmas[-2].double()**2)/(.25 + sigmas[0].double()**2))
        *_, before_last, _ = sampler(gaussian, x, sigmas)
        return worst(before_last, exact)
    slope = math.log(error(64)/error(512))/math.log(8)
    assert abs(slope - order) < .15, slope


def test_ancestral_keeps_the_variance_of_gaussian_data():
    "With fresh noise the spread of the samples is that of the data, up to Monte Carlo error"
    sigmas = karras(200, .01, 20.)
    torch.manual_seed(0)
    for eta in (0., .5, 1.):
        out = last(euler(gaussian, start(sigmas, 20_000), sigmas, eta=eta))
        assert abs(out.mean().item() - .4) < .02 and abs(out.std().item() - .5) < .02, eta


def test_scipy_finds_the_same_end():
    from scipy.integrate import solve_ivp
    sigmas = karras(400, .01, 10.)
    x = start(sigmas, 4)
    f = lambda s, y: ((lambda v: (v - mixture(v, s))/s)(torch.tensor(y).view(4, 2))).flatten().numpy()
    want = torch.tensor(solve_ivp(f, (sigmas[0].item(), sigmas[-2].item()), x.flatten().numpy(), rtol=1e-10, atol=1e-12).y[:, -1]).view(4, 2)
    for sampler in (heun, dpmpp_2m):
        *_, got, _ = sampler(mixture, x, sigmas)
        assert worst(got, want) < 1e-3


# --- what every sampler promises ------------------------------------------------------------------------------------

EVERY = [euler, partial(euler, eta=1.), heun, dpmpp_2m, lms]

@pytest.mark.parametrize("sampler", EVERY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_length_and_last_denoised(sampler, dtype):
    sigmas = karras(7)
    x = start(sigmas).to(dtype)
    seen = []
    def denoise(x, s):
        seen.append(mixture(x.float() if dtype == torch.bfloat16 else x, s))
        return seen[-1]
    xs = list(sampler(denoise, x, sigmas))
    assert len(xs) == 7 and all(y.dtype == dtype and y.shape == x.shape for y in xs)
    if sampler is not lms: assert torch.equal(xs[-1], seen[-1].to(dtype))


@pytest.mark.parametrize("sampler", EVERY)
def test_no_graph_and_no_leak_of_no_grad(sampler):
    w = torch.ones(1, requires_grad=True)
    for x in sampler(lambda x, s: w*gaussian(x, s), torch.ones(2, 2), karras(3)):
        assert not x.requires_grad and torch.is_grad_enabled()


def test_adams_integrates_what_goes_through_its_knots():
    "Exact for polynomials of a degree below the number of knots, on uneven levels, down to 0; not for the next degree"
    for knots in ([3.], [2., 5.], [1., 2., 4.5], [.3, .5, .9, 2.]):
        for b in (.2, 0.):
            a, n = knots[0], len(knots)
            miss = [abs(sum(w*k**d for w, k in zip(adams(knots, a, b), knots)) - (b**(d+1) - a**(d+1))/(d+1)) for d in range(n + 1)]
            assert max(miss[:-1]) < 1e-12 < 1e-3 < miss[-1]
    assert torch.allclose(torch.tensor(adams([4., 3., 2., 1.], 4., 5.)), torch.tensor([55., -59., 37., -9.])/24)  # Adams and Bashforth's four steps


def test_lms_reaches_fourth_order():
    "Once its first steps, which know no past, no longer count: here against its own 4,000 steps"
    def ends(n):
        *_, x, _ = lms(mixture, start(karras(n, .02, 10.)), karras(n, .02, 10.))
        return x
    truth, error = ends(4000), {}
    for n in (65, 257): error[n] = (ends(n) - truth).square().mean().sqrt().item()
    assert 3.5 < math.log(error[65]/error[257])/math.log(4) < 4.5


@pytest.mark.parametrize("sampler", EVERY)
@pytest.mark.parametrize("bad, says", [
    (torch.tensor([1., 2., 0.]), "decrease"), (torch.tensor([2., 1.]), "end in 0"), (torch.tensor([[2., 0.]]), "1-D"),
    (torch.tensor([2., 2., 0.]), "decrease"), (torch.tensor([math.inf, 1., 0.]), "finite"), (torch.tensor([math.nan, 0.]), "finite"),
    (torch.tensor([0.]), "at least 2"), (torch.tensor([]), "at least 2"), (torch.tensor(3.), "1-D"), (torch.tensor([2., 1., -1.]), "end in 0"),
])
def test_bad_schedules_are_named(sampler, bad, says):
    with pytest.raises(ValueError, match=says): last(sampler(gaussian, torch.ones(1, 2), bad))


def test_lms_remembers_something():
    with pytest.raises(ValueError, match="order 0"): last(lms(gaussian, torch.ones(1, 2), karras(3), order=0))


@pytest.mark.parametrize("eta", [-.1, 1.5, math.nan])
def test_bad_eta(eta):
    with pytest.raises(ValueError, match="eta"): last(euler(gaussian, torch.ones(1, 2), karras(3), eta=eta))


def test_calls_per_step():
    calls = []
    def denoise(x, s):
        calls.append(s)
        return gaussian(x, s)
    for sampler, want in [(euler, 10), (heun, 19), (dpmpp_2m, 10), (lms, 10)]:
        calls.clear()
        last(sampler(denoise, torch.ones(1, 2), karras(10)))
        assert len(calls) == want and all(isinstance(s, float) and s > 0 for s in calls)


def test_schedule_may_be_a_list_and_start_late():
    sigmas = karras(10)
    x = start(sigmas)
    assert torch.equal(last(heun(mixture, x, sigmas.tolist())), last(heun(mixture, x, sigmas)))
    *_, = xs = list(euler(mixture, x, sigmas))
    assert worst(last(euler(mixture, xs[3], sigmas[4:])), xs[-1]) == 0
    assert pairs([2., 1., 0.]) == [(2., 1.), (1., 0.)]


def test_every_named_sampler_runs():
    for name, sampler in SAMPLERS.items():
        assert last(sampler(mixture, start(karras(5)), karras(5))).isfinite().all(), name
    assert last(iter([])) is None
