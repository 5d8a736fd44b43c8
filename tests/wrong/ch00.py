WRONG = {
    "00.2": ["def same_start(model, captions, seed): return model.images(captions, seed=seed)",
             "import torch\ndef same_start(model, captions, seed): return torch.cat([model.images([c]) for c in captions])"],
    "00.3": ["def changes(model, caption, seed, steps):\n    z = list(model.steps([caption], seed=seed, steps=steps))\n    return [a.sub(b).square().mean().sqrt().item() for a, b in zip(z, z[1:])]",
             "def changes(model, caption, seed, steps):\n    p = [model.decode(z) for z in model.steps([caption], seed=seed, steps=steps)]\n    return [a.sub(b).square().mean().item() for a, b in zip(p, p[1:])]"],
}
