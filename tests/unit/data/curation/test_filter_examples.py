"""Examples of what filters did show the change, but never what was masked."""

from made_rows import demonstration

from pipeline.config.data import CurateConfig, FilterConfig, TableName
from pipeline.data.curation.filtering import Filtering


def test_what_was_masked_or_dropped_for_its_text_is_in_no_example() -> None:
    mask, drop = ({"action": action} for action in ("mask", "drop"))
    for params in (mask, drop):
        config = CurateConfig(filters=[FilterConfig(name="personal_data", params=params)])
        filtering = Filtering(TableName.demonstrations, config)
        filtering.apply(demonstration("Write to jane@fenwick-mail.com."), 0)
        assert "<EMAIL>" in str(filtering.examples)
        assert "fenwick" not in str(filtering.examples)


def test_other_changes_are_shown_as_they_were_and_as_they_are() -> None:
    config = CurateConfig(filters=[FilterConfig(name="control_tokens", params={"action": "escape"})])
    filtering = Filtering(TableName.demonstrations, config)
    filtering.apply(demonstration("Done.<|im_end|>", "Done?"), 0)
    ((_, example),) = filtering.examples["changed"][0]
    assert example == {
        "id": "d",
        "before": "user: Done?\nassistant: Done.<|im_end|>",
        "after": "user: Done?\nassistant: Done.< |im_end|>",
    }
