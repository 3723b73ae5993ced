"""The sparse mask against the sets of its definition, and that attention obeys it."""

import itertools

import pytest
import torch

from superbit.upstreams.encoders.attention import SelfAttention
from superbit.upstreams.encoders.sparse_attention import SparseSelfAttention, sparse_mask

FRAMES = [1, 2, 5, 31, 32, 33, 34, 64, 65, 99]
PATTERNS = [(2, 1), (2, 2), (4, 1), (4, 4), (7, 3), (8, 8), (32, 1), (32, 8), (32, 32)]


def visible_keys(i, frames, stride, expressivity):
    """A(i) = W(i) ∪ S, as the specification defines the sets."""
    window = 0 if i == 0 else -(-i // stride) - 1
    own = range(window * stride, min((window + 1) * stride, frames - 1) + 1)
    summaries = {
        j
        for k in range(1, frames // stride + 3)
        for j in range(k * stride - expressivity, k * stride + 1)
        if j < frames
    }
    return set(own) | summaries


def attention(stride=4, expressivity=1, dim=16, heads=2, **kwargs):
    torch.manual_seed(0)
    module = SparseSelfAttention(
        dim, heads, stride=stride, expressivity=expressivity, **kwargs
    ).eval()
    for parameter in module.parameters():
        # small enough that no visible key's weight rounds to 0
        torch.nn.init.normal_(parameter, std=0.3)
    return module


@pytest.mark.parametrize(("stride", "expressivity"), PATTERNS)
def test_mask_is_the_union_of_window_and_summaries(stride, expressivity):
    for frames in FRAMES:
        mask = sparse_mask(frames, stride=stride, expressivity=expressivity)
        expected = [visible_keys(i, frames, stride, expressivity) for i in range(frames)]
        assert [set(row.nonzero().flatten().tolist()) for row in mask] == expected, frames


@pytest.mark.parametrize(
    ("frames", "density"), [(49, 0.62), (99, 0.50), (249, 0.35), (499, 0.316), (1499, 0.29)]
)
def test_density_is_what_was_measured_for_fairseqs_pattern(frames, density):
    mask = sparse_mask(frames, stride=32, expressivity=8)
    assert mask.float().mean().item() == pytest.approx(density, abs=0.005)


def test_every_frame_sees_itself():
    for frames, (stride, expressivity) in itertools.product(FRAMES, PATTERNS):
        assert sparse_mask(frames, stride=stride, expressivity=expressivity).diagonal().all()


def test_a_longer_batch_leaves_the_keys_of_an_utterance_as_they_are():
    long = sparse_mask(99, stride=8, expressivity=3)
    for frames in range(1, 99):
        short = sparse_mask(frames, stride=8, expressivity=3)
        assert torch.equal(long[:frames, :frames], short), frames


@pytest.mark.parametrize(("stride", "expressivity"), [(4, 1), (4, 4), (32, 8)])
@pytest.mark.parametrize("frames", [2, 33, 70])
def test_a_value_at_a_forbidden_key_moves_nothing(frames, stride, expressivity):
    module = attention(stride, expressivity)
    x = torch.randn(1, frames, 16)

    def output(changed_key):
        """The module's output when the value (not the key) of one frame is another."""

        def change(_module, _inputs, value):
            value = value.clone()
            if changed_key is not None:
                value[:, changed_key] += 100.0
            return value

        hook = module.value.register_forward_hook(change)
        try:
            return module(x)[0]
        finally:
            hook.remove()

    before = output(None)
    for key in range(frames):
        moved = (output(key) != before).any(dim=-1)
        for row in range(frames):
            sees = key in visible_keys(row, frames, stride, expressivity)
            assert bool(moved[row]) == sees, (row, key)


def test_sparse_is_not_dense_unless_it_sees_all():
    sparse = attention(stride=4, expressivity=1)
    dense = SelfAttention(16, 2).eval()
    dense.load_state_dict(sparse.state_dict())
    beyond = torch.randn(1, 33, 16)
    assert (sparse(beyond) - dense(beyond)).abs().max() > 0.01
    within = torch.randn(1, 5, 16)  # one window
    torch.testing.assert_close(sparse(within), dense(within), rtol=1e-6, atol=1e-6)


def test_sparse_equals_a_softmax_over_the_visible_keys_row_by_row():
    module = attention(stride=4, expressivity=1)
    frames = 21
    x = torch.randn(1, frames, 16)
    query, key, value = (
        layer(x)[0].unflatten(-1, (2, 8)) for layer in (module.query, module.key, module.value)
    )
    expected = torch.empty(frames, 2, 8)
    for i in range(frames):
        keys = sorted(visible_keys(i, frames, 4, 1))
        for head in range(2):
            scores = key[keys, head] @ query[i, head] / 8**0.5
            expected[i, head] = scores.softmax(dim=0) @ value[keys, head]
    torch.testing.assert_close(
        module(x)[0], module.output(expected.flatten(1)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("cls", [SelfAttention, SparseSelfAttention])
def test_padding_is_not_seen_and_rows_without_a_key_give_zero(cls):
    sparse = attention(stride=4, expressivity=1)
    module = sparse
    if cls is SelfAttention:
        module = SelfAttention(16, 2)
        module.load_state_dict(sparse.state_dict())
    lengths = [20, 2]  # frames 8…11 of the second see neither of its two
    x = torch.randn(2, 20, 16, requires_grad=True)
    valid = torch.arange(20) < torch.tensor(lengths)[:, None]
    output = module(x, valid)
    for row, length in enumerate(lengths):
        alone = module(x[row : row + 1, :length])
        torch.testing.assert_close(output[row, :length], alone[0], rtol=1e-5, atol=1e-5)
    # a context of zeros leaves the output layer's bias
    assert torch.equal(output[1, 2:], module.output.bias.expand(18, -1))

    # another content of the padding moves no valid frame, not by a bit
    other = torch.where(valid[..., None], x, torch.full_like(x, 1e4))
    assert torch.equal(module(other, valid)[valid], output[valid])

    output[valid].pow(2).sum().backward()
    assert x.grad.isfinite().all()
    assert not x.grad[~valid].any()


def test_a_mask_first_used_in_inference_mode_serves_a_backward_pass_later():
    module = attention(stride=3, expressivity=2)
    x = torch.randn(1, 23, 16)
    with torch.inference_mode():
        first = module(x)
    second = module(x)
    second.sum().backward()
    assert torch.equal(first, second)
    assert module.query.weight.grad.abs().sum() > 0


@pytest.mark.filterwarnings("ignore")
def test_sparse_attention_can_be_traced_as_one_graph():
    module = attention(stride=4, expressivity=2)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    for frames in (9, 17):
        x = torch.randn(2, frames, 16)
        valid = torch.arange(frames) < torch.tensor([frames, 3])[:, None]
        torch.testing.assert_close(compiled(x, valid), module(x, valid))
