"Typical wrong answers to the exercises of chapter 6: every one must get the cross"
COUNT = """from minidiff.unet import UNet
def reads_text(config):
    with torch.device("meta"): net = UNet(config)
    reading = sum(p.numel() for name, p in net.named_parameters() if %s)
    return reading / sum(p.numel() for p in net.parameters())"""
BLOCK = """class ScaleShiftBlock(ResBlock):
    def __init__(self, c_in, c_out, emb_dim, groups=32, eps=1e-5):
        super().__init__(c_in, c_out, emb_dim, groups, eps)
        self.time_emb_proj = nn.Linear(emb_dim, 2 * c_out)

    def forward(self, x, emb):
        h = self.conv1(F.silu(self.norm1(x)))
        %s
        return self.conv_shortcut(x) + self.conv2(%s)"""
WRONG = {
    "06.1": [
        "def sees(kernels, strides):\n    return 1 + sum(k - 1 for k in kernels)",
        "def sees(kernels, strides):\n    width, step = 1, 1\n    for k, s in zip(kernels, strides):\n        step *= s\n        width += (k - 1) * step\n    return width",
        "def sees(kernels, strides):\n    width = 1\n    for k, s in zip(kernels, strides):\n        width = (width + k - 1) * s\n    return width",
    ],
    "06.2": [
        "def group_norm(x, groups, eps):\n    g = x.unflatten(1, (groups, -1))\n    return ((g - g.mean((2, 3, 4), keepdim=True)) / (g.var((2, 3, 4), keepdim=True) + eps).sqrt()).flatten(1, 2)",
        "def group_norm(x, groups, eps):\n    return (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True, correction=0) + eps).sqrt()",
        "def group_norm(x, groups, eps):\n    g = x.unflatten(1, (groups, -1))\n    return ((g - g.mean((2, 3, 4), keepdim=True)) / (g.std((2, 3, 4), keepdim=True, correction=0) + eps)).flatten(1, 2)",
    ],
    "06.3": [
        "def pushed(channels, layers):\n    return [c for c in channels for _ in range(layers)]",
        "def pushed(channels, layers):\n    return [channels[0]] + [c for c in channels for _ in range(layers + 1)]",
        "def pushed(channels, layers):\n    kept = [channels[0]]\n    for i, c in enumerate(channels):\n        kept += [c] * layers + list(channels[i + 1:i + 2])\n    return kept",
    ],
    "06.4": [
        COUNT % "'attn2' in name",
        COUNT % "'to_k' in name or 'to_v' in name",
        COUNT % "'attn2.to_k' in name",
    ],
    "06.5": [
        BLOCK % ("scale, shift = self.time_emb_proj(emb)[:, :, None, None].chunk(2, 1)", "F.silu(self.norm2(h) * scale + shift)"),
        BLOCK % ("shift, scale = self.time_emb_proj(emb)[:, :, None, None].chunk(2, 1)", "F.silu(self.norm2(h) * (1 + scale) + shift)"),
        BLOCK % ("scale, shift = self.time_emb_proj(emb)[:, :, None, None].chunk(2, 1)", "F.silu(self.norm2(h)) * (1 + scale) + shift"),
    ],
}
