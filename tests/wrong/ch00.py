WRONG = {
    "00.1": ["def overlap(a, b): return ((a.amax(0) > 0) == (b.amax(0) > 0)).float().mean().item()",
             "def overlap(a, b):\n    a, b = a.amax(0) > 0, b.amax(0) > 0\n    return ((a & b).sum() / a.sum()).item()",
             "def overlap(a, b):\n    a, b = a.mean(0) > 0, b.mean(0) > 0\n    return ((a & b).sum() / (a | b).sum().clamp(min=1)).item()"],
    "00.2": ["def same_start(model, captions, seed): return model.images(captions, seed=seed)",
             "import torch\ndef same_start(model, captions, seed): return torch.cat([model.images([c]) for c in captions])"],
    "00.3": ["def changes(model, caption, seed, steps):\n    z = list(model.steps([caption], seed=seed, steps=steps))\n    return [a.sub(b).square().mean().sqrt().item() for a, b in zip(z, z[1:])]",
             "def changes(model, caption, seed, steps):\n    p = [model.decode(z) for z in model.steps([caption], seed=seed, steps=steps)]\n    return [a.sub(b).square().mean().item() for a, b in zip(p, p[1:])]"],
}
