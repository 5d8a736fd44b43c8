"Schedules against published numbers and diffusers"
import math
import pytest, torch
from minidiff.noise import (karras, exponential, linear_sigmas, flow_sigmas, abar_to_sigma, sigma_to_abar, scaled_linear,
    linear_betas_table, cosine_table, sigma_to_t, t_to_sigma, spaced, SD, lognormal, logit_normal_flow, uniform_t)


def test_stable_diffusion_ends():
    assert SD.shape == (1000,) and SD.dtype == torch.float32
    assert SD[0].item() == pytest.approx(.0291675, abs=5e-7) and SD[-1].item() == pytest.approx(14.61465, abs=1e-5)
    assert sigma_to_abar(SD[-1]).item() == pytest.approx(.0046601, abs=5e-7)
    assert sigma_to_abar(SD[0]).item() == pytest.approx(.99915, abs=5e-6)


LO, HI = .0291675, 14.61465
@pytest.mark.parametrize("sigmas, golden", [
    (lambda: spaced(5, SD, "leading"), [5.1344, 2.2929, 1.1682, .5741, .0413, 0]),
    (lambda: spaced(5, SD, "trailing"), [14.6146, 5.0878, 2.2765, 1.1606, .5693, 0]),
    (lambda: spaced(5, SD, "linspace"), [14.6146, 4.0861, 1.6156, .6952, .0292, 0]),
    (lambda: karras(5, LO, HI), [14.6146, 4.7965, 1.2741, .2480, .0292, 0]),
    (lambda: exponential(5, LO, HI), [14.6146, 3.0890, .6529, .1380, .0292, 0]),
])
def test_goldens(sigmas, golden):
    assert (sigmas() - torch.tensor(golden)).abs().max() < 1e-4


@pytest.mark.parametrize("kwargs, ours", [
    (dict(beta_schedule="scaled_linear", beta_start=.00085, beta_end=.012), scaled_linear),
    (dict(beta_schedule="linear", beta_start=1e-4, beta_end=.02), linear_betas_table),
    (dict(beta_schedule="squaredcos_cap_v2"), cosine_table),
])
def test_tables_are_diffusers(kwargs, ours):
    from diffusers import DDPMScheduler
    abar = DDPMScheduler(**kwargs).alphas_cumprod.double()
    assert (ours()/abar_to_sigma(abar) - 1).abs().max() < 2e-3   # theirs is multiplied up in float32
    assert (sigma_to_abar(ours().double()) - abar).abs().max() < 1e-6
    assert (ours()[1:] > ours()[:-1]).all()


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("n", [1, 4, 20, 50])
def test_spacings_are_diffusers(spacing, n):
    from diffusers import EulerDiscreteScheduler
    sched = EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=.00085, beta_end=.012, timestep_spacing=spacing, steps_offset=1)
    sched.set_timesteps(n)
    ours = spaced(n, SD, spacing)
    assert ours.shape == (n + 1,)
    if (n, spacing) != (1, "linspace"):    # diffusers starts at t = 0 there: no noise at all
        assert (ours - sched.sigmas).abs().max() < (1e-4 if spacing == "linspace" else 5e-5)  # theirs interpolates sigma itself between the table's entries


@pytest.mark.parametrize("n", [5, 20])
def test_karras_and_exponential_are_diffusers(n):
    from diffusers import EulerDiscreteScheduler
    for ours, kwargs in [(karras, dict(use_karras_sigmas=True)), (exponential, dict(use_exponential_sigmas=True))]:
        sched = EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=.00085, beta_end=.012, timestep_spacing="linspace", **kwargs)
        sched.set_timesteps(n)
        assert (ours(n, LO, HI) - sched.sigmas).abs().max() < 5e-6


@pytest.mark.parametrize("schedule", [karras, exponential, linear_sigmas, flow_sigmas, spaced])
@pytest.mark.parametrize("n", [1, 2, 3, 100])
def test_every_schedule_decreases_to_0(schedule, n):
    s = schedule(n)
    assert s.shape == (n + 1,) and s.dtype == torch.float32 and s[-1] == 0 and (s[:-1] > s[1:]).all()


