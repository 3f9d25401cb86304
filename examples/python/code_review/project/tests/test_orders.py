"""The only tests that there are."""

from orders import Order, label


def test_total():
    assert Order([{"count": 2, "cents": 150}]).total() == 300


def test_label():
    assert label(Order([])) == "order of 0 lines"
