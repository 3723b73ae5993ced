"""How audio becomes hidden states: encoders as s3prl upstreams.

Importing this package makes every registered upstream a name of ``s3prl.hub`` and lets s3prl run
on today's torch; neither torch nor s3prl is imported until an upstream is loaded.
"""

from superbit.upstreams import registry
from superbit.upstreams.errors import InputError
from superbit.upstreams.registry import load, names, pair, register, register_encoder
from superbit.upstreams.s3prl import compat
from superbit.upstreams.spec import UpstreamSpec

__all__ = ["InputError", "UpstreamSpec", "load", "names", "pair", "register", "register_encoder"]

compat.install()
compat.after_import("s3prl.hub", registry.put_into_hub)
