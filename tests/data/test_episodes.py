"""Episodes: deterministic, disjoint, nested in the number of queries, and fair."""

import gc
import weakref

import numpy as np
import pytest
import torch

from benchmark import data
from benchmark.data import episodes, nearest_centroid
from benchmark.data.storage import ClassInfo, Dataset
from benchmark.errors import UserError

COUNTS = (8, 9, 7, 12, 8, 10)


def numbered(name="numbered", rotations=1, groups=None):
    """Every image is 2×2 and says its class and number: [[200, class], [number, 0]]."""
    classes, images = [], []
    for split in ("train", "val", "test"):
        for count in COUNTS:
            images += [[[[200, len(classes)], [i, 0]]] for i in range(count)]
            sizes = () if groups is None else tuple(np.diff([0, *groups, count]))
            classes.append(ClassInfo(f"c{len(classes)}", split, count, sizes))
    return Dataset(name, np.array(images, np.uint8), (1, 2, 2), tuple(classes), "", rotations=rotations)


def pixel_values(x):
    """uint8 ``[T, S, 2, 2]``."""
    return (x * 255).round().to(torch.uint8)[:, :, 0]


def identity(x):
    """(class, number) of each image ``[T, S, 2]``."""
    values = pixel_values(x).to(int)
    return torch.stack([values[..., 0, 1], values[..., 1, 0]], -1)


def draw(dataset, split="train", ways=3, shots=2, query=4, seed=0, indices=range(50)):
    return data.sample(data.Episodes(dataset, split, ways, shots, query, seed), indices)


def test_shapes_types_and_labels():
    batch = draw(numbered())
    assert batch.support_x.shape == (50, 6, 1, 2, 2)
    assert batch.query_x.shape == (50, 12, 1, 2, 2)
    assert batch.support_x.dtype == batch.query_x.dtype == torch.float32
    assert batch.support_y.dtype == batch.query_y.dtype == torch.int64
    assert batch.support_y[7].tolist() == [0, 0, 1, 1, 2, 2]
    assert batch.query_y[7].tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_classes_are_distinct_from_the_split_and_images_never_repeat():
    for split, low in (("train", 0), ("val", 6), ("test", 12)):
        batch = draw(numbered(), split)
        both = torch.cat(
            [identity(batch.support_x).reshape(50, 3, 2, 2), identity(batch.query_x).reshape(50, 3, 4, 2)], 2
        )
        for task in both:
            labels = task[:, :, 0]
            assert (labels == labels[:, :1]).all()
            assert len(set(labels[:, 0].tolist())) == 3
            assert low <= labels.min()
            assert labels.max() < low + 6
            assert all(len(set(numbers.tolist())) == 6 for numbers in task[:, :, 1])


def test_a_task_depends_on_its_index_alone():
    whole = draw(numbered(), indices=range(200))
    some = draw(numbered(), indices=[170, 3, 90])
    for a, b in zip(whole, some, strict=True):
        assert torch.equal(a[[170, 3, 90]], b)
    assert not torch.equal(whole.support_x, draw(numbered(), seed=1, indices=range(200)).support_x)
    assert not torch.equal(whole.support_x, draw(numbered("other"), indices=range(200)).support_x)
    assert not torch.equal(whole.support_x, draw(numbered(), "val", indices=range(200)).support_x)


@pytest.mark.parametrize("groups", [None, (2, 4, 6)])
def test_support_ignores_the_queries_and_queries_are_nested(groups):
    few, many = draw(numbered(groups=groups), query=2), draw(numbered(groups=groups), query=3)
    assert torch.equal(few.support_x, many.support_x)
    assert torch.equal(few.query_x.reshape(50, 3, 2, -1), many.query_x.reshape(50, 3, 3, -1)[:, :, :2])
    none = draw(numbered(groups=groups), query=0)
    assert torch.equal(none.support_x, many.support_x)
    assert none.query_x.shape[1] == 0


def test_the_tasks_are_these():
    """A change here changes every published number: the words must be the same on every platform and release."""
    batch = draw(numbered(), ways=2, shots=1, query=2, indices=[0, 1])
    assert identity(batch.support_x).tolist() == FIXED_SUPPORT
    assert identity(batch.query_x).tolist() == FIXED_QUERY
    assert episodes.class_names(data.Episodes(numbered(rotations=4), "train", 3, 1, 1, 0), [0]) == [FIXED_ROTATED]


FIXED_SUPPORT = [[[2, 4], [0, 7]], [[3, 11], [5, 2]]]
FIXED_ROTATED = ["c5@270", "c5", "c1@180"]
FIXED_QUERY = [[[2, 2], [2, 1], [0, 6], [0, 5]], [[3, 9], [3, 1], [5, 9], [5, 5]]]


