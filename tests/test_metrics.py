"Metrics: other routes to the same numbers, statistics, and what is refused"
import numpy as np
import pytest
import scipy.linalg
import torch
from minidiff.data import COLUMNS, HELD_OUT, parse, render, scenes
from minidiff.judge import SWAP
from minidiff.metrics import (TASKS, DigitClassifier, Judge, agree, canonical, digiteval, digiteval_prompts, digiteval_table,
                              fid, judge_loss, judge_scenes, kid, precision_recall, real_scenes_accuracy)


def gaussians(n=400, d=16, seed=0):
    g = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(n, d, generator=g, dtype=torch.float64) for _ in range(2))
    mix = torch.randn(d, d, generator=g, dtype=torch.float64) / d**.5
    return a, b @ mix + .3


def scipy_fid(a, b):
    a, b = a.numpy(), b.numpy()
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca + cb - 2 * scipy.linalg.sqrtm(ca @ cb).real))


def with_moments(mean, std, n=200):
    "Features whose sample mean and (diagonal) covariance are exactly these"
    x = torch.randn(n, len(std), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = torch.linalg.qr(x - x.mean(0))[0] * (n - 1)**.5
    return x * std + mean


def test_fid_of_one_feature():
    a, b = torch.randn(500, 1, dtype=torch.float64), 3 + 2*torch.randn(400, 1, dtype=torch.float64)
    want = (a.mean() - b.mean())**2 + (a.std() - b.std())**2
    assert abs(fid(a, b) - want) < 1e-10


def test_fid_diagonal():
    a, b = torch.tensor([1., 4., 9., .25]).double(), torch.tensor([4., 1., 9., 1.]).double()
    x, y = with_moments(0., a.sqrt()), with_moments(.5, b.sqrt())[torch.randperm(200)]
    assert fid(x, y) == pytest.approx(float((a.sqrt() - b.sqrt()).square().sum() + 4 * .25), rel=1e-10)


@pytest.mark.parametrize("d", [2, 16, 128])
def test_fid_scipy(d):
    a, b = gaussians(d=d)
    assert fid(a, b) == pytest.approx(scipy_fid(a, b), rel=1e-10)
    root = torch.linalg.eigvals(a.T.cov() @ b.T.cov()).sqrt().real.sum()
    other = (a.mean(0) - b.mean(0)).square().sum() + a.T.cov().trace() + b.T.cov().trace() - 2 * root
    assert fid(a, b) == pytest.approx(float(other), rel=1e-10)


def test_fid_identities():
    a, b = gaussians()
    turn = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64))[0]
    assert fid(a, b) == pytest.approx(fid(b, a), rel=1e-10)
    assert fid(a, b) == pytest.approx(fid(a[torch.randperm(400)], b[torch.randperm(400)]), rel=1e-10)
    assert fid(a, b) == pytest.approx(fid(a @ turn, b @ turn), rel=1e-10)
    assert 9 * fid(a, b) == pytest.approx(fid(3 * a, 3 * b), rel=1e-10)
    assert abs(fid(a, a)) < 1e-9
    assert fid(a.float(), b.float()) == pytest.approx(fid(a, b), rel=1e-4)


def test_fid_singular():
    "fewer images than features: no NaN, still zero against itself"
    a, b = gaussians(n=10, d=40)
    assert abs(fid(a, a)) < 1e-6 and fid(a, b) > 0


def test_kid_by_hand():
    a, b = (x.numpy() for x in gaussians(n=30, d=5))
    k = lambda x, y: (x @ y.T / 5 + 1) ** 3
    off = lambda m: (m.sum() - np.trace(m)) / (len(m) * (len(m) - 1))
    expected = off(k(a, a)) + off(k(b, b)) - 2 * k(a, b).mean()
    assert kid(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected, rel=1e-9)
    assert kid(torch.tensor(b), torch.tensor(a)) == pytest.approx(expected, rel=1e-9)


