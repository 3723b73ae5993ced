"""HuBERT pre-training: manifests, units, masking, objective, training.

Reference: Hsu et al., 2021, https://arxiv.org/abs/2106.07447; what its published code (fairseq)
does where the paper is silent. Files are fairseq's own: manifests (``.tsv``) and labels (``.km``).
"""
