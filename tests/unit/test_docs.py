"""What the generated pages of docs say is what there is."""

from tools.docs import PROTOS, api_page, settings_page


def test_a_variable_is_told_by_the_name_that_other_pages_use() -> None:
    assert "| `STORE_DATA_DIR` | `data` |" in settings_page()


def test_what_is_secret_and_empty_is_shown_as_empty() -> None:
    assert "``" not in settings_page()


def test_messages_that_fields_are_made_of_are_told_of() -> None:
    assert "index_config" in PROTOS
    assert "### IndexConfig" in api_page()
