WRONG = {
    "07.1": ["def cosine(step, steps, warmup):\n    import math\n    return (1 + math.cos(math.pi * step / steps)) / 2",
             "def cosine(step, steps, warmup):\n    return (step + 1) / warmup if step < warmup else 1 - (step - warmup) / (steps - warmup)"],
    "07.2": ["def half_life(decay): return 1 / (1 - decay)",
             "def half_life(decay): return .5 / (1 - decay)"],
    "07.3": ["def accumulate(model, loss, parts):\n    model.zero_grad()\n    for part in parts: loss(model, part).backward()",
             "def accumulate(model, loss, parts):\n    model.zero_grad()\n    for part in parts: (loss(model, part) / len(parts)).backward()",
             "def accumulate(model, loss, parts):\n    total = sum(map(len, parts))\n    for part in parts: (loss(model, part) * len(part) / total).backward()"],
}