def test_every_class_and_image_is_as_likely():
    batch = draw(numbered(), ways=2, shots=1, query=1, indices=range(6000))
    drawn = identity(batch.support_x)
    share = torch.bincount(drawn[..., 0].flatten(), minlength=6)[:6] / 12000
    assert (share - 1 / 6).abs().max() < 4 * (5 / 36 / 12000) ** 0.5 + 0.005
    first = drawn[drawn[..., 0] == 3][:, 1]
    share = torch.bincount(first, minlength=12) / len(first)
    assert (share - 1 / 12).abs().max() < 5 * (1 / 12 / len(first)) ** 0.5


def test_groups_never_serve_both_sides():
    batch = draw(numbered(groups=(2, 4, 6)), query=3)
    support, query = identity(batch.support_x).reshape(50, 3, 2, 2), identity(batch.query_x).reshape(50, 3, 3, 2)
    for s, q in zip(support.reshape(-1, 2, 2), query.reshape(-1, 3, 2), strict=True):
        group = [np.minimum(part[:, 1].numpy() // 2, 3) for part in (s, q)]
        assert not set(group[0]) & set(group[1])
        assert len(set(group[0])) == len(set(group[1])) == 2, "each group gives one image before any gives two"


def test_few_groups_are_shared_between_both_sides():
    """Four groups, three shots: two groups serve the support, two the query."""
    batch = draw(numbered(groups=(2, 4, 5)), shots=3, query=2, indices=range(200))
    support, query = identity(batch.support_x).reshape(-1, 3, 2), identity(batch.query_x).reshape(-1, 2, 2)
    for s, q in zip(support[..., 1].numpy(), query[..., 1].numpy(), strict=True):
        groups = [set(np.searchsorted((2, 4, 5), part, side="right")) for part in (s, q)]
        assert len(groups[0]) == len(groups[1]) == 2
        assert not groups[0] & groups[1]


def test_images_are_the_stored_bytes_over_255_to_the_bit():
    bytes_ = np.arange(256, dtype=np.uint8).reshape(4, 1, 8, 8)
    dataset = Dataset("ramp", bytes_, (1, 8, 8), (ClassInfo("a", "train", 4),), "")
    found = draw(dataset, ways=1, shots=1, query=3, indices=[0])
    values = torch.cat([found.support_x, found.query_x], 1).flatten().sort().values
    assert np.array_equal(values.numpy(), np.arange(256, dtype=np.float32) / np.float32(255))


@pytest.mark.parametrize("how", [{}, {"rotations": 4}, {"groups": (2, 4, 5)}])
def test_images_on_a_device_give_the_same_tasks(how, monkeypatch):
    dataset = numbered(**how)
    expected = draw(dataset, query=2)
    monkeypatch.setattr(episodes, "_UPLOADED", 7)
    uploaded = episodes.upload(dataset.images, torch.device("cpu"))
    monkeypatch.setattr(episodes, "resident", lambda dataset, device: uploaded)
    for one, two in zip(expected, draw(dataset, query=2), strict=True):
        assert torch.equal(one, two)


def test_images_are_uploaded_once_where_they_fit(monkeypatch):
    dataset, gpu, uploads = numbered(), torch.device("cuda", 0), []
    monkeypatch.setattr(episodes, "upload", lambda images, device: uploads.append(device) or torch.empty(0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * dataset.images.nbytes, 0))
    assert episodes.resident(dataset, torch.device("cpu")) is None
    assert episodes.resident(dataset, None) is None
    assert episodes.resident(dataset, gpu) is episodes.resident(dataset, gpu)
    assert uploads == [gpu]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * dataset.images.nbytes - 1, 0))
    assert episodes.resident(numbered(), gpu) is None
    assert uploads == [gpu]


def test_a_set_is_let_go_with_what_was_made_for_it():
    dataset = numbered()
    draw(dataset, query=2)
    known = weakref.ref(dataset)
    del dataset
    gc.collect()
    assert known() is None


