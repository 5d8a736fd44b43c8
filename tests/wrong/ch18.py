"Typical wrong answers of chapter 18: each must get the cross"
WRONG = {
    "18.1": [
        "def told_numbers(kind, size, original=None, crop=(0, 0), score=6.):\n    return [*(original or size), *crop, *size]",
        "def told_numbers(kind, size, original=None, crop=(0, 0), score=6.):\n    return [*size, *crop, *(original or size)] if kind == 'base' else [*size, *crop, score]",
        "def told_numbers(kind, size, original=None, crop=(0, 0), score=6.):\n    return [*size[::-1], *crop, *(size[::-1] if kind == 'base' else [score])]",
        "def told_numbers(kind, size, original=None, crop=(0, 0), score=6.):\n    return [*(original or size), *crop, *size] if kind == 'base' else [*size, *crop, score]",
    ],
    "18.2": [
        "def first_refined(ts, at):\n    return round(at*len(ts))",
        "def first_refined(ts, at):\n    return sum(t >= 1000*at for t in ts)",
        "def first_refined(ts, at):\n    return sum(t > round(1000 - 1000*at) for t in ts)",
    ],
    "18.3": [
        "def bucket(height, width, area=1024**2, step=64):\n    s = (area/(height*width))**.5\n    return round(height*s/step)*step, round(width*s/step)*step",
        "def bucket(height, width, area=1024**2, step=64):\n    return height//step*step, width//step*step",
        "def bucket(height, width, area=1024**2, step=64):\n    r = range(step, area//step + 1, step)\n    return min(((h, w) for h in r for w in r if .9*area <= h*w <= area), key=lambda s: abs(s[0]/s[1] - height/width))",
        "def bucket(height, width, area=1024**2, step=64):\n    return 1024, 1024",
    ],
}
