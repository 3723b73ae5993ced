import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence


class MyModel(nn.Module):
    def __init__(self, layers=2, dim=64):
        super().__init__()
        self.embed = nn.Linear(320, dim)
        self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(layers))

    def get_downsample_rates(self, key):
        return 320  # samples per frame: 20 ms at 16 kHz

    def forward(self, wavs):
        frames = []
        for wav in wavs:  # one at a time, so that no utterance sees its neighbours
            count = round(len(wav) / 320)
            padded = nn.functional.pad(wav, (0, 320))[: count * 320]
            frames.append(self.embed(padded.view(count, 320)))
        states = [pad_sequence(frames, batch_first=True)]
        for layer in self.layers:
            states.append(torch.relu(layer(states[-1])))
        return {"hidden_states": states}


def my_model(ckpt=None, **kwargs):
    model = MyModel()
    if ckpt is not None:
        model.load_state_dict(torch.load(ckpt, weights_only=True))
    return model
