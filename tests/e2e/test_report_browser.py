"""The page in a real browser: what it does when it is used, and that it asks for nothing.

Needs playwright (a package) and a Chromium of the system's: playwright's own is not downloaded.
axe-core is looked for where ``.ci/run`` puts it.
"""

import shutil
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "results" / "embedded" / "report.html").as_uri()
AXE = ROOT / "build" / "axe" / "node_modules" / "axe-core" / "axe.min.js"

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Opens the page; at the end, nothing must have gone wrong or out."""
    contexts, faults, requests = [], [], []

    def open_page(width=1400, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: faults.append(m.text) if m.type in ("error", "warning") else 0)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(PAGE)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []
    assert {url for url in requests if not url.startswith("data:")} == {PAGE}


def names(page):
    """The measured rows' names, from the top."""
    rows = page.locator("table.main tbody.rows").first.locator("th[scope=row]")
    return [text.split("\n")[0] for text in rows.all_inner_texts()]


def values(page, column):
    rows = page.locator("table.main tbody.rows").first.locator("tr")
    cells = [row.locator("td").nth(column).get_attribute("data-v") for row in rows.all()]
    return [float(each) for each in cells if each]


def test_a_column_is_sorted_either_way_and_back(opened):
    page = opened()
    before = names(page)
    assert before[:2] == ["vanilla_nano", "bq_vanilla_nano"]
    head = page.locator("table.main th", has_text="KS")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert values(page, 1) == sorted(values(page, 1), reverse=True)
    assert "sorted by KS" in page.locator("#sorted").inner_text()
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert values(page, 1) == sorted(values(page, 1))
    # what is better comes first: of errors, the lowest
    wer = page.locator("table.main th", has_text="ASR")
    wer.get_by_role("button").press("Enter")
    assert wer.get_attribute("aria-sort") == "ascending"
    assert head.get_attribute("aria-sort") == "none"
    for _ in range(2):
        wer.get_by_role("button").click()
    assert names(page) == before


@pytest.mark.parametrize("script", [True, False])
def test_a_cell_opens_where_it_comes_from(opened, script):
    """By mouse and by keyboard, and without JavaScript too."""
    page = opened(java_script_enabled=script)
    row = page.locator("table.main tr", has_text="bq_conformer_nano")
    row.get_by_role("button").nth(1).click()
    dialog = page.get_by_role("dialog")
    assert dialog.count() == 1
    assert dialog.get_by_role("heading").inner_text() == "KS of bq_conformer_nano"
    text = dialog.inner_text()
    for said in ("from conformer_nano", "Holm", "McNemar", "336", "best on dev", "1337", "0.003"):
        assert said in text, said
    links = dialog.get_by_role("link").all()
    assert len(links) == 3
    assert {link.get_attribute("href") for link in links} == {"KS.jsonl.gz"}
    dialog.get_by_role("button", name="Close").click()
    assert page.get_by_role("dialog").count() == 0
    row.get_by_role("button").nth(0).focus()
    page.keyboard.press("Enter")
    assert page.get_by_role("dialog").count() == 1
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0


@pytest.mark.parametrize("script", [True, False])
def test_task_and_cost_are_chosen(opened, script):
    page = opened(java_script_enabled=script)
    shown = page.locator(".choice:visible")
    assert [each.get_attribute("data-choice") for each in shown.all()] == ["KS-bytes"]
    page.locator("label[for=cost-bop]").click()
    page.locator("label[for=task-ASV]").click()
    assert [each.get_attribute("data-choice") for each in shown.all()] == ["ASV-bop"]
    assert "EER" in shown.inner_text()
    page.locator("#cost-bop").focus()
    page.keyboard.press("ArrowLeft")
    assert [each.get_attribute("data-choice") for each in shown.all()] == ["ASV-macs"]


def background(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_light_and_dark(opened):
    light = opened(color_scheme="light")
    assert background(light) == "rgb(255, 255, 255)"
    light.locator("#theme").click()
    dark = opened(color_scheme="dark")
    assert background(light) == background(dark) == "rgb(20, 24, 30)"
    assert dark.locator("#theme").inner_text() == "Light"
    dark.locator("#theme").click()
    assert background(dark) == "rgb(255, 255, 255)"
    # charts go along
    text = "getComputedStyle(document.querySelector('svg.chart text.pt')).fill"
    assert dark.evaluate(text) == "rgb(28, 33, 40)"


@pytest.mark.parametrize("width", [375, 768, 1400])
def test_nothing_is_wider_than_the_window(opened, width):
    page = opened(width=width)
    page.locator("summary").first.wait_for()
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    # the first column stays in sight while the table is scrolled
    region = page.get_by_role("region", name="Table 2, scrolls sideways")
    region.evaluate("e => e.scrollLeft = 400")
    box = page.locator("table.main tbody.rows th").first.bounding_box()
    outer = region.bounding_box()
    assert abs(box["x"] - outer["x"]) < 3
    assert box["width"] < max(0.45 * width, 200)


def test_without_javascript_everything_is_there(opened):
    page = opened(java_script_enabled=False)
    assert len(names(page)) == 13  # with chance
    assert page.locator("svg.chart:visible").count() > 30
    assert page.locator(".tool:visible").count() == 0


def test_it_prints_on_a4(opened):
    page = opened()
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert page.locator(".pills:visible").count() == 0
    # A4 less its margins, at 96 dots an inch
    page.set_viewport_size({"width": 703, "height": 1000})
    width = page.locator("table.main").evaluate("e => e.scrollWidth")
    assert width <= 703
    assert len(page.pdf(format="A4")) > 10_000


@pytest.mark.skipif(
    not AXE.is_file(), reason="no axe-core: npm install --prefix build/axe axe-core"
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(opened, scheme):
    page = opened(color_scheme=scheme)
    page.locator("summary").first.click()
    page.locator("table.main td.cell button").first.click()
    page.evaluate(AXE.read_text())
    # the two differ in nothing but colours
    only = "{runOnly: ['color-contrast']}" if scheme == "dark" else "{}"
    found = page.evaluate(f"axe.run(document, {only})")
    serious = [
        (each["id"], each["help"], [node["target"] for node in each["nodes"]][:3])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []
    assert "color-contrast" in {each["id"] for each in found["passes"]}
