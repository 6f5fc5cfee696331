from medley._transport.session_versions import SessionVersions


def test_the_newest_token_of_a_collection_is_kept_under_either_name() -> None:
    versions = SessionVersions()
    versions.record("photos", "a.2")
    versions.record("collections/photos", "a.10")
    assert versions.get("photos") == "a.10"
    assert versions.get("others") == ""


def test_an_answer_that_was_overtaken_does_not_turn_back_the_clock() -> None:
    versions = SessionVersions()
    versions.record("c", "a.10")
    versions.record("c", "a.9")
    assert versions.get("c") == "a.10"


def test_a_collection_made_anew_starts_anew() -> None:
    versions = SessionVersions()
    versions.record("c", "a.10")
    versions.record("c", "b.1")
    assert versions.get("c") == "b.1"


def test_an_empty_token_tells_nothing() -> None:
    versions = SessionVersions()
    versions.record("c", "a.1")
    versions.record("c", "")
    assert versions.get("c") == "a.1"


def test_only_the_token_that_failed_is_forgotten() -> None:
    versions = SessionVersions()
    versions.record("c", "b.1")
    versions.forget("c", "a.9")
    assert versions.get("c") == "b.1"
    versions.forget("c", "b.1")
    assert versions.get("c") == ""