def test_kid_unbiased():
    "equal distributions: zero on average even at 20 images, where FID is far from it"
    g = torch.Generator().manual_seed(0)
    draws = [torch.randn(2, 20, 8, generator=g) for _ in range(400)]
    values = torch.tensor([kid(a, b) for a, b in draws])
    assert abs(values.mean()) < 3 * values.std() / 400**.5
    assert (values < 0).any()
    assert min(fid(a, b) for a, b in draws) > .5


def test_kid_chunks():
    a, b = gaussians(n=1500, d=4)
    k = lambda x, y: (x @ y.T / 4 + 1) ** 3
    off = lambda m: (m.sum() - m.trace()) / (len(m) * (len(m) - 1))
    assert kid(a, b) == pytest.approx(float(off(k(a, a)) + off(k(b, b)) - 2 * k(a, b).mean()), rel=1e-9)


def test_precision_recall():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 500, 2, generator=g)
    same = precision_recall(a, b)
    assert min(same) > .9
    assert precision_recall(a, b + 100) == (0, 0)
    narrow = precision_recall(a, .1 * b)
    assert narrow.precision > .9 and narrow.recall < .2
    two = torch.cat([a, a + 50])
    half = precision_recall(two, b)
    assert half.precision > .9 and .4 < half.recall < .5
    assert precision_recall(b, two) == half[::-1]
    assert precision_recall(a, a[:1].expand(500, 2)).precision == 1
    assert precision_recall(a, a[torch.randperm(500)]) == (1, 1)


def test_precision_recall_line():
    "points on a line, balls written down by hand"
    real, fake = torch.tensor([[0.], [1.], [3.]]), torch.tensor([[-1.], [1.5], [5.], [10.]])
    assert precision_recall(real, fake, k=1) == (.75, 1.)


@pytest.mark.parametrize("metric", [fid, kid, precision_recall])
def test_refused(metric):
    a = torch.randn(50, 4)
    hole = a.clone()
    hole[3, 1] = float("nan")
    for bad, word in [(a[:1], "too few"), (torch.randn(50, 5), "sizes differ"), (hole, "NaN"), (a.view(50, 2, 2), r"\[N,D\]"), (a[:0], "too few")]:
        with pytest.raises(ValueError, match=word): metric(a, bad)


def test_classifier():
    net = DigitClassifier()
    x = torch.randn(3, 1, 28, 28)
    assert net(x).shape == (3, 10) and net.features(x).shape == (3, 128)
    assert sum(p.numel() for p in net.parameters()) < 120_000


def attrs_of(*rows):
    return torch.tensor(rows)


THREE_LEFT_OF_NINE = [1, 3, 0, 1, 0, 2, 9, 4, 2, 1, 1, 0]
NINE_RIGHT_OF_THREE = [2, 9, 4, 2, 1, 1, 3, 0, 1, 0, 2, 0]


def test_canonical():
    a, b = attrs_of(THREE_LEFT_OF_NINE, NINE_RIGHT_OF_THREE)
    assert (canonical(b[None]) == a).all() and (canonical(a[None]) == a).all()
    below = b.clone()
    below[10] = 4
    assert canonical(below[None])[0, 10] == 3
    both = b.clone()
    both[10] = 5
    assert (canonical(both[None]) == both).all()
    assert (canonical(canonical(b[None])) == a).all()
    said = torch.arange(12) < 5
    assert canonical(b[None], said[None])[0].tolist() == said[SWAP].tolist()


