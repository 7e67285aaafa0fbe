from typing import Any

import pytest

from pcd.flat import flatten


@pytest.mark.parametrize(
    ("nested", "flat"),
    [
        ({"a": 1, "b": {"c": {"d": 2}, "e": None}}, {"a": 1, "b.c.d": 2, "b.e": None}),
        ({"a": [{"b": 1}]}, {"a": [{"b": 1}]}),
        ({"a": {}, "b": {"c": {}}}, {"a": {}, "b.c": {}}),
        ({}, {}),
    ],
)
def test_groups_become_dotted_names_and_none_gets_lost(nested: dict[str, Any], flat: dict[str, Any]) -> None:
    assert flatten(nested) == flat
