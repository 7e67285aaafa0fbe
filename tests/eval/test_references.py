import pytest

from eval.protocols import PROTOCOLS
from eval.references import REFERENCES, printed_references, published
from pcd.students import STUDENTS


def test_every_reference_stands_beside_protocols_and_students_that_there_are() -> None:
    for reference in REFERENCES:
        assert set(reference.protocols) <= set(PROTOCOLS)
        assert reference.student in STUDENTS
        assert reference.source
        assert reference.recipe
        assert reference.figures


def test_the_papers_own_figures_stand_beside_the_fpn_protocols_of_its_student() -> None:
    first = published("mine", "fpn_1x", "resnet18")[0]
    assert first["protocol"] == "mine"
    assert first["figures"] == {"bbox/AP": 37.4, "segm/AP": 34.0}
    assert "schedule not stated" in first["recipe"]


def test_a_named_protocol_without_published_figures_is_unverified() -> None:
    (row,) = published("city", "cityscapes_fpn", "resnet18")
    assert row["source"] == "unverified"
    assert printed_references([row])["box AP"].tolist() == ["unverified"]


def test_nothing_published_compares_with_a_protocol_of_ones_own() -> None:
    assert published("shapes_fpn", None, "resnet18") == []


@pytest.mark.parametrize(("student", "box"), [("resnet34", ["37.6", "38.6"]), ("shufflenet_v2_x1_0", ["unverified"])])
def test_the_printed_rows_have_figures_recipe_and_source(student: str, box: list[str]) -> None:
    printed = printed_references(published("fpn_1x", "fpn_1x", student))
    assert printed["box AP"].tolist() == box
    assert list(printed.columns)[-2:] == ["recipe", "source"]
