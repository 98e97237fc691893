"""What pages of docs/ take from the code stands in them, as it is now."""

import re

import docs_blocks
import evidence_tables
import made_blocks
import small_data_tables


def test_the_pages_hold_what_the_code_says():
    found = [
        str(path) for path, _, _ in made_blocks.changes(docs_blocks.FILES, docs_blocks.blocks())
    ]
    assert not found, f"python tools/docs_blocks.py --write: {', '.join(found)}"


def test_every_part_of_a_page_is_made_by_a_tool():
    results = made_blocks.ROOT / "results"
    made = {*docs_blocks.blocks(), *small_data_tables.blocks(results)}
    made |= set(evidence_tables.blocks(results))
    for name in {*docs_blocks.FILES, *small_data_tables.FILES, *evidence_tables.FILES}:
        page = (made_blocks.ROOT / name).read_text()
        begun = re.findall(r"<!-- (?!end of )(.+?) -->", page)
        assert begun == re.findall(r"<!-- end of (.+?) -->", page), name
        assert set(begun) <= made, name


def test_a_changed_part_is_found_and_another_tools_is_left():
    page = (
        "a\n<!-- keys -->\nold\n<!-- end of keys -->\n<!-- claim -->\nkept\n<!-- end of claim -->"
    )
    assert made_blocks.rewritten(page, {"keys": "new"}) == page.replace("old", "\nnew\n")
