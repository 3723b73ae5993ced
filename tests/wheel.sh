#!/bin/sh
# Builds the wheel, installs it in an environment of its own, and uses it outside the checkout:
# first with the base install alone (tables need no torch, and the other verbs name their extra),
# then with what runs need.
set -eu
bin=$1
root=$(pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip="$work/venv/bin/python -m pip install -q --disable-pip-version-check -c $root/constraints.txt"

"$bin/python" -m build --wheel -o "$work/dist" "$root" >"$work/build.log" 2>&1 ||
  { cat "$work/build.log"; exit 1; }
wheel=$(ls "$work"/dist/*.whl)
"$bin/python" -m venv "$work/venv"
cd "$work"

$pip "$wheel"
"$work/venv/bin/superbit" list tasks
"$work/venv/bin/superbit" list upstreams
"$work/venv/bin/superbit" table 2 --source paper
"$work/venv/bin/python" "$root/tests/helpers/base_install.py"
"$work/venv/bin/python" -c "import importlib.util as u; assert u.find_spec('torch') is None"

$pip "$wheel[run,embedded]"
"$work/venv/bin/superbit" corpus make --out corpora --size tiny
"$work/venv/bin/superbit" sweep --upstreams fbank_no_cmvn,vanilla_nano --tasks KS --limit 3 \
  --scale embedded --paths corpora/paths.yaml --results results
"$work/venv/bin/superbit" status --results results
echo "wheel: installed and used outside the checkout"
