"""A report made by hand, and how a page is read."""

import io
from html.parser import HTMLParser

from PIL import Image

from eval.report.content import CellReport, Figure, Report, Setting, StageReport, Table

HOSTILE = '<script>alert("x")</script> & co'
LONG = "/a/folder/" + "0123456789abcdef" * 8 + "/spec.json"


def png(width: int = 40, height: int = 30) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, "PNG")
    return file.getvalue()


def figure(name: str = "ap", width: int = 40) -> Figure:
    return Figure(
        name=name, heading=f"Figure {name}", caption="What to see.", alt=f"{name}: box AP 27.1.", png=png(width),
        command=f"python -m eval.aggregate {LONG}",
    )  # fmt: skip


def report(
    missing: tuple[str, ...] = ("The AP table: gone.",), notes: tuple[str, ...] = ("Run by `pcd run`.",)
) -> Report:
    columns = ("arm", *(f"figure {i}" for i in range(14)))
    table = Table(heading="By arm", caption="Per cent.", columns=columns, rows=((HOSTILE, *["27.1 ± 1.8"] * 14),))
    data = StageReport(stage="data", key="d" * 64, command=f"python -m eval.prepare_data {LONG}", differs="")
    lost = StageReport(stage="finetune:b", key="b" * 64, command="", differs="processor another one")
    return Report(
        title="Report of by-hand",
        facts={"Benchmark": "by-hand", "MLflow": f"http://127.0.0.1:5000/{LONG}"},
        missing=missing,
        tables=(table,),
        notes=notes,
        figures=(figure(), figure("losses", width=1300)),
        cells=(
            CellReport(cell="pcd.fpn.seed0", figures="box AP 27.1", trace="pcd trace pcd.fpn.seed0", stages=(data,)),
            CellReport(cell="b.fpn.seed0", figures="", trace="pcd trace b.fpn.seed0", stages=(data, lost)),
            CellReport(cell="c.fpn.seed0", figures="", trace="", stages=(), hole="out of memory"),
        ),
        settings={
            "Pre-training": (Setting(name="pretrain." + "very_" * 9 + "long_name", value=LONG, mark="abstract"),)
        },
        environment={"torch": "2.14.0", "git commit": "c0ffee" * 7},
    )


class Page(HTMLParser):
    """Tags of a page with their attributes, in order, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]
