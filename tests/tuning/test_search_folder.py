"""A search's folder: where its trials keep what, and what is read of it."""

from ktl.config.settings import SearchConfig
from ktl.tuning.search_folder import SearchFolder, checkpoint_folder, checkpoint_folders, read_trials


def test_the_checkpoints_of_a_trial_are_found_in_the_order_of_their_names(tmp_path):
    for seed in (4, 3):
        checkpoint_folder(tmp_path, seed).mkdir()
    (tmp_path / "trial.json").touch()
    assert checkpoint_folders(tmp_path) == [checkpoint_folder(tmp_path, 3), checkpoint_folder(tmp_path, 4)]


def test_the_table_is_read_as_it_was_written(tmp_path):
    folder = SearchFolder(tmp_path / "out", SearchConfig(dataset="x"))
    folder.write_csv("trials.csv", ["trial", "head", "reason"], [["01", "kept", ""], ["00", "both", 'a, "b"']])
    assert read_trials(folder.path) == [
        {"trial": "01", "head": "kept", "reason": ""},
        {"trial": "00", "head": "both", "reason": 'a, "b"'},
    ]


def test_a_search_without_a_result_has_none_and_one_with_gives_it(tmp_path):
    folder = SearchFolder(tmp_path / "out", SearchConfig(dataset="x"))
    assert folder.result is None
    scores = {"top1": 0.5, "mean_class_accuracy": 0.5, "log_loss": 1.0, "ece": 0.1}
    best = {"trial": "00", "settings": {"scale": 1.0}, "validation_top1": 0.5, "validation_score": 0.5}
    told = {"best": best, "validation": scores, "test": scores, "trials": {"completed": 1}, "oracle": "grid"}
    told |= {"space": {"scale": [1.0]}, "settings": {}, "command": "ktl search", "seconds": 1.5}
    folder.write_result(told)
    assert folder.search_result() == told
    assert folder.best == tmp_path / "out" / "best"
