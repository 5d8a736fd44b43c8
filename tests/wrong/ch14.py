"Typical wrong answers of chapter 14: each must get the cross"
WRONG = {
    "14.1": [
        "def to_scale(kind, w):\n    return w",
        "def to_scale(kind, w):\n    return {'extra': w, 'mix': 1 + w, 'push': w/2}[kind]",
        "def to_scale(kind, w):\n    return {'extra': 1 + w, 'mix': w, 'push': w/2}[kind]",
    ],
    "14.2": [
        "def dynamic_threshold(x, p=.995):\n    return x.clamp(-1, 1)",
        "def dynamic_threshold(x, p=.995):\n    q = x.abs().flatten().quantile(p).clamp(min=1)\n    return x.clamp(-q, q)/q",
        "def dynamic_threshold(x, p=.995):\n    q = x.flatten(1).abs().quantile(p, dim=1).view(-1, 1, 1, 1)\n    return x.clamp(-q, q)/q",
    ],
    "14.3": [
        "def both(denoise, conds, uncond, scales):\n    def guided(x, sigma):\n        u = denoise(x, sigma, **uncond)\n        return u + sum(s*(denoise(x, sigma, **c) - u) for s, c in zip(scales, conds))\n    return guided",
        "import torch\ndef both(denoise, conds, uncond, scales):\n    n = 1 + len(conds)\n    st = {k: torch.cat([uncond[k], *(c[k] for c in conds)]) for k in uncond}\n    def guided(x, sigma):\n        u, *cs = denoise(torch.cat([x]*n), sigma, **st).chunk(n)\n        return sum(u + s*(c - u) for s, c in zip(scales, cs))/len(cs)\n    return guided",
        "import torch\ndef both(denoise, conds, uncond, scales):\n    n = 1 + len(conds)\n    st = {k: torch.cat([uncond[k], *(c[k] for c in conds)]) for k in uncond}\n    def guided(x, sigma):\n        u, *cs = denoise(torch.cat([x]*n), sigma, **st).chunk(n)\n        return u + sum(s*c for s, c in zip(scales, cs))\n    return guided",
    ],
    "14.4": [
        "def guided_variance(a, b, scale, start):\n    return 2*b/(scale + 1)",
        "def guided_variance(a, b, scale, start):\n    return b**scale*a**(1 - scale)",
        "def guided_variance(a, b, scale, start):\n    f = a/(a + start**2)\n    g = b/(b + start**2)\n    return start**2*(f + scale*(g - f))",
    ],
}
