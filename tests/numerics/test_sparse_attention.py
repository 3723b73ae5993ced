"""The sparse mask against the sets of its definition, and that attention obeys it.

The default form gathers the visible keys; its reference computes all scores under the mask.
"""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superbit.upstreams.encoders.attention import SelfAttention
from superbit.upstreams.encoders.sparse_attention import SparseSelfAttention, sparse_mask

pytestmark = pytest.mark.thorough

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


# the gathered form against dense attention under the mask ---------------------------------------


def pair(stride, expressivity, dtype):
    """The default module and its dense reference with the same weights, as torch draws them."""
    torch.manual_seed(0)
    gathered = SparseSelfAttention(16, 2, stride=stride, expressivity=expressivity).to(dtype)
    assert gathered.gather
    reference = SparseSelfAttention(16, 2, stride=stride, expressivity=expressivity, gather=False)
    reference.to(dtype).load_state_dict(gathered.state_dict())
    return gathered, reference


def gathered_equals_dense(frames, stride, expressivity, dtype, tolerance):
    modules = pair(stride, expressivity, dtype)
    torch.manual_seed(frames)
    x = torch.randn(3, frames, 16, dtype=dtype)
    # the second utterance is padded, the third has no frame at all
    padded = torch.arange(frames) < torch.tensor([[frames], [frames // 3 + 1], [0]])
    for valid in (None, padded):
        results = []
        for module in modules:
            inputs = x.clone().requires_grad_()
            module.zero_grad()
            output = module(inputs, valid)
            # weighed, and over the number of frames: gradients of about the outputs' size
            (output * torch.linspace(-1, 1, 16)).sum().div(frames).backward()
            gradients = {name: p.grad for name, p in module.named_parameters()}
            results.append({"output": output.detach(), "input": inputs.grad, **gradients})
        for name, mine in results[0].items():
            assert mine.isfinite().all(), (name, frames)
            assert (mine - results[1][name]).abs().max() <= tolerance, (name, frames)
        if valid is not None:
            # a context of zeros leaves the output layer's bias
            empty = results[0]["output"][~valid]
            assert torch.equal(empty, modules[0].output.bias.expand_as(empty))


PRECISIONS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)]
)


@PRECISIONS
@pytest.mark.parametrize("stride", [4, 5, 32, 64])
@pytest.mark.parametrize("part", ["1", "half", "all but 2", "all but 1", "all"])
def test_gathered_equals_dense_forward_and_backward(stride, part, dtype, tolerance):
    expressivity = {
        "1": 1,
        "half": stride // 2,
        "all but 2": stride - 2,
        "all but 1": stride - 1,
        "all": stride,
    }[part]
    for frames in (1, 2, 5, 31, 32, 33, 34, 64, 65):
        gathered_equals_dense(frames, stride, expressivity, dtype, tolerance)


@PRECISIONS
@pytest.mark.parametrize(
    ("frames", "stride", "expressivity"),
    [(499, 4, 1), (500, 4, 1), (499, 32, 8), (500, 32, 8), (500, 64, 64), (1500, 32, 8)],
)
def test_gathered_equals_dense_at_true_lengths(frames, stride, expressivity, dtype, tolerance):
    gathered_equals_dense(frames, stride, expressivity, dtype, tolerance)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.data())
def test_gathered_equals_dense_for_any_shape(data):
    stride = data.draw(st.integers(2, 12), label="stride")
    expressivity = data.draw(st.integers(1, stride), label="expressivity")
    frames = data.draw(st.integers(1, 40), label="frames")
    gathered_equals_dense(frames, stride, expressivity, torch.float64, 1e-14)


@pytest.mark.parametrize(("stride", "expressivity"), PATTERNS)
def test_gathered_keys_are_those_of_the_definition_once_each(stride, expressivity):
    module = attention(stride, expressivity)
    for frames in FRAMES:
        # the values are the frames' one-hot vectors, so that each context is the row of weights
        one_hot = torch.eye(frames)[None, None]
        weights = module.attend(
            torch.zeros(1, 1, frames, 1), torch.zeros(1, 1, frames, 1), one_hot, None
        )
        for row, weight in enumerate(weights[0, 0]):
            keys = visible_keys(row, frames, stride, expressivity)
            expected = torch.tensor([1 / len(keys) if j in keys else 0.0 for j in range(frames)])
            torch.testing.assert_close(weight, expected, rtol=0, atol=1e-6)


