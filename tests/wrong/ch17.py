"Typical wrong answers of chapter 17: each must get the cross"
WRONG = {
    "17.1": [
        "def head_widths(told):\n    d = told['attention_head_dim']\n    return [d]*len(told['block_out_channels']) if isinstance(d, int) else d",
        "def head_widths(told):\n    w, h = told['block_out_channels'], told['attention_head_dim']\n    h = [h]*len(w) if isinstance(h, int) else h\n    return [a//b for a, b in zip(w, h)]",
        "def head_widths(told):\n    return [w//64 for w in told['block_out_channels']]",
    ],
    "17.2": [
        "def steps_run(n, strength, who):\n    return int(n*strength)",
        "def steps_run(n, strength, who):\n    return {'comfyui': n, 'a1111': int(strength*n) + 1, 'diffusers': int(n*strength)}[who]",
        "def steps_run(n, strength, who):\n    return {'comfyui': n, 'a1111': int(min(strength, .999)*n) + 1, 'diffusers': round(n*strength + .4)}[who]",
    ],
    "17.3": [
        "def mix_noise(a, b, t):\n    return (1 - t)*a + t*b",
        "def mix_noise(a, b, t):\n    return a if t < .5 else b",
        "def mix_noise(a, b, t):\n    m = (1 - t)*a + t*b\n    return m/(1 - t + t**2)**.5",
    ],
    "17.4": [
        "from minidiff.core import corr\ndef predicts_noise(denoise, sigma, shape):\n    n = torch.randn(shape, generator=torch.Generator().manual_seed(0))\n    return corr(n, denoise(sigma*n, sigma))",
        "from minidiff.core import corr\ndef predicts_noise(denoise, sigma, shape):\n    n = torch.randn(shape, generator=torch.Generator().manual_seed(0))\n    return corr(n, (n - denoise(n, sigma))/sigma)",
        "def predicts_noise(denoise, sigma, shape):\n    return 1.",
    ],
}
