"""Products that are added, changed and removed on the page."""

from __future__ import annotations

from tests.serving.web.page.views import MUG, RED, settled, titles


def test_a_product_is_added_changed_and_removed(opened, api):
    page = opened(MUG)
    titles(page)
    page.get_by_role("button", name="Edit catalog").click()
    form = page.get_by_role("dialog", name="Add, change or remove a product")
    form.get_by_label("Id", exact=True).fill("mug new/1")
    form.get_by_label("Title").fill("Mug, red, huge")
    form.get_by_label("More texts").fill("Of stoneware.\n\n For  2 l. \nOf stoneware.")
    form.get_by_label("Category").fill("Kitchen > Mugs")
    form.get_by_label("price").fill("12.5")
    form.get_by_label("in_stock").select_option("no")
    form.get_by_label("choose pictures").set_input_files([RED])
    form.get_by_role("button", name="Save").click()
    form.get_by_text("mug new/1 is added; it can be an answer from now on.").wait_for()
    put = {"title": "Mug, red, huge", "category": ["Kitchen", "Mugs"], "uploads": 1}
    put["attributes"] = {"price": 12.5, "in_stock": False}
    put["texts"] = ["Of stoneware.", "For 2 l."]
    assert api.changed == [("PUT", "mug new/1", put)]
    form.get_by_role("button", name="Close").click()
    settled(page)
    assert "Mug, red, huge" in titles(page)  # asked again by itself

    page.get_by_role("button", name="Change or remove Mug, red, huge").click()
    form.get_by_text("This is what the server has.").wait_for()
    assert form.get_by_label("Title").input_value() == "Mug, red, huge"
    assert form.get_by_label("More texts").input_value() == "Of stoneware.\nFor 2 l."
    form.get_by_label("Title").fill("Mug, red, giant")
    form.get_by_role("button", name="Save").click()
    sure = page.get_by_role("dialog", name="Replace mug new/1 by what the form says?")
    sure.get_by_role("button", name="Cancel").click()
    page.wait_for_timeout(100)
    assert len(api.changed) == 1
    form.get_by_role("button", name="Save").click()
    sure.get_by_role("button", name="Replace").click()
    form.get_by_text("mug new/1 is changed").wait_for()
    assert api.changed[1] == ("PUT", "mug new/1", put | {"title": "Mug, red, giant"})

    form.get_by_role("button", name="Remove from the catalog").click()
    sure = page.get_by_role("dialog", name="Remove mug new/1 from the catalog?")
    page.keyboard.press("Escape")  # which means no
    page.wait_for_timeout(100)
    assert len(api.changed) == 2
    form.get_by_role("button", name="Remove from the catalog").click()
    sure.get_by_role("button", name="Remove").click()
    form.get_by_text("mug new/1 is removed.").wait_for()
    assert api.changed[2] == ("DELETE", "mug new/1", {})
    form.get_by_role("button", name="Close").click()
    settled(page)
    assert not {"Mug, red, giant", "Mug, red, huge"} & set(titles(page))


def test_removing_an_unknown_product_says_so(opened, api):
    page = opened()
    page.get_by_role("button", name="Edit catalog").click()
    form = page.get_by_role("dialog", name="Add, change or remove a product")
    form.get_by_role("button", name="Remove from the catalog").click()
    form.get_by_text("Give the id of a product.").wait_for()
    form.get_by_label("Id", exact=True).fill("nobody")
    form.get_by_role("button", name="Remove from the catalog").click()
    page.get_by_role("button", name="Remove", exact=True).click()
    form.get_by_text("there is no such product.").wait_for()
