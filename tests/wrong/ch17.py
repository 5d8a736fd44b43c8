"Typical wrong answers of chapter 17: each must get the cross"
WRONG = {
    "17.1": [
        "def head_widths(told):\n    d = told['attention_head_dim']\n    return [d]*len(told['block_out_channels']) if isinstance(d, int) else d",
        "def head_widths(told):\n    w, h = told['block_out_channels'], told['attention_head_dim']\n    h = [h]*len(w) if isinstance(h, int) else h\n    return [a//b for a, b in zip(w, h)]",
        "def head_widths(told):\n    return [w//64 for w in told['block_out_channels']]",
    ],
    "17.2": [
        "def mend(state):\n    return dict(state)",
        "import torch\ndef mend(state):\n    turn = lambda x: torch.cat(x.chunk(2, 0)[::-1], 0)\n    return {k: turn(x) if k == 'time_embedding.linear_1.weight' or '.ff.net.0.proj.' in k else x for k, x in state.items()}",
        "import torch\ndef mend(state):\n    turn = lambda x, d: torch.cat(x.chunk(2, d)[::-1], d)\n    return {k: turn(x, 1) if k == 'time_embedding.linear_1.weight' else turn(x, 0) if k.endswith('.ff.net.0.proj.weight') else x for k, x in state.items()}",
        "import torch\ndef mend(state):\n    return {k: torch.cat(x.chunk(2, 0)[::-1], 0) if '.ff.net.0.proj.' in k else x for k, x in state.items()}",
    ],
    "17.3": [
        "def mix_noise(a, b, t):\n    return (1 - t)*a + t*b",
        "def mix_noise(a, b, t):\n    return a if t < .5 else b",
        "def mix_noise(a, b, t):\n    m = (1 - t)*a + t*b\n    return m/(1 - t + t**2)**.5",
        "import torch\ndef mix_noise(a, b, t):\n    return torch.where(torch.arange(a.numel()).view(a.shape) < t*a.numel(), b, a)",
    ],
    "17.4": [
        "from minidiff.core import corr\ndef predicts_noise(denoise, sigma, shape):\n    n = torch.randn(shape, generator=torch.Generator().manual_seed(0))\n    return corr(n, denoise(sigma*n, sigma))",
        "from minidiff.core import corr\ndef predicts_noise(denoise, sigma, shape):\n    n = torch.randn(shape, generator=torch.Generator().manual_seed(0))\n    return corr(n, (n - denoise(n, sigma))/sigma)",
        "def predicts_noise(denoise, sigma, shape):\n    return 1.",
    ],
}
