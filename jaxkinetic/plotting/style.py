"""Colours and markers. Colours are Okabe and Ito's, told apart by colour-blind readers and in print."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