def test_rotated_classes():
    dataset = numbered(rotations=4)
    assert [len(names) for names in dataset.splits.values()] == [24, 24, 24]
    assert dataset.splits["train"][:5] == ["c0", "c0@90", "c0@180", "c0@270", "c1"]
    batch = draw(dataset, ways=20, shots=1, query=2, indices=range(20))
    names = episodes.class_names(data.Episodes(dataset, "train", 20, 1, 2, 0), range(20))
    images = torch.cat([pixel_values(batch.support_x), pixel_values(batch.query_x)], 1)
    labels = torch.cat([batch.support_y, batch.query_y], 1)
    corner = {0: 0, 2: 1, 3: 2, 1: 3}  # where the 200 of the upper left goes in so many turns to the left
    suffix = ["", "@90", "@180", "@270"]
    for task, label, own in zip(images, labels, names, strict=True):
        seen = []
        for way in range(20):
            turns = [corner[int(image.argmax())] for image in task[label == way]]
            stored = [int(np.rot90(image, -turn)[0, 1]) for image, turn in zip(task[label == way], turns, strict=True)]
            assert len(turns) == 3
            assert len(set(turns)) == len(set(stored)) == 1
            seen.append((stored[0], turns[0]))
            assert own[way] == f"c{stored[0]}{suffix[turns[0]]}"
        assert len(set(seen)) == 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "tset"}, "unknown split 'tset', expected train, val or test (did you mean 'test'?)"),
        ({"ways": 7}, "numbered has 6 train classes, fewer than 7 ways; lower --ways"),
        ({"ways": 0}, "ways must be at least 1, got 0"),
        ({"shots": 0}, "shots must be at least 1, got 0"),
        ({"query": -1}, "query must be at least 0, got -1"),
        ({"query": 6}, "class 'c2' has 2 support and 5 query images for a task of 2 shots, asked for 2 and 6"),
        ({"query": 6}, "; lower --query-train to 5"),
        ({"query": 6, "split": "test"}, "; lower --query-test to 5"),
        ({"shots": 9}, "for a task of 9 shots, asked for 9 and 4; lower --shots"),
    ],
)
def test_impossible_episodes_are_refused(change, message):
    with pytest.raises(UserError) as error:
        draw(numbered(), **change)
    assert message in str(error.value)


def test_too_few_groups_are_refused():
    with pytest.raises(UserError, match="support and"):
        draw(numbered(groups=(2, 4, 6)), shots=5, query=1)


def test_sine_tasks():
    dataset = data.load("sine")
    assert dataset.kind == "regression"
    assert dataset.image_shape == (1,)
    batch = data.sample(data.Episodes(dataset, "test", 1, 10, 15, seed=0), range(300))
    assert batch.support_x.shape == batch.support_y.shape == (300, 10, 1)
    assert batch.query_y.shape == (300, 15, 1)
    assert batch.support_y.dtype == torch.float32
    x, y = (
        torch.cat([batch.support_x, batch.query_x], 1).double(),
        torch.cat([batch.support_y, batch.query_y], 1).double(),
    )
    assert x.min() >= -5
    assert x.max() <= 5
    basis = torch.cat([torch.sin(x), torch.cos(x)], 2)  # A sin(x − p) = (A cos p) sin x − (A sin p) cos x
    weights = torch.linalg.lstsq(basis, y).solution
    assert (basis @ weights - y).abs().max() < 1e-5
    amplitude, phase = weights[:, :, 0].norm(dim=1), torch.atan2(-weights[:, 1, 0], weights[:, 0, 0])
    assert 0.1 <= amplitude.min() < 0.4
    assert 4.7 < amplitude.max() <= 5
    assert phase.min() >= 0
    assert 3 < phase.max() <= np.pi
    shorter = data.sample(data.Episodes(dataset, "test", 1, 10, 4, seed=0), [5])
    assert torch.equal(shorter.support_x[0], batch.support_x[5])
    assert torch.equal(shorter.query_y[0], batch.query_y[5, :4])
    training = data.sample(data.Episodes(dataset, "train", 1, 10, 15, 0), range(300))
    assert not torch.equal(batch.support_x, training.support_x)
    with pytest.raises(UserError, match="ways must be 1, got 5"):
        data.sample(data.Episodes(dataset, "test", 5, 10, 15, seed=0), [0])


def test_pixels_is_the_nearest_centroid():
    generator = torch.Generator().manual_seed(0)
    batch = data.episodes.EpisodeBatch(
        torch.rand(3, 6, 1, 2, 2, generator=generator),
        torch.tensor([[0, 0, 1, 1, 2, 2]] * 3),
        torch.rand(3, 4, 1, 2, 2, generator=generator),
        torch.tensor([[0, 1, 2, 1]] * 3),
    )
    accuracy, nll = nearest_centroid.evaluate(batch)
    for t in range(3):
        centroid = [batch.support_x[t, batch.support_y[t] == c].mean(0) for c in range(3)]
        right, loss = 0, 0.0
        for x, y in zip(batch.query_x[t], batch.query_y[t], strict=True):
            distance = torch.stack([(x - m).square().sum() for m in centroid])
            right += int(distance.argmin() == y)
            loss -= torch.log_softmax(-distance, 0)[y].item()
        assert accuracy[t].item() == pytest.approx(right / 4)
        assert nll[t].item() == pytest.approx(loss / 4, abs=1e-5)