def test_a_key_that_is_forbidden_moves_nothing():
    module = attention(stride=4, expressivity=1)
    x = torch.randn(1, 23, 16)
    before = module(x)[0]
    for changed in range(23):
        hook = module.key.register_forward_hook(
            lambda _module, _inputs, key, at=changed: key.index_fill(1, torch.tensor([at]), 9.0)
        )
        moved = (module(x)[0] != before).any(dim=-1)
        hook.remove()
        sees = [changed in visible_keys(row, 23, 4, 1) for row in range(23)]
        assert moved.tolist() == sees, changed


def test_no_score_outside_the_pattern_is_computed():
    module = attention(stride=32, expressivity=8)
    products = []
    for product in (module.score_product, module.context_product):
        product.register_forward_hook(
            lambda _module, inputs, result: products.append(
                (inputs[0].shape[-1] * result.numel(), result.shape)
            )
        )
    frames = 500
    module(torch.randn(1, frames, 16))
    computed = sum(multiplications for multiplications, _ in products)
    heads, width = 2, 8
    # frame 0, nine summaries of each of 16 blocks, 23 private frames; block 16's last 12 of 512
    # rows and columns are beyond the end
    keys, rows = 1 + 16 * 9 + 23, 512
    dense = 2 * heads * frames * frames * width
    assert computed <= 2 * heads * rows * keys * width
    assert computed < 0.35 * dense
    assert max(shape[-2:].numel() for _, shape in products) < frames * 0.3 * frames


def test_both_products_are_taken_from_modules_that_can_be_swapped():
    class Counted(torch.nn.Module):
        calls = 0

        def forward(self, left, right):
            Counted.calls += 1
            return 0 * (left @ right)

    for name, expected in (("context_product", 0.0), ("score_product", None)):
        module = attention(stride=4, expressivity=1)
        setattr(module, name, Counted())
        x = torch.randn(1, 23, 16)
        output = module(x)[0]
        assert Counted.calls > 0
        Counted.calls = 0
        if expected is None:  # equal scores: the mean over the visible values
            values = module.value(x)[0]
            means = [values[sorted(visible_keys(i, 23, 4, 1))].mean(dim=0) for i in range(23)]
            torch.testing.assert_close(output, module.output(torch.stack(means)))
        else:
            assert torch.equal(output, module.output.bias.expand(23, -1))


def test_dropout_falls_on_the_joint_weights():
    module = attention(stride=4, expressivity=1, dropout=0.5).train()
    seen = []
    module.dropout.register_forward_hook(
        lambda _m, inputs, result: seen.append((inputs[0], result))
    )
    module(torch.randn(2, 23, 16))
    [(before, after)] = seen
    torch.testing.assert_close(before.sum(dim=-1), torch.ones(2, 2, 23))
    kept = after != 0
    assert 0.4 < kept[before > 0].float().mean() < 0.6
    torch.testing.assert_close(after[kept], 2 * before[kept])


def test_the_names_of_the_weights_are_those_of_dense_attention():
    assert list(attention().state_dict()) == list(SelfAttention(16, 2).state_dict())


@pytest.mark.filterwarnings("ignore")
def test_the_backward_pass_can_be_traced_too():
    module = attention(stride=4, expressivity=1)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    valid = torch.arange(21) < torch.tensor([[21], [6]])
    x = torch.randn(2, 21, 16)
    gradients = []
    for function in (module, compiled):
        inputs = x.clone().requires_grad_()
        function(inputs, valid).square().sum().backward()
        gradients.append(inputs.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.filterwarnings("ignore")
def test_what_was_traced_at_one_length_is_right_at_others_and_eagerly():
    module = attention(stride=4, expressivity=1)
    compiled = torch.compile(module, backend="eager", fullgraph=True, dynamic=True)
    for frames in (9, 40, 21, 2, 17):
        x = torch.randn(2, frames, 16)
        valid = torch.arange(frames) < torch.tensor([frames, 2])[:, None]
        torch.testing.assert_close(compiled(x, valid), module(x, valid))
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        assert module(torch.empty(1, 13, 16)).shape == (1, 13, 16)
    output = module(torch.randn(1, 13, 16))  # nothing of the tracing is left behind
    assert type(output) is torch.Tensor
    assert output.isfinite().all()
