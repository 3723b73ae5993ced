"""What the processes of a sweep import, for `ready_processes` to import once."""

import scipy.stats  # noqa: F401
import torch._dynamo  # noqa: F401  (torch does so with the first optimizer)

import superbit.benchmark.cli.sweep
import superbit.benchmark.sweeping.launch
import superbit.benchmark.sweeping.sweep
import superbit.upstreams.contract.rules
import superbit.upstreams.hubert  # noqa: F401

# s3prl's heads of the tasks that tests give to other processes.
import s3prl.downstream.ctc.expert  # isort: skip
import s3prl.downstream.fluent_commands.expert  # isort: skip
import s3prl.downstream.speech_commands.expert  # isort: skip
import s3prl.optimizers  # isort: skip
import s3prl.upstream.baseline.expert  # noqa: F401  # isort: skip
