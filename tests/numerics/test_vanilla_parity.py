"""Vanilla with wav2vec 2.0's front end against HuBERT base of Hugging Face and of torchaudio.

Everything has its true size but the number of layers. The weights are the peer's, carried over by
the import, so that a wrong name would show as a wrong state. The peer computes in double precision:
in single it is 1e-5 from that, of which we would be measured a part.
"""

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from superbit.upstreams.importing.convert import convert
from superbit.upstreams.importing.reading import read_hugging_face, read_torchaudio
from superbit.upstreams.s3prl import compat

compat.apply()  # some builds of torchaudio do not import without it

import torchaudio  # noqa: E402
import transformers  # noqa: E402

LAYERS = 2
WAV2VEC2 = ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)
# Of these, the peers' count of valid frames (the convolutions' own) is also fairseq's, which cuts
# the longest waveform into as many equal groups as there are frames.
LENGTHS = [16_000, 14_990, 11_000, 4_562]
FRAMES = [49, 46, 34, 14]


def shaken(peer):
    """The peer with every parameter off its starting point, where biases and gains hide."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return peer.eval()


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory):
    """Hugging Face's model, and ours with its weights."""
    torch.manual_seed(0)
    config = transformers.HubertConfig(num_hidden_layers=LAYERS)
    peer = shaken(transformers.HubertModel(config))
    directory = tmp_path_factory.mktemp("hf")
    peer.save_pretrained(directory)
    return peer.double(), convert(read_hugging_face(directory)).model.eval()


@pytest.fixture(scope="module")
def torchaudios(tmp_path_factory):
    """torchaudio's model, and ours with its weights."""
    torch.manual_seed(1)
    peer = torchaudio.models.hubert_base()
    del peer.encoder.transformer.layers[LAYERS:]
    shaken(peer)
    file = tmp_path_factory.mktemp("torchaudio") / "hubert.pth"
    torch.save(peer.state_dict(), file)
    return peer.double(), convert(read_torchaudio(file)).model.eval()


@pytest.fixture(scope="module")
def waveforms():
    torch.manual_seed(2)
    return [torch.randn(samples) for samples in LENGTHS]


def hugging_face_states(peer, waveforms):
    """All states of a padded batch, and how many frames the peer takes to be valid."""
    samples = pad_sequence(waveforms, batch_first=True).double()
    valid = pad_sequence([torch.ones_like(w, dtype=torch.long) for w in waveforms], True)
    frames = peer._get_feat_extract_output_lengths(valid.sum(dim=1)).tolist()
    output = peer(samples, attention_mask=valid, output_hidden_states=True)
    return output.hidden_states, frames


def torchaudio_states(peer, waveforms):
    """As `hugging_face_states`; the first layer's input is caught on its way."""
    first = []
    hook = peer.encoder.transformer.layers[0].register_forward_pre_hook(
        lambda _module, given: first.append(given[0])
    )
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    samples = pad_sequence(waveforms, batch_first=True).double()
    states, frames = peer.extract_features(samples, lengths)
    hook.remove()
    return [*first, *states], frames.tolist()


PEERS = [("hugging_face", hugging_face_states), ("torchaudios", torchaudio_states)]


def test_the_models_are_hubert_base_but_for_their_layers(hugging_face, torchaudios):
    for _, model in (hugging_face, torchaudios):
        config = model.config
        assert config.conv_layers == WAV2VEC2
        assert (config.dim, config.heads, config.ffn_dim) == (768, 12, 3072)
        assert (config.position_kernel, config.position_groups) == (128, 16)
        assert (config.encoder, config.layers, config.padding) == ("vanilla", LAYERS, "fairseq")
        front_end = sum(parameter.numel() for parameter in model.front_end.parameters())
        assert front_end == 4_200_448


@torch.no_grad()
@pytest.mark.parametrize(("peer", "states_of"), PEERS)
@pytest.mark.parametrize("samples", [400, 16_000])
def test_every_state_of_one_waveform(request, peer, states_of, samples):
    peer, model = request.getfixturevalue(peer)
    waveform = torch.randn(samples)
    expected, _ = states_of(peer, [waveform])
    states = model([waveform])
    assert len(states) == len(expected) == LAYERS + 1
    for state, other in zip(states, expected, strict=True):
        assert state.shape == other.shape
        assert (state - other).abs().max() <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize(("peer", "states_of"), PEERS)
def test_every_valid_frame_of_a_padded_batch(request, peer, states_of, waveforms):
    peer, model = request.getfixturevalue(peer)
    expected, frames = states_of(peer, waveforms)
    assert frames == FRAMES
    states = model(waveforms)
    for state, other in zip(states, expected, strict=True):
        for row, count in enumerate(frames):
            assert (state[row, :count] - other[row, :count]).abs().max() <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize(("peer", "states_of"), PEERS)
def test_a_padded_batch_under_the_peers_own_mask(request, peer, states_of):
    # at 7,190 of 16,000 samples fairseq counts a frame that the peers do not
    peer, model = request.getfixturevalue(peer)
    waveforms = [torch.randn(16_000), torch.randn(7_190)]
    expected, frames = states_of(peer, waveforms)
    features, fairseqs = model.features(waveforms)
    assert (frames, fairseqs) == ([49, 22], [49, 23])
    valid = torch.arange(49) < torch.tensor(frames)[:, None]
    states = model.encode(model.project(features), valid)
    for state, other in zip(states, expected, strict=True):
        assert (state - other)[valid].abs().max() <= 1e-5


@torch.no_grad()
def test_padding_reaches_valid_frames_in_the_peers_as_in_ours(hugging_face, waveforms):
    # what the equality of padded batches would not show if the padding did nothing
    peer, model = hugging_face
    short = waveforms[1]
    alone, _ = hugging_face_states(peer, [short])
    batched, _ = hugging_face_states(peer, waveforms[:2])
    assert (alone[-1][0] - batched[-1][1, :46]).abs().max() > 1e-2
    assert (model([short])[-1][0, :46] - model(waveforms[:2])[-1][1, :46]).abs().max() > 1e-2
