"Typical wrong answers of chapter 8: each must get the cross"
WRONG = {
    "08.1": [
        "def down_up(s, s2, eta):\n    return s2*(1 - eta), s2*eta",
        "def down_up(s, s2, eta):\n    up = eta*(s**2 - s2**2)**.5\n    return (abs(s2**2 - up**2))**.5, up",
        "def down_up(s, s2, eta):\n    up = eta*s2*.5\n    return (s2**2 - up**2)**.5, up",
    ],
    "08.2": [
        "from minidiff.sample import euler\ndef midpoint(denoise, x, sigmas):\n    return euler(denoise, x, sigmas)",
        "import torch\nfrom minidiff.sample import pairs\ndef midpoint(denoise, x, sigmas):\n    for s, s2 in pairs(sigmas):\n        d = denoise(x, s)\n        if s2 == 0: x = d\n        else:\n            mid = (s*s2)**.5\n            m = torch.lerp(d, x, mid/s)\n            x = m + (s2 - mid)*(m - denoise(m, mid))/mid\n        yield x",
        "import torch\nfrom minidiff.sample import pairs\ndef midpoint(denoise, x, sigmas):\n    for s, s2 in pairs(sigmas):\n        d = denoise(x, s)\n        if s2 == 0: x = d\n        else:\n            mid = (s*s2)**.5\n            m = torch.lerp(d, x, mid/s)\n            x = x + (s2 - s)*(m - denoise(m, mid))/s\n        yield x",
    ],
    "08.3": [
        "import torch\nfrom minidiff.sample import euler\ndef richardson(denoise, x, sigmas):\n    l = sigmas[:-1].double()\n    f = torch.empty(2*len(l) - 1, dtype=torch.float64)\n    f[::2], f[1::2] = l, (l[:-1]*l[1:]).sqrt()\n    z = torch.zeros(1, dtype=torch.float64)\n    *_, a, _ = euler(denoise, x, torch.cat([l, z]))\n    *_, b, _ = euler(denoise, x, torch.cat([f, z]))\n    return (a + b)/2",
        "import torch\nfrom minidiff.sample import euler\ndef richardson(denoise, x, sigmas):\n    l = sigmas[:-1].double()\n    f = torch.empty(2*len(l) - 1, dtype=torch.float64)\n    f[::2], f[1::2] = l, (l[:-1]*l[1:]).sqrt()\n    z = torch.zeros(1, dtype=torch.float64)\n    *_, a, _ = euler(denoise, x, torch.cat([l, z]))\n    *_, b, _ = euler(denoise, x, torch.cat([f, z]))\n    return (4*b - a)/3",
        "from minidiff.sample import euler\ndef richardson(denoise, x, sigmas):\n    *_, a, _ = euler(denoise, x, sigmas)\n    return a",
    ],
    "08.4": [
        "from minidiff.sample import heun\ndef churn(denoise, x, sigmas, gamma):\n    return heun(denoise, x, sigmas)",
        "import torch\nfrom minidiff.sample import pairs\ndef churn(denoise, x, sigmas, gamma):\n    for s, s2 in pairs(sigmas):\n        h = s*(1 + gamma)\n        x = x + (h - s)*torch.randn_like(x)\n        k = (x - denoise(x, h))/h\n        x2 = x + (s2 - h)*k\n        if s2: x2 = x + (s2 - h)*(k + (x2 - denoise(x2, s2))/s2)/2\n        x = x2\n        yield x",
        "import torch\nfrom minidiff.sample import pairs\ndef churn(denoise, x, sigmas, gamma):\n    for s, s2 in pairs(sigmas):\n        h = s*(1 + gamma)\n        x = x + (h**2 - s**2)**.5*torch.randn_like(x)\n        k = (x - denoise(x, s))/s\n        x2 = x + (s2 - s)*k\n        if s2: x2 = x + (s2 - s)*(k + (x2 - denoise(x2, s2))/s2)/2\n        x = x2\n        yield x",
    ],
}
