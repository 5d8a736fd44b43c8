"MNIST files and captioned scenes, with hostile input"
import gzip, hashlib, shutil, struct, time
from pathlib import Path

import numpy as np
import pytest, torch

from minidiff import captions, data, digits
from minidiff.layout import BACKGROUND_RGB, COLOUR_RGB, layout
from minidiff.data import COLUMNS, HELD_OUT, caption, idx, mnist, parse, render, scenes, unknown_words, words

REPO = Path(__file__).parents[1]
C = {name: i for i, name in enumerate(COLUMNS)}


# ---------------------------------------------------------------- MNIST's files

@pytest.fixture
def folder(tmp_path):
    "A small IDX folder of 5 images, plain files"
    def write(name, magic, shape, body):
        (tmp_path / name).write_bytes(bytes([0, 0, 8, magic]) + struct.pack(f">{len(shape)}I", *shape) + body)
    write("t10k-images-idx3-ubyte", 3, (5, 4, 6), bytes(range(120)))
    write("t10k-labels-idx1-ubyte", 1, (5,), bytes([3, 1, 4, 1, 5]))
    return tmp_path


def test_small_folder_reads_plain_and_gzipped(folder):
    images, labels = idx(folder, train=False)
    assert images.shape == (5, 1, 4, 6) and images.dtype == torch.float32 and labels.dtype == torch.int64
    assert labels.tolist() == [3, 1, 4, 1, 5]
    assert torch.allclose(images.flatten(), torch.arange(120) / 127.5 - 1)
    for path in list(folder.iterdir()):
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert torch.equal(idx(str(folder), train=False).images, images)


