from eval.palette import arm_colours


def test_an_arm_has_its_colour_by_its_place_in_the_table() -> None:
    assert arm_colours(["pcd", "seed", "pcd"]) == arm_colours(["pcd", "seed"])
    assert arm_colours(["pcd", "seed"])["seed"] == arm_colours(["pcd", "seed", "random"])["seed"]


def test_fourteen_arms_have_fourteen_colours() -> None:
    assert len(set(arm_colours(map(str, range(14))).values())) == 14
