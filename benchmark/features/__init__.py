"""Hidden states of a frozen upstream, computed once and read back.

A waveform is known by the bytes of its file and by what the task does to it; features are known by
the waveform and by everything of the upstream that can change them. ``waves`` names waveforms,
``store`` holds features on disk, ``source`` feeds an experiment from it, ``demand`` says what a
task will ask for, ``extraction`` computes it, ``planning`` decides what is worth its bytes.

What a task draws at random (KS's silence crops, crops of long utterances in SID and ASV) is another
waveform at each draw: it is never in a store and always computed live.
"""
