"Typical wrong answers of chapter 18: each must get the cross"
WRONG = {
    "18.1": [
        "def practice(first, second, pooled, numbers):\n    p = 1.\n    for heard in (first, second, pooled, numbers): p *= .9 if heard else .1\n    return p",
        "def practice(first, second, pooled, numbers):\n    p = .9\n    for heard in (first, second, pooled, numbers): p *= .9 if heard else .1\n    return p",
        "def practice(first, second, pooled, numbers):\n    return .9**(first + second + pooled + numbers)*.9",
        "def practice(first, second, pooled, numbers):\n    heard = first + second + pooled\n    return (.1 if heard == 0 else .9*.9**heard*.1**(3 - heard))*(.9 if numbers else .1)",
    ],
    "18.2": [
        "def kept(sigma, d):\n    return d**2/(d**2 + sigma**2)",
        "def kept(sigma, d):\n    return 1/(1 + sigma**2)**.5",
        "def kept(sigma, d):\n    return 1.",
    ],
    "18.3": [
        "def bucket(height, width, area=1024**2, step=64):\n    s = (area/(height*width))**.5\n    return round(height*s/step)*step, round(width*s/step)*step",
        "def bucket(height, width, area=1024**2, step=64):\n    return height//step*step, width//step*step",
        "def bucket(height, width, area=1024**2, step=64):\n    r = range(step, area//step + 1, step)\n    return min(((h, w) for h in r for w in r if .9*area <= h*w <= area), key=lambda s: abs(s[0]/s[1] - height/width))",
        "def bucket(height, width, area=1024**2, step=64):\n    return 1024, 1024",
    ],
}
