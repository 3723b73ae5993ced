"""Policies: what w1a1 binarizes, and what a policy that is wrong is told."""

import pytest

from superbit.benchmark.profiling.counting import meta_model
from superbit.upstreams.errors import InputError
from superbit.upstreams.quantization.policy import load_policy, parse_policy, read_policy
from superbit.upstreams.variant import size_of, sizes

RULE = "{modules: [encoder.layers.*.attention.query], weight: {bits: 1, set: signed}}"


def matches(name):
    model = meta_model(size_of(name))
    return load_policy("w1a1").match(model, encoder=model.config.encoder)


@pytest.mark.parametrize("name", sorted(sizes()))
def test_every_glob_of_w1a1_matches_in_every_encoder(name):
    found = matches(name)
    layers = {module.split(".")[2] for module in found}
    assert layers == {str(i) for i in range(size_of(name).layers)}
    assert all(module.startswith("encoder.layers.") for module in found)


def test_the_sets_are_those_of_bit():
    found = matches("vanilla_nano")
    unsigned = {name for name, rule in found.items() if rule.input and rule.input.set == "unsigned"}
    assert unsigned == {f"encoder.layers.{i}.feed_forward.contract" for i in range(4)}
    probabilities = found["encoder.layers.0.attention.context_product"]
    assert (probabilities.left.set, probabilities.left.shift) == ("unsigned", False)
    assert probabilities.right.set == "signed"
    assert found["encoder.layers.0.feed_forward.activation"].replace == "relu"


def test_convolutions_are_binarized_where_there_are_some():
    assert not any(".convolution." in name for name in matches("vanilla_nano"))
    convolutions = [name for name in matches("squeeze_nano") if ".convolution." in name]
    assert len(convolutions) == 3 * size_of("squeeze_nano").layers


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (["{modules: [encoder.layers.*.atention.query], weight: {bits: 1, set: signed}}"],
         "matches no module"),
        # "*" does not reach over a dot
        (["{modules: [encoder.*.query], weight: {bits: 1, set: signed}}"], "matches no module"),
        ([RULE, RULE], "two rules match"),
        (["{modules: [encoder.layers.*.attention.dropout], weight: {bits: 1, set: signed}}"],
         "no weight"),
    ],
)  # fmt: skip
def test_a_policy_that_does_not_fit_the_model_is_an_error(rules, said):
    policy = parse_policy(f"name: p\nrules: [{', '.join(rules)}]", where="p.yaml")
    with pytest.raises(InputError, match=said):
        policy.match(meta_model(size_of("vanilla_nano")), encoder="vanilla")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: p\nrulez: []", "rulez.*Did you mean 'rules'"),
        ("- 1", "a mapping of name,.* is needed"),
        ("name: [", "p.yaml is not valid YAML at line 1"),
        ("rules: [{}]", "name is None"),
        ("name: p\nrules: []", "a list of rules"),
        ("name: p\nrules: [{modules: [a]}]", "rule 1: a rule has weight and input"),
        ("name: p\nrules: [{modules: a, replace: relu}]", "modules is 'a'; a list of words"),
        ("name: p\nrules: [{modules: [a], replace: rely}]", "Did you mean 'relu'"),
        ("name: p\nrules: [{modules: [a], left: {bits: 1, set: signed}}]", "two operands"),
        ("name: p\nrules: [{modules: [a], input: {bits: 0, set: signed}}]", "bits is 0"),
        ("name: p\nrules: [{modules: [a], input: {bits: 1, set: sign}}]", "Did you mean 'signed'"),
        ("name: p\nrules: [{modules: [a], weight: {bits: 1, set: signed, shift: true}}]",
         "takes no shift"),
        ("name: p\nrules: [{modules: [a], encoders: [vanila], replace: relu}]",
         "Did you mean 'vanilla'"),
    ],
)  # fmt: skip
def test_a_wrong_policy_is_named_with_its_key(text, said):
    with pytest.raises(InputError, match=said):
        parse_policy(text, where="p.yaml")


def test_unknown_names_and_files(tmp_path):
    with pytest.raises(InputError, match="Did you mean 'w1a1'"):
        load_policy("w1b1")
    with pytest.raises(InputError, match="is not there: it should be a policy"):
        read_policy(tmp_path / "none.yaml")
    file = tmp_path / "mine.yaml"
    file.write_text(f"name: mine\nrules: [{RULE}]")
    assert read_policy(file).name == "mine"
