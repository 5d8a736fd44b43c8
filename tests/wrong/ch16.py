"Typical wrong answers of chapter 16: each must get the cross"
CHAIN = "from minidiff.sample import dpmpp_2m, euler, last\nfrom itertools import islice\n"
WRONG = {
    "16.1": [
        "def rows(n, steps, sampler, scale):\n    return n*steps",
        "def rows(n, steps, sampler, scale):\n    return 2*n*steps*(2 if sampler == 'heun' else 1)",
        "def rows(n, steps, sampler, scale):\n    return n*(2*steps - 1 if sampler == 'heun' else steps)*2",
    ],
    "16.2": [
        "def fit_preview(z, x):\n    s = torch.nn.functional.avg_pool2d(x, 8).movedim(1, -1).reshape(-1, 3)\n    return torch.linalg.lstsq(z.movedim(1, -1).reshape(-1, 4), s).solution.T, torch.zeros(3)",
        "def fit_preview(z, x):\n    s = torch.nn.functional.avg_pool2d(x, 8).reshape(-1, 3)\n    r = torch.cat([z.reshape(-1, 4), torch.ones(z.numel()//4, 1)], 1)\n    m = torch.linalg.lstsq(r, s).solution\n    return m[:4].T, m[4]",
        "def fit_preview(z, x):\n    return torch.randn(3, 4), x.mean((0, 2, 3))",
        "def fit_preview(z, x):\n    s = x[:, :, ::8, ::8].movedim(1, -1).reshape(-1, 3)\n    r = z.movedim(1, -1).reshape(-1, 4)\n    m = torch.linalg.lstsq(torch.cat([r, torch.ones(len(r), 1)], 1), s).solution\n    return m[:4].T, m[4]",
    ],
    "16.3": [
        "def blend(model, a, b, t, seed=0, steps=10, scale=4.):\n    x, y = (model.images(c, seed=seed, steps=steps, scale=scale) for c in (a, b))\n    return torch.lerp(x, y, float(t))",
        "def blend(model, a, b, t, seed=0, steps=10, scale=4.):\n    return model.images(a if t < .5 else b, seed=seed, steps=steps, scale=scale)",
        CHAIN + "def blend(model, a, b, t, seed=0, steps=10, scale=4.):\n    m = torch.lerp(model.context([a])['ctx'], model.context([b])['ctx'], float(t))\n    s = spaced(steps)\n"
        "    d = cfg(model.denoise, dict(ctx=m), model.context([a]), scale)\n    return model.decode(last(dpmpp_2m(d, start(seeded_noise([seed], model.shape)(), s), s)))",
        CHAIN + "def blend(model, a, b, t, seed=0, steps=10, scale=4.):\n    w = torch.tensor(float(t))*torch.pi/2\n    m = w.cos()*model.context([a])['ctx'] + w.sin()*model.context([b])['ctx']\n    s = spaced(steps)\n"
        "    d = cfg(model.denoise, dict(ctx=m), model.context(['']), scale)\n    return model.decode(last(dpmpp_2m(d, start(seeded_noise([seed], model.shape)(), s), s)))",
    ],
    "16.4": [
        CHAIN + "def variations(model, caption, seed, k, n, steps=10, scale=4.):\n    return model.images([caption]*n, seed=seed, steps=steps, scale=scale, sampler='euler')",
        CHAIN + "def variations(model, caption, seed, k, n, steps=10, scale=4.):\n    return model.images(caption, seed=seed, steps=steps, scale=scale, sampler='euler').expand(n, -1, -1, -1)",
        CHAIN + "def variations(model, caption, seed, k, n, steps=10, scale=4.):\n    s = spaced(steps)\n    d = cfg(model.denoise, model.context([caption]*n), model.context(['']*n), scale)\n"
        "    x = start(seeded_noise([seed]*n, model.shape)(), s)\n    x = last(euler(d, x, s, eta=0. if k == steps else 1., noise=seeded_noise(range(n), model.shape)))\n    return model.decode(x)",
        CHAIN + "def variations(model, caption, seed, k, n, steps=10, scale=4.):\n    s = spaced(steps)\n    d = cfg(model.denoise, model.context([caption]*n), model.context(['']*n), scale)\n    x = start(seeded_noise([seed]*n, model.shape)(), s)\n"
        "    if k: x = last(islice(euler(d, x, s), k))\n    if k < steps: x = last(euler(d, x, s[k:], eta=.5, noise=seeded_noise(range(1000, 1000 + n), model.shape)))\n    return model.decode(x)",
        CHAIN + "def variations(model, caption, seed, k, n, steps=10, scale=4.):\n    if k == steps: return model.images([caption]*n, seed=seed, steps=steps, scale=scale, sampler='euler')[:1].expand(n, -1, -1, -1)\n"
        "    s = spaced(steps)\n    d = cfg(model.denoise, model.context([caption]*n), model.context(['']*n), scale)\n    x = start(seeded_noise([seed]*n, model.shape)(), s)\n"
        "    if k: x = last(islice(euler(d, x, s, eta=1., noise=seeded_noise([seed + 1]*n, model.shape)), k))\n    return model.decode(last(euler(d, x, s[k:], eta=1., noise=seeded_noise(range(1000, 1000 + n), model.shape))))",
    ],
}
