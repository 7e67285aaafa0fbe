from pcd.errors import unknown_name


def test_misspelt_name_gets_the_nearest_valid_one() -> None:
    assert str(unknown_name("teacher", "demmo", ["demo", "mocov3_r50_100"])) == (
        'unknown teacher "demmo": did you mean "demo"? valid: demo, mocov3_r50_100'
    )


def test_name_like_no_other_gets_no_suggestion() -> None:
    assert "did you mean" not in str(unknown_name("teacher", "xyz", ["demo"]))


def test_valid_names_are_listed_in_order() -> None:
    assert str(unknown_name("arm", "zzz", {"b", "a", "c"})).endswith("valid: a, b, c")


def test_message_is_one_line() -> None:
    assert "\n" not in str(unknown_name("arm", "zzz", ["a"]))
