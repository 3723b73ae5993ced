"""``python -m superbit``: the command line."""

import runpy

if __name__ == "__main__":
    runpy.run_module("superbit.benchmark.cli", run_name="__main__", alter_sys=True)