def test_agree():
    want = attrs_of(NINE_RIGHT_OF_THREE)
    said = torch.tensor([[True] * 10 + [True, True]])
    said[0, 9] = False
    seen = attrs_of(THREE_LEFT_OF_NINE)
    seen[0, 4] = 2                                    # the three's stroke: not said, so any will do
    assert agree(seen, want, said).item()
    for column in [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]:
        wrong = seen.clone()
        wrong[0, column] += 1
        assert not agree(wrong, want, said).item()
        assert agree(wrong, want, said, each=True).sum() == 11
    assert not agree(seen[:, SWAP], want, said).item()  # sides exchanged
    want[0, 10] = 5
    for relation in (1, 3):
        seen[0, 10] = relation
        assert agree(seen, want, said).item() and agree(seen[:, SWAP], want, said).item()
    seen[0, 10] = 0
    assert not agree(seen, want, said).item()


def test_no_second_group():
    want, said = attrs_of([1, 3, 0, 1, 0] + [0] * 7), torch.zeros(1, 12, dtype=torch.bool)
    assert agree(attrs_of([1, 3, 7, 2, 1] + [0] * 7), want, said).item()
    assert not agree(attrs_of([1, 3, 7, 2, 1, 1, 3, 7, 2, 1, 1, 0]), want, said).item()


