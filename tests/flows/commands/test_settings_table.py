import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.cli import main
from flows.commands.settings_table import as_markdown, list_settings
from flows.settings import Benchmark
from pcd.settings import flat_settings

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"


def test_page_in_the_docs_is_what_the_command_prints() -> None:
    assert PAGE.read_text() == as_markdown(), "write it anew: pcd settings --markdown > docs/settings.md"


def test_every_setting_of_the_method_is_listed_with_its_mark() -> None:
    listed = {row.name: row.mark for row in list_settings()["Pre-training"]}
    expected = {f"pretrain.{name}": mark for name, (_, mark) in flat_settings(Benchmark(name="all").pretrain).items()}
    assert listed == expected | {"pretrain.options": "comparator"}  # each objective has its own


def test_every_setting_has_a_meaning() -> None:
    assert [row.name for rows in list_settings().values() for row in rows if not row.meaning] == []


@pytest.mark.parametrize(
    "name",
    ["teacher_file", "runtime.nodes", "pretrain.loss.pairing", "protocols.NAME.learning_rate", "runtime.knn_folder"],
)
def test_command_prints_the_names_that_set_takes(name: str) -> None:
    assert name in CliRunner().invoke(main, ["settings"]).output


def test_command_prints_json_for_machines() -> None:
    rows = json.loads(CliRunner().invoke(main, ["settings", "--json"]).output)
    assert {"name": "pretrain.loss.temperature", "default": "0.2", "mark": "code"}.items() <= rows["Pre-training"][
        [row["name"] for row in rows["Pre-training"]].index("pretrain.loss.temperature")
    ].items()
