from dataclasses import replace

import pytest

from pcd.teachers import TEACHERS
from pcd.teachers.entry import PublishedHash


@pytest.mark.parametrize(
    ("name", "projector", "predictor"),
    [
        ("mocov3_r50_1000", (512, 4096, 256), (256, 4096, 256)),
        ("mocov3_vitb", (512, 4096, 256), (256, 4096, 256)),
        ("byol_r50_airl", (512, 4096, 256), (256, 4096, 256)),
        ("swav_r50_800", (512, 2048, 128), (128, 2048, 128)),
        ("barlow_r50_1000", (512, 8192, 8192, 8192), (8192, 8192, 8192, 8192)),
    ],
)
def test_students_mlps_have_the_widths_of_the_released_code(
    name: str, projector: tuple[int, ...], predictor: tuple[int, ...]
) -> None:
    assert TEACHERS[name].projector_widths(512) == projector
    assert TEACHERS[name].predictor_widths() == predictor


@pytest.mark.parametrize(
    ("name", "projector", "predictor"),
    [
        ("sup_r18", (512, 1000, 1000), (1000, 1000, 1000)),
        ("densecl_r50", (512, 2048, 2048), (2048, 2048, 2048)),
    ],
)
def test_students_mlps_have_one_hidden_layer_where_the_teacher_has_none(
    name: str, projector: tuple[int, ...], predictor: tuple[int, ...]
) -> None:
    assert TEACHERS[name].projector_widths(512) == projector
    assert TEACHERS[name].predictor_widths() == predictor


@pytest.mark.parametrize(
    ("url", "file_name"),
    [
        ("https://example.org/a/b.pth?download=true", "b.pth"),
        ("file:///a/b%20c.pth.tar", "b c.pth.tar"),
        (None, "demo.pth"),
    ],
)
def test_file_is_named_as_the_publisher_names_it(url: str | None, file_name: str) -> None:
    assert replace(TEACHERS["demo"], url=url).file_name == file_name


def test_first_digits_are_told_from_a_whole_hash() -> None:
    assert str(PublishedHash("sha256", "ab12")) == "sha256 ab12…"
    assert str(PublishedHash("md5", "0" * 32)) == f"md5 {'0' * 32}"
