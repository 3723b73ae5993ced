"""SD, ASV and QbE: tasks whose number comes from a search over test or layers (procedures.py)."""

from __future__ import annotations

from superbit.benchmark.tasks.binding import Binding, Places, Section


def _bind_mixtures(section: Section, places: Places) -> None:
    from superbit.benchmark.corpora import libri2mix

    folders = libri2mix.bound_dirs(places.paths.section("libri2mix"), places.work_dir)
    for split in ("train", "dev", "test"):
        section["loaderrc"][f"{split}_dir"] = str(folders[split])


def _bind_verification(section: Section, places: Places) -> None:
    from superbit.benchmark.corpora.voxceleb1_dev_trials import dev_trials

    corpus, datarc = places.paths.section("voxceleb1"), section["datarc"]
    lengths = places.work_dir / "trimmed_lengths"
    lengths.mkdir(parents=True, exist_ok=True)
    datarc["file_path"] = str(corpus.root)
    # s3prl never reads this key; superbit's patch of its dataset remembers lengths there.
    datarc["train_meta_data"] = str(lengths)
    datarc["dev_meta_data"] = str(dev_trials(corpus, places.work_dir))
    datarc["test_meta_data"] = str(corpus.trials)


def _bind_queries(section: Section, places: Places) -> None:
    section["datarc"]["dataset_root"] = str(places.paths.section("quesst14").root)


# The expert's own DER is a mean over batches at one threshold: not SUPERB's number.
SD = Binding(metric="acc", batch=("loaderrc", "train_batchsize"), bind=_bind_mixtures)
ASV = Binding(
    metric="EER",
    metric_scale=100.0,
    test_files=None,
    batch=("datarc", "train_batch_size"),
    bind=_bind_verification,
)
QbE = Binding(metric="mtwv", test_files=None, batch=("datarc", "batch_size"), bind=_bind_queries)