def fake_logits(attrs):
    "Sure logits for canonical attributes"
    sizes = dict(count=4, digit=10, colour=8, size=3, stroke=2)
    out = {}
    for i, name in enumerate(COLUMNS[:10]):
        index = (attrs[:, i] - int(name[:-1] in ("count", "stroke"))).clamp(min=0)
        out[name] = 50. * torch.nn.functional.one_hot(index, sizes[name[:-1]])
    out["relation"] = 50. * torch.nn.functional.one_hot((attrs[:, 10] + 1) // 2, 3)
    out["background"] = 50. * torch.nn.functional.one_hot(attrs[:, 11], 5)
    return out


def test_judge_loss():
    "nothing to learn from the right answer in either order of 'and', much from a wrong one"
    seen, want, said = attrs_of(THREE_LEFT_OF_NINE), attrs_of(NINE_RIGHT_OF_THREE), torch.ones(1, 12, dtype=torch.bool)
    said[0, 9] = False
    judge = lambda x: fake_logits(seen)
    assert judge_loss(judge, None, want, said) < 1e-6
    want[0, 10] = 5
    assert judge_loss(judge, None, want, said) < 1e-6
    assert judge_loss(judge, None, want[:, SWAP], said[:, SWAP]) < 1e-6
    want[0, 2] = 5
    assert judge_loss(judge, None, want, said) == pytest.approx(50, abs=1e-3)
    single = torch.zeros(1, 12, dtype=torch.long)
    single[0, 0] = 1
    assert judge_loss(judge, None, single, said & False) > 40


def test_judge_shapes():
    judge = Judge()
    x = torch.randn(5, 3, 64, 64)
    data = scenes(5, seed=0)
    assert sum(p.numel() for p in judge.parameters()) <= 450_000
    assert tuple(judge(x)) == tuple(COLUMNS)
    pred = judge.predict(x)
    assert pred.shape == (5, 12) and pred.dtype == torch.long
    assert (pred[:, 0] >= 1).all() and set(pred[:, 10].tolist()) <= {0, 1, 3}
    assert (pred[pred[:, 10] == 0, 5:10] == 0).all() and (pred[pred[:, 10] > 0, 5] > 0).all()
    assert judge.features(x).shape == (5, 224)
    loss = judge_loss(judge, data.images, data.attrs, data.said)
    loss.backward()
    assert loss.isfinite() and all(p.grad is not None and p.grad.isfinite().all() for p in judge.parameters())


def test_judge_scenes():
    "one scene in eight holds a held-out pair; pictures, attributes and what is said belong together; the same each time"
    data, again, plain = judge_scenes(400, seed=3), judge_scenes(400, seed=3), scenes(400, seed=3)
    held = torch.tensor([[(int(r[g + 1]), int(r[g + 2])) in HELD_OUT and r[g] > 0 for g in (0, 5)] for r in data.attrs])
    assert held[:50].any(1).all() and not held[50:].any() and 5 < held[:50, 1].sum() < 25
    assert torch.equal(data.images, again.images) and torch.equal(data.images[50:], plain.images[50:])
    assert torch.equal(data.images[:50], render(data.attrs[:50], 3)) and torch.equal(data.said, plain.said)
    same = data.attrs[:, [0, 3, 4, 5, 8, 9, 10, 11]]
    assert torch.equal(same, plain.attrs[:, [0, 3, 4, 5, 8, 9, 10, 11]])


def test_prompts():
    rows = digiteval_prompts()
    again = digiteval_prompts()
    assert [r.caption for r in rows] == [r.caption for r in again] and len(rows) == 6 * 80
    for r in rows:
        attrs, said = parse(r.caption)
        assert torch.equal(said, r.said), r.caption
        groups = [(0, 1, 2)] + ([(5, 6, 7)] if r.attrs[5] else [])
        pairs = [(int(r.attrs[d]), int(r.attrs[c])) for _, d, c in groups]
        assert any(p in HELD_OUT for p in pairs) == r.held_out
        assert torch.equal(attrs[said], r.attrs[said]), r.caption
    for task in TASKS:
        held = [r.held_out for r in rows if r.task == task]
        assert len(held) == 80 and sum(held) in (0, 40)
    said = torch.stack([r.said for r in rows])
    assert said.any(0).all()                                    # every attribute is asked for somewhere
    assert len({r.caption for r in rows}) > 400


class Oracle(torch.nn.Module):
    "Answers with what was asked for, wrong in every tenth colour of a task"
    def __init__(self):
        super().__init__()
        self.p = torch.nn.Parameter(torch.zeros(1))
        self.rows, self.i = digiteval_prompts(), 0

    def predict(self, x):
        attrs = torch.stack([r.attrs for r in self.rows[self.i:self.i + len(x)]])
        self.i += len(x)
        attrs = canonical(attrs)
        attrs[:, 10] = torch.where(attrs[:, 10] == 5, 1, attrs[:, 10])
        attrs[3::60, 2] = (attrs[3::60, 2] + 1) % 8  # six tasks by turns: every tenth prompt of "colours"
        return attrs


def test_digiteval():
    asked = []
    def generate(captions):
        asked.extend(captions)
        return torch.zeros(len(captions), 3, 64, 64)
    results = digiteval(generate, Oracle(), batch=60)
    assert asked == [r.caption for r in digiteval_prompts()]
    assert results["single digit", "all"].share == 1 and results["position", "all"].share == 1
    assert results["colours", "all"].share == .9 and results["colours", "all"].n == 80
    assert results["position", "held_out"] is None
    assert results["overall", "all"].n == 480 and results["overall", "held_out"].n == 120
    assert results["colours", "all"].error == pytest.approx((.9 * .1 / 80)**.5, rel=.05)
    text = digiteval_table(model=results, real=results)
    assert "colour attribution" in text and "90.0" in text and len({len(line) for line in text.split("\n")}) == 1


def test_real_scenes():
    results = real_scenes_accuracy(Judge(), n=2)
    assert results["overall", "all"].n == 12


def test_what_was_said_may_be_numbers():
    want, said = attrs_of(NINE_RIGHT_OF_THREE), torch.tensor([[1] * 9 + [0, 1, 0]])
    seen, wrong = canonical(want), canonical(want)
    wrong[0, 0] += 1
    for s in (said, said.bool()): assert agree(seen, want, s).item() and not agree(wrong, want, s).item()
    assert canonical(want, said)[0].tolist() == said[0, SWAP].tolist()


def test_digiteval_counts_the_pictures():
    with pytest.raises(ValueError, match="1 images for"): digiteval(lambda captions: torch.zeros(1, 3, 64, 64), Judge(), 1)


def test_a_ball_has_a_neighbour():
    with pytest.raises(ValueError, match="k 0"): precision_recall(torch.randn(9, 2), torch.randn(9, 2), k=0)
