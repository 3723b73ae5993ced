"""Corpus classes of s3prl's ``downstream.ctc`` that its PyPI package lacks, written anew.

``superbit.upstreams.s3prl.compat`` makes them importable under the names s3prl uses.
"""
