"""Okabe and Ito's colours, told apart by colour-blind readers, each with a dash of its own; base.js has the same ones."""

BLUE, ORANGE, WHITE = "#0072B2", "#E69F00", "#FFFFFF"
RED = "#D55E00"
# Heat maps: blue is positive, orange negative, white between them is zero.
POSITIVE, ZERO, NEGATIVE = BLUE, WHITE, ORANGE
# Lines: colour, and dashes as matplotlib takes them.
SERIES = (
    (BLUE, "solid"),
    (RED, (0, (7, 3))),
    ("#009E73", (0, (2, 3))),
    ("#CC79A7", (0, (9, 3, 2, 3))),
    ("#56B4E9", (0, (4, 2))),
    (ORANGE, (0, (12, 4))),
)
