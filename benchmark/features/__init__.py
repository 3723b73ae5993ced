"""Hidden states of a frozen upstream, computed once and read back.

A waveform is known by the bytes of its file and by what the task does to it; features are known by
the waveform and by everything of the upstream that can change them. ``waves`` names waveforms,
``store`` holds features on disk, ``source`` feeds an experiment from it (``mixing``: the weighted
sums of a batch), ``demand`` says what a task will ask for, ``costs`` what an upstream takes for it,
``planning`` decides what is worth its bytes, ``extraction`` computes it, ``supply`` does so for a
sweep.

What a task draws at random (crops of noise or of long utterances) is another waveform at each draw:
it is never in a store and always computed live.
"""
