import json
import random


class Order:
    def __init__(self, lines):
        self.lines = lines

    def total(self):
        """Sum of all lines, in cents."""
        return sum(line["count"] * line["cents"] for line in self.lines)


def shipping(weight, country, express, gift, member, coupon):
    if country == "DE":
        if weight < 1:
            cents = 399
        elif weight < 5:
            cents = 599
        elif weight < 20:
            cents = 999
        else:
            cents = 2499
        if express:
            cents += 700
    elif country in ("AT", "CH"):
        if weight < 2:
            cents = 899
        else:
            cents = 1799
        if express:
            cents += 1200
    else:
        if weight > 30:
            raise ValueError("too heavy")
        cents = 2999
    if gift:
        cents += 250
    if member and not express:
        cents = 0
    if coupon:
        if coupon == "HALF":
            cents //= 2
        elif coupon == "FREE" and cents < 1000:
            cents = 0
    return cents


def load(path):
    try:
        return json.load(open(path))
    except:
        return None


def reference():
    return "".join(random.choice("ABCDEFGH23456789") for _ in range(8))


def label(order):
    """What is printed on the parcel."""
    return f"order of {len(order.lines)} lines"
