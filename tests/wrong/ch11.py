"Typical wrong answers of chapter 11: each must get the cross"
WRONG = {
    "11.1": [
        "def scale_of(raw):\n    return raw.std().item()",
        "def scale_of(raw):\n    return 1/raw.std((0, 2, 3))",
        "def scale_of(raw):\n    return 1/raw.square().mean().sqrt().item()",
    ],
    "11.2": [
        "def end_std(d, top):\n    return d",
        "def end_std(d, top):\n    return (d**2 + top**2)**.5",
        "def end_std(d, top):\n    return d*top/(d + top)",
    ],
    "11.3": [
        "class Whitened:\n    def __init__(self, codec, raw): self.codec, self.m, self.s = codec, raw.mean(), raw.std()\n    def encode(self, x): return (self.codec.encode(x) - self.m)/self.s\n    def decode(self, z): return self.codec.decode(z*self.s + self.m)",
        "class Whitened:\n    def __init__(self, codec, raw): self.codec = codec\n    def encode(self, x):\n        z = self.codec.encode(x)\n        self.m, self.s = z.mean((0, 2, 3), keepdim=True), z.std((0, 2, 3), keepdim=True)\n        return (z - self.m)/self.s\n    def decode(self, z): return self.codec.decode(z*self.s + self.m)",
        "class Whitened:\n    def __init__(self, codec, raw): self.codec, self.m, self.s = codec, raw.mean((0, 2, 3), keepdim=True), raw.std((0, 2, 3), keepdim=True)\n    def encode(self, x): return (self.codec.encode(x) - self.m)/self.s\n    def decode(self, z): return self.codec.decode((z + self.m)*self.s)",
    ],
    "11.4": [
        "def between(a, b, t):\n    return (1 - t)*a + t*b",
        "def between(a, b, t):\n    return (1 - t)**.5*b + t**.5*a",
        "def between(a, b, t):\n    return a if t < .5 else b",
    ],
}