def test_missing_folder_and_file(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"): idx(folder)
    with pytest.raises(FileNotFoundError, match="nowhere"): idx(tmp_path / "nowhere")


def spoil(path, change):
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("change", [
    lambda raw: raw[:-1], lambda raw: raw[:30], lambda raw: raw[:10], lambda raw: raw[:3], lambda raw: b"",
    lambda raw: raw + b"x", lambda raw: b"\x00\x00\x0d" + raw[3:], lambda raw: b"\x1f\x8b" + raw[2:],
    lambda raw: raw[:3] + b"\x01" + raw[4:], lambda raw: raw[:4] + b"\xff" + raw[5:], lambda raw: raw[:4] + bytes(4) + raw[8:],
], ids=["one byte short", "cut", "cut header", "3 bytes", "empty", "one byte more", "float magic", "gzip magic", "1-d", "huge count", "count 0"])
def test_damaged_plain_file_is_named(folder, change):
    spoil(folder / "t10k-images-idx3-ubyte", change)
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte"): idx(folder, train=False)


def flip(k): return lambda raw: raw[:k] + bytes([raw[k] ^ 255]) + raw[k:][1:]


@pytest.mark.parametrize("change", [lambda raw: raw[:-9], lambda raw: raw[:12], lambda raw: raw[:1], lambda raw: b"",
                                    lambda raw: b"PK" + raw[2:], flip(40), flip(-6), flip(60)],
                         ids=["cut", "cut early", "one byte", "empty", "not gzip", "altered", "altered checksum", "altered later"])
def test_damaged_gzip_is_named(folder, change):
    path = folder / "t10k-images-idx3-ubyte"
    packed = folder / f"{path.name}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    idx(folder, train=False)
    spoil(packed, change)
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte.gz"): idx(folder, train=False)


def test_counts_must_agree(folder):
    (folder / "t10k-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1]) + struct.pack(">I", 4) + bytes(4))
    with pytest.raises(ValueError, match="5 images .* 4 labels"): idx(folder, train=False)


def test_mnist_is_whole_and_read_once():
    train, test = mnist(), mnist(train=False)
    assert train.images.shape == (60000, 1, 28, 28) and test.images.shape == (10000, 1, 28, 28)
    assert train.images.min() == -1 and train.images.max() == 1
    assert mnist(True).images is train.images and mnist(train=1).images is train.images
    assert train.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    pixels = (test.images + 1).mul(127.5).round().byte().numpy().tobytes()
    raw = gzip.decompress((REPO / "data" / "t10k-images-idx3-ubyte.gz").read_bytes())
    assert pixels == raw[16:]


@pytest.fixture
def other_mnist(tmp_path, monkeypatch):
    "A copy of data/ that MINIDIFF_DATA points to"
    for path in (REPO / "data").glob("t10k*.gz"): shutil.copy(path, tmp_path)
    monkeypatch.setenv("MINIDIFF_DATA", str(tmp_path))
    return tmp_path


def test_environment_names_the_folder(other_mnist):
    assert torch.equal(digits._mnist.__wrapped__(False).labels, mnist(False).labels)
    (other_mnist / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels"): digits._mnist.__wrapped__(False)


def test_one_altered_pixel_of_mnist_is_found(other_mnist):
    path = other_mnist / "t10k-images-idx3-ubyte.gz"
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[5000] ^= 1
    path.write_bytes(gzip.compress(bytes(raw), 1))  # a sound gzip file of the right size
    idx(other_mnist, train=False)
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte.gz.*md5"): digits._mnist.__wrapped__(False)


def far_from_data(monkeypatch, tmp_path):
    monkeypatch.delenv("MINIDIFF_DATA", raising=False)
    monkeypatch.setattr(digits, "__file__", str(tmp_path / "lib" / "minidiff" / "digits.py"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home" / ".cache" / "minidiff"


def raw_files(folder):
    folder.mkdir(parents=True)
    for path in (REPO / "data").glob("*.gz"): (folder / path.stem).write_bytes(gzip.decompress(path.read_bytes()))


def test_download_fills_the_cache_once(monkeypatch, tmp_path):
    import torchvision
    cache, calls = far_from_data(monkeypatch, tmp_path), []
    def fake(root, download): calls.append(root) or raw_files(Path(root) / "MNIST" / "raw")
    monkeypatch.setattr(torchvision.datasets, "MNIST", fake)
    assert digits._home() == cache and digits._home() == cache and len(calls) == 1
    assert sorted(p.name for p in cache.iterdir()) == sorted(digits.MNIST_MD5)
    assert torch.equal(digits._mnist.__wrapped__(False).images, mnist(False).images)


@pytest.mark.parametrize("how", ["offline", "altered", "cut"])
def test_failed_download_leaves_nothing(monkeypatch, tmp_path, how):
    import torchvision
    cache = far_from_data(monkeypatch, tmp_path)
    def fake(root, download):
        raw = Path(root) / "MNIST" / "raw"
        raw_files(raw)
        if how == "offline": raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")
        spoil(raw / "t10k-labels-idx1-ubyte", flip(99) if how == "altered" else lambda r: r[:99])
    monkeypatch.setattr(torchvision.datasets, "MNIST", fake)
    with pytest.raises(FileNotFoundError, match="MINIDIFF_DATA"): digits._home()
    assert list(cache.iterdir()) == []


def test_data_folder_without_mnist_is_passed_over(monkeypatch, tmp_path):
    cache = far_from_data(monkeypatch, tmp_path)
    (tmp_path / "work" / "data").mkdir()
    shutil.copy(REPO / "data" / "t10k-labels-idx1-ubyte.gz", tmp_path / "work" / "data")
    raw_files(cache)
    assert digits._home() == cache


def test_data_md5_agree_with_readme():
    readme = (REPO / "data" / "README.md").read_text()
    for name, md5 in digits.MNIST_MD5.items():
        raw = gzip.decompress((REPO / "data" / f"{name}.gz").read_bytes())
        assert hashlib.md5(raw).hexdigest() == md5 and f"{name} | {len(raw):,} | {md5}" in readme
    assert "CC BY-SA 3.0" in readme


# ---------------------------------------------------------------- scenes

N = 2000


@pytest.fixture(scope="module")
def train(): return scenes(N, seed=11)


def pairs(attrs):
    "All (digit, colour) in a batch of attributes, one set a scene"
    return [{(r[1], r[2])} | ({(r[6], r[7])} if r[5] else set()) for r in attrs.tolist()]


def test_shapes_and_ranges(train):
    assert train.images.shape == (N, 3, 64, 64) and train.images.dtype == torch.float32
    assert -1 <= train.images.min() and train.images.max() <= 1
    assert train.attrs.shape == train.said.shape == (N, 12) and train.said.dtype == torch.bool
    assert len(train.captions) == N and len(set(train.captions)) > 0.9 * N
    captions.check_attrs(train.attrs)


def test_seeded(train):
    again, other = scenes(N, seed=11), scenes(N, seed=12)
    assert torch.equal(again.images, train.images) and again.captions == train.captions
    assert torch.equal(again.attrs, train.attrs) and torch.equal(again.said, train.said)
    assert (other.attrs != train.attrs).any(1).float().mean() > 0.95
    assert scenes(3, captions=False).captions is None
    assert torch.equal(scenes(5, seed=3, captions=False).images, scenes(5, seed=3).images)
    assert scenes(0).images.shape == (0, 3, 64, 64)
    assert torch.equal(render(train.attrs, seed=11), train.images)


def test_chunks_do_not_show(monkeypatch, train):
    drawn, draw = [], data.draw
    monkeypatch.setattr(data, "draw", lambda n, *rest: drawn.append(n) or draw(n, *rest))
    assert torch.equal(render(train.attrs, seed=11), train.images) and drawn == [1024, N - 1024]
    assert (train.images.std((1, 2, 3)) > 0.02).all()


def test_held_out_pairs():
    held = set(HELD_OUT)
    assert len({d for d, _ in held}) == len({c for _, c in held}) == 8
    s = scenes(20000, seed=1, captions=False)
    assert not any(p & held for p in pairs(s.attrs)) and len(set.union(*pairs(s.attrs))) == 72
    for wanted, share in ((True, 1.), (False, 0.), (None, None)):
        got = np.mean([bool(p & held) for p in pairs(scenes(4000, train=False, captions=False, held_out=wanted).attrs)])
        assert got == share if share is not None else 0.1 < got < 0.2
    assert len(set.union(*pairs(scenes(9000, train=False, captions=False, held_out=True).attrs)) & held) == 8
    with pytest.raises(ValueError, match="held-out"): scenes(2, held_out=True)


def test_groups_differ(train):
    assert all(len(p) == 1 + (r[5] > 0) for p, r in zip(pairs(train.attrs), train.attrs.tolist()))


def test_captions_parse_back():
    for split in (True, False):
        s = scenes(N, seed=5, train=split)
        for text, attrs, said in zip(s.captions, s.attrs, s.said):
            a, b = parse(text)
            assert torch.equal(b, said), text
            assert torch.equal(a[b], attrs[b]), text
            assert unknown_words(text) == [] and len(text.split()) <= 26
            assert not any(bad in f" {text} " for bad in ("  ", " a eight", " a orange", " a olive", " an red", " a image"))


def test_unsaid_sizes_are_medium_and_unsaid_backgrounds_black(train):
    a, said = train.attrs, train.said
    for g in (0, 5):
        there = a[:, g] > 0
        assert (a[there & ~said[:, g + 3], g + 3] == 1).all()
        assert ((a[:, g + 4] > 0) == said[:, g + 4]).all()
        assert 0.85 < said[there, g + 2].float().mean() < 0.95
    assert (a[~said[:, C["background"]], C["background"]] == 0).all()
    assert said[:, [C["count1"], C["digit1"], C["count2"], C["relation"]]].all()


def test_every_value_and_every_word_occurs(train):
    s = scenes(20000, seed=2)
    assert [len(s.attrs[:, i].unique()) for i in range(12)] == [4, 10, 8, 3, 3, 3, 10, 8, 3, 3, 6, 5]
    assert {w for text in s.captions for w in captions._tokens(text)} == set(words()) and words() == sorted(words())


def ink_mask(images, attrs):
    "Where a picture differs from its background [n,64,64]"
    ground = BACKGROUND_RGB[attrs[:, 11]][:, :, None, None]
    return (images - ground).abs().amax(1)


def test_background_and_ink_have_the_named_colours(train):
    a, images = train.attrs, train.images
    corners = images[:, :, ::63, ::63].flatten(2)
    assert (corners.median(2).values - BACKGROUND_RGB[a[:, 11]]).abs().max() < 0.02
    alone = a[:, 5] == 0
    mask = ink_mask(images, a)[alone]
    strong = (mask > 0.9 * mask.amax((1, 2), keepdim=True)).float()
    mean = (images[alone] * strong[:, None]).sum((2, 3)) / strong.sum((1, 2))[:, None]
    assert torch.cdist(mean, COLOUR_RGB).argmin(1).eq(a[alone, 2]).float().mean() > 0.999


def coloured(images, attrs, g):
    "Where a picture is nearest to group g's colour, of its background and its two colours [n,64,64]"
    paints = torch.stack([BACKGROUND_RGB[attrs[:, 11]], COLOUR_RGB[attrs[:, 2]], COLOUR_RGB[attrs[:, 7]]], 1)
    nearest = (images[:, None] - paints[..., None, None]).square().sum(2).argmin(1)
    return (nearest == 1 + g).float()


def test_relations_hold_and_groups_are_level():
    s = scenes(4000, seed=8, captions=False)
    a = s.attrs
    two = (a[:, 5] > 0) & (a[:, 2] != a[:, 7])
    a, images = a[two], s.images[two]
    def middle(mask, axis):  # middle of the ink's box: axis 0 down, 1 across
        line = mask.amax(2 - axis)
        return (line.argmax(1) + 63 - line.flip(1).argmax(1)) / 2
    first, second = coloured(images, a, 0), coloured(images, a, 1)
    down = middle(second, 0) - middle(first, 0)
    across = middle(second, 1) - middle(first, 1)
    for relation, gap, other in ((1, across, down), (2, -across, down), (3, down, across), (4, -down, across)):
        rows = a[:, 10] == relation
        assert (gap[rows] > 10).float().mean() > 0.97, relation
        assert (other[rows].abs() < 9).float().mean() > 0.97, relation
    both = a[:, 10] == 5
    ways = torch.stack([across > 10, across < -10, down > 10, down < -10])[:, both].float().mean(1)
    assert (ways > 0.2).all() and (ways < 0.3).all()


def test_number_of_digits_by_ink():
    base = torch.tensor([[1, 3, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0]]).repeat(400, 1)
    ink = []
    for count in (1, 2, 3, 4):
        base[:, 0] = count
        ink.append((render(base, seed=count) + 1).mean().item())
    assert np.allclose(np.array(ink) / ink[0], [1, 2, 3, 4], rtol=0.05)


@pytest.mark.parametrize("size,pixels", [(0, 15), (1, 22), (2, 30)])
def test_sizes_in_pixels(size, pixels):
    base = torch.tensor([[1, 8, 7, size, 0, 0, 0, 0, 0, 0, 0, 0]]).repeat(500, 1)
    mask = ink_mask(render(base), base) > 0.5
    tall, wide = mask.any(2).sum(1), mask.any(1).sum(1)
    assert abs(torch.maximum(tall, wide).float().mean() - pixels) < 1.5


def test_a_pair_in_cells_does_not_touch_the_edge_or_itself():
    four = torch.tensor([[4, 0, 7, 2, 0, 0, 0, 0, 0, 0, 0, 0]]).repeat(200, 1)
    mask = ink_mask(render(four), four) > 1
    assert mask[:, :, 31:33].float().mean() < 0.03 and mask[:, 31:33].float().mean() < 0.03


def test_handwritings_within_a_group_differ():
    two = torch.tensor([[2, 4, 7, 0, 1, 2, 4, 2, 0, 2, 1, 0]]).repeat(300, 1)
    scene, group, _, _, hand = layout(two.numpy(), np.random.default_rng(0), digits.glyphs(False, "cpu"))
    for g in (0, 1):
        both = hand[group == g].reshape(300, 2)
        assert (both[:, 0] != both[:, 1]).all()


def test_strokes_are_quartiles_of_ink_within_the_digit():
    for split in (True, False):
        source = digits.glyphs(split, "cpu")
        labels = mnist(split).labels
        assert np.diff(source.starts).tolist() == labels.bincount().tolist()
        mean_ink = mnist(split).images.mean((1, 2, 3)).double()
        for digit in range(10):
            hands = {}
            for stroke in (0, 1, 2):
                a = torch.tensor([[1, digit, 0, 1, stroke, 0, 0, 0, 0, 0, 0, 0]]).repeat(3000, 1)
                hands[stroke] = layout(a.numpy(), np.random.default_rng(0), source)[-1]
            low, high = mean_ink[labels == digit].quantile(torch.tensor([0.25, 0.75]).double())
            ink = {k: source.images[torch.from_numpy(v)].float().mean((1, 2)) / 127.5 - 1 for k, v in hands.items()}
            assert ink[1].max() <= low + 1e-3 and ink[2].min() >= high - 1e-3
            assert ink[0].min() < low and ink[0].max() > high


def test_train_and_test_scenes_use_their_own_digits():
    a = torch.tensor([[1, 5, 7, 2, 0, 0, 0, 0, 0, 0, 0, 0]])
    assert digits.glyphs(True, "cpu").images.shape[0] == 60000 and digits.glyphs(False, "cpu").images.shape[0] == 10000
    assert not torch.equal(render(a, train=True), render(a, train=False))


@pytest.mark.parametrize("column,value", [("count1", 0), ("count1", 5), ("digit1", 10), ("colour1", -1), ("size1", 3), ("relation", 1),
                                          ("background", 5), ("count2", 1)])
def test_impossible_attributes_are_named(column, value):
    a = torch.tensor([[3, 5, 7, 2, 0, 0, 0, 0, 0, 0, 0, 0]])
    a[0, C[column]] = value
    with pytest.raises(ValueError, match="scene 0 has (count1|relation) =" if column == "count2" else f"scene 0 has {column} = {value}"): render(a)


def test_wrong_shape_of_attributes():
    with pytest.raises(ValueError, match=r"\[n,12\]"): render(torch.zeros(12))
    assert isinstance(caption(torch.tensor([1, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), torch.ones(12), np.random.default_rng(0)), str)


def said(text):
    "{column: value} of what a caption says, without what is always said of a missing group"
    a, b = parse(text)
    return {name: v for name, v, there in zip(COLUMNS, a.tolist(), b.tolist()) if there}


def test_parse_by_hand():
    assert said("A red three.") == dict(count1=1, digit1=3, colour1=0, count2=0, relation=0)
    assert said("three") == dict(count1=1, digit1=3, count2=0, relation=0)
    assert said("three threes") == dict(count1=3, digit1=3, count2=0, relation=0)
    assert said("one one") == dict(count1=1, digit1=1, count2=0, relation=0)
    assert said("an orange eight") == dict(count1=1, digit1=8, colour1=1, count2=0, relation=0)
    assert said("a thick blue seven left of a thin green two") == dict(
        count1=1, digit1=7, colour1=5, stroke1=2, count2=1, digit2=2, colour2=3, stroke2=1, relation=1)
    assert said("two white zeros above a cyan nine on a navy background") == dict(
        count1=2, digit1=0, colour1=7, count2=1, digit2=9, colour2=4, relation=3, background=1)
    assert said("on grey, a pair of huge sixes to the right of one") == dict(
        count1=2, digit1=6, size1=2, count2=1, digit2=1, relation=2, background=4)


@pytest.mark.parametrize("text,reason", [
    ("a purple cat", "purple, cat"), ("", "not understood"), ("red", "not understood"), ("a red three three", "not understood"),
    ("two three", "two does not go with three"), ("blue sevens", "does not go with sevens"), ("a red blue three", "blue is one colour too many"),
    ("four fives left of a six", "count1 = 4"), ("on grey, a six on navy", "two backgrounds"), ("a six left of", "not understood"),
    ("a six on a red background", "not understood"), ("drei", "drei"), ("a six\nabove 7", "7"),
])
def test_parse_says_what_is_wrong(text, reason):
    with pytest.raises(ValueError, match=reason): parse(text)


def test_speed(capsys):
    scenes(64)
    start = time.perf_counter()
    scenes(2000, seed=3)
    seconds = time.perf_counter() - start
    with capsys.disabled(): print(f"[{2000 / seconds:,.0f} scenes a second on this CPU]", end=" ")


@pytest.mark.parametrize("device", ["cpu"] + ["cuda"] * torch.cuda.is_available())
def test_every_device_draws_the_same(device):
    here, there = scenes(512, seed=9), scenes(512, seed=9, device=device)
    assert here.captions == there.captions and torch.equal(here.attrs, there.attrs.cpu())
    assert (here.images - there.images.cpu()).abs().max() < 1e-3
    assert torch.equal(there.images, scenes(512, seed=9, device=device).images)
