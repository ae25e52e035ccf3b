"""guess: the question shows, the answer waits, every option speaks."""

from html.parser import HTMLParser

import pytest

from hybridlab.course import guess

WHY = {"2 < 4": "It tempts & misleads.", "4": "The last one counts."}


class Outline(HTMLParser):
    """Counts tags, and keeps the text outside of <details> and of each option."""

    def __init__(self, html):
        super().__init__()
        self.outside, self.options, self.names, self.depth = "", [], set(), 0
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag == "details":
            self.depth += 1
            self.options.append("")
            self.names.add(dict(attrs)["name"])
            assert "open" not in dict(attrs)

    def handle_endtag(self, tag):
        self.depth -= tag == "details"

    def handle_data(self, data):
        if self.depth:
            self.options[-1] += data
        else:
            self.outside += data


def test_html_hides_every_reason_inside_its_option():
    page = Outline(guess("Which?", WHY, "4")._repr_html_())
    assert page.outside.startswith("Which?")
    assert page.options == ["A. 2 < 4No. It tempts & misleads.", "B. 4Yes. The last one counts."]
    assert len(page.names) == 1  # opening one closes the other


def test_text_asks_and_does_not_tell():
    assert repr(guess("Which?", WHY, "4")) == "Which?\n  A. 2 < 4\n  B. 4"


def test_reveal_tells_of_every_option():
    said = guess("Which?", WHY, "4").reveal()
    assert said == "Which?\n  A. 2 < 4: no. It tempts & misleads.\n  B. 4: yes. The last one counts."


def test_shows_the_same_each_time():
    assert guess("Which?", WHY, "4")._repr_html_() == guess("Which?", WHY, "4")._repr_html_()


@pytest.mark.parametrize(
    ("options", "answer", "message"),
    [
        pytest.param({"4": "right"}, "4", "expected 2 to 8", id="one option"),
        pytest.param(WHY, "5", "expected one of", id="answer not offered"),
        pytest.param({"2": " ", "4": "right"}, "4", r"\['2'\] say nothing", id="an option without a reason"),
    ],
)
def test_refuses_questions_that_teach_nothing(options, answer, message):
    with pytest.raises(ValueError, match=message):
        guess("Which?", options, answer)


@pytest.mark.browser
def test_options_open_by_click_and_by_key_one_at_a_time():
    lab_server = pytest.importorskip("lab_server", reason="playwright is not installed: it comes with the extra `dev`")
    with lab_server.browser_page() as page:
        page.set_content(guess("Which?", WHY, "4")._repr_html_())
        reason = page.get_by_text("The last one counts.")
        assert not reason.is_visible()
        page.locator("summary").nth(1).click()
        assert reason.is_visible()
        page.locator("summary").nth(0).press("Enter")
        assert not reason.is_visible()
        assert page.get_by_text("It tempts & misleads.").is_visible()
