"""benchmarks/ablation.py trains what its table says."""

import pytest

from benchmarks import ablation
from configs import cmu_mv


def config_of(study, variant):
    return ablation.config_of(ablation.STUDIES[study][variant], "data", 0, False).to_dict()


def test_the_last_step_of_the_lifter_s_table_is_the_tuned_config():
    *_, last = ablation.STUDIES["lifter"]
    found, tuned = config_of("lifter", last), cmu_mv.get_config().to_dict()
    assert found["streams"] == tuned["streams"]
    assert found["method"] == {**tuned["method"], "width": ablation.WIDTH}
    share = ablation.EPOCHS / sum(phase["length_epochs"] for phase in tuned["phases"])
    for phase, of_tuned in zip(found["phases"], tuned["phases"], strict=True):
        length = pytest.approx(share * of_tuned["length_epochs"])
        augmentation = {k: v for k, v in of_tuned["augmentation"].items() if v}
        assert phase == {**of_tuned, "length_epochs": length, "augmentation": augmentation}


@pytest.mark.parametrize("study", ablation.STUDIES)
def test_variants_differ_and_leave_the_test_splits_unread(study):
    configs = [config_of(study, variant) for variant in ablation.STUDIES[study]]
    assert all(config["evaluation"]["test"] == ("validation",) for config in configs)
    assert all(configs.count(config) == 1 for config in configs)