def test_ends_are_met():
    for schedule in (karras, exponential, linear_sigmas):
        s = schedule(10, .1, 5.)
        assert s[0].item() == pytest.approx(5., rel=1e-6) and s[-2].item() == pytest.approx(.1, rel=1e-6)
    assert flow_sigmas(4, 1 - 1e-3)[0].item() == pytest.approx(999, rel=1e-5)
    assert (flow_sigmas(4, shift=3.)/flow_sigmas(4))[:-1].allclose(torch.tensor(3.))


def test_shift_is_sd3s():
    t = torch.linspace(.999, 0, 11, dtype=torch.float64)[:-1]
    moved = 3*t/(1 + 2*t)
    assert (flow_sigmas(10, shift=3.)[:-1] - moved/(1 - moved)).abs().max() < 1e-3


def test_abar_round_trip():
    s = torch.logspace(-3, 3, 50, dtype=torch.float64)
    assert (abar_to_sigma(sigma_to_abar(s))/s - 1).abs().max() < 1e-9
    assert abar_to_sigma(.5) == 1 and sigma_to_abar(1.) == .5


def test_t_round_trip_and_log_interpolation():
    t = torch.linspace(0, 999, 333, dtype=torch.float64)
    assert (sigma_to_t(t_to_sigma(t)) - t).abs().max() < 1e-6
    middle = (SD[10]*SD[11]).sqrt()
    assert sigma_to_t(middle).item() == pytest.approx(10.5, abs=1e-2)
    assert t_to_sigma(torch.tensor(999)).item() == pytest.approx(SD[-1].item(), rel=1e-6)
    assert t_to_sigma(0).item() == pytest.approx(SD[0].item(), rel=1e-6)


def test_t_is_clamped_and_keeps_shape():
    assert sigma_to_t(1e3).item() == 999 and sigma_to_t(0.).item() == 0 and sigma_to_t(1e-9).item() == 0
    assert sigma_to_t(torch.ones(2, 1, 1)).shape == (2, 1, 1)
    assert t_to_sigma(5000.).item() == pytest.approx(SD[-1].item()) and t_to_sigma(-3).item() == pytest.approx(SD[0].item())


def test_hostile_spacing():
    for n in (0, -1, 1001):
        with pytest.raises(ValueError, match="1 to 1000"): spaced(n)
    with pytest.raises(ValueError, match="'sideways'.*trailing"): spaced(5, SD, "sideways")


@pytest.mark.parametrize("schedule", [karras, exponential, linear_sigmas, flow_sigmas])
def test_hostile_schedules(schedule):
    for n in (0, -3):
        with pytest.raises(ValueError, match="step"): schedule(n)


def test_hostile_range():
    for schedule in (karras, exponential, linear_sigmas):
        for lo, hi in ((0., 1.), (-1., 1.), (2., 1.), (1., 1.), (math.nan, 1.), (.1, math.inf)):
            with pytest.raises(ValueError, match="sigma"): schedule(5, lo, hi)
    for t in (0., 1., 1.5):
        with pytest.raises(ValueError, match="t_max"): flow_sigmas(5, t)


def test_training_distributions():
    g = torch.Generator().manual_seed(0)
    s = lognormal(200_000, generator=g).log()
    assert abs(s.mean() + 1.2) < .02 and abs(s.std() - 1.2) < .02
    s = logit_normal_flow(200_000, generator=g)
    logit = torch.logit((s/(1 + s)).double())
    assert abs(logit.mean()) < .02 and abs(logit.std() - 1) < .02
    t = sigma_to_t(uniform_t(50_000, SD, generator=g))
    assert abs(t.mean() - 499.5) < 5 and t.min() < 2 and t.max() > 997
    a, b = (lognormal(4, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(a, b)


def test_middle_levels_are_logit_normal():
    from minidiff.noise import middle_t
    t = torch.searchsorted(SD, middle_t(20_000, generator=torch.Generator().manual_seed(0))).double()
    logit = torch.log((t + .5) / (len(SD) - .5 - t))
    assert abs(logit.mean()) < .03 and abs(logit.std() - .9) < .02
    assert torch.isin(middle_t(1000, spread=9.), SD).all()


def test_leading_with_every_step():
    assert torch.equal(spaced(1000, SD, "leading")[:-1], SD.flip(0).float())
