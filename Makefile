# The verbs that a person types and that .ci/run types: the same ones.
PYTHON ?= python3
VENV ?= .venv
# Options for pip, e.g. PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS ?=
JOBS ?= 2
# Processes of "make test": auto is one a core.
TEST_JOBS ?= auto
# Options of a benchmark, e.g. BENCH_ARGS="--tasks KS --steps 20"
BENCH_ARGS ?=
DEMO ?= results/local
# Where "make nano" works, and where it puts its checkpoints: by default beside their variants.
NANO ?= results/local/nano
NANO_OUT ?= upstreams

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
NANOS := vanilla_nano,conformer_nano,squeeze_nano,sparseformer_dn_nano,sparseformer_sw_nano
TWINS := bq_vanilla_nano,bq_conformer_nano,bq_squeeze_nano,bq_sparseformer_dn_nano,bq_sparseformer_sw_nano
DEMO_UPSTREAMS ?= fbank,fbank_no_cmvn,$(NANOS),$(TWINS),vanilla_nano+untrained
DEMO_TASKS := KS,PR,ASR,SID,IC,ER,SF,SD,ASV,QbE
EMBEDDED := results/embedded

.PHONY: help venv demo nano embedded embedded-tables costs bench-corpus bench-kernels bench-sweep test test-thorough test-slow test-slurm test-chaos lint type links format docs wheel-test clean

help:
	@echo "make demo       synthesize corpora, run ten tasks over thirteen upstreams, print Table 2"
	@echo "make nano       train the nano encoders and their twins (planned for 75 minutes on two cores)"
	@echo "make embedded   the demo's sweep with three seeds and the search over learning rates, and"
	@echo "                its tables: what results/embedded holds"
	@echo "make test       the fast tests          make test-thorough  what CI tries beside them"
	@echo "make test-slow  true sizes, minutes"
	@echo "make test-slurm a sweep on a Slurm of two nodes, which it installs and begins: as root, minutes"
	@echo "make test-chaos sweeps that are killed 50 times: an hour"
	@echo "make lint type  ruff and mypy           make format     let ruff rewrite"
	@echo "make bench-corpus  how long 'corpus check' takes at the real number of files"
	@echo "make bench-kernels  how fast twins compute by bits, beside FP32, bf16 and int8: ten minutes"
	@echo "make bench-sweep   hours of SUPERB's tasks with s3prl and with stored features: takes hours;"
	@echo "                BENCH_ARGS=\"--tasks KS --upstreams vanilla_nano --steps 20\" is one task"
	@echo "make docs       the pages as a site, in build/docs"
	@echo "make wheel-test build a wheel and use it in an environment of its own"
	@echo "make clean      remove the environment and what is built (not results)"

venv: $(INSTALLED)

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "superbit needs Python 3.11 or later; say make PYTHON=python3.11 …"; exit 2; }
	@echo "Installing into $(VENV): about two minutes and 2 GB."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) \
	  -c constraints.txt -e ".[run,embedded,report,figures,slurm,test,dev,docs]"
	@touch $@

demo: $(INSTALLED)
	$(BIN)/superbit corpus make --out $(DEMO)/corpora --size demo
	$(BIN)/superbit sweep --upstreams $(DEMO_UPSTREAMS) --tasks $(DEMO_TASKS) --scale embedded \
	  --paths $(DEMO)/corpora/paths.yaml --results $(DEMO) --jobs $(JOBS)
	$(BIN)/superbit table 2 --results $(DEMO)

# What was stopped goes on. A trial: make nano NANO=trial NANO_OUT=trial/out
nano: $(INSTALLED)
	$(BIN)/superbit corpus make --out $(DEMO)/corpora --size demo
	$(BIN)/superbit corpus speech --out $(NANO)/speech --hours 1 --jobs $(JOBS)
	$(BIN)/superbit nano --speech $(NANO)/speech --work $(NANO) \
	  --out $(NANO_OUT) --jobs $(JOBS)

# The records and tables that are committed; what is done is reused.
embedded: $(INSTALLED)
	$(BIN)/superbit corpus make --out $(DEMO)/corpora --size demo
	$(BIN)/superbit sweep --upstreams $(DEMO_UPSTREAMS) --tasks $(DEMO_TASKS) --scale embedded \
	  --seed 1337,1338,1339 --lr search --paths $(DEMO)/corpora/paths.yaml --results $(EMBEDDED) \
	  --cache-dir $(DEMO)/work/features --jobs $(JOBS)
	$(BIN)/superbit results pack $(EMBEDDED)
	$(MAKE) embedded-tables

embedded-tables: $(INSTALLED)
	@grep -v '^#' $(EMBEDDED)/tables.txt | while read -r file arguments; do \
	  $(BIN)/superbit $$arguments --results $(EMBEDDED) > $(EMBEDDED)/$$file || exit 1; done
	$(BIN)/superbit report --results $(EMBEDDED) --out $(EMBEDDED)/report.html
	@for theme in light dark; do \
	  $(BIN)/superbit figure pareto --results $(EMBEDDED) --theme $$theme \
	    --out $(EMBEDDED)/figures/pareto-$$theme.svg && \
	  $(BIN)/superbit figure delta --results $(EMBEDDED) --theme $$theme \
	    --out $(EMBEDDED)/figures/delta-$$theme.svg || exit 1; done

# What the embedded scale's page shows of encoders without building them; made anew where they change.
costs: $(INSTALLED)
	$(BIN)/python -m superbit.benchmark.report.costs > build/costs.json
	mv build/costs.json results/costs.json
	@for twin in $$(echo $(TWINS) | tr , ' '); do $(BIN)/superbit error-flow $$twin --format csv \
	  --out $(EMBEDDED)/error_flow/$$twin.csv || exit 1; done

# In the order of the folders: what takes long, e2e and numerics, begins before the many short ones.
# One thread in each process: more would share the same cores.
ON_ALL_CORES = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder

test: $(INSTALLED)
	$(ON_ALL_CORES)

test-thorough: $(INSTALLED)
	$(ON_ALL_CORES) -m "thorough and not slow and not gpu"

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

# A Slurm of two nodes on this machine: as root, on Debian; minutes.
test-slurm: $(INSTALLED)
	$(BIN)/python -m pytest -m slurm tests/slurm

# Appends to results/bench/chaos.jsonl: sweeps that are killed 50 times, and a full disk (as root).
test-chaos: $(INSTALLED)
	$(BIN)/python -m superbit.benchmark.bench.chaos $(BENCH_ARGS)

# Prints JSON lines as those in results/bench/corpus_check.jsonl.
bench-corpus: $(INSTALLED)
	$(BIN)/python -m superbit.benchmark.bench.corpus_check

# Appends to results/bench/kernels.jsonl.
bench-kernels: $(INSTALLED)
	$(BIN)/python -m superbit.benchmark.bench.kernels $(BENCH_ARGS)

# Appends to results/bench/sweep.jsonl and prints the table of all that is there.
bench-sweep: $(INSTALLED)
	$(BIN)/python -m superbit.benchmark.bench.sweep $(BENCH_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# What reads sources does not follow setuptools' editable finder: it gets the same mapping as links.
links:
	@mkdir -p build/typing/superbit
	@for package in upstreams benchmark downstream_configs results; do \
	  ln -sfn ../../../$$package build/typing/superbit/$$package; done
	@for module in benchmark/api/*.py; do \
	  ln -sfn ../../../$$module build/typing/superbit/; done

type: $(INSTALLED) links
	MYPYPATH=build/typing $(BIN)/mypy -p superbit.upstreams -p superbit.benchmark

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages beside the code as a site in build/docs, to be opened in a browser; a warning is an error.
docs: $(INSTALLED) links
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict -f benchmark/docs/mkdocs.yml
	@echo "The site is in build/docs; open build/docs/index.html."

wheel-test: $(INSTALLED)
	sh tests/wheel.sh $(abspath $(BIN))

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
